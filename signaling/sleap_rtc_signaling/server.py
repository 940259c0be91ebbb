"""The signaling server as one object, to run alone or inside another program.

`SignalingServer` opens its ports before anything else, so that a port in use is an
error and not a log line, and leaves no task, thread or socket behind when stopped.
It installs no signal handlers.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from sleap_rtc_plugin.protocol.errors import StorageFailed
from sleap_rtc_plugin.protocol.limits import GIB
from sleap_rtc_signaling.accounts.anonymous import AnonymousAccounts
from sleap_rtc_signaling.app import Routes
from sleap_rtc_signaling.config import RelayConfig, SignalingConfig
from sleap_rtc_signaling.gate import Gate
from sleap_rtc_signaling.hub import Hub
from sleap_rtc_signaling.instructions import HubLimits
from sleap_rtc_signaling.listener import Listener, bind
from sleap_rtc_signaling.metrics import Metrics
from sleap_rtc_signaling.relay_book import RelayBook, RelayLimits
from sleap_rtc_signaling.relay_service import RelayService
from sleap_rtc_signaling.rest import Rest
from sleap_rtc_signaling.stores.sqlite import SqliteStore
from sleap_rtc_signaling.switchboard import Switchboard
from sleap_rtc_signaling.tokens import Tokens, load_or_make_key

__all__ = ["SignalingServer"]

_DATABASE: Final = "signaling.sqlite3"
_ANYWHERE: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


class SignalingServer:
    """Serves the rooms of `config.data_dir` on one or two ports.

    Use it as an async context manager, or call `start` and `stop`.

    Args:
        config: the administrator's settings.
        clock: Unix time in seconds.
    """

    def __init__(
        self, config: SignalingConfig, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._config = config
        self._clock = clock
        self._stack = contextlib.AsyncExitStack()
        self._switchboard: Switchboard | None = None
        self._relays: RelayService | None = None
        self._port = 0
        self._rest_port: int | None = None

    async def __aenter__(self) -> Self:
        """Start the server."""
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the server."""
        await self.stop()

    @property
    def host(self) -> str:
        """The address it listens on."""
        return self._config.host

    @property
    def port(self) -> int:
        """The real port of REST and the WebSocket."""
        return self._port

    @property
    def rest_port(self) -> int | None:
        """The real port of REST alone, where there is one."""
        return self._rest_port

    @property
    def url(self) -> str:
        """Where this machine reaches the server: `http://host:port`."""
        host = _ANYWHERE.get(self._config.host, self._config.host)
        return (
            f"http://[{host}]:{self._port}"
            if ":" in host
            else (f"http://{host}:{self._port}")
        )

    @property
    def websocket_url(self) -> str:
        """Where this machine reaches the WebSocket: `ws://host:port/ws`."""
        return f"ws{self.url.removeprefix('http')}/ws"

    async def start(self) -> None:
        """Open the ports and serve; return once connections are accepted.

        Raises:
            PortInUse: another program listens on a port.
            StorageFailed: the data directory cannot be used.
            ConfigError: the host cannot be listened on.
        """
        async with contextlib.AsyncExitStack() as stack:
            await self._start(stack)
            self._stack = stack.pop_all()

    async def stop(self) -> None:
        """Disconnect everybody and let go of everything. May be called again."""
        await self._stack.aclose()
        self._switchboard = self._relays = None

    def wake(self) -> None:
        """Look at the clock now, for a program that set it forward."""
        if self._switchboard is not None:
            self._switchboard.wake()
        if self._relays is not None:
            self._relays.wake()

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        config = self._config
        main = bind(config.host, config.port, "--port")
        stack.callback(main.close)
        self._port = main.getsockname()[1]
        rest_socket: socket.socket | None = None
        self._rest_port = None
        if config.rest_port is not None:
            rest_socket = bind(config.host, config.rest_port, "--rest-port")
            stack.callback(rest_socket.close)
            self._rest_port = rest_socket.getsockname()[1]

        try:
            config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise StorageFailed(place=str(config.data_dir), reason=reason) from error
        tokens = Tokens(load_or_make_key(config.data_dir), self.url)
        store = await SqliteStore.open(config.data_dir / _DATABASE)
        stack.push_async_callback(store.close)

        accounts = AnonymousAccounts(
            store, tokens, config.account_token_lifetime_s, self.url
        )
        stack.push_async_callback(accounts.close)

        hub = Hub(self.url, HubLimits(room_lifetime_s=config.room_lifetime_s))
        now = self._clock()
        await store.wake_up(now)
        for kept, room_ends in await store.kept_peer_ids(now):
            hub.restore(kept, room_ends, now)
        metrics, clock, limits = Metrics(), self._clock, config.limits
        gate = Gate(
            limits.max_sockets, limits.max_sockets_per_address, limits.connects_per_s
        )
        book = RelayBook(_relay_limits(config.relay))
        relays = RelayService(
            config.relay, book, hub, gate, store, tokens, metrics, clock
        )
        switchboard = Switchboard(
            hub, gate, relays, store, tokens, metrics, self.url, clock, limits
        )
        self._switchboard, self._relays = switchboard, relays
        stack.push_async_callback(switchboard.stop)
        for work in (
            switchboard.keep_time(),
            switchboard.keep_store(),
            relays.keep_time(),
            relays.keep_usage(),
        ):
            stack.push_async_callback(_cancel, asyncio.create_task(work))

        rest = Rest(accounts, metrics, self.url, clock)
        routes = Routes(
            config, rest, accounts, store, tokens, switchboard, relays, metrics
        )
        listeners = [
            Listener(
                routes.application(websocket=websocket),
                opened,
                config.trusted_proxies,
            )
            for opened, websocket in ((main, True), (rest_socket, False))
            if opened is not None
        ]
        stack.push_async_callback(_stop, listeners)
        for listener in listeners:
            await listener.start()
        stack.push_async_callback(relays.stop)


def _relay_limits(config: RelayConfig) -> RelayLimits:
    return RelayLimits(
        max_relays=config.max_relays,
        max_relays_per_room=config.max_relays_per_room,
        room_bytes_per_day=config.room_gib_per_day * GIB,
        total_bytes_per_day=config.total_gib_per_day * GIB,
        account_share=config.account_share,
    )


async def _stop(listeners: list[Listener]) -> None:
    await asyncio.gather(*(listener.stop() for listener in listeners))


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
