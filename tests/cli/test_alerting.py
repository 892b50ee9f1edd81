"""`qa-worker endpoints`, `rules`, `alerts` and `dead-letters`: as programs, with their exit codes, stdout and stderr."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import insert, select

from qa_worker.adapters.postgres.tables import alerts, dead_letters, deliveries, endpoint_secrets, endpoints
from qa_worker.domain.call import workspace_id
from tests.cli.conftest import Cli
from tests.conftest import UnitsOfWork
from tests.letters import DIED_AT, a_message, add_letter, letters
from tests.servers.receiver import Receiver, Reply

pytestmark = pytest.mark.services

URL_SECRET = "hunter2-in-the-path"


@pytest.fixture
def ops(cli: Cli) -> Cli:
    """An operator: a key for secrets, and receivers on this machine are allowed."""
    allowed = {"QA_ALERT_ALLOW_HTTP": "true", "QA_ALERT_ALLOWED_NETWORKS": "127.0.0.0/8"}
    return Cli({**cli.env, **allowed, "QA_SECRET_KEYS": Fernet.generate_key().decode(), "USER": "maria"})


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver that takes everything."""
    with Receiver() as made:
        yield made


def _rows(uow: UnitsOfWork, table: Any) -> list[Any]:
    with uow.engine.connect() as connection:
        return list(connection.execute(select(table)))


def _dead_delivery(uow: UnitsOfWork, *, name: str = "ops", workspace: str = "default") -> uuid.UUID:
    """A dead delivery to this endpoint, with its letter; the letter's id."""
    endpoint = next(row for row in _rows(uow, endpoints) if row.name == name)
    owner, alert_id, delivery_id = workspace_id(workspace), uuid.uuid4(), uuid.uuid4()
    with uow.engine.begin() as connection:
        connection.execute(
            insert(alerts).values(
                id=alert_id,
                workspace_id=owner,
                event="evaluation.failed",
                severity="warning",
                title="Booking: [red]failed[/red]",
                body=b'{"type": "evaluation.failed", "data": {"title": "Booking"}}',
                created_at=datetime.now(UTC),
            )
        )
        values = {"alert_id": alert_id, "endpoint_id": endpoint.id, "workspace_id": owner, "max_attempts": 2}
        connection.execute(
            insert(deliveries).values(id=delivery_id, message_id=f"msg_{delivery_id.hex}", state="dead", **values)
        )
    died = {"kind": "alert", "ref_id": delivery_id, "endpoint_id": endpoint.id, "workspace_id": owner}
    return add_letter(uow, **died, queue="send-alert", task="send-alert", reason="http_404", attempts=1)


def test_a_secret_is_printed_once_when_it_is_made_and_a_url_never(ops: Cli, uow: UnitsOfWork) -> None:
    url = f"http://127.0.0.1:9/{URL_SECRET}"

    made = ops("endpoints", "add", "--kind", "webhook", "--url", url, "--name", "ops", "--json")
    shown = [ops("endpoints", "list"), ops("endpoints", "list", "--json"), ops("endpoints", "disable", "ops")]

    (line,) = made.lines
    assert (made.code, line["name"], line["kind"], line["target"]) == (0, "ops", "webhook", "http://127.0.0.1:9")
    assert line["secret"].startswith("whsec_")
    for ran in (*shown, made):
        assert ran.code == 0
        assert URL_SECRET not in ran.out + ran.err
    for ran in shown:
        assert "whsec_" not in ran.out + ran.err
    (listed,) = shown[1].lines
    assert (listed["state"], listed["target"], listed["consecutive_failures"]) == ("active", "http://127.0.0.1:9", 0)
    (row,) = _rows(uow, endpoints)
    assert URL_SECRET.encode() not in bytes(row.target)
    assert row.state == "disabled"


def test_rotation_prints_a_new_secret_and_keeps_the_old_one_for_a_while(ops: Cli, uow: UnitsOfWork) -> None:
    (first,) = ops("endpoints", "add", "--url", "http://127.0.0.1:9/x", "--json").lines

    (second,) = ops("endpoints", "rotate-secret", "webhook", "--json").lines

    assert first["secret"] != second["secret"]
    assert sorted(row.expires_at is None for row in _rows(uow, endpoint_secrets)) == [False, True]


