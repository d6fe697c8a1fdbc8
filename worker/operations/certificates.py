"""Why a TLS certificate is not trusted, and what to do about it: a peer's, or our own."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

_NOT_YET, _EXPIRED, _OTHER_NAME, _OTHER_ADDRESS = 9, 10, 62, 64
"""OpenSSL's codes of what is wrong (X509_V_ERR_…)."""


def advice(error: ssl.SSLCertVerificationError, *, address: str, authority: str) -> str:
    """What to do. `address` is where the host's name is written, `authority` where trusted authorities are named."""
    match error.verify_code:
        case code if code == _NOT_YET:
            return "it holds from a later time on: set this machine's clock, or the one it was made with, right"
        case code if code == _EXPIRED:
            return "renew the certificate, or set this machine's clock right"
        case code if code == _OTHER_NAME:
            return f"{address} must use a host name that the certificate names"
        case code if code == _OTHER_ADDRESS:
            return f"{address} must use a host name that the certificate names, not an address"
    return f"{authority} must hold the authority that signed it, or unset, the system must know that authority"


def distrust(error: BaseException, *, address: str, authority: str) -> str | None:
    """What is wrong with a peer's certificate and what to do, in words; None where a connection failed otherwise."""
    found = next((each for each in _behind(error) if isinstance(each, ssl.SSLCertVerificationError)), None)
    if found is None:
        return None
    what_to_do = advice(found, address=address, authority=authority)
    return f"its certificate is not trusted: {found.verify_message}; {what_to_do}"


def own_trouble(certificate_file: Path, key_file: Path | None) -> str | None:
    """Why clients will not accept a certificate of ours now, in words; None if its time is right. Raises OSError.

    It is shown to a client in memory that trusts this very certificate, so that only its time can be wrong.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(certificate_file)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate_file, key_file)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(to_client, to_server)
    answering = server.wrap_bio(to_server, to_client, server_side=True)
    try:
        for _ in range(4):
            for side in (asking, answering):
                try:
                    side.do_handshake()
                except ssl.SSLWantReadError:
                    continue
    except ssl.SSLCertVerificationError as error:
        if error.verify_code in (_NOT_YET, _EXPIRED):
            return f"{error.verify_message}; {advice(error, address='', authority='')}"
    except ssl.SSLError:
        return None  # what else may be wrong with it, those who trust it will see
    return None


def _behind(error: BaseException) -> Iterator[BaseException]:
    """The error, and those that it was raised from or while handling: network libraries hide the cause."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        waiting += [each.__context__, each.__cause__]
        if isinstance(each, BaseExceptionGroup):
            waiting += each.exceptions
