"""The SSRF check: which network addresses the URL of an event may lead to. Pure.

Only globally routable unicast addresses are allowed, however an IPv4 address is embedded in an IPv6 one: otherwise any
publisher of events could make this service read from inside the network (server-side request forgery).
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

_NOT_GLOBAL_4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "240.0.0.0/4",
        ),
    )
)
_NOT_GLOBAL_6 = tuple(map(IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))
"""After IANA's registries of special-purpose addresses (RFC 6890), and not the interpreter's `is_global`, which each
Python has at another age. The few global ones inside 192.0.0.0/24 and 2001::/23 serve protocols; no image is there.
https://www.iana.org/assignments/iana-ipv4-special-registry, https://www.iana.org/assignments/iana-ipv6-special-registry"""

_GLOBAL_UNICAST = IPv6Network("2000::/3")  # all that IANA has allocated
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052
_LOW = IPv6Network("::/96")  # RFC 4291, IPv4-compatible; :: and ::1 lie here too

_METADATA = frozenset(
    map(ip_address, ("169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "fd00:ec2::254"))
)
"""Metadata services, where clouds hand out credentials to any local client. Refused even with private addresses on."""


def why_refused(text: str, *, allow_private: bool) -> str | None:
    """Why a numeric address is refused, in words that follow "it is", or None when it is allowed."""
    address = _embedded_ipv4(ip_address(text.partition("%")[0]))
    if address in _METADATA:
        return "a cloud's metadata service"
    if address.is_multicast:
        return "a multicast address"
    if address.is_unspecified:
        return "the unspecified address"
    if allow_private:
        return None
    if address.is_loopback:
        return "a loopback address"
    if address.is_link_local:
        return "a link-local address"
    return None if _is_global(address) else "a private or reserved address"


def _is_global(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_GLOBAL_4)
    return address in _GLOBAL_UNICAST and not any(address in network for network in _NOT_GLOBAL_6)


def _embedded_ipv4(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address embedded in an IPv6 one (mapped, NAT64, 6to4, IPv4-compatible), or else the address itself."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address in _NAT64 or (address in _LOW and int(address) > 1):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address
