from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.peers.__main__ import figures, transcripts, with_ratios
from benchmarks.peers.tools import PEERS, CannotInstallError, Peer, Work, environment, installed
from benchmarks.peers.watch import FailedError, Taken, watched


class Installer:
    def __init__(self, *, fails: bool = False) -> None:
        self.installed: list[tuple[str, ...]] = []
        self._fails = fails

    def __call__(self, folder: Path, requirements: tuple[str, ...]) -> None:
        (folder / "half").touch()
        if self._fails:
            raise CannotInstallError("no network")
        self.installed.append(requirements)


def peer(install: Installer, *requirements: str) -> Peer:
    return replace(PEERS[0], install=install, requirements=requirements or ("tool==1.0",))


def work(folder: Path, *texts: str) -> Work:
    return Work(folder, list(texts), 7, "http://127.0.0.1:1")


def test_a_tool_is_installed_once_for_each_set_of_versions(tmp_path: Path) -> None:
    install = Installer()
    for requirements in (("tool==1.0",), ("tool==1.0",), ("tool==1.0", "sdk==2.0"), ("tool==1.1",)):
        installed(peer(install, *requirements), tmp_path)
    assert install.installed == [("tool==1.0",), ("tool==1.0", "sdk==2.0"), ("tool==1.1",)]


def test_a_failed_installation_is_tried_again(tmp_path: Path) -> None:
    with pytest.raises(CannotInstallError, match="no network"):
        installed(peer(Installer(fails=True)), tmp_path)
    install = Installer()
    installed(peer(install), tmp_path)
    assert install.installed == [("tool==1.0",)]


def test_without_node_promptfoo_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    promptfoo = next(peer for peer in PEERS if peer.name == "promptfoo")
    with pytest.raises(CannotInstallError, match="node and npm are needed"):
        installed(promptfoo, tmp_path)


def test_tools_see_nothing_of_our_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTHER_TOKEN", "hush")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "hush")
    for tool in PEERS:
        seen = environment(tool, work(tmp_path))
        assert "hush" not in seen.values()
        assert (seen["HOME"], seen["ANTHROPIC_BASE_URL"]) == (str(tmp_path), "http://127.0.0.1:1")


def test_every_tool_gets_every_transcript_and_the_number_at_once(tmp_path: Path) -> None:
    texts = transcripts(2)
    for tool in PEERS:
        command = tool.command(tmp_path / "home", work(tmp_path, *texts))
        assert "7" in command
        file = next(Path(part) for part in command if part.endswith(".json"))
        written = file.read_text("utf-8")
        assert "Jordan Miller" in written
        assert "(0-0)" in written
        assert "(1-0)" in written


@pytest.mark.parametrize(
    ("name", "output", "graded"),
    [
        ("deepeval", 'Evaluation completed\n{"graded": 300}\n', 300),
        ("promptfoo", "Results:\n  ✓ 1,200 passed (100%)\n  0 failed (0%)\n", 1200),
        ("promptfoo", "Results:\n  ✗ 300 errors (100%)\n", 0),
    ],
)
def test_the_number_of_graded_transcripts_is_read_from_the_output(name: str, output: str, graded: int) -> None:
    assert next(peer for peer in PEERS if peer.name == name).graded(output) == graded


def test_what_starting_took_is_no_part_of_the_figures() -> None:
    one = Taken(wall_s=5.0, cpu_s=3.0, rss_mb=90.0, output="")
    many = Taken(wall_s=14.0, cpu_s=11.0, rss_mb=200.4, output="")
    found = figures(one, many, scored=201, latency_s=1.0)
    assert (found["wall_s"], found["evaluations_per_s"], found["cpu_ms"]) == (10.0, 20.1, 40.0)
    assert (found["start_s"], found["start_cpu_s"], found["rss_mb"]) == (4.0, 3.0, 200)


def test_ratios_are_the_tools_figures_by_ours() -> None:
    row = with_ratios({"evaluations_per_s": 25.0, "cpu_ms": 40.0}, {"evaluations_per_s": 100.0, "cpu_ms": 5.0})
    assert (row["rate_ratio"], row["cpu_ratio"]) == (0.25, 8.0)


def test_the_cpu_of_a_program_counts_with_that_of_its_children(tmp_path: Path) -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}]); print('done')"
    taken = watched([sys.executable, "-c", parent], os.environ, tmp_path)
    assert taken.output == "done\n"
    assert taken.cpu_s >= 0.3
    assert taken.rss_mb > 1


def test_a_program_that_fails_tells_what_it_said(tmp_path: Path) -> None:
    with pytest.raises(FailedError, match=r"exit status 3: (?s:.*)no such model"):
        watched(
            [sys.executable, "-c", "import sys; print('no such model', file=sys.stderr); sys.exit(3)"],
            os.environ,
            tmp_path,
        )
