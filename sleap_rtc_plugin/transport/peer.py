"""A WebRTC connection to one peer, from the first candidate to an authenticated link.

The client offers, the worker answers; all candidates travel in the descriptions.
Everything above it sees a `Link` and knows nothing of aiortc.
"""

import asyncio
import contextlib
import logging
import secrets
from collections import deque
from collections.abc import Sequence
from importlib.metadata import version
from typing import Final, Literal

from aiortc import (
    RTCConfiguration,
    RTCDataChannel,
    RTCIceServer,
    RTCSessionDescription,
)

from sleap_rtc_plugin.protocol.authentication import (
    Authenticated,
    Handshake,
    HandshakeState,
    Instruction,
    SendFrame,
    sdp_fingerprint,
)
from sleap_rtc_plugin.protocol.codec import decode_control
from sleap_rtc_plugin.protocol.errors import (
    LinkFailed,
    PeerNotAuthenticated,
    RemoteProtocolError,
    RtcError,
)
from sleap_rtc_plugin.protocol.features import FEATURES, LARGE_PACKETS
from sleap_rtc_plugin.protocol.ids import clean_text, new_command_id
from sleap_rtc_plugin.protocol.limits import (
    CLOSE_DRAIN_TIMEOUT_S,
    CONTROL_BUFFER_HIGH_BYTES,
    CONTROL_CHANNEL,
    LINK_CONNECT_TIMEOUT_S,
    MAX_EARLY_FRAMES,
    NONCE_BYTES,
    TRANSFER_CHANNEL,
)
from sleap_rtc_plugin.protocol.signaling_messages import (
    Answer,
    IceServer,
    Offer,
    RelayedAnswer,
    RelayedOffer,
)
from sleap_rtc_plugin.transport.data_channels import (
    allow_large_packets,
    engine_of,
    make_peer_connection,
    put_first,
)
from sleap_rtc_plugin.transport.effects import monotonic
from sleap_rtc_plugin.transport.host_candidates import offer_loopback_when_alone
from sleap_rtc_plugin.transport.link import Link
from sleap_rtc_plugin.transport.signaling_client import SignalingClient
from sleap_rtc_plugin.transport.transport_options import TransportOptions

__all__ = [
    "SOFTWARE",
    "PeerConnection",
    "accept_offer",
    "connect_to_worker",
]

logger = logging.getLogger(__name__)

SOFTWARE: Final = f"sleap-rtc-plugin {version('sleap-rtc-plugin')}"

_FATAL_STATES: Final = ("failed", "closed")


