"""The signaling server as one object, to run alone or inside another program.

`SignalingServer` opens its ports before anything else, so that a port in use is an
error and not a log line, and leaves no task, thread or socket behind when stopped.
It installs no signal handlers.
"""

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from sleap_rtc_plugin.protocol.errors import RtcError, StorageFailed, StoreInvalid
from sleap_rtc_plugin.protocol.limits import GIB
from sleap_rtc_plugin.registry.object_store import ObjectStore
from sleap_rtc_signaling.accounts.composite import make_accounts
from sleap_rtc_signaling.admission import Admissions
from sleap_rtc_signaling.app import Routes
from sleap_rtc_signaling.bus import Bus
from sleap_rtc_signaling.bus.exchange import Exchange
from sleap_rtc_signaling.config import (
    BusConfig,
    ConfigError,
    RelayConfig,
    SignalingConfig,
    StoreConfig,
)
from sleap_rtc_signaling.dashboard import Dashboard
from sleap_rtc_signaling.gate import Gate
from sleap_rtc_signaling.hub import Hub
from sleap_rtc_signaling.instructions import HubLimits
from sleap_rtc_signaling.limits import DRAIN_SPREAD_S, KEYS_CHECK_S
from sleap_rtc_signaling.listener import Listener, bind
from sleap_rtc_signaling.metrics import Metrics
from sleap_rtc_signaling.pairing_book import PairingBook
from sleap_rtc_signaling.pairing_routes import PairingRoutes
from sleap_rtc_signaling.relay_book import RelayBook, RelayLimits
from sleap_rtc_signaling.relay_service import RelayService
from sleap_rtc_signaling.rest import Rest
from sleap_rtc_signaling.room_routes import RoomRoutes
from sleap_rtc_signaling.rooms import Rooms
from sleap_rtc_signaling.server_tls import ServerTls
from sleap_rtc_signaling.sign_in_routes import SignInRoutes
from sleap_rtc_signaling.stores import Store
from sleap_rtc_signaling.stores.backup import keep_backups
from sleap_rtc_signaling.stores.dynamodb import DynamoRecords
from sleap_rtc_signaling.stores.records import Records
from sleap_rtc_signaling.stores.sqlite import SqliteRecords
from sleap_rtc_signaling.switchboard import Switchboard
from sleap_rtc_signaling.tokens import Tokens, load_or_make_keys

__all__ = ["SignalingServer"]

