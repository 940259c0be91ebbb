"""A run from the click to its results at home, in the companion.

Builds or opens the package, submits it, follows the job, brings the results to the
project's folder, and writes down at each point what a later SLEAP has to know. The
service starts runs and picks up those of an earlier SLEAP.
"""

import asyncio
import contextlib
import dataclasses
import logging
import shutil
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent import futures
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec
import platformdirs
import yaml

from sleap_rtc_plugin.companion.followed_job import (
    FollowedJob,
    FollowedWorker,
    StepFacts,
)
from sleap_rtc_plugin.companion.messages import (
    Event,
    JobChanged,
    JobRow,
    PackageProgress,
    ResultsHome,
    VideosFound,
)
from sleap_rtc_plugin.companion.throttle import Ticker
from sleap_rtc_plugin.protocol.errors import (
    JobCancelled,
    JobLost,
    JobUnknown,
    LocalProtocolError,
    ResultsIncomplete,
    ResultsRemoved,
    RtcError,
    SourceChanged,
    StorageFailed,
)
from sleap_rtc_plugin.protocol.job import JobState
from sleap_rtc_plugin.protocol.messages import TrainStep
from sleap_rtc_plugin.protocol.retries import is_passing
from sleap_rtc_plugin.session.package_builder import (
    FindVideos,
    build_package,
    video_names,
)
from sleap_rtc_plugin.session.package_scan import scan_package
from sleap_rtc_plugin.session.project_labels import VideoFile
from sleap_rtc_plugin.session.run_records import RunRecord, RunRecords
from sleap_rtc_plugin.session.run_request import RunRequest
from sleap_rtc_plugin.session.settings import Settings
from sleap_rtc_plugin.session.submission import (
    missing_results,
    models_in_order,
    owner_name,
)
from sleap_rtc_plugin.session.training_package import (
    TrainingPackage,
    check_labels,
    open_package,
)
from sleap_rtc_plugin.session.worker_files import LocalFile, find_files
from sleap_rtc_plugin.session.worker_link import WorkerLink
from sleap_rtc_plugin.transport.effects import in_thread, monotonic
from sleap_rtc_plugin.transport.file_source import FileSource

__all__ = [
    "PREDICTIONS_FOLDER",
    "PackageMaker",
    "Run",
    "RunTools",
    "from_built",
    "from_package",
    "from_project",
    "images_folder",
    "is_built",
    "remove_leftovers",
    "results_home",
]

logger = logging.getLogger(__name__)

PREDICTIONS_FOLDER: Final = "predictions"
BUILT: Final = "package"
OPENED: Final = "opened"
KEPT_FOLDER: Final = "SLEAP remote results"
PACKAGE_INTERVAL_S: Final = 0.1
LEFT_OVER_AFTER_S: Final = 30 * 24 * 3600.0
CLAIM_INTERVAL_S: Final = 2.0
FIND_VIDEOS_TIMEOUT_S: Final = 120.0
FIND_VIDEOS_POLL_S: Final = 0.5
FIND_FIRST_S: Final = 1.0
FIND_MAX_S: Final = 30.0
_WITH_RESULTS: Final = (JobState.SUCCEEDED, JobState.FAILED, JobState.LOST)

OnProgress = Callable[[str, int, int], None]
PackageMaker = Callable[[Path, OnProgress, FindVideos], TrainingPackage]
"""Makes or opens a package below a folder, in a thread; may raise `RtcError`."""


@dataclass(frozen=True)
class RunTools:
    """What runs share.

    Attributes:
        emit: takes events, on the event loop.
        records: the runs that are under way.
        connect: returns an open link to a worker.
        adopt: makes a followed job of a record's job known to commands.
        drop: forgets a job that came to nothing.
        find: begins to follow a job that the worker has.
    """

    emit: Callable[[Event], None]
    records: RunRecords
    connect: Callable[[str], Awaitable[WorkerLink]]
    adopt: Callable[[FollowedJob], None]
    drop: Callable[[str], None]
    find: Callable[[str, str], Awaitable[FollowedJob]]


def runs_folder(job_id: str) -> Path:
    """Return where a run's package is built."""
    return platformdirs.user_cache_path("sleap-remote") / "runs" / job_id


def images_folder(job_id: str) -> Path:
    """Return where a job's validation images are shown from."""
    return platformdirs.user_cache_path("sleap-remote") / "images" / job_id


def remove_leftovers(now: float) -> None:
    """Remove packages and images of runs that ended without tidying up long ago."""
    for folder in (runs_folder(""), images_folder("")):
        for child in folder.glob("job-*"):
            with contextlib.suppress(OSError):
                if now - child.stat().st_mtime > LEFT_OVER_AFTER_S:
                    shutil.rmtree(child, ignore_errors=True)


