"""A peer's side of its signaling session: register, ask, survive a lost server.

What is wanted is kept (who we are, our metadata, commands without a reply) and the
connection is not: after a loss the machine backs off, registers again and repeats
what was not answered. Pure; driven by `transport.signaling_client` at both ends.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

import msgspec

from sleap_rtc_plugin.protocol.close_codes import FATAL_CLOSE_CODES, CloseCode
from sleap_rtc_plugin.protocol.errors import (
    AccountError,
    ErrorInfo,
    LocalProtocolError,
    NoReply,
    NotAllowed,
    PeerIdTaken,
    RemoteFailure,
    RemoteProtocolError,
    RoomGone,
    RtcError,
    SignalingUnreachable,
    TokenRefused,
    error_types,
    from_wire,
)
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.limits import (
    MAX_PENDING_SIGNALING_COMMANDS,
    SIGNALING_BACKOFF_FIRST_S,
    SIGNALING_BACKOFF_MAX_S,
    SIGNALING_PING_INTERVAL_S,
    SIGNALING_REPLY_TIMEOUT_S,
)
from sleap_rtc_plugin.protocol.machine import Machine, Remote
from sleap_rtc_plugin.protocol.signaling_messages import (
    ClientMessage,
    Ping,
    Pong,
    Register,
    Registered,
    RelayedAnswer,
    RelayedCandidate,
    RelayedMessage,
    RelayedOffer,
    RelayedPeerMessage,
    Reply,
    ServerError,
    ServerMessage,
    UpdateMetadata,
)

__all__ = [
    "Backoff",
    "CommandAnswered",
    "CommandAsked",
    "CommandFailed",
    "Connect",
    "ConnectFailed",
    "Connected",
    "Disconnect",
    "GaveUp",
    "Lost",
    "Ready",
    "Received",
    "Relayed",
    "Send",
    "SessionState",
    "SignalingSession",
    "Started",
    "Stopped",
    "Ticked",
    "error_from_server",
]

_RELAYED = (RelayedOffer, RelayedAnswer, RelayedCandidate, RelayedPeerMessage)


class SessionState(StrEnum):
    """Where a signaling session stands."""

    IDLE = "idle"
    CONNECTING = "connecting"
    REGISTERING = "registering"
    READY = "ready"
    WAITING = "waiting"
    CLOSED = "closed"


# -- events --------------------------------------------------------------------


@dataclass(frozen=True)
class Started:
    """Be in the room from now on."""


@dataclass(frozen=True)
class Connected:
    """The WebSocket is open.

    `account` is the token of the account that is signed in now; empty without one.
    """

    account: str = ""


@dataclass(frozen=True)
class ConnectFailed:
    """The WebSocket could not be opened; `reason` completes "cannot be reached (…)"."""

    reason: str


@dataclass(frozen=True)
class Lost:
    """The WebSocket closed or broke, with the server's close code if there was one."""

    reason: str
    code: int = 0


@dataclass(frozen=True)
class Received(Remote):
    """The server sent this."""

    message: ServerMessage


@dataclass(frozen=True)
class CommandAsked:
    """The program wants this command carried out."""

    message: ClientMessage


@dataclass(frozen=True)
class Ticked:
    """`deadline` has passed."""


@dataclass(frozen=True)
class Stopped:
    """Leave the room."""


Event = (
    Started
    | Connected
    | ConnectFailed
    | Lost
    | Received
    | CommandAsked
    | Ticked
    | Stopped
)

# -- instructions ----------------------------------------------------------------


@dataclass(frozen=True)
class Connect:
    """Open the WebSocket."""


@dataclass(frozen=True)
class Send:
    """Send this message."""

    message: ClientMessage


@dataclass(frozen=True)
class Disconnect:
    """Close the WebSocket."""


@dataclass(frozen=True)
class Ready:
    """The peer is registered (again)."""

    reply: Registered


@dataclass(frozen=True)
class CommandAnswered:
    """A command got its reply."""

    command_id: str
    reply: Reply


