"""Signatures of Standard Webhooks 1.0 (github.com/standard-webhooks/standard-webhooks), and an older header."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from datetime import datetime

from qa_worker.domain.errors import InvalidInput

_PREFIX = "whsec_"
_BYTES = 32
_LEAST_BYTES, _MOST_BYTES = 24, 64


def new_secret() -> str:
    """A fresh secret: `whsec_` and 32 random bytes in base64."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(_BYTES)).decode()


def signed_headers(*, message_id: str, body: bytes, sent_at: datetime, keys: Sequence[str]) -> dict[str, str]:
    """The headers of one try. `keys` are `whsec_` secrets, the current one first.

    `webhook-signature` holds one signature for each, so that a receiver may change its secret when it likes within the
    time of a rotation. `X-Signature-256` is for receivers that had it before: the body alone, with the current secret.
    """
    timestamp = str(int(sent_at.timestamp()))
    signed = f"{message_id}.{timestamp}.".encode() + body
    raw = [key_bytes(key) for key in keys]
    headers = {"webhook-id": message_id, "webhook-timestamp": timestamp}
    if raw:
        each = [base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode() for key in raw]
        headers["webhook-signature"] = " ".join(f"v1,{signature}" for signature in each)
        headers["x-signature-256"] = f"sha256={hmac.digest(raw[0], body, hashlib.sha256).hex()}"
    return headers


def key_bytes(secret: str) -> bytes:
    """The key inside a `whsec_` secret. Raises InvalidInput, which doesn't quote it."""
    prefix, rest = secret[: len(_PREFIX)], secret[len(_PREFIX) :]
    try:
        key = base64.b64decode(rest, validate=True)
    except ValueError:
        key = b""
    if prefix != _PREFIX or not _LEAST_BYTES <= len(key) <= _MOST_BYTES:
        raise InvalidInput("secret", "not whsec_ and 24 to 64 bytes in base64", "Rotate it, and a proper one is made")
    return key
