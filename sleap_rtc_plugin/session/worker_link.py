"""A client's side of a link: commands with their replies, events, results.

Matches replies to commands, hands job events to who follows the job, and turns the
end of the link into words. Used by remote jobs; knows nothing of files' contents.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from sleap_rtc_plugin.protocol.errors import (
    NoReply,
    RemoteProtocolError,
    WorkerVanished,
    from_wire,
)
from sleap_rtc_plugin.protocol.limits import COMMAND_REPLY_TIMEOUT_S
from sleap_rtc_plugin.protocol.messages import (
    Acknowledged,
    CommandFailed,
    ControlMessage,
    FileDone,
    FileMeta,
    FileNeed,
    JobAccepted,
    JobAttach,
    JobCancel,
    JobEvent,
    JobFetch,
    JobRejected,
    JobSubmit,
    ProgressReport,
    StepEvent,
    TrainLog,
    ZmqCtrl,
)
from sleap_rtc_plugin.transport.link import Link
from sleap_rtc_plugin.transport.transfer_pump import TransferPump

__all__ = ["WorkerLink"]

Command = JobSubmit | JobAttach | ZmqCtrl | JobCancel | JobFetch
Reply = JobAccepted | Acknowledged


class WorkerLink:
    """An authenticated link to a worker, as a client uses it."""

    def __init__(self, link: Link, worker_name: str) -> None:
        """Listen on `link`."""
        self.link = link
        self.worker_name = worker_name
        self.pump = TransferPump(link)
        self._replies: dict[str, asyncio.Future[Reply]] = {}
        self._followers: dict[str, Callable[[StepEvent], None]] = {}
        self._offers: dict[str, asyncio.Future[FileMeta]] = {}
        link.on_control = self._on_control

    def vanished(self, activity: str) -> WorkerVanished:
        """Return the error for a link that ended while we were at something."""
        return WorkerVanished(worker=self.worker_name, activity=activity)

    async def ask(self, command: Command) -> Reply:
        """Send a command and return its reply.

        Raises:
            RtcError: the worker's refusal, no reply in time, or a lost link.
        """
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._replies[command.command_id] = reply
        closed = asyncio.ensure_future(self.link.closed.wait())
        try:
            self.link.send(command)
            ends: set[asyncio.Future[Any]] = {reply, closed}
            await asyncio.wait(
                ends,
                timeout=COMMAND_REPLY_TIMEOUT_S,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if reply.done():
                return reply.result()
            if closed.done():
                raise self.vanished("it was being asked")
            raise NoReply(peer=f"the worker {self.worker_name}", command=command.NAME)
        finally:
            closed.cancel()
            del self._replies[command.command_id]

    def follow(self, job_id: str, follower: Callable[[StepEvent], None]) -> None:
        """Hand a job's events to `follower` from now on."""
        self._followers[job_id] = follower

    async def offered_results(self, command: JobFetch) -> FileMeta:
        """Ask for a job's results and return the worker's offer.

        Raises:
            RtcError: the worker's refusal, no reply in time, or a lost link.
        """
        offer: asyncio.Future[FileMeta] = asyncio.get_running_loop().create_future()
        self._offers[command.job_id] = offer
        closed = asyncio.ensure_future(self.link.closed.wait())
        try:
            await self.ask(command)
            ends: set[asyncio.Future[Any]] = {offer, closed}
            await asyncio.wait(
                ends,
                timeout=COMMAND_REPLY_TIMEOUT_S,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if offer.done():
                return offer.result()
            if closed.done():
                raise self.vanished("its results were asked for")
            raise NoReply(peer=f"the worker {self.worker_name}", command=command.NAME)
        finally:
            closed.cancel()
            self._offers.pop(command.job_id, None)

    def _on_control(self, message: ControlMessage) -> None:
        match message:
            case JobAccepted() | Acknowledged():
                self._settle(message.command_id, message)
            case JobRejected() | CommandFailed():
                future = self._replies.get(message.command_id)
                if future is not None and not future.done():
                    future.set_exception(from_wire(message.error))
            case JobEvent() | ProgressReport() | TrainLog():
                follower = self._followers.get(message.job_id)
                if follower is not None:
                    follower(message)
            case FileMeta():
                self._offer(message)
            case FileNeed() | FileDone():
                self.pump.handle(message)
            case _:
                raise RemoteProtocolError(detail=f"a {message.NAME} frame to a client")

    def _settle(self, command_id: str, reply: Reply) -> None:
        future = self._replies.get(command_id)
        # A reply may come after its command was given up.
        if future is not None and not future.done():
            future.set_result(reply)

    def _offer(self, meta: FileMeta) -> None:
        offer = self._offers.get(meta.job_id)
        if meta.purpose != "results" or offer is None or offer.done():
            raise RemoteProtocolError(detail="files that were not asked for")
        offer.set_result(meta)
