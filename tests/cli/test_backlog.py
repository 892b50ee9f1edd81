"""`backlog` and `diff` as a user runs them, with real workers, beat and the local Batches API."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, func, select

from qa_worker.adapters.postgres.backlog_queries import PostgresBacklogQueries
from qa_worker.adapters.postgres.tables import attempts, evaluations, rubric_versions
from qa_worker.messages import Queue
from tests.cli.conftest import Cli, a_record, write
from tests.e2e.workers import Workers, eventually, workers
from tests.servers import behaviours as does
from tests.servers.batches import Outcome
from tests.servers.messages_api import MessagesServer

pytestmark = [pytest.mark.services, pytest.mark.e2e]

REFS = [f"call-{number}" for number in range(5)]


@pytest.fixture
def api() -> Iterator[MessagesServer]:
    with MessagesServer() as server:
        server.batches.ends_after_s = math.inf
        yield server


@pytest.fixture
def keyed(cli: Cli, api: MessagesServer) -> Cli:
    """With a key, for commands and workers."""
    return Cli({**cli.env, "ANTHROPIC_API_KEY": "sk-test", "ANTHROPIC_BASE_URL": api.url})


@pytest.fixture
def fleet(database_url: str, broker_url: str, api: MessagesServer, tmp_path: Path) -> Iterator[Workers]:
    """Workers and beat, with short waits."""
    folder = tmp_path / "logs"
    folder.mkdir()
    extra = {
        "ANTHROPIC_API_KEY": "sk-test",
        "ANTHROPIC_BASE_URL": api.url,
        "QA_BATCH_EVERY_S": "0.5",
        "QA_BATCH_POLL_S": "0.3",
    }
    with workers(database_url=database_url, broker_url=broker_url, folder=folder, extra=extra) as made:
        yield made


def open_states(engine: Engine) -> list[str]:
    return [one.state.value for one in PostgresBacklogQueries(engine).status().open]


def as_json(cli: Cli, *arguments: str) -> dict[str, Any]:
    ran = cli(*arguments, "--json")
    assert ran.code == 0, ran.err
    found: dict[str, Any] = json.loads(ran.out)
    return found


def a_rubric(path: Path) -> Path:
    levels = "".join(f"      {level}: text\n" for level in range(1, 6))
    criterion = f"  - id: response_quality\n    title: Q\n    question: Good?\n    weight: 1\n    levels:\n{levels}"
    path.write_text(f"name: stricter\ncriteria:\n{criterion}")
    return path


def test_calls_are_graded_again_by_a_batch_and_the_changes_are_shown(
    keyed: Cli, fleet: Workers, api: MessagesServer, tmp_path: Path, engine: Engine
) -> None:
    fleet.start(Queue.EVALUATE_CALL)
    first = keyed("evaluate", write(tmp_path / "calls.jsonl", *(a_record(ref) for ref in REFS)), "--json")
    assert [line["verdict"] for line in first.lines] == ["pass"] * 5
    assert as_json(keyed, "backlog", "preview")["calls"] == 0
    keyed("rubric", "set-default", a_rubric(tmp_path / "rubric.yaml"))

    _previews_and_submits(keyed)
    assert "5 wait for a batch" in keyed("backlog", "status").out
    api.batches.default = Outcome(answer=does.Answer(level=1))
    fleet.start(Queue.MAINTENANCE)
    fleet.start_beat()
    eventually(lambda: open_states(engine) == ["in_progress"], what="the batch is sent")
    assert "in progress" in " ".join(keyed("backlog", "status").out.split())
    api.batches.end_all()
    eventually(lambda: open_states(engine) == [], what="the batch is collected")

    (batch,) = as_json(keyed, "backlog", "status")["recent"]
    assert (batch["state"], batch["counts"]["succeeded"], batch["request_count"]) == ("collected", 5, 5)
    assert "5 of 5" in keyed("backlog", "status").out
    _costs_what_its_attempts_cost(batch, engine)
    _shows_what_changed(keyed)


def _previews_and_submits(cli: Cli) -> None:
    preview = as_json(cli, "backlog", "preview")
    assert (preview["calls"], preview["batches"]) == (5, 1)
    (line,) = preview["by_judge"]
    assert (line["rubric"], line["via"], line["graded_before"]) == ("stricter", "batch", 5)
    assert 0 < line["batch_cost_usd"] < line["queue_cost_usd"]
    assert "Nothing was made yet" in cli("backlog", "preview").out
    assert as_json(cli, "backlog", "status")["waiting"] == []
    assert as_json(cli, "backlog", "submit") == {"batch": 5, "queue": 0, "skipped": {}}


def _costs_what_its_attempts_cost(batch: dict[str, Any], engine: Engine) -> None:
    with engine.connect() as connection:
        spent = select(func.sum(attempts.c.cost_micro_usd)).where(attempts.c.request_id == batch["provider_id"])
        assert round(batch["cost_usd"] * 1_000_000) == int(connection.execute(spent).scalar_one()) > 0


def _shows_what_changed(cli: Cli) -> None:
    changes = as_json(cli, "diff")
    assert (changes["graded"], changes["compared"], changes["changed"]) == (5, 5, 5)
    assert changes["matrix"]["pass"]["fail"] == 5
    assert changes["mean_change"] == -75
    assert {call["call"] for call in changes["calls"]} == set(REFS)
    shown = cli("diff").out
    assert "5 of 5 verdicts changed (100.0%)" in shown
    assert "call-3" in shown


def test_a_cancelled_batch_is_graded_through_the_queue(
    keyed: Cli, fleet: Workers, api: MessagesServer, tmp_path: Path, engine: Engine
) -> None:
    keyed("evaluate", write(tmp_path / "calls.jsonl", a_record("one")), "--judge", "rules", "--timeout", "1")
    assert as_json(keyed, "backlog", "submit")["batch"] == 1
    fleet.start(Queue.MAINTENANCE)
    fleet.start_beat()
    eventually(lambda: open_states(engine) == ["in_progress"], what="the batch is sent")
    assert keyed("backlog", "cancel", "nothing").code == 2

    (batch,) = PostgresBacklogQueries(engine).status().open
    assert keyed("backlog", "cancel", str(batch.id)[:8]).code == 0
    fleet.start(Queue.EVALUATE_CALL)

    eventually(lambda: _verdicts(engine, judge="claude") == ["pass"], what="the call is graded")
    assert len(api.requests) == 1


def _verdicts(engine: Engine, *, judge: str) -> list[str | None]:
    verdicts = select(evaluations.c.verdict).join(rubric_versions).where(rubric_versions.c.judge == judge)
    with engine.connect() as connection:
        return list(connection.execute(verdicts).scalars())


def test_without_a_key_a_backlog_goes_through_the_queue(cli: Cli, tmp_path: Path) -> None:
    cli("evaluate", write(tmp_path / "calls.jsonl", a_record("one")), "--judge", "claude", "--timeout", "1")

    preview = as_json(cli, "backlog", "preview")
    assert [(line["judge"], line["via"]) for line in preview["by_judge"]] == [("rules", "queue")]
    refused = cli("backlog", "submit", "--via", "batch")
    assert (refused.code, "--via queue" in refused.err) == (2, True)
    assert as_json(cli, "backlog", "submit") == {"batch": 0, "queue": 1, "skipped": {}}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--since", "yesterday"], "--since"),
        (["--missing", "--all"], "--missing"),
        (["--workspace", "nowhere"], "--workspace"),
    ],
)
def test_bad_options_are_bad_input_with_the_fix(cli: Cli, options: list[str], named: str) -> None:
    ran = cli("backlog", "preview", *options)

    assert ran.code == 2
    assert named in ran.err
    assert "Traceback" not in ran.err


def test_an_empty_system_has_nothing_to_show(cli: Cli) -> None:
    assert "Nothing waits" in cli("backlog", "status").out
    assert "none has an earlier verdict" in cli("diff").out
    assert "0 calls would be graded" in cli("backlog", "preview").out
