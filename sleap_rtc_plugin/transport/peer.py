"""A WebRTC connection to one peer, from the first candidate to an authenticated link.

The client offers, the worker answers; all candidates travel in the descriptions.
Everything above it sees a `Link` and knows nothing of aiortc.
"""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Final, Literal

import aioice.ice
from aiortc import (
    RTCConfiguration,
    RTCDataChannel,
    RTCIceServer,
    RTCIceTransportPolicy,
    RTCSessionDescription,
)

from sleap_rtc_plugin.protocol.authentication import Authenticated, sdp_fingerprint
from sleap_rtc_plugin.protocol.errors import (
    LinkFailed,
    RemoteProtocolError,
    RtcError,
)
from sleap_rtc_plugin.protocol.features import LARGE_PACKETS, LIVE
from sleap_rtc_plugin.protocol.ids import clean_text, new_command_id
from sleap_rtc_plugin.protocol.limits import (
    CLOSE_DRAIN_TIMEOUT_S,
    CONTROL_BUFFER_HIGH_BYTES,
    CONTROL_CHANNEL,
    GATHER_TIMEOUT_S,
    LINK_CONNECT_TIMEOUT_S,
    LIVE_CHANNEL,
    TRANSFER_CHANNEL,
    TURN_GATHER_TIMEOUT_S,
)
from sleap_rtc_plugin.protocol.signaling_messages import (
    Answer,
    IceServer,
    RelayedOffer,
)
from sleap_rtc_plugin.transport.data_channels import (
    allow_large_packets,
    engine_of,
    make_peer_connection,
    put_first,
)
from sleap_rtc_plugin.transport.gathering import bound_gathering
from sleap_rtc_plugin.transport.host_candidates import offer_loopback_when_alone
from sleap_rtc_plugin.transport.ice_config import TurnWay, parse_ice_url
from sleap_rtc_plugin.transport.ladder import Way
from sleap_rtc_plugin.transport.link import Link
from sleap_rtc_plugin.transport.link_opening import SOFTWARE, LinkOpening
from sleap_rtc_plugin.transport.live_channel import LiveChannel
from sleap_rtc_plugin.transport.signaling_client import SignalingClient
from sleap_rtc_plugin.transport.transport_options import TransportOptions

__all__ = ["SOFTWARE", "PeerConnection", "accept_offer"]

