"""The HTTP client through which alerts leave, against a receiver that can do everything wrong."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path

import pytest

from qa_worker.adapters.webhooks.client import Timeouts, WebClient
from qa_worker.adapters.webhooks.guard import Guard, Resolver, system_resolver
from qa_worker.application.channels import Answer
from qa_worker.domain.failure import FailureKind
from tests.adapters.webhooks.certificates import authority_for
from tests.servers.behaviours import Cut, Drip, Hang
from tests.servers.receiver import Receiver, Reply, Reset

NOW = datetime(2026, 1, 31, 9, 0, tzinfo=UTC)
LOOPBACK = tuple(map(ip_network, ("127.0.0.0/8", "::1/128")))
BODY = b'{"type": "test"}'


def _client(
    *,
    resolver: Resolver = system_resolver,
    timeouts: Timeouts | None = None,
    tls: ssl.SSLContext | None = None,
) -> WebClient:
    guard = Guard(allow_http=True, allowed=LOOPBACK, resolver=resolver)
    return WebClient(guard, now=lambda: NOW, timeouts=timeouts or Timeouts(), tls=tls)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver that takes everything, unless told otherwise."""
    with Receiver() as running:
        yield running


@pytest.fixture
def client() -> Iterator[WebClient]:
    """A client that may send to this machine."""
    made = _client()
    yield made
    made.close()


@pytest.fixture
def hasty() -> Iterator[WebClient]:
    """A client with deadlines that a test can wait for."""
    made = _client(timeouts=Timeouts(connect_s=0.2, total_s=0.3))
    yield made
    made.close()


def _kind(answer: Answer) -> tuple[FailureKind, str]:
    assert answer.failure is not None
    return answer.failure.kind, answer.failure.code


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_is_delivered(client: WebClient, receiver: Receiver, status: int) -> None:
    receiver.then(Reply(status, b"" if status == 204 else b"thanks"))

    answer = client.post(receiver.url, BODY, {"content-type": "application/json", "webhook-id": "msg_1"})

    assert (answer.failure, answer.status) == (None, status)
    assert answer.head == ("" if status == 204 else "thanks")
    (delivery,) = receiver.deliveries
    assert (delivery.body, delivery.id) == (BODY, "msg_1")
    assert delivery.headers["content-type"] == "application/json"
    assert delivery.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (301, FailureKind.REJECTED),
        (307, FailureKind.REJECTED),
        (400, FailureKind.REJECTED),
        (401, FailureKind.REJECTED),
        (404, FailureKind.REJECTED),
        (413, FailureKind.REJECTED),
        (408, FailureKind.TRANSIENT),
        (425, FailureKind.TRANSIENT),
        (429, FailureKind.RATE_LIMITED),
        (500, FailureKind.TRANSIENT),
        (502, FailureKind.TRANSIENT),
        (503, FailureKind.TRANSIENT),
        (599, FailureKind.TRANSIENT),
    ],
)
def test_every_other_status_has_its_kind(client: WebClient, receiver: Receiver, status: int, kind: FailureKind) -> None:
    receiver.then(Reply(status, b"no"))

    answer = client.post(receiver.url, BODY, {})

    assert _kind(answer) == (kind, f"http_{status}")
    assert (answer.status, answer.head, answer.gone) == (status, "no", False)