@dataclass(frozen=True)
class CommandFailed:
    """A command failed for good."""

    command_id: str
    error: RtcError


@dataclass(frozen=True)
class Relayed:
    """Another peer sent something."""

    message: RelayedMessage


@dataclass(frozen=True)
class GaveUp:
    """The session is over and will not come back by itself."""

    error: RtcError


Instruction = (
    Connect
    | Send
    | Disconnect
    | Ready
    | CommandAnswered
    | CommandFailed
    | Relayed
    | GaveUp
)


class Backoff:
    """How long to wait before the next try: doubling, half of it random, bounded."""

    def __init__(self, random: Callable[[], float]) -> None:
        """Take `random`, a source of numbers in [0, 1)."""
        self._random = random
        self._tries = 0

    def next_delay_s(self) -> float:
        """Return the seconds to wait now; the next wait may be twice as long."""
        doubled: float = SIGNALING_BACKOFF_FIRST_S * 2**self._tries
        ceiling = min(doubled, SIGNALING_BACKOFF_MAX_S)
        self._tries = min(self._tries + 1, 16)
        return ceiling * (0.5 + self._random() / 2)

    def reset(self) -> None:
        """Begin anew: the last try went well."""
        self._tries = 0


@dataclass
class _Pending:
    message: ClientMessage
    deadline: float
    was_sent: bool = False


# Errors at registration after which trying again cannot help.
_FATAL = (TokenRefused, RoomGone, PeerIdTaken, AccountError, NotAllowed)


