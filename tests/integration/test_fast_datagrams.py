"""The fast path's sockets: other pairs, hostile bytes, what is left."""

import asyncio
import gc
import logging
import socket
import struct
from collections.abc import Callable
from typing import Any

import psutil
import pytest
from aioice import ice
from aiortc import RTCSessionDescription
from aiortc.rtcsctptransport import (
    WEBRTC_BINARY,
    Chunk,
    CookieAckChunk,
    CookieEchoChunk,
    DataChunk,
    tsn_plus_one,
    uint32_gte,
)
from OpenSSL import SSL
from support.fast_calls import (
    FAST,
    STOCK,
    CallEnd,
    Stream,
    another_socket,
    called,
    nominate,
    pair_of,
)
from support.peers import linked

from sleap_rtc_plugin.transport.sctp import fast_transport
from sleap_rtc_plugin.transport.sctp.datagrams import MAX_DATAGRAM_BYTES
from sleap_rtc_plugin.transport.sctp.handover import CannotTakeOver
from sleap_rtc_plugin.transport.sctp.leg import Leg
from sleap_rtc_plugin.transport.sctp.packet import seal
from sleap_rtc_plugin.transport.transport_options import TransportOptions

pytestmark = pytest.mark.timeout(150)

MEGABYTE = 1 << 20


def _spy(leg: Leg, see: Callable[[bytes], None]) -> None:
    """Show a test what is sent."""
    send = leg.send

    def spied(record: bytes) -> None:
        see(record)
        send(record)

    vars(leg)["send"] = spied


def _description(kind: str, sdp: str) -> RTCSessionDescription:
    return RTCSessionDescription(sdp, kind)


# -- another pair ----------------------------------------------------------------------


async def test_a_transfer_follows_ice_to_another_pair() -> None:
    one, other = CallEnd(), CallEnd()
    async with called(one, other):
        there, back = Stream(one, other, 24 * MEGABYTE), Stream(other, one, MEGABYTE)
        old = [(end.leg, end.leg.protocol, end.leg.transport) for end in (one, other)]

        async def change() -> None:
            await there.reaches(0.2)
            ours, theirs = await another_socket(one), await another_socket(other)
            await nominate(one, ours, theirs)

        await asyncio.gather(there.run(), back.run(), change())
        for end in (one, other):
            assert end.is_fast
            assert end.leg.pair is end.ice._nominated[1]
            assert "datagram_received" in vars(end.leg.protocol)
            assert vars(end.leg.transport)["max_size"] == MAX_DATAGRAM_BYTES
        for leg, protocol, transport in old:
            assert leg.socket.fileno() == -1
            assert "datagram_received" not in vars(protocol)
            assert "max_size" not in vars(transport)


