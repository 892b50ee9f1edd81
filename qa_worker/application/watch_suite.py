"""Watch a suite run: the rows first, which hold the past, then what happens, until all of it is over."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

from qa_worker.application.running import Feed, ProgressEvent, SuiteProgress, SuiteQueries, SuiteState
from qa_worker.domain.run import FINAL, RunState

_ROWS_KNOW_MORE = FINAL | {RunState.PENDING}


def watch_suite(
    *, suite_run_id: uuid.UUID, workspace_name: str, queries: SuiteQueries, feed: Feed, poll_s: float = 2.0
) -> Iterator[SuiteProgress | ProgressEvent]:
    """A snapshot of the rows, then events, with another snapshot whenever a run ends or nothing comes for `poll_s`.

    The last thing is the snapshot of a suite that is over. Without events (Redis is away) there are snapshots only.

    Raises:
        LookupError: the workspace has no such suite run.
        StoreUnavailable: the database is out of reach.

    """
    with feed.open(suite_run_id) as watching:
        # Opened before the rows are read: what happens in between is seen twice rather than never.
        snapshot = _read(suite_run_id, workspace_name, queries)
        yield snapshot
        while snapshot.state is SuiteState.RUNNING:
            events = watching.wait(poll_s)
            yield from events
            if not events or any(event.state in _ROWS_KNOW_MORE for event in events):
                snapshot = _read(suite_run_id, workspace_name, queries)
                yield snapshot


def _read(suite_run_id: uuid.UUID, workspace_name: str, queries: SuiteQueries) -> SuiteProgress:
    snapshot = queries.progress(suite_run_id, workspace_name=workspace_name)
    if snapshot is None:
        raise LookupError(f"there is no suite run {suite_run_id}")
    return snapshot
