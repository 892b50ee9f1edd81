"""Other services (mail, PagerDuty, Teams, Discord and more) through the library Apprise, an optional extra.

The guard of webhooks can't reach inside Apprise, so only services with fixed addresses are taken: a URL such as
`json://host` or `mailto://` to a server of one's own would go wherever its host resolves to at that moment.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlsplit

from qa_worker.application.channels import Answer, Parcel
from qa_worker.domain.alert_text import alert_text, as_plain
from qa_worker.domain.errors import InvalidInput
from qa_worker.domain.failure import Failure, FailureKind

# Read from each plugin of Apprise 2.2: the host is a constant, or a region of a fixed list in front of one.
FIXED_HOSTS = frozenset(
    {
        "brevo",
        "discord",
        "gchat",
        "ilert",
        "incidentio",
        "mailersend",
        "mailgun",
        "opsgenie",
        "pagerduty",
        "pagertree",
        "postmark",
        "pover",
        "resend",
        "sendgrid",
        "signl4",
        "splunk",
        "squadcast",
        "tgram",
        "twilio",
        "victorops",
    }
)
# These name their host: it must end like this.
KNOWN_ENDINGS = {
    "workflow": (".logic.azure.com", ".powerplatform.com"),
    "workflows": (".logic.azure.com", ".powerplatform.com"),
}
# Others would read files, fetch pictures or change where a plugin connects.
_ARGUMENTS = frozenset(
    {"to", "from", "cc", "bcc", "name", "region", "priority", "thread", "topic", "group", "class", "component"}
    | {"source", "sig", "sv", "sp", "api-version", "ver", "format", "severity", "user", "sound"}
)
_MISSING = "kind"
_KINDS = {"critical": "failure", "warning": "warning", "info": "info"}


class Service(Protocol):
    """As much of an Apprise plugin as is used."""

    def notify(self, body: str, title: str, notify_type: str) -> bool:
        """Send; False where the service took nothing."""
        ...


class AppriseChannel:
    """Implements the port `Channel`. Signs nothing: each service knows its users by what is in the URL."""

    def __init__(self, *, timeout_s: float, load: Callable[[str], Service | None] | None = None) -> None:
        self._timeout_s = timeout_s
        self._load = load or _load

    def check(self, target: str) -> str:
        """See the port."""
        self._service(target)
        return f"{urlsplit(target).scheme.lower()}://"

    def send(self, parcel: Parcel) -> Answer:
        """See the port. A service that is too slow is left behind; what it has begun may still arrive."""
        began = time.monotonic()
        try:
            service = self._service(parcel.target)
        except InvalidInput as refused:
            kind = FailureKind.BLOCKED if refused.field == _MISSING else FailureKind.REJECTED
            failure = Failure(kind, f"refused_{refused.field}", f"Not sent: {refused.problem}. {refused.fix}.")
            return Answer(failure, _ms_since(began))
        text = alert_text(parcel.body)
        taken: queue.SimpleQueue[bool | Exception] = queue.SimpleQueue()

        def notify() -> None:
            try:
                taken.put(service.notify(as_plain(text), text.title, _KINDS.get(text.severity, "info")))
            except Exception as error:  # noqa: BLE001 - raised where it is waited for
                taken.put(error)

        threading.Thread(target=notify, name="apprise", daemon=True).start()
        try:
            result = taken.get(timeout=self._timeout_s)
        except queue.Empty:
            return Answer(_TOO_SLOW, _ms_since(began))
        if isinstance(result, Exception):
            raise result
        return Answer(None if result else _NOT_TAKEN, _ms_since(began))

    def _service(self, target: str) -> Service:
        parts = urlsplit(target)
        scheme = parts.scheme.lower()
        endings = KNOWN_ENDINGS.get(scheme)
        if scheme not in FIXED_HOSTS and endings is None:
            known = ", ".join(sorted(FIXED_HOSTS | KNOWN_ENDINGS.keys()))
            raise InvalidInput("url", "not a service with a fixed address", f"Use one of {known}, or a webhook")
        host = (parts.hostname or "").lower()
        if endings is not None and not host.endswith(endings):
            raise InvalidInput("url", "its host is not one of this service's", f"It must end with {endings[0]}")
        unknown = sorted({name for name, _ in parse_qsl(parts.query, keep_blank_values=True)} - _ARGUMENTS)
        if unknown:
            raise InvalidInput("url", f"arguments that are not allowed: {', '.join(unknown)}", "Leave them out")
        service = self._load(target)
        if service is None:
            raise InvalidInput("url", "Apprise can't read it", f"See appriseit.com/services for {scheme}://")
        if endings is not None and getattr(service, "host", None) != host:
            raise InvalidInput("url", "its host can be read in two ways", "Copy the address from the service again")
        return service


_NOT_TAKEN = Failure(FailureKind.TRANSIENT, "not_taken", "The service took no notification.")
_TOO_SLOW = Failure(FailureKind.TRANSIENT, "timeout", "No answer within the time that a delivery may take.")


def _load(target: str) -> Any:
    """Apprise's plugin for a URL; None where it finds none. It costs 0.3 s to import, and is not always there."""
    try:
        import apprise  # noqa: PLC0415
    except ImportError:
        raise InvalidInput(
            _MISSING, "the library Apprise is not installed", "Install it with: pip install 'qa-worker[apprise]'"
        ) from None
    # Its messages may hold parts of URLs, which are secrets here.
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
    asset = apprise.AppriseAsset(http_redirects=False, storage_mode=apprise.PersistentStoreMode.MEMORY)
    return apprise.Apprise.instantiate(target, asset=asset)


def _ms_since(began: float) -> int:
    return round((time.monotonic() - began) * 1000)
