"""`qa-worker scenarios`: what is printed where, and what the exit codes tell apart."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID
from xml.etree import ElementTree as ET

import pytest
import yaml

from qa_worker.application.submit_call import submit_calls
from qa_worker.messages import Queue
from qa_worker.samples.agents import agent_files
from qa_worker.samples.scenarios import scenario_files
from tests.builders import a_call, a_grading
from tests.cli.conftest import Cli
from tests.conftest import UnitsOfWork
from tests.e2e.workers import workers

SAMPLES = scenario_files()[0].parent
AGENTS = {file.stem: file for file in agent_files()}
CLINIC = [file for file in scenario_files() if file.stem.startswith("clinic-")]


@pytest.fixture
def playing(cli: Cli, database_url: str, broker_url: str, tmp_path: Path) -> Iterator[Cli]:
    """With a worker that plays."""
    folder = tmp_path / "logs"
    folder.mkdir()
    with workers(database_url=database_url, broker_url=broker_url, folder=folder) as fleet:
        fleet.start(Queue.RUN_SCENARIO)
        yield cli


def a_scenario_file(folder: Path, ref: str = "plain", **changes: Any) -> Path:
    content = {
        "id": ref,
        "title": f"The {ref} one",
        "agent": "echo",
        "play": "script",
        "opening": "A table, please.",
        "steps": ["Goodbye. [hangs up]"],
        "expected": {"facts": {"the time": ["at ten"]}},
        **changes,
    }
    return _write(folder / f"{ref}.yaml", content)


def an_agent_file(folder: Path, *, says: str = "Gladly, at ten.", version: str = "1", **changes: Any) -> Path:
    content = {
        "id": "echo",
        "version": version,
        "greeting": "Hello, how can I help?",
        "script": {"conversations": [{"begins": ["a table"], "replies": [says, "Goodbye."]}]},
        **changes,
    }
    return _write(folder / f"agent-{version}.yaml", content)


def _write(file: Path, content: dict[str, Any]) -> Path:
    file.parent.mkdir(exist_ok=True)
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return file


def flat(text: str) -> str:
    return " ".join(text.split())


# ------------------------------------------------------------------ validate


def test_the_samples_are_good_and_fit_their_agents(bare: Cli) -> None:
    agents = [part for file in AGENTS.values() for part in ("--agent", file)]

    ran = bare("scenarios", "validate", SAMPLES, *agents)

    assert (ran.code, ran.out.strip(), ran.err) == (0, "30 of 30 scenario files are good", "")


def test_every_fault_is_told_with_file_line_field_and_fix(bare: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "suite"
    a_scenario_file(folder)
    a_scenario_file(folder / "deeper", "twin", id="plain")
    (folder / "broken.yaml").write_text(
        "id: broken\ntitle: x\nagent: echo\nopening: Hello [silence - 20]\nsteps:\n  - 3\nnonsense: 4\n"
    )
    (folder / "torn.yaml").write_text("id: [")

    ran = bare("scenarios", "validate", folder, tmp_path / "missing.yaml")

    assert (ran.code, ran.out) == (2, "")
    for text in (
        "broken.yaml:4: opening: can't be played: [silence - 20] has no unit. Write [silence - 15 seconds]",
        "broken.yaml:6: steps[0]: is 3, and must be a text. Write a list",
        "broken.yaml:7: nonsense: is not a field. Remove it",
        "torn.yaml",
        "missing.yaml: (file): can't be read: No such file",
        "plain.yaml: id: 'plain' is that of",
        "twin.yaml, too. Give each scenario an id of its own",
        "6 faults",
    ):
        assert text in flat(ran.err), text


def test_a_scenario_that_does_not_fit_the_agent_is_a_fault(bare: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "suite"
    a_scenario_file(folder, "other", agent="somebody")
    a_scenario_file(folder, "tools", expected={"required_tools": ["fly"]})
    agent = an_agent_file(tmp_path)

    ran = bare("scenarios", "validate", folder, "--agent", agent)

    assert ran.code == 2
    assert "other.yaml: agent: is 'somebody', and the agent given is 'echo'" in flat(ran.err)
    assert "tools.yaml: expected: names fly, which the agent 'echo' doesn't have" in flat(ran.err)
    assert bare("scenarios", "run", folder, "--agent", agent).code == 2


def test_every_fault_of_the_agents_files_is_told_too(bare: Cli, tmp_path: Path) -> None:
    scenario = a_scenario_file(tmp_path / "suite", agent="somebody")
    agent = an_agent_file(tmp_path, greeting=5, target={"kind": "http", "url": "ftp://a.example/"})

    ran = bare("scenarios", "validate", scenario, "--agent", agent)

    assert (ran.code, ran.out) == (2, "")
    assert "agent-1.yaml:3: greeting: is 5, and must be a text" in flat(ran.err)
    assert 'target.url: is "ftp://a.example/", which no agent can be reached by' in flat(ran.err)
    assert "2 faults" in flat(ran.err)


def test_a_rubric_that_only_a_workspace_can_have_is_a_warning(bare: Cli, tmp_path: Path) -> None:
    ran = bare("scenarios", "validate", a_scenario_file(tmp_path / "suite", rubric="nonexistent"))

    assert ran.code == 0
    assert "rubric: 'nonexistent' must be in the workspace, or a suite with it is refused" in flat(ran.err)


def test_a_tool_without_mocks_is_a_warning_and_no_fault(bare: Cli, tmp_path: Path) -> None:
    tools = [{"name": "refund"}, {"name": "book", "mocks": [{"returns": "ok"}]}, {"name": "end_call"}]
    agent = an_agent_file(tmp_path, tools=tools)
    live = an_agent_file(tmp_path, version="2", tools=tools, target={"kind": "http", "url": "https://a.example/reply"})
    scenario = a_scenario_file(tmp_path / "suite")

    ran = bare("scenarios", "validate", scenario, "--agent", agent)

    assert (ran.code, ran.out.strip()) == (0, "1 of 1 scenario files are good")
    assert flat(ran.err).endswith(
        "agent-1.yaml: tools: refund has no mocks. A call of it gets an error, and counts as a fault of the test"
    )
    assert bare("scenarios", "validate", scenario, "--agent", live).err == ""


def test_an_empty_folder_and_a_tag_that_fits_nothing_are_bad_input(bare: Cli, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    file, agent = a_scenario_file(tmp_path, tags=["hard"]), an_agent_file(tmp_path)

    assert "holds no .yaml" in flat(bare("scenarios", "validate", tmp_path / "empty").err)
    ran = bare("scenarios", "run", file, "--agent", agent, "--tag", "easy")
    assert (ran.code, "--tag: leaves nothing of 1 scenarios" in flat(ran.err)) == (2, True)


def test_a_report_that_could_not_be_written_is_bad_input_before_anything_is_run(bare: Cli, tmp_path: Path) -> None:
    file, agent = a_scenario_file(tmp_path), an_agent_file(tmp_path)

    ran = bare("scenarios", "run", file, "--agent", agent, "--junit", tmp_path / "nowhere" / "x.xml")

    assert (ran.code, "--junit" in ran.err) == (2, True)


# ------------------------------------------------------------------ run


@pytest.mark.services
@pytest.mark.e2e
def test_exit_codes_tell_a_pass_from_a_failure_and_from_what_could_not_be_tested(playing: Cli, tmp_path: Path) -> None:
    file = a_scenario_file(tmp_path)
    good, bad = an_agent_file(tmp_path), an_agent_file(tmp_path, says="At nine.", version="2")
    # A worker without a key has nobody to play this one.
    mute = an_agent_file(tmp_path, version="3", target={"kind": "claude"})

    passed = playing("scenarios", "run", file, "--agent", good, "--repeats", "2")
    failed = playing("scenarios", "run", file, "--agent", bad)
    untested = playing("scenarios", "run", file, "--agent", mute)

    assert (passed.code, failed.code, untested.code) == (0, 1, 3)
    assert "100% passed (2 of 2 measured; 95% interval 34% to 100%)" in passed.out
    assert "pass^2 100% (1 scenarios)" in passed.out
    assert "passed plain #2 after" in flat(passed.err)
    assert "critical plain: the agent never said the time" in flat(failed.out)
    assert "nothing was measured" in untested.out
    assert "ANTHROPIC_API_KEY" in flat(untested.out)


@pytest.mark.services
@pytest.mark.e2e
def test_json_stands_alone_on_stdout_and_junit_in_its_file(playing: Cli, tmp_path: Path) -> None:
    files = [a_scenario_file(tmp_path), a_scenario_file(tmp_path, "late", expected={"facts": {"x": ["at noon"]}})]
    junit = tmp_path / "junit.xml"

    ran = playing(
        "scenarios", "run", *files, "--agent", an_agent_file(tmp_path), "--label", "v7", "--junit", junit, "--json"
    )

    document = json.loads(ran.out)
    assert (ran.code, document["exit_code"], document["agent"]) == (1, 1, {"id": "echo", "version": "v7"})
    assert [(one["scenario"], one["pass_rate"]["passed"]) for one in document["scenarios"]] == [
        ("plain", 1),
        ("late", 0),
    ]
    suite = ET.parse(junit).getroot()  # noqa: S314 - our own file
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "1", "0")


@pytest.mark.services
@pytest.mark.e2e
def test_a_suite_run_is_watched_and_reported_later_by_the_beginning_of_its_id(playing: Cli, tmp_path: Path) -> None:
    file, agent = a_scenario_file(tmp_path), an_agent_file(tmp_path)
    begun = playing("scenarios", "run", file, "--agent", agent, "--no-wait", "--name", "nightly", "--max-turns", "1")
    suite_run = begun.out.strip()

    watched = playing("scenarios", "watch", suite_run)
    reported = playing("scenarios", "report", suite_run[:8], "--json")
    listed = playing("scenarios", "list")

    assert (begun.code, watched.code, reported.code, listed.code) == (0, 0, 0, 0)
    assert "passed plain #1 after 3 turns" in flat(watched.err)
    (run,) = json.loads(reported.out)["scenarios"][0]["runs"]
    assert (run["completion"], run["turns"]) == ("max_turns", 3)
    assert f"{suite_run} nightly echo done" in flat(listed.out)


@pytest.mark.services
@pytest.mark.e2e
def test_a_planted_regression_is_found_and_none_between_identical_versions(playing: Cli, tmp_path: Path) -> None:
    content = yaml.safe_load(AGENTS["clinic"].read_text())
    content["version"] = "v13"
    for talk in content["script"]["conversations"]:
        for reply in talk["replies"]:
            if isinstance(reply, dict):
                reply["calls"] = [call for call in reply.get("calls", ()) if call["tool"] != "find_patient"]
    worse = _write(tmp_path / "clinic-v13.yaml", content)

    def suite(agent: Path, label: str) -> str:
        ran = playing("scenarios", "run", *CLINIC, "--agent", agent, "--repeats", "3", "--no-wait", "--label", label)
        return ran.out.strip()

    first, again, regressed = suite(AGENTS["clinic"], "v12"), suite(AGENTS["clinic"], "v12 again"), suite(worse, "v13")
    codes = [playing("scenarios", "watch", one).code for one in (first, again, regressed)]
    found = playing("scenarios", "compare", first, regressed)
    same = playing("scenarios", "compare", first, again)
    document = json.loads(playing("scenarios", "compare", first, regressed, "--json").out)

    assert codes == [0, 0, 1]
    assert (found.code, same.code) == (1, 0)
    assert found.out.startswith("REGRESSED: v12 -> v13")
    assert "worse: clinic-appointment passed 100% (3 of 3), now 0% (0 of 3)" in found.out
    assert "clinic-emergency" not in found.out
    assert same.out.startswith("NO DIFFERENCE SHOWN: v12 -> v12 again")
    assert "0 got worse, 0 better" in same.out
    assert (document["verdict"], document["pairs"]) == ("regressed", {"n": 30, "worse": 18, "better": 0})


@pytest.mark.services
@pytest.mark.e2e
def test_without_any_service_a_temporary_stack_plays_it(bare: Cli, tmp_path: Path) -> None:
    ran = bare("scenarios", "run", a_scenario_file(tmp_path), "--agent", an_agent_file(tmp_path), "--json")

    assert (ran.code, json.loads(ran.out)["states"]["passed"]) == (0, 1)
    assert list((tmp_path / "home").rglob("*")) == []


def test_nobody_waits_for_a_stack_that_is_not_there(bare: Cli, tmp_path: Path) -> None:
    ran = bare("scenarios", "run", a_scenario_file(tmp_path), "--agent", an_agent_file(tmp_path), "--no-wait")

    assert (ran.code, "qa-worker up" in ran.err) == (3, True)


# ------------------------------------------------------------------ cancel, and what nobody knows


@pytest.mark.services
def test_cancelled_runs_are_kept_and_count_as_not_tested(cli: Cli, tmp_path: Path) -> None:
    """Nobody plays: all runs wait."""
    file, agent = a_scenario_file(tmp_path), an_agent_file(tmp_path)
    suite_run = cli("scenarios", "run", file, "--agent", agent, "--repeats", "3", "--no-wait").out.strip()
    waiting = json.loads(cli("scenarios", "report", suite_run, "--json").out)
    one = waiting["scenarios"][0]["runs"][0]["run"]

    single = cli("scenarios", "cancel", one)
    after_one = json.loads(cli("scenarios", "report", suite_run, "--json").out)["states"]
    whole = cli("scenarios", "cancel", suite_run)
    over = cli("scenarios", "watch", suite_run)

    assert (single.code, f"run {one} is cancelled" in flat(single.out)) == (0, True)
    assert (after_one["pending"], after_one["cancelled"]) == (2, 1)
    assert (whole.code, over.code) == (0, 3)
    assert "Runs 3: 3 cancelled" in flat(over.out)
    assert "cancelled plain #1 and 2 more: cancelled while it waited" in flat(over.out)


@pytest.mark.services
@pytest.mark.parametrize("command", ["report", "watch", "cancel"])
def test_another_workspaces_suite_runs_are_not_known(cli: Cli, tmp_path: Path, command: str) -> None:
    file, agent = a_scenario_file(tmp_path), an_agent_file(tmp_path)
    suite_run = cli("scenarios", "run", file, "--agent", agent, "--no-wait").out.strip()
    one = json.loads(cli("scenarios", "report", suite_run, "--json").out)["scenarios"][0]["runs"][0]["run"]

    for known_as in (suite_run, one):
        ran = cli("scenarios", command, known_as, "--workspace", "other")
        assert (ran.code, ran.out) == (2, "")
    assert json.loads(cli("scenarios", "report", suite_run, "--json").out)["states"]["pending"] == 1


@pytest.mark.services
def test_watching_ends_with_the_timeout_and_says_that_it_goes_on(cli: Cli, tmp_path: Path) -> None:
    file, agent = a_scenario_file(tmp_path), an_agent_file(tmp_path)

    ran = cli("scenarios", "run", file, "--agent", agent, "--timeout", "1")

    assert ran.code == 3
    assert "1 pending" in ran.out
    assert "It goes on" in flat(ran.err)


@pytest.mark.services
@pytest.mark.parametrize(
    ("command", "known_as"), [("cancel", str(UUID(int=1))), ("report", "abc"), ("show", "0123"), ("from-call", "x")]
)
def test_what_nobody_knows_is_bad_input(cli: Cli, command: str, known_as: str) -> None:
    ran = cli("scenarios", command, known_as)

    assert (ran.code, ran.out, "Traceback" in ran.err) == (2, "", False)
    assert known_as in ran.err


# ------------------------------------------------------------------ show


@pytest.mark.services
@pytest.mark.e2e
def test_a_run_is_shown_with_all_that_was_said_also_where_it_was_not_graded(playing: Cli, tmp_path: Path) -> None:
    steps = ["[silence - 4 seconds] Are you there?", "Goodbye. [hangs up]"]
    file = a_scenario_file(tmp_path, steps=steps)
    suite = json.loads(playing("scenarios", "run", file, "--agent", an_agent_file(tmp_path), "--json").out)
    run_id = suite["scenarios"][0]["runs"][0]["run"]

    shown = playing("scenarios", "show", run_id[:12])
    document = json.loads(playing("scenarios", "show", run_id, "--json").out)

    assert shown.code == 0
    text = flat(shown.out)
    assert "plain #1: passed, caller_hung_up after 6 turns" in text
    assert "caller A table, please." in text
    assert "as written: [silence - 4 seconds] Are you there?" in text
    assert "The caller was played by script, judged by rules" in text
    assert (document["schema"], document["run"], document["state"]) == ("voicenoob-qa/run/1", run_id, "passed")
    assert [turn["turn"]["role"] for turn in document["conversation"]] == ["agent", "caller"] * 3
    assert document["conversation"][3]["line"]["text"] == steps[0]


@pytest.mark.services
def test_a_run_that_nobody_has_played_is_shown_and_other_workspaces_runs_are_not(cli: Cli, tmp_path: Path) -> None:
    file, agent = a_scenario_file(tmp_path), an_agent_file(tmp_path)
    suite_run = cli("scenarios", "run", file, "--agent", agent, "--repeats", "2", "--no-wait").out.strip()
    runs = json.loads(cli("scenarios", "report", suite_run, "--json").out)["scenarios"][0]["runs"]
    cli("scenarios", "cancel", runs[0]["run"])

    cancelled, waiting = (flat(cli("scenarios", "show", run["run"]).out) for run in runs)
    other = cli("scenarios", "show", runs[0]["run"], "--workspace", "other")
    many = cli("scenarios", "show", "")

    assert "plain #1: cancelled, cancelled after 0 turns" in cancelled
    assert "cancelled while it waited" in cancelled
    assert "plain #2: pending after 0 turns" in waiting
    assert (other.code, many.code, "No run is called" in other.err) == (2, 2, True)


# ------------------------------------------------------------------ from-call


@pytest.mark.services
def test_a_draft_of_a_call_is_a_scenario_that_validates(cli: Cli, uow: UnitsOfWork, tmp_path: Path) -> None:
    submit_calls([a_call("oh-7")], workspace_name="default", uow=uow, grading=a_grading(), in_flight_limit=9)
    draft = tmp_path / "draft.yaml"

    printed = cli("scenarios", "from-call", "oh-7")
    written = cli("scenarios", "from-call", "oh-7", "-o", draft)
    again = cli("scenarios", "from-call", "oh-7", "-o", draft)

    assert (printed.code, written.code, again.code) == (0, 0, 2)
    assert written.out == ""
    assert draft.read_text() == printed.out
    assert yaml.safe_load(printed.out)["id"] == "from-oh-7"
    assert cli("scenarios", "validate", draft).code == 0
