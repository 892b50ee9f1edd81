"""Builds what sends alerts: the guarded client, the channels, the vault. What raises them is built elsewhere."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Mapping
from functools import partial

import structlog

from qa_worker.adapters.apprise_channel import AppriseChannel
from qa_worker.adapters.postgres.records import DirectRecords
from qa_worker.adapters.queue.publisher import Publisher
from qa_worker.adapters.secrets import FernetVault, split_keys
from qa_worker.adapters.slack import SlackChannel
from qa_worker.adapters.webhooks.channel import WebhookChannel
from qa_worker.adapters.webhooks.client import Timeouts, WebClient
from qa_worker.adapters.webhooks.guard import Guard
from qa_worker.adapters.webhooks.signing import new_secret
from qa_worker.application._delivery_record import Recording, SwitchedOff
from qa_worker.application.channels import Channel
from qa_worker.application.dispatch_deliveries import dispatch_deliveries
from qa_worker.application.manage_endpoints import Managing
from qa_worker.application.ports import Rescued, UnitOfWorkFactory
from qa_worker.application.rescue_deliveries import rescue_deliveries
from qa_worker.application.send_alert import Sending, send_alert
from qa_worker.bootstrap.clock import RandomJitter, StructlogContext, SystemClock
from qa_worker.domain.endpoint import EndpointKind, HealthRules, patience_s
from qa_worker.domain.outcome import Outcome
from qa_worker.domain.retry import RetryPolicy
from qa_worker.settings import Settings

log = structlog.get_logger(__name__)

_LEASES = 3
"""A lease lasts this many times what a delivery may take; nobody extends it."""
_DAY_S = 86_400
# Half of the slots: there are about four deliveries in flight for each.
_OF_THE_LIMIT = 8


class Channels:
    """The ways out, and the client that they share. Opens its first connection with the first alert."""

    def __init__(self, chosen: Settings) -> None:
        self._client = WebClient(
            Guard(allow_http=chosen.alert_allow_http, allowed=chosen.alert_allowed_networks),
            now=SystemClock().now,
            timeouts=Timeouts(connect_s=chosen.alert_connect_timeout_s, total_s=chosen.alert_timeout_s),
        )
        self.by_kind: Mapping[EndpointKind, Channel] = {
            EndpointKind.WEBHOOK: WebhookChannel(self._client),
            EndpointKind.SLACK: SlackChannel(self._client),
            EndpointKind.APPRISE: AppriseChannel(timeout_s=chosen.alert_timeout_s),
        }

    def close(self) -> None:
        """Give its connections back."""
        self._client.close()


class SendJobs:
    """What the tasks about deliveries call. A process that sends nothing builds no client."""

    def __init__(self, chosen: Settings, uow: UnitOfWorkFactory, publisher: Publisher) -> None:
        rules, policy, limit = health_rules(chosen), retry_policy(chosen), chosen.alert_in_flight_limit
        patience = patience_s(policy, rules, try_s=chosen.alert_timeout_s)
        self.dispatch: Callable[[], int] = partial(
            dispatch_deliveries, uow=uow, rules=rules, patience_s=patience, limit=limit
        )
        self.rescue: Callable[[], Rescued] = partial(
            rescue_deliveries, uow=uow, resend_after_s=chosen.resend_after_s, waiting=publisher.waiting_alerts
        )
        self._chosen = chosen
        self._uow = uow
        self._lock = threading.Lock()
        self._channels: Channels | None = None
        self._sending: Sending | None = None

    def send(self, delivery_id: uuid.UUID) -> list[Outcome]:
        """See `send_alert`."""
        return send_alert(delivery_id=delivery_id, sending=self._built())

    def close(self) -> None:
        """Give back what sending opened."""
        with self._lock:
            if self._channels is not None:
                self._channels.close()
            self._channels = self._sending = None

    def _built(self) -> Sending:
        with self._lock:
            if self._sending is None:
                self._channels = Channels(self._chosen)
                self._sending = _sending(self._chosen, self._uow, self._channels)
            return self._sending


def _sending(chosen: Settings, uow: UnitOfWorkFactory, channels: Channels) -> Sending:
    lease_s = _LEASES * chosen.alert_timeout_s
    return Sending(
        uow=uow,
        context=StructlogContext(),
        channels=channels.by_kind,
        vault=vault(chosen),
        recording=Recording(
            records=DirectRecords(uow, patience_s=lease_s),
            clock=SystemClock(),
            jitter=RandomJitter(),
            policy=retry_policy(chosen),
            rules=health_rules(chosen),
            limit=chosen.alert_in_flight_limit,
            lease_s=lease_s,
            switched_off=_log_switched_off,
        ),
    )


def _log_switched_off(off: SwitchedOff) -> None:
    # An error: where its workspace has no other endpoint, this line is all that tells of it by itself.
    log.error(
        "endpoint_switched_off",
        endpoint_id=str(off.endpoint.id),
        endpoint=off.endpoint.name,
        workspace=off.endpoint.workspace_name,
        reason=off.reason,
        endpoints_told=off.told,
        dead_letters=off.dead,
    )


def managing(
    chosen: Settings, uow: UnitOfWorkFactory, channels: Channels, *, secret_keys: str | None = None
) -> Managing:
    """What commands about endpoints need. `secret_keys` are those of the local stack, where the settings have none."""
    return Managing(
        uow=uow,
        channels=channels.by_kind,
        vault=vault(chosen, secret_keys),
        clock=SystemClock(),
        new_secret=new_secret,
        overlap_s=chosen.secret_overlap_s,
    )


def vault(chosen: Settings, secret_keys: str | None = None) -> FernetVault:
    """The vault with the keys of the settings, or else with these. Raises InvalidInput where a key is none."""
    return FernetVault(split_keys(chosen.secret_keys.get_secret_value() or secret_keys or ""))


def retry_policy(chosen: Settings) -> RetryPolicy:
    """When a delivery is tried again."""
    return RetryPolicy(schedule_s=chosen.alert_retry_schedule_s, max_attempts=chosen.alert_max_attempts)


def health_rules(chosen: Settings) -> HealthRules:
    """How an endpoint that fails is treated."""
    return HealthRules(
        in_flight=chosen.alert_endpoint_limit,
        threshold=chosen.alert_breaker_threshold,
        pause_s=chosen.alert_breaker_pause_s,
        max_pause_s=chosen.alert_breaker_max_pause_s,
        off_after_s=chosen.endpoint_off_after_days * _DAY_S,
        off_after_failures=chosen.endpoint_off_after_failures,
        slow_in_flight=max(1, chosen.alert_in_flight_limit // _OF_THE_LIMIT),
    )
