"""Other evaluation tools on the same transcripts, the same local server and the same machine, and their ratio to ours.

python -m benchmarks.peers [--calls 300] [--at-once 200] [--latency 1.0] [--only NAME ...]

One judge call for each transcript, all with the same number at once; our pipeline runs first. The tools are installed at
the first run, each into a folder of its own under benchmarks/.peers/ (2.5 GB, most of it promptfoo's); one that can't be
installed is left out. About 3 minutes, and 4 more for installing.

Start-up is no part of the figures: each tool runs twice, with one transcript and with all, and the difference counts; ours
runs already, and counts from the first claim to the last stored verdict. CPU is that of a tool's whole process tree, and of
ours that of the worker, the dispatcher, the database and the broker together. Ours stores its verdicts durably, and its
requests are longer than theirs by the rubric and the agent's policy, some 11 KB. Memory is that of a tool's tree, and of ours
that of the worker process. The ratios are a row's figures divided by those of the first row.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from benchmarks.peers.ours import graded, running
from benchmarks.peers.tools import PEERS, CannotInstallError, Peer, Work, environment, installed
from benchmarks.peers.watch import FailedError, Taken, watched
from benchmarks.rig import Rig, a_call, rig, save, table
from qa_worker.domain.evidence.facts import Evidence
from qa_worker.domain.prompt import user_text
from qa_worker.domain.work import Lane

_OURS = {"one message a call": Lane.LIVE, "bulk lane": Lane.BACKLOG}


def transcripts(calls: int) -> list[str]:
    """The calls as our own judge gets to read them."""
    made = map(a_call, range(calls))
    return [user_text(call.transcript, expected=call.expected, evidence=Evidence(), started_at=None) for call in made]


def run(peer: Peer, system: Rig, texts: list[str], at_once: int) -> Taken:
    """Grade these transcripts, on a server that has forgotten all before.

    Raises:
        CannotInstallError: as it says.
        FailedError: the tool failed, took too long, or left some of the transcripts ungraded.

    """
    home = installed(peer)
    system.control({"reset": True, "default": {"do": "said", "text": peer.answer}})
    with tempfile.TemporaryDirectory(prefix="qa-peer-", ignore_cleanup_errors=True) as name:
        work = Work(Path(name), texts, at_once, system.api_url)
        taken = watched(peer.command(home, work), environment(peer, work), work.folder)
    scored = peer.graded(taken.output)
    if scored != len(texts):
        raise FailedError(f"{scored} of {len(texts)} were graded: {taken.output[-2000:]}")
    return taken


def measured(peer: Peer, system: Rig, *, texts: list[str], at_once: int, latency_s: float) -> dict[str, Any]:
    """The row of a tool. Raises what `run` raises."""
    one = run(peer, system, texts[:1], at_once)
    many = run(peer, system, texts, at_once)
    stats = system.stats()
    return {
        "case": peer.name,
        "version": peer.requirements[0],
        "graded": len(texts),
        "llm_calls": stats["requests"],
        "in_flight": stats["max_in_flight"],
        **figures(one, many, scored=len(texts), latency_s=latency_s),
    }


def figures(one: Taken, many: Taken, *, scored: int, latency_s: float) -> dict[str, float]:
    """What grading takes: the run of all less what the run of one shows to be start and end of the program."""
    start_s = one.wall_s - latency_s
    wall_s = many.wall_s - start_s
    return {
        "wall_s": round(wall_s, 2),
        "evaluations_per_s": round(scored / wall_s, 1),
        "cpu_ms": round(1000 * (many.cpu_s - one.cpu_s) / (scored - 1), 2),
        "rss_mb": round(many.rss_mb),
        "start_s": round(start_s, 1),
        "start_cpu_s": round(one.cpu_s, 1),
    }


def our_rows(*, calls: int, at_once: int, latency_s: float) -> list[dict[str, Any]]:
    """Our own rows."""
    with running(at_once=at_once, latency_s=latency_s) as system:
        return [{"case": f"ours, {name}", **graded(system, lane, calls=calls)} for name, lane in _OURS.items()]


def with_ratios(row: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """The row and its figures divided by those of `base`."""
    rate, cpu = (round(row[name] / base[name], 3) for name in ("evaluations_per_s", "cpu_ms"))
    return {**row, "rate_ratio": rate, "cpu_ratio": cpu}


_COLUMNS = {
    "LLM calls": ("llm_calls", "d"),
    "at once": ("in_flight", "d"),
    "wall s": ("wall_s", ".1f"),
    "evals/s": ("evaluations_per_s", ".1f"),
    "of ours": ("rate_ratio", ".2f"),
    "CPU ms": ("cpu_ms", ".1f"),
    "x ours": ("cpu_ratio", ".1f"),
    "MB": ("rss_mb", "d"),
    "start CPU s": ("start_cpu_s", ".1f"),
}


def _cells(row: Mapping[str, Any]) -> list[str]:
    return [row["case"], *(format(row[name], form) if name in row else "" for name, form in _COLUMNS.values())]


def main() -> int:
    """Run and print; 1 where a tool that could be installed failed."""
    options = _options()
    sizes = {"calls": options.calls, "at_once": options.at_once, "latency_s": options.latency}
    rows = [] if options.without_ours else our_rows(**sizes)
    texts = transcripts(options.calls)
    chosen = [peer for peer in PEERS if not options.only or any(name in peer.name for name in options.only)]
    left_out, failed = [], []
    with rig(latency_s=options.latency) as system:
        for peer in chosen:
            try:
                rows.append(measured(peer, system, texts=texts, at_once=options.at_once, latency_s=options.latency))
            except CannotInstallError as error:
                left_out.append(f"{peer.name} left out: {error}")
            except FailedError as error:
                failed.append(f"{peer.name} failed: {error}")
    if not options.without_ours:
        rows = [with_ratios(row, rows[0]) for row in rows]
    print(f"{options.calls} transcripts, {options.at_once} at once; CPU in ms an evaluation")
    print(table(["", *_COLUMNS], [_cells(row) for row in rows]))
    for row in rows:
        if "cpu_ms_by_part" in row:
            print(f"CPU of {row['case']}:", ", ".join(f"{part} {ms}" for part, ms in row["cpu_ms_by_part"].items()))
    for line in (*left_out, *failed):
        print(line)
    save("peers", {"cores": psutil.cpu_count(), **sizes, "results": rows, "left_out": left_out, "failed": failed})
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--at-once", type=int, default=200)
    parser.add_argument("--latency", type=float, default=1.0, help="of the local Messages API, in seconds")
    parser.add_argument("--only", nargs="*", help="the tools whose name contains one of these")
    parser.add_argument("--without-ours", action="store_true", help="the tools alone, without ratios")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