@pytest.mark.parametrize("mover", ["sender", "receiver"])
async def test_one_side_takes_another_pair_first(
    mover: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A check on the new pair would make the other side take it as well.
    monkeypatch.setattr(ice, "CONSENT_INTERVAL", 1000)
    one, other = CallEnd(), CallEnd()
    async with called(one, other):
        first, second = (one, other) if mover == "sender" else (other, one)
        stream = Stream(one, other, 12 * MEGABYTE)

        async def change() -> None:
            ours, theirs = await another_socket(first), await another_socket(second)
            await stream.reaches(0.2)
            first.ice._nominated[1] = pair_of(ours, theirs)
            await stream.reaches(0.4)
            assert first.leg.protocol is ours
            assert second.leg.protocol is not theirs
            second.ice._nominated[1] = pair_of(theirs, ours)

        await asyncio.gather(stream.run(), change())
        assert first.is_fast
        assert second.is_fast


async def test_the_same_socket_can_reach_the_peer_at_another_address() -> None:
    """Behind a NAT that forgot, the peer comes from another port all at once."""
    one, other = CallEnd(), CallEnd()
    async with called(one, other):
        stream = Stream(one, other, 16 * MEGABYTE)

        async def change() -> None:
            theirs = await another_socket(other)
            await stream.reaches(0.3)
            nominated = one.ice._nominated
            nominated[1] = pair_of(nominated[1].protocol, theirs)

        await asyncio.gather(stream.run(), change())
        assert "datagram_received" in vars(one.leg.protocol)


async def test_an_offer_with_other_credentials_changes_nothing() -> None:
    """aiortc restarts no ICE: it goes on with the pair it has, and so do we."""
    one, other = CallEnd(), CallEnd()
    async with called(one, other):
        stream = Stream(one, other, 8 * MEGABYTE)
        leg = one.leg

        async def restart() -> None:
            await stream.reaches(0.2)
            ufrag, password = one.ice.local_username, one.ice.local_password
            await one.connection.setLocalDescription(await one.connection.createOffer())
            offer = one.connection.localDescription.sdp
            offer = offer.replace(f"ice-ufrag:{ufrag}", "ice-ufrag:other")
            offer = offer.replace(f"ice-pwd:{password}", f"ice-pwd:{'x' * 22}")
            assert "ice-ufrag:other" in offer
            await other.connection.setRemoteDescription(_description("offer", offer))
            await other.connection.setLocalDescription(
                await other.connection.createAnswer()
            )
            answer = other.connection.localDescription.sdp
            await one.connection.setRemoteDescription(_description("answer", answer))

        await asyncio.gather(stream.run(), restart())
        assert one.leg is leg
        assert one.is_fast
        assert other.is_fast


async def test_a_way_that_is_not_known_leaves_the_transfer_to_aiortc(
    caplog: pytest.LogCaptureFixture,
) -> None:
    one, other = CallEnd(), CallEnd()
    async with called(one, other):
        stream = Stream(one, other, 6 * MEGABYTE)

        async def change() -> None:
            ours, theirs = await another_socket(one), await another_socket(other)
            await stream.reaches(0.2)
            # As a relay over TCP is another kind of socket.
            ours.__class__ = type("Stranger", (type(ours),), {})
            await nominate(one, ours, theirs)

        with caplog.at_level(logging.INFO, logger="sleap_rtc_plugin"):
            await asyncio.gather(stream.run(), change())
        assert not one.is_fast
        assert other.is_fast
        lines = [record for record in caplog.records if "slow way" in record.message]
        assert [line.levelname for line in lines] == ["INFO"]


# -- hostile and unusual datagrams -----------------------------------------------------


async def test_the_peer_closes_dtls() -> None:
    for one, other in ((CallEnd(), CallEnd()), (CallEnd(FAST), CallEnd(STOCK))):
        async with called(one, other):
            await other.sctp.transport.stop()
            async with asyncio.timeout(1):
                await one.closed.wait()


async def test_a_fatal_alert_ends_the_connection() -> None:
    one, other = CallEnd(), CallEnd()
    async with called(one, other):
        client, server = one, other
        if client.sctp.transport._role != "client":
            client, server = server, client
        # The server refuses to negotiate again, and OpenSSL's client gives up.
        connection = client.datagrams._ssl
        assert connection.renegotiate()
        with pytest.raises(SSL.WantReadError):
            connection.do_handshake()
        client.leg.send(connection.bio_read(2000))
        async with asyncio.timeout(1):
            await server.closed.wait()


def _hostile(record: bytes) -> dict[str, bytes]:
    """Datagrams that nobody who knows the keys has made."""
    flipped = bytearray(record)
    flipped[-3] ^= 1
    header = record[:1] + b"\xfe\xfd"
    return {
        "nothing": b"",
        "one byte of DTLS": record[:1],
        "a header alone": record[:13],
        "a part of a record": record[:-5],
        "a damaged record": bytes(flipped),
        "a record once more": record,
        "two damaged records": bytes(flipped) * 2,
        "a length that is not there": header + bytes(8) + b"\xff\xff" + bytes(40_000),
        "a long record": header + bytes(8) + b"\x3f\xff" + bytes(16_383),
        "an alert without keys": b"\x15\xfe\xfd" + bytes(8) + b"\x00\x02\x01\x00",
        "a fatal alert without keys": b"\x15\xfe\xfd" + bytes(8) + b"\x00\x02\x02\x28",
        "an alert of this epoch": b"\x15\xfe\xfd\x00\x01"
        + bytes(6)
        + b"\x00\x02\x02\x28",
        "a handshake": b"\x16\xfe\xfd" + bytes(8) + b"\x00\x0c\x01" + bytes(11),
        "a cipher change": b"\x14\xfe\xfd" + bytes(8) + b"\x00\x01\x01",
        "media": b"\x80\x60" + bytes(60),
        "control of media": b"\x81\xc8" + bytes(60),
        "one byte of media": b"\x80",
        "a channel at a relay": b"\x40\x00\x00\x04abcd",
        "a check with a short attribute": (
            b"\x00\x01\x00\x08\x21\x12\xa4\x42" + bytes(12) + b"\x00\x24\x00\x01abcd"
        ),
        "noise": bytes(range(256)),
    }


async def test_hostile_datagrams_change_nothing() -> None:
    one, other = CallEnd(), CallEnd()
    async with called(one, other):
        stream = Stream(one, other, 16 * MEGABYTE)
        recorded: list[bytes] = []
        _spy(one.leg, recorded.append)
        here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

        async def attack() -> None:
            for step in range(1, 10):
                await stream.reaches(step / 10)
                for datagram in _hostile(recorded[-1]).values():
                    here.sendto(datagram, other.address)
                    here.sendto(datagram, one.address)

        try:
            await asyncio.gather(stream.run(), attack())
            await Stream(other, one, MEGABYTE).run()
        finally:
            here.close()
        assert one.is_fast
        assert other.is_fast
        assert one.connection.connectionState == "connected"
        assert other.connection.connectionState == "connected"


async def test_several_records_in_a_datagram() -> None:
    one, other = CallEnd(), CallEnd()
    async with called(one, other):
        held: list[bytes] = []
        send = one.leg.send

        def send_in_threes(record: bytes) -> None:
            held.append(record)
            if len(held) == 3 or one.path.sender.in_flight_bytes < 20_000:
                send(b"".join(held))
                held.clear()

        vars(one.leg)["send"] = send_in_threes
        await Stream(one, other, 8 * MEGABYTE).run()
        assert one.path.sender.round_trip.backoff == 0


async def test_lost_flights_of_the_handshake() -> None:
    """The last flights are lost, and come again behind the take-over."""
    one, other = CallEnd(), CallEnd()
    kept: list[bytes] = []

    def keep(data: bytes, component: int) -> None:
        kept.append(data)
        # The first try of each flight is lost.
        if len(kept) not in (1, 3):
            ice.Connection.data_received(connection, data, component)

    one.connection.createDataChannel("early")
    connection = one.ice
    vars(connection)["data_received"] = keep
    async with called(one, other):
        stream = Stream(one, other, 8 * MEGABYTE)

        async def repeat() -> None:
            await stream.reaches(0.5)
            for datagram in kept:
                other.leg.socket.sendto(datagram, one.address)

        await asyncio.gather(stream.run(), repeat())
        assert one.is_fast


async def test_consent_is_given_and_asked_for_at_full_speed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ice, "CONSENT_INTERVAL", 0.05)
    # A single check that fails ends the connection.
    monkeypatch.setattr(ice, "CONSENT_FAILURES", 1)
    one, other = CallEnd(), CallEnd()
    async with called(one, other):
        await asyncio.gather(
            Stream(one, other, 48 * MEGABYTE).run(),
            Stream(other, one, 48 * MEGABYTE).run(),
        )
        assert one.connection.connectionState == "connected"
        assert other.connection.connectionState == "connected"


