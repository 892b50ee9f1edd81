"""`qa-worker evaluate`: what is printed where, and what the exit codes say."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine

from qa_worker.adapters.postgres.tables import evaluation_scores, evaluations
from tests.cli.conftest import Cli, a_record, write

pytestmark = [pytest.mark.services, pytest.mark.e2e]

FORBIDDEN = {"required_tools": ["move_booking"], "forbidden_phrases": ["goodbye"]}


def test_graded_calls_are_one_json_object_a_line_and_nothing_else(served: Cli, tmp_path: Path) -> None:
    file = write(tmp_path / "calls.jsonl", a_record("one"), a_record("two", expected=FORBIDDEN))

    ran = served("evaluate", file, "--json")

    assert ran.code == 0
    assert [(line["call"], line["verdict"], line["judge"], line["cost_usd"]) for line in ran.lines] == [
        ("one", "pass", "rules", 0),
        ("two", "fail", "rules", 0),
    ]
    assert ran.lines[1]["findings"][0]["check"] == "forbidden_phrase"


def test_a_table_and_a_summary_with_denominators(served: Cli, tmp_path: Path) -> None:
    file = write(tmp_path / "calls.jsonl", a_record("one"), a_record("two", expected=FORBIDDEN))

    ran = served("evaluate", file)

    assert ran.code == 0
    for text in ("Evaluated   2 of 2", "rules (evidence alone)", "50% (1 of 2 with a verdict", "forbidden phrase"):
        assert text in ran.out


def test_fail_on_fail_exits_1(served: Cli, tmp_path: Path) -> None:
    good = write(tmp_path / "good.jsonl", a_record("one"))
    bad = write(tmp_path / "bad.jsonl", a_record("two", expected=FORBIDDEN))

    assert served("evaluate", good, "--fail-on", "fail").code == 0
    assert served("evaluate", bad, "--fail-on", "fail").code == 1
    assert served("evaluate", bad).code == 0


def test_a_bad_record_exits_2_and_the_good_ones_are_graded(served: Cli, tmp_path: Path) -> None:
    broken = a_record("broken")
    broken["turns"][1]["role"] = "customer"
    file = write(tmp_path / "calls.jsonl", a_record("one"), broken, a_record("three"))

    ran = served("evaluate", file, "--json")

    assert ran.code == 2
    assert [line["call"] for line in ran.lines] == ["one", "three"]
    flat = " ".join(ran.err.split())
    for text in ("calls.jsonl:2", "turns[1].role", "caller"):
        assert text in flat


def test_what_could_not_be_graded_exits_3_with_its_reason(served: Cli, tmp_path: Path) -> None:
    """Claude is asked for, and the worker has no key: nothing else stands in for it."""
    file = write(tmp_path / "calls.jsonl", a_record("one"))

    ran = served("evaluate", file, "--json", "--judge", "claude")

    assert ran.code == 3
    (line,) = ran.lines
    assert (line["state"], line["verdict"], line["error"]["code"]) == ("pending", None, "no_judge")
    shown = served("show", "one")
    assert "ANTHROPIC_API_KEY" in " ".join(shown.out.split())


def test_a_call_is_graded_once_however_often_it_is_handed_over(served: Cli, tmp_path: Path) -> None:
    file = write(tmp_path / "calls.jsonl", a_record("one"), a_record("one"))
    served("evaluate", file)

    ran = served("evaluate", file, "--json")

    assert (ran.code, len(ran.lines), ran.lines[0]["attempts"]) == (0, 1, 1)


def test_a_known_id_with_another_content_is_refused(served: Cli, tmp_path: Path) -> None:
    served("evaluate", write(tmp_path / "a.jsonl", a_record("one")))
    changed = a_record("one", expected=FORBIDDEN)

    ran = served("evaluate", write(tmp_path / "b.jsonl", changed, a_record("two")), "--json")

    assert ran.code == 2
    assert [line["call"] for line in ran.lines] == ["two"]
    assert "another content" in " ".join(ran.err.split())


def test_a_rubric_file_grades_by_its_own_criteria(served: Cli, tmp_path: Path) -> None:
    levels = {level: f"level {level}" for level in range(1, 6)}
    rubric = tmp_path / "rubric.yaml"
    rubric.write_text(
        "name: strict\ncriteria:\n  - id: compliance\n    title: Compliance\n    question: Was it right?\n    weight: 1\n"
        "    critical_fails: true\n    levels:\n"
        + "".join(f"      {level}: {text}\n" for level, text in levels.items())
        + "checks:\n  forbidden_phrases: [{phrase: on friday now, criterion: compliance, severity: critical}]\n"
    )

    ran = served("evaluate", write(tmp_path / "calls.jsonl", a_record("one")), "--rubric", rubric, "--json")

    (line,) = ran.lines
    assert (line["rubric"], line["verdict"], list(line["scores"])) == ("strict", "fail", ["compliance"])


def test_a_default_rubric_holds_for_later_calls(served: Cli, tmp_path: Path) -> None:
    rubric = tmp_path / "rubric.yaml"
    levels = "".join(f"      {level}: text\n" for level in range(1, 6))
    rubric.write_text(
        "name: ours\ncriteria:\n  - id: response_quality\n    title: Q\n    question: Good?\n    weight: 1\n    levels:\n"
        + levels
    )
    served("evaluate", write(tmp_path / "a.jsonl", a_record("one")))
    assert served("rubric", "set-default", rubric, "--agent", "booking").code == 0
    assert served("rubric", "set-default", rubric, "--agent", "nobody").code == 2

    ran = served("evaluate", write(tmp_path / "b.jsonl", a_record("two")), "--json")

    assert [line["rubric"] for line in ran.lines] == ["ours"]


def test_a_bad_rubric_exits_2_with_field_and_fix(cli: Cli, tmp_path: Path) -> None:
    rubric = tmp_path / "rubric.yaml"
    rubric.write_text("name: x\ncriteria: []\n")

    ran = cli("evaluate", write(tmp_path / "calls.jsonl", a_record("one")), "--rubric", rubric)

    assert ran.code == 2
    assert "criteria" in ran.err


def test_no_call_at_all_exits_2(cli: Cli, tmp_path: Path) -> None:
    assert cli("evaluate").code == 2
    assert cli("evaluate", tmp_path / "missing.jsonl").code == 2


def test_a_database_that_is_away_exits_3_with_a_hint(bare: Cli, tmp_path: Path) -> None:
    away = {"DATABASE_URL": "postgresql+psycopg2://x@127.0.0.1:1/x", "BROKER_URL": "redis://127.0.0.1:1/0"}

    ran = bare("evaluate", write(tmp_path / "calls.jsonl", a_record("one")), **away)

    assert ran.code == 3
    assert "doctor" in ran.err
    assert "Traceback" not in ran.err


def test_a_database_url_as_hosts_hand_it_out_is_understood(cli: Cli) -> None:
    for scheme in ("postgresql", "postgres"):
        url = cli.env["DATABASE_URL"].replace("postgresql+psycopg2", scheme)
        assert cli("db", "upgrade", DATABASE_URL=url).code == 0


def test_bad_settings_and_files_are_bad_input_and_no_verdict(cli: Cli, tmp_path: Path) -> None:
    binary = tmp_path / "rubric.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    file = write(tmp_path / "calls.jsonl", a_record("one"))

    for ran in (cli("evaluate", file, "--rubric", binary), cli("evaluate", file, QA_LEASE_S="abc")):
        assert ran.code == 2
        assert "Traceback" not in ran.err
    assert "QA_LEASE_S" in cli("evaluate", file, QA_LEASE_S="abc").err


def test_a_broker_that_is_away_costs_time_and_puts_nothing_on_stdout(cli: Cli, tmp_path: Path) -> None:
    file = write(tmp_path / "calls.jsonl", a_record("one"))

    ran = cli("evaluate", file, "--json", "--timeout", "1", BROKER_URL="redis://127.0.0.1:1/0")

    assert [line["state"] for line in ran.lines] == ["queued"]
    assert "nudges_not_sent" in ran.err


def test_what_was_given_up_on_can_be_asked_for_again(served: Cli, tmp_path: Path, engine: Engine) -> None:
    served("evaluate", write(tmp_path / "calls.jsonl", a_record("one")))
    with engine.begin() as connection:
        connection.execute(evaluations.update().values(state="dead", verdict="not_evaluated", is_current=False))
        connection.execute(evaluation_scores.delete())

    assert served("retry").code == 2
    assert served("retry", "nobody").code == 2
    ran = served("retry", "one")

    assert (ran.code, "1 evaluations begin anew" in ran.out) == (0, True)
    again = served("evaluate", write(tmp_path / "calls.jsonl", a_record("one")), "--json")
    assert [line["verdict"] for line in again.lines] == ["pass"]


def test_waiting_ends_with_the_timeout_and_says_what_is_open(cli: Cli, tmp_path: Path) -> None:
    """Nobody works: the call is accepted and stays pending."""
    ran = cli("evaluate", write(tmp_path / "calls.jsonl", a_record("one")), "--json", "--timeout", "1")

    assert ran.code == 3
    assert [(line["state"], line["verdict"]) for line in ran.lines] == [("queued", None)]


def test_without_any_service_a_temporary_stack_does_it(bare: Cli, tmp_path: Path) -> None:
    ran = bare("evaluate", write(tmp_path / "calls.jsonl", a_record("one")), "--json")

    assert (ran.code, [line["verdict"] for line in ran.lines]) == (0, ["pass"])
    assert list((tmp_path / "home").rglob("*")) == []


def test_markup_and_control_characters_in_a_transcript_stay_text(served: Cli, tmp_path: Path) -> None:
    nasty = a_record("[red]x[/red]", expected={"forbidden_phrases": ["[bold]pwned\u001b[2J"]})
    nasty["turns"][1]["text"] = "[link=http://x]\u001b[2Jclick[/link] A7"

    file = write(tmp_path / "calls.jsonl", nasty)
    ran = served("evaluate", file)
    shown = served("show", "[red]x[/red]")

    assert (ran.code, shown.code) == (0, 0)
    assert "\u001b" not in ran.out + shown.out
    assert "[red]x[/red]" in ran.out
    assert "[link=http://x]" in shown.out
