"""One job on a worker as its client sees it: submit, send, follow, fetch.

Every step may be repeated after a lost link or a killed client: the worker knows the
job by its id, and each side keeps what it has. Used by `session.submission`.
"""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

from sleap_rtc_plugin.protocol.errors import (
    RemoteProtocolError,
    RtcError,
    UnsafeCheckpoint,
    UnsafeMember,
)
from sleap_rtc_plugin.protocol.ids import new_command_id
from sleap_rtc_plugin.protocol.job import JobState
from sleap_rtc_plugin.protocol.job_mirror import (
    EventApplied,
    EventsMissing,
    JobMirror,
)
from sleap_rtc_plugin.protocol.messages import (
    JobAccepted,
    JobAttach,
    JobCancel,
    JobFetch,
    JobSpec,
    JobSubmit,
    StepEvent,
    StopScope,
    ZmqCtrl,
)
from sleap_rtc_plugin.session.result_import import ImportedResults, import_results
from sleap_rtc_plugin.session.worker_link import WorkerLink
from sleap_rtc_plugin.transport.effects import in_thread
from sleap_rtc_plugin.transport.file_source import FileSource
from sleap_rtc_plugin.transport.link import LinkClosed
from sleap_rtc_plugin.transport.staging_area import StagingArea
from sleap_rtc_plugin.transport.transfer_pump import Progress, TransferTotals

__all__ = ["INCOMING_FOLDER", "RemoteJob"]

INCOMING_FOLDER = ".sleap-remote"

OnEvent = Callable[[StepEvent, JobMirror], None]


class RemoteJob:
    """A job over one link to its worker."""

    def __init__(self, link: WorkerLink, job_id: str, spec: JobSpec) -> None:
        """Prepare; nothing is sent yet."""
        self._link = link
        self.job_id = job_id
        self.mirror = JobMirror(job_id, spec)
        self._changed = asyncio.Event()
        self._fault: RtcError | None = None
        self._on_event: OnEvent | None = None

    async def submit(self, source: FileSource) -> JobState:
        """Submit the job; return where it stands, which may be far if it is known.

        Raises:
            RtcError: the worker does not take it.
        """
        reply = await self._link.ask(
            JobSubmit(
                command_id=new_command_id(),
                job_id=self.job_id,
                spec=self.mirror.spec,
                package_digest=source.manifest_digest.hex(),
                package_bytes=source.manifest.total_bytes,
            )
        )
        if not isinstance(reply, JobAccepted):
            raise RemoteProtocolError(detail="a job neither accepted nor rejected")
        try:
            return JobState(reply.state)
        except ValueError:
            raise RemoteProtocolError(detail="a job in no known state") from None

    async def send_package(
        self, source: FileSource, on_progress: Progress
    ) -> TransferTotals:
        """Send what the worker lacks of the package.

        Raises:
            RtcError: it did not arrive in full; trying again goes on from there.
        """
        try:
            return await self._link.pump.send(
                source, job_id=self.job_id, purpose="package", on_progress=on_progress
            )
        except LinkClosed:
            raise self._link.vanished("the package was on its way") from None

    async def attach(self, on_event: OnEvent) -> None:
        """Ask for every event that is not known yet, and those to come."""
        self._on_event = on_event
        self._link.follow(self.job_id, self._take)
        await self._ask_since(self.mirror.last_seq)

    async def wait_until(self, is_reached: Callable[[JobMirror], bool]) -> None:
        """Wait until the job has come to a point; `attach` first.

        Raises:
            RtcError: the link ended, or the worker breaks the protocol.
        """
        closed = asyncio.ensure_future(self._link.link.closed.wait())
        try:
            while not is_reached(self.mirror):
                self._changed.clear()
                changed = asyncio.ensure_future(self._changed.wait())
                await asyncio.wait(
                    {changed, closed}, return_when=asyncio.FIRST_COMPLETED
                )
                changed.cancel()
                if self._fault is not None:
                    raise self._fault
                if closed.done() and not is_reached(self.mirror):
                    raise self._link.vanished(_activity(self.mirror.state))
        finally:
            closed.cancel()

    async def stop(self, scope: StopScope) -> None:
        """End the training soon and keep its model."""
        command = ZmqCtrl(
            command_id=new_command_id(),
            job_id=self.job_id,
            command="stop",
            scope=scope,
        )
        await self._link.ask(command)

    async def cancel(self) -> None:
        """End the job now and discard it."""
        command = JobCancel(command_id=new_command_id(), job_id=self.job_id)
        await self._link.ask(command)

    async def fetch(
        self, output: Path, on_progress: Progress
    ) -> tuple[ImportedResults, TransferTotals]:
        """Bring the results home, verified, under their final names.

        Raises:
            RtcError: they did not arrive or are not acceptable.
        """
        incoming = output / INCOMING_FOLDER / self.job_id
        area = StagingArea(incoming)
        meta = await self._link.offered_results(
            JobFetch(command_id=new_command_id(), job_id=self.job_id)
        )
        try:
            totals = await self._link.pump.receive(meta, area, on_progress=on_progress)
        except LinkClosed:
            raise self._link.vanished("the results were on their way") from None
        try:
            imported = await in_thread(None, import_results, area.files, output)
        except (UnsafeCheckpoint, UnsafeMember):
            # What is refused is not left lying in a hidden folder either.
            await in_thread(None, _remove_incoming, incoming)
            raise
        await in_thread(None, _remove_incoming, incoming)
        return imported, totals

    # -- events --------------------------------------------------------------------

    def _take(self, event: StepEvent) -> None:
        try:
            outcome = self.mirror.handle(event)
        except RtcError as error:
            self._fault = error
            self._changed.set()
            raise
        match outcome:
            case EventApplied():
                if self._on_event is not None:
                    self._on_event(event, self.mirror)
                self._changed.set()
            case EventsMissing(since):
                raise RemoteProtocolError(detail=f"event {since + 1} was left out")

    async def _ask_since(self, since: int) -> None:
        await self._link.ask(
            JobAttach(command_id=new_command_id(), job_id=self.job_id, since=since)
        )


def _activity(state: JobState) -> str:
    return {
        JobState.STAGING: "the package was being checked",
        JobState.QUEUED: "the job was waiting in its queue",
        JobState.COLLECTING: "the results were being gathered",
    }.get(state, "the job was running")


def _remove_incoming(incoming: Path) -> None:
    """Remove what the import left, and the folder above where it is empty."""
    shutil.rmtree(incoming, ignore_errors=True)
    try:
        incoming.parent.rmdir()
    except OSError:
        # Another job's results are still arriving.
        return
