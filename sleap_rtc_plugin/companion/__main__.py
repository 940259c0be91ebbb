"""The companion as a process: commands on stdin, answers on stdout, log on stderr.

Started by `companion.host.ChildHost`. Ends when its stdin does, which is when SLEAP has
ended, however that came about.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from typing import BinaryIO

from sleap_rtc_plugin.companion.messages import (
    Event,
    Notice,
    Request,
    Response,
    Shutdown,
    ToCompanion,
)
from sleap_rtc_plugin.companion.pipe import PipeEnd
from sleap_rtc_plugin.companion.priority import give_way
from sleap_rtc_plugin.companion.service import CompanionService
from sleap_rtc_plugin.protocol.errors import RtcError

logger = logging.getLogger(__name__)


class Companion:
    """Joins the service to the pipe."""

    def __init__(self, incoming: BinaryIO, outgoing: BinaryIO) -> None:
        """Take the two ends of the pipe; call `run`."""
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._finishes_sending = False
        self._service = CompanionService(self._emit)
        self._answers: set[asyncio.Task[None]] = set()
        self._pipe: PipeEnd[ToCompanion] = PipeEnd(
            incoming,
            outgoing,
            ToCompanion,
            lambda request: self._soon(self._received, request),
            lambda: self._soon(self._ended.set),
        )

    async def run(self) -> None:
        """Serve until the other end is gone, then finish what was promised."""
        self._pipe.start()
        await self._ended.wait()
        try:
            if self._finishes_sending:
                await self._service.finish_sending()
        finally:
            await self._service.close()
            self._pipe.finish()

    def end(self) -> None:
        """End now."""
        self._finishes_sending = False
        self._ended.set()

    def _soon(self, function: object, *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(function, *args)  # type: ignore[arg-type]

    def _emit(self, event: Event) -> None:
        self._send(Notice(event=event))

    def _received(self, request: Request) -> None:
        task = self._loop.create_task(self._answer(request))
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)

    async def _answer(self, request: Request) -> None:
        try:
            result = await self._service.carry_out(request.command)
        except RtcError as error:
            self._send(Response(id=request.id, error=error.to_wire()))
            return
        self._send(Response(id=request.id, result=result))
        if isinstance(request.command, Shutdown):
            self._finishes_sending = request.command.finish_sending
            self._pipe.finish()
            self._ended.set()

    def _send(self, message: Notice | Response) -> None:
        if not self._pipe.send(message):
            # SLEAP's side has not read for long; nothing can be told any more.
            self._ended.set()


async def serve(incoming: BinaryIO, outgoing: BinaryIO) -> None:
    """Be a companion on these streams."""
    companion = Companion(incoming, outgoing)
    with contextlib.suppress(NotImplementedError):  # on Windows
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, companion.end)
    await companion.run()


def main() -> None:
    """Be the child process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format=f"%(asctime)s {os.getpid()} %(levelname)s %(name)s: %(message)s",
    )
    for talkative in ("httpx", "aioice", "aiortc"):
        logging.getLogger(talkative).setLevel(logging.WARNING)
    incoming, outgoing = _take_over_stdio()
    give_way()
    # A proactor loop has faults with UDP; on other systems this is the default.
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(serve(incoming, outgoing))


def _take_over_stdio() -> tuple[BinaryIO, BinaryIO]:
    """Keep stdin and stdout to ourselves: what a library prints goes to the log."""
    incoming = os.fdopen(os.dup(0), "rb")
    outgoing = os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123  # a device, not a path
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    return incoming, outgoing


if __name__ == "__main__":
    main()
