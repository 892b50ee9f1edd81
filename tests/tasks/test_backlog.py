"""The schedules of the jobs about backlogs."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from pydantic import ValidationError

import celeryconfig
from qa_worker.messages import Queue, TaskName, grade_backlog
from qa_worker.settings import Settings


def test_batches_are_gone_on_with_on_a_schedule_of_their_own() -> None:
    entry = celeryconfig.beat_schedule["go on with batches"]

    assert (entry["task"], entry["schedule"]) == (TaskName.ADVANCE_BATCHES.value, 30.0)
    assert celeryconfig.task_routes[TaskName.ADVANCE_BATCHES.value] == {"queue": Queue.MAINTENANCE.value}


def test_the_backlog_is_submitted_only_when_a_schedule_says_so() -> None:
    assert "grade the backlog" not in celeryconfig.beat_schedule

    shown = _entry("0  2 * * mon-fri")

    assert "0 2 * * mon-fri" in shown


def test_a_time_that_does_not_exist_names_the_setting() -> None:
    for schedule in ("99 2 * * *", "at night please now or"):
        assert f"QA_BACKLOG_SCHEDULE: {schedule!r}" in _entry(schedule)


@pytest.mark.parametrize("schedule", ["0 2", "0 2 * * * *", "; ; ; ; ;"])
def test_what_is_no_schedule_is_refused_with_an_example(schedule: str) -> None:
    with pytest.raises(ValidationError, match="write five fields"):
        Settings.model_validate({"QA_BACKLOG_SCHEDULE": schedule})


def test_the_message_that_goes_on_with_a_long_backlog_carries_nothing() -> None:
    message = grade_backlog()

    assert (message.task, message.queue, message.kwargs) == (TaskName.GRADE_BACKLOG, Queue.MAINTENANCE, {})


def _entry(schedule: str) -> str:
    code = "import celeryconfig; print(celeryconfig.beat_schedule['grade the backlog'])"
    env = {**os.environ, "QA_BACKLOG_SCHEDULE": schedule}
    ran = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    return ran.stdout + ran.stderr
