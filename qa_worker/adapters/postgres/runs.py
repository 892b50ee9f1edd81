"""Runs of scenarios: work like any other, that goes on at the turn where it stood."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Connection,
    Date,
    Double,
    Row,
    Select,
    Uuid,
    and_,
    bindparam,
    case,
    cast,
    column,
    func,
    literal_column,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB, insert

from qa_worker.adapters.postgres.dead_letters import Letter, write_letters
from qa_worker.adapters.postgres.evaluation_letters import first_errors
from qa_worker.adapters.postgres.evaluations import UNDECIDED
from qa_worker.adapters.postgres.expenses import Expenses
from qa_worker.adapters.postgres.plain_json import from_plain
from qa_worker.adapters.postgres.tables import (
    agents,
    agents_under_test,
    calls,
    evaluations,
    run_turns,
    runs,
    scenarios,
    suite_runs,
    workspaces,
)
from qa_worker.adapters.postgres.work import WorkRows, claiming
from qa_worker.application.playing import AgentKind, PlayContext, Target
from qa_worker.application.running import ClaimedRun, Played, RunRef, RunSubject
from qa_worker.domain.agent_under_test import AgentUnderTest
from qa_worker.domain.call import CallId, WorkspaceId, workspace_id
from qa_worker.domain.errors import LeaseLost
from qa_worker.domain.evaluation import Usage, Verdict
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.playback import PlayedTurn, Written, played_from_json, played_to_json
from qa_worker.domain.rubric import JudgeKind
from qa_worker.domain.run import Completion, Ended, RunState, settle
from qa_worker.domain.scenario import Scenario
from qa_worker.domain.work import Lane, Lease, WorkState, WorkStatus
from qa_worker.messages import Queue, TaskName

_NOW = func.clock_timestamp()
_DIED = Failure(
    FailureKind.ABANDONED,
    FailureKind.ABANDONED.value,
    "The process that played this run died or lost the database for longer than its lease.",
)
_CLAIM = claiming(runs).values(begun_at=func.coalesce(runs.c.begun_at, _NOW))
_UNGRADED = {"verdict": Verdict.NOT_EVALUATED.value, "reasons": ["cancelled"], "evaluated_at": _NOW}
_WAITING = runs.c.state.in_([WorkState.PENDING.value, WorkState.QUEUED.value])
_USAGE = tuple(asdict(Usage()))
# PostgreSQL's way to tell apart what an upsert has inserted and what it has changed.
_IS_NEW: ColumnElement[bool] = literal_column("(xmax = 0)", Boolean)
_TODAY = cast(func.timezone("UTC", func.now()), Date)

RUN_STATE = case(
    (runs.c.outcome.is_not(None), runs.c.outcome),
    (runs.c.state == WorkState.RUNNING.value, RunState.RUNNING.value),
    else_=RunState.PENDING.value,
)
"""The state of a run as people know it."""

SAME_AGENT = and_(agents.c.workspace_id == agents_under_test.c.workspace_id, agents.c.ref == agents_under_test.c.ref)
"""Calls and runs of one agent know it by the same name."""


@dataclass(frozen=True, slots=True)
class _Postponed:
    """What made a run wait."""

    failure: Failure | None


class PostgresRuns:
    """Implements the port `Runs` on one connection."""

    def __init__(self, connection: Connection, expenses: Expenses) -> None:
        self._connection = connection
        self._expenses = expenses
        self._work = WorkRows(connection, runs)

    def claim(self, run_id: uuid.UUID, *, lease_s: float) -> ClaimedRun | None:
        """See the port."""
        leases = self._work.claim([run_id], lease_s=lease_s, only=_CLAIM)
        if not leases:
            return None
        row = self._connection.execute(_CLAIMED.where(runs.c.id == run_id)).one()
        return _claimed(row, leases[0], read_turns(self._connection, run_id))

    def status(self, run_id: uuid.UUID) -> WorkStatus | None:
        """See the port."""
        return self._work.status(run_id)

    def subject(self, run_id: uuid.UUID) -> RunSubject:
        """See the port."""
        row = self._connection.execute(_SUBJECT, {"run": run_id}).one()
        return RunSubject(row.scenario, row.agent_id)

    def cancel_asked(self, run_id: uuid.UUID) -> bool:
        """See the port."""
        asked = select(runs.c.cancel_requested_at.is_not(None)).where(runs.c.id == run_id)
        return bool(self._connection.execute(asked).scalar_one_or_none())

    def hold(self, lease: Lease) -> bool:
        """See the port."""
        held = select(runs.c.cancel_requested_at).where(*_mine(lease)).with_for_update()
        row = self._connection.execute(held).one_or_none()
        if row is None:
            raise LeaseLost(str(lease.work_id))
        return row.cancel_requested_at is not None

    def append(self, lease: Lease, written: Written, played: Played) -> bool:
        """See the port."""
        row = self._connection.execute(
            _APPEND,
            {
                "run_id": lease.work_id,
                "token": lease.token,
                "turns": played.turns,
                "clock": played.clock_s,
                "played": played.played_s,
                "cost": played.cost_micro_usd,
                "caller": played.caller,
                **{f"used_{name}": value for name, value in asdict(played.usage).items()},
                "rows": [_turn_values(index, turn) for index, turn in sorted(written.items())],
            },
        ).one_or_none()
        if row is None:
            raise LeaseLost(str(lease.work_id))
        self._expenses.note(row.workspace_id, row.day, int(row.micro_usd or 0))
        return row.cancel_requested_at is not None

    def close(self, lease: Lease, completion: Completion, *, call_id: CallId, evaluation_id: uuid.UUID) -> None:
        """See the port."""
        closed = self._connection.execute(
            update(runs)
            .where(*_mine(lease))
            .values(completion=completion.value, call_id=call_id, evaluation_id=evaluation_id)
        )
        if closed.rowcount != 1:
            raise LeaseLost(str(lease.work_id))

    def wait(self, lease: Lease, *, wait_s: float, reason: str, counts: bool, failure: Failure) -> None:
        """See the port."""
        values = self._work.waiting(wait_s=wait_s, reason=reason, counts=counts, record=_Postponed(failure))
        if failure.kind is FailureKind.UNREADABLE:
            values["unreadable_count"] = runs.c.unreadable_count + 1
        self._work.release(lease, values)

    def settle(self, lease: Lease, ended: Ended, *, failure: Failure | None = None) -> None:
        """See the port."""
        state = WorkState.DONE if failure is None else WorkState.DEAD
        self._work.release(lease, {"state": state.value, **_ended(ended), **_error(failure)})
        if ended.state is RunState.CANCELLED:
            evaluation = select(runs.c.evaluation_id).where(
                runs.c.id == lease.work_id, runs.c.evaluation_id.is_not(None)
            )
            _leave_ungraded(self._connection, self._connection.execute(evaluation).scalars().all())
        if failure is not None:
            self._write_letter(lease.work_id)

    def again(self, run_id: uuid.UUID) -> None:
        """See the port."""
        row = self._connection.execute(select(runs).where(runs.c.id == run_id)).one()
        same = ("suite_run_id", "workspace_id", "scenario_id", "agent_under_test_id", "position", "repeat")
        if row.cancel_requested_at is not None:
            return
        attempt_no = row.attempt_no + 1
        values = {name: getattr(row, name) for name in (*same, "lane", "max_attempts")}
        self._connection.execute(
            insert(runs)
            .values(id=run_id_of(row.suite_run_id, row.scenario_id, row.repeat, attempt_no), **values)
            .values(attempt_no=attempt_no)
            .on_conflict_do_nothing()
        )

    def free_expired(self, *, limit: int) -> tuple[int, Sequence[RunRef]]:
        """See the port."""
        expired = self._work.expired(limit=limit)
        # Whoever takes one that was to be cancelled does no more than that: it can't kill another worker.
        freed = [row.id for row in expired if row.attempt < row.max_attempts or row.cancel_requested_at is not None]
        if freed:
            self._work.free(freed)
        ended = [row for row in expired if row.id not in freed]
        for row in ended:
            lease = Lease(row.id, row.lease_token, row.attempt, row.max_attempts, row.started_at)
            completion = Completion(row.completion) if row.completion else Completion.ERROR
            self.settle(lease, Ended(RunState.ERROR, completion, _DIED.message), failure=_DIED)
        return len(freed), [_ref(row) for row in ended]

    def unsent(self, *, older_than_s: float, waiting: int, limit: int) -> Sequence[uuid.UUID]:
        """See the port."""
        rows = self._work.unsent(older_than_s=older_than_s, waiting=waiting, limit=limit)
        return [row.id for row in rows]

    def cancel(self, run_id: uuid.UUID, *, workspace_name: str) -> RunRef | None:
        """See the port."""
        mine = select(runs).where(runs.c.id == run_id, runs.c.workspace_id == workspace_id(workspace_name))
        row = self._connection.execute(mine).one_or_none()
        if row is None:
            return None
        # It may be found spoilt by its caller this very moment, and the repeat goes on as the next attempt.
        repeat = and_(*(runs.c[name] == getattr(row, name) for name in ("suite_run_id", "scenario_id", "repeat")))
        cancel_where(self._connection, repeat & (runs.c.attempt_no >= row.attempt_no))
        return _ref(row)

    def revive(self, run_id: uuid.UUID) -> RunRef | None:
        """See the port."""
        given_up_on = (runs.c.state == WorkState.DEAD.value) & (runs.c.outcome == RunState.ERROR.value)
        wanted = given_up_on & runs.c.cancel_requested_at.is_(None)
        rows = self._work.begin_anew((runs.c.id == run_id) & wanted, _UNENDED)
        if not rows:
            return None
        (row,) = rows
        free = evaluations.c.state.in_([WorkState.PENDING.value, WorkState.DEAD.value])
        mine = (evaluations.c.id == row.evaluation_id) & (evaluations.c.lane == Lane.RUN.value)
        WorkRows(self._connection, evaluations).begin_anew(mine & free, UNDECIDED)
        return _ref(row)

    def _write_letter(self, run_id: uuid.UUID) -> None:
        row = self._connection.execute(select(runs).where(runs.c.id == run_id)).one()
        graded = [] if row.evaluation_id is None else [row.evaluation_id]
        write_letters(self._connection, [_letter(row, first_errors(self._connection, graded))])


# What the conversation had come to before its grading died, it has come to still.
_UNENDED: Mapping[str, Any] = {
    "outcome": None,
    "completion": select(calls.c.metadata["completion"].astext).where(calls.c.id == runs.c.call_id).scalar_subquery(),
    "message": "",
    "completed_at": None,
    "unreadable_count": 0,
    # Its time begins anew; when it was first begun is part of the call that it may have become.
    "revived_at": _NOW,
}
_CLAIMED = (
    select(
        runs,
        suite_runs.c.judge,
        func.extract("epoch", _NOW - func.coalesce(runs.c.revived_at, runs.c.begun_at)).cast(Double).label("age_s"),
        workspaces.c.name.label("workspace_name"),
        scenarios.c.content.label("scenario"),
        agents_under_test.c.content.label("agent"),
    )
    .join(suite_runs, suite_runs.c.id == runs.c.suite_run_id)
    .join(workspaces, workspaces.c.id == runs.c.workspace_id)
    .join(scenarios, scenarios.c.id == runs.c.scenario_id)
    .join(agents_under_test, agents_under_test.c.id == runs.c.agent_under_test_id)
)
_SUBJECT = (
    select(scenarios.c.ref.label("scenario"), agents.c.id.label("agent_id"))
    .select_from(runs)
    .join(scenarios, scenarios.c.id == runs.c.scenario_id)
    .join(agents_under_test, agents_under_test.c.id == runs.c.agent_under_test_id)
    .outerjoin(agents, SAME_AGENT)
    .where(runs.c.id == bindparam("run"))
)


def _append() -> Select[Any]:
    """One statement, built once: the run's totals while the lease holds, and its turns only with them."""
    mine = (
        update(runs)
        .where(
            runs.c.id == bindparam("run_id", type_=Uuid),
            runs.c.lease_token == bindparam("token", type_=Uuid),
            runs.c.state == WorkState.RUNNING.value,
        )
        .values(
            turn_count=bindparam("turns"),
            clock_s=bindparam("clock"),
            played_s=bindparam("played"),
            cost_micro_usd=bindparam("cost"),
            caller=bindparam("caller"),
            attempt=1,
            park_count=0,
            unreadable_count=0,
            **{name: bindparam(f"used_{name}") for name in _USAGE},
        )
        .returning(runs.c.id, runs.c.workspace_id, runs.c.cancel_requested_at)
        .cte("mine")
    )
    columns = [run_turns.c[name] for name in ("index", "role", "content", "cost_micro_usd", *_USAGE)]
    typed = [column(one.name, one.type) for one in columns]
    given = func.jsonb_to_recordset(bindparam("rows", type_=JSONB)).table_valued(*typed).render_derived(with_types=True)
    insertion = insert(run_turns).from_select(
        ["run_id", *(one.name for one in columns)], select(mine.c.id, *given.c).select_from(mine.join(given, true()))
    )
    upsert = insertion.on_conflict_do_update(
        index_elements=[run_turns.c.run_id, run_turns.c.index],
        # Only what is heard of a turn can change, when the caller cuts it.
        set_={"content": insertion.excluded.content},
    ).returning(run_turns.c.cost_micro_usd, _IS_NEW.label("is_new"))
    written = upsert.cte("written")
    micro_usd = select(func.sum(written.c.cost_micro_usd)).where(written.c.is_new).scalar_subquery()
    return select(mine.c.workspace_id, mine.c.cancel_requested_at, _TODAY.label("day"), micro_usd.label("micro_usd"))


