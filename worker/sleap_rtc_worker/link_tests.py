"""Tests of links that clients ask for: one at a time, and never beside real transfers.

One `LinkTests` per worker, which the services of all links share. A test that runs when
files begin to move ends at once and reports what it has.
"""

import asyncio
from collections.abc import Callable

from sleap_rtc_plugin.protocol.errors import WorkerBusy
from sleap_rtc_plugin.protocol.limits import LINK_TEST_GRACE_S, LINK_TEST_STREAM
from sleap_rtc_plugin.protocol.link_test_messages import (
    LinkTest,
    LinkTestReport,
    LinkTestStop,
)
from sleap_rtc_plugin.protocol.messages import Acknowledged
from sleap_rtc_plugin.transport.link import Link
from sleap_rtc_plugin.transport.link_test import JunkCounter, Moved, send_junk
from sleap_rtc_plugin.transport.transfer_pump import TransferPump

__all__ = ["LinkTests"]


class LinkTests:
    """Every link of a worker, and the test that runs on one of them."""

    def __init__(self, worker_name: str = "") -> None:
        """Begin with no link; `worker_name` is for refusals."""
        self._worker_name = worker_name
        self._pumps: set[TransferPump] = set()
        self._command_id: str | None = None
        self._stopped = asyncio.Event()

    def add(self, pump: TransferPump) -> Callable[[], None]:
        """Watch a link's transfers; returns what ends that."""
        self._pumps.add(pump)
        pump.on_begun = self._stopped.set
        return lambda: self._pumps.discard(pump)

    def stop(self, message: LinkTestStop) -> None:
        """End the test of this command, if it runs."""
        if self._command_id == message.command_id:
            self._stopped.set()

    async def run(self, message: LinkTest, link: Link, pump: TransferPump) -> None:
        """Carry out a test and report it.

        Raises:
            WorkerBusy: another test runs, or files are on their way.
            LinkClosed: the link ended.
        """
        if self._command_id is not None:
            raise self._busy("it tests another connection")
        if any(pump.is_moving for pump in self._pumps):
            raise self._busy("files are on their way, which a test would slow down")
        self._command_id = message.command_id
        self._stopped.clear()
        try:
            if message.direction == "to_worker":
                moved = await self._receive(message, link, pump)
            else:
                link.send(Acknowledged(command_id=message.command_id))
                moved = await send_junk(
                    link,
                    duration_s=message.duration_s,
                    max_bytes=message.max_bytes,
                    is_stopped=self._stopped.is_set,
                )
        finally:
            self._command_id = None
        longest_s = message.duration_s + LINK_TEST_GRACE_S
        link.send(
            LinkTestReport(
                command_id=message.command_id,
                size_bytes=moved.size_bytes,
                seconds=min(moved.seconds, longest_s),
            )
        )

    async def _receive(
        self, message: LinkTest, link: Link, pump: TransferPump
    ) -> Moved:
        counter = JunkCounter()
        with pump.listening(LINK_TEST_STREAM, counter.take):
            link.send(Acknowledged(command_id=message.command_id))
            ends = [
                asyncio.ensure_future(event.wait())
                for event in (counter.ended, self._stopped, link.closed)
            ]
            try:
                await asyncio.wait(
                    ends,
                    timeout=message.duration_s + LINK_TEST_GRACE_S,
                    return_when=asyncio.FIRST_COMPLETED,
                )
            finally:
                for end in ends:
                    end.cancel()
        return counter.moved()

    def _busy(self, reason: str) -> WorkerBusy:
        return WorkerBusy(worker=self._worker_name, reason=reason)