class PeerConnection:
    """One attempt to reach one peer. Used once; `close` it whatever happens."""

    def __init__(
        self,
        *,
        role: Literal["client", "worker"],
        peer_id: str,
        secret: bytes,
        ice_servers: Sequence[IceServer] = (),
        options: TransportOptions | None = None,
    ) -> None:
        """Prepare to reach `peer_id`; no packet is sent yet.

        `ice_servers` is used as it is: with none, no server is asked for anything.
        `options` say how data channels go; the environment's by default.
        """
        offer_loopback_when_alone()
        self._role = role
        self._peer_id = peer_id
        self._secret = secret
        self._options = options or TransportOptions.from_environment()
        self._pc = make_peer_connection(
            RTCConfiguration(
                iceServers=[
                    RTCIceServer(
                        urls=server.urls,
                        username=server.username,
                        credential=server.credential,
                    )
                    for server in ice_servers
                ]
            ),
            self._options,
        )
        loop = asyncio.get_running_loop()
        self._authenticated: asyncio.Future[Authenticated] = loop.create_future()
        self._transfer_open: asyncio.Future[None] = loop.create_future()
        self._control: RTCDataChannel | None = None
        self._transfer: RTCDataChannel | None = None
        self._handshake: Handshake | None = None
        self._link: Link | None = None
        self._closing: asyncio.Task[None] | None = None
        self._early: deque[bytes | str] = deque()
        self._handshake_timer: asyncio.TimerHandle | None = None
        self._pc.on("connectionstatechange", self._on_connection_state)
        self._pc.on("datachannel", self._on_data_channel)

    # -- descriptions (RFC 8829) -------------------------------------------------------

    async def make_offer(self) -> str:
        """Open the channels and return the offer, with every candidate in it."""
        self._adopt(self._pc.createDataChannel(CONTROL_CHANNEL))
        self._adopt(self._pc.createDataChannel(TRANSFER_CHANNEL))
        await self._pc.setLocalDescription(await self._pc.createOffer())
        return str(self._pc.localDescription.sdp)

    async def make_answer(self, offer: str) -> str:
        """Take the peer's offer and return the answer.

        Raises:
            RemoteProtocolError: the offer cannot be used.
        """
        await self._set_remote(offer, "offer")
        await self._pc.setLocalDescription(await self._pc.createAnswer())
        return str(self._pc.localDescription.sdp)

    async def take_answer(self, answer: str) -> None:
        """Take the peer's answer.

        Raises:
            RemoteProtocolError: the answer cannot be used.
        """
        await self._set_remote(answer, "answer")

    async def _set_remote(self, sdp: str, kind: str) -> None:
        sdp_fingerprint(sdp)
        try:
            await self._pc.setRemoteDescription(RTCSessionDescription(sdp, kind))
        # aiortc parses a stranger's text here and raises whatever it trips over.
        except Exception as error:
            detail = f"an {kind} that cannot be used: {clean_text(str(error), 100)}"
            raise RemoteProtocolError(detail=detail) from None
        if self._pc.sctp is None or len(self._pc.getTransceivers()) > 0:
            raise RemoteProtocolError(detail=f"an {kind} that is not for data channels")

    # -- authentication ----------------------------------------------------------------

    async def authenticate(self) -> Link:
        """Wait until both channels are open and both proofs hold.

        Raises:
            LinkFailed: no connection came about in time.
            PeerNotAuthenticated: the peer does not know the secret, or somebody is
                in between.
            RemoteProtocolError: the peer broke the protocol.
        """
        try:
            async with asyncio.timeout(LINK_CONNECT_TIMEOUT_S):
                authenticated = await self._authenticated
                await self._transfer_open
        except TimeoutError:
            raise LinkFailed(
                worker=self._peer_id,
                reason=f"no answer within {LINK_CONNECT_TIMEOUT_S:.0f} s",
            ) from None
        if self._control is None or self._transfer is None:
            raise RemoteProtocolError(detail="a link without its channels")
        self._link = Link(
            peer_id=self._peer_id,
            control=self._control,
            transfer=self._transfer,
            authenticated=authenticated,
            kind=self._kind(),
            engine=engine_of(self._pc),
            close=self._close_soon,
            max_bytes_per_s=self._options.max_bytes_per_s,
        )
        self._control.on("bufferedamountlow", self._link.control_drained)
        self._transfer.on("bufferedamountlow", self._link.transfer_drained)
        asyncio.get_running_loop().call_soon(self._deliver_early, self._link)
        return self._link

    def _kind(self) -> str:
        """Say how the packets travel: `direct`, or `relay` over a TURN server."""
        if self._pc.sctp is None:
            return "unknown"
        # aiortc tells nobody which pair of candidates was nominated.
        ice = self._pc.sctp.transport.transport
        nominated = getattr(getattr(ice, "_connection", None), "_nominated", {})
        for pair in nominated.values():
            kinds = (pair.local_candidate.type, pair.remote_candidate.type)
            return "relay" if "relay" in kinds else "direct"
        return "unknown"

    def _deliver_early(self, link: Link) -> None:
        while self._early:
            link.control_received(self._early.popleft())

    def _adopt(self, channel: RTCDataChannel) -> None:
        """Listen on one of the two channels; a third or a second of a kind fails."""
        label = channel.label
        known = {CONTROL_CHANNEL: self._control, TRANSFER_CHANNEL: self._transfer}
        if label not in known or known[label] is not None or not channel.ordered:
            self._fail(RemoteProtocolError(detail="a data channel nobody asked for"))
            return
        channel.on("close", lambda: self._on_closed("the peer closed the connection"))
        if label == CONTROL_CHANNEL:
            self._control = channel
            put_first(self._pc, channel)
            channel.bufferedAmountLowThreshold = CONTROL_BUFFER_HIGH_BYTES // 2
            channel.on("message", self._on_control_frame)
            on_open = self._begin_handshake
        else:
            self._transfer = channel
            channel.on("message", self._on_transfer_frame)
            on_open = self._on_transfer_open
        if channel.readyState == "open":
            on_open()
        else:
            channel.on("open", on_open)

    def _begin_handshake(self) -> None:
        # It is what HELLO says, and the association has gone its way by now.
        engine = engine_of(self._pc)
        try:
            self._handshake = Handshake(
                role=self._role,
                secret=self._secret,
                nonce=secrets.token_bytes(NONCE_BYTES),
                local_fingerprint=sdp_fingerprint(self._pc.localDescription.sdp),
                # aiortc compared DTLS's certificate with every fingerprint in the
                # remote description, and there is exactly one of SHA-256.
                remote_fingerprint=sdp_fingerprint(self._pc.remoteDescription.sdp),
                software=SOFTWARE,
                features=FEATURES | ({LARGE_PACKETS} if engine == "fast" else set()),
                engine=engine,
            )
            now = monotonic()
            self._perform(self._handshake.start(now))
            deadline = self._handshake.deadline() or now
            loop = asyncio.get_running_loop()
            self._handshake_timer = loop.call_later(deadline - now, self._too_slow)
        except RtcError as error:
            self._fail(error)

    def _too_slow(self) -> None:
        if not self._authenticated.done():
            reason = "the other side did not prove itself in time"
            self._fail(LinkFailed(worker=self._peer_id, reason=reason))

    def _on_control_frame(self, frame: bytes | str) -> None:
        if self._link is not None and not self._early:
            self._link.control_received(frame)
            return
        if self._authenticated.done():
            # Between the last proof and the link's first breath.
            self._early.append(frame)
            if len(self._early) > MAX_EARLY_FRAMES:
                self._fail(RemoteProtocolError(detail="too much before an answer"))
            return
        try:
            message = decode_control(frame)
            if self._handshake is None or isinstance(frame, bytes):
                raise RemoteProtocolError(detail="a frame before the channel opened")
            self._perform(self._handshake.handle(frame, message))
        except RtcError as error:
            self._fail(error)

    def _on_transfer_frame(self, frame: bytes | str) -> None:
        if self._link is None:
            self._fail(RemoteProtocolError(detail="a transfer frame before AUTH"))
        else:
            self._link.fragment_received(frame)

    def _perform(self, instructions: list[Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case SendFrame(frame):
                    if self._control is not None:
                        self._control.send(frame)
                case Authenticated(features=features):
                    if LARGE_PACKETS in features:
                        allow_large_packets(self._pc)
                    if not self._authenticated.done():
                        self._authenticated.set_result(instruction)

    # -- what aiortc reports -----------------------------------------------------------

    def _on_data_channel(self, channel: RTCDataChannel) -> None:
        if self._role == "client":
            self._fail(RemoteProtocolError(detail="a data channel nobody asked for"))
        else:
            self._adopt(channel)

    def _on_transfer_open(self) -> None:
        if not self._transfer_open.done():
            self._transfer_open.set_result(None)

    def _on_connection_state(self) -> None:
        if self._pc.connectionState in _FATAL_STATES:
            self._on_closed(f"the connection {self._pc.connectionState}")

    def _on_closed(self, reason: str) -> None:
        if self._link is not None:
            self._link.close(reason)
            return
        handshake = self._handshake
        if handshake is not None and handshake.state is HandshakeState.AWAIT_AUTH:
            # The peer saw our proof and hung up.
            self._fail(PeerNotAuthenticated(peer=f"This {self._role}"))
        else:
            self._fail(LinkFailed(worker=self._peer_id, reason=reason))

    # -- ending ------------------------------------------------------------------------

    def _fail(self, error: RtcError) -> None:
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
        self._close_soon()

    def _close_soon(self) -> None:
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close())

    async def _close(self) -> None:
        if self._handshake_timer is not None:
            self._handshake_timer.cancel()
        control = self._control
        if control is not None and control.readyState == "open":
            # Let the last proof or error reach the peer: it says more than a closed
            # connection does.
            drained = asyncio.Event()
            control.bufferedAmountLowThreshold = 0
            control.on("bufferedamountlow", drained.set)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_DRAIN_TIMEOUT_S):
                    if control.bufferedAmount > 0:
                        await drained.wait()
        await self._pc.close()

    async def close(self) -> None:
        """Close the connection and wait for it."""
        if self._link is not None:
            self._link.close("closed here")
        self._close_soon()
        if self._closing is not None:
            await asyncio.shield(self._closing)
        for future in (self._authenticated, self._transfer_open):
            if not future.done():
                future.cancel()


