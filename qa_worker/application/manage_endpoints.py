"""Receivers of alerts as ops manage them: made, listed, rotated, switched, tried."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from qa_worker.application.channels import Answer, Channel, Parcel, Vault
from qa_worker.application.delivering import OFF, Address, Endpoint, NewEndpoint
from qa_worker.application.ports import Clock, UnitOfWorkFactory
from qa_worker.domain.alert import AlertEvent, Content, EndpointName, Named, body_of
from qa_worker.domain.alert_rule import AlertSeverity
from qa_worker.domain.endpoint import EndpointKind
from qa_worker.domain.errors import InvalidInput
from qa_worker.domain.failure import Failure, FailureKind

_LONGEST_NAME = 100
_OFF = Failure(FailureKind.REJECTED, OFF, "The endpoint was switched off by hand.")


@dataclass(frozen=True, slots=True)
class Managing:
    """What managing endpoints needs. `overlap_s` is how long a rotated secret still signs."""

    uow: UnitOfWorkFactory
    channels: Mapping[EndpointKind, Channel]
    vault: Vault
    clock: Clock
    new_secret: Callable[[], str]
    overlap_s: float


@dataclass(frozen=True, slots=True)
class Made:
    """An endpoint that was made. `secret` is shown this once, and only webhooks have one."""

    id: uuid.UUID
    target_hint: str
    secret: str | None = field(repr=False)


def add_endpoint(*, workspace: str, name: str, kind: EndpointKind, target: str, managing: Managing) -> Made:
    """Store a receiver.

    Raises:
        InvalidInput: nothing can be sent to this target, the name is taken, or there is no key for its secret.
        StoreUnavailable: the database is out of reach.

    """
    if not 0 < len(name) <= _LONGEST_NAME or name != name.strip():
        raise InvalidInput("name", f"not 1 to {_LONGEST_NAME} characters without blanks at its ends", "Shorten it")
    hint = managing.channels[kind].check(target)
    secret = managing.new_secret() if kind is EndpointKind.WEBHOOK else None
    endpoint = NewEndpoint(
        id=uuid.uuid4(),
        workspace_name=workspace,
        name=name,
        kind=kind,
        target_hint=hint,
        target=managing.vault.seal(target),
        secret=None if secret is None else managing.vault.seal(secret),
    )
    with managing.uow() as work:
        work.endpoints.add(endpoint)
        work.commit()
    return Made(endpoint.id, hint, secret)


def rotate_secret(*, workspace: str, name: str, managing: Managing) -> str:
    """Give a webhook a new secret, which is returned; the old one signs, too, until the overlap ends.

    Raises InvalidInput (no such endpoint, or not a webhook) and StoreUnavailable.
    """
    secret = managing.new_secret()
    sealed = managing.vault.seal(secret)
    with managing.uow() as work:
        endpoint = _known(work.endpoints.named(workspace, name), name)
        if endpoint.ref.kind is not EndpointKind.WEBHOOK:
            raise InvalidInput("name", f"{name!r} is no webhook and has no secret", "Add it anew with its new URL")
        work.endpoints.rotate_secret(endpoint.ref.id, sealed, overlap_s=managing.overlap_s)
        work.commit()
    return secret


def switch_endpoint(*, workspace: str, name: str, on: bool, managing: Managing) -> int:
    """Switch an endpoint on or off; returns how many waiting alerts became dead letters with it.

    Raises InvalidInput (no such endpoint) and StoreUnavailable.
    """
    with managing.uow() as work:
        endpoint = _known(work.endpoints.named(workspace, name), name)
        work.endpoints.switch(endpoint.ref.id, on=on, reason="" if on else "By hand.")
        buried = 0 if on else work.deliveries.bury_open(endpoint.ref.id, _OFF)
        work.commit()
    return buried


def try_endpoint(*, workspace: str, name: str, managing: Managing) -> Answer:
    """Send a test event now, once, and tell what came back; nothing of it is stored.

    Raises InvalidInput (no such endpoint, or no key opens its secrets) and StoreUnavailable.
    """
    with managing.uow() as work:
        endpoint = _known(work.endpoints.named(workspace, name), name)
        address = work.endpoints.address(endpoint.ref.id)
    if address is None:
        raise _unknown(name)
    now, vault = managing.clock.now(), managing.vault
    content = Content(
        alert_id=uuid.uuid4(),
        event=AlertEvent.TEST,
        severity=AlertSeverity.INFO,
        title="This is a test",
        at=now,
        workspace=Named(endpoint.ref.workspace, workspace),
        detail="Somebody tried whether alerts arrive here. They do.",
        endpoint=EndpointName(endpoint.ref.id, name, endpoint.ref.kind.value),
    )
    secrets = tuple(vault.open(secret) for secret in address.secrets)
    parcel = Parcel(f"msg_{content.alert_id.hex}", body_of(content), now, vault.open(address.target), secrets)
    return managing.channels[endpoint.ref.kind].send(parcel)


def reseal_endpoints(*, managing: Managing) -> int:
    """Encrypt everything that is sealed with the first key, so that the others can be taken away; how many endpoints.

    Raises InvalidInput (no key opens one of them: nothing is changed) and StoreUnavailable.
    """
    with managing.uow() as work:
        addresses = work.endpoints.sealed()
        for address in addresses:
            target, secrets = _resealed(address, managing.vault)
            work.endpoints.reseal(address.endpoint.id, target, secrets)
        work.commit()
    return len(addresses)


def _resealed(address: Address, vault: Vault) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    return vault.reseal(address.target), [(secret, vault.reseal(secret)) for secret in address.secrets]


def _known(endpoint: Endpoint | None, name: str) -> Endpoint:
    if endpoint is None:
        raise _unknown(name)
    return endpoint


def _unknown(name: str) -> InvalidInput:
    return InvalidInput("name", f"there is no endpoint {name!r} in this workspace", "See `qa-worker endpoints list`")
