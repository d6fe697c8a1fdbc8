"""The HTTP server: uvicorn inside the service's own event loop, without its signal handlers."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence

import structlog
import uvicorn
from starlette.types import ASGIApp

from worker.errors import Misconfigured
from worker.http.protocol import IDLE_S, MAXIMUM_CONNECTIONS, MAXIMUM_HEAD_BYTES, Deadlines, LimitedProtocol
from worker.http.root_path import below
from worker.operations.certificates import own_trouble
from worker.operations.connections import ListeningSocket, Refusal
from worker.settings import HttpSettings
from worker.settings.system import SAFE_TOKEN

_log = structlog.get_logger(__name__)

_GRACE_S = 2
_FURTHER_ATTEMPTS = 10
_NOT_ON_THIS_MACHINE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)

_Address = tuple[int, str]


class HttpServer:
    """Listens from `start` to `close`. `on_refused` is called for each connection that is closed for a limit."""

    def __init__(
        self,
        settings: HttpSettings,
        app: ASGIApp,
        *,
        deadlines: Deadlines,
        on_refused: Callable[[Refusal], None] = lambda _why: None,
    ) -> None:
        self._settings = settings
        self._app = below(app, settings.root_path)
        self._deadlines = deadlines.below(settings.root_path)
        self._on_refused = on_refused
        self._server: uvicorn.Server | None = None
        self._task: asyncio.Task[None] | None = None
        self.url = ""
        """The base URL, once it listens."""

    async def start(self) -> None:
        """Listen. Raises Misconfigured when the address or the certificate can't be used."""
        settings = self._settings
        sockets = self._bind()
        config = uvicorn.Config(
            self._app,
            http=LimitedProtocol.on(sockets[0], self._deadlines),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=ListeningSocket.ACCEPTED_AT_ONCE,
            timeout_keep_alive=IDLE_S,
            h11_max_incomplete_event_size=MAXIMUM_HEAD_BYTES,
            timeout_graceful_shutdown=_GRACE_S,
            ssl_context_factory=(lambda _config, _default: _tls_context(settings))
            if settings.certificate_file
            else None,
        )
        try:
            config.load()
        except BaseException:
            for each in sockets:
                each.close()
            raise
        host = settings.host.strip("[]")
        port = sockets[0].getsockname()[1]
        self.url = f"{'https' if config.is_ssl else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
        self._server = _Server(config)
        self._task = asyncio.create_task(self._server.serve(list(sockets)), name="http")
        self._task.add_done_callback(_log_failure)
        if settings.certificate_file and (trouble := own_trouble(settings.certificate_file, settings.key_file)):
            _log.warning("clients will not accept `http.certificate_file`", why=trouble)
        if settings.token is not None and len(settings.token.get_secret_value()) < SAFE_TOKEN:
            _log.warning("`http.token` can be guessed; `openssl rand -hex 16` makes a better one")
        _log.info("listening for HTTP", url=self.url, token=settings.token is not None)

    async def close(self) -> None:
        """Stop listening; requests in progress get a short grace time. Closing twice is harmless."""
        if self._server is not None and self._task is not None:
            self._server.should_exit = True
            await asyncio.wait({self._task})

    def _bind(self) -> list[ListeningSocket]:
        """The listening sockets, opened here so that an occupied port is reported before anything is started."""
        settings = self._settings
        try:
            addresses = _addresses(settings.host)
            for _ in range(_FURTHER_ATTEMPTS):
                with contextlib.suppress(_PortTakenError):
                    return self._bind_all(addresses)
            return self._bind_all(addresses)
        except OSError as error:
            raise Misconfigured(
                f"can't listen for HTTP on {settings.host} port {settings.port}: {error.strerror}; "
                "set `http.host` and `http.port`, or turn it off with `http.enabled`",
                reason="http_address_unusable",
            ) from error

    def _bind_all(self, addresses: Sequence[_Address]) -> list[ListeningSocket]:
        """A socket for each address that this machine has, on one port, with one limit on their connections."""
        bound: list[ListeningSocket] = []
        port = self._settings.port
        missing: OSError | None = None
        for family, host in addresses:
            try:
                bound.append(
                    self._listen_at(family, host, port, bound[0] if bound else None, alone=len(addresses) == 1)
                )
            except OSError as error:
                if error.errno in _NOT_ON_THIS_MACHINE:  # IPv6 is off, or the name stands for another machine too
                    missing = error
                    continue
                for each in bound:
                    each.close()
                if bound and self._settings.port == 0 and error.errno == errno.EADDRINUSE:
                    raise _PortTakenError(error.errno, error.strerror) from error
                raise
            port = bound[0].getsockname()[1]
        if not bound and missing is not None:
            raise missing
        return bound

    def _listen_at(
        self, family: int, host: str, port: int, first: ListeningSocket | None, *, alone: bool
    ) -> ListeningSocket:
        if first is None:
            listening = ListeningSocket(
                family,
                "http",
                MAXIMUM_CONNECTIONS,
                request_within_s=self._deadlines.head_s,
                on_refused=self._on_refused,
            )
        else:
            listening = first.beside(family)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6 and not alone:  # IPv4 has a socket of its own
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listening.bind((host, port))
            listening.listen()
        except OSError:
            listening.close()
            raise
        return listening


class _PortTakenError(OSError):
    """The free port that one address got is taken on another."""


def _addresses(host: str) -> list[_Address]:
    """Family and address of everything that a host stands for. Raises OSError for a name that is not known."""
    if host.rstrip(".").lower() == "localhost":
        # Of both families whatever /etc/hosts has (RFC 6761 section 6.3): clients try either first.
        return [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
    found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((int(family), str(address[0])) for family, *_, address in found))


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the service, which has more to stop than requests."""
        yield


def _tls_context(settings: HttpSettings) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.certificate_file or "", settings.key_file)
    except OSError as error:  # ssl.SSLError is a subclass
        raise Misconfigured(
            f"`http.certificate_file` {settings.certificate_file} can't be used: {error}",
            reason="http_certificate_unusable",
        ) from error
    return context


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.critical("the HTTP server failed; health checks go unanswered", exc_info=error)
