"""Whatever stands where a URL belongs is checked, or refused with a reason; nothing else is raised."""

from __future__ import annotations

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.errors import CannotBeDone
from worker.settings import SourcesSettings
from worker.sources.hosts import without_secrets
from worker.sources.retry_after import MAXIMUM_RETRY_AFTER_S, retry_after_s
from worker.sources.url import _join, check_url

SETTINGS = SourcesSettings(url_allowed_hosts=("images.example",))
ANY_TEXT = st.text(st.characters(exclude_categories=()))


def refused(text: str) -> str:
    with pytest.raises(CannotBeDone) as error:
        check_url(text, SETTINGS)
    without_secrets(text).encode()
    return error.value.reason


@pytest.mark.parametrize(
    "text",
    [
        "http://[::1",
        "http://[images.example]/",
        "http://images.example:99999/",
        "http://images.example:port/",
        "http://images.example:" + "9" * 5000 + "/",
        "http://images.example/\0",
        "http://xn--\u00fc.example/",
        "http://xn--a.example/",
        "http://" + "\u00fc" * 400 + ".example/",
        "http://images.example/\ud800",
        "http://\udfff.example/",
    ],
)
def test_a_broken_url_is_invalid(text: str) -> None:
    assert refused(text) in {"url_invalid", "url_host_not_allowed"}


@pytest.mark.parametrize(
    ("url", "hosts", "ports", "taken"),
    [
        ("http://a/", ["a"], (80, 443), True),
        ("https://a/", ["a"], (80, 443), True),
        ("https://a/", ["a"], (80,), False),
        ("http://a:443/", ["a"], (80, 443), True),
        ("http://a:8080/", ["a"], (80, 443), False),
        ("http://a:8080/", ["a"], (8080,), True),
        ("http://a:8080/", ["a:8080"], (80, 443), True),
        ("http://a/", ["a:8080"], (80, 443), False),
        ("http://a:80/", ["a:080"], (), True),
        ("http://a:8080/", ["b:8080", "a"], (80, 443), False),
        ("http://a:8080/", ["a", "a:8080"], (80, 443), True),
        ("http://a:22/", ["a:*"], (), True),
        ("http://b.a:22/", ["*.a:22"], (), True),
        ("http://b.a:23/", ["*.a:22"], (), False),
        ("http://a:81/", ["a"], None, True),
        ("http://b.a:23/", ["*.a:22"], None, False),
        ("http://a./", ["a"], (80,), True),
        ("http://[::1]/", ["[::1]"], (80,), True),
        ("http://[::1]:81/", ["[::1]"], (80,), False),
        ("http://[::1]:81/", ["[::1]:81"], (), True),
        ("http://2130706433:81/", ["2130706433"], (80,), False),
    ],
)
def test_a_host_is_open_on_the_port_that_it_is_written_with_or_else_on_the_allowed_ones(
    url: str, hosts: list[str], ports: tuple[int, ...] | None, taken: bool
) -> None:
    settings = SourcesSettings(url_allowed_hosts=hosts, url_allowed_ports=ports)
    if taken:
        assert check_url(url, settings).host
    else:
        with pytest.raises(CannotBeDone) as error:
            check_url(url, settings)
        assert error.value.reason == "url_port_not_allowed"


@given(ANY_TEXT, st.sampled_from(["", "http://", "https://images.example/", "http://[", "http://images.example:"]))
def test_any_text_is_a_url_or_refused(text: str, beginning: str) -> None:
    try:
        check_url(beginning + text, SETTINGS)
    except CannotBeDone as error:
        assert error.reason.startswith("url_")  # noqa: PT017 - or it is a URL
    without_secrets(beginning + text).encode()


@given(ANY_TEXT)
def test_a_redirect_leads_to_a_url_or_is_refused(location: str) -> None:
    try:
        _join(httpx.URL("http://images.example/a/b"), location)
    except CannotBeDone as error:
        assert error.reason == "url_invalid"  # noqa: PT017 - or it is a URL


@given(st.text() | st.integers(min_value=0).map(str) | st.just("9" * 5000))
def test_any_wait_that_a_host_asks_for_is_at_most_a_day(value: str) -> None:
    assert 0 <= retry_after_s(value) <= MAXIMUM_RETRY_AFTER_S
