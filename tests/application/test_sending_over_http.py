"""Sending as a worker does it: settings, guard, vault, signatures, a real receiver and a real database."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import ValidationError

from qa_worker.adapters.queue.publisher import Publisher
from qa_worker.adapters.secrets import FernetVault, new_key
from qa_worker.application.manage_endpoints import Made, add_endpoint, rotate_secret, try_endpoint
from qa_worker.bootstrap.sending import Channels, SendJobs, managing
from qa_worker.domain.endpoint import EndpointKind
from qa_worker.domain.errors import InvalidInput
from qa_worker.domain.outcome import Dead, Done, Outcome, RetryAt
from qa_worker.settings import Settings
from tests.conftest import UnitsOfWork
from tests.post import Post
from tests.servers.behaviours import Hang
from tests.servers.receiver import Receiver, Reply, old_signature_is_good

pytestmark = pytest.mark.services


@dataclass
class Rig:
    """One worker's sending, and what commands need, by the same settings."""

    uow: UnitsOfWork
    broker_url: str
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        key = new_key()
        given = {
            "QA_SECRET_KEYS": key,
            "QA_ALERT_ALLOW_HTTP": True,
            "QA_ALERT_ALLOWED_NETWORKS": "127.0.0.0/8",
            "QA_ALERT_TIMEOUT_S": 0.5,
            **self.settings,
        }
        chosen = Settings.model_validate(given)
        self.channels = Channels(chosen)
        self.publisher = Publisher(self.broker_url)
        self.jobs = SendJobs(chosen, self.uow, self.publisher)
        self.managing = managing(chosen, self.uow, self.channels)
        self.post = Post(self.uow, vault=FernetVault([key]))

    def add(self, url: str, name: str = "ops", kind: EndpointKind = EndpointKind.WEBHOOK) -> Made:
        return add_endpoint(workspace="w", name=name, kind=kind, target=url, managing=self.managing)

    def send(self, delivery_id: uuid.UUID) -> Outcome:
        (outcome,) = self.jobs.send(delivery_id)
        return outcome

    def close(self) -> None:
        self.jobs.close()
        self.channels.close()
        self.publisher.close()


