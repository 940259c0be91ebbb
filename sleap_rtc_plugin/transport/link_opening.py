"""A new connection before it is a link: HELLO and AUTH, and nothing before them.

Drives `Handshake` over whatever carries frames: a WebRTC data channel, or the signaling
server's relay. Whatever breaks the rules ends the connection. Made by `transport.peer`
and `transport.relay_link`.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Callable
from importlib.metadata import version
from typing import Final, Literal

from sleap_rtc_plugin.protocol.authentication import (
    Authenticated,
    Handshake,
    HandshakeState,
    Instruction,
    SendFrame,
)
from sleap_rtc_plugin.protocol.codec import decode_control
from sleap_rtc_plugin.protocol.errors import (
    LinkFailed,
    PeerNotAuthenticated,
    RemoteProtocolError,
    RtcError,
)
from sleap_rtc_plugin.protocol.features import FEATURES
from sleap_rtc_plugin.protocol.limits import MAX_EARLY_FRAMES, NONCE_BYTES
from sleap_rtc_plugin.transport.effects import monotonic
from sleap_rtc_plugin.transport.link import Link

__all__ = ["SOFTWARE", "LinkOpening", "Role"]

Role = Literal["client", "worker"]
SOFTWARE: Final = f"sleap-rtc-plugin {version('sleap-rtc-plugin')}"


class LinkOpening:
    """One connection's way to a link.

    The connection hands in what comes on its channels, for as long as it lives: once
    there is a link, frames are passed on to it.
    """

    def __init__(
        self,
        *,
        role: Role,
        peer_id: str,
        secret: bytes,
        close: Callable[[], None],
        on_authenticated: Callable[[Authenticated], None] = lambda it: None,
    ) -> None:
        """Prepare for a connection with `peer_id`.

        Args:
            role: our own.
            peer_id: who the other side is said to be.
            secret: the session's.
            close: begins to close the connection.
            on_authenticated: told as soon as both proofs hold.
        """
        self._role = role
        self._peer_id = peer_id
        self._secret = secret
        self._close = close
        self._on_authenticated = on_authenticated
        loop = asyncio.get_running_loop()
        self._authenticated: asyncio.Future[Authenticated] = loop.create_future()
        self._transfer_open: asyncio.Future[None] = loop.create_future()
        self._handshake: Handshake | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._send: Callable[[str], None] | None = None
        self._early: deque[bytes | str] = deque()
        self._link: Link | None = None

    async def authenticated(self) -> Authenticated:
        """Wait until both proofs hold and both channels are open.

        Raises:
            RtcError: why that will not be.
        """
        authenticated = await self._authenticated
        await self._transfer_open
        return authenticated

    def begin(
        self,
        send: Callable[[str], None],
        *,
        local_fingerprint: str,
        remote_fingerprint: str,
        engine: str,
        features: frozenset[str] = frozenset(),
    ) -> None:
        """The control channel is open: say HELLO.

        Args:
            send: sends a frame of the control channel.
            local_fingerprint: what binds the proofs to this end, as `AB:CD:…`.
            remote_fingerprint: the same of the other end.
            engine: what moves the frames.
            features: of this connection, besides those that every link has.
        """
        self._send = send
        try:
            self._handshake = Handshake(
                role=self._role,
                secret=self._secret,
                nonce=secrets.token_bytes(NONCE_BYTES),
                local_fingerprint=local_fingerprint,
                remote_fingerprint=remote_fingerprint,
                software=SOFTWARE,
                features=FEATURES | features,
                engine=engine,
            )
            now = monotonic()
            self._perform(self._handshake.start(now))
            deadline = self._handshake.deadline() or now
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(deadline - now, self._too_slow)
        except RtcError as error:
            self.fail(error)

    def transfer_opened(self) -> None:
        """The transfer channel is open."""
        if not self._transfer_open.done():
            self._transfer_open.set_result(None)

    def become(self, link: Link) -> None:
        """Hand what comes to `link` from now on, and soon what came already."""
        self._link = link
        asyncio.get_running_loop().call_soon(self._deliver_early, link)

    def _deliver_early(self, link: Link) -> None:
        while self._early:
            link.control_received(self._early.popleft())

    # -- what comes ----------------------------------------------------------------

    def control_received(self, frame: bytes | str) -> None:
        """A frame came on the control channel."""
        if self._link is not None and not self._early:
            self._link.control_received(frame)
            return
        if self._authenticated.done():
            # Between the last proof and the link's first breath.
            self._early.append(frame)
            if len(self._early) > MAX_EARLY_FRAMES:
                self.fail(RemoteProtocolError(detail="too much before an answer"))
            return
        try:
            message = decode_control(frame)
            if self._handshake is None or isinstance(frame, bytes):
                raise RemoteProtocolError(detail="a frame before the channel opened")
            self._perform(self._handshake.handle(frame, message))
        except RtcError as error:
            self.fail(error)

    def transfer_received(self, frame: bytes | str) -> None:
        """A frame came on the transfer channel."""
        if self._link is None:
            self.fail(RemoteProtocolError(detail="a transfer frame before AUTH"))
        else:
            self._link.fragment_received(frame)

    def _perform(self, instructions: list[Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case SendFrame(frame):
                    if self._send is not None:
                        self._send(frame)
                case Authenticated():
                    self._on_authenticated(instruction)
                    if not self._authenticated.done():
                        self._authenticated.set_result(instruction)

    # -- ending ----------------------------------------------------------------------

    def _too_slow(self) -> None:
        if not self._authenticated.done():
            reason = "the other side did not prove itself in time"
            self.fail(LinkFailed(worker=self._peer_id, reason=reason))

    def lost(self, reason: str) -> None:
        """The connection ended."""
        if self._link is not None:
            self._link.close(reason)
            return
        handshake = self._handshake
        if handshake is not None and handshake.state is HandshakeState.AWAIT_AUTH:
            # The peer saw our proof and hung up.
            self.fail(PeerNotAuthenticated(peer=f"This {self._role}"))
        else:
            self.fail(LinkFailed(worker=self._peer_id, reason=reason))

    def fail(self, error: RtcError) -> None:
        """Refuse the peer: whoever waits learns why, and the connection goes."""
        if self._link is not None:
            self._link.close(str(error))
            return
        for future in (self._authenticated, self._transfer_open):
            if not future.done():
                future.set_exception(error)
                # Whoever waits on the other future first must not leave this one
                # to complain that nobody looked.
                future.exception()
        self._close()

    def stop_waiting(self) -> None:
        """The connection closes; the time for the proofs does not matter any more."""
        if self._timer is not None:
            self._timer.cancel()

    def end_link(self) -> None:
        """The connection is about to be closed from here."""
        if self._link is not None:
            self._link.close("closed here")

    def forget(self) -> None:
        """The connection is closed, and nobody waits."""
        for future in (self._authenticated, self._transfer_open):
            if not future.done():
                future.cancel()