BAD_INPUT = (
    (("endpoints", "add", "--url", "http://10.0.0.1/x"), "url"),
    (("endpoints", "add", "--url", "ftp://example.com/x"), "url"),
    (("endpoints", "add", "--url", "http://127.0.0.1:9/x", "--name", " "), "name"),
    (("endpoints", "rotate-secret", "nobody"), "name"),
    (("endpoints", "enable", "nobody"), "name"),
    (("alerts", "test", "nobody"), "name"),
    (("alerts", "list", "--before", str(uuid.uuid4())), "before"),
    (("alerts", "show", str(uuid.uuid4())), "No alert"),
    (("rules", "add", "--kind", "score_below"), "threshold"),
    (("rules", "add", "--kind", "score_below", "--threshold", "0"), "threshold"),
    (("rules", "add", "--kind", "needs_review", "--window", "60"), "window_s"),
    (("rules", "add", "--kind", "needs_review", "--endpoint", "nobody"), "endpoint"),
    (("rules", "add", "--kind", "needs_review", "--agent", "nobody"), "agent"),
    (("rules", "remove", "nobody"), "name"),
    (("dead-letters", "show", str(uuid.uuid4())), "No dead letter"),
    (("dead-letters", "list", "--since", "yesterday"), "--since"),
    (("dead-letters", "list", "--before", str(uuid.uuid4())), "before"),
    (("dead-letters", "replay"), "--all"),
    (("dead-letters", "discard"), "--all"),
    (("dead-letters", "replay", "--all", "--kind", "alert"), "--all"),
    (("dead-letters", "discard", "--all"), "reason"),
)
# All of them in one process: to start one takes longer than what is looked at.
RUN_EACH = """
import contextlib, io, json, sys
from qa_worker.cli.main import main
ran = []
for sys.argv in json.load(sys.stdin):
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as ended:
            code = ended.code
    ran.append((code, out.getvalue(), err.getvalue()))
print(json.dumps(ran))
"""


def test_bad_input_names_the_field_and_exits_2(ops: Cli) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", RUN_EACH],
        env=ops.env,
        input=json.dumps([["qa-worker", *arguments] for arguments, _ in BAD_INPUT]),
        capture_output=True,
        text=True,
        check=True,
    )

    for (arguments, field), (code, out, err) in zip(BAD_INPUT, json.loads(ran.stdout), strict=True):
        assert (arguments, code, out) == (arguments, 2, "")
        assert field in " ".join(err.split()), arguments


def test_without_a_key_for_secrets_nothing_is_stored(ops: Cli, uow: UnitsOfWork) -> None:
    ran = ops("endpoints", "add", "--url", "http://127.0.0.1:9/x", QA_SECRET_KEYS="")

    assert ran.code == 2
    assert "QA_SECRET_KEYS" in ran.err
    assert _rows(uow, endpoints) == []


def test_a_rule_is_added_listed_and_removed(ops: Cli) -> None:
    ops("endpoints", "add", "--url", "http://127.0.0.1:9/x", "--name", "ops")

    added = ops(
        "rules", "add", "--kind", "failure_rate", "--name", "too many", "--threshold", "0.2", "--window", "3600",
        "--min-samples", "20", "--severity", "critical", "--endpoint", "ops", "--cooldown", "60",
    )  # fmt: skip
    (rule,) = ops("rules", "list", "--json").lines
    table = " ".join(ops("rules", "list").out.split())

    assert added.code == 0
    assert {name: rule[name] for name in ("name", "threshold", "window_s", "endpoints", "severity", "cooldown_s")} == {
        "name": "too many",
        "threshold": 0.2,
        "window_s": 3600,
        "endpoints": ["ops"],
        "severity": "critical",
        "cooldown_s": 60,
    }
    assert "from 0.2 in 3600 s of at least 20 judged calls" in table
    assert ops("rules", "remove", "too many").code == 0
    assert ops("rules", "list", "--json").out == ""


def test_a_test_event_goes_out_now_and_what_came_back_is_printed(ops: Cli, receiver: Receiver) -> None:
    (made,) = ops("endpoints", "add", "--url", receiver.url, "--name", "ops", "--json").lines
    receiver._secrets = (made["secret"],)

    good = ops("alerts", "test", "ops", "--json")
    receiver.then(Reply(500, b"out of order"))
    bad = ops("alerts", "test", "ops")

    (answer,) = good.lines
    assert (good.code, answer["delivered"], answer["status"], answer["head"]) == (0, True, 200, "ok")
    assert [delivery.verified for delivery in receiver.deliveries] == [True, True]
    assert json.loads(receiver.deliveries[0].body)["type"] == "test"
    assert bad.code == 1
    for text in ("not delivered", "HTTP 500", "out of order"):
        assert text in " ".join(bad.out.split())


