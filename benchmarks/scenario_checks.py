"""How well the checks around scenarios do: the simulated caller's validity, and the comparison of two versions.

    python -m benchmarks.scenario_checks --data ../shared/data --comparisons 200

Callers: tau2's retail runs with the brief that fits each (the set's runs and tasks are numbered differently, so briefs are
matched by their words), unaltered, with one digit of one number changed, with another name, and cut off by a caller who
leaves the agent's first question open; EVA's conversations without briefs. Nobody labelled these callers: an alarm in an
unaltered run counts as false. Comparisons: results drawn at random.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.convert import STOP_TOKENS, eva
from qa_worker.domain.caller_facts import names_given
from qa_worker.domain.caller_validity import CallerFault, check
from qa_worker.domain.comparison import compare
from qa_worker.domain.run import Completion, RunState
from qa_worker.domain.scenario import Ends, Play, Scenario
from qa_worker.domain.suite import RunResult, SuiteResult
from qa_worker.domain.transcript import Role, ToolCall, Transcript, Turn, from_json

SCENARIOS = 27
HUNG_UP = Completion.CALLER_HUNG_UP
_WRITES = ("cancel", "modify", "exchange", "return")
_NUMBER = re.compile(r"#?W?\d{5,}")
_ROLES = {"assistant": Role.AGENT, "user": Role.CALLER, "tool": Role.TOOL}


@dataclass(frozen=True)
class Case:
    """One conversation and the brief of its caller."""

    scenario: Scenario
    transcript: Transcript


def retail_cases(data: Path) -> list[Case]:
    """tau2's retail runs, each with the task whose words its caller uses."""
    source = json.loads((data / "tau2_retail" / "tau2_retail.json").read_text("utf-8"))
    tasks = [(task, _words(json.dumps(task["user_scenario"]["instructions"]))) for task in source["tasks"]]
    common = Counter(word for _, words in tasks for word in words)
    cases = []
    for run in source["simulations"]:
        said = _words(" ".join(m["content"] or "" for m in run["messages"] if m["role"] == "user"))
        task = max(tasks, key=lambda entry: _likeness(entry[1], said, common, len(tasks)))[0]
        cases.append(Case(_brief(task), Transcript(tuple(_turns(run["messages"])))))
    return cases


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", text.lower()))


def _likeness(brief: set[str], said: set[str], common: Mapping[str, int], tasks: int) -> float:
    weights = {word: math.log(tasks / common[word]) for word in brief}
    return sum(weights[word] for word in brief & said) / math.sqrt(sum(weights.values()) + 1)


def _brief(task: Mapping[str, Any]) -> Scenario:
    given = task["user_scenario"]["instructions"]
    names = {action["name"] for action in task["evaluation_criteria"]["actions"]}
    return Scenario(
        id="tau2",
        title="tau2",
        agent="retail",
        play=Play.FREE,
        persona=given.get("task_instructions") or "",
        goal=given.get("reason_for_call") or "",
        facts={name: given.get(name) or "" for name in ("known_info", "unknown_info")},
        ends=Ends(tools=tuple(sorted(name for name in names if name.startswith(_WRITES)))),
    )


def _turns(messages: Sequence[Mapping[str, Any]]) -> Iterator[Turn]:
    """The turns as they were sent: this agent tells numbers in fields beside its message, too."""
    for message in messages:
        text = message.get("content") or ""
        for token in STOP_TOKENS:
            text = text.replace(token, "")
        calls = tuple(ToolCall(c["name"], c["arguments"], c["id"]) for c in message.get("tool_calls") or ())
        yield Turn(_ROLES[message["role"]], text, tool_calls=calls, is_error=message.get("error"))


def altered(case: Case, chance: random.Random) -> tuple[Case, int] | None:
    """The case with one digit of the caller's first number changed, and the turn; None where the caller gives none."""
    for place, turn in enumerate(case.transcript.turns):
        number = _NUMBER.search(turn.text) if turn.role is Role.CALLER else None
        if number is None:
            continue
        old = number.group()
        digit = chance.choice([at for at, sign in enumerate(old) if sign.isdigit()])
        new = f"{old[:digit]}{(int(old[digit]) + chance.randint(1, 9)) % 10}{old[digit + 1 :]}"
        if any(new in other.text for other in case.transcript):
            continue
        turns = list(case.transcript.turns)
        turns[place] = replace(turn, text=turn.text.replace(old, new))
        return replace(case, transcript=Transcript(tuple(turns))), place
    return None