def test_410_is_a_receiver_that_wants_nothing_more(client: WebClient, receiver: Receiver) -> None:
    receiver.then(Reply(410))

    answer = client.post(receiver.url, BODY, {})

    assert answer.gone
    assert _kind(answer) == (FailureKind.REJECTED, "http_410")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("17", 17.0),
        ("0", 0.0),
        ("Sat, 31 Jan 2026 09:02:00 GMT", 120.0),
        ("Sat, 31 Jan 2026 08:00:00 GMT", 0.0),
        ("99999999999999999999", 604_800.0),
        ("soon", None),
        ("-5", None),
        ("1e9", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(
    client: WebClient, receiver: Receiver, value: str, seconds: float | None
) -> None:
    receiver.then(Reply(429, headers={"retry-after": value}), Reply(503, headers={"retry-after": value}))

    for _ in range(2):
        failure = client.post(receiver.url, BODY, {}).failure
        assert failure is not None
        assert failure.retry_after_s == seconds


def test_a_redirect_is_not_followed(client: WebClient) -> None:
    with Receiver() as inside, Receiver(default=Reply(302, headers={"location": inside.url})) as outside:
        answer = client.post(outside.url, BODY, {})

        assert _kind(answer) == (FailureKind.REJECTED, "http_302")
        assert "Redirects are not followed" in str(answer.failure)
        assert inside.deliveries == []


def test_webhook_timeout_handled(hasty: WebClient, receiver: Receiver) -> None:
    """A receiver that never answers costs one deadline, not a slot for ever, and is tried again."""
    receiver.then(Hang())

    answer = hasty.post(receiver.url, BODY, {})

    assert _kind(answer) == (FailureKind.TRANSIENT, "timeout")
    assert hasty.post(receiver.url, BODY, {}).failure is None


def test_a_receiver_that_drips_its_headers_is_cut_off_at_the_deadline(hasty: WebClient, receiver: Receiver) -> None:
    """Each byte comes well within the read timeout; only the deadline of the whole exchange ends it."""
    receiver.then(Drip(where="headers", every_s=0.02))

    answer = hasty.post(receiver.url, BODY, {})

    assert _kind(answer) == (FailureKind.TRANSIENT, "timeout")
    assert answer.duration_ms < 5_000


def test_a_receiver_that_drips_its_body_has_answered(hasty: WebClient, receiver: Receiver) -> None:
    receiver.then(Drip(where="body", every_s=0.02))

    answer = hasty.post(receiver.url, BODY, {})

    assert (answer.failure, answer.status) == (None, 200)
    assert answer.head == "x" * len(answer.head)


def test_of_a_huge_answer_little_is_read_and_less_is_kept(client: WebClient) -> None:
    endless = threading.Event()

    def pour(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(65_536)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n")
            sent = 0
            try:
                while sent < 50_000_000:
                    sent += connection.send(b"\xc3" * 4096)
            except OSError:
                endless.set()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=pour, args=(server,))
        thread.start()
        answer = client.post(f"http://127.0.0.1:{server.getsockname()[1]}/", BODY, {})
        thread.join(10)

    assert answer.status == 200
    assert len(answer.head.encode()) <= 1024
    assert endless.is_set(), "the connection was closed long before the end"


def test_a_nul_in_an_answer_can_be_stored(client: WebClient, receiver: Receiver) -> None:
    receiver.then(Reply(500, b"a\x00b\xff"))

    assert client.post(receiver.url, BODY, {}).head == "a\ufffdb\ufffd"


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        (Reset(), "connection_lost"),
        (Cut("nothing"), "protocol"),
        (Cut("headers"), "protocol"),
    ],
)
def test_a_connection_that_breaks_is_tried_again(
    client: WebClient, receiver: Receiver, behaviour: Reset | Cut, code: str
) -> None:
    receiver.then(behaviour)

    assert _kind(client.post(receiver.url, BODY, {})) == (FailureKind.TRANSIENT, code)


def test_a_receiver_that_is_not_there_is_tried_again(client: WebClient, receiver: Receiver) -> None:
    url = receiver.url
    receiver.stop()

    assert _kind(client.post(url, BODY, {})) == (FailureKind.TRANSIENT, "connect")


@pytest.mark.parametrize(
    ("scheme", "says", "code"),
    [
        ("http", b"220 mail.example ESMTP\r\n", "protocol"),
        ("https", b"HTTP/1.1 400 Bad Request\r\n\r\n", "tls"),
    ],
)
def test_a_receiver_of_another_protocol_is_tried_again(client: WebClient, scheme: str, says: bytes, code: str) -> None:
    def babble(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(65_536)
            connection.sendall(says)
            # Closed while a part of the request is unread, the connection would be reset, and what was said lost.
            with suppress(ConnectionError):
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65_536):
                    pass

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=babble, args=(server,))
        thread.start()
        answer = client.post(f"{scheme}://127.0.0.1:{server.getsockname()[1]}/", BODY, {})
        thread.join(10)

    assert _kind(answer) == (FailureKind.TRANSIENT, code)


def test_a_connection_is_used_again(client: WebClient, receiver: Receiver) -> None:
    for _ in range(5):
        assert client.post(receiver.url, BODY, {}).failure is None

    assert receiver.connections == 1


def test_no_cookie_is_kept(client: WebClient, receiver: Receiver) -> None:
    receiver.then(Reply(200, headers={"set-cookie": "tracked=1; Path=/"}))
    client.post(receiver.url, BODY, {})
    client.post(receiver.url, BODY, {})

    assert "cookie" not in receiver.deliveries[1].headers


