"""Where alerts may go: every odd way to write an address that people have used to get inside."""

from __future__ import annotations

import time
from collections.abc import Sequence
from ipaddress import ip_address, ip_network

import pytest

from qa_worker.adapters.webhooks.addresses import why_not
from qa_worker.adapters.webhooks.guard import Guard, NotResolved
from qa_worker.domain.errors import InvalidInput

NAMES = {
    "hooks.example.com": ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"],
    "localhost": ["127.0.0.1", "::1"],
    "loopback.example.com": ["127.0.0.1"],
    "half-inside.example.com": ["93.184.215.14", "10.0.0.5"],
    "metadata.google.internal": ["169.254.169.254"],
    "v6-inside.example.com": ["fd12::7"],
    "mapped.example.com": ["::ffff:169.254.169.254"],
    "zone.example.com": ["fe80::1%eth0"],
    "translated.example.com": ["64:ff9b::a9fe:a9fe"],
}
INSIDE = (
    "https://127.0.0.1/hook",
    "https://127.0.0.1:8443/hook",
    "https://127.8.9.10/",
    "https://0.0.0.0/",
    "https://10.1.2.3/",
    "https://172.16.0.1/",
    "https://172.31.255.255/",
    "https://192.168.1.1/",
    "https://169.254.169.254/latest/meta-data/",
    "https://168.63.129.16/metadata",
    "https://100.64.0.1/",
    "https://100.100.100.200/latest/meta-data/",
    "https://192.0.0.192/opc/v2/",
    "https://198.18.0.1/",
    "https://203.0.113.9/",
    "https://224.0.0.1/",
    "https://240.0.0.1/",
    "https://255.255.255.255/",
    "https://[::1]/",
    "https://[::]/",
    "https://[0:0:0:0:0:0:0:1]/",
    "https://[fc00::1]/",
    "https://[fd00:ec2::254]/latest/",
    "https://[fe80::1]/",
    "https://[ff02::1]/",
    "https://[2001:db8::1]/",
    "https://[4000::1]/",
    # IPv4 in IPv6
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:a9fe:a9fe]/",
    "https://[::ffff:8.8.8.8]/",
    "https://[::127.0.0.1]/",
    "https://[64:ff9b::169.254.169.254]/",
    "https://[64:ff9b:1::10.0.0.1]/",
    "https://[2002:7f00:1::]/",
    "https://[2002:a9fe:a9fe::1]/",
    "https://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/",
    "https://[64:ff9b:1:7f00:0:100::]/",
    "https://[2001:0:7f00:1::1]/",
    "https://[2606:4700::5efe:7f00:1]/",
    "https://[2606:4700::5efe:10.0.0.1]/",
    "https://[2606:4700::200:5efe:a9fe:a9fe]/",
    "https://[2606:4700::5efe:8.8.8.8]/",
    # names
    "https://localhost/",
    "https://LOCALHOST/",
    "https://loopback.example.com/",
    "https://half-inside.example.com/",
    "https://metadata.google.internal/",
    "https://v6-inside.example.com/",
    "https://mapped.example.com/",
    "https://zone.example.com/",
    "https://translated.example.com/",
)
ODD = (
    # notations of 127.0.0.1 that resolvers understand
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0x7f.0x0.0x0.0x1/",
    "https://0177.0.0.1/",
    "https://017700000001/",
    "https://127.1/",
    "https://127.0.1/",
    "https://0127.0.0.1/",
    "https://127.0.0.0x1/",
    "https://4294967297/",
    "https://8.8.8.8.8/",
    "https://256.1.1.1/",
    "https://1.2.3.0x/",
    # hosts that two readers may read differently
    "https://hooks.example.com@127.0.0.1/",
    "https://user:password@hooks.example.com/",
    "https://hooks.example.com./",
    "https://127.0.0.1./",
    "https://.hooks.example.com/",
    "https://hooks..example.com/",
    "https://-hooks.example.com/",
    "https://１２７.0.0.1/",
    "https://①②⑦.⓪.⓪.①/",
    "https://hooks。example。com/",
    "https://bücher.example/",
    "https://%6c%6f%63%61%6c%68%6f%73%74/",
    "https://hooks.example.com%00.evil/",
    "https://hooks.example.com\\@127.0.0.1/",
    "https://hooks.example.com#@127.0.0.1/",
    "https://hooks.example.com/#part",
    "https://hooks.example.com /",
    "https://hooks.example.com/a b",
    "https://hooks.example.com/\r\nHost: inside",
    "https://[fe80::1%25eth0]/",
    "https://[::1/",
    "https://::1/",
    "https://[v1.fe80]/",
    "https://[12345::]/",
    "https:///hook",
    "https:hooks.example.com",
    "https://hooks.example.com:0/",
    "https://hooks.example.com:65536/",
    "https://hooks.example.com:https/",
    "https://hooks.example.com:80:443/",
    "https://" + "a" * 64 + ".example.com/",
    "https://" + "a." * 130 + "com/",
    "https://hooks.example.com/" + "a" * 2048,
    " https://hooks.example.com/",
    "HTTPS://hooks.example.com/",
    "",
    # other schemes
    "http://hooks.example.com/",
    "ftp://hooks.example.com/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:6379/_FLUSHALL",
    "unix://var/run/docker.sock",
    "//hooks.example.com/",
    "javascript://hooks.example.com/",
)


