"""docker-compose.yml: well formed, without secrets, and the same programs as the local stack."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from qa_worker.cli.stack_spec import WORKERS, beat_arguments, flower_arguments, stack_spec, worker_arguments
from qa_worker.messages import Queue

ROOT = Path(__file__).parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ONE_SHOTS = {"migrate"}

TEXT = {"type": "string"}
TEXTS = {"type": "array", "items": TEXT}
DURATION = {"type": "string", "pattern": r"^\d+(ms|s|m)$"}
MAPPING = {"type": "object", "additionalProperties": TEXT}
DEPENDENCY = {
    "type": "object",
    "properties": {"condition": {"enum": ["service_healthy", "service_completed_successfully"]}},
    "required": ["condition"],
    "additionalProperties": False,
}
HEALTHCHECK = {
    "type": "object",
    "properties": {
        "test": {"type": "array", "prefixItems": [{"enum": ["CMD", "CMD-SHELL"]}], "items": TEXT, "minItems": 2},
        "interval": DURATION,
        "timeout": DURATION,
        "start_period": DURATION,
        "start_interval": DURATION,
        "retries": {"type": "integer"},
    },
    "required": ["test", "interval", "timeout", "retries"],
    "additionalProperties": False,
}
SERVICE = {
    "type": "object",
    "properties": {
        "build": TEXT,
        "image": TEXT,
        "user": TEXT,
        "init": {"type": "boolean"},
        "read_only": {"type": "boolean"},
        "restart": {"enum": ["no", "unless-stopped"]},
        "stop_grace_period": DURATION,
        "shm_size": TEXT,
        "tmpfs": TEXTS,
        "cap_drop": TEXTS,
        "security_opt": TEXTS,
        "command": TEXTS,
        "ports": TEXTS,
        "volumes": TEXTS,
        "networks": TEXTS,
        "environment": MAPPING,
        "env_file": {"type": "array", "items": {"required": ["path", "required"]}},
        "logging": {"type": "object", "properties": {"driver": TEXT, "options": MAPPING}, "required": ["driver"]},
        "depends_on": {"type": "object", "additionalProperties": DEPENDENCY},
        "healthcheck": HEALTHCHECK,
    },
    "required": ["image", "restart", "networks", "logging"],
    "additionalProperties": False,
}
SCHEMA = {
    "type": "object",
    "properties": {
        "name": TEXT,
        "services": {"type": "object", "additionalProperties": SERVICE},
        "networks": {"type": "object"},
        "volumes": {"type": "object"},
    },
    "patternProperties": {"^x-": {}},
    "additionalProperties": False,
}
"""What this file uses of the Compose format. A key that is not in it is a typing error or belongs here too."""

each_service = pytest.mark.parametrize("name", SERVICES)
each_queue = pytest.mark.parametrize("queue", WORKERS)


def worker_of(queue: Queue) -> dict[str, Any]:
    return SERVICES[f"worker-{queue.value}"]


def test_only_known_keys_with_values_of_the_right_kind_are_used() -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(COMPOSE)


def test_the_official_schema_agrees() -> None:
    package = importlib.util.find_spec("check_jsonschema")
    if package is None or package.origin is None:
        pytest.skip("check-jsonschema, which brings the official schema of the Compose format, is not installed")
    schema = Path(package.origin).parent / "builtin_schemas" / "vendor" / "compose-spec.json"
    jsonschema.validate(COMPOSE, json.loads(schema.read_text()))


@each_service
def test_what_a_service_refers_to_is_declared(name: str) -> None:
    service = SERVICES[name]
    assert set(service["networks"]) <= set(COMPOSE["networks"])
    assert {volume.partition(":")[0] for volume in service.get("volumes", [])} <= set(COMPOSE["volumes"])
    dependencies = service.get("depends_on", {})
    assert set(dependencies) <= set(SERVICES)
    for other, dependency in dependencies.items():
        expected = "service_completed_successfully" if other in ONE_SHOTS else "service_healthy"
        assert dependency["condition"] == expected


@each_service
def test_every_lasting_service_is_watched_and_restarted(name: str) -> None:
    service = SERVICES[name]
    assert ("healthcheck" in service) == (name not in ONE_SHOTS)
    assert service["restart"] == ("no" if name in ONE_SHOTS else "unless-stopped")


@each_queue
def test_a_queue_has_the_worker_that_the_local_stack_gives_it(queue: Queue) -> None:
    worker = worker_of(queue)
    assert worker["command"] == list(worker_arguments(queue))
    assert worker["command"][1:5] == ["-A", "qa_worker.celery_app", "worker", "-Q"]
    assert worker["command"][5].split(",")[0] == queue.value
    assert worker["healthcheck"]["test"][1].endswith(f"inspect ping -d {queue.value}@$$HOSTNAME")


def test_no_worker_is_there_without_its_queue() -> None:
    assert {name for name in SERVICES if name.startswith("worker-")} == {f"worker-{queue.value}" for queue in WORKERS}


@each_queue
def test_a_worker_gets_at_least_the_grace_of_the_local_stack(queue: Queue, tmp_path: Path) -> None:
    grace = max(
        command.grace_s for command in stack_spec(tmp_path, database_url="", broker_url="", flower=None).processes
    )
    assert float(worker_of(queue)["stop_grace_period"].removesuffix("s")) >= grace


def test_beat_and_flower_run_as_in_the_local_stack() -> None:
    schedule = "/var/lib/qa-worker/schedule"
    assert SERVICES["beat"]["command"] == list(beat_arguments(schedule))
    assert schedule in " ".join(SERVICES["beat"]["healthcheck"]["test"])
    # Inside its container Flower must listen to the port that is published.
    assert SERVICES["flower"]["command"] == [
        argument.replace("127.0.0.1", "0.0.0.0")  # noqa: S104 - see above
        for argument in flower_arguments(5555)
    ]


def test_nothing_is_published_but_flower_on_the_loopback_interface() -> None:
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert ports == {"flower": ["127.0.0.1:${FLOWER_PORT:-5555}:5555"]}
    assert COMPOSE["networks"]["data"] == {"internal": True}
    assert {name for name, service in SERVICES.items() if "outside" in service["networks"]} == {
        "worker-evaluate-call",
        "worker-run-scenario",
        "worker-send-alert",
        "worker-maintenance",
        "flower",
    }


@each_service
def test_no_secret_is_in_the_file_or_on_a_command_line(name: str) -> None:
    service = SERVICES[name]
    for variable, value in service.get("environment", {}).items():
        if re.search("PASSWORD|AUTH|_URL", variable):
            assert re.search(r"\$\{[A-Z_]+:\?[^}]+\}", value), variable
        if "KEY" in variable:
            assert value == f"${{{variable}:-}}"
    assert "${" not in " ".join(service.get("command", []))


def test_only_those_who_ask_claude_get_its_key() -> None:
    assert [name for name, service in SERVICES.items() if "ANTHROPIC_API_KEY" in service.get("environment", {})] == [
        "worker-evaluate-call",
        "worker-run-scenario",
        "worker-maintenance",
    ]


def test_the_image_is_built_from_the_lock_and_runs_as_nobody_in_particular() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert any("--require-hashes" in line and "requirements.lock" in line for line in lines)
    assert [line for line in lines if line.startswith("USER ")] == ["USER qa"]
