"""Uvicorn as this server uses it: on sockets of our own, quiet, and cut short.

Uvicorn leaves three things open that a server facing strangers must bound: a peer
that never reads while its socket is closed, a connection that never asks, and log
records that hold what was sent. Called by `SignalingServer` alone.
"""

import asyncio
import contextlib
import errno
import logging
import socket
import sys
from collections.abc import Generator
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import (
    WebSocketsSansIOProtocol,
)

from sleap_rtc_plugin.protocol.errors import PortInUse
from sleap_rtc_plugin.protocol.limits import (
    MAX_RELAY_FRAME_BYTES,
    MAX_SIGNALING_MESSAGE_BYTES,
    SIGNALING_PING_INTERVAL_S,
)
from sleap_rtc_plugin.protocol.relay_messages import RELAY_PATH
from sleap_rtc_signaling.config import ConfigError
from sleap_rtc_signaling.limits import (
    CLOSE_DEADLINE_S,
    KEEP_ALIVE_S,
    LISTEN_BACKLOG,
    MAX_MESSAGE_FRAGMENTS,
    MAX_REQUEST_HEAD_BYTES,
    RELAY_RECEIVE_BUFFER_BYTES,
    REQUEST_DEADLINE_S,
    SOCKET_SEND_BUFFER_BYTES,
    STOP_DEADLINE_S,
    STOP_GRACE_S,
)
from sleap_rtc_signaling.server_tls import HSTS, ServerTls

__all__ = ["ABORT_EXTENSION", "Listener", "bind"]

ABORT_EXTENSION: Final = "sleap-rtc.abort"
"""Under this name the server puts into the scope how to cut a socket off."""

# Windows gives "access denied" where another program holds the port exclusively.
_IN_USE: Final = (errno.EADDRINUSE, 10048, 10013)


def bind(host: str, port: int, option: str) -> socket.socket:
    """Open a listening socket.

    Args:
        host: a name or address of this machine.
        port: 0 picks a free one.
        option: how the administrator chooses another port.

    Raises:
        PortInUse: another program listens there.
        ConfigError: the address cannot be listened on at all.
    """
    address = _join(host, port)
    try:
        infos = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError:
        raise ConfigError(
            f"The host {host} is not known; choose another with --host."
        ) from None
    family, kind, protocol, _, target = infos[0]
    listener = socket.socket(family, kind, protocol)
    try:
        if sys.platform == "win32":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted sockets inherit this. It bounds what a peer that does not read
        # costs, together with the outbox.
        listener.setsockopt(
            socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_SEND_BUFFER_BYTES
        )
        listener.bind(target)
        listener.listen(LISTEN_BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        if error.errno in _IN_USE:
            raise PortInUse(address=address, option=option) from None
        reason = error.strerror or "it is refused"
        raise ConfigError(
            f"The address {address} cannot be listened on ({reason}); "
            f"choose another with --host and {option}."
        ) from None
    return listener


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _WebSocketProtocol(WebSocketsSansIOProtocol):
    """Lets the application cut a socket off, and does so itself after closing.

    Also bounds what the library leaves open: pongs to a peer that does not read them,
    and messages in fragments without end.
    """

    _cut: asyncio.TimerHandle | None = None
    _heard_at: float = 0.0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.close_timeout = CLOSE_DEADLINE_S

    def data_received(self, data: bytes) -> None:
        self._heard_at = self.loop.time()
        super().data_received(data)

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if not self.close_sent:
            # The application's task starts only after this returns.
            extensions: dict[str, Any] = self.scope.setdefault("extensions", {})
            extensions[ABORT_EXTENSION] = self.transport.abort
            if self.scope["path"] == RELAY_PATH:
                self._expect_relayed_frames()

    def _expect_relayed_frames(self) -> None:
        self.conn.max_message_size = MAX_RELAY_FRAME_BYTES
        self.transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVBUF, RELAY_RECEIVE_BUFFER_BYTES
        )

    def handle_cont(self, event: Any) -> None:
        # Empty fragments count nothing towards the size of a message.
        if len(self.frames) >= MAX_MESSAGE_FRAGMENTS:
            self.conn.fail(1009, "too many fragments")
            self.handle_parser_exception()
            self.transport.abort()
            return
        super().handle_cont(event)

    def handle_ping(self) -> None:
        if self.writable.is_set():
            super().handle_ping()
        else:
            # RFC 6455 section 5.5.3: it is enough to answer a later ping.
            self.conn.data_to_send()

    def keepalive_timeout(self) -> None:
        if self.read_paused or self._heard_at > self.ping_sent_at:
            # The pong lies behind data that is on its way: a relay that is busy.
            self.pong_timer = None
            self.pending_ping_payload = None
            self.schedule_ping()
            return
        super().keepalive_timeout()

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        super().on_task_complete(task)
        if not self.disconnected:
            self._cut = self.loop.call_later(CLOSE_DEADLINE_S, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._cut is not None:
            self._cut.cancel()
            self._cut = None


class _HttpProtocol(H11Protocol):
    """Cuts off a connection on which no request arrives."""

    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._patience = self.loop.call_later(REQUEST_DEADLINE_S, transport.abort)

    def handle_events(self) -> None:
        super().handle_events()
        # Set by the first request, be it for a route or for a WebSocket.
        if self.scope is not None and self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


class _Server(uvicorn.Server):
    """Leaves the signal handlers to the process, and says when it accepts."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.accepting = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.accepting.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def _is_no_secret(record: logging.LogRecord) -> bool:
    """Tell whether a record of uvicorn's may be kept.

    Below warnings there are frames and addresses with queries: tokens.
    """
    return record.levelno >= logging.WARNING


class Listener:
    """One port being served.

    Args:
        application: an ASGI application.
        listener: a socket from `bind`; it is closed by `stop`.
        trusted_proxies: whose `X-Forwarded-For` is believed.
        tls: the server's certificate; None for plain HTTP.
    """

    def __init__(
        self,
        application: Any,
        listener: socket.socket,
        trusted_proxies: tuple[str, ...] = (),
        tls: ServerTls | None = None,
    ) -> None:
        logging.getLogger("uvicorn.error").addFilter(_is_no_secret)
        self._socket = listener
        self._server = _Server(
            uvicorn.Config(
                application,
                http=_HttpProtocol,
                ws=_WebSocketProtocol,
                ws_max_size=MAX_SIGNALING_MESSAGE_BYTES,
                ws_per_message_deflate=False,
                ws_ping_interval=SIGNALING_PING_INTERVAL_S,
                ws_ping_timeout=SIGNALING_PING_INTERVAL_S,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=bool(trusted_proxies),
                forwarded_allow_ips=list(trusted_proxies),
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=STOP_GRACE_S,
                h11_max_incomplete_event_size=MAX_REQUEST_HEAD_BYTES,
                ssl_context_factory=None if tls is None else lambda *_: tls.context,
                headers=[] if tls is None else [HSTS],
            )
        )
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Serve, and return once connections are accepted."""
        self._serving = asyncio.create_task(self._server.serve([self._socket]))
        accepting = asyncio.create_task(self._server.accepting.wait())
        try:
            await asyncio.wait(
                (self._serving, accepting), return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            accepting.cancel()
        if self._serving.done():
            await self._serving

    async def stop(self) -> None:
        """Close every connection, with grace where the peer cooperates."""
        if self._serving is None:
            self._socket.close()
            return
        self._server.should_exit = True
        await asyncio.wait((self._serving,), timeout=STOP_DEADLINE_S)
        self._serving.cancel()
        for protocol in list(self._server.server_state.connections):
            protocol.transport.abort()
        self._socket.close()