# -- data before, and just behind, the set-up ------------------------------------------


async def test_data_comes_before_this_side_is_established() -> None:
    """The other side is, and COOKIE ACK is lost: data comes first."""
    one, other = CallEnd(), CallEnd(STOCK)
    lost: list[Chunk] = []
    early: list[object] = []

    async def lose_the_first(chunk: Chunk) -> None:
        if isinstance(chunk, CookieAckChunk) and not lost:
            lost.append(chunk)
            return
        if isinstance(chunk, DataChunk):
            early.append(one.sctp._association_state)
        await type(other.sctp)._send_chunk(other.sctp, chunk)

    # What opens it is data.
    other.connection.createDataChannel("early")
    vars(other.sctp)["_send_chunk"] = lose_the_first
    async with called(one, other):
        assert lost
        assert early[0] is one.sctp.State.COOKIE_ECHOED
        assert one.is_fast
        await Stream(other, one, MEGABYTE).run()
        await Stream(one, other, MEGABYTE).run()


async def test_data_comes_in_the_packet_that_establishes_the_association() -> None:
    """As libwebrtc sends it: COOKIE ECHO and DATA in one packet."""
    one, other = CallEnd(), CallEnd(STOCK)
    other.connection.createDataChannel("early")
    sctp = other.sctp
    bundled: list[DataChunk] = []

    async def bundle(chunk: Chunk) -> None:
        if not isinstance(chunk, CookieEchoChunk) or bundled:
            await type(sctp)._send_chunk(sctp, chunk)
            return
        opening = DataChunk(flags=3)
        opening.tsn, sctp._local_tsn = sctp._local_tsn, tsn_plus_one(sctp._local_tsn)
        opening.stream_id = sctp._data_channel_id or 0
        opening.stream_seq = 0
        opening.protocol = WEBRTC_BINARY
        opening.user_data = b"too early for a channel"
        sctp._outbound_stream_seq[opening.stream_id] = 1
        bundled.append(opening)
        header = struct.pack("!HHLL", 5000, 5000, sctp._remote_verification_tag, 0)
        await sctp.transport._send_data(seal(header, bytes(chunk) + bytes(opening)))

    vars(sctp)["_send_chunk"] = bundle
    async with called(one, other):
        assert bundled
        assert one.is_fast
        await Stream(other, one, MEGABYTE).run()
        await Stream(one, other, MEGABYTE).run()
        # It was acknowledged, once, and its number was not given again.
        acked = sctp._last_sacked_tsn
        assert uint32_gte(acked, bundled[0].tsn)