def results_home(record: RunRecord) -> ResultsHome:
    """Return the event for results that are at home."""
    return ResultsHome(
        job_id=record.job_id,
        worker=record.worker,
        models=record.models,
        predictions=record.predictions,
        project=record.project,
        merge=record.merge,
    )


def existing_or_kept(folder: Path) -> Path:
    """Return the folder for results, or another where it is gone meanwhile.

    A folder that the user deleted is not made again behind their back, and results
    are not lost with it.
    """
    if folder.is_dir():
        return folder
    kept = platformdirs.user_documents_path() / KEPT_FOLDER / folder.name
    kept.mkdir(parents=True, exist_ok=True)
    return kept


# -- where packages come from ------------------------------------------------------


def from_project(run: RunRequest, now: datetime) -> PackageMaker:
    """Return what builds the package of a project's run; built once per folder."""

    def make(
        folder: Path, on_progress: OnProgress, find_videos: FindVideos
    ) -> TrainingPackage:
        built = build_package(
            run,
            folder / BUILT,
            now=now.strftime("%y%m%d_%H%M%S"),
            on_progress=on_progress,
            find_videos=find_videos,
        )
        return open_package(
            built,
            folder / OPENED,
            keep_wandb_key=run.send_wandb_key,
            labels_check=_check_built,
        )

    return make


def from_package(path: Path) -> PackageMaker:
    """Return what opens a package that exists."""

    def make(
        folder: Path, on_progress: OnProgress, find_videos: FindVideos
    ) -> TrainingPackage:
        return open_package(
            path,
            folder / OPENED,
            progress=lambda done, total: on_progress("reading", done, total),
        )

    return make


def from_built(
    folder: Path, on_progress: OnProgress, find_videos: FindVideos
) -> TrainingPackage:
    """Open the package that an earlier SLEAP built and did not send to its end."""
    return open_package(folder / BUILT, folder / OPENED, labels_check=_check_built)


def _check_built(labels: Path) -> None:
    """Check labels that we made: what they do not hold, their worker has."""
    check_labels(labels, needs_images=False)


def is_built(job_id: str) -> bool:
    """Tell whether a run's package is there, whole."""
    return (runs_folder(job_id) / BUILT).is_dir()


# -- the run -----------------------------------------------------------------------


