"""Which addresses a URL may lead to, however they are written."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.sources.addresses import _NOT_GLOBAL_4, _NOT_GLOBAL_6, why_refused

OPEN = ["93.184.215.14", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]
INSIDE = {
    "127.0.0.1": "loopback",
    "127.8.8.8": "loopback",
    "::1": "loopback",
    "::ffff:127.0.0.1": "loopback",
    "::ffff:7f00:1": "loopback",
    "::127.0.0.1": "loopback",
    "64:ff9b::7f00:1": "loopback",
    "2002:7f00:1::": "loopback",
    "169.254.1.1": "link-local",
    "fe80::1": "link-local",
    "fe80::1%eth0": "link-local",
    "10.0.0.1": "private",
    "172.16.5.4": "private",
    "192.168.1.1": "private",
    "::ffff:192.168.1.1": "private",
    "100.64.0.1": "private",
    "192.0.2.1": "private",
    "198.18.0.1": "private",
    "240.0.0.1": "private",
    "255.255.255.255": "private",
    "fc00::1": "private",
    "fd12:3456::1": "private",
    "fec0::1": "private",
    "2001::1": "private",
    "2001:db8::1": "private",
    "64:ff9b:1::1": "private",
    "4000::1": "private",
    "192.0.0.9": "private",
    "192.88.99.1": "private",
    "3fff::1": "private",
    "5f00::1": "private",
    "100::1": "private",
}
NEVER = {
    "0.0.0.0": "unspecified",
    "::": "unspecified",
    "224.0.0.1": "multicast",
    "ff02::1": "multicast",
    "169.254.169.254": "metadata",
    "::ffff:169.254.169.254": "metadata",
    "64:ff9b::a9fe:a9fe": "metadata",
    "fd00:ec2::254": "metadata",
    "100.100.100.200": "metadata",
}


def _around(network: IPv4Network | IPv6Network) -> st.SearchStrategy[IPv4Address | IPv6Address]:
    """The addresses at both edges of a network, on either side."""
    edges = {max(int(network[0]) - 1, 0), int(network[0]), int(network[-1]), int(network[-1]) + 1}
    kind = type(network[0])
    return st.sampled_from([kind(edge) for edge in sorted(edges) if edge < 1 << network.max_prefixlen])


@pytest.mark.parametrize("address", OPEN)
def test_public_addresses_are_open(address: str) -> None:
    assert why_refused(address, allow_private=False) is None


@pytest.mark.parametrize(("address", "kind"), [*INSIDE.items(), *NEVER.items()])
def test_inside_addresses_are_closed_however_they_are_wrapped(address: str, kind: str) -> None:
    assert kind in (why_refused(address, allow_private=False) or "")


@pytest.mark.parametrize("address", INSIDE)
def test_inside_addresses_can_be_opened(address: str) -> None:
    assert why_refused(address, allow_private=True) is None


@pytest.mark.parametrize("address", NEVER)
def test_some_addresses_stay_closed(address: str) -> None:
    assert why_refused(address, allow_private=True) is not None


_NETWORKS: list[IPv4Network | IPv6Network] = [*_NOT_GLOBAL_4, *_NOT_GLOBAL_6]


@given(st.ip_addresses() | st.sampled_from(_NETWORKS).flatmap(_around))
def test_nothing_is_open_that_the_interpreter_knows_to_be_inside(address: IPv4Address | IPv6Address) -> None:
    embeds = isinstance(address, IPv6Address) and (
        address.sixtofour or address.ipv4_mapped or address in IPv6Network("64:ff9b::/96")
    )
    if why_refused(str(address), allow_private=False) is None:
        assert address.is_global or embeds