def renamed(case: Case) -> tuple[Case, int] | None:
    """The case whose caller introduces itself by another name, and the turn; None where it gives no name."""
    asked = ""
    for place, turn in enumerate(case.transcript.turns):
        if turn.role is Role.AGENT:
            asked = turn.text
        name = next(names_given(turn.text, asked), ()) if turn.role is Role.CALLER else ()
        if name:
            text = re.sub("|".join(map(re.escape, name)), "Zebulon", turn.text, flags=re.IGNORECASE)
            turns = list(case.transcript.turns)
            turns[place] = replace(turn, text=text)
            return replace(case, transcript=Transcript(tuple(turns))), place
    return None


def left(case: Case) -> tuple[Case, int] | None:
    """The case whose caller hangs up when the agent has asked for the first time, and the turn."""
    turns = case.transcript.turns
    asked = next((at for at, turn in enumerate(turns) if turn.role is Role.AGENT and "?" in turn.text), None)
    if asked is None:
        return None
    gone = (*turns[: asked + 1], Turn(Role.CALLER, "Thank you, goodbye."))
    return replace(case, transcript=Transcript(gone)), asked + 1


def _found(case: Case, place: int, fault: CallerFault) -> bool:
    return any(
        one.fault is fault and one.turn == place for one in check(case.scenario, case.transcript, HUNG_UP).faults
    )


def report_callers(data: Path) -> None:
    """Prints alarms in unaltered conversations, and how many faults are found that were put into them."""
    cases = retail_cases(data)
    alarms = Counter(f.fault.value for case in cases for f in check(case.scenario, case.transcript, HUNG_UP).faults)
    chance = random.Random(3)  # noqa: S311 - which digit, always the same
    changed = [found for case in cases if (found := altered(case, chance)) is not None]
    print(f"Callers of {len(cases)} retail runs: alarms {dict(alarms) or 'none'}")
    for name, spoilt, fault in (
        ("one digit of one number altered", changed, CallerFault.INVENTED_FACT),
        ("another name", [found for case in cases if (found := renamed(case))], CallerFault.INVENTED_FACT),
        ("left at the first question", [found for case in cases if (found := left(case))], CallerFault.ENDED_TOO_EARLY),
    ):
        caught = sum(_found(case, place, fault) for case, place in spoilt)
        print(f"  {name}: found in {caught} of {len(spoilt)}")
    unbriefed = Scenario(id="eva", title="EVA", agent="airline", play=Play.FREE)
    rows = [item for name in ("conversation_progression", "faithfulness") for item in eva(data, name)]
    faults = [
        fault.fault
        for item in rows
        for fault in check(unbriefed, from_json(item.call["turns"]), HUNG_UP).faults
        if fault.fault is not CallerFault.INVENTED_FACT
    ]
    print(f"Callers of {len(rows)} EVA conversations, without briefs: alarms {faults or 'none'}")


def drawn(chances: Sequence[float], repeats: int, chance: random.Random, version: str) -> SuiteResult:
    """A suite whose runs pass with these chances."""
    runs = tuple(
        RunResult(
            f"{number}-{repeat}",
            f"s{number}",
            "drawn",
            RunState.PASSED if chance.random() < passes else RunState.FAILED,
            repeat=repeat,
        )
        for number, passes in enumerate(chances)
        for repeat in range(1, repeats + 1)
    )
    return SuiteResult("drawn", "agent", version, runs)


def report_comparisons(count: int) -> None:
    """Prints how often each verdict falls: scenarios pass with chances drawn from Beta(4, 1), 80 % on average."""
    changes: dict[str, Callable[[list[float]], list[float]]] = {
        "identical": lambda chances: chances,
        "20 points worse": lambda chances: [max(0.0, passes - 0.2) for passes in chances],
        "3 broken": lambda chances: [0.0, 0.0, 0.0, *chances[3:]],
    }
    print(f"Comparisons of {SCENARIOS} scenarios, {count} each")
    for name, change in changes.items():
        for repeats in (1, 3, 5, 10):
            chance = random.Random(7)  # noqa: S311 - a simulation, always the same
            verdicts: Counter[str] = Counter()
            for _ in range(count):
                before = [chance.betavariate(4, 1) for _ in range(SCENARIOS)]
                now = drawn(change(before), repeats, chance, "2")
                verdicts[compare(drawn(before, repeats, chance, "1"), now).verdict.value] += 1
            shares = ", ".join(f"{verdict} {times / count:.1%}" for verdict, times in verdicts.most_common())
            print(f"  {name:16} repeats {repeats:2}: {shares}")


def main() -> None:
    """Both reports; callers only where the data is at hand."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--comparisons", type=int, default=200)
    options = parser.parse_args()
    if options.data:
        report_callers(options.data)
    report_comparisons(options.comparisons)


if __name__ == "__main__":
    main()