# -- what is left ----------------------------------------------------------------------


def _watched_files(loop: Any) -> int:
    return len(loop._selector.get_map())


async def test_nothing_is_left_of_connections() -> None:
    process = psutil.Process()
    one, other = CallEnd(), CallEnd()
    async with called(one, other):
        pass
    loop = asyncio.get_running_loop()
    gc.collect()
    before = process.num_fds(), _watched_files(loop)
    for number in range(25):
        one, other = CallEnd(), CallEnd(STOCK if number % 5 == 4 else FAST)
        async with called(one, other):
            await Stream(one, other, 200_000).run()
            fast = [end.sctp for end in (one, other) if end.is_fast]
            legs = [end.leg for end in (one, other) if end.is_fast]
        assert all(leg.socket.fileno() == -1 for leg in legs)
        for sctp in fast:
            assert sctp._timer is None
            assert sctp._datagrams is None
    gc.collect()
    assert (process.num_fds(), _watched_files(loop)) == before
    timers = [timer for timer in loop._scheduled if not timer.cancelled()]
    assert not any("sctp" in repr(timer) for timer in timers), timers


async def test_nothing_is_left_of_a_take_over_that_fails(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise CannotTakeOver("of a test")

    monkeypatch.setattr(fast_transport, "take_over", fail)
    before = psutil.Process().num_fds()
    one, other = CallEnd(), CallEnd()
    with caplog.at_level(logging.INFO):
        async with called(one, other):
            assert not one.is_fast
            await Stream(one, other, MEGABYTE).run()
    gc.collect()
    assert psutil.Process().num_fds() == before
    assert [r.message for r in caplog.records if "slow way" in r.message] == [
        "Data channels go the slow way: of a test."
    ] * 2


async def test_a_connection_that_loses_consent_lets_its_socket_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, other = CallEnd(), CallEnd()
    async with called(one, other):
        leg = one.leg
        stream = Stream(one, other, 8 * MEGABYTE)
        await stream.run()
        await one.ice.close()
        one.channel.send(b"into the void")
        async with asyncio.timeout(5):
            await one.closed.wait()
        assert leg.socket.fileno() == -1


# -- what the peers tell each other ----------------------------------------------------


@pytest.mark.parametrize("client", [FAST, STOCK], ids=["fast", "stock"])
@pytest.mark.parametrize("worker", [FAST, STOCK], ids=["fast", "stock"])
async def test_links_say_which_way_data_goes(
    client: TransportOptions, worker: TransportOptions
) -> None:
    names = {"fast": "fast", "stock": "aiortc"}
    async with linked(client, worker) as (one, other):
        assert (one.engine, one.peer_engine) == (
            names[client.engine],
            names[worker.engine],
        )
        assert (other.engine, other.peer_engine) == (one.peer_engine, one.engine)
        heard: asyncio.Queue[Any] = asyncio.Queue()
        other.on_fragment = heard.put_nowait
        for _ in range(40):
            await one.send_fragment(b"x" * 60_000)
        for _ in range(40):
            assert await heard.get() == b"x" * 60_000
