"""The whole way of a job: open, choose, send, follow, bring home, report.

The use case behind `sleap-remote train` and `sleap-remote predict`; what is shown of
it, and how the user steps in, is the observer's business.
"""

import dataclasses
import getpass
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec
import platformdirs

from sleap_rtc_plugin.protocol.errors import (
    JobLost,
    ResultsIncomplete,
    ResultsRemoved,
    RtcError,
    SourceChanged,
    WorkerAway,
)
from sleap_rtc_plugin.protocol.ids import clean_text, new_job_id
from sleap_rtc_plugin.protocol.job import ENDED, JobState
from sleap_rtc_plugin.protocol.job_mirror import JobMirror, JobNews
from sleap_rtc_plugin.protocol.limits import RECONNECT_BUDGET_S
from sleap_rtc_plugin.protocol.messages import (
    JobSpec,
    ModelPublished,
    PredictStep,
    TrainStep,
)
from sleap_rtc_plugin.protocol.model_records import Publication
from sleap_rtc_plugin.protocol.retries import Retries
from sleap_rtc_plugin.protocol.session_string import Session
from sleap_rtc_plugin.session.inference_package import (
    InferenceRequest,
    build_inference,
)
from sleap_rtc_plugin.session.job_course import JobCourse
from sleap_rtc_plugin.session.model_lookup import find_in_room, find_in_store
from sleap_rtc_plugin.session.package_scan import scan_package
from sleap_rtc_plugin.session.pending_jobs import (
    PendingJob,
    PendingJobs,
    submission_key,
)
from sleap_rtc_plugin.session.report import Report, Stopwatch
from sleap_rtc_plugin.session.result_import import ImportedResults
from sleap_rtc_plugin.session.settings import ModelPlace
from sleap_rtc_plugin.session.steady_room import SteadyRoom
from sleap_rtc_plugin.session.training_package import TrainingPackage, open_package
from sleap_rtc_plugin.session.unpacked_packages import UnpackedPackages
from sleap_rtc_plugin.session.worker_files import FoundFiles
from sleap_rtc_plugin.session.worker_info import WorkerInfo
from sleap_rtc_plugin.session.worker_link import WorkerLink
from sleap_rtc_plugin.transport.effects import in_thread
from sleap_rtc_plugin.transport.file_source import FileSource
from sleap_rtc_plugin.transport.shared_storage import SharedStorage
from sleap_rtc_plugin.transport.transfer_pump import TransferTotals
from sleap_rtc_plugin.transport.transport_options import TransportOptions

__all__ = [
    "Detached",
    "Observer",
    "Submission",
    "SubmissionPlan",
    "missing_results",
    "models_in_order",
    "owner_name",
    "report_results",
]

ABANDONED_AFTER_S = 24 * 3600.0
_BEFORE_START = (JobState.SUBMITTED, JobState.STAGING, JobState.QUEUED)
_WITH_RESULTS = (JobState.SUCCEEDED, JobState.FAILED, JobState.LOST)


@dataclass(frozen=True)
class SubmissionPlan:
    """What the user asked for.

    Attributes:
        session: the room.
        package: a training package, zip or folder; or an inference, whose package is
            built first.
        output: where the results go.
        worker: a worker's name, or None for the one with the shortest queue.
        detach: leave once the job is queued.
        reconnect_for_s: how long to go on without a link to the worker that has the
            job, before the user is told how to come back to it.
        keep_wandb_key: send the Weights & Biases key that the package holds.
        shared_storage_root: where a folder is mounted that workers may mount too.
        transport: how data channels go; the environment's choice by default.
        publication: what the trained models are to be published as, or None.
        models_at: where the models of the room are, if this machine reaches their
            store; its workers are asked otherwise.
    """

    session: Session
    package: Path | InferenceRequest
    output: Path
    worker: str | None = None
    detach: bool = False
    reconnect_for_s: float = RECONNECT_BUDGET_S
    keep_wandb_key: bool = False
    shared_storage_root: Path | None = None
    transport: TransportOptions | None = None
    publication: Publication | None = None
    models_at: ModelPlace | None = None


