"""One job from its submission to its results at home, across lost links.

What `RemoteJob` does over one link, this does over as many as it takes: it connects
again, attaches where it was, and repeats what the user wanted until the worker has
acknowledged it. Used by the companion and by the commands.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypeVar

from sleap_rtc_plugin.protocol.errors import RtcError, WorkerAway
from sleap_rtc_plugin.protocol.job import JobState
from sleap_rtc_plugin.protocol.job_mirror import JobMirror, JobNews
from sleap_rtc_plugin.protocol.messages import StopScope, TrainLog
from sleap_rtc_plugin.protocol.retries import Retries, is_passing
from sleap_rtc_plugin.session.remote_job import RemoteJob
from sleap_rtc_plugin.session.result_import import ImportedResults
from sleap_rtc_plugin.session.worker_files import FoundFiles
from sleap_rtc_plugin.session.worker_link import WorkerLink
from sleap_rtc_plugin.transport.effects import monotonic
from sleap_rtc_plugin.transport.file_source import FileSource
from sleap_rtc_plugin.transport.transfer_pump import Progress

__all__ = ["CourseObserver", "JobCourse"]

logger = logging.getLogger(__name__)

MAX_LOG_LINES: Final = 2000
_STAGING: Final = (JobState.SUBMITTED, JobState.STAGING)

T = TypeVar("T")
OnFound = Callable[[str, FoundFiles], None]


class CourseObserver(Protocol):
    """Who is told how a job goes."""

    def event(self, event: JobNews, mirror: JobMirror) -> None:
        """Something happened to the job."""

    def link_lost(self, error: RtcError) -> None:
        """The worker cannot be reached; it is tried again."""

    def link_back(self) -> None:
        """The worker is there again, and nothing was missed."""


@dataclass
class _Package:
    """What was sent, how, and over which link it arrived."""

    source: FileSource
    on_progress: Progress
    home: Path | None
    on_found: OnFound
    sent_over: RemoteJob | None = None


class JobCourse:
    """One job on one worker; `submitted` is where it stood when it was announced.

    Args:
        mirror: the job as far as it is known; events from there on are asked for.
        connect: returns an open link to its worker.
        observer: told how it goes.
        worker: the worker's name, for the words when it stays away.
        reconnect_for_s: how long to go on without a link, or None for as long as it
            takes. The job goes on at its worker either way.
    """

    def __init__(
        self,
        mirror: JobMirror,
        connect: Callable[[], Awaitable[WorkerLink]],
        observer: CourseObserver,
        *,
        worker: str = "",
        reconnect_for_s: float | None = None,
    ) -> None:
        self.mirror = mirror
        self.log: deque[str] = deque(maxlen=MAX_LOG_LINES)
        self._connect = connect
        self._observer = observer
        self._worker = worker
        self._retries = Retries(reconnect_for_s)
        self._job: RemoteJob | None = None
        self._link: WorkerLink | None = None
        self._loss: RtcError | None = None
        self.submitted: JobState | None = None
        self._package: _Package | None = None
        self._opening = asyncio.Lock()

    @property
    def job_id(self) -> str:
        """The job's id."""
        return self.mirror.job_id

    @property
    def link(self) -> WorkerLink | None:
        """The link that was used last."""
        return self._link

    # -- the way of a job --------------------------------------------------------------

    async def submit(
        self, source: FileSource, on_progress: Progress, home: Path | None = None
    ) -> None:
        """Submit the job and send its package: `announce`, then `send`.

        Raises:
            RtcError: the worker does not take the job or its package.
        """
        await self.announce(source)
        await self.send(source, on_progress, home)

    async def announce(self, source: FileSource, *, is_known: bool = False) -> None:
        """Submit the job.

        Until the worker has taken the job a failure is raised at once, since the user
        stands before it. One that it may have already, `is_known`, is kept on with.

        Raises:
            RtcError: the worker does not take the job.
        """

        async def submit() -> None:
            async with self._opening:
                job = await self._open()
                self.submitted = await job.submit(source)
                await job.attach(self._take)

        await (self._keep_on(submit) if is_known else submit())

    async def send(
        self,
        source: FileSource,
        on_progress: Progress,
        home: Path | None = None,
        on_found: OnFound = lambda worker, found: None,
    ) -> None:
        """Send what the worker lacks of the package of an announced job.

        The worker is asked for files that the user has in `home`; None for a package
        that was made just now, which no worker can have. What it found is told to
        `on_found`.

        Raises:
            RtcError: the worker does not take the package.
        """
        if self.submitted in _STAGING:
            package = _Package(source, on_progress, home, on_found)
            await self._persist(lambda job: self._send(job, package))
            self._package = package

    async def reach(self, is_reached: Callable[[JobMirror], bool]) -> None:
        """Follow the job until it has come to a point.

        Raises:
            RtcError: the worker does not know the job, or breaks the protocol.
        """

        async def reach(job: RemoteJob) -> None:
            await self._send_again(job)
            await job.wait_until(is_reached)

        await self._persist(reach)

    async def follow(self) -> None:
        """Follow the job until it has ended.

        Raises:
            RtcError: the worker does not know the job, or breaks the protocol.
        """
        await self.reach(lambda mirror: mirror.has_ended)

    async def bring_home(
        self,
        output: Path,
        on_progress: Progress,
        predictions_folder: str = "",
        video_names: Mapping[str, str] | None = None,
    ) -> ImportedResults:
        """Fetch the results of an ended job into `output`, as `RemoteJob.fetch`.

        Raises:
            RtcError: they are not safe, not complete, or cannot be written.
        """

        async def fetch(job: RemoteJob) -> ImportedResults:
            imported, _ = await job.fetch(
                output,
                on_progress,
                predictions_folder=predictions_folder,
                video_names=video_names,
            )
            return imported

        return await self._persist(fetch)

    async def stop(self, scope: StopScope) -> None:
        """End the training soon and keep its model; said again until it arrived."""
        await self._unless_ended(lambda job: job.stop(scope))

    async def cancel(self) -> None:
        """End the job now and discard it; said again until it arrived."""
        await self._unless_ended(lambda job: job.cancel())

    async def with_job(self, action: Callable[[RemoteJob], Awaitable[T]]) -> T:
        """Do something over the link there is, or a new one; once."""
        return await action(await self._attached())

    # -- keeping on --------------------------------------------------------------------

    async def _send(self, job: RemoteJob, package: "_Package") -> None:
        try:
            if self.mirror.state in _STAGING:
                if package.home is not None:
                    found = await job.find_on_mounts(package.source, package.home)
                    package.on_found(job.link.worker_name, found)
                await job.send_package(package.source, package.on_progress)
                package.sent_over = job
        except RtcError:
            # A job that was refused or cancelled meanwhile says it better.
            if not self.mirror.has_ended:
                raise

    async def _send_again(self, job: RemoteJob) -> None:
        """Offer the package once more to a worker that may have died holding it.

        It had all of it, but may not have come to write that down. What is there is
        not sent again.
        """
        package = self._package
        if package is None or package.sent_over is job:
            return
        if self.mirror.state not in _STAGING:
            self._package = None
        elif await job.submit(package.source) in _STAGING:
            await self._send(job, package)

    async def _unless_ended(
        self, command: Callable[[RemoteJob], Awaitable[None]]
    ) -> None:
        async def give(job: RemoteJob) -> None:
            if not self.mirror.has_ended:
                await command(job)

        await self._persist(give)

    async def _persist(self, attempt: Callable[[RemoteJob], Awaitable[T]]) -> T:
        async def attached() -> T:
            return await attempt(await self._attached())

        return await self._keep_on(attached)

    async def _keep_on(self, attempt: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await attempt()
            except RtcError as error:
                if not is_passing(error):
                    raise
                self._lost(error)
                # No secret: it only keeps clients from coming back all at once.
                jitter = random.random()  # noqa: S311
                delay_s = self._retries.failed(monotonic(), jitter)
                if delay_s is None:
                    raise self._away(error) from None
                await asyncio.sleep(delay_s)

    def _away(self, error: RtcError) -> RtcError:
        """Return the words for a worker that stays away."""
        if self.mirror.state in _STAGING:
            # It has not got all of it, and how the link was lost says so.
            return self._loss or error
        return WorkerAway(
            worker=self._worker,
            job_id=self.job_id,
            seconds=f"{self._retries.budget_s or 0:.0f}",
        )

    async def _attached(self) -> RemoteJob:
        """Return the job over an open link that its events come on."""
        async with self._opening:
            if self._job is not None and not self._is_closed():
                self._retries.linked(monotonic())
                return self._job
            if self._link is not None and self._link.link.breach is not None:
                # It ended while nobody was waiting for anything.
                raise self._link.link.breach
            job = await self._open()
            await job.attach(self._take)
            return job

    async def _open(self) -> RemoteJob:
        self._link = await self._connect()
        self._retries.linked(monotonic())
        self._job = RemoteJob.resume(self._link, self.mirror)
        if self._loss is not None:
            self._loss = None
            self._observer.link_back()
        return self._job

    def _is_closed(self) -> bool:
        return self._link is None or self._link.link.closed.is_set()

    def _lost(self, error: RtcError) -> None:
        if not self._is_closed():
            return  # An answer was overdue; whether the link lives, it says itself.
        if self._loss is None:
            self._loss = error
            logger.info("Job %s: %s", self.mirror.job_id, error)
            self._observer.link_lost(error)

    def _take(self, event: JobNews, mirror: JobMirror) -> None:
        if isinstance(event, TrainLog):
            self.log.extend(event.lines)
        self._observer.event(event, mirror)
