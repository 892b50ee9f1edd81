"""Which IP addresses an alert may be sent to: those of the public Internet, and the networks that ops allow.

Sources: IANA's registries of special-purpose addresses (IPv4: RFC 6890 and successors; IPv6: RFC 9637 and before), and the
documented addresses of clouds' metadata services.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_SPECIAL: tuple[tuple[Network, str], ...] = tuple(
    (ip_network(network), what)
    for network, what in (
        ("0.0.0.0/8", "this very machine"),
        ("10.0.0.0/8", "a private network"),
        ("100.64.0.0/10", "a provider's shared network"),
        ("127.0.0.0/8", "this very machine"),
        ("168.63.129.16/32", "a cloud's metadata service"),
        ("169.254.0.0/16", "the local link, where clouds keep their metadata service"),
        ("172.16.0.0/12", "a private network"),
        ("192.0.0.0/24", "a network for protocols"),
        ("192.0.2.0/24", "a network for documentation"),
        ("192.31.196.0/24", "a network for name servers"),
        ("192.52.193.0/24", "a network for tunnels"),
        ("192.88.99.0/24", "a network for tunnels"),
        ("192.168.0.0/16", "a private network"),
        ("192.175.48.0/24", "a network for name servers"),
        ("198.18.0.0/15", "a network for benchmarks"),
        ("198.51.100.0/24", "a network for documentation"),
        ("203.0.113.0/24", "a network for documentation"),
        ("224.0.0.0/4", "a multicast group"),
        ("240.0.0.0/4", "a reserved network"),
        ("::/128", "this very machine"),
        ("::1/128", "this very machine"),
        ("::ffff:0:0/96", "an IPv4 address written as IPv6"),
        ("::ffff:0:0:0/96", "an IPv4 address written as IPv6"),
        ("::/96", "an IPv4 address written as IPv6"),
        ("64:ff9b::/96", "an IPv4 address behind a translator"),
        ("64:ff9b:1::/48", "an IPv4 address behind a translator"),
        ("2001::/23", "a network for protocols and tunnels"),
        ("2001:db8::/32", "a network for documentation"),
        ("2002::/16", "an IPv4 address in a tunnel"),
        ("2620:4f:8000::/48", "a network for name servers"),
        ("3fff::/20", "a network for documentation"),
        ("fc00::/7", "a private network"),
        ("fe80::/10", "the local link"),
        ("fec0::/10", "a private network"),
        ("ff00::/8", "a multicast group"),
    )
)
_UNICAST = ip_network("2000::/3")
"""All that is given out of IPv6; the rest is reserved."""
# Where the last 32 bits are an IPv4 address (RFC 4291, 6052, 8215).
_ENDS_IN_IPV4 = tuple(
    ip_network(network) for network in ("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/96")
)
_SIX_TO_FOUR = ip_network("2002::/16")
# The interface of an ISATAP address, under any prefix: 0:5efe or, of a globally unique one, 200:5efe (RFC 5214, 6.1).
_ISATAP = frozenset({0x0000_5EFE, 0x0200_5EFE})
_NOTHING = IPv6Address("::")


def why_not(address: Address, *, allowed: tuple[Network, ...]) -> str | None:
    """What kind of place this is, where nothing may be sent to it; None where it may.

    An allowed network opens what lies in it; an IPv4 address inside an IPv6 one must be good on its own, too.
    """
    inner = _embedded(address)
    if inner is not None and (reason := why_not(inner, allowed=allowed)):
        return reason
    if _within(address, allowed):
        return None
    for network, what in _SPECIAL:
        if address.version == network.version and address in network:
            return what
    if isinstance(address, IPv6Address) and _is_isatap(address):
        return "an IPv4 address in a tunnel"
    if isinstance(address, IPv6Address) and address not in _UNICAST:
        return "a reserved network"
    # Newer Pythons may know of networks that this table doesn't.
    return None if address.is_global else "a network that isn't public"


def _within(address: Address, networks: tuple[Network, ...]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def _embedded(address: Address) -> IPv4Address | None:
    if not isinstance(address, IPv6Address) or address in (_NOTHING, ip_address("::1")):
        return None
    if address in _SIX_TO_FOUR:
        return IPv4Address((int(address) >> 80) & 0xFFFFFFFF)
    if _is_isatap(address) or any(address in network for network in _ENDS_IN_IPV4):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.teredo[1] if address.teredo else None


def _is_isatap(address: IPv6Address) -> bool:
    return (int(address) >> 32) & 0xFFFFFFFF in _ISATAP
