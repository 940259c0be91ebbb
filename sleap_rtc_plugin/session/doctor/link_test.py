"""How fast a link to a worker is: a round trip, and junk in each direction.

The client's side of the frames in `protocol.link_test_messages`.
"""

import asyncio
from typing import Any

from sleap_rtc_plugin.protocol.errors import NoReply, RtcError
from sleap_rtc_plugin.protocol.ids import new_command_id
from sleap_rtc_plugin.protocol.limits import (
    LINK_TEST_GRACE_S,
    LINK_TEST_STREAM,
    MAX_LINK_TEST_BYTES,
)
from sleap_rtc_plugin.protocol.link_test_messages import (
    LinkTest,
    LinkTestDirection,
    LinkTestReport,
    LinkTestStop,
)
from sleap_rtc_plugin.protocol.messages import JobList
from sleap_rtc_plugin.session.worker_link import WorkerLink
from sleap_rtc_plugin.transport.effects import monotonic
from sleap_rtc_plugin.transport.link import LinkClosed
from sleap_rtc_plugin.transport.link_test import JunkCounter, Moved, send_junk

__all__ = ["measure_round_trip_s", "measure_throughput"]

ROUND_TRIPS = 5


async def measure_round_trip_s(link: WorkerLink) -> float:
    """Return the shortest of a few questions and answers, in seconds.

    Raises:
        RtcError: no answer, or the link was lost.
    """
    shortest_s = float("inf")
    for _ in range(ROUND_TRIPS):
        asked_at = monotonic()
        await link.ask(JobList(command_id=new_command_id()))
        shortest_s = min(shortest_s, monotonic() - asked_at)
    return shortest_s


async def measure_throughput(
    link: WorkerLink, direction: LinkTestDirection, duration_s: float
) -> Moved:
    """Move junk for a while, and return what arrived.

    Raises:
        WorkerBusy: files are on their way, which a test would slow down.
        WorkerTooOld: the worker knows no such test.
        RtcError: no answer, or the link was lost.
    """
    command = LinkTest(
        command_id=new_command_id(),
        direction=direction,
        duration_s=duration_s,
        max_bytes=MAX_LINK_TEST_BYTES,
    )
    counter = JunkCounter()
    try:
        with (
            link.pump.listening(LINK_TEST_STREAM, counter.take),
            link.reporting(command) as report,
        ):
            await link.ask(command)
            try:
                if direction == "to_worker":
                    await send_junk(
                        link.link,
                        duration_s=duration_s,
                        max_bytes=command.max_bytes,
                        is_stopped=report.done,
                    )
                # What the worker got it says; what it sent is counted here.
                reported = await _within(report, duration_s, link)
            finally:
                if not report.done():
                    link.link.send(LinkTestStop(command_id=command.command_id))
            if direction == "to_worker":
                return Moved(reported.size_bytes, reported.seconds)
            async with asyncio.timeout(LINK_TEST_GRACE_S):
                await counter.ended.wait()
            return counter.moved()
    except LinkClosed:
        raise link.vanished("the connection was being tested") from None
    except TimeoutError:
        raise _silent(link) from None


async def _within(
    report: "asyncio.Future[LinkTestReport]", duration_s: float, link: WorkerLink
) -> LinkTestReport:
    """Wait for the report, no longer than a test takes and the link lives."""
    closed = asyncio.ensure_future(link.link.closed.wait())
    ends: set[asyncio.Future[Any]] = {report, closed}
    try:
        await asyncio.wait(
            ends,
            timeout=duration_s + 2 * LINK_TEST_GRACE_S,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if report.done():
            return report.result()
        if closed.done():
            raise link.vanished("the connection was being tested")
        raise _silent(link)
    finally:
        closed.cancel()


def _silent(link: WorkerLink) -> RtcError:
    return NoReply(peer=f"the worker {link.worker_name}", command=LinkTest.NAME)