_APPEND = _append()


def cancel_where(connection: Connection, which: Any) -> None:
    """Cancel what waits of these runs, and ask it of those that run. What is final stays as it is."""
    # Noted on all of them first: one that begins, or goes back to waiting, meanwhile would else be missed by both.
    asked = which & runs.c.outcome.is_(None) & runs.c.cancel_requested_at.is_(None)
    connection.execute(update(runs).where(asked).values(cancel_requested_at=_NOW))
    cancelled = connection.execute(
        update(runs)
        .where(which, _WAITING)
        .values(
            state=WorkState.DEAD.value,
            cancel_requested_at=func.coalesce(runs.c.cancel_requested_at, _NOW),
            **_ended(settle(Completion.CANCELLED, message="cancelled while it waited")),
        )
        .returning(runs.c.evaluation_id)
    ).scalars()
    _leave_ungraded(connection, [one for one in cancelled if one is not None])


def _leave_ungraded(connection: Connection, evaluation_ids: Sequence[uuid.UUID]) -> None:
    """Of runs that were cancelled while they waited for their judge: nobody will look at these any more."""
    if evaluation_ids:
        which, limit = evaluations.c.id.in_(evaluation_ids), len(evaluation_ids)
        WorkRows(connection, evaluations).bury_waiting(which, _UNGRADED, limit=limit)


