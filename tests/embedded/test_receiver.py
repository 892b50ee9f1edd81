"""The demo's receiver checks signatures by the text of the standard; the reference library is the judge of that."""

from __future__ import annotations

from datetime import UTC, datetime

import httpx
from standardwebhooks.webhooks import Webhook

from qa_worker.adapters.webhooks.signing import new_secret
from qa_worker.embedded.receiver import Receiver, is_good


def test_the_receiver_is_not_fooled() -> None:
    assert not is_good("", {}, b"")
    assert not is_good("whsec_AAAA", {"webhook-id": "a", "webhook-timestamp": "1", "webhook-signature": "v1,x"}, b"")
    assert not is_good("whsec_AAAA", {"webhook-id": "a", "webhook-timestamp": "x", "webhook-signature": "v1,x"}, b"")


def test_the_receiver_agrees_with_the_reference_library() -> None:
    secret = new_secret()
    sent_at = datetime.now(UTC)
    signature = Webhook(secret).sign("msg_1", sent_at, '{"a": 1}')
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(sent_at.timestamp())),
        "webhook-signature": f"v1,bm90IG1pbmU= {signature}",
    }

    assert is_good(secret, headers, b'{"a": 1}')
    assert not is_good(secret, headers, b'{"a": 2}')
    assert not is_good(new_secret(), headers, b'{"a": 1}')
    long_ago = {**headers, "webhook-timestamp": str(int(sent_at.timestamp()) - 301)}
    assert not is_good(secret, long_ago, b'{"a": 1}')


def _post(url: str, headers: dict[str, str], body: bytes) -> int:
    return httpx.post(url, content=body, headers=headers, timeout=5, trust_env=False).status_code


def test_a_path_is_taken_with_its_secret_and_while_it_is_up() -> None:
    secret, sent_at = new_secret(), datetime.now(UTC)
    signed = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(sent_at.timestamp())),
        "webhook-signature": Webhook(secret).sign("msg_1", sent_at, "{}"),
    }
    with Receiver() as receiver:
        receiver.expect("/ops", secret)
        statuses = [_post(receiver.url("/ops"), signed, b"{}"), _post(receiver.url("/ops"), {}, b"{}")]
        receiver.switch("/ops", up=False)
        statuses.append(_post(receiver.url("/ops"), signed, b"{}"))
        receiver.switch("/ops", up=True)
        statuses.append(_post(receiver.url("/ops"), signed, b"{}"))
        statuses.append(_post(receiver.url("/elsewhere"), signed, b"{}"))

        assert statuses == [200, 401, 503, 200, 401]
        assert [(one.webhook_id, one.good) for one in receiver.received("/ops")] == [("msg_1", True)] * 2
        assert len(receiver.received("/ops", status=503)) == 1
