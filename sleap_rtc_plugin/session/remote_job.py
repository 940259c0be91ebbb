"""One job on a worker as its client sees it: submit, send, follow, fetch.

Every step may be repeated after a lost link or a killed client: the worker knows the
job by its id, and each side keeps what it has. Used by `session.submission`.
"""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

import msgspec

from sleap_rtc_plugin.protocol.errors import (
    RemoteProtocolError,
    RtcError,
    UnsafeCheckpoint,
    UnsafeMember,
)
from sleap_rtc_plugin.protocol.ids import clean_text, new_command_id
from sleap_rtc_plugin.protocol.job import JobState
from sleap_rtc_plugin.protocol.job_mirror import (
    EventApplied,
    EventsMissing,
    JobMirror,
    JobNews,
)
from sleap_rtc_plugin.protocol.limits import MAX_JOBS_LISTED
from sleap_rtc_plugin.protocol.messages import (
    JobAccepted,
    JobAttach,
    JobCancel,
    JobDescribe,
    JobDescribed,
    JobFetch,
    JobList,
    JobListed,
    JobSpec,
    JobSubmit,
    JobSummary,
    StopScope,
    ZmqCtrl,
)
from sleap_rtc_plugin.protocol.queue_messages import JobQueue
from sleap_rtc_plugin.session.incoming_folder import incoming_folder, remove_incoming
from sleap_rtc_plugin.session.result_import import ImportedResults, import_results
from sleap_rtc_plugin.session.result_store import result_store
from sleap_rtc_plugin.session.shared_files import (
    moved_too,
    shared_package,
    shared_results,
)
from sleap_rtc_plugin.session.worker_files import FoundFiles, find_package_files
from sleap_rtc_plugin.session.worker_link import WorkerLink
from sleap_rtc_plugin.transport.effects import in_thread
from sleap_rtc_plugin.transport.file_source import FileSource
from sleap_rtc_plugin.transport.link import LinkClosed
from sleap_rtc_plugin.transport.staging_area import StagingArea
from sleap_rtc_plugin.transport.transfer_pump import Progress, TransferTotals

__all__ = ["RemoteJob", "describe_job", "list_jobs"]

OnEvent = Callable[[JobNews, JobMirror], None]


async def list_jobs(link: WorkerLink) -> list[JobSummary]:
    """Return a worker's jobs, the newest first, at most `MAX_JOBS_LISTED`.

    Raises:
        RtcError: the worker does not tell, or breaks the protocol.
    """
    jobs: dict[str, JobSummary] = {}
    after: str | None = None
    while len(jobs) < MAX_JOBS_LISTED:
        page = await link.ask(JobList(command_id=new_command_id(), after=after))
        if not isinstance(page, JobListed):
            raise RemoteProtocolError(detail="an answer that lists no jobs")
        if any(job.job_id in jobs for job in page.jobs):
            raise RemoteProtocolError(detail="the same job listed twice")
        jobs.update((job.job_id, _cleaned(job)) for job in page.jobs)
        if not page.more:
            break
        if not page.jobs:
            raise RemoteProtocolError(detail="an empty page with more to follow")
        after = page.jobs[-1].job_id
    return list(jobs.values())[:MAX_JOBS_LISTED]


async def describe_job(link: WorkerLink, job_id: str) -> tuple[JobSummary, JobSpec]:
    """Return where a job stands and what it is, for a client that did not submit it.

    Raises:
        JobUnknown: the worker has no such job.
        RtcError: the worker does not tell, or breaks the protocol.
    """
    told = await link.ask(JobDescribe(command_id=new_command_id(), job_id=job_id))
    if not isinstance(told, JobDescribed) or told.job.job_id != job_id:
        raise RemoteProtocolError(detail="an answer that describes another thing")
    return _cleaned(told.job), told.spec


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

    @classmethod
    def resume(cls, link: WorkerLink, mirror: JobMirror) -> Self:
        """Go on over a new link with what is known; `attach` asks for the rest."""
        job = cls(link, mirror.job_id, mirror.spec)
        job.mirror = mirror
        return job

    @property
    def link(self) -> WorkerLink:
        """The link that it goes over."""
        return self._link

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

    async def find_on_mounts(self, source: FileSource, home: Path) -> FoundFiles:
        """Let the worker take what it can of the package from its mounts.

        Called right before `send_package`. What does not work is only not used.

        Args:
            source: the package.
            home: the folder in which the user has its files.

        Raises:
            RtcError: the link was lost.
        """
        return await find_package_files(self._link, self.job_id, source, home)

    async def send_package(
        self, source: FileSource, on_progress: Progress
    ) -> TransferTotals:
        """Send what the worker lacks of the package.

        Raises:
            RtcError: it did not arrive in full; trying again goes on from there.
        """
        async with shared_package(
            self._link,
            self.job_id,
            source,
            on_progress,
            has_ended=lambda: self.mirror.has_ended,
        ) as with_laid:
            try:
                totals = await self._link.pump.send(
                    source,
                    job_id=self.job_id,
                    purpose="package",
                    on_progress=lambda totals: on_progress(with_laid(totals)),
                )
            except LinkClosed:
                raise self._link.vanished("the package was on its way") from None
            return with_laid(totals)

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
        self,
        output: Path,
        on_progress: Progress,
        *,
        predictions_folder: str = "",
        video_names: Mapping[str, str] | None = None,
    ) -> tuple[ImportedResults, TransferTotals]:
        """Bring the results home, verified, under their final names.

        Args:
            output: where `models` and the predictions go.
            on_progress: told how the transfer goes.
            predictions_folder: the folder below `output` for the predictions.
            video_names: the user's names of videos by the worker's.

        Raises:
            RtcError: they did not arrive or are not acceptable.
        """
        command = JobFetch(command_id=new_command_id(), job_id=self.job_id)
        async with (
            incoming_folder(output, self.job_id) as incoming,
            result_store(self._link.room_id) as store,
            shared_results(self._link, self.job_id) as shared,
        ):
            area = StagingArea(incoming, store=store, sources=shared)
            async with self._link.offered_files(command) as meta:
                totals = await self._link.receive(
                    meta,
                    area,
                    lambda totals: on_progress(moved_too(totals, area.taken_bytes)),
                )
            try:
                imported = await in_thread(
                    None,
                    import_results,
                    area.files,
                    output,
                    predictions_folder=predictions_folder,
                    video_names=video_names,
                )
            except (UnsafeCheckpoint, UnsafeMember):
                # What is refused is not left lying in hidden folders either.
                await in_thread(None, area.disown)
                await in_thread(None, remove_incoming, incoming)
                raise
            await in_thread(None, remove_incoming, incoming)
        return imported, moved_too(totals, area.taken_bytes)

    # -- events --------------------------------------------------------------------

    def _take(self, event: JobNews) -> None:
        if isinstance(event, JobQueue):
            if self.mirror.take_place(event) and self._on_event is not None:
                self._on_event(event, self.mirror)
            return
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


def _cleaned(job: JobSummary) -> JobSummary:
    """Return a row whose text, which other people chose, can be shown."""
    return msgspec.structs.replace(
        job,
        name=clean_text(job.name),
        owner=clean_text(job.owner),
        state=clean_text(job.state),
    )
