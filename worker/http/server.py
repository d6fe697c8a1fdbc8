"""The HTTP server: uvicorn inside the service's own event loop, without its signal handlers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator

import structlog
import uvicorn
from starlette.types import ASGIApp

from worker.errors import Misconfigured
from worker.http.protocol import IDLE_S, MAXIMUM_CONNECTIONS, MAXIMUM_HEAD_BYTES, Deadlines, LimitedProtocol
from worker.operations.connections import ListeningSocket, Refusal
from worker.settings import HttpSettings

_log = structlog.get_logger(__name__)

_GRACE_S = 2


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
        self._app = app
        self._deadlines = deadlines
        self._on_refused = on_refused
        self._server: uvicorn.Server | None = None
        self._task: asyncio.Task[None] | None = None
        self.url = ""
        """The base URL, once it listens."""

    async def start(self) -> None:
        """Listen. Raises Misconfigured when the address or the certificate can't be used."""
        settings = self._settings
        listening = self._bind()
        config = uvicorn.Config(
            self._app,
            http=LimitedProtocol.on(listening, self._deadlines),
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
            listening.close()
            raise
        address, port = listening.getsockname()[:2]
        self.url = f"{'https' if config.is_ssl else 'http'}://{f'[{address}]' if ':' in address else address}:{port}"
        self._server = _Server(config)
        self._task = asyncio.create_task(self._server.serve([listening]), name="http")
        self._task.add_done_callback(_log_failure)
        _log.info("listening for HTTP", url=self.url, token=settings.token is not None)

    async def close(self) -> None:
        """Stop listening; requests in progress get a short grace time. Closing twice is harmless."""
        if self._server is not None and self._task is not None:
            self._server.should_exit = True
            await asyncio.wait({self._task})

    def _bind(self) -> ListeningSocket:
        """The listening socket. It is opened here so that an occupied port is reported before anything else starts."""
        settings = self._settings
        try:
            family, _, _, _, address = socket.getaddrinfo(
                settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            listening = ListeningSocket(
                family,
                "http",
                MAXIMUM_CONNECTIONS,
                request_within_s=self._deadlines.head_s,
                on_refused=self._on_refused,
            )
            try:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listening.bind(address)
                listening.listen()
            except OSError:
                listening.close()
                raise
        except OSError as error:
            raise Misconfigured(
                f"can't listen for HTTP on {settings.host} port {settings.port}: {error.strerror}; "
                "set `http.host` and `http.port`, or turn it off with `http.enabled`",
                reason="http_address_unusable",
            ) from error
        return listening


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