class Run:
    """One run; `start` it once."""

    def __init__(
        self, record: RunRecord, tools: RunTools, make: PackageMaker | None = None
    ) -> None:
        """Take up `record`; `make` is None for a job that the worker has already."""
        self.record = record
        self.sent = asyncio.Event()
        self._tools = tools
        self._make = make
        self._job: FollowedJob | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_cancelled = threading.Event()
        self._is_waiting = False
        self._ticker = Ticker(PACKAGE_INTERVAL_S)

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen."""
        return self._task is None or self._task.done()

    @property
    def is_ours(self) -> bool:
        """Whether it is under way here, not in another SLEAP."""
        return not self.is_over and not self._is_waiting

    @property
    def is_sending(self) -> bool:
        """Whether we are to send its package, which has not arrived yet."""
        return self.is_ours and not self.sent.is_set()

    def cancel(self) -> None:
        """End it and discard the job, wherever it stands."""
        self._is_cancelled.set()
        if self._job is not None:
            self._job.cancel()

    async def let_go(self) -> None:
        """Stop working on it; a later SLEAP takes it up from its record."""
        self._is_cancelled.set()  # the thread that builds a package sees this
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def abandon(self) -> None:
        """Stop sending for good, as the user wants; the worker forgets it by itself."""
        await self.let_go()
        await self._forget()

    def row(
        self, state: JobState = JobState.SUBMITTED, error: RtcError | None = None
    ) -> JobRow:
        """Return the run as a job that its worker does not know yet."""
        record = self.record
        return JobRow(
            job_id=record.job_id,
            worker_id=record.worker_id,
            worker=record.worker,
            name=record.name,
            owner=owner_name(),
            state=state.value,
            created_at=record.created_at,
            is_followed=True,
            error=str(error) if error is not None else "",
        )

    # -- its way -------------------------------------------------------------------

    async def _run(self) -> None:
        claim: BinaryIO | None = None
        try:
            claim = await self._claim()
            if claim is None:
                return
            if self._make is not None:
                job = await self._submit(self._make)
            else:
                job = await self._find()
            self._job = job
            self.sent.set()
            await job.follow()
            await self._come_home(job)
        except RtcError as error:
            self._fail(error)
        except Exception as error:
            logger.exception("The run %s failed", self.record.job_id)
            self._fail(LocalProtocolError(detail=type(error).__name__))
        finally:
            self.sent.set()
            if claim is not None:
                claim.close()

    async def _claim(self) -> BinaryIO | None:
        """Wait until no other SLEAP follows it; None where nothing is left to do."""
        job_id, records = self.record.job_id, self._tools.records
        while (claim := await in_thread(None, records.claim, job_id)) is None:
            if not self._is_waiting:
                logger.info("Another SLEAP follows %s", job_id)
            self._is_waiting = True
            await asyncio.sleep(CLAIM_INTERVAL_S)
        if not self._is_waiting:
            return claim
        self._is_waiting = False
        record = await in_thread(None, records.find, job_id)
        if record is None or record.phase == "home":
            claim.close()
            return None
        self.record = record
        if record.phase == "running":
            self._make = None
        return claim

    async def _find(self) -> FollowedJob:
        """Find the job at its worker, who may be away for long."""
        delay = FIND_FIRST_S
        while True:
            try:
                return await self._tools.find(self.record.worker_id, self.record.job_id)
            except RtcError as error:
                if not is_passing(error):
                    raise
                logger.info("The run %s waits: %s", self.record.job_id, error)
            await asyncio.sleep(delay)
            delay = min(2 * delay, FIND_MAX_S)

    async def _submit(self, make: PackageMaker) -> FollowedJob:
        folder = runs_folder(self.record.job_id)
        self._tools.emit(JobChanged(job=self.row()))
        package, source = await self._packed(make, folder)
        await self._note(phase="sending")
        job = FollowedJob(
            self.record.job_id,
            package.spec,
            worker=FollowedWorker(self.record.worker_id, self.record.worker),
            connect=lambda: self._tools.connect(self.record.worker_id),
            emit=self._tools.emit,
            images_folder=images_folder(self.record.job_id),
            facts=await in_thread(None, step_facts, package),
            created_at=self.record.created_at,
        )
        self._job = job
        self._tools.adopt(job)
        self._raise_if_cancelled()
        # What was built from a project just now is nowhere else.
        home = package.home if self.record.project is None else None
        try:
            await job.submit(source, home)
        except SourceChanged:
            # It may be complete now; as another job it would have to be another run.
            again, source = await self._packed(make, folder, is_anew=True)
            if again.spec != package.spec:
                raise
            self._raise_if_cancelled()
            await job.submit(source, home)
        await self._note(phase="running")
        await in_thread(None, shutil.rmtree, folder, ignore_errors=True)
        return job

    async def _packed(
        self, make: PackageMaker, folder: Path, *, is_anew: bool = False
    ) -> tuple[TrainingPackage, FileSource]:
        loop = asyncio.get_running_loop()

        def on_progress(phase: str, done: int, total: int) -> None:
            self._raise_if_cancelled()
            if self._ticker.is_due(monotonic()) or done == total:
                event = PackageProgress(
                    job_id=self.record.job_id,
                    phase=phase,  # type: ignore[arg-type]  # the makers' own words
                    done=done,
                    total=total,
                )
                with contextlib.suppress(RuntimeError):  # the loop may be gone
                    loop.call_soon_threadsafe(self._tools.emit, event)

        def find_videos(files: Sequence[VideoFile], used: int) -> Mapping[int, str]:
            if not files or not Settings.load().use_worker_videos:
                return {}
            looking = asyncio.run_coroutine_threadsafe(
                self._find_videos(read_videos(files), used), loop
            )
            until = monotonic() + FIND_VIDEOS_TIMEOUT_S
            while not looking.done():
                # The loop may have no time left for us.
                futures.wait([looking], FIND_VIDEOS_POLL_S)
                if self._is_cancelled.is_set() or monotonic() > until:
                    looking.cancel()
                    return {}
            return {} if looking.cancelled() else looking.result()

        def work() -> tuple[TrainingPackage, FileSource]:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            shutil.rmtree(folder / OPENED, ignore_errors=True)
            package = make(folder, on_progress, find_videos)
            return package, scan_package(
                package,
                lambda done, total: on_progress("reading", done, total),
                is_anew=is_anew,
            )

        package, source = await in_thread(None, work)
        # Read from the package, which may have been built before a crash.
        names = await in_thread(None, video_names, folder / BUILT)
        self.record = msgspec.structs.replace(self.record, video_names=names)
        spec = msgspec.structs.replace(
            package.spec,
            owner=owner_name(),
            name=self.record.name or package.spec.name,
            publish=self.record.publish,
        )
        if not self.record.name:
            self.record = msgspec.structs.replace(self.record, name=spec.name)
        return dataclasses.replace(package, spec=spec), source

    async def _find_videos(
        self, files: Mapping[LocalFile, VideoFile], used: int
    ) -> dict[int, str]:
        """Ask the worker which of the videos it has; none where it cannot tell."""
        try:
            link = await self._tools.connect(self.record.worker_id)
            found = await find_files(link, list(files))
        except RtcError as error:
            logger.info("The videos of %s are sent: %s", self.record.job_id, error)
            return {}
        # Two videos at one place could not be told apart when they come home.
        places = {one.location: files[one.file] for one in reversed(found.files)}
        self._tools.emit(
            VideosFound(
                job_id=self.record.job_id,
                found=len(places),
                total=used,
                is_complete=found.is_complete,
            )
        )
        return {video.index: place for place, video in places.items()}

    def _raise_if_cancelled(self) -> None:
        if self._is_cancelled.is_set():
            raise JobCancelled(job_id=self.record.job_id)

    # -- results -------------------------------------------------------------------

    async def _come_home(self, job: FollowedJob) -> None:
        if job.mirror.state not in _WITH_RESULTS:
            await self._forget()
            return
        output = await in_thread(None, existing_or_kept, Path(self.record.output))
        try:
            imported = await job.bring_home(
                output,
                PREDICTIONS_FOLDER if self.record.project is not None else "",
                self.record.video_names,
            )
        except ResultsRemoved:
            # No later SLEAP will find them either.
            await self._forget()
            raise
        models = models_in_order(imported.models, job.mirror.spec)
        await self._note(
            phase="home",
            models=[str(path.resolve()) for path in models],
            predictions=[str(path.resolve()) for path in imported.predictions],
        )
        await in_thread(
            None, shutil.rmtree, images_folder(self.record.job_id), ignore_errors=True
        )
        self._tools.emit(results_home(self.record))
        missing = missing_results(job.mirror, imported)
        if missing:
            raise ResultsIncomplete(
                step=f"The job {job.job_id}", missing=", ".join(missing)
            )
        if job.mirror.error is None and job.mirror.state is not JobState.SUCCEEDED:
            raise JobLost(job_id=job.job_id, reason="it ended without a reason")

    def _fail(self, error: RtcError) -> None:
        logger.warning("The run %s: %s", self.record.job_id, error)
        if self._job is not None and self._job.mirror.last_seq > 0:
            self._job.failed(error)
            return
        if self._make is None and not isinstance(error, JobUnknown):
            return  # results may wait there; a later SLEAP tries again
        # The worker has not taken it; another try builds anew, from the project as
        # it is then.
        shutil.rmtree(runs_folder(self.record.job_id), ignore_errors=True)
        is_cancelled = isinstance(error, JobCancelled)
        state = JobState.CANCELLED if is_cancelled else JobState.SUBMITTED
        self._tools.records.remove(self.record.job_id)
        self._tools.drop(self.record.job_id)
        self._tools.emit(JobChanged(job=self.row(state, error), error=error.to_wire()))

    # -- its record ----------------------------------------------------------------

    async def _note(self, **changes: Any) -> None:
        self.record = msgspec.structs.replace(self.record, **changes)
        try:
            await in_thread(None, self._tools.records.write, self.record)
        except OSError as error:
            raise StorageFailed(
                place="the list of runs", reason=error.strerror or "it is not written"
            ) from error

    async def _forget(self) -> None:
        await in_thread(None, self._tools.records.remove, self.record.job_id)
        folder = runs_folder(self.record.job_id)
        await in_thread(None, shutil.rmtree, folder, ignore_errors=True)


def read_videos(files: Sequence[VideoFile]) -> dict[LocalFile, VideoFile]:
    """Read what videos are known by; those that cannot be read are left out."""
    read: dict[LocalFile, VideoFile] = {}
    for file in files:
        with contextlib.suppress(OSError):
            read[LocalFile.read(file.path)] = file
    return read


def step_facts(package: TrainingPackage) -> dict[int, StepFacts]:
    """Read what the package's configurations say to the monitors."""
    facts: dict[int, StepFacts] = {}
    for index, step in enumerate(package.spec.steps):
        if isinstance(step, TrainStep):
            text = (package.root / step.config).read_text(encoding="utf-8")
            facts[index] = _facts(yaml.safe_load(text))
    return facts


def _facts(config: Any) -> StepFacts:
    trainer = _section(config, "trainer_config")
    stopping = _section(trainer, "early_stopping")
    patience, min_delta = stopping.get("patience"), stopping.get("min_delta")
    return StepFacts(
        patience=patience if isinstance(patience, int) else None,
        min_delta=float(min_delta) if isinstance(min_delta, int | float) else None,
        shows_images=trainer.get("visualize_preds_during_training") is True,
    )


def _section(config: Any, name: str) -> dict[str, Any]:
    section = config.get(name) if isinstance(config, dict) else None
    return section if isinstance(section, dict) else {}