def _resolve(name: str, _port: int) -> Sequence[str]:
    return NAMES[name]


def _allowing(*networks: str) -> Guard:
    return Guard(allow_http=True, allowed=tuple(map(ip_network, networks)), resolver=_resolve)


def _check(guard: Guard, url: str) -> None:
    target = guard.check_url(url)
    guard.addresses(target.host, target.port, timeout_s=5)


@pytest.mark.parametrize("url", INSIDE)
def test_nothing_is_sent_inside(url: str) -> None:
    with pytest.raises(InvalidInput, match="leads to") as refused:
        _check(Guard(resolver=_resolve), url)

    assert refused.value.field == "url"
    assert "QA_ALERT_ALLOWED_NETWORKS" in str(refused.value)


@pytest.mark.parametrize("url", ODD)
def test_what_is_no_plain_https_url_is_refused_before_anybody_resolves_it(url: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        Guard(resolver=_resolve).check_url(url)

    assert refused.value.field == "url"
    assert refused.value.fix


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("https://hooks.example.com/hook?token=a%20b", "hooks.example.com", 443),
        ("https://Hooks.Example.COM:8443", "hooks.example.com", 8443),
        ("https://93.184.215.14/", "93.184.215.14", 443),
        ("https://[2606:2800:21F:cb07:6820:80da:af6b:8b2c]:444/", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", 444),
        ("https://xn--bcher-kva.example/?q", "xn--bcher-kva.example", 443),
    ],
)
def test_a_public_receiver_passes(url: str, host: str, port: int) -> None:
    target = Guard().check_url(url)

    assert (target.host, target.port) == (host, port)


def test_a_refusal_quotes_nothing_of_the_url() -> None:
    with pytest.raises(InvalidInput) as refused:
        Guard().check_url("https://user:hunter2@hooks.example.com/T000/secret-path")

    assert "hunter2" not in str(refused.value)
    assert "secret-path" not in str(refused.value)


def test_plain_http_says_which_setting_allows_it() -> None:
    with pytest.raises(InvalidInput, match="QA_ALERT_ALLOW_HTTP"):
        Guard().check_url("http://hooks.example.com/")

    assert Guard(allow_http=True).check_url("http://hooks.example.com/").port == 80


def test_an_allowed_network_opens_itself_and_nothing_else() -> None:
    guard = _allowing("10.0.0.0/8", "fd12::/16")

    _check(guard, "http://10.1.2.3/")
    _check(guard, "https://half-inside.example.com/")
    _check(guard, "https://v6-inside.example.com/")
    with pytest.raises(InvalidInput, match="this very machine"):
        _check(guard, "https://127.0.0.1/")
    with pytest.raises(InvalidInput, match="written as IPv6"):
        _check(guard, "https://[::ffff:10.1.2.3]/")


def test_an_allowed_translator_leads_to_no_inner_address() -> None:
    guard = _allowing("64:ff9b::/96")

    _check(guard, "https://[64:ff9b::8.8.8.8]/")
    with pytest.raises(InvalidInput, match="local link"):
        _check(guard, "https://translated.example.com/")


@pytest.mark.parametrize("inside", ["7f00:1", "169.254.169.254", "0a00:1"])
def test_an_allowed_network_leads_to_no_inner_address_by_a_tunnel(inside: str) -> None:
    guard = _allowing("2606:4700::/32")

    _check(guard, "https://[2606:4700::5efe:8.8.8.8]/")
    with pytest.raises(InvalidInput, match="leads to"):
        _check(guard, f"https://[2606:4700::5efe:{inside}]/")


def test_all_public_addresses_of_a_name_are_given_in_order() -> None:
    found = Guard(resolver=_resolve).addresses("hooks.example.com", 443, timeout_s=5)

    assert [str(address) for address in found] == NAMES["hooks.example.com"]


def test_a_name_that_nobody_knows_is_no_refusal() -> None:
    def unknown(_name: str, _port: int) -> Sequence[str]:
        raise OSError("Name or service not known")

    with pytest.raises(NotResolved, match="not known"):
        Guard(resolver=unknown).addresses("gone.example.com", 443, timeout_s=5)
    with pytest.raises(NotResolved):
        Guard(resolver=lambda _name, _port: []).addresses("empty.example.com", 443, timeout_s=5)


def test_a_name_server_that_takes_long_is_not_waited_for() -> None:
    def mute(_name: str, _port: int) -> Sequence[str]:
        time.sleep(0.2)
        return ["8.8.8.8"]

    with pytest.raises(NotResolved, match="in time"):
        Guard(resolver=mute).addresses("slow.example.com", 443, timeout_s=0.01)


def test_every_special_network_is_refused_to_its_last_address() -> None:
    for network in ("10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "fc00::/7", "2001::/23", "64:ff9b::/96"):
        block = ip_network(network)
        for address in (block[0], block[-1]):
            assert why_not(address, allowed=()) is not None, address
    for public in ("9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "2001:200::", "2606:4700::1111"):
        assert why_not(ip_address(public), allowed=()) is None, public
