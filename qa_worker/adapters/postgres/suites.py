"""Suite runs: made in one transaction, dispatched in turn, ended when nothing is left of them.

Whoever ends a run locks its suite's row after the run's own; whoever dispatches locks suites first and waits for nobody.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, literal, select, update
from sqlalchemy.dialects.postgresql import distinct_on, insert

from qa_worker.adapters.postgres.calls import ensure_workspace
from qa_worker.adapters.postgres.plain_json import to_plain
from qa_worker.adapters.postgres.runs import SAME_AGENT, cancel_where, run_id_of
from qa_worker.adapters.postgres.tables import agents, agents_under_test, runs, scenarios, suite_runs
from qa_worker.adapters.postgres.work import WorkRows
from qa_worker.application.limits import SPENT
from qa_worker.application.purse import Left
from qa_worker.application.running import SuiteEnd, SuiteState, WantedSuite
from qa_worker.domain.call import WorkspaceId, workspace_id
from qa_worker.domain.run import MEASURED, UNMEASURED, RunState
from qa_worker.domain.scenario import fingerprint
from qa_worker.domain.transcript import canonical
from qa_worker.domain.work import WorkState

_NOW = func.clock_timestamp()
_SUITES_AT_ONCE = 200
_IN_FLIGHT = runs.c.state.in_([WorkState.QUEUED.value, WorkState.RUNNING.value])
_DUE = (runs.c.state == WorkState.PENDING.value) & (runs.c.not_before <= _NOW)
_HELD = runs.c.wait_reason == SPENT
_OPEN = (suite_runs.c.state == SuiteState.RUNNING.value) & suite_runs.c.cancel_requested_at.is_(None)


class PostgresSuites:
    """Implements the port `Suites` on one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._work = WorkRows(connection, runs)

    def add(self, wanted: WantedSuite, *, workspace_name: str, max_attempts: int) -> uuid.UUID:
        """See the port."""
        workspace = ensure_workspace(self._connection, workspace_name)
        suite_run_id, agent_id = uuid.uuid4(), self._agent(workspace, wanted)
        self._connection.execute(
            insert(suite_runs).values(
                id=suite_run_id,
                workspace_id=workspace,
                agent_under_test_id=agent_id,
                name=wanted.name,
                label=wanted.label,
                judge=wanted.judge.value if wanted.judge else None,
                max_parallel=wanted.max_parallel,
                repeats=wanted.repeats,
                created_by=wanted.created_by,
            )
        )
        versions = self._scenarios(workspace, wanted)
        rows = [
            {
                "id": run_id_of(suite_run_id, scenario_id, repeat, 1),
                "suite_run_id": suite_run_id,
                "workspace_id": workspace,
                "scenario_id": scenario_id,
                "agent_under_test_id": agent_id,
                "position": position,
                "repeat": repeat,
                "max_attempts": max_attempts,
            }
            for position, (scenario_id, scenario) in enumerate(zip(versions, wanted.scenarios, strict=True))
            for repeat in range(1, (wanted.repeats or scenario.repeats) + 1)
        ]
        self._connection.execute(insert(runs), rows)
        return suite_run_id

    def _agent(self, workspace: WorkspaceId, wanted: WantedSuite) -> uuid.UUID:
        target = {"kind": wanted.target.kind.value, "settings": dict(wanted.target.settings)}
        content = {"agent": to_plain(wanted.agent), "target": target}
        print_ = hashlib.sha256(canonical(content).encode()).hexdigest()
        agent_id = uuid.uuid5(workspace, f"agent-under-test/{print_}")
        self._connection.execute(
            insert(agents_under_test)
            .values(
                id=agent_id,
                workspace_id=workspace,
                ref=wanted.agent.agent.id,
                version=wanted.agent.agent.version,
                kind=wanted.target.kind.value,
                fingerprint=print_,
                content=content,
            )
            .on_conflict_do_nothing()
        )
        return agent_id

    def _scenarios(self, workspace: WorkspaceId, wanted: WantedSuite) -> list[uuid.UUID]:
        rows = {}
        for scenario in wanted.scenarios:
            print_ = fingerprint(scenario)
            scenario_id = uuid.uuid5(workspace, f"scenario/{print_}")
            rows[scenario_id] = {
                "id": scenario_id,
                "workspace_id": workspace,
                "ref": scenario.id,
                "fingerprint": print_,
                "content": to_plain(scenario),
            }
        # In one order for everybody: suites that begin at once wait for each other, but never in a circle.
        insertion = insert(scenarios).values([rows[one] for one in sorted(rows)])
        self._connection.execute(
            # Title and tags may change without making another version.
            insertion.on_conflict_do_update(
                index_elements=[scenarios.c.id],
                set_={"content": insertion.excluded.content},
                where=scenarios.c.content != insertion.excluded.content,
            )
        )
        return [uuid.uuid5(workspace, f"scenario/{fingerprint(scenario)}") for scenario in wanted.scenarios]

    def queue_due(self, *, limit: int, batch: int, left: Left | None) -> Sequence[uuid.UUID]:
        """See the port."""
        room = min(batch, self._work.room(in_flight_limit=limit))
        if room <= 0:
            return []
        due = _DUE & ~self._held_back(left)
        has_due = select(runs.c.id).where(runs.c.suite_run_id == suite_runs.c.id, due).exists()
        waiting = select(suite_runs.c.id).where(_OPEN, has_due).order_by(func.random())
        locked = self._connection.execute(
            waiting.limit(_SUITES_AT_ONCE).with_for_update(key_share=True, skip_locked=True)
        )
        suites = locked.scalars().all()
        chosen = list(self._connection.execute(_in_turn(suites, room, due)).scalars()) if suites else []
        queued = self._work.queue_new(chosen, in_flight_limit=limit)
        return [one for one in chosen if one in queued]

    def _held_back(self, left: Left | None) -> ColumnElement[bool]:
        """What waits for a budget, and may have to wait on."""
        if left is None:
            return _HELD
        owners = self._connection.execute(select(suite_runs.c.workspace_id).where(_OPEN).distinct()).scalars()
        spent = [owner for owner in owners if left.is_spent(WorkspaceId(owner))]
        return _HELD & runs.c.workspace_id.in_(spent)

    def complete(self, suite_run_id: uuid.UUID) -> SuiteEnd | None:
        """See the port."""
        row = self._connection.execute(
            select(suite_runs).where(suite_runs.c.id == suite_run_id).with_for_update(key_share=True)
        ).one_or_none()
        # Asked only now that nobody else can end a run of it unseen.
        left = select(runs.c.id).where(runs.c.suite_run_id == suite_run_id, runs.c.outcome.is_(None)).limit(1)
        if row is None or row.state != SuiteState.RUNNING.value or self._connection.execute(left).first():
            return None
        state = SuiteState.DONE if row.cancel_requested_at is None else SuiteState.CANCELLED
        self._connection.execute(
            update(suite_runs).where(suite_runs.c.id == suite_run_id).values(state=state.value, completed_at=_NOW)
        )
        outcomes = self._last_outcomes(suite_run_id)
        return SuiteEnd(
            id=suite_run_id,
            workspace=WorkspaceId(row.workspace_id),
            state=state,
            failed=outcomes.count(RunState.FAILED.value),
            counted=sum(outcomes.count(state.value) for state in MEASURED),
            unmeasured=sum(outcomes.count(state.value) for state in UNMEASURED),
            agent_id=self._connection.execute(_agent_of(row.agent_under_test_id)).scalar_one_or_none(),
        )

    def _last_outcomes(self, suite_run_id: uuid.UUID) -> list[str]:
        """Of the last attempt of each repeat."""
        columns = runs.c
        last = (
            select(columns.outcome)
            .ext(distinct_on(columns.scenario_id, columns.repeat))
            .where(columns.suite_run_id == suite_run_id)
            .order_by(columns.scenario_id, columns.repeat, columns.attempt_no.desc())
        )
        return list(self._connection.execute(last).scalars())

    def reopen(self, suite_run_id: uuid.UUID) -> bool:
        """See the port."""
        wanted = (suite_runs.c.id == suite_run_id) & suite_runs.c.cancel_requested_at.is_(None)
        reopened = self._connection.execute(
            update(suite_runs).where(wanted).values(state=SuiteState.RUNNING.value, completed_at=None)
        )
        return reopened.rowcount == 1

    def ask_cancel(self, suite_run_id: uuid.UUID, *, workspace_name: str) -> bool:
        """See the port."""
        mine = (suite_runs.c.id == suite_run_id) & (suite_runs.c.workspace_id == workspace_id(workspace_name))
        # One that comes after the end changes nothing.
        running = mine & (suite_runs.c.state == SuiteState.RUNNING.value)
        asked = func.coalesce(suite_runs.c.cancel_requested_at, _NOW)
        self._connection.execute(update(suite_runs).where(running).values(cancel_requested_at=asked))
        return self._connection.execute(select(suite_runs.c.id).where(mine)).first() is not None

    def cancel_asked(self, *, limit: int) -> Sequence[uuid.UUID]:
        """See the port."""
        asked = select(suite_runs.c.id).where(
            suite_runs.c.state == SuiteState.RUNNING.value, suite_runs.c.cancel_requested_at.is_not(None)
        )
        suites = list(self._connection.execute(asked.order_by(suite_runs.c.created_at).limit(limit)).scalars())
        if suites:
            cancel_where(self._connection, runs.c.suite_run_id.in_(suites))
        return suites


