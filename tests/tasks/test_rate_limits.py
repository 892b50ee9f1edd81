"""Celery's own rate limits: of each task, off unless asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import get_args

import pytest
from celery.utils.time import rate
from pydantic import ValidationError

import celeryconfig
from qa_worker.messages import TaskName
from qa_worker.settings import LimitedTask, Settings


def _annotations(**env: str) -> object:
    code = "import celeryconfig, json; print(json.dumps(celeryconfig.task_annotations))"
    printed = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    return json.loads(printed)


def test_no_task_is_limited_unless_it_is_asked_for() -> None:
    assert celeryconfig.task_annotations == {}


def test_each_task_has_its_own_limit() -> None:
    limits = {"evaluate-call": "100/m", "evaluate-calls": "10/m", "run-scenario": "2/s", "send-alert": "500/h"}

    annotations = _annotations(QA_RATE_LIMITS=json.dumps(limits))

    assert annotations == {task: {"rate_limit": limit} for task, limit in limits.items()}


def test_the_older_setting_limits_single_calls_where_the_mapping_does_not() -> None:
    assert _annotations(QA_EVALUATE_RATE_LIMIT="100/m", QA_RATE_LIMITS='{"send-alert": "1/s"}') == {
        "evaluate-call": {"rate_limit": "100/m"},
        "send-alert": {"rate_limit": "1/s"},
    }
    assert _annotations(QA_EVALUATE_RATE_LIMIT="100/m", QA_RATE_LIMITS='{"evaluate-call": "5/s"}') == {
        "evaluate-call": {"rate_limit": "5/s"}
    }


def test_what_can_be_limited_are_tasks() -> None:
    assert {TaskName(name) for name in get_args(LimitedTask)} == {
        TaskName.EVALUATE_CALL,
        TaskName.EVALUATE_CALLS,
        TaskName.RUN_SCENARIO,
        TaskName.SEND_ALERT,
    }


@pytest.mark.parametrize("limit", ["10", "0.5/s", "100/m", "500/h"])
def test_what_is_taken_is_what_celery_understands(limit: str) -> None:
    Settings.model_validate({"QA_EVALUATE_RATE_LIMIT": limit})

    assert rate(limit) > 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"QA_EVALUATE_RATE_LIMIT": "100/d"},
        {"QA_RATE_LIMITS": {"send-alert": "many"}},
        {"QA_RATE_LIMITS": {"dispatch-work": "1/s"}},
    ],
)
def test_a_limit_that_celery_would_not_understand_is_refused_when_the_process_starts(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate(wrong)
