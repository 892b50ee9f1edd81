"""`up`, `status`, `show`, `doctor`, `down`, as a new user runs them one after the other."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory

from qa_worker.adapters.postgres.migrate import config
from qa_worker.embedded.stack import running
from tests.cli.conftest import Cli, a_record, write
from tests.e2e.workers import eventually

pytestmark = [pytest.mark.services, pytest.mark.e2e]

NEWEST = ScriptDirectory.from_config(config("postgresql://")).get_current_head()


def _flower(url: str, *, user: str = "", password: str = "") -> int:
    request = urllib.request.Request(url + "/workers")  # noqa: S310 - loopback
    if user:
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        request.add_header("Authorization", f"Basic {token}")
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 - loopback
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def test_a_first_session(bare: Cli, tmp_path: Path) -> None:
    assert bare("status").code == 3
    up = bare("up", "--flower-port", "0")
    try:
        assert up.code == 0, up.err
        assert "running already" in bare("up").out
        _grades_and_shows(bare, tmp_path)
        _is_healthy_with_flower_behind_a_password(bare)
        _knows_its_own_database_by_url_and_tells_of_an_endpoint_that_is_off(bare)
    finally:
        down = bare("down")
    assert down.code == 0
    assert bare("status").code == 3

    again = bare("up", "--flower-port", "0")
    try:
        assert again.code == 0
        assert bare("show", "one").code == 0, "the data of a stack outlive it"
    finally:
        removed = bare("down", "--remove")
    assert "deleted" in removed.out
    assert list((tmp_path / "home").rglob("PG_VERSION")) == []


def _grades_and_shows(cli: Cli, folder: Path) -> None:
    ran = cli("evaluate", write(folder / "calls.jsonl", a_record("one")), "--json")
    assert (ran.code, [line["verdict"] for line in ran.lines]) == (0, ["pass"])
    assert "temporary" not in ran.err

    shown = cli("show", "one", "--json")
    assert shown.lines[0]["evaluations"][0]["verdict"] == "pass"
    text = " ".join(cli("show", "one").out.split())
    for expected in ("Booking A7 is on Friday now", "by rules", "100 of 100", "1 attempts"):
        assert expected in text
    assert cli("show", "two").code == 2


def _is_healthy_with_flower_behind_a_password(cli: Cli) -> None:
    doctor = cli("doctor")
    assert doctor.code == 0, doctor.out
    assert f"schema at {NEWEST}" in " ".join(doctor.out.split())

    status = cli("status", "--json")
    state = json.loads(status.out)
    assert (status.code, state["healthy"], state["evaluations"]) == (0, True, {"done": 1})
    assert (state["waits_for"], state["breaker"]["state"]) == ({}, "closed")
    meters = ["requests", "input_tokens", "output_tokens"]
    assert [(bucket["model"], bucket["meter"]) for bucket in state["buckets"]] == [
        ("claude-haiku-5-5", meter) for meter in meters
    ]
    assert state["dead_letters"] == {"depth": 0, "open_by_kind": {}, "oldest_open_s": None, "unannounced": 0}
    assert state["budgets_micro_usd"][0] == {"workspace": "", "spent": 0, "cap": None}
    names = {process["name"] for process in state["processes"]}
    assert {"worker-evaluate-call", "worker-maintenance", "beat", "flower"} <= names

    file = Path(state["home"]) / "flower.json"
    assert (file.stat().st_mode & 0o777) == 0o600
    access = json.loads(file.read_text())
    eventually(lambda: _flower(access["url"]) == 401, what="Flower asks for a password")
    assert _flower(access["url"], user=access["user"], password=access["password"]) == 200


def _knows_its_own_database_by_url_and_tells_of_an_endpoint_that_is_off(cli: Cli) -> None:
    stack = running(Path(json.loads(cli("status", "--json").out)["home"]))
    assert stack is not None
    url, own = "https://hooks.example.com/x", stack.database_url.replace("+psycopg2", "")

    added = cli("endpoints", "add", "--url", url, "--name", "ops", DATABASE_URL=own)

    assert added.code == 0, added.err
    assert cli("endpoints", "disable", "ops").code == 0
    off = {"workspace": "default", "name": "ops", "reason": "By hand."}
    assert json.loads(cli("status", "--json").out)["endpoints_off"] == [off]
    assert "Endpoint ops (default) is switched off: By hand." in " ".join(cli("status").out.split())


def test_doctor_names_what_is_wrong_and_the_fix(bare: Cli) -> None:
    away = {"DATABASE_URL": "postgresql+psycopg2://x@127.0.0.1:1/x", "BROKER_URL": "redis://127.0.0.1:1/0"}

    ran = bare("doctor", **away)

    assert ran.code == 1
    flat = " ".join(ran.out.split())
    for text in ("PostgreSQL", "Broker", "wrong", "Is it running"):
        assert text in flat


def test_doctor_of_a_new_machine_finds_nothing_wrong(bare: Cli) -> None:
    ran = bare("doctor")

    assert ran.code == 0
    assert "ANTHROPIC_API_KEY" in ran.out


def test_a_command_without_any_stack_says_what_to_do(bare: Cli) -> None:
    ran = bare("show", "one")

    assert ran.code == 3
    assert "qa-worker up" in ran.err


def test_the_schema_can_be_upgraded_at_any_time(cli: Cli) -> None:
    ran = cli("db", "upgrade")

    assert (ran.code, ran.out.strip()) == (0, f"schema at {NEWEST}")
