"""Signatures are those that AWS publishes for its examples, whatever is in a key."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.sources.aws_signature import SigningKeys, encoded_path, signed_headers

SUITE = SigningKeys("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", service="service")
SUITE_TIME = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)
S3 = SigningKeys("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
S3_TIME = datetime(2013, 5, 24, tzinfo=UTC)


def signature(headers: dict[str, str]) -> str:
    return headers["Authorization"].rpartition("Signature=")[2]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        ("/?Param2=value2&Param1=value1", "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"),
    ],
)
def test_the_requests_of_awss_test_suite_have_its_signatures(target: str, expected: str) -> None:
    headers = signed_headers(SUITE, "GET", "example.amazonaws.com", target, SUITE_TIME)

    assert signature(headers) == expected
    assert headers["Authorization"].startswith(
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        "SignedHeaders=host;x-amz-date, "
    )


@pytest.mark.parametrize(
    ("target", "further", "expected"),
    [
        ("/test.txt", {"Range": "bytes=0-9"}, "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"),
        ("/?lifecycle", {}, "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
        ("/?max-keys=2&prefix=J", {}, "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
    ],
)
def test_the_examples_of_s3s_documentation_have_their_signatures(
    target: str, further: dict[str, str], expected: str
) -> None:
    headers = signed_headers(S3, "GET", "examplebucket.s3.amazonaws.com", target, S3_TIME, headers=further)

    assert signature(headers) == expected


def test_an_object_is_put_with_the_digest_of_its_body() -> None:
    headers = signed_headers(
        S3,
        "PUT",
        "examplebucket.s3.amazonaws.com",
        "/test$file.text",
        S3_TIME,
        headers={"Date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"},
        body_sha256="44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072",
    )

    assert signature(headers) == "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"


@given(st.text(min_size=1).filter(lambda text: text.isprintable()))
def test_a_path_has_one_signature_however_much_of_it_is_encoded(key: str) -> None:
    whole = encoded_path("/" + key)
    sparing = "".join(chr(byte) if chr(byte) in "!$&'()*+,;=:@" else f"%{byte:02X}" for byte in key.encode())

    one, other = (signature(signed_headers(S3, "GET", "h", target, S3_TIME)) for target in (whole, f"/{sparing}"))

    assert one == other


def test_a_session_token_is_sent_and_signed_and_no_secret_is_shown() -> None:
    keys = SigningKeys("id", "s3cret", "t0ken")

    headers = signed_headers(keys, "GET", "h", "/a", S3_TIME)

    assert headers["X-Amz-Security-Token"] == "t0ken"
    assert "x-amz-security-token" in headers["Authorization"]
    assert "s3cret" not in str(headers) + repr(keys)
    assert "t0ken" not in repr(keys)
