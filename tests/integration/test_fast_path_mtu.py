"""How large the fast path's packets become on real paths, and what if those shrink."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from support.fast_calls import CallEnd, Stream, called
from support.namespaces import Cable, namespaces_joined

from sleap_rtc_plugin.transport.sctp import path_mtu
from sleap_rtc_plugin.transport.sctp.path_mtu import (
    BASE_PACKET_BYTES,
    ETHERNET_PACKET_BYTES,
    FAST_PEER_PACKET_BYTES,
    JUMBO_PACKET_BYTES,
)

pytestmark = pytest.mark.timeout(60)

MEGABYTE = 1 << 20
PROBES_TIMEOUT_S = 10


@contextmanager
def _ends(
    mtu_bytes: int, version: int = 4, has_router: bool = False
) -> Iterator[tuple[Cable, CallEnd, CallEnd]]:
    with namespaces_joined(mtu_bytes, version=version, has_router=has_router) as cable:
        yield (
            cable,
            CallEnd(place=cable.inside(0)),
            CallEnd(place=cable.inside(1)),
        )


async def _until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(PROBES_TIMEOUT_S):
        while not is_so():  # noqa: ASYNC110 - a probe that fails tells nobody
            await asyncio.sleep(0.02)


def _is_done(end: CallEnd) -> bool:
    """Whether no probe is on its way, and none is due at once."""
    deadline = end.path.path_mtu.deadline()
    return deadline is None or deadline > asyncio.get_running_loop().time() + 60


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(
    ("mtu_bytes", "packet_bytes"),
    [
        (1280, BASE_PACKET_BYTES),
        (1500, ETHERNET_PACKET_BYTES),
        (9000, JUMBO_PACKET_BYTES),
    ],
)
async def test_packets_grow_to_what_the_path_carries(
    mtu_bytes: int, packet_bytes: int, version: int
) -> None:
    with _ends(mtu_bytes, version) as (_, one, other):
        async with called(one, other):
            assert (":" in one.address[0]) == (version == 6)
            for end in (one, other):
                end.sctp.allow_large_packets()
            await Stream(one, other, 4 * MEGABYTE).run()
            await _until(lambda: _is_done(one) and _is_done(other))
            assert one.path.path_mtu.packet_bytes == packet_bytes
            assert other.path.path_mtu.packet_bytes == packet_bytes
            await Stream(other, one, 4 * MEGABYTE).run()


async def test_packets_are_large_on_this_machine() -> None:
    one, other = CallEnd(), CallEnd()
    async with called(one, other):
        for end in (one, other):
            end.sctp.allow_large_packets()
        await Stream(one, other, 4 * MEGABYTE).run()
        await _until(lambda: _is_done(one) and _is_done(other))
        assert one.path.path_mtu.packet_bytes == FAST_PEER_PACKET_BYTES
        assert not one.path.may_fragment


NARROWINGS = {
    # What the system refuses to send.
    "here": (4, False, lambda cable: [cable.set_mtu(end, 1280) for end in (0, 1)]),
    "here, below any Ethernet": (
        *(4, False),
        lambda cable: [cable.set_mtu(end, 1100) for end in (0, 1)],
    ),
    # What a router drops, and what it cuts where it may.
    "at a router": (4, True, lambda cable: cable.set_router_mtu(1, 1280)),
    "at a router, below any Ethernet": (
        *(4, True),
        lambda cable: cable.set_router_mtu(1, 1100),
    ),
    # What only the sender may cut, and it hears from the router how.
    "at a router of IPv6": (6, True, lambda cable: cable.set_router_mtu(1, 1280)),
}


async def _grow(one: CallEnd, other: CallEnd) -> None:
    for end in (one, other):
        end.sctp.allow_large_packets()
    await Stream(one, other, MEGABYTE).run()
    await _until(lambda: _is_done(one) and _is_done(other))
    assert one.path.path_mtu.packet_bytes == JUMBO_PACKET_BYTES


@pytest.mark.parametrize("where", NARROWINGS)
async def test_the_path_becomes_narrower_in_the_middle(where: str) -> None:
    version, has_router, narrow = NARROWINGS[where]
    with _ends(9000, version, has_router) as (cable, one, other):
        async with called(one, other):
            await _grow(one, other)
            stream = Stream(one, other, 16 * MEGABYTE)

            async def change() -> None:
                await stream.reaches(0.2)
                narrow(cable)

            await asyncio.gather(stream.run(), change())
            assert one.path.path_mtu.packet_bytes == BASE_PACKET_BYTES
            await Stream(other, one, MEGABYTE).run()
            assert one.is_fast
            assert other.is_fast


async def test_what_nobody_can_cut_ends_the_connection(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Rather than to wait for ever: the next one begins with small packets."""
    monkeypatch.setattr(path_mtu, "STUCK_S", 2.0)
    with _ends(9000) as (cable, one, other):
        async with called(one, other):
            beside = one.connection.createDataChannel("beside")
            beside.on("close", (ended := asyncio.Event()).set)
            await _grow(one, other)
            stream = asyncio.ensure_future(Stream(one, other, 16 * MEGABYTE).run())
            cable.set_mtu(1, 1280)
            loop = asyncio.get_running_loop()

            def speak() -> None:
                if not ended.is_set():
                    beside.send("still here")
                    loop.call_later(0.2, speak)

            speak()
            async with asyncio.timeout(20):
                await ended.wait()
            stream.cancel()
            await asyncio.wait([stream])
            assert "Connect again" in caplog.text
