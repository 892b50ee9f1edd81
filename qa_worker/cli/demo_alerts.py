"""The part of `make run` that shows alerts: two receivers of its own, one of them down on purpose, dead letters, replay."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from qa_worker import bootstrap
from qa_worker.application.alert_queries import AlertView, DeliveryView
from qa_worker.application.dead_letters import Replayed
from qa_worker.application.manage_rules import RuleDraft
from qa_worker.cli.console import errors, results
from qa_worker.domain.alert_rule import AlertSeverity, RuleKind
from qa_worker.domain.dead_letter import Choice, LetterKind
from qa_worker.domain.endpoint import EndpointKind
from qa_worker.embedded.receiver import Receiver

SETTINGS: Mapping[str, object] = {
    "QA_ALERT_ALLOW_HTTP": True,
    "QA_ALERT_ALLOWED_NETWORKS": "127.0.0.0/8",
    # Hours become tenths of a second.
    "QA_ALERT_RETRY_SCHEDULE_S": [0.3],
    "QA_ALERT_MAX_ATTEMPTS": 2,
    "QA_ALERT_BREAKER_PAUSE_S": 0.3,
    "QA_ALERT_BREAKER_MAX_PAUSE_S": 0.3,
}
"""How the temporary stack differs from any other: alerts may stay on this machine, and nobody waits for long."""
_RULE, _UP, _DOWN = "failed calls", "ops", "pager"
_WAIT_S, _POLL_S = 20.0, 0.1
_AT_MOST = 500
_REPLAYS_PER_S = 200


class AlertShow:
    """Receivers, endpoints and a rule from the beginning of its block on; `gather` and `tell` follow when calls have failed."""

    def __init__(self, client: bootstrap.Client, *, workspace: str) -> None:
        self._alerts = client.alerts
        self._workspace = workspace
        self._receiver = Receiver()
        self._open = ExitStack()
        self._calls = 0

    def __enter__(self) -> Self:
        self._open.enter_context(self._receiver)
        for name in (_UP, _DOWN):
            path = f"/{name}"
            made = self._alerts.add_endpoint(
                workspace=self._workspace, name=name, kind=EndpointKind.WEBHOOK, url=self._receiver.url(path)
            )
            self._receiver.expect(path, made.secret or "")
        self._receiver.switch(f"/{_DOWN}", up=False)
        rule = RuleDraft(
            name=_RULE,
            kind=RuleKind.EVALUATION_FAILED,
            severity=AlertSeverity.CRITICAL,
            endpoints=(_UP, _DOWN),
            cooldown_s=0,
        )
        self._alerts.add_rule(rule, workspace=self._workspace)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._open.close()

    def gather(self, failed: int) -> None:
        """Wait until alerts tell of so many failed calls, then listen to nothing more: what comes later is another show."""
        deadline = time.monotonic() + _WAIT_S
        told: dict[uuid.UUID, int] = {}
        while sum(told.values()) < failed and time.monotonic() < deadline:
            time.sleep(_POLL_S)
            raised = self._alerts.queries.alerts(self._workspace, before=None, limit=_AT_MOST)
            told |= {alert.id: self._matches(alert.id) for alert in raised if alert.id not in told}
        self._alerts.remove_rule(_RULE, workspace=self._workspace)
        self._calls = sum(told.values())

    def tell(self) -> None:
        """Wait until every alert has arrived or died, let the dead begin anew, and say so."""
        raised = self._over()
        died = [one for one in _sent(raised, _DOWN) if one.state == "dead"]
        tries = len(self._receiver.received(f"/{_DOWN}", status=503))
        self._receiver.switch(f"/{_DOWN}", up=True)
        replayed = self._replay()
        again = self._delivered(replayed)
        down = (
            f"{tries} tries and {len(died)} dead letters; it came up, and of {len(replayed)} that were replayed {again}"
        )
        for line in (
            f"[bold]Alerts[/bold] {len(raised)}, of {self._calls} failed calls: those that fail together share one",
            f"  {_UP}: {_arrived(_sent(raised, _UP))} delivered, {self._good(_UP)} signatures verified",
            f"  {_DOWN}, down on purpose: {down} arrived under their webhook-ids, {self._good(_DOWN)} signatures verified",
        ):
            results.print(line, highlight=False, soft_wrap=True)

    def _over(self) -> Sequence[AlertView]:
        deadline = time.monotonic() + _WAIT_S
        with errors.status("Waiting for the alerts ..."):
            while True:
                raised = self._alerts.queries.alerts(self._workspace, before=None, limit=_AT_MOST)
                over = all(one.state in ("done", "dead") for alert in raised for one in alert.deliveries)
                if over or time.monotonic() > deadline:
                    return raised
                time.sleep(_POLL_S)

    def _matches(self, alert_id: uuid.UUID) -> int:
        """Of how many calls an alert tells."""
        alert = self._alerts.queries.alert(alert_id)
        return 0 if alert is None else int(alert.body["data"]["counts"]["matches"])

    def _replay(self) -> set[uuid.UUID]:
        choice = Choice(kind=LetterKind.ALERT, workspace=self._workspace, endpoint=_DOWN)
        answers = self._alerts.replay(choice, limit=_AT_MOST, rate=_REPLAYS_PER_S, by="make run")
        return {answer.started for answer in answers if isinstance(answer, Replayed)}

    def _delivered(self, replayed: set[uuid.UUID]) -> int:
        """How many replays arrived under the `webhook-id` that the receiver had refused while it was down."""
        deadline = time.monotonic() + _WAIT_S
        before = {one.webhook_id for one in self._receiver.received(f"/{_DOWN}", status=503)}
        while True:
            raised = self._alerts.queries.alerts(self._workspace, before=None, limit=_AT_MOST)
            again = [one for one in _sent(raised, _DOWN) if one.id in replayed]
            if all(one.state in ("done", "dead") for one in again) or time.monotonic() > deadline:
                arrived = {one.webhook_id for one in self._receiver.received(f"/{_DOWN}")}
                seen = before | {one.message_id for one in _sent(raised, _DOWN) if one.id not in replayed}
                return sum(one.state == "done" and one.message_id in arrived & seen for one in again)
            time.sleep(_POLL_S)

    def _good(self, name: str) -> int:
        return sum(one.good for one in self._receiver.received(f"/{name}"))


def _sent(raised: Sequence[AlertView], endpoint: str) -> list[DeliveryView]:
    return [one for alert in raised for one in alert.deliveries if one.endpoint == endpoint]


def _arrived(sent: Sequence[DeliveryView]) -> int:
    return sum(one.state == "done" for one in sent)