def read_turns(connection: Connection, run_id: uuid.UUID) -> tuple[PlayedTurn, ...]:
    """What happened in a run so far."""
    rows = connection.execute(select(run_turns).where(run_turns.c.run_id == run_id).order_by(run_turns.c.index))
    return tuple(_played(row) for row in rows)


def run_id_of(suite_run_id: uuid.UUID, scenario_id: uuid.UUID, repeat: int, attempt_no: int) -> uuid.UUID:
    """The id of a run: the same place in a suite run has the same one everywhere."""
    return uuid.uuid5(suite_run_id, f"{scenario_id}/{repeat}/{attempt_no}")


def _claimed(row: Row[Any], lease: Lease, rows: tuple[PlayedTurn, ...]) -> ClaimedRun:
    scenario = from_plain(Scenario, row.scenario)
    target = Target(AgentKind(row.agent["target"]["kind"]), row.agent["target"]["settings"])
    workspace = WorkspaceId(row.workspace_id)
    agent = from_plain(AgentUnderTest, row.agent["agent"])
    return ClaimedRun(
        lease=lease,
        ref=_ref(row),
        workspace_name=row.workspace_name,
        context=PlayContext(row.id, workspace, scenario, agent, scenario.limits, target, row.workspace_name),
        rows=rows,
        begun_at=row.begun_at,
        completion=Completion(row.completion) if row.completion else None,
        judge=JudgeKind(row.judge) if row.judge else None,
        attempt_no=row.attempt_no,
        played_s=row.played_s,
        cancel_asked=row.cancel_requested_at is not None,
        age_s=row.age_s,
        unreadable=row.unreadable_count,
    )


