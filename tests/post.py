"""Endpoints, alerts and deliveries for tests of sending: a real database, and channels that do as they are told."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.pool import QueuePool

from qa_worker.adapters.postgres.records import DirectRecords
from qa_worker.adapters.postgres.tables import dead_letters, deliveries, delivery_attempts, endpoints
from qa_worker.adapters.secrets import FernetVault, new_key
from qa_worker.adapters.webhooks.signing import new_secret
from qa_worker.application._delivery_record import Recording, SwitchedOff
from qa_worker.application.alerting import NewAlert
from qa_worker.application.channels import Answer, Channel, Parcel
from qa_worker.application.delivering import Endpoint, NewEndpoint
from qa_worker.application.dispatch_deliveries import dispatch_deliveries
from qa_worker.application.manage_endpoints import Managing
from qa_worker.application.ports import Rescued
from qa_worker.application.rescue_deliveries import rescue_deliveries
from qa_worker.application.send_alert import Sending, send_alert
from qa_worker.domain.alert import AlertEvent
from qa_worker.domain.alert_rule import AlertSeverity
from qa_worker.domain.call import WorkspaceId, workspace_id
from qa_worker.domain.endpoint import EndpointKind, HealthRules, patience_s
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.outcome import Outcome
from qa_worker.domain.retry import RetryPolicy
from tests.conftest import UnitsOfWork
from tests.fakes import FixedJitter, FrozenClock, NoContext

POLICY = RetryPolicy(schedule_s=(10, 20), max_attempts=3)
RULES = HealthRules(in_flight=2, threshold=4, pause_s=30, max_pause_s=100, off_after_s=1000, off_after_failures=3)
TRY_S = 10.0
BODY = b'{"data": {"title": "It failed"}, "type": "evaluation.failed"}'

DELIVERED = Answer(None, 12, 200, "ok")
BROKEN = Answer(Failure(FailureKind.TRANSIENT, "http_500", "The receiver answered 500."), 12, 500, "oops")
SLOW = Answer(Failure(FailureKind.TRANSIENT, "timeout", "No answer."), 10_000)
REFUSED = Answer(Failure(FailureKind.REJECTED, "http_404", "The receiver answered 404."), 12, 404, "who?")
GONE = Answer(Failure(FailureKind.REJECTED, "http_410", "The receiver answered 410."), 12, 410)
BUSY = Answer(Failure(FailureKind.RATE_LIMITED, "http_429", "Fewer alerts.", retry_after_s=40), 12, 429)


@dataclass
class ScriptedChannel:
    """Answers with the steps of a script in turn, the last one for ever. An exception is raised."""

    script: list[Answer | Exception]
    engine: Any = None
    on_send: Callable[[Parcel], None] = lambda _parcel: None
    parcels: list[Parcel] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def check(self, target: str) -> str:
        return target.rpartition("/")[0]

    def send(self, parcel: Parcel) -> Answer:
        with self.lock:
            step = self.script[min(len(self.parcels), len(self.script) - 1)]
            self.parcels.append(parcel)
        if self.engine is not None:
            assert isinstance(self.engine.pool, QueuePool)
            assert self.engine.pool.checkedout() == 0, "a connection is held while a receiver is waited for"
        self.on_send(parcel)
        if isinstance(step, Exception):
            raise step
        return step


@dataclass
class Post:
    """A workspace with endpoints, and the tools to send to them."""

    uow: UnitsOfWork
    clock: FrozenClock = field(default_factory=lambda: FrozenClock(datetime.now(UTC)))
    rules: HealthRules = RULES
    policy: RetryPolicy = POLICY
    vault: FernetVault = field(default_factory=lambda: FernetVault([new_key()]))
    limit: int = 50
    in_a_row: int = 1
    switched_off: list[SwitchedOff] = field(default_factory=list)

    def endpoint(
        self, name: str = "ops", *, kind: EndpointKind = EndpointKind.WEBHOOK, took_s: float | None = 0.1
    ) -> uuid.UUID:
        """An endpoint of the workspace `w` that takes so long for a delivery; None is a new one."""
        made = NewEndpoint(
            id=uuid.uuid4(),
            workspace_name="w",
            name=name,
            kind=kind,
            target_hint="https://hooks.example.com",
            target=self.vault.seal(f"https://hooks.example.com/{name}"),
            secret=self.vault.seal(new_secret()) if kind is EndpointKind.WEBHOOK else None,
        )
        with self.uow() as work:
            work.endpoints.add(made)
            if took_s is not None:
                work.endpoints.took(made.id, took_s, slow_s=self.rules.slow_s)
            work.commit()
        return made.id

    def alert(self, *to: uuid.UUID, body: bytes = BODY) -> list[uuid.UUID]:
        """An alert is raised; the ids of its deliveries, which nobody has been told of."""
        alert = NewAlert(
            id=uuid.uuid4(),
            workspace=WorkspaceId(workspace_id("w")),
            event=AlertEvent.EVALUATION_FAILED,
            severity=AlertSeverity.WARNING,
            title="It failed",
            body=body,
            at=self.clock.now(),
        )
        with self.uow() as work:
            raised = list(work.alerts.raise_alert(alert, to, max_attempts=self.policy.max_attempts))
            work.commit()
        return raised

    def sending(self, channel: Channel) -> Sending:
        """What `send_alert` needs."""
        return Sending(
            uow=self.uow,
            context=NoContext(),
            channels=dict.fromkeys(EndpointKind, channel),
            vault=self.vault,
            recording=Recording(
                records=DirectRecords(self.uow),
                clock=self.clock,
                jitter=FixedJitter(),
                policy=self.policy,
                rules=self.rules,
                limit=self.limit,
                lease_s=60,
                switched_off=self.switched_off.append,
            ),
            in_a_row=self.in_a_row,
        )

    def managing(self, channel: Channel | None = None, **changes: Any) -> Managing:
        """What commands about endpoints need."""
        given = Managing(
            uow=self.uow,
            channels=dict.fromkeys(EndpointKind, channel or ScriptedChannel([DELIVERED])),
            vault=self.vault,
            clock=self.clock,
            new_secret=new_secret,
            overlap_s=3600,
        )
        return replace(given, **changes)

    def send(self, delivery_id: uuid.UUID, *script: Answer | Exception) -> Outcome:
        """Try once; no database connection may be held meanwhile."""
        return self.send_with(delivery_id, ScriptedChannel(list(script), engine=self.uow.engine))

    def send_with(self, delivery_id: uuid.UUID, channel: Channel) -> Outcome:
        """Try once through this channel."""
        first, *_ = send_alert(delivery_id=delivery_id, sending=self.sending(channel))
        return first

    def dispatch(self) -> int:
        """The beat."""
        patience = patience_s(self.policy, self.rules, try_s=TRY_S)
        return dispatch_deliveries(uow=self.uow, rules=self.rules, patience_s=patience, limit=self.limit)

    def rescue(self, *, waiting: int = 0) -> Rescued:
        """The sweep."""
        return rescue_deliveries(uow=self.uow, resend_after_s=0.01, waiting=lambda: waiting)

    def make_due(self) -> None:
        """Time passes until the next try of everything, and until every pause is over."""
        with self.uow.engine.begin() as connection:
            connection.execute(update(deliveries).values(not_before=func.now()))
            past = func.now() - func.make_interval(0, 0, 0, 0, 0, 0, 1)
            connection.execute(update(endpoints).where(endpoints.c.paused_until.is_not(None)).values(paused_until=past))

    def change(self, table: Any, **values: Any) -> None:
        """Write to every row of a table."""
        with self.uow.engine.begin() as connection:
            connection.execute(update(table).values(values))

    def row(self, delivery_id: uuid.UUID) -> Any:
        """A delivery as it is stored."""
        return next(row for row in self.rows() if row.id == delivery_id)

    def rows(self) -> Sequence[Any]:
        """All deliveries."""
        return self._all(deliveries, deliveries.c.created_at)

    def tries(self) -> Sequence[Any]:
        """All tries, in their order."""
        return self._all(delivery_attempts, delivery_attempts.c.started_at)

    def letters(self) -> Sequence[Any]:
        """All dead letters."""
        return self._all(dead_letters, dead_letters.c.died_at)

    def seen(self, endpoint_id: uuid.UUID) -> Endpoint:
        """An endpoint as people see it."""
        with self.uow() as work:
            found = work.endpoints.get(endpoint_id)
        assert found is not None
        return found

    def _all(self, table: Any, order: Any) -> Sequence[Any]:
        with self.uow.engine.connect() as connection:
            return connection.execute(select(table).order_by(order)).all()