_log = logging.getLogger(__name__)

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
        self._tokens: Tokens | None = None
        self._tls: ServerTls | None = None
        self._is_draining = False
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
        """Where people reach the server, or else where this machine does."""
        if self._config.public_url is not None:
            return self._config.public_url
        host = _ANYWHERE.get(self._config.host, self._config.host)
        scheme = "http" if self._config.tls is None else "https"
        named = f"[{host}]" if ":" in host else host
        return f"{scheme}://{named}:{self._port}"

    @property
    def websocket_url(self) -> str:
        """Where the WebSocket is reached: `ws://host:port/ws`."""
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

    async def drain(self) -> None:
        """Hand the peers over to the other instances, before `stop`.

        `/ready` says so for a while, and no new socket is let in; then the peers are
        told to connect again. One instance alone has nobody to hand them to.
        """
        if self._switchboard is None or not self._config.bus.url:
            return
        self._is_draining = True
        self._switchboard.refuse_new()
        _log.info("draining for %g s", self._config.bus.drain_s)
        await asyncio.sleep(self._config.bus.drain_s)
        await self._switchboard.send_away(DRAIN_SPREAD_S)

    def wake(self) -> None:
        """Look at the clock now, for a program that set it forward."""
        if self._switchboard is not None:
            self._switchboard.wake()
        if self._relays is not None:
            self._relays.wake()

    async def _keep_keys(self) -> None:
        """Take up keys that `rotate-keys` made, for ever; SIGHUP does so at once."""
        known = _names(self._config.data_dir)
        while True:
            await asyncio.sleep(KEYS_CHECK_S)
            names = await asyncio.to_thread(_names, self._config.data_dir)
            if names == known:
                continue
            try:
                self.reload()
            except (RtcError, ConfigError) as error:
                _log.error("%s The keys in use stay.", error)
            else:
                known = names
                _log.info("the signing keys were read again")

    def reload(self) -> None:
        """Read the signing keys and the certificate again; nobody is disconnected.

        Raises:
            StorageFailed: the keys cannot be read; those in use stay.
            ConfigError: the certificate cannot be used; the one in use stays.
        """
        if self._tokens is not None:
            self._tokens.reload(load_or_make_keys(self._config.data_dir))
        if self._tls is not None:
            self._tls.reload()

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
        if config.tls is not None:
            self._tls = ServerTls(config.tls)
        tokens = Tokens(load_or_make_keys(config.data_dir), self.url)
        self._tokens = tokens
        store = Store(await _open_records(config))
        stack.push_async_callback(store.close)

        accounts = make_accounts(
            config.accounts,
            store,
            tokens,
            config.account_token_lifetime_s,
            self.url,
        )
        stack.push_async_callback(accounts.close)
        admissions = Admissions(store, tokens, accounts, self.url)

        hub_limits = HubLimits(room_lifetime_s=config.room_lifetime_s)
        hub = Hub(self.url, hub_limits, is_alone=not config.bus.url)
        exchange = None
        if config.bus.url:
            exchange = Exchange(
                _open_bus(config.bus, self._clock),
                hub,
                self._clock,
                hub_limits.reserved_s,
            )
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
            config.relay, book, hub, gate, store, admissions, metrics, clock, exchange
        )
        switchboard = Switchboard(
            hub,
            gate,
            relays,
            store,
            admissions,
            metrics,
            self.url,
            clock,
            limits,
            exchange,
        )
        if exchange is not None:
            exchange.connect(switchboard)
            stack.push_async_callback(exchange.stop)
            await exchange.start()
        self._switchboard, self._relays = switchboard, relays
        stack.push_async_callback(switchboard.stop)
        for work in (
            switchboard.keep_time(),
            switchboard.keep_store(),
            relays.keep_time(),
            relays.keep_usage(),
            accounts.keep(clock),
            self._keep_keys(),
        ):
            stack.push_async_callback(_cancel, asyncio.create_task(work))

        if config.store.backup_to:
            backups = keep_backups(
                store.records,
                _open_backups(config.store),
                config.store.backup_every_s,
                clock,
            )
            stack.push_async_callback(_cancel, asyncio.create_task(backups))

        rest = Rest(accounts, metrics, self.url, clock, exchange)
        pairing = PairingRoutes(rest, PairingBook(store.records), admissions.hands_out)
        rooms = Rooms(
            store,
            tokens,
            switchboard,
            self.url,
            config.room_lifetime_s,
            config.room_token_lifetime_s,
        )
        dashboard = Dashboard(
            rest,
            store.records,
            switchboard.peers,
            config.registry,
            config.public_url,
        )
        routes = Routes(
            config,
            rest,
            store,
            admissions,
            switchboard,
            relays,
            metrics,
            is_connected=lambda: exchange is None or exchange.is_ready,
            is_draining=lambda: self._is_draining,
            pages=dashboard.routes() if config.dashboard.enabled else (),
            more=[
                *SignInRoutes(rest, accounts).routes(),
                *RoomRoutes(rest, rooms, config.public_url).routes(),
                *pairing.routes(),
            ],
        )
        dashboard.connect(routes.application(websocket=False))
        listeners = [
            Listener(
                routes.application(websocket=websocket),
                opened,
                config.trusted_proxies,
                self._tls,
            )
            for opened, websocket in ((main, True), (rest_socket, False))
            if opened is not None
        ]
        stack.push_async_callback(_stop, listeners)
        stack.callback(dashboard.close)
        for listener in listeners:
            await listener.start()
        stack.push_async_callback(relays.stop)


def _open_bus(config: BusConfig, clock: Callable[[], float]) -> Bus:
    from sleap_rtc_signaling.bus.redis_bus import RedisBus

    try:
        return RedisBus(config.url, config.prefix, clock)
    except ValueError as error:
        raise ConfigError(f"bus.url is not accepted: {error}.") from None


def _open_backups(config: StoreConfig) -> ObjectStore:
    from sleap_rtc_plugin.registry.store_address import open_store

    try:
        return open_store(config.backup_to)
    except StoreInvalid as error:
        raise ConfigError(f"store.backup_to is not accepted: {error}") from None


async def _open_records(config: SignalingConfig) -> Records:
    if config.store.kind == "dynamodb":
        return await DynamoRecords.open(config.store)
    return await SqliteRecords.open(config.data_dir / _DATABASE)


def _names(directory: Path) -> frozenset[str]:
    try:
        return frozenset(path.name for path in directory.glob("*.pem"))
    except OSError:
        return frozenset()


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
