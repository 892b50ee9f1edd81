"""A suite's result as JUnit XML, in the dialect of Jenkins' schema (junit-10.xsd), which other CI systems read too.

A run is a test case. `failure` is the agent's; `error` says that nothing was measured, be it a fault of the run or the
simulated caller's; `skipped` was never played to its end. So no pipeline takes an unmeasured scenario for a passed one.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

from qa_worker.domain.run import RunState
from qa_worker.domain.suite import RunResult, SuiteResult

# XML 1.0 has no place for these, not even escaped.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ELEMENTS = {
    RunState.FAILED: "failure",
    RunState.ERROR: "error",
    RunState.INVALID: "error",
    RunState.CANCELLED: "skipped",
    RunState.PENDING: "skipped",
    RunState.RUNNING: "skipped",
}


def junit_xml(suite: SuiteResult) -> str:
    """The XML text. Only the last attempt of each repeat is a test case; spoilt attempts are a property of the suite."""
    counted = [_ELEMENTS.get(run.state) for run in suite.counted]
    numbers = {
        "tests": str(len(counted)),
        "failures": str(counted.count("failure")),
        "errors": str(counted.count("error")),
        "time": _seconds(sum(run.duration_s or 0.0 for run in suite.counted)),
    }
    root = ET.Element("testsuites", {"name": _clean(suite.name), **numbers})
    element = ET.SubElement(
        root, "testsuite", {"name": _clean(suite.name), **numbers, "skipped": str(counted.count("skipped"))}
    )
    if suite.started_at is not None:
        element.set("timestamp", suite.started_at.strftime("%Y-%m-%dT%H:%M:%S"))
    _properties(element, suite)
    for run in suite.counted:
        _case(element, suite, run)
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _properties(parent: ET.Element, suite: SuiteResult) -> None:
    rate = suite.rate
    given = {
        "agent": suite.agent,
        "agent_version": suite.agent_version,
        "passed_of_measured": f"{rate.successes}/{rate.n}",
        "pass_rate_95_percent_interval": f"{rate.interval.low:.3f}-{rate.interval.high:.3f}",
        "attempts_spoilt_by_the_caller": str(suite.spoilt),
        "flaky_scenarios": " ".join(scenario.scenario for scenario in suite.scenarios if scenario.flaky),
    }
    properties = ET.SubElement(parent, "properties")
    for name, value in given.items():
        ET.SubElement(properties, "property", {"name": name, "value": _clean(value)})


def _case(parent: ET.Element, suite: SuiteResult, run: RunResult) -> None:
    name = f"{run.title} (repeat {run.repeat})"
    case = ET.SubElement(
        parent,
        "testcase",
        {
            "classname": _clean(f"{suite.agent}.{run.scenario}"),
            "name": _clean(name),
            "time": _seconds(run.duration_s or 0.0),
        },
    )
    kind = _ELEMENTS.get(run.state)
    if kind is not None:
        result = ET.SubElement(case, kind, {"type": run.state.value, "message": _clean(run.why)})
        result.text = _clean("\n".join(_details(run)))


def _details(run: RunResult) -> list[str]:
    score = "" if run.overall is None else f", score {run.overall} of 100"
    ended = run.completion.value if run.completion else "not ended"
    lines = [f"run {run.run_id}: {ended} after {run.turns} turns{score}"]
    for finding in run.findings:
        where = "" if finding.turn is None else f", turn {finding.turn}"
        lines.append(f"{finding.severity.value} {finding.criterion}{where}: {finding.explanation}")
    lines += [f"fault of the test: {fault}" for fault in run.test_faults]
    return lines


def _seconds(value: float) -> str:
    return f"{value:.3f}"


def _clean(text: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