class SignalingSession(Machine[SessionState, Event, Instruction]):
    """One peer's session with one signaling server."""

    TABLE: ClassVar = {
        SessionState.IDLE: {
            Started: "_started",
            CommandAsked: "_keep_command",
            Ticked: "_ticked",
            Stopped: "_stopped",
        },
        SessionState.CONNECTING: {
            Connected: "_connected",
            ConnectFailed: "_connect_failed",
            Lost: "_connect_failed",
            CommandAsked: "_keep_command",
            Ticked: "_ticked",
            Stopped: "_stopped",
        },
        SessionState.REGISTERING: {
            Received: "_received_while_registering",
            Lost: "_lost",
            CommandAsked: "_keep_command",
            Ticked: "_ticked",
            Stopped: "_stopped",
        },
        SessionState.READY: {
            Received: "_received",
            Lost: "_lost",
            CommandAsked: "_send_command",
            Ticked: "_ticked",
            Stopped: "_stopped",
        },
        SessionState.WAITING: {
            CommandAsked: "_keep_command",
            Lost: "_nothing",
            Received: "_nothing",
            Ticked: "_ticked",
            Stopped: "_stopped",
        },
        SessionState.CLOSED: {
            Connected: "_disconnect",
            ConnectFailed: "_nothing",
            Lost: "_nothing",
            Received: "_nothing",
            CommandAsked: "_refuse_command",
            Ticked: "_nothing",
            Stopped: "_nothing",
        },
    }

    def __init__(
        self,
        register: Register,
        *,
        server: str,
        backoff: Backoff,
        keep_trying: bool,
    ) -> None:
        """Prepare a session.

        Args:
            register: who we are; its id is used anew at every registration.
            server: the server's address, for error messages.
            backoff: how long to wait between tries.
            keep_trying: whether a failed first connection is tried again (a worker
                does, a command does not).
        """
        super().__init__(SessionState.IDLE)
        self._register = register
        self._server = server
        self._backoff = backoff
        self._keep_trying = keep_trying
        self._was_ready = False
        self._revoked: RtcError | None = None
        self._pending: dict[str, _Pending] = {}
        self._retry_at: float | None = None
        self._reply_by: float | None = None
        self._ping_at: float | None = None
        self._pings = 0
        self._pong_by: float | None = None

    def use_room_token(self, token: str) -> None:
        """Register with this room token from now on; an empty text is none."""
        self._register = msgspec.structs.replace(self._register, token=token)

    def deadline(self) -> float | None:
        """When the machine wants `Ticked`, or None."""
        times = [self._retry_at, self._reply_by, self._ping_at, self._pong_by]
        times += [pending.deadline for pending in self._pending.values()]
        return min((t for t in times if t is not None), default=None)

    # -- transitions ---------------------------------------------------------------

    def _nothing(self, event: Event, now: float) -> list[Instruction]:
        return []

    def _started(self, event: Event, now: float) -> list[Instruction]:
        self.state = SessionState.CONNECTING
        return [Connect()]

    def _connected(self, event: Connected, now: float) -> list[Instruction]:
        if self._revoked is not None and event.account == self._register.account:
            return self._give_up(self._revoked)
        self._revoked = None
        if event.account != self._register.account:
            self._register = msgspec.structs.replace(
                self._register, account=event.account
            )
        self.state = SessionState.REGISTERING
        self._reply_by = now + SIGNALING_REPLY_TIMEOUT_S
        return [Send(self._register)]

    def _connect_failed(
        self, event: ConnectFailed | Lost, now: float
    ) -> list[Instruction]:
        if not self._was_ready and not self._keep_trying:
            return self._give_up(
                SignalingUnreachable(server=self._server, reason=event.reason)
            )
        return self._wait(now)

    def _lost(self, event: Lost, now: float) -> list[Instruction]:
        if event.code in FATAL_CLOSE_CODES:
            error = self._error_of_close(event)
            if event.code != CloseCode.REVOKED or not self._may_have_next_token():
                return self._give_up(error)
            self._revoked = error
        return self._connect_failed(event, now)

    def _received_while_registering(
        self, event: Received, now: float
    ) -> list[Instruction]:
        message = event.message
        if isinstance(message, Registered) and message.id == self._register.id:
            return self._registered(message, now)
        if isinstance(message, ServerError) and message.id in ("", self._register.id):
            error = error_from_server(message, self._server)
            if isinstance(error, _FATAL) or not (self._was_ready or self._keep_trying):
                return self._give_up(error)
            return [Disconnect(), *self._wait(now)]
        raise RemoteProtocolError(
            detail=f"{type(message).__name__} before registration"
        )

    def _registered(self, message: Registered, now: float) -> list[Instruction]:
        self.state = SessionState.READY
        self._was_ready = True
        self._backoff.reset()
        self._reply_by = None
        self._ping_at = now + SIGNALING_PING_INTERVAL_S
        resent: list[Instruction] = []
        for pending in self._pending.values():
            pending.was_sent = True
            resent.append(Send(pending.message))
        return [Ready(message), *resent]

    def _received(self, event: Received, now: float) -> list[Instruction]:
        message = event.message
        if isinstance(message, _RELAYED):
            return [Relayed(message)]
        if isinstance(message, Pong) and message.id.startswith("ping-"):
            self._pong_by = None
            return []
        pending = self._pending.pop(message.id, None)
        if pending is None:
            # A reply to a command that was given up meanwhile.
            return []
        if isinstance(message, ServerError):
            error = error_from_server(message, self._server)
            return [CommandFailed(message.id, error)]
        return [CommandAnswered(message.id, message)]

    def _send_command(self, event: CommandAsked, now: float) -> list[Instruction]:
        kept = self._keep_command(event, now)
        self._pending[event.message.id].was_sent = True
        return [*kept, Send(event.message)]

    def _keep_command(self, event: CommandAsked, now: float) -> list[Instruction]:
        message = event.message
        if isinstance(message, Register):
            raise LocalProtocolError(detail="the session registers by itself")
        if len(self._pending) >= MAX_PENDING_SIGNALING_COMMANDS:
            raise LocalProtocolError(detail="too many signaling commands at once")
        if isinstance(message, UpdateMetadata):
            self._register = msgspec.structs.replace(
                self._register, metadata=message.metadata
            )
        self._pending[message.id] = _Pending(message, now + SIGNALING_REPLY_TIMEOUT_S)
        return []

    def _refuse_command(self, event: CommandAsked, now: float) -> list[Instruction]:
        error = SignalingUnreachable(server=self._server, reason="the session is over")
        return [CommandFailed(event.message.id, error)]

    def _ticked(self, event: Ticked, now: float) -> list[Instruction]:
        instructions: list[Instruction] = []
        for command_id, pending in list(self._pending.items()):
            if now >= pending.deadline:
                del self._pending[command_id]
                name = type(pending.message).__name__
                error = NoReply(
                    peer=f"the signaling server {self._server}", command=name
                )
                instructions.append(CommandFailed(command_id, error))
        if self._retry_at is not None and now >= self._retry_at:
            self._retry_at = None
            self.state = SessionState.CONNECTING
            instructions.append(Connect())
        if self._is_past(self._reply_by, now) or self._is_past(self._pong_by, now):
            gone = Lost(reason="it does not answer")
            return [*instructions, Disconnect(), *self._lost(gone, now)]
        if self._ping_at is not None and now >= self._ping_at:
            self._ping_at = now + SIGNALING_PING_INTERVAL_S
            self._pong_by = now + SIGNALING_REPLY_TIMEOUT_S
            self._pings += 1
            instructions.append(Send(Ping(id=f"ping-{self._pings}")))
        return instructions

    def _stopped(self, event: Event, now: float) -> list[Instruction]:
        error = SignalingUnreachable(server=self._server, reason="the session is over")
        return [*self._close(error), Disconnect()]

    def _disconnect(self, event: Event, now: float) -> list[Instruction]:
        return [Disconnect()]

    # -- parts of transitions --------------------------------------------------------

    def _wait(self, now: float) -> list[Instruction]:
        self.state = SessionState.WAITING
        self._reply_by = self._ping_at = self._pong_by = None
        self._retry_at = now + self._backoff.next_delay_s()
        return []

    def _give_up(self, error: RtcError) -> list[Instruction]:
        return [*self._close(error), Disconnect(), GaveUp(error)]

    def _close(self, error: RtcError) -> list[Instruction]:
        self.state = SessionState.CLOSED
        self._retry_at = self._reply_by = self._ping_at = self._pong_by = None
        failed = [CommandFailed(command_id, error) for command_id in self._pending]
        self._pending.clear()
        return list(failed)

    def _may_have_next_token(self) -> bool:
        """Tell whether an account let us in: its tokens end every hour or so."""
        return self._was_ready and bool(self._register.account)

    def _error_of_close(self, event: Lost) -> RtcError:
        match event.code:
            case CloseCode.ROOM_ENDED:
                return RoomGone(server=self._server)
            case CloseCode.REPLACED:
                return PeerIdTaken(peer_id=self._register.peer_id)
            case CloseCode.REVOKED:
                reason = "what admitted you has been taken back or has ended"
                return TokenRefused(server=self._server, reason=reason)
            case CloseCode.REGISTRATION_REFUSED | CloseCode.NOT_REGISTERED:
                return TokenRefused(server=self._server, reason=event.reason)
            case _:
                return RemoteProtocolError(detail=clean_text(event.reason, 200))

    @staticmethod
    def _is_past(time: float | None, now: float) -> bool:
        return time is not None and now >= time


def error_from_server(message: ServerError, server: str) -> RtcError:
    """Return the error that a server's `error` reply stands for.

    A server does not know the address it was reached at, so `server` fills that in.
    """
    fields = {**message.fields}
    leaf = error_types().get(message.code)
    if leaf is not None and "server" in leaf.__dataclass_fields__:
        fields["server"] = server
    error = from_wire(ErrorInfo(code=message.code, fields=fields))
    if isinstance(error, RemoteFailure):
        return RemoteFailure(
            kind=clean_text(message.code), detail=clean_text(message.message, 300)
        )
    return error