logger = logging.getLogger(__name__)

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
        relay_only: bool = False,
    ) -> None:
        """Prepare to reach `peer_id`; no packet is sent yet.

        `ice_servers` is used as it is: with none, no server is asked for anything.
        `options` say how data channels go; the environment's by default. With
        `relay_only` no address of this machine is told to the peer: packets go over
        the TURN server among `ice_servers`.
        """
        offer_loopback_when_alone()
        self._role = role
        self._peer_id = peer_id
        ways = [parse_ice_url(url) for server in ice_servers for url in server.urls]
        turns = [url.way for url in ways if url is not None and url.way != "stun"]
        self._turn_way: TurnWay = turns[0] if turns else "turn-udp"
        self._gather_s = TURN_GATHER_TIMEOUT_S if turns else GATHER_TIMEOUT_S
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
                ],
                iceTransportPolicy=RTCIceTransportPolicy.RELAY
                if relay_only
                else RTCIceTransportPolicy.ALL,
            ),
            self._options,
        )
        self._opening = LinkOpening(
            role=role,
            peer_id=peer_id,
            secret=secret,
            close=self._close_soon,
            on_authenticated=self._on_authenticated,
        )
        self._control: RTCDataChannel | None = None
        self._transfer: RTCDataChannel | None = None
        self._link: Link | None = None
        self._closing: asyncio.Task[None] | None = None
        self._pc.on("connectionstatechange", self._on_connection_state)
        self._pc.on("datachannel", self._on_data_channel)

    # -- descriptions (RFC 8829) -------------------------------------------------------

    async def make_offer(self) -> str:
        """Open the channels and return the offer, with every candidate in it."""
        self._adopt(self._pc.createDataChannel(CONTROL_CHANNEL))
        self._adopt(self._pc.createDataChannel(TRANSFER_CHANNEL))
        self._bound_gathering()
        await self._pc.setLocalDescription(await self._pc.createOffer())
        return str(self._pc.localDescription.sdp)

    async def make_answer(self, offer: str) -> str:
        """Take the peer's offer and return the answer.

        Raises:
            RemoteProtocolError: the offer cannot be used.
        """
        await self._set_remote(offer, "offer")
        self._bound_gathering()
        await self._pc.setLocalDescription(await self._pc.createAnswer())
        return str(self._pc.localDescription.sdp)

    def _bound_gathering(self) -> None:
        """Wait for STUN and TURN servers no longer than we like."""
        ice = self._ice()
        if ice is not None:
            bound_gathering(ice, self._gather_s)

    @property
    def has_candidates(self) -> bool:
        """Whether our description holds any way to reach us."""
        return "\na=candidate:" in str(self._pc.localDescription.sdp)

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
                authenticated = await self._opening.authenticated()
        except TimeoutError:
            raise LinkFailed(
                worker=self._peer_id,
                reason=f"no answer within {LINK_CONNECT_TIMEOUT_S:.0f} s",
            ) from None
        if self._control is None or self._transfer is None:
            raise RemoteProtocolError(detail="a link without its channels")
        link = Link(
            peer_id=self._peer_id,
            control=self._control,
            transfer=self._transfer,
            authenticated=authenticated,
            kind=self._kind(),
            engine=engine_of(self._pc),
            close=self._close_soon,
            max_bytes_per_s=self._options.max_bytes_per_s,
            open_live=self._open_live if self._role == "client" else None,
        )
        self._link = link
        self._control.on("bufferedamountlow", link.control_drained)
        self._transfer.on("bufferedamountlow", link.transfer_drained)
        self._opening.become(link)
        return link

    def _kind(self) -> Way | Literal["unknown"]:
        """Say how the packets travel, as far as this end knows.

        A relay of the other side's is reached over UDP; how the other side reaches it
        is not known here.
        """
        # aiortc tells nobody which pair of candidates was nominated.
        ice = self._ice()
        nominated = getattr(ice, "_nominated", {})
        for pair in nominated.values():
            if pair.local_candidate.type == "relay":
                return self._turn_way
            relayed = pair.remote_candidate.type == "relay"
            return "turn-udp" if relayed else "direct"
        return "unknown"

    def _ice(self) -> aioice.ice.Connection | None:
        """Return what looks for a path, once there is something to find it for."""
        if self._pc.sctp is None:
            return None
        ice = self._pc.sctp.transport.transport
        return getattr(ice, "_connection", None)

    def _adopt(self, channel: RTCDataChannel) -> None:
        """Listen on one of the two channels; a third or a second of a kind fails."""
        label = channel.label
        known = {CONTROL_CHANNEL: self._control, TRANSFER_CHANNEL: self._transfer}
        if label not in known or known[label] is not None or not channel.ordered:
            self._fail(RemoteProtocolError(detail="a data channel nobody asked for"))
            return
        lost = self._opening.lost
        channel.on("close", lambda: lost("the peer closed the connection"))
        if label == CONTROL_CHANNEL:
            self._control = channel
            put_first(self._pc, channel)
            channel.bufferedAmountLowThreshold = CONTROL_BUFFER_HIGH_BYTES // 2
            channel.on("message", self._opening.control_received)
            on_open = self._begin_handshake
        else:
            self._transfer = channel
            channel.on("message", self._opening.transfer_received)
            on_open = self._opening.transfer_opened
        if channel.readyState == "open":
            on_open()
        else:
            channel.on("open", on_open)

    def _begin_handshake(self) -> None:
        # It is what HELLO says, and the association has gone its way by now.
        engine = engine_of(self._pc)
        try:
            # aiortc compared DTLS's certificate with every fingerprint in the
            # remote description, and there is exactly one of SHA-256.
            local = sdp_fingerprint(self._pc.localDescription.sdp)
            remote = sdp_fingerprint(self._pc.remoteDescription.sdp)
        except RtcError as error:
            self._fail(error)
            return
        self._opening.begin(
            self._send_control,
            local_fingerprint=local,
            remote_fingerprint=remote,
            engine=engine,
            features=frozenset({LARGE_PACKETS, LIVE} if engine == "fast" else {LIVE}),
        )

    # -- live frames -------------------------------------------------------------------

    def _open_live(self) -> LiveChannel:
        """Open the channel for live frames."""
        return self._listen_live(
            self._pc.createDataChannel(LIVE_CHANNEL, ordered=False, maxRetransmits=0)
        )

    def _take_live(self, channel: RTCDataChannel) -> None:
        """The client opened the channel for live frames, which it may do once."""
        link = self._link
        if (
            link is None
            or LIVE not in link.features
            or (link.live is not None and not link.live.closed.is_set())
            or channel.ordered
            or channel.maxRetransmits != 0
        ):
            self._fail(RemoteProtocolError(detail="a data channel nobody asked for"))
            return
        link.adopt_live(self._listen_live(channel))

    def _listen_live(self, channel: RTCDataChannel) -> LiveChannel:
        live = LiveChannel(channel)
        channel.on("open", live.opened)
        channel.on("message", live.received)
        channel.on("bufferedamountlow", live.drained)
        channel.on("close", live.ended)
        return live

    def _send_control(self, frame: str) -> None:
        if self._control is not None:
            self._control.send(frame)

    def _on_authenticated(self, authenticated: Authenticated) -> None:
        if LARGE_PACKETS in authenticated.features:
            allow_large_packets(self._pc)

    # -- what aiortc reports -----------------------------------------------------------

    def _on_data_channel(self, channel: RTCDataChannel) -> None:
        if self._role == "client":
            self._fail(RemoteProtocolError(detail="a data channel nobody asked for"))
        elif channel.label == LIVE_CHANNEL:
            self._take_live(channel)
        else:
            self._adopt(channel)

    def _on_connection_state(self) -> None:
        if self._pc.connectionState in _FATAL_STATES:
            self._opening.lost(f"the connection {self._pc.connectionState}")

    # -- ending ------------------------------------------------------------------------

    def _fail(self, error: RtcError) -> None:
        self._opening.fail(error)

    def _close_soon(self) -> None:
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close())

    async def _close(self) -> None:
        self._opening.stop_waiting()
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
        self._opening.end_link()
        self._close_soon()
        if self._closing is not None:
            await asyncio.shield(self._closing)
        self._opening.forget()


async def accept_offer(
    signaling: SignalingClient,
    offer: RelayedOffer,
    *,
    secret: bytes,
    ice_servers: Sequence[IceServer] = (),
    options: TransportOptions | None = None,
    relay_only: bool = False,
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
        relay_only=relay_only,
    )
    try:
        sdp = await connection.make_answer(offer.sdp)
        answer = Answer(id=new_command_id(), to=offer.from_, sdp=sdp, offer_id=offer.id)
        await signaling.ask(answer)
        return connection, await connection.authenticate()
    except BaseException:
        await connection.close()
        raise
