"""A web page is recognised by its bytes, or its type; an image is never taken for one."""

from __future__ import annotations

import pytest

from worker.sources.web_page import is_page, looks_like_signing_in

JPEG = b"\xff\xd8\xff\xe0" + bytes(64)
SVG = b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"></svg>'


@pytest.mark.parametrize(
    "head",
    [
        b"<!DOCTYPE html><html>",
        b"\xef\xbb\xbf\r\n  <!doctype HTML>",
        b"<html lang='en'>",
        b"<!-- theme 7 --><!-- more -->\n<HTML>",
        b'<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Strict//EN">',
        b"<script>location='/login'</script>",
        b"<form action='/c/portal/login'>",
    ],
)
@pytest.mark.parametrize("content_type", ["text/html", "image/jpeg", ""])
def test_a_page_is_one_whatever_it_is_called(head: bytes, content_type: str) -> None:
    assert is_page(head, content_type)


@pytest.mark.parametrize(
    ("head", "content_type", "page"),
    [
        (b"Please sign in", "text/html; charset=utf-8", True),
        (b"\xff\xfe<\x00h\x00t\x00m\x00l\x00>\x00", "text/html;charset=utf-16", True),
        (b"", "application/xhtml+xml", True),
        (b"Please sign in", "text/plain", False),
        (JPEG, "text/html", False),
        (JPEG, "image/jpeg", False),
        (SVG, "text/html", False),
        (SVG, "image/svg+xml", False),
        (b"<headline>", "", False),
        (b"", "", False),
    ],
)
def test_its_type_counts_where_the_bytes_are_no_image(head: bytes, content_type: str, page: bool) -> None:
    assert is_page(head, content_type) is page


@pytest.mark.parametrize(
    ("address", "signing_in"),
    [
        ("https://dms.example/c/portal/login", True),
        ("https://sso.example/", True),
        ("https://id.example/oauth2/authorize", True),
        ("https://id.example/saml/redirect", True),
        ("https://dms.example/signin", True),
        ("https://authors.example/a.jpg", False),
        ("https://cdn.example/blog/in.jpg", False),
    ],
)
def test_an_address_is_for_signing_in_by_its_words(address: str, signing_in: bool) -> None:
    assert looks_like_signing_in(address) is signing_in
