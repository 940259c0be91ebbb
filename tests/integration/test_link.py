"""Two real peers, and everybody who is not one of them."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiortc import RTCPeerConnection, RTCSessionDescription
from support.peers import introduce, linked, outcomes, peer

from sleap_rtc_plugin.protocol import codec, liveness, messages
from sleap_rtc_plugin.protocol.authentication import Handshake, sdp_fingerprint
from sleap_rtc_plugin.protocol.errors import (
    LinkFailed,
    PeerNotAuthenticated,
    RemoteProtocolError,
)
from sleap_rtc_plugin.protocol.limits import MAX_CONTROL_FRAME_BYTES
from sleap_rtc_plugin.transport import link as link_module
from sleap_rtc_plugin.transport import peer as peer_module
from sleap_rtc_plugin.transport.link import LinkClosed
from sleap_rtc_plugin.transport.peer import PeerConnection

pytestmark = pytest.mark.timeout(60)
PATIENCE_S = 15


class Stranger:
    """A bare connection that sends what it likes."""

    def __init__(self) -> None:
        self.pc = RTCPeerConnection()
        self.received: asyncio.Queue[Any] = asyncio.Queue()
        self.channels: dict[str, Any] = {}
        self.open: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.pc.on("datachannel", self._adopt)

    def create(self, label: str, **options: Any) -> Any:
        return self._adopt(self.pc.createDataChannel(label, **options))

    def _adopt(self, channel: Any) -> Any:
        opened = self.open[channel.label]
        self.channels[channel.label] = channel
        channel.on("message", self.received.put_nowait)
        channel.on("open", opened.set)
        if channel.readyState == "open":
            opened.set()
        return channel

    async def call(self, worker: PeerConnection) -> None:
        """Offer to a worker."""
        await self.pc.setLocalDescription(await self.pc.createOffer())
        answer = await worker.make_answer(self.pc.localDescription.sdp)
        await self.pc.setRemoteDescription(RTCSessionDescription(answer, "answer"))

    async def send(self, frame: str | bytes, label: str = "control") -> None:
        async with asyncio.timeout(PATIENCE_S):
            await self.open[label].wait()
        self.channels[label].send(frame)

    async def receive(self) -> Any:
        async with asyncio.timeout(PATIENCE_S):
            return await self.received.get()

    def handshake(self, secret: bytes = b"s" * 32, nonce: bytes = b"n" * 32):
        """Return an honest handshake for this very connection."""
        return Handshake(
            role="client",
            secret=secret,
            nonce=nonce,
            local_fingerprint=sdp_fingerprint(self.pc.localDescription.sdp),
            remote_fingerprint=sdp_fingerprint(self.pc.remoteDescription.sdp),
        )


@pytest.fixture
async def worker() -> AsyncIterator[PeerConnection]:
    made = peer("worker")
    yield made
    await made.close()


@pytest.fixture
async def stranger() -> AsyncIterator[Stranger]:
    made = Stranger()
    yield made
    await made.pc.close()


# -- honest peers -------------------------------------------------------------------


async def test_two_peers_that_know_the_secret() -> None:
    async with linked() as (one, other):
        assert one.version == other.version == 1
        assert one.peer_id == "worker-1"
        heard: asyncio.Queue[Any] = asyncio.Queue()
        one.on_control = other.on_control = heard.put_nowait
        other.on_fragment = heard.put_nowait
        message = messages.Acknowledged(command_id="c-1", last_seq=3)
        one.send(message)
        assert await heard.get() == message
        other.send(message)
        assert await heard.get() == message
        await one.send_fragment(b"\x01" * 60_000)
        assert await heard.get() == b"\x01" * 60_000


async def test_the_largest_control_frame_crosses() -> None:
    async with linked() as (one, other):
        heard: asyncio.Queue[Any] = asyncio.Queue()
        other.on_control = heard.put_nowait
        spec = messages.JobSpec(
            name="x",
            steps=[
                messages.PredictStep(
                    data="d",
                    models=["m"],
                    output="o",
                    options={f"o{i}": "x" * 1000 for i in range(120)},
                )
            ],
        )
        message = messages.JobSubmit(
            command_id="c-1",
            job_id="job-" + "0" * 20,
            spec=spec,
            package_digest="00" * 32,
            package_bytes=1,
        )
        assert len(codec.encode_control(message)) > 0.9 * MAX_CONTROL_FRAME_BYTES
        one.send(message)
        assert await heard.get() == message


async def test_closing_one_side_closes_the_other() -> None:
    async with linked() as (one, other):
        one.close("done")
        one.close("again")
        async with asyncio.timeout(PATIENCE_S):
            await other.closed.wait()
        assert one.close_reason == "done"
        with pytest.raises(LinkClosed):
            await other.send_fragment(b"x" * 20)
        other.send(messages.KeepAlive())


async def test_a_peer_that_falls_silent_loses_the_link(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(link_module, "KEEP_ALIVE_INTERVAL_S", 0.02)
    monkeypatch.setattr(liveness, "KEEP_ALIVE_TIMEOUT_S", 0.5)
    async with linked() as (one, other):
        other._keep_alive.cancel()
        async with asyncio.timeout(PATIENCE_S):
            await one.closed.wait()
            await other.closed.wait()
        assert one.close_reason == "it stopped answering"


async def test_a_frame_that_breaks_the_protocol_ends_an_authenticated_link() -> None:
    for frame in ("NOTHING::{}", b"\x00", "HELLO::{}"):
        async with linked() as (one, other):
            heard: list[Any] = []
            other.on_control = heard.append
            one._control.send(frame)
            one._control.send(
                codec.encode_control(
                    messages.JobCancel(command_id="c-1", job_id="job-" + "0" * 20)
                )
            )
            async with asyncio.timeout(PATIENCE_S):
                await other.closed.wait()
                await one.closed.wait()
            # What came after the breach is not acted on.
            assert heard == []


# -- everybody else -----------------------------------------------------------------


async def test_a_wrong_secret_is_refused_by_both() -> None:
    one, other = peer("client"), peer("worker", secret=b"x" * 32)
    try:
        await introduce(one, other)
        results = await outcomes(one, other)
        assert [type(result) for result in results] == [PeerNotAuthenticated] * 2
    finally:
        await one.close()
        await other.close()


async def test_a_relay_in_the_middle_is_refused_by_both() -> None:
    one, other = peer("client"), peer("worker")
    to_client, to_worker = Stranger(), Stranger()
    relayed: list[str | bytes] = []
    pending: set[asyncio.Task[None]] = set()

    def forward(frame: str | bytes, into: Stranger) -> None:
        relayed.append(frame)
        task = asyncio.get_running_loop().create_task(into.send(frame))
        pending.add(task)

    try:
        # The middle opens towards the worker what the client opens towards it.
        to_worker.create("control").on("message", lambda f: forward(f, to_client))
        to_worker.create("transfer")
        to_client.pc.on(
            "datachannel",
            lambda channel: channel.on("message", lambda f: forward(f, to_worker)),
        )
        await to_worker.call(other)
        offer = await one.make_offer()
        await to_client.pc.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        await to_client.pc.setLocalDescription(await to_client.pc.createAnswer())
        await one.take_answer(to_client.pc.localDescription.sdp)
        async with asyncio.timeout(PATIENCE_S):
            results = await outcomes(one, other)
        assert [type(result) for result in results] == [PeerNotAuthenticated] * 2
        assert {str(frame).partition("::")[0] for frame in relayed} == {"HELLO", "AUTH"}
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        for end in (to_client.pc, to_worker.pc, one, other):
            await end.close()


FIRST_FRAMES = {
    "auth": codec.encode_control(messages.Auth(mac="00" * 32)),
    "keep-alive": codec.encode_control(messages.KeepAlive()),
    "cancel": codec.encode_control(
        messages.JobCancel(command_id="c-1", job_id="job-" + "0" * 20)
    ),
    "nonsense": "hello?",
    "bytes": b"\x00\x01",
}


@pytest.mark.parametrize("frame", FIRST_FRAMES.values(), ids=FIRST_FRAMES)
async def test_anything_but_hello_first_ends_the_connection(
    worker: PeerConnection, stranger: Stranger, frame: str | bytes
) -> None:
    stranger.create("control")
    stranger.create("transfer")
    await stranger.call(worker)
    await stranger.send(frame)
    [refused] = await outcomes(worker)
    assert isinstance(refused, RemoteProtocolError)


async def test_anything_between_hello_and_auth_ends_the_connection(
    worker: PeerConnection, stranger: Stranger
) -> None:
    stranger.create("control")
    stranger.create("transfer")
    await stranger.call(worker)
    [hello] = stranger.handshake().start(0.0)
    await stranger.send(hello.frame)
    await stranger.send(FIRST_FRAMES["cancel"])
    [refused] = await outcomes(worker)
    assert isinstance(refused, RemoteProtocolError)


async def test_a_transfer_frame_before_auth_ends_the_connection(
    worker: PeerConnection, stranger: Stranger
) -> None:
    stranger.create("control")
    stranger.create("transfer")
    await stranger.call(worker)
    await stranger.send(b"\x01" * 40, "transfer")
    [refused] = await outcomes(worker)
    assert isinstance(refused, RemoteProtocolError)


@pytest.mark.parametrize("label", ["control", "transfer", "something"])
async def test_a_channel_too_many_ends_the_connection(
    worker: PeerConnection, stranger: Stranger, label: str
) -> None:
    for each in ("control", "transfer", label):
        stranger.create(each)
    await stranger.call(worker)
    [refused] = await outcomes(worker)
    assert isinstance(refused, RemoteProtocolError)


async def test_a_channel_without_order_ends_the_connection(
    worker: PeerConnection, stranger: Stranger
) -> None:
    stranger.create("control", ordered=False)
    stranger.create("transfer")
    await stranger.call(worker)
    [refused] = await outcomes(worker)
    assert isinstance(refused, RemoteProtocolError)


async def test_a_second_control_channel_ends_an_authenticated_link(
    worker: PeerConnection, stranger: Stranger
) -> None:
    link, _ = await authenticated(worker, stranger)
    stranger.pc.createDataChannel("control")
    async with asyncio.timeout(PATIENCE_S):
        await link.closed.wait()


async def authenticated(worker: PeerConnection, stranger: Stranger, nonce=b"n" * 32):
    """Let a stranger who knows the secret in; return the link and its frames."""
    stranger.create("control")
    stranger.create("transfer")
    await stranger.call(worker)
    handshake = stranger.handshake(nonce=nonce)
    waiting = asyncio.ensure_future(worker.authenticate())
    sent = [start.frame for start in handshake.start(0.0)]
    await stranger.send(sent[0])
    hello = await stranger.receive()
    [auth] = handshake.handle(hello, codec.decode_control(hello))
    sent.append(auth.frame)
    await stranger.send(auth.frame)
    return await waiting, sent


async def test_a_recorded_handshake_is_refused_on_another_connection(
    worker: PeerConnection, stranger: Stranger
) -> None:
    first, recorder = peer("worker"), Stranger()
    try:
        _, recorded = await authenticated(first, recorder)
    finally:
        await recorder.pc.close()
        await first.close()
    stranger.create("control")
    stranger.create("transfer")
    await stranger.call(worker)
    for frame in recorded:
        await stranger.send(frame)
    [refused] = await outcomes(worker)
    assert isinstance(refused, PeerNotAuthenticated)


async def test_a_peer_that_says_nothing_is_given_up(
    worker: PeerConnection, stranger: Stranger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_module, "LINK_CONNECT_TIMEOUT_S", 0.2)
    stranger.create("control")
    stranger.create("transfer")
    await stranger.call(worker)
    [refused] = await outcomes(worker)
    assert isinstance(refused, LinkFailed)


# -- descriptions -------------------------------------------------------------------

BAD_OFFERS = {
    "nothing": lambda sdp: "",
    "no fingerprint": lambda sdp: "\r\n".join(
        line for line in sdp.splitlines() if "fingerprint:sha-256" not in line
    ),
    "two fingerprints": lambda sdp: sdp.replace(
        "a=setup", "a=fingerprint:sha-256 " + ":".join(["00"] * 32) + "\r\na=setup"
    ),
    "cut": lambda sdp: sdp[: len(sdp) // 2] + "\r\na=fingerprint:sha-256",
    "no ICE": lambda sdp: sdp.replace("a=ice-", "a=nice-"),
    "audio": lambda sdp: sdp.replace("m=application", "m=audio").replace(
        "UDP/DTLS/SCTP webrtc-datachannel", "UDP/TLS/RTP/SAVPF 0"
    ),
    "bad candidate": lambda sdp: sdp.replace("a=candidate:", "a=candidate:x y z "),
    "bad setup": lambda sdp: sdp.replace("a=setup:actpass", "a=setup:nobody"),
    "bad port": lambda sdp: sdp.replace("a=sctp-port:5000", "a=sctp-port:x"),
}


@pytest.mark.parametrize("spoil", BAD_OFFERS.values(), ids=BAD_OFFERS)
async def test_offers_that_cannot_be_used(worker: PeerConnection, spoil) -> None:
    honest = peer("client")
    try:
        offer = await honest.make_offer()
        with pytest.raises(RemoteProtocolError):
            await worker.make_answer(spoil(offer))
    finally:
        await honest.close()


async def test_a_hidden_second_fingerprint_does_not_let_a_middle_in() -> None:
    """The description shows the honest fingerprint, the connection has another."""
    one, other, middle = peer("client"), peer("worker"), Stranger()
    try:
        offer = await one.make_offer()
        honest = await other.make_answer(offer)
        await middle.pc.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        await middle.pc.setLocalDescription(await middle.pc.createAnswer())
        forged = middle.pc.localDescription.sdp.replace(
            sdp_fingerprint(middle.pc.localDescription.sdp), sdp_fingerprint(honest)
        ).replace(
            "a=setup",
            "a=fingerprint:sha-256  "
            + sdp_fingerprint(middle.pc.localDescription.sdp)
            + "\r\na=setup",
        )
        with contextlib.suppress(RemoteProtocolError):
            await one.take_answer(forged)
            async with asyncio.timeout(PATIENCE_S):
                [refused] = await outcomes(one)
            assert isinstance(refused, Exception)
    finally:
        for end in (middle.pc, one, other):
            await end.close()
