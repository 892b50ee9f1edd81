"""Signatures, checked by the reference library and by hand."""

from __future__ import annotations

import base64
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from qa_worker.adapters.webhooks.channel import WebhookChannel
from qa_worker.adapters.webhooks.client import WebClient
from qa_worker.adapters.webhooks.guard import Guard
from qa_worker.adapters.webhooks.signing import key_bytes, new_secret, signed_headers
from qa_worker.application.channels import Parcel
from qa_worker.domain.errors import InvalidInput
from tests.adapters.webhooks.test_client import LOOPBACK
from tests.servers.receiver import Receiver, old_signature_is_good

BODY = json.dumps({"type": "test", "text": "Grüße, “quoted”"}, ensure_ascii=False).encode()


def _headers(*keys: str, sent_at: datetime | None = None) -> dict[str, str]:
    return signed_headers(message_id="msg_1", body=BODY, sent_at=sent_at or datetime.now(UTC), keys=keys)


def test_the_reference_library_verifies_what_we_sign() -> None:
    secret = new_secret()

    assert Webhook(secret).verify(BODY, _headers(secret)) == json.loads(BODY)


def test_another_secret_another_body_or_an_old_time_is_not_verified() -> None:
    secret = new_secret()
    headers = _headers(secret)

    for webhook, body, given in (
        (Webhook(new_secret()), BODY, headers),
        (Webhook(secret), BODY + b" ", headers),
        (Webhook(secret), BODY, headers | {"webhook-id": "msg_2"}),
        (Webhook(secret), BODY, _headers(secret, sent_at=datetime.now(UTC) - timedelta(minutes=6))),
    ):
        with pytest.raises(WebhookVerificationError):
            webhook.verify(body, given)


def test_during_a_rotation_both_secrets_verify_and_the_older_header_has_the_current_one() -> None:
    current, previous = new_secret(), new_secret()
    headers = _headers(current, previous)

    for secret in (current, previous):
        assert Webhook(secret).verify(BODY, headers) == json.loads(BODY)
    assert headers["webhook-signature"].count("v1,") == 2
    assert headers["x-signature-256"] == _headers(current)["x-signature-256"] != _headers(previous)["x-signature-256"]


def test_the_known_example_of_the_specification() -> None:
    headers = signed_headers(
        message_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        body=b'{"test": 2432232314}',
        sent_at=datetime.fromtimestamp(1614265330, tz=UTC),
        keys=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
    )

    assert headers["webhook-timestamp"] == "1614265330"
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_secret_has_32_random_bytes() -> None:
    secret = new_secret()

    assert secret.startswith("whsec_")
    assert len(key_bytes(secret)) == 32
    assert secret != new_secret()


@pytest.mark.parametrize(
    "secret", ["", "whsec_", "whsec_not base64!", "wrong_" + "A" * 44, "whsec_" + base64.b64encode(b"short").decode()]
)
def test_an_improper_secret_is_refused_without_being_quoted(secret: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        key_bytes(secret)

    assert refused.value.field == "secret"
    assert "not base64!" not in str(refused.value)


def test_what_a_channel_sends_is_verified_by_a_receiver_on_each_try_with_the_same_bytes() -> None:
    secret = new_secret()
    client = WebClient(Guard(allow_http=True, allowed=LOOPBACK), now=lambda: datetime.now(UTC))
    channel = WebhookChannel(client)
    with Receiver([secret]) as receiver:
        now = datetime.now(UTC)
        for sent_at in (now, now + timedelta(seconds=40)):
            answer = channel.send(Parcel("msg_1", BODY, sent_at, receiver.url, (secret,)))
            assert answer.failure is None
        unsigned = channel.send(Parcel("msg_1", BODY, now, receiver.url, (new_secret(),)))
        first, second, third = receiver.deliveries
    client.close()

    assert unsigned.status == 401
    assert (first.verified, second.verified, third.verified) == (True, True, False)
    assert first.body == second.body == BODY
    assert first.id == second.id == "msg_1"
    assert first.headers["webhook-timestamp"] != second.headers["webhook-timestamp"]
    assert old_signature_is_good(secret, first)
    assert not old_signature_is_good(secret, third)


def test_a_parcel_shows_neither_its_target_nor_its_secrets() -> None:
    shown = repr(Parcel("msg_1", BODY, datetime.now(UTC), "https://hooks.example.com/T0/secret", ("whsec_abc",)))

    assert "hooks.example.com" not in shown
    assert "whsec_abc" not in shown
    assert "quoted" not in shown


def test_what_may_be_shown_of_a_target_is_its_scheme_and_host() -> None:
    channel = WebhookChannel(WebClient(Guard(), now=lambda: datetime.now(UTC)))

    assert channel.check("https://hooks.example.com:443/T0/secret?key=1") == "https://hooks.example.com"
    assert channel.check("https://hooks.example.com:8443/T0/secret?key=1") == "https://hooks.example.com:8443"
    assert channel.check("https://[2606:4700::1111]:444/x") == "https://[2606:4700::1111]:444"
    assert channel.check("https://[2606:4700::1111]/x") == "https://[2606:4700::1111]"


def test_the_check_in_the_documentation_works() -> None:
    text = (Path(__file__).parents[3] / "docs" / "alerts.md").read_text(encoding="utf-8")
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "def is_genuine" in block]
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 - our own page
    is_genuine = names["is_genuine"]
    current, previous = new_secret(), new_secret()
    headers = _headers(current, previous)

    assert is_genuine(current, headers, BODY)
    assert is_genuine(previous, headers, BODY)
    assert not is_genuine(new_secret(), headers, BODY)
    assert not is_genuine(current, headers, BODY + b" ")
    assert not is_genuine(current, _headers(current, sent_at=datetime.now(UTC) - timedelta(minutes=6)), BODY)