class Observer(Protocol):
    """Who is told how a submission goes, and lets the user step in."""

    def reading(self, done_bytes: int, total_bytes: int) -> None:
        """The package is being read."""

    def embedding(self, done: int, total: int) -> None:
        """Frames are put into the labels that are sent."""

    def noted(self, notes: Sequence[str]) -> None:
        """The package is ready, and this is to be known of it."""

    def chosen(self, worker: WorkerInfo, job_id: str, *, resumed: bool) -> None:
        """A worker was chosen; `resumed` where the job is known already."""

    def transferring(self, purpose: str, totals: TransferTotals) -> None:
        """Bytes are moving: the `package` to the worker, or the `results` home."""

    def found_on_mounts(self, worker: str, found: FoundFiles) -> None:
        """The worker was asked which of the package's files it has already."""

    def event(self, event: JobNews, mirror: JobMirror) -> None:
        """Something happened to the job."""

    def waiting_for(self, worker: str, job_id: str) -> None:
        """The worker that has the job is away, and waited for."""

    def left_behind(self, worker: str, job_id: str) -> None:
        """The user chose another worker; the job there goes on."""

    def link_lost(self, error: RtcError) -> None:
        """The worker cannot be reached; it is tried again."""

    def link_back(self) -> None:
        """The worker is there again, and nothing was missed."""

    def interruptions(self, job: JobCourse) -> AbstractContextManager[None]:
        """Return the context in which the user may stop, cancel or leave."""
        ...


class Detached(Exception):
    """The user leaves; the job goes on."""