def _mine(lease: Lease) -> tuple[ColumnElement[bool], ...]:
    return runs.c.id == lease.work_id, runs.c.lease_token == lease.token, runs.c.state == WorkState.RUNNING.value


def _ref(row: Row[Any]) -> RunRef:
    return RunRef(row.id, row.suite_run_id, WorkspaceId(row.workspace_id))


def _played(row: Row[Any]) -> PlayedTurn:
    usage = Usage(**{name: getattr(row, name) for name in _USAGE})
    return played_from_json({**row.content, "usage": usage, "cost_micro_usd": row.cost_micro_usd})


def _turn_values(index: int, turn: PlayedTurn) -> dict[str, Any]:
    return {
        "index": index,
        "role": turn.turn.role.value,
        "content": played_to_json(turn),
        "cost_micro_usd": turn.cost_micro_usd,
        **asdict(turn.usage),
    }


def _ended(ended: Ended) -> dict[str, Any]:
    return {
        "outcome": ended.state.value,
        "completion": ended.completion.value,
        "message": ended.message,
        "completed_at": _NOW,
        "wait_reason": "",
    }


def _error(failure: Failure | None) -> Mapping[str, Any]:
    if failure is None:
        return {"error_kind": None, "error_code": "", "error_message": ""}
    return {"error_kind": failure.kind.value, "error_code": failure.code, "error_message": failure.message}


def _letter(row: Row[Any], firsts: Mapping[uuid.UUID, str]) -> Letter:
    return Letter(
        kind="run",
        ref_id=row.id,
        workspace_id=row.workspace_id,
        queue=Queue.RUN_SCENARIO.value,
        task=TaskName.RUN_SCENARIO.value,
        reason=row.error_code,
        attempts=row.attempt,
        # Of what went wrong while playing only the last is known.
        first_error=firsts.get(row.evaluation_id, row.error_message),
        last_error=row.error_message,
        payload={"run_id": str(row.id), "suite_run_id": str(row.suite_run_id)},
    )
