"""A client's side of a link: commands with their replies, events, results.

Matches replies to commands, hands job events to who follows the job, and turns the
end of the link into words. Used by remote jobs; knows nothing of files' contents.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

from sleap_rtc_plugin.protocol.errors import (
    BadRequest,
    NoReply,
    RemoteProtocolError,
    RtcError,
    SharedStorageUnusable,
    WorkerTooOld,
    WorkerVanished,
    from_wire,
)
from sleap_rtc_plugin.protocol.job_mirror import JobNews
from sleap_rtc_plugin.protocol.limits import (
    COMMAND_REPLY_TIMEOUT_S,
    SHARED_RESULTS_TIMEOUT_S,
)
from sleap_rtc_plugin.protocol.link_test_messages import LinkTest, LinkTestReport
from sleap_rtc_plugin.protocol.live_messages import LiveReport
from sleap_rtc_plugin.protocol.messages import (
    CommandFailed,
    ControlMessage,
    FileDone,
    FileMeta,
    FileNeed,
    JobEvent,
    JobRejected,
    ModelPublished,
    PathError,
    ProgressReport,
    SharedJobComplete,
    SharedOutputPath,
    TrainLog,
)
from sleap_rtc_plugin.protocol.queue_messages import JobQueue
from sleap_rtc_plugin.session.worker_commands import (
    Command,
    FilesCommand,
    Reply,
    feature_of,
    offer_of,
    reply_timeout_s,
)
from sleap_rtc_plugin.transport.link import Link, LinkClosed
from sleap_rtc_plugin.transport.shared_storage import SharedStorage
from sleap_rtc_plugin.transport.staging_area import StagingArea
from sleap_rtc_plugin.transport.transfer_pump import (
    Progress,
    TransferPump,
    TransferTotals,
)

__all__ = ["WorkerLink"]

T = TypeVar("T")


class WorkerLink:
    """An authenticated link to a worker, as a client uses it."""

    def __init__(
        self,
        link: Link,
        worker_name: str,
        room_id: str = "",
        shared_storage: SharedStorage | None = None,
    ) -> None:
        """Listen on `link`; without its room, nothing of its results is kept.

        `shared_storage` is a folder that the worker may mount as well.
        """
        self.link = link
        self.shared_storage = shared_storage
        self.worker_name = worker_name
        self.room_id = room_id
        self.pump = TransferPump(link)
        self.on_live_ended: Callable[[LiveReport], None] | None = None
        self._replies: dict[str, asyncio.Future[Reply]] = {}
        self._laid: dict[str, asyncio.Future[None]] = {}
        self._reports: dict[str, asyncio.Future[LinkTestReport]] = {}
        self._followers: dict[str, Callable[[JobNews], None]] = {}
        self._offer: asyncio.Future[FileMeta] | None = None
        self._offer_of: tuple[str, str] = ("", "")
        self._asking = asyncio.Lock()
        self._given_up: Counter[tuple[str, str]] = Counter()
        link.on_control = self._on_control

    def vanished(self, activity: str) -> RtcError:
        """Return the error for a link that ended while we were at something."""
        if self.link.breach is not None:
            return self.link.breach
        return WorkerVanished(worker=self.worker_name, activity=activity)

    async def ask(self, command: Command, timeout_s: float | None = None) -> Reply:
        """Send a command and return its reply.

        It may take `timeout_s`, or as long as such a command does by default.

        Raises:
            WorkerTooOld: it does not know this command; nothing was sent.
            RtcError: the worker's refusal, no reply in time, or a lost link.
        """
        self._check_feature(command)
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._replies[command.command_id] = reply
        try:
            self.link.send(command)
            limit_s = timeout_s or reply_timeout_s(command)
            return await self._within_reach(reply, command, limit_s)
        finally:
            del self._replies[command.command_id]

    async def laid_results(self, command: SharedOutputPath) -> None:
        """Have results laid down on shared storage, and wait until they are.

        Raises:
            SharedStorageUnusable: the worker cannot.
            RtcError: no reply in time, or a lost link.
        """
        laid: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._laid[command.command_id] = laid
        try:
            await self.ask(command)
            await self._within_reach(laid, command, SHARED_RESULTS_TIMEOUT_S)
        finally:
            del self._laid[command.command_id]
            laid.cancel()

    @contextmanager
    def reporting(self, command: LinkTest) -> Iterator[asyncio.Future[LinkTestReport]]:
        """Yield what a test of the link will be reported as, to be asked inside."""
        report: asyncio.Future[LinkTestReport] = (
            asyncio.get_running_loop().create_future()
        )
        self._reports[command.command_id] = report
        try:
            yield report
        finally:
            del self._reports[command.command_id]
            report.cancel()

    async def _within_reach(
        self,
        answer: asyncio.Future[T],
        command: Command,
        timeout_s: float = COMMAND_REPLY_TIMEOUT_S,
    ) -> T:
        """Wait for an answer, no longer than it may take and the link lives."""
        closed = asyncio.ensure_future(self.link.closed.wait())
        ends: set[asyncio.Future[Any]] = {answer, closed}
        try:
            await asyncio.wait(
                ends,
                timeout=timeout_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if answer.done():
                return answer.result()
            if closed.done():
                raise self.vanished("it was being asked")
            raise NoReply(peer=f"the worker {self.worker_name}", command=command.NAME)
        finally:
            closed.cancel()

    def follow(self, job_id: str, follower: Callable[[JobNews], None]) -> None:
        """Hand a job's events and its place to `follower` from now on."""
        self._followers[job_id] = follower

    @asynccontextmanager
    async def offered_files(
        self, command: FilesCommand, timeout_s: float = COMMAND_REPLY_TIMEOUT_S
    ) -> AsyncIterator[FileMeta]:
        """Ask for files and yield the worker's offer of them, to be `receive`d.

        A body that leaves with an error, or is cancelled, declines the offer.

        Raises:
            WorkerTooOld: it has no such files; nothing was sent.
            RtcError: the worker's refusal, no reply in time, or a lost link.
        """
        meta = await self._offered(command, timeout_s)
        try:
            yield meta
        except BaseException:
            self._decline(meta)
            raise

    async def _offered(self, command: FilesCommand, timeout_s: float) -> FileMeta:
        # One at a time: an offer does not say which command it answers.
        async with self._asking:
            offer: asyncio.Future[FileMeta] = asyncio.get_running_loop().create_future()
            self._offer, self._offer_of = offer, offer_of(command)
            try:
                await self.ask(command, timeout_s)
                return await self._within_reach(offer, command, timeout_s)
            except (NoReply, asyncio.CancelledError):
                self._give_up(offer)
                raise
            finally:
                self._offer = None

    async def receive(
        self, meta: FileMeta, area: StagingArea, on_progress: Progress
    ) -> TransferTotals:
        """Fetch what was offered, inside the body of `offered_files`.

        Raises:
            RtcError: it did not arrive; trying again goes on from there.
        """
        try:
            return await self.pump.receive(meta, area, on_progress=on_progress)
        except LinkClosed:
            raise self.vanished(f"the {meta.purpose} were on their way") from None

    def _on_control(self, message: ControlMessage) -> None:
        if isinstance(message, Reply) and message.command_id:
            self._settle(message.command_id, message)
            return
        match message:
            case LiveReport():
                if self.on_live_ended is not None:
                    self.on_live_ended(message)
            case JobRejected() | CommandFailed():
                future = self._replies.get(message.command_id)
                if future is not None and not future.done():
                    future.set_exception(from_wire(message.error))
            case PathError():
                self._refuse_path(message)
            case SharedJobComplete():
                laid = self._laid.get(message.command_id)
                if laid is not None and not laid.done():
                    laid.set_result(None)
            case LinkTestReport():
                report = self._reports.get(message.command_id)
                if report is not None and not report.done():
                    report.set_result(message)
            case (
                JobEvent()
                | ProgressReport()
                | TrainLog()
                | ModelPublished()
                | JobQueue()
            ):
                follower = self._followers.get(message.job_id)
                if follower is not None:
                    follower(message)
            case FileMeta():
                self._take_offer(message)
            case FileNeed() | FileDone():
                self.pump.handle(message)
            case _:
                raise RemoteProtocolError(detail=f"a {message.NAME} frame to a client")

    def _settle(self, command_id: str, reply: Reply) -> None:
        future = self._replies.get(command_id)
        # A reply may come after its command was given up.
        if future is not None and not future.done():
            future.set_result(reply)

    def _refuse_path(self, message: PathError) -> None:
        error = from_wire(message.error)
        if not isinstance(error, SharedStorageUnusable):
            # Whatever the worker's reason is, the files go over the link.
            place = f"The shared storage of the worker {self.worker_name}"
            error = SharedStorageUnusable(place=place, reason=str(error))
        for waiting in (self._replies, self._laid):
            future = waiting.get(message.command_id)
            if future is not None and not future.done():
                future.set_exception(error)
                return

    def _take_offer(self, meta: FileMeta) -> None:
        key = (meta.job_id, meta.purpose)
        offer = self._offer
        if offer is not None and not offer.done() and self._offer_of == key:
            offer.set_result(meta)
        elif self._given_up[key] > 0:
            self._given_up[key] -= 1
            self._decline(meta)
        else:
            raise RemoteProtocolError(detail="files that were not asked for")

    def _give_up(self, offer: asyncio.Future[FileMeta]) -> None:
        """Nobody waits any more for an offer that is here or may still come."""
        if offer.done():
            self._decline(offer.result())
        else:
            self._given_up[self._offer_of] += 1

    def _decline(self, meta: FileMeta) -> None:
        """Let the worker stop waiting for us to ask for what it offered."""
        error = BadRequest(reason="nobody waits for these files any more")
        self.link.send(FileDone(transfer_id=meta.transfer_id, error=error.to_wire()))

    def _check_feature(self, command: Command) -> None:
        """An older worker would take the frame for a breach and hang up."""
        if (needed := feature_of(command)) is None:
            return
        feature, activity = needed
        if feature not in self.link.features:
            raise WorkerTooOld(worker=self.worker_name, activity=activity)