def test_no_proxy_of_the_environment_is_used(
    client: WebClient, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    fresh = _client()

    assert client.post(receiver.url, BODY, {}).failure is None
    assert fresh.post(receiver.url, BODY, {}).failure is None
    fresh.close()


def test_https_proves_who_the_receiver_is_though_the_address_was_resolved_before(tmp_path: Path) -> None:
    authority = authority_for("hooks.example.com", tmp_path)
    client = _client(resolver=lambda _name, _port: ["127.0.0.1"], tls=authority.client)
    with Receiver(tls=authority.server) as receiver:
        good = client.post(f"https://hooks.example.com:{receiver.port}/hook", BODY, {})
        other = client.post(f"https://other.example.com:{receiver.port}/hook", BODY, {})
        host = receiver.deliveries[0].headers["host"]
        port = receiver.port
    client.close()

    assert (good.failure, good.status) == (None, 200)
    assert host == f"hooks.example.com:{port}"
    assert _kind(other) == (FailureKind.TRANSIENT, "tls_certificate")
    assert "not valid for" in str(other.failure)


def test_a_receiver_that_nobody_vouches_for_gets_nothing(tmp_path: Path) -> None:
    authority = authority_for("hooks.example.com", tmp_path)
    client = _client(resolver=lambda _name, _port: ["127.0.0.1"])
    with Receiver(tls=authority.server) as receiver:
        answer = client.post(f"https://hooks.example.com:{receiver.port}/hook", BODY, {})
        assert receiver.deliveries == []
    client.close()

    assert _kind(answer) == (FailureKind.TRANSIENT, "tls_certificate")


def test_a_handshake_that_hangs_ends_with_the_connect_timeout(hasty: WebClient, receiver: Receiver) -> None:
    answer = hasty.post(receiver.url.replace("http:", "https:"), BODY, {})

    assert _kind(answer) == (FailureKind.TRANSIENT, "connect_timeout")
    assert receiver.deliveries == []


class Rebinding:
    """A name server that answers well at first, and then with an address inside."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.asked = 0

    def __call__(self, _name: str, _port: int) -> Sequence[str]:
        self.asked += 1
        return [self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]]


def test_a_name_that_is_bound_anew_leads_nowhere(receiver: Receiver) -> None:
    """The receiver listens on 127.0.0.1; only 127.0.0.2 may be sent to. A check before the connection would let it pass."""
    rebinding = Rebinding("127.0.0.2", "127.0.0.1")
    guard = Guard(allow_http=True, allowed=(ip_network("127.0.0.2/32"),), resolver=rebinding)
    client = WebClient(guard, now=lambda: NOW)
    url = f"http://rebind.example.com:{receiver.port}/hook"

    first, second = client.post(url, BODY, {}), client.post(url, BODY, {})
    client.close()

    # Checked, and connected to that very address, where nobody listens: the name is not asked again in between.
    assert _kind(first) == (FailureKind.TRANSIENT, "connect")
    # The retry resolves anew, and is refused.
    assert _kind(second) == (FailureKind.REJECTED, "refused_url")
    assert rebinding.asked == 2
    assert receiver.deliveries == []


def test_a_kept_connection_stays_with_the_address_that_was_checked(receiver: Receiver) -> None:
    rebinding = Rebinding("127.0.0.1", "169.254.169.254")
    client = _client(resolver=rebinding)
    url = f"http://rebind.example.com:{receiver.port}/hook"

    answers = [client.post(url, BODY, {}) for _ in range(3)]
    receiver.stop()
    receiver.start()
    after = client.post(url, BODY, {})
    client.close()

    assert [answer.failure for answer in answers] == [None] * 3
    assert _kind(after) == (FailureKind.REJECTED, "refused_url")


def test_the_next_address_is_tried_when_the_first_is_dead(receiver: Receiver) -> None:
    client = _client(resolver=lambda _name, _port: ["127.0.0.3", "127.0.0.1"])

    answer = client.post(f"http://hooks.example.com:{receiver.port}/", BODY, {})
    client.close()

    assert answer.failure is None


def test_a_refused_url_is_rejected_with_what_to_do(client: WebClient) -> None:
    answer = client.post("http://10.0.0.1/", BODY, {})

    assert _kind(answer) == (FailureKind.REJECTED, "refused_url")
    assert "QA_ALERT_ALLOWED_NETWORKS" in str(answer.failure)


def test_a_name_server_that_hangs_costs_the_connect_timeout() -> None:
    def mute(_name: str, _port: int) -> Sequence[str]:
        time.sleep(0.3)
        return ["127.0.0.1"]

    client = _client(resolver=mute, timeouts=Timeouts(connect_s=0.05, total_s=5))
    answer = client.post("http://hooks.example.com/", BODY, {})
    client.close()

    assert _kind(answer) == (FailureKind.TRANSIENT, "dns")


def test_threads_share_a_client(client: WebClient, receiver: Receiver) -> None:
    answers: list[Answer] = []

    def send() -> None:
        answers.extend(client.post(receiver.url, BODY, {}) for _ in range(10))

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [answer.failure for answer in answers] == [None] * 80
    assert len(receiver.deliveries) == 80
