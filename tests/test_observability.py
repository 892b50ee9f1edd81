"""Logs: JSON lines with bound ids, and never the text of an unexpected exception."""

from __future__ import annotations

import json
import os
import subprocess
import sys

SECRET = "Wilhelmina 555-0142"

_CODE = f"""
import logging, structlog
from qa_worker.observability import configure
configure(level="DEBUG")
structlog.contextvars.bind_contextvars(call_id="c-1")
log = structlog.get_logger("qa_worker.test")
log.info("done", verdict="pass")
try:
    raise ValueError("{SECRET}")
except ValueError as error:
    log.error("task_failed", exc_info=error)
    log.exception("task_failed_again")
    logging.getLogger("celery.app.trace").error("Task raised unexpected: %r", error, exc_info=True)
    logging.getLogger("some.library").warning("library trouble", exc_info=True)
"""


def _lines() -> list[dict[str, object]]:
    ran = subprocess.run(
        [sys.executable, "-c", _CODE], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert SECRET not in ran.stderr
    assert ran.stdout == ""
    return [json.loads(line) for line in ran.stderr.splitlines()]


def test_every_line_is_json_with_the_bound_ids() -> None:
    done = _lines()[0]

    assert (done["event"], done["call_id"], done["verdict"], done["level"]) == ("done", "c-1", "pass", "info")
    assert "timestamp" in done


def test_an_exception_is_logged_with_its_type_and_place_and_without_its_text() -> None:
    failed, again, library = _lines()[1:]

    for line in (failed, again, library):
        assert line["error"] == "ValueError"
        assert "<string>" in str(line["at"])


def test_celerys_own_report_of_an_exception_is_left_out_because_it_quotes_the_text() -> None:
    assert [line["event"] for line in _lines()] == ["done", "task_failed", "task_failed_again", "library trouble"]