async def connect_to_worker(
    signaling: SignalingClient,
    *,
    worker_id: str,
    secret: bytes,
    answers: "asyncio.Queue[RelayedAnswer]",
    ice_servers: Sequence[IceServer] = (),
    options: TransportOptions | None = None,
) -> tuple[PeerConnection, Link]:
    """Reach a worker of the room and prove each other's membership.

    `answers` is where the caller puts the answers that `signaling` relays.

    Raises:
        LinkFailed: no connection came about.
        PeerNotAuthenticated: the worker is not the session's.
    """
    connection = PeerConnection(
        role="client",
        peer_id=worker_id,
        secret=secret,
        ice_servers=ice_servers,
        options=options,
    )
    try:
        offer_id = new_command_id()
        sdp = await connection.make_offer()
        await signaling.ask(Offer(id=offer_id, to=worker_id, sdp=sdp))
        try:
            async with asyncio.timeout(LINK_CONNECT_TIMEOUT_S):
                while True:
                    answer = await answers.get()
                    if (answer.offer_id, answer.from_) == (offer_id, worker_id):
                        break
        except TimeoutError:
            raise LinkFailed(
                worker=worker_id, reason="it did not answer the offer"
            ) from None
        await connection.take_answer(answer.sdp)
        return connection, await connection.authenticate()
    except BaseException:
        await connection.close()
        raise


async def accept_offer(
    signaling: SignalingClient,
    offer: RelayedOffer,
    *,
    secret: bytes,
    ice_servers: Sequence[IceServer] = (),
    options: TransportOptions | None = None,
) -> tuple[PeerConnection, Link]:
    """Answer a client's offer and prove each other's membership.

    Raises:
        LinkFailed: no connection came about.
        PeerNotAuthenticated: the client does not know the session's secret.
        RemoteProtocolError: the offer or a frame breaks the protocol.
    """
    connection = PeerConnection(
        role="worker",
        peer_id=offer.from_,
        secret=secret,
        ice_servers=ice_servers,
        options=options,
    )
    try:
        sdp = await connection.make_answer(offer.sdp)
        answer = Answer(id=new_command_id(), to=offer.from_, sdp=sdp, offer_id=offer.id)
        await signaling.ask(answer)
        return connection, await connection.authenticate()
    except BaseException:
        await connection.close()
        raise
