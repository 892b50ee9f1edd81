"""What tests about alerts are made of: a workspace with a graded call, a receiver, rules."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, Table, insert, select

from qa_worker.adapters.postgres.tables import (
    agents,
    alert_rules,
    alerts,
    deliveries,
    endpoints,
    evaluations,
    incidents,
)
from qa_worker.application.raise_alerts import Raising, raise_alerts
from qa_worker.application.submit_call import Accepted, submit_calls
from qa_worker.domain.alert_rule import AlertRule, AlertSeverity, Match, RuleKind, match_id
from qa_worker.domain.call import WorkspaceId, workspace_id
from qa_worker.domain.outcome import Outcome
from tests.builders import a_call, a_grading
from tests.conftest import UnitsOfWork
from tests.fakes import FrozenClock, NoContext

WORKSPACE = workspace_id("w")
COOLDOWN_S = 900


def add_calls(uow: UnitsOfWork, *refs: str, workspace: str = "w") -> list[Accepted]:
    """Calls of the agent `booking`, waiting for their verdicts."""
    answers = submit_calls(
        [a_call(ref) for ref in refs], workspace_name=workspace, uow=uow, grading=a_grading(), in_flight_limit=1000
    )
    return [answer for answer in answers if isinstance(answer, Accepted)]


def agent_of(uow: UnitsOfWork, workspace: WorkspaceId = WORKSPACE) -> uuid.UUID:
    """The agent `booking`."""
    with uow.engine.connect() as connection:
        found: uuid.UUID = connection.execute(
            select(agents.c.id).where(agents.c.workspace_id == workspace)
        ).scalar_one()
    return found


def add_endpoint(
    uow: UnitsOfWork, name: str = "ops", *, state: str = "active", workspace: Any = WORKSPACE
) -> uuid.UUID:
    """A receiver whose address nobody reads here."""
    endpoint_id = uuid.uuid4()
    with uow.engine.begin() as connection:
        connection.execute(
            insert(endpoints).values(
                id=endpoint_id, workspace_id=workspace, name=name, kind="webhook", target=b"sealed", state=state
            )
        )
    return endpoint_id


def add_rule(
    uow: UnitsOfWork,
    kind: RuleKind = RuleKind.EVALUATION_FAILED,
    *,
    to: Sequence[uuid.UUID] = (),
    workspace: WorkspaceId = WORKSPACE,
    **fields: Any,
) -> AlertRule:
    """A rule that goes to these endpoints."""
    given = {"name": kind.value, "severity": AlertSeverity.WARNING, "cooldown_s": COOLDOWN_S, **fields}
    rule = AlertRule(id=uuid.uuid4(), workspace=workspace, kind=kind, **given)
    with uow() as work:
        work.alert_rules.add(rule, to)
        work.commit()
    return rule


def rows(uow: UnitsOfWork, table: Table) -> list[Row[Any]]:
    """Every row of a table."""
    with uow.engine.connect() as connection:
        return list(connection.execute(select(table)))


@dataclass
class Desk:
    """Makes matches and looks at them, with a clock that stands still."""

    uow: UnitsOfWork
    clock: FrozenClock = field(default_factory=FrozenClock)

    @property
    def raising(self) -> Raising:
        return Raising(
            uow=self.uow,
            clock=self.clock,
            context=NoContext(),
            public_url="https://qa.example.com",
            max_attempts=7,
        )

    def match(self, rule: AlertRule, agent_id: uuid.UUID | None, *overalls: int | None, detail: str = "failed") -> None:
        """One match for each overall score, a second apart."""
        found = [
            Match(
                id=match_id(rule.id, cause),
                rule_id=rule.id,
                agent_id=agent_id,
                cause=cause,
                detail=detail,
                matched_at=self.clock.now() + timedelta(seconds=number),
                overall=overall,
            )
            for number, overall in enumerate(overalls)
            for cause in (str(uuid.uuid4()),)
        ]
        with self.uow() as work:
            work.alerts.append(rule.workspace, found)
            work.commit()

    def look(self, rule: AlertRule, agent_id: uuid.UUID | None) -> Outcome:
        return raise_alerts(rule_id=rule.id, agent_id=agent_id, raising=self.raising)

    def alerts(self) -> list[Row[Any]]:
        return sorted(rows(self.uow, alerts), key=lambda row: row.created_at)

    def deliveries(self) -> list[Row[Any]]:
        return rows(self.uow, deliveries)

    def incident(self) -> Row[Any]:
        (row,) = rows(self.uow, incidents)
        return row


def set_graded(uow: UnitsOfWork, accepted: Accepted, *, verdict: str, at: datetime) -> None:
    """This call has its verdict since then; it was handed over a minute before."""
    with uow.engine.begin() as connection:
        connection.execute(
            evaluations.update()
            .where(evaluations.c.id == accepted.evaluation_id)
            .values(
                state="dead" if verdict == "not_evaluated" else "done",
                verdict=verdict,
                is_current=True,
                evaluated_at=at,
                created_at=at - timedelta(minutes=1),
            )
        )


def remove_rule(uow: UnitsOfWork, rule: AlertRule) -> None:
    """As if somebody had deleted it."""
    with uow.engine.begin() as connection:
        connection.execute(alert_rules.delete().where(alert_rules.c.id == rule.id))
