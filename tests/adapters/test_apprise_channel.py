"""Services through Apprise: those with fixed addresses, within a deadline, and nothing else."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime

import pytest

from qa_worker.adapters.apprise_channel import FIXED_HOSTS, AppriseChannel
from qa_worker.application.channels import Parcel
from qa_worker.domain.errors import InvalidInput
from qa_worker.domain.failure import FailureKind
from tests.documents import a_document

DISCORD = "discord://4174216298/JHMHI8qBe7bk2ZwO5U711o3dV_js"
# The library imports a module that Python is about to drop.
OLD_IMPORT = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
BODY = json.dumps(a_document()).encode()


class Service:
    """Takes a notification or not, perhaps after somebody lets it."""

    def __init__(
        self, *, takes: bool = True, waits_for: threading.Event | None = None, host: str | None = None
    ) -> None:
        self.takes = takes
        self.host = host  # as plugins have it
        self.waits_for = waits_for
        self.told: list[tuple[str, str, str]] = []

    def notify(self, body: str, title: str, notify_type: str) -> bool:
        self.told.append((body, title, notify_type))
        if self.waits_for is not None:
            self.waits_for.wait(10)
        return self.takes


def _parcel(target: str = DISCORD) -> Parcel:
    return Parcel("msg_1", BODY, datetime.now(UTC), target)


def test_a_service_is_told_in_plain_text() -> None:
    service = Service()

    answer = AppriseChannel(timeout_s=5, load=lambda _target: service).send(_parcel())

    assert (answer.failure, answer.status) == (None, None)
    ((body, title, kind),) = service.told
    assert (title, kind) == ("Evaluation failed: Booking", "failure")
    assert "It asked for the PIN." in body


def test_a_service_that_takes_nothing_is_tried_again() -> None:
    answer = AppriseChannel(timeout_s=5, load=lambda _target: Service(takes=False)).send(_parcel())

    assert answer.failure is not None
    assert (answer.failure.kind, answer.failure.code) == (FailureKind.TRANSIENT, "not_taken")


def test_a_fault_of_the_library_is_raised_where_it_is_waited_for() -> None:
    class Broken(Service):
        def notify(self, body: str, title: str, notify_type: str) -> bool:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        AppriseChannel(timeout_s=5, load=lambda _target: Broken()).send(_parcel())


def test_a_service_that_hangs_is_left_behind() -> None:
    released = threading.Event()
    channel = AppriseChannel(timeout_s=0.02, load=lambda _target: Service(waits_for=released))

    answer = channel.send(_parcel())
    released.set()

    assert answer.failure is not None
    assert (answer.failure.kind, answer.failure.code) == (FailureKind.TRANSIENT, "timeout")


@pytest.mark.parametrize(
    "target",
    [
        "json://127.0.0.1/hook",
        "jsons://hooks.example.com/",
        "xml://127.0.0.1/",
        "form://127.0.0.1/",
        "mailto://user:pass@10.0.0.5?smtp=10.0.0.5",
        "mailtos://user:pass@example.com",
        "apprise://127.0.0.1/token",
        "gotify://127.0.0.1/token",
        "mattermost://127.0.0.1/token",
        "rsyslog://127.0.0.1",
        "syslog://",
        "dbus://",
        "windows://",
        "https://hooks.example.com/",
        "workflows://evil.example/1/2?sig=3",
        "workflows://prod.logic.azure.com.evil.example/1/2?sig=3",
        "workflows://prod.logic.azure.com@evil.example/1/2?sig=3",
        f"{DISCORD}?avatar_url=http://10.0.0.1/",
        f"{DISCORD}?template=/etc/passwd",
        f"{DISCORD}?attach=/etc/passwd",
        f"{DISCORD}?verify=no",
        "",
        "discord",
    ],
)
def test_what_could_lead_inside_is_refused_without_asking_the_library(target: str) -> None:
    asked: list[str] = []
    channel = AppriseChannel(timeout_s=5, load=asked.append)

    with pytest.raises(InvalidInput) as refused:
        channel.check(target)
    answer = channel.send(_parcel(target))

    assert refused.value.field == "url"
    assert answer.failure is not None
    assert (answer.failure.kind, answer.failure.code) == (FailureKind.REJECTED, "refused_url")
    assert asked == []


def test_a_url_that_the_library_cannot_read_is_refused() -> None:
    channel = AppriseChannel(timeout_s=5, load=lambda _target: None)

    with pytest.raises(InvalidInput, match="can't read"):
        channel.check("discord://")


def test_a_host_that_the_library_reads_differently_is_refused() -> None:
    service = Service(host="evil.example")

    with pytest.raises(InvalidInput, match="two ways"):
        AppriseChannel(timeout_s=5, load=lambda _target: service).check("workflows://prod.logic.azure.com/1/2?sig=3")


def test_a_missing_library_is_said_clearly_and_no_alert_dies_of_it() -> None:
    def missing(_target: str) -> None:
        raise InvalidInput("kind", "the library Apprise is not installed", "pip install 'qa-worker[apprise]'")

    channel = AppriseChannel(timeout_s=5, load=missing)

    with pytest.raises(InvalidInput, match=r"qa-worker\[apprise\]"):
        channel.check(DISCORD)
    answer = channel.send(_parcel())
    assert answer.failure is not None
    assert answer.failure.kind is FailureKind.BLOCKED


@OLD_IMPORT
def test_the_real_library_knows_these_services_and_no_secret_is_shown() -> None:
    pytest.importorskip("apprise")
    channel = AppriseChannel(timeout_s=5)

    assert channel.check(DISCORD) == "discord://"
    assert channel.check("pagerduty://A1BRTD4JD@TIiajkdnlazkcOXrIdevi7F/node01/drive_sda") == "pagerduty://"
    assert channel.check("workflows://prod-1.westus.logic.azure.com:443/643e69f83c8944/T8R3?sig=1") == "workflows://"
    with pytest.raises(InvalidInput):
        channel.check("discord://nothing")


@OLD_IMPORT
def test_every_scheme_that_is_taken_exists_in_the_library_and_names_no_host() -> None:
    manager_plugins = pytest.importorskip("apprise.manager_plugins")
    manager = manager_plugins.NotificationManager()
    schemas = set(manager.schemas())

    assert schemas >= FIXED_HOSTS
    # Mailgun's is the sender's domain, a part of the path.
    for scheme in FIXED_HOSTS - {"mailgun"}:
        assert "host" not in manager[scheme].template_tokens, scheme
