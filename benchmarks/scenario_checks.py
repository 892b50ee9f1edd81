"""How well the checks around scenarios do: the simulated caller's validity, and the comparison of two versions.

    python -m benchmarks.scenario_checks --data ../shared/data --comparisons 200

Callers: tau2's retail runs with the brief that fits each (the set's runs and tasks are numbered differently, so briefs are
matched by their words), unaltered and with one digit of one number changed; EVA's conversations without briefs. Nobody
labelled these callers: an alarm in an unaltered run counts as false. Comparisons: results drawn at random.
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


def report_callers(data: Path) -> None:
    """Prints alarms in unaltered conversations, and how many altered numbers are found."""
    cases = retail_cases(data)
    alarms = Counter(f.fault.value for case in cases for f in check(case.scenario, case.transcript, HUNG_UP).faults)
    chance = random.Random(3)  # noqa: S311 - which digit, always the same
    changed = [found for case in cases if (found := altered(case, chance)) is not None]
    caught = sum(
        any(
            fault.fault is CallerFault.INVENTED_FACT and fault.turn == place
            for fault in check(case.scenario, case.transcript, HUNG_UP).faults
        )
        for case, place in changed
    )
    print(f"Callers of {len(cases)} retail runs: alarms {dict(alarms) or 'none'}")
    print(f"  one digit of one number altered: found in {caught} of {len(changed)}")
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
