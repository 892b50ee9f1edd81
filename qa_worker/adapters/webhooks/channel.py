"""Endpoints that take a signed webhook."""

from __future__ import annotations

from qa_worker.adapters.webhooks.signing import signed_headers
from qa_worker.application.channels import Answer, Parcel, Poster


class WebhookChannel:
    """Implements the port `Channel`: the bytes of the alert, signed."""

    def __init__(self, poster: Poster) -> None:
        self._poster = poster

    def check(self, target: str) -> str:
        """See the port."""
        return self._poster.check(target)

    def send(self, parcel: Parcel) -> Answer:
        """See the port."""
        headers = {
            "content-type": "application/json",
            **signed_headers(
                message_id=parcel.message_id, body=parcel.body, sent_at=parcel.sent_at, keys=parcel.secrets
            ),
        }
        return self._poster.post(parcel.target, parcel.body, headers)
