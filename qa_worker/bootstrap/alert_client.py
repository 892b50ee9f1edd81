"""What commands about endpoints, rules, alerts and dead letters call."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import cached_property

from sqlalchemy import Engine

from qa_worker.adapters.postgres.alert_queries import PostgresAlertQueries
from qa_worker.adapters.queue.publisher import Publisher
from qa_worker.application.alert_queries import AlertQueries
from qa_worker.application.channels import Answer
from qa_worker.application.dead_letters import Replay
from qa_worker.application.delivering import Endpoint
from qa_worker.application.discard_dead_letters import discard_dead_letters
from qa_worker.application.manage_endpoints import (
    Made,
    Managing,
    add_endpoint,
    reseal_endpoints,
    rotate_secret,
    switch_endpoint,
    try_endpoint,
)
from qa_worker.application.manage_rules import RuleDraft, RuleView, add_rule, list_rules, remove_rule
from qa_worker.application.ports import UnitOfWorkFactory
from qa_worker.application.replay_dead_letter import Replaying, replay_dead_letters
from qa_worker.bootstrap.sending import Channels, health_rules, managing
from qa_worker.domain.alert_rule import AlertRule
from qa_worker.domain.dead_letter import Choice
from qa_worker.domain.endpoint import EndpointKind
from qa_worker.settings import Settings


class AlertClient:
    """On the connections of a `Client`. `secret_keys` are those of the local stack, where the settings have none."""

    def __init__(
        self,
        chosen: Settings,
        engine: Engine,
        uow: UnitOfWorkFactory,
        publisher: Publisher,
        *,
        secret_keys: str | None = None,
    ) -> None:
        self._settings = chosen
        self._uow = uow
        self._publisher = publisher
        self._secret_keys = secret_keys
        self._channels: Channels | None = None
        self.queries: AlertQueries = PostgresAlertQueries(engine)

    @cached_property
    def _managing(self) -> Managing:
        self._channels = Channels(self._settings)
        return managing(self._settings, self._uow, self._channels, secret_keys=self._secret_keys)

    # -- endpoints
    def add_endpoint(self, *, workspace: str, name: str, kind: EndpointKind, url: str) -> Made:
        """See `manage_endpoints.add_endpoint`."""
        return add_endpoint(workspace=workspace, name=name, kind=kind, target=url, managing=self._managing)

    def endpoints(self, workspace: str | None = None) -> Sequence[Endpoint]:
        """The endpoints of a workspace, or all of them. Raises StoreUnavailable."""
        with self._uow() as work:
            return work.endpoints.all(workspace)

    def rotate_secret(self, *, workspace: str, name: str) -> str:
        """See `manage_endpoints.rotate_secret`."""
        return rotate_secret(workspace=workspace, name=name, managing=self._managing)

    def switch_endpoint(self, *, workspace: str, name: str, on: bool) -> int:
        """See `manage_endpoints.switch_endpoint`."""
        return switch_endpoint(workspace=workspace, name=name, on=on, managing=self._managing)

    def try_endpoint(self, *, workspace: str, name: str) -> Answer:
        """See `manage_endpoints.try_endpoint`."""
        return try_endpoint(workspace=workspace, name=name, managing=self._managing)

    def reseal_endpoints(self) -> int:
        """See `manage_endpoints.reseal_endpoints`."""
        return reseal_endpoints(managing=self._managing)

    # -- rules
    def add_rule(self, draft: RuleDraft, *, workspace: str) -> AlertRule:
        """See `manage_rules.add_rule`."""
        return add_rule(workspace=workspace, draft=draft, uow=self._uow)

    def rules(self, workspace: str) -> Sequence[RuleView]:
        """See `manage_rules.list_rules`."""
        return list_rules(workspace=workspace, uow=self._uow)

    def remove_rule(self, name: str, *, workspace: str) -> None:
        """See `manage_rules.remove_rule`."""
        remove_rule(workspace=workspace, name=name, uow=self._uow)

    # -- dead letters
    def count_letters(self, choice: Choice) -> int:
        """How many letters are meant. Raises StoreUnavailable."""
        with self._uow() as work:
            return work.dead_letters.count(choice)

    def replay(self, choice: Choice, *, limit: int, rate: float, by: str) -> Iterator[Replay]:
        """See `replay_dead_letters`."""
        return replay_dead_letters(choice=choice, limit=limit, rate=rate, by=by, replaying=self._replaying)

    def discard(self, choice: Choice, *, limit: int, by: str, reason: str) -> int:
        """See `discard_dead_letters`."""
        return discard_dead_letters(choice=choice, limit=limit, by=by, reason=reason, uow=self._uow)

    @property
    def _replaying(self) -> Replaying:
        chosen = self._settings
        return Replaying(
            uow=self._uow,
            rules=health_rules(chosen),
            max_attempts=chosen.alert_max_attempts,
            delivery_limit=chosen.alert_in_flight_limit,
            in_flight_limit=chosen.in_flight_limit,
            run_limit=chosen.run_in_flight_limit,
            pause=time.sleep,
            send_now=self._publisher.send,
        )

    def close(self) -> None:
        """Give back what trying endpoints opened."""
        if self._channels is not None:
            self._channels.close()