def test_letters_are_listed_shown_replayed_and_the_result_is_visible(ops: Cli, uow: UnitsOfWork) -> None:
    ops("endpoints", "add", "--url", "http://127.0.0.1:9/x", "--name", "ops")
    letter = _dead_delivery(uow)
    other = add_letter(uow, kind="run")

    (listed,) = ops("dead-letters", "list", "--endpoint", "ops", "--json").lines
    table = " ".join(ops("dead-letters", "list").out.split())
    shown = " ".join(ops("dead-letters", "show", str(letter)).out.split())
    dry = ops("dead-letters", "replay", "--kind", "alert", "--dry-run", "--json")
    before = [row.state for row in letters(uow)]
    ran = ops("dead-letters", "replay", "--kind", "alert", "--by", "maria", "--json")

    assert (listed["id"], listed["reason"], listed["state"], listed["deaths"]) == (str(letter), "http_404", "open", 1)
    assert "2 dead letters" in table
    for text in ("http_404", "after 1 tries", "to ops"):
        assert text in shown
    assert (dry.lines, before) == ([{"matching": 1, "limit": 100, "replayed": 0}], ["open", "open"])
    (answer,) = ran.lines
    assert (ran.code, answer["replayed"], answer["letter_id"]) == (0, True, str(letter))
    again = next(row for row in _rows(uow, deliveries) if str(row.id) == answer["started"])
    assert again.replay_of is not None
    (replayed,) = ops("dead-letters", "list", "--state", "replayed", "--json").lines
    assert (replayed["settled_by"], replayed["outcome"]) == ("maria", "queued")
    refused = ops("dead-letters", "replay", str(other), "--json")
    assert (refused.code, refused.lines[0]["replayed"]) == (1, False)


def test_letters_are_discarded_with_a_reason(ops: Cli, uow: UnitsOfWork) -> None:
    for _ in range(3):
        add_letter(uow, reason="unknown_task")

    ran = ops(
        "dead-letters", "discard", "--reason", "unknown_task", "--limit", "2", "--note", "old release", "--by", "ann"
    )

    assert ran.code == 0
    assert "2 dead letters were discarded" in ran.out
    assert sorted(row.state for row in letters(uow)) == ["discarded", "discarded", "open"]
    assert {(row.settled_by, row.note) for row in letters(uow)} == {("ann", "old release"), ("", "")}
    assert "3 dead letters" in ops("dead-letters", "list", "--all").out


def test_a_message_whose_broker_is_away_is_not_replayed(ops: Cli, uow: UnitsOfWork) -> None:
    with uow() as work:
        work.dead_letters.add_message(a_message("raise-alerts", rule_id=str(uuid.uuid4())))
        work.commit()

    ran = ops("dead-letters", "replay", "--all", BROKER_URL="redis://127.0.0.1:1/0")

    assert ran.code == 1
    assert "could not be sent, so it stays open" in " ".join(ran.err.split())
    assert [row.state for row in letters(uow)] == ["open"]


def test_pages_follow_each_other_without_gaps(ops: Cli, uow: UnitsOfWork) -> None:
    ids = [str(add_letter(uow, died_at=DIED_AT)) for _ in range(5)]
    seen: list[str] = []
    for _ in range(3):
        more = ("--before", seen[-1]) if seen else ()
        seen += [line["id"] for line in ops("dead-letters", "list", "--limit", "2", *more, "--json").lines]

    assert seen == sorted(ids)


def test_an_alert_is_listed_and_shown_with_its_deliveries_and_no_markup(ops: Cli, uow: UnitsOfWork) -> None:
    ops("endpoints", "add", "--url", "http://127.0.0.1:9/x", "--name", "ops")
    _dead_delivery(uow)

    (listed,) = ops("alerts", "list", "--json").lines
    table = ops("alerts", "list").out
    shown = ops("alerts", "show", listed["id"]).out

    assert [(one["endpoint"], one["state"]) for one in listed["deliveries"]] == [("ops", "dead")]
    assert "[red]failed[/red]" in table
    for text in ('"type": "evaluation.failed"', "to ops", "msg_"):
        assert text in shown


def test_a_url_may_come_from_stdin(ops: Cli, uow: UnitsOfWork) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "qa_worker.cli.main", "endpoints", "add", "--url", "-"],
        env=ops.env,
        input="http://127.0.0.1:9/x\n",
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.returncode == 0, ran.stderr
    assert [row.target_hint for row in _rows(uow, endpoints)] == ["http://127.0.0.1:9"]


def test_letters_of_another_workspace_are_not_chosen(ops: Cli, uow: UnitsOfWork) -> None:
    ops("endpoints", "add", "--url", "http://127.0.0.1:9/x", "--name", "ops")
    _dead_delivery(uow)

    assert ops("dead-letters", "list", "--workspace", "another", "--json").out == ""
    assert len(ops("dead-letters", "list", "--workspace", "default", "--json").lines) == 1
    assert len(_rows(uow, dead_letters)) == 1