def _in_turn(suite_ids: Sequence[uuid.UUID], room: int, due: ColumnElement[bool]) -> Any:
    """Due runs of these suites as far as each has room, those first whose suite would have the fewest in flight.

    Suites that have as few are chosen by lot: in a fixed order the last of them would wait for the end of all others.
    """
    suites = (
        select(
            suite_runs.c.id,
            suite_runs.c.max_parallel,
            select(func.count())
            .where(runs.c.suite_run_id == suite_runs.c.id, _IN_FLIGHT)
            .correlate(suite_runs)
            .scalar_subquery()
            .label("in_flight"),
        )
        .where(suite_runs.c.id.in_(suite_ids))
        .subquery("suites")
    )
    order = (runs.c.not_before, runs.c.position, runs.c.repeat)
    oldest = (
        select(runs.c.id, func.row_number().over(order_by=order).label("nth"))
        .where(runs.c.suite_run_id == suites.c.id, due)
        .order_by(*order)
        .limit(func.greatest(0, func.least(room, suites.c.max_parallel - suites.c.in_flight)))
        .lateral("oldest")
    )
    joined = suites.join(oldest, literal(value=True))
    turn = suites.c.in_flight + oldest.c.nth
    return select(oldest.c.id).select_from(joined).order_by(turn, func.random()).limit(room)


def _agent_of(agent_under_test_id: uuid.UUID) -> Any:
    return select(agents.c.id).join(agents_under_test, SAME_AGENT).where(agents_under_test.c.id == agent_under_test_id)