class Submission:
    """One submission, from the package on the disk to the results beside it."""

    def __init__(
        self,
        plan: SubmissionPlan,
        observer: Observer,
        report: Report,
        pending: PendingJobs | None = None,
    ) -> None:
        """Prepare; `report` is filled as things happen."""
        self._plan = plan
        self._observer = observer
        self._report = report
        self._pending = pending or PendingJobs()
        self._watch = Stopwatch(report.seconds)
        self._key = ""
        self._workdir = Path()
        self._asked = plan.package
        self._home = Path()
        self._video_names: Mapping[str, str] = {}
        self._sent_before = self._moved = 0

    async def run(self) -> None:
        """Carry it through.

        Raises:
            RtcError: why it did not end well.
            FileNotFoundError: the package does not exist.
            Detached: the user left; the job goes on.
        """
        self._workdir = await in_thread(None, _make_workdir)
        try:
            if isinstance(self._asked, InferenceRequest):
                self._asked = await self._resolved(self._asked)
            self._watch.start("package")
            package, source = await in_thread(None, self._pack)
            self._watch.stop("package")
            self._offered(package, source)
            self._observer.noted(package.notes)
            async with self._room(package.spec.owner) as room:
                await self._submit(room, package, source)
        finally:
            await in_thread(None, shutil.rmtree, self._workdir, ignore_errors=True)

    # -- the models ------------------------------------------------------------------

    async def _resolved(self, request: InferenceRequest) -> InferenceRequest:
        """Find out which models of the room are meant, before anything is packed.

        Raises:
            RtcError: there is no such model, or the room cannot be asked.
        """
        refs = request.unresolved
        if not refs:
            return request
        place = self._plan.models_at
        if place is not None and place.store is not None:
            return request.with_ids(
                await find_in_store(refs, self._plan.session, place)
            )
        async with self._room(owner_name()) as room:
            return request.with_ids(await find_in_room(refs, room, self._plan.worker))

    def _room(self, owner: str) -> SteadyRoom:
        root = self._plan.shared_storage_root
        return SteadyRoom(
            self._plan.session,
            owner=owner,
            shared_storage=SharedStorage(root) if root is not None else None,
            transport=self._plan.transport,
        )

    # -- the package -----------------------------------------------------------------

    def _pack(self, *, is_anew: bool = False) -> tuple[TrainingPackage, FileSource]:
        package = self._opened(is_anew)
        spec = msgspec.structs.replace(
            package.spec,
            owner=owner_name(),
            allow_wandb=self._plan.keep_wandb_key,
            publish=self._plan.publication,
        )
        source = scan_package(package, self._observer.reading, is_anew=is_anew)
        self._home, self._video_names = package.home, package.video_names
        return dataclasses.replace(package, spec=spec), source

    def _opened(self, is_anew: bool) -> TrainingPackage:
        asked = self._asked
        if isinstance(asked, InferenceRequest):
            return build_inference(
                asked,
                self._workdir,
                keep_wandb_key=self._plan.keep_wandb_key,
                on_frame=self._observer.embedding,
            )
        unpacked = UnpackedPackages(
            platformdirs.user_cache_path("sleap-remote") / "unpacked"
        )
        return open_package(
            asked,
            self._workdir,
            keep_wandb_key=self._plan.keep_wandb_key,
            unpacked=None if is_anew else unpacked,
        )

    def _offered(self, package: TrainingPackage, source: FileSource) -> None:
        """Note what is to be sent, and by which name the same command finds it."""
        self._report.bytes_total = source.manifest.total_bytes
        self._key = submission_key(
            room_id=self._plan.session.room_id,
            package_digest=source.manifest_digest,
            spec=msgspec.json.encode(package.spec),
            output=self._plan.output.resolve(),
        )

    # -- the job ---------------------------------------------------------------------

    async def _submit(
        self, room: SteadyRoom, package: TrainingPackage, source: FileSource
    ) -> None:
        known = self._pending.find(self._key)
        worker, known = await self._choose(room, known, package.spec)
        job_id = known.job_id if known else new_job_id()
        self._report.job_id, self._report.worker = job_id, worker.name
        if known is None:
            await (await room.stay()).check_acceptance(
                worker,
                package_bytes=source.manifest.total_bytes,
                steps=len(package.spec.steps),
            )
        await self._link(room, worker.peer_id)
        reached = dataclasses.replace(worker, link_kind=self._report.link.kind)
        self._observer.chosen(reached, job_id, resumed=known is not None)
        # Written before the job exists, so that no crash can make two of it.
        record = PendingJob(job_id, worker.peer_id, worker.name)
        self._pending.remember(self._key, record)
        course = JobCourse(
            JobMirror(job_id, package.spec),
            lambda: self._link(room, worker.peer_id),
            self,
            worker=worker.name,
            reconnect_for_s=self._plan.reconnect_for_s,
        )
        await self._carry_out(course, record, source, is_known=known is not None)

    async def _link(self, room: SteadyRoom, worker_id: str) -> WorkerLink:
        link = await room.link(worker_id)
        self._report.link.kind = link.link.kind
        self._report.link.engine = link.link.engine
        return link

    async def _choose(
        self, room: SteadyRoom, known: PendingJob | None, spec: JobSpec
    ) -> tuple[WorkerInfo, PendingJob | None]:
        """Go on with the worker that has the job, unless the user names another.

        Nothing is trained twice because a worker is away for a moment.
        """
        wanted = self._plan.worker
        if known is not None and wanted not in (None, known.worker, known.worker_id):
            worker = await (await room.stay()).choose(wanted)
            if worker.peer_id == known.worker_id:
                return worker, known
            self._observer.left_behind(known.worker, known.job_id)
            return worker, None
        if known is None:
            stay = await room.stay()
            models = published_models(spec)
            if models:
                return await stay.choose_for_models(wanted, models), None
            return await stay.choose(wanted), None
        self._report.job_id, self._report.worker = known.job_id, known.worker
        there = {one.peer_id: one for one in await room.workers()}.get(known.worker_id)
        if there is not None:
            return there, known
        self._observer.waiting_for(known.worker, known.job_id)
        budget_s = self._plan.reconnect_for_s
        back = await room.wait_for(known.worker_id, Retries(budget_s))
        if back is None:
            raise WorkerAway(
                worker=known.worker, job_id=known.job_id, seconds=f"{budget_s:.0f}"
            )
        return back, known

    async def _carry_out(
        self,
        course: JobCourse,
        record: PendingJob,
        source: FileSource,
        *,
        is_known: bool,
    ) -> None:
        self._watch.start("queue")
        await course.announce(source, is_known=is_known)
        if course.submitted is not None and not course.mirror.last_seq:
            self._report.state = course.submitted.value
        with self._observer.interruptions(course):
            try:
                await self._send(course, source)
            except SourceChanged as error:
                await self._send_anew(course, record, error)
            if self._plan.detach:
                await course.reach(lambda m: m.state not in _BEFORE_START[:2])
                if not course.mirror.has_ended:
                    raise Detached
            await course.follow()
        self._watch.stop("run")
        await self._bring_home(course)
        self._pending.forget(self._key)
        if course.mirror.error is not None:
            raise course.mirror.error
        if course.mirror.state is not JobState.SUCCEEDED:
            raise JobLost(job_id=course.job_id, reason="it ended without a reason")

    async def _send(self, course: JobCourse, source: FileSource) -> None:
        self._watch.stop("queue")
        self._watch.start("transfer")
        try:
            await course.send(
                source, self._sending, self._home, self._observer.found_on_mounts
            )
        finally:
            self._watch.stop("transfer")
            if course.mirror.state in _BEFORE_START:
                self._watch.start("queue")

    def _sending(self, totals: TransferTotals) -> None:
        """Note what has been sent, over however many links."""
        if totals.moved_bytes < self._moved:
            # Another attempt, which counts anew and finds there what was sent.
            self._sent_before += self._moved
        self._moved = totals.moved_bytes
        self._report.bytes_sent = self._sent_before + totals.moved_bytes
        self._report.bytes_reused = max(0, totals.reused_bytes - self._sent_before)
        self._observer.transferring("package", totals)

    async def _send_anew(
        self, course: JobCourse, record: PendingJob, error: SourceChanged
    ) -> None:
        """Plan a package that changed on its way once more; it may be complete now.

        Raises:
            SourceChanged: it has become another job, or changed again.
            RtcError: why it did not arrive.
        """
        package, source = await in_thread(None, self._pack, is_anew=True)
        if package.spec != course.mirror.spec:
            raise error
        self._pending.forget(self._key)
        self._offered(package, source)
        self._pending.remember(self._key, record)
        await course.announce(source, is_known=True)
        await self._send(course, source)

    async def _bring_home(self, course: JobCourse) -> None:
        mirror = course.mirror
        if mirror.state not in _WITH_RESULTS:
            return
        self._watch.start("results")
        try:
            imported = await course.bring_home(
                self._plan.output,
                lambda totals: self._observer.transferring("results", totals),
                video_names=self._video_names,
            )
        except ResultsRemoved:
            # The same command again is to train again.
            self._pending.forget(self._key)
            raise
        finally:
            self._watch.stop("results")
        report_results(self._report, mirror, imported)

    # -- what the course tells -------------------------------------------------------

    def event(self, event: JobNews, mirror: JobMirror) -> None:
        """Something happened to the job."""
        self._report.state = mirror.state.value
        if isinstance(event, ModelPublished):
            self._report.set_published(event)
        if mirror.state not in _BEFORE_START:
            self._watch.stop("queue")
            if mirror.state not in ENDED:
                self._watch.start("run")
        self._observer.event(event, mirror)

    def link_lost(self, error: RtcError) -> None:
        """The worker cannot be reached; it is tried again."""
        self._observer.link_lost(error)

    def link_back(self) -> None:
        """The worker is there again."""
        self._observer.link_back()


