"""A live signaling session over a WebSocket: the driver of `SignalingSession`.

Used by the worker and by every client. It keeps the peer registered through lost
connections, matches replies to commands, and hands on what other peers send.
"""

import asyncio
import contextlib
import logging
import random
import secrets
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Self

import websockets
from websockets.asyncio.client import ClientConnection, connect

from sleap_rtc_plugin.protocol import signaling_session as machine
from sleap_rtc_plugin.protocol.codec import decode_server_message, encode_signaling
from sleap_rtc_plugin.protocol.errors import (
    RemoteProtocolError,
    RtcError,
    SignInRequired,
)
from sleap_rtc_plugin.protocol.ids import clean_text, new_command_id
from sleap_rtc_plugin.protocol.limits import (
    CLOSE_DRAIN_TIMEOUT_S,
    KEEP_ALIVE_INTERVAL_S,
    MAX_SIGNALING_MESSAGE_BYTES,
    SIGNALING_CONNECT_TIMEOUT_S,
)
from sleap_rtc_plugin.protocol.liveness import Sleep
from sleap_rtc_plugin.protocol.retries import is_passing
from sleap_rtc_plugin.protocol.signaling_messages import (
    ClientMessage,
    DiscoverPeers,
    PeerInfo,
    PeerList,
    PeerMetadata,
    Register,
    Registered,
    RelayedMessage,
    Reply,
    Role,
    UpdateMetadata,
)
from sleap_rtc_plugin.transport.effects import monotonic, wall_clock
from sleap_rtc_plugin.transport.tls import client_context

__all__ = ["AccountToken", "SignalingClient", "nobody", "socket_fault"]

logger = logging.getLogger(__name__)

AccountToken = Callable[[], Awaitable[str]]
"""Returns the token of who is signed in at the server, or an empty text."""


async def nobody() -> str:
    """Return the token of nobody."""
    return ""


