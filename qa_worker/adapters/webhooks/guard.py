"""Where alerts may go: the URL that somebody entered, and every address that its name resolves to.

A check of the name alone is beaten by a name server that answers differently the second time, so the connection is made
to the very address that was checked here (see `transport`), on each new connection.
"""

from __future__ import annotations

import queue
import re
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from qa_worker.adapters.webhooks.addresses import Address, Network, why_not
from qa_worker.domain.errors import InvalidInput, QaError

_LONGEST = 2048
_PORTS = {"http": 80, "https": 443}
# Stricter than any standard, so that no two readers of a URL can disagree about where it leads.
_URL = re.compile(r"(?P<scheme>[a-z]+)://(?P<authority>[^/?#]*)(?P<rest>[/?][\w.~%!$&'()*+,;=:@/?-]*)?", re.ASCII)
_AUTHORITY = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?", re.ASCII)
_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*", re.ASCII)
_GREATEST_PORT = 65_535
_LONGEST_NAME = 253
_MOST_ADDRESSES = 8

_WRITE_IT_PLAINLY = "Write the receiver's address as https://name.example/path"

Resolver = Callable[[str, int], Sequence[str]]


class NotResolved(QaError):
    """The name server knows no address for this name, or didn't answer in time."""


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that passed: `host` is a name in lower case, or the address itself."""

    scheme: str
    host: str
    port: int
    address: Address | None

    @property
    def origin(self) -> str:
        """Scheme, host and, where it isn't the scheme's own, port: what may be shown of the URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}"


def system_resolver(host: str, port: int) -> Sequence[str]:
    """What this machine's resolver knows. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Guard:
    """What may be sent to: https, unless plain http is allowed; public addresses, and those in `allowed` networks."""

    def __init__(
        self, *, allow_http: bool = False, allowed: tuple[Network, ...] = (), resolver: Resolver = system_resolver
    ) -> None:
        self._schemes = ("http", "https") if allow_http else ("https",)
        self._allowed = allowed
        self._resolver = resolver

    def check_url(self, url: str) -> Target:
        """Read a URL as far as its text tells whether it may be sent to.

        Raises:
            InvalidInput: it is no plain URL of a web server, or names an address that may not be sent to. The text
                quotes nothing of the URL, which may hold a secret.

        """
        parts = _URL.fullmatch(url) if len(url) <= _LONGEST else None
        if parts is None:
            raise _refused(f"not a plain URL of at most {_LONGEST} ASCII characters without blanks or a fragment")
        scheme = parts["scheme"]
        if scheme not in self._schemes:
            if scheme == "http":
                raise _refused("plain http is not allowed", "Use https, or set QA_ALERT_ALLOW_HTTP=true")
            raise _refused("not a web address", "The URL must begin with https://")
        if "@" in parts["authority"]:
            raise _refused("a user name or password in the URL", "Leave it out: alerts are signed")
        authority = _AUTHORITY.fullmatch(parts["authority"])
        port = int((authority and authority["port"]) or _PORTS[scheme])
        if authority is None or not 0 < port <= _GREATEST_PORT:
            raise _refused("the host or the port can't be read, or holds characters that no host name has")
        host, address = _host(authority["host"])
        if address is not None:
            self._check(address, "the URL's address")
        return Target(scheme, host, port, address)

    def addresses(self, host: str, port: int, *, timeout_s: float) -> list[Address]:
        """Every address of a host, each of them checked.

        Raises:
            InvalidInput: one of them may not be sent to. One is enough: whoever mixes them is up to something.
            NotResolved: there is none, or the answer took too long.

        """
        name, literal = _host(f"[{host}]" if ":" in host else host)
        found = [literal] if literal is not None else self._resolve(name, port, timeout_s)
        for address in found:
            self._check(address, "the host's name resolves to an address that")
        return found[:_MOST_ADDRESSES]

    def _check(self, address: Address, what: str) -> None:
        reason = why_not(address, allowed=self._allowed)
        if reason is not None:
            raise _refused(
                f"{what} leads to {reason}",
                "Use a public receiver, or let ops add its network to QA_ALERT_ALLOWED_NETWORKS",
            )

    def _resolve(self, name: str, port: int, timeout_s: float) -> list[Address]:
        """The system's resolver has no timeout, so it is asked in a thread that may be left behind."""
        answer: queue.SimpleQueue[Sequence[str] | Exception] = queue.SimpleQueue()

        def ask() -> None:
            try:
                answer.put(self._resolver(name, port))
            except (OSError, UnicodeError) as error:
                answer.put(error)

        threading.Thread(target=ask, name="resolve", daemon=True).start()
        try:
            found = answer.get(timeout=max(timeout_s, 0.001))
        except queue.Empty:
            raise NotResolved("the name server didn't answer in time") from None
        if isinstance(found, Exception) or not found:
            raise NotResolved("the host's name is not known to the name server")
        return [_parsed(text) for text in found]


def _parsed(text: str) -> Address:
    """An address as the resolver writes it; one with a zone (`fe80::1%eth0`) stays on the local link whatever it is."""
    return ip_address(text.partition("%")[0])


def _host(text: str) -> tuple[str, Address | None]:
    """A host as it is connected to: a name in lower case, or an address in its one usual notation."""
    if text.startswith("["):
        try:
            address = IPv6Address(text[1:-1])
        except ValueError:
            raise _refused("the host is no IPv6 address") from None
        return str(address), address
    labels = text.split(".")
    # A host whose last part is a number is an IPv4 address to every resolver: also 127.1, 0x7f000001 and 017700000001.
    if _NUMBER.fullmatch(labels[-1]):
        try:
            return text, IPv4Address(text)
        except ValueError:
            raise _refused("an IPv4 address in an odd notation", "Write four numbers, such as 203.0.113.7") from None
    if len(text) > _LONGEST_NAME or not all(map(_LABEL.fullmatch, labels)):
        raise _refused("no proper host name: an empty or odd part, or a dot at its end")
    return text.lower(), None


def _refused(problem: str, fix: str = _WRITE_IT_PLAINLY) -> InvalidInput:
    return InvalidInput("url", problem, fix)
