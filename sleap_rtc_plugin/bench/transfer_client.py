"""The client process of `bench transfer`: submit, wait until queued, cancel.

Reads its task as one JSON line on stdin and answers with one on stdout, so that its
own memory is measured from the first byte of the package to the last.
"""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from sleap_rtc_plugin.bench.memory import PeakMemory
from sleap_rtc_plugin.protocol.errors import LabelsUnreadable, RtcError
from sleap_rtc_plugin.protocol.job_mirror import JobMirror, JobNews
from sleap_rtc_plugin.protocol.session_string import Session
from sleap_rtc_plugin.session.job_course import JobCourse
from sleap_rtc_plugin.session.pending_jobs import PendingJobs
from sleap_rtc_plugin.session.report import Report
from sleap_rtc_plugin.session.submission import Detached, Submission, SubmissionPlan
from sleap_rtc_plugin.session.training_package import check_labels
from sleap_rtc_plugin.session.worker_files import FoundFiles
from sleap_rtc_plugin.session.worker_info import WorkerInfo
from sleap_rtc_plugin.transport.transfer_pump import TransferTotals

__all__ = ["ClientFigures", "ClientTask"]


class ClientTask(Struct):
    """What to send, and where."""

    session: str
    package: str
    folder: str


class ClientFigures(Struct):
    """What it took; the transfer alone, and the memory of everything."""

    job_id: str
    bytes_sent: int
    transfer_s: float
    cpu_s: float
    idle_mib: float
    peak_mib: float


class _Quiet:
    """An observer that shows nothing."""

    def reading(self, done_bytes: int, total_bytes: int) -> None:
        """Ignore."""

    def chosen(self, worker: WorkerInfo, job_id: str, *, resumed: bool) -> None:
        """Ignore."""

    def transferring(self, purpose: str, totals: TransferTotals) -> None:
        """Ignore."""

    def embedding(self, done: int, total: int) -> None:
        """Frames are put into the labels that are sent."""

    def noted(self, notes: Sequence[str]) -> None:
        """The package is ready, and this is to be known of it."""

    def found_on_mounts(self, worker: str, found: FoundFiles) -> None:
        """Ignore."""

    def event(self, event: JobNews, mirror: JobMirror) -> None:
        """Ignore."""

    def waiting_for(self, worker: str, job_id: str) -> None:
        """Ignore."""

    def left_behind(self, worker: str, job_id: str) -> None:
        """Ignore."""

    def link_lost(self, error: RtcError) -> None:
        """Ignore."""

    def link_back(self) -> None:
        """Ignore."""

    @contextlib.contextmanager
    def interruptions(self, job: JobCourse) -> Iterator[None]:
        """Nobody interrupts."""
        yield


async def _run(task: ClientTask) -> ClientFigures:
    report = Report()
    folder = Path(task.folder)
    plan = SubmissionPlan(
        session=Session.parse(task.session),
        package=Path(task.package),
        output=folder / "output",
        detach=True,
    )
    # Checking labels pulls in libraries; they are idle memory, not the package's.
    with contextlib.suppress(LabelsUnreadable):
        check_labels(Path(__file__))
    with PeakMemory(os.getpid()) as memory:
        submission = Submission(plan, _Quiet(), report, PendingJobs(folder))
        with contextlib.suppress(Detached):
            await submission.run()
    return ClientFigures(
        job_id=report.job_id,
        bytes_sent=report.bytes_sent,
        transfer_s=report.seconds.transfer,
        cpu_s=memory.cpu_s,
        idle_mib=memory.idle_mib,
        peak_mib=memory.peak_mib,
    )


def main() -> None:
    """Carry out the task on stdin."""
    task = msgspec.json.decode(sys.stdin.readline(), type=ClientTask)
    # Nothing is measured while the interpreter still tidies up after its imports.
    time.sleep(0.2)
    figures = asyncio.run(_run(task))
    sys.stdout.write(msgspec.json.encode(figures).decode() + "\n")


if __name__ == "__main__":
    main()