class SignalingClient:
    """One peer in one room.

    Use as an async context manager; entering it returns once the peer is registered.
    `on_relayed` is called for each message of another peer, on the event loop.
    """

    def __init__(
        self,
        *,
        server: str,
        room_id: str,
        token: str,
        peer_id: str,
        role: Role,
        metadata: PeerMetadata | None = None,
        on_relayed: Callable[[RelayedMessage], None] = lambda message: None,
        keep_trying: bool = False,
        resume_key: str | None = None,
        account: AccountToken = nobody,
    ) -> None:
        """Prepare a session with the server at `server` (`http(s)://host[:port]`).

        `resume_key` is what an earlier program registered this `peer_id` with.
        `account` is asked before each registration, since tokens end.
        """
        self._account = account
        self._account_error: RtcError | None = None
        self._has_account = False
        self.peer_id = peer_id
        self._server = server
        self._url = "ws" + server.removeprefix("http") + "/ws"
        self._on_relayed = on_relayed
        self._session = machine.SignalingSession(
            Register(
                id=new_command_id(),
                room_id=room_id,
                token=token,
                peer_id=peer_id,
                role=role,
                resume_key=resume_key or secrets.token_urlsafe(32),
                metadata=metadata or PeerMetadata(),
            ),
            server=server,
            backoff=machine.Backoff(random.random),
            keep_trying=keep_trying,
        )
        self._socket: ClientConnection | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._replies: dict[str, asyncio.Future[Reply]] = {}
        self._ready: asyncio.Future[Registered] | None = None
        self.gave_up: asyncio.Future[RtcError] | None = None

    async def __aenter__(self) -> Self:
        """Register; raises the `RtcError` that says why it could not be done."""
        loop = asyncio.get_running_loop()
        self._ready = loop.create_future()
        self.gave_up = loop.create_future()
        self._feed(machine.Started())
        self._spawn(self._watch_for_sleep())
        try:
            await asyncio.shield(self._ready)
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the room."""
        await self.close()

    async def close(self) -> None:
        """Leave the room and wait for every task and the socket to end."""
        socket = self._socket
        self._feed(machine.Stopped())
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if socket is not None:
            # The task that was to close it was cancelled with the others.
            await self._close_socket(socket)
        for future in (self._ready, self.gave_up):
            if future is not None and not future.done():
                future.cancel()

    def use_room_token(self, token: str) -> None:
        """Register with this room token from now on; an empty text is none."""
        self._session.use_room_token(token)

    # -- commands ------------------------------------------------------------------

    async def ask(self, message: ClientMessage) -> Reply:
        """Send a command and return its reply.

        Raises:
            RtcError: the server's refusal, or no reply in time.
        """
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._replies[message.id] = future
        try:
            self._feed(machine.CommandAsked(message))
            return await future
        finally:
            self._replies.pop(message.id, None)

    async def discover(self, role: Role | None = None) -> list[PeerInfo]:
        """List the room's peers of a role."""
        reply = await self.ask(DiscoverPeers(id=new_command_id(), role=role))
        if not isinstance(reply, PeerList):
            raise RemoteProtocolError(detail="another reply to discover_peers")
        return reply.peers

    async def update_metadata(self, metadata: PeerMetadata) -> None:
        """Replace what the room sees of this peer."""
        await self.ask(UpdateMetadata(id=new_command_id(), metadata=metadata))

    # -- the driver ------------------------------------------------------------------

    def _feed(self, event: machine.Event) -> None:
        for instruction in self._session.handle(event, monotonic()):
            self._perform(instruction)
        self._set_timer()

    def _perform(self, instruction: machine.Instruction) -> None:
        match instruction:
            case machine.Connect():
                self._spawn(self._run_socket())
            case machine.Send(message):
                if self._socket is not None:
                    self._spawn(self._send(self._socket, encode_signaling(message)))
            case machine.Disconnect():
                if self._socket is not None:
                    self._spawn(self._close_socket(self._socket))
                    # What it still says is of no interest: a next one may be open
                    # long before this one has closed.
                    self._socket = None
            case machine.Ready(reply):
                if self._ready is not None and not self._ready.done():
                    self._ready.set_result(reply)
            case machine.CommandAnswered(command_id, reply):
                self._settle(command_id, reply)
            case machine.CommandFailed(command_id, error):
                self._settle(command_id, error)
            case machine.Relayed(message):
                self._on_relayed(message)
            case machine.GaveUp(error):
                self._give_up(error)

    def _settle(self, command_id: str, outcome: Reply | RtcError) -> None:
        future = self._replies.get(command_id)
        if future is None or future.done():
            return
        if isinstance(outcome, RtcError):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    def _give_up(self, error: RtcError) -> None:
        if isinstance(error, SignInRequired) and self._account_error is not None:
            # Somebody is signed in: what is wrong with that says more.
            error = self._account_error
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(error)
            return
        logger.warning("Signaling ended: %s", error)
        if self.gave_up is not None and not self.gave_up.done():
            self.gave_up.set_result(error)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._session.deadline()
        if deadline is not None:
            delay = max(0.0, deadline - monotonic())
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(delay, self._feed, machine.Ticked())

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _current_account(self) -> str:
        """Return the token to register with; empty where there is none to be had.

        Raises:
            RtcError: there was one before, and there may be again.
        """
        self._account_error = None
        try:
            token = await self._account()
        except RtcError as error:
            if self._has_account and is_passing(error):
                raise
            # A room that is open for everybody wants no account.
            logger.warning("No account is used: %s", error)
            self._account_error = error
            token = ""
        self._has_account = bool(token)
        return token

    async def _run_socket(self) -> None:
        try:
            account = await self._current_account()
        except RtcError as error:
            self._feed(machine.ConnectFailed(reason=clean_text(str(error), 200)))
            return
        try:
            socket = await connect(
                self._url,
                open_timeout=SIGNALING_CONNECT_TIMEOUT_S,
                close_timeout=CLOSE_DRAIN_TIMEOUT_S,
                max_size=MAX_SIGNALING_MESSAGE_BYTES,
                compression=None,
                ping_interval=None,
                proxy=None,
                ssl=client_context() if self._url.startswith("wss") else None,
            )
        except (OSError, TimeoutError, websockets.WebSocketException) as error:
            self._feed(machine.ConnectFailed(reason=socket_fault(error)))
            return
        self._socket = socket
        reason, code = "the connection closed", 0
        try:
            self._feed(machine.Connected(account=account))
            async for data in socket:
                if self._socket is not socket:
                    return
                self._feed(machine.Received(decode_server_message(data)))
        except websockets.ConnectionClosed as closed:
            reason = socket_fault(closed)
            code = closed.rcvd.code if closed.rcvd else 0
        except RemoteProtocolError as error:
            reason = clean_text(error.detail)
            await self._close_socket(socket)
        if self._socket is not socket:
            return
        self._socket = None
        self._feed(machine.Lost(reason=reason, code=code or socket.close_code or 0))

    async def _watch_for_sleep(self) -> None:
        """Take the connection for lost when this computer wakes up."""
        sleep = Sleep(wall=wall_clock(), now=monotonic())
        while True:
            await asyncio.sleep(KEEP_ALIVE_INTERVAL_S)
            slept = sleep.was(wall=wall_clock(), now=monotonic())
            socket = self._socket
            if slept and socket is not None:
                self._socket = None
                self._spawn(self._close_socket(socket))
                self._feed(machine.Lost(reason="this computer slept"))

    async def _send(self, socket: ClientConnection, data: str) -> None:
        # A failed send shows as a closed socket to the reading task.
        with contextlib.suppress(websockets.ConnectionClosed):
            await socket.send(data)

    async def _close_socket(self, socket: ClientConnection) -> None:
        await socket.close()


def socket_fault(error: BaseException) -> str:
    """Say in a few words why a connection failed."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, websockets.InvalidStatus):
        return f"it answered with HTTP status {error.response.status_code}"
    if isinstance(error, websockets.ConnectionClosed):
        received = error.rcvd
        return (
            clean_text(received.reason, 100)
            if received and received.reason
            else ("the connection broke")
        )
    return clean_text(str(error), 100) or type(error).__name__