@pytest.fixture
def rig(uow: UnitsOfWork, broker_url: str) -> Iterator[Rig]:
    """A worker that may send to this machine."""
    made = Rig(uow, broker_url)
    yield made
    made.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver that takes everything, unless told otherwise."""
    with Receiver() as running:
        yield running


def test_each_try_carries_the_same_bytes_and_id_and_a_signature_of_its_own(rig: Rig) -> None:
    with Receiver() as receiver:
        made = rig.add(receiver.url)
        assert made.secret is not None
        (delivery,) = rig.post.alert(made.id)
        receiver.then(Reply(500), Reply(503), Reply(204))
        outcomes = []
        for _ in range(3):
            outcomes.append(rig.send(delivery))
            rig.post.make_due()

    assert [type(outcome) for outcome in outcomes] == [RetryAt, RetryAt, Done]
    tries = receiver.deliveries
    assert len({one.body for one in tries}) == 1
    assert {one.id for one in tries} == {rig.post.row(delivery).message_id}
    assert all(old_signature_is_good(made.secret, one) for one in tries)
    assert [(one.status_code, one.result) for one in rig.post.tries()] == [
        (500, "retry"),
        (503, "retry"),
        (204, "delivered"),
    ]


def test_a_receiver_verifies_with_either_secret_during_a_rotation(rig: Rig, receiver: Receiver) -> None:
    made = rig.add(receiver.url)
    assert made.secret is not None
    new = rotate_secret(workspace="w", name="ops", managing=rig.managing)
    (delivery,) = rig.post.alert(made.id)

    for secret in (made.secret, new):
        with Receiver([secret], port=0) as strict:
            other = rig.add(strict.url, name=f"for-{secret[-6:-2]}")
            # The same two secrets as the first endpoint's.
            with rig.uow() as work:
                address = work.endpoints.address(made.id)
                assert address is not None
                for sealed in reversed(address.secrets):
                    work.endpoints.rotate_secret(other.id, sealed, overlap_s=60)
                work.commit()
            (sent,) = rig.post.alert(other.id)
            assert rig.send(sent) == Done("delivered")
            assert strict.deliveries[0].verified
    assert rig.send(delivery) == Done("delivered")


def test_webhook_timeout_handled(rig: Rig, receiver: Receiver) -> None:
    """A receiver that never answers is tried again, and its try says how long it took."""
    made = rig.add(receiver.url)
    (delivery,) = rig.post.alert(made.id)
    receiver.then(Hang())

    assert isinstance(rig.send(delivery), RetryAt)

    (attempt,) = rig.post.tries()
    assert (attempt.result, attempt.error_code, attempt.status_code) == ("retry", "timeout", None)
    assert attempt.duration_ms >= 500
    rig.post.make_due()
    assert rig.send(delivery) == Done("delivered")


def test_an_endpoint_that_moved_inside_gets_nothing(uow: UnitsOfWork, broker_url: str, receiver: Receiver) -> None:
    """It was added while its network was allowed; the guard asks again on every try."""
    before = Rig(uow, broker_url)
    made = before.add(receiver.url)
    (delivery,) = before.post.alert(made.id)
    before.close()
    strict = Rig(uow, broker_url, {"QA_ALERT_ALLOWED_NETWORKS": ""})
    strict.post.vault = before.post.vault
    with uow() as work:
        work.endpoints.reseal(made.id, strict.managing.vault.seal(receiver.url), [])
        work.commit()
    with uow.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM endpoint_secrets")

    assert strict.send(delivery) == Dead("refused_url")
    strict.close()
    assert receiver.deliveries == []
    (letter,) = strict.post.letters()
    assert "QA_ALERT_ALLOWED_NETWORKS" in letter.last_error


def test_no_endpoint_is_added_that_nothing_may_be_sent_to(rig: Rig) -> None:
    for target in ("https://169.254.169.254/latest", "http://10.0.0.1/", "ftp://hooks.example.com/"):
        with pytest.raises(InvalidInput) as refused:
            rig.add(target)
        assert refused.value.field == "url"


def test_a_slack_endpoint_gets_blocks(rig: Rig, receiver: Receiver) -> None:
    made = rig.add(receiver.url, kind=EndpointKind.SLACK)
    (delivery,) = rig.post.alert(made.id)

    assert rig.send(delivery) == Done("delivered")
    (sent,) = receiver.deliveries
    assert b'"blocks"' in sent.body
    assert "webhook-signature" not in sent.headers


def test_a_test_event_says_what_came_back(rig: Rig, receiver: Receiver) -> None:
    rig.add(receiver.url)
    receiver.then(Reply(418, b"I am a teapot"))

    answer = try_endpoint(workspace="w", name="ops", managing=rig.managing)

    assert (answer.status, answer.head) == (418, "I am a teapot")
    assert answer.failure is not None


@pytest.mark.parametrize(
    "wrong",
    [
        {"QA_ALERT_ALLOWED_NETWORKS": "10.0.0.0/33"},
        {"QA_ALERT_ALLOWED_NETWORKS": "everything"},
        {"QA_SECRET_KEYS": "hunter2"},
        {"QA_ALERT_TIMEOUT_S": 0},
    ],
)
def test_an_impossible_setting_is_named_when_the_process_starts(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refused:
        Settings.model_validate(wrong)

    assert next(iter(wrong)) in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_networks_and_keys_are_lists_with_commas() -> None:
    keys = f"{new_key()}, {new_key()}"
    chosen = Settings.model_validate({"QA_ALERT_ALLOWED_NETWORKS": "10.0.0.0/8, fd00::/8", "QA_SECRET_KEYS": keys})

    assert list(map(str, chosen.alert_allowed_networks)) == ["10.0.0.0/8", "fd00::/8"]
    assert keys not in repr(chosen)
    assert Settings.model_validate({}).alert_allowed_networks == ()
