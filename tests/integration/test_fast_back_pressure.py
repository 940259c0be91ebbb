"""The fast path over sockets and to applications that take little at a time."""

import asyncio
import logging
import socket
import time

import psutil
import pytest
from support.fast_calls import (
    FAST,
    STOCK,
    CallEnd,
    Stream,
    called,
)

from sleap_rtc_plugin.transport.sctp.datagrams import MAX_UNSENT

pytestmark = pytest.mark.timeout(150)

logger = logging.getLogger(__name__)

MEGABYTE = 1 << 20


async def test_a_socket_that_takes_little_at_a_time() -> None:
    one, other = CallEnd(), CallEnd()
    async with called(one, other):
        sock = one.leg.socket
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        blocked: list[int] = []
        polls = 0
        send, handle_timeout = one.leg.send, one.path.handle_timeout

        def send_or_block(record: bytes) -> None:
            try:
                send(record)
            except BlockingIOError:
                blocked.append(len(one.datagrams._unsent))
                raise

        def count(now: float) -> None:
            nonlocal polls
            polls += 1
            handle_timeout(now)

        vars(one.leg)["send"] = send_or_block
        vars(one.path)["handle_timeout"] = count
        await Stream(one, other, 8 * MEGABYTE).run()
        logger.info("%d times blocked, %d timers", len(blocked), polls)
        assert max(blocked, default=0) <= MAX_UNSENT
        assert not one.datagrams.is_blocked


async def test_a_socket_that_takes_nothing_for_a_while_costs_nothing() -> None:
    """No timer runs in circles, and nothing piles up but what the channel holds."""
    one, other = CallEnd(), CallEnd()
    async with called(one, other):
        loop = asyncio.get_running_loop()
        stream = Stream(one, other, 16 * MEGABYTE)
        send, refused = one.leg.send, asyncio.Event()
        timers = 0
        wake_up = one.sctp._timer_expired

        def refuse(record: bytes) -> None:
            refused.set()
            raise BlockingIOError

        def count() -> None:
            nonlocal timers
            timers += 1
            wake_up()

        async def stop() -> None:
            await stream.reaches(0.2)
            vars(one.leg)["send"] = refuse
            await refused.wait()
            assert one.datagrams.is_blocked
            # A socket whose buffer is full is not reported as writable.
            loop.remove_writer(one.leg.socket)
            vars(one.sctp)["_timer_expired"] = count
            begin = psutil.Process().cpu_times()
            ended = asyncio.Event()
            loop.call_later(1.5, ended.set)
            await ended.wait()
            end = psutil.Process().cpu_times()
            assert end.user + end.system - begin.user - begin.system < 0.75
            assert timers < 10
            assert len(one.datagrams._unsent) <= MAX_UNSENT
            vars(one.leg)["send"] = send
            loop.add_writer(one.leg.socket, one.datagrams._writable)

        await asyncio.gather(stream.run(), stop())


async def _send_all_at_once(one: CallEnd, other: CallEnd) -> tuple[list[int], ...]:
    """Return bufferedAmount after each of 100 messages, and whenever it was low."""
    channel, finished = one.channel, asyncio.Event()
    received: list[bytes] = []
    low: list[int] = []

    def receive(data: bytes) -> None:
        received.append(data)
        if len(received) == 100:
            finished.set()

    other.channel.on("message", receive)
    channel.bufferedAmountLowThreshold = 100_000
    channel.remove_all_listeners("bufferedamountlow")
    channel.on("bufferedamountlow", lambda: low.append(channel.bufferedAmount))
    amounts = []
    for _ in range(100):
        channel.send(b"x" * 20_000)
        amounts.append(channel.bufferedAmount)
    async with asyncio.timeout(20):
        await finished.wait()
    return amounts, low, [channel.bufferedAmount]


async def test_an_application_that_never_waits() -> None:
    """It is told what waits, and once that it is little (W3C WebRTC section 6.2)."""
    results = []
    for options in (FAST, STOCK):
        one, other = CallEnd(options), CallEnd(options)
        async with called(one, other):
            results.append(await _send_all_at_once(one, other))
    for amounts, low, at_end in results:
        assert amounts == [20_000 * count for count in range(1, 101)]
        assert len(low) == 1
        assert low[0] <= 100_000
        assert at_end == [0]


async def test_a_receiver_that_is_held_up(caplog: pytest.LogCaptureFixture) -> None:
    one, other = CallEnd(), CallEnd()
    async with called(one, other):
        stream = Stream(one, other, 24 * MEGABYTE)

        async def hold() -> None:
            await stream.reaches(0.3)
            # What SLEAP does to its own event loop while it loads a video.
            time.sleep(2)  # noqa: ASYNC251

        await asyncio.gather(stream.run(), hold())
        assert one.connection.connectionState == "connected"