def report_results(
    report: Report, mirror: JobMirror, imported: ImportedResults
) -> None:
    """Note what came home.

    Raises:
        ResultsIncomplete: less than the job's success stands for.
    """
    models = models_in_order(imported.models, mirror.spec)
    report.models = [str(path.resolve()) for path in models]
    report.predictions = [str(path.resolve()) for path in imported.predictions]
    missing = missing_results(mirror, imported)
    if missing:
        raise ResultsIncomplete(
            step=f"The job {mirror.job_id}", missing=", ".join(missing)
        )


def missing_results(mirror: JobMirror, imported: ImportedResults) -> list[str]:
    """Return what a job that says it succeeded should have brought home and did not.

    Of a job that was stopped, only what its user kept is there.
    """
    if mirror.state is not JobState.SUCCEEDED or mirror.was_stopped:
        return []
    models = [path.name for path in imported.models]
    files = [path.name for path in imported.predictions]
    missing: list[str] = []
    for step in mirror.spec.steps:
        match step:
            case TrainStep(run_name=name):
                if not any(model.startswith(name) for model in models):
                    missing.append(f"models/{name}")
            case PredictStep(output=name):
                # ` (2)` may stand before the last ending.
                stem = name.removesuffix(".slp")
                if not any(file.startswith(stem) for file in files):
                    missing.append(name)
    return missing


def models_in_order(models: Sequence[Path], spec: JobSpec) -> list[Path]:
    """Return model folders in the order in which their job trained them."""
    names = [step.run_name for step in spec.steps if isinstance(step, TrainStep)]

    def place(folder: Path) -> int:
        # ` (2)` may follow a run name.
        places = (i for i, name in enumerate(names) if folder.name.startswith(name))
        return next(places, len(names))

    return sorted(models, key=place)


def published_models(spec: JobSpec) -> list[str]:
    """Return the ids of the room's models that a job predicts with, each once."""
    steps = (step for step in spec.steps if isinstance(step, PredictStep))
    return list(dict.fromkeys(step.published for step in steps if step.published))


def owner_name() -> str:
    """Return the name that others in the room see beside the job."""
    try:
        return clean_text(getpass.getuser())
    except (KeyError, OSError, ImportError):
        return ""


def _make_workdir() -> Path:
    """Make a private folder for the package; clear those that crashes left behind."""
    base = platformdirs.user_cache_path("sleap-remote") / "packages"
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    oldest = time.time() - ABANDONED_AFTER_S
    for folder in base.iterdir():
        if folder.stat().st_mtime < oldest:
            shutil.rmtree(folder, ignore_errors=True)
    return Path(tempfile.mkdtemp(dir=base))
