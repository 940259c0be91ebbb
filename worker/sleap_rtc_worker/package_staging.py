"""Packages on their way into the queue: they arrive over a link, then they are checked.

Arriving ends with the link and goes on over the next one. The check does not: once a
package is here the job needs no client any more, and a worker that was killed meanwhile
begins the check again. Called by the job coordinator, which knows the jobs.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from sleap_rtc_plugin.protocol.errors import (
    JobConflict,
    JobHasEnded,
    RemoteProtocolError,
    RtcError,
    StepFailed,
    TransferTakenOver,
)
from sleap_rtc_plugin.protocol.job import JobState
from sleap_rtc_plugin.protocol.messages import FileMeta
from sleap_rtc_plugin.transport.chunk_reader import ChunkSource
from sleap_rtc_plugin.transport.transfer_pump import TransferPump
from sleap_rtc_worker.file_manager import FileManager
from sleap_rtc_worker.job_run import JobRun
from sleap_rtc_worker.package_check import CheckedPackage

__all__ = ["PackageStaging"]

logger = logging.getLogger(__name__)

_BEFORE_QUEUE: Final = (JobState.SUBMITTED, JobState.STAGING)


class PackageStaging:
    """The packages of one worker's jobs until these are queued."""

    def __init__(
        self,
        files: FileManager,
        *,
        make_room: Callable[[], Awaitable[None]],
        check: Callable[[JobRun], Awaitable[CheckedPackage]],
        on_staged: Callable[[JobRun, CheckedPackage], None],
    ) -> None:
        """Prepare; nothing is under way yet.

        Args:
            files: where packages arrive.
            make_room: waits until what has to go for a package is gone.
            check: looks at a package that is here, and raises where it is not
                acceptable.
            on_staged: told of a job whose package is acceptable, and what `check` said.
        """
        self._files = files
        self._make_room = make_room
        self._check = check
        self._on_staged = on_staged
        self._arrivals: dict[str, asyncio.Task[None]] = {}
        self._checks: dict[str, asyncio.Task[None]] = {}

    def is_busy(self, job_id: str) -> bool:
        """Tell whether a job's package is arriving, or looked at."""
        return job_id in self._arrivals or job_id in self._checks

    def has(self, run: JobRun, meta: FileMeta) -> bool:
        """Tell whether all that is offered is here already.

        A client whose link was lost at the wrong moment cannot know that, and offers
        its package again.
        """
        return (
            _is_package_of(run, meta)
            and not run.has_ended
            and (run.job_id in self._checks or run.state not in _BEFORE_QUEUE)
        )

    async def receive(
        self,
        run: JobRun,
        meta: FileMeta,
        pump: TransferPump,
        sources: Sequence[ChunkSource] = (),
    ) -> None:
        """Receive a job's package over a link; its check begins when it is here.

        A newer link takes over from an older one: the client that was cut off came
        back before we noticed that it was gone. What `sources` have need not be sent.

        Raises:
            RtcError: the package did not arrive.
            LinkClosed: the link ended; what arrived is kept for a resume.
        """
        if run.has_ended and _is_package_of(run, meta):
            # Its client comes back and does not know yet.
            raise run.error or JobHasEnded(job_id=run.job_id, state=run.state.value)
        if meta.purpose != "package" or run.state is not JobState.STAGING:
            raise RemoteProtocolError(detail="files that no job waits for")
        # The size was compared with the disk when the job was submitted.
        if not _is_package_of(run, meta):
            raise JobConflict(job_id=run.job_id)
        older = self._arrivals.pop(run.job_id, None)
        if older is not None:
            older.cancel()
            await asyncio.gather(older, return_exceptions=True)
        task = asyncio.get_running_loop().create_task(
            self._arrive(run, meta, pump, sources)
        )
        self._arrivals[run.job_id] = task
        try:
            await task
        except asyncio.CancelledError:
            # Where the link did not end, its sender must hear of it.
            error = run.error if run.has_ended else None
            if self._arrivals.get(run.job_id) is not task:
                error = error or TransferTakenOver(job_id=run.job_id)
            if error is None:
                raise
            raise error from None
        finally:
            if self._arrivals.get(run.job_id) is task:
                del self._arrivals[run.job_id]

    async def _arrive(
        self,
        run: JobRun,
        meta: FileMeta,
        pump: TransferPump,
        sources: Sequence[ChunkSource],
    ) -> None:
        # What had to go for this package may still be going.
        await self._make_room()
        area = self._files.staging_area(run.job_id)
        area.sources = sources
        await pump.receive(meta, area)
        # Nothing waits between the last byte and this line: no link can end there.
        if run.state is JobState.STAGING:
            run.note(has_package=True)
            self.begin_check(run)

    def begin_check(self, run: JobRun) -> None:
        """Look at a package that is here, then let its job be queued, or refuse it."""
        if run.job_id in self._checks:
            return
        task = asyncio.get_running_loop().create_task(self._look(run))
        self._checks[run.job_id] = task
        task.add_done_callback(lambda ended: self._forget(run.job_id, ended))

    async def _look(self, run: JobRun) -> None:
        try:
            checked = await self._check(run)
            if run.state is JobState.STAGING:
                self._on_staged(run, checked)
        except RtcError as error:
            _refuse(run, error)
        # Whatever it is, the job must come to an end and the log must have the reason.
        except Exception:
            logger.exception("The package of %s could not be checked", run.job_id)
            reason = "the worker itself failed; its log says why"
            step = f"Checking {run.record.spec.name}"
            _refuse(run, StepFailed(step=step, reason=reason, last_lines=""))

    def _forget(self, job_id: str, task: "asyncio.Task[None]") -> None:
        if self._checks.get(job_id) is task:
            del self._checks[job_id]

    def drop(self, job_id: str) -> None:
        """Stop what is under way for a job that needs its package no more."""
        for tasks in (self._arrivals, self._checks):
            task = tasks.get(job_id)
            if task is not None:
                task.cancel()

    async def close(self) -> None:
        """Stop everything; the next worker goes on with it."""
        tasks = [*self._arrivals.values(), *self._checks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _refuse(run: JobRun, error: RtcError) -> None:
    if run.state is JobState.STAGING:
        run.package_refused(error)


def _is_package_of(run: JobRun, meta: FileMeta) -> bool:
    record = run.record
    return (
        meta.purpose == "package"
        and meta.manifest_digest == record.package_digest
        and meta.total_bytes == record.package_bytes
    )
