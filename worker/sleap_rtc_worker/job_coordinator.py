"""Which jobs this worker has, which runs next, and whether a new one is taken.

First come first served over a number of slots. Called by each client's link service
and by the worker's root; the jobs themselves are `JobRun`.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from sleap_rtc_plugin.protocol.errors import (
    BadRequest,
    ConfigRefused,
    JobConflict,
    JobUnknown,
    RemoteProtocolError,
    RtcError,
    TrainerMissing,
    TransferTakenOver,
    WorkerBusy,
)
from sleap_rtc_plugin.protocol.inference_options import check_options
from sleap_rtc_plugin.protocol.job import JobState
from sleap_rtc_plugin.protocol.limits import (
    MAX_JOB_PAGE_BYTES,
    MAX_JOBS_PER_PAGE,
    MAX_JOBS_QUEUED,
    STAGING_IDLE_TIMEOUT_S,
)
from sleap_rtc_plugin.protocol.messages import (
    FileMeta,
    JobSpec,
    JobSubmit,
    JobSummary,
    PredictStep,
    TrainStep,
)
from sleap_rtc_plugin.protocol.paths import check_component, check_path
from sleap_rtc_plugin.transport.chunk_reader import ChunkSource
from sleap_rtc_plugin.transport.effects import in_thread
from sleap_rtc_plugin.transport.transfer_pump import TransferPump
from sleap_rtc_worker.config_check import check_configs
from sleap_rtc_worker.job_run import JobRun, StepTools
from sleap_rtc_worker.journal import JobRecord
from sleap_rtc_worker.state_manager import StateManager
from sleap_rtc_worker.training_config import (
    guard_model_config,
    guard_training_config,
    label_members,
)

__all__ = ["JobCoordinator"]

logger = logging.getLogger(__name__)

_WAITING = (JobState.SUBMITTED, JobState.STAGING, JobState.QUEUED)


class JobCoordinator:
    """Every job of one worker."""

    def __init__(
        self,
        *,
        tools: StepTools,
        state: StateManager,
        can_train: bool,
        slots: int = 1,
        mounts: Sequence[Path] = (),
        on_ended: Callable[[JobRun], None] = lambda run: None,
    ) -> None:
        """Take up the journal's jobs; nothing runs before `resume`.

        Args:
            tools: what jobs are run with.
            state: told how much there is to do.
            can_train: whether sleap-nn is there at all.
            slots: how many jobs run at once.
            mounts: folders in which videos of labels may lie.
            on_ended: told of every job that reaches an end.
        """
        self._tools = tools
        self._state = state
        self._can_train = can_train
        self._slots = slots
        self._mounts = mounts
        self._on_ended = on_ended
        self._jobs: dict[str, JobRun] = {}
        self._staging: dict[str, asyncio.Task[None]] = {}
        self._granting = False
        for record in tools.journal.jobs():
            self._jobs[record.job_id] = JobRun(record, tools, self._changed)

    async def resume(self) -> None:
        """Go on with what a worker before us left behind."""
        for run in list(self._jobs.values()):
            if not run.has_ended:
                await run.resume()
        self._grant_slots()

    async def close(self) -> None:
        """Let go of every job; runners go on and can be adopted later."""
        for task in list(self._staging.values()):
            task.cancel()
        await asyncio.gather(*self._staging.values(), return_exceptions=True)
        for run in self._jobs.values():
            await run.close()

    # -- looking up ------------------------------------------------------------------

    def find(self, job_id: str) -> JobRun:
        """Return a job.

        Raises:
            JobUnknown: there is none of that id.
        """
        run = self._jobs.get(job_id)
        if run is None:
            raise JobUnknown(job_id=job_id)
        return run

    def page(self, after: str | None) -> tuple[list[JobSummary], bool]:
        """Return a page of the jobs, the newest first, and whether more follow.

        Args:
            after: the last job of the page before, or None for the first page.

        Raises:
            JobUnknown: there is no job `after`.
        """
        runs = sorted(
            self._jobs.values(),
            key=lambda run: (run.record.created_at, run.job_id),
            reverse=True,
        )
        if after is not None:
            runs = runs[runs.index(self.find(after)) + 1 :]
        page: list[JobSummary] = []
        size_bytes = 0
        for run in runs[:MAX_JOBS_PER_PAGE]:
            summary = run.summary()
            size_bytes += len(msgspec.json.encode(summary))
            if page and size_bytes > MAX_JOB_PAGE_BYTES:
                break
            page.append(summary)
        return page, len(page) < len(runs)

    @property
    def queue_length(self) -> int:
        """How many jobs wait for a slot."""
        return sum(run.state is JobState.QUEUED for run in self._jobs.values())

    def refusal(self, package_bytes: int) -> RtcError | None:
        """Say why a new job would not be taken now, or None where it would.

        Args:
            package_bytes: the size of its package.
        """
        if not self._can_train:
            return TrainerMissing(worker=self._state.name)
        if not self._state.takes_jobs:
            return WorkerBusy(worker=self._state.name, reason="it is closing")
        if sum(run.state in _WAITING for run in self._jobs.values()) >= MAX_JOBS_QUEUED:
            return WorkerBusy(worker=self._state.name, reason="its queue is full")
        return self._tools.files.space_fault(package_bytes)

    # -- submitting ------------------------------------------------------------------

    def submit(self, message: JobSubmit, submitter: str) -> JobRun:
        """Take a job, or return it where it is known already.

        Raises:
            JobConflict: the id is known with other contents.
            RtcError: the job is not acceptable, or none is taken now.
        """
        known = self._jobs.get(message.job_id)
        if known is not None:
            if known.record.spec != message.spec:
                raise JobConflict(job_id=message.job_id)
            if known.record.package_digest != message.package_digest:
                # A file changed on its way; only who sends it may say so.
                if known.state is not JobState.STAGING or (
                    known.record.submitter != submitter
                ):
                    raise JobConflict(job_id=message.job_id)
                known.expect(message.package_digest, message.package_bytes)
            return known
        self._expire_abandoned()
        refusal = self.refusal(message.package_bytes)
        if refusal is not None:
            raise refusal
        check_spec(message.spec)
        record = JobRecord(
            job_id=message.job_id,
            spec=message.spec,
            package_digest=message.package_digest,
            package_bytes=message.package_bytes,
            submitter=submitter,
            created_at=time.time(),
        )
        run = JobRun(record, self._tools, self._changed)
        self._jobs[message.job_id] = run
        run.begin_staging()
        return run

    async def stage(
        self, meta: FileMeta, pump: TransferPump, sources: Sequence[ChunkSource] = ()
    ) -> None:
        """Receive a job's package over a link, check it, and queue the job.

        A newer link takes over from an older one: the client that was cut off came
        back before we noticed that it was gone. What `sources` have need not be sent.

        Raises:
            RtcError: the package did not arrive or is not acceptable.
            LinkClosed: the link ended; what arrived is kept for a resume.
        """
        run = self.find(meta.job_id)
        if meta.purpose != "package" or run.state is not JobState.STAGING:
            raise RemoteProtocolError(detail="files that no job waits for")
        record = run.record
        # The size was compared with the disk when the job was submitted.
        if (meta.manifest_digest, meta.total_bytes) != (
            record.package_digest,
            record.package_bytes,
        ):
            raise JobConflict(job_id=meta.job_id)
        older = self._staging.pop(meta.job_id, None)
        if older is not None:
            older.cancel()
            await asyncio.gather(older, return_exceptions=True)
        arrived = asyncio.Event()
        task = asyncio.get_running_loop().create_task(
            self._stage(run, meta, pump, sources, arrived)
        )
        self._staging[meta.job_id] = task
        try:
            await task
        except asyncio.CancelledError:
            # Where the link did not end, its sender must hear of it, unless it heard
            # that all arrived: a transfer ends once.
            error = run.error if run.has_ended else None
            if self._staging.get(meta.job_id) is not task:
                error = error or TransferTakenOver(job_id=meta.job_id)
            if error is None:
                raise
            if not arrived.is_set():
                raise error from None
        finally:
            if self._staging.get(meta.job_id) is task:
                del self._staging[meta.job_id]

    async def _stage(
        self,
        run: JobRun,
        meta: FileMeta,
        pump: TransferPump,
        sources: Sequence[ChunkSource],
        arrived: asyncio.Event,
    ) -> None:
        area = self._tools.files.staging_area(run.job_id)
        area.sources = sources
        await pump.receive(meta, area)
        arrived.set()
        if run.state is not JobState.STAGING:
            return
        try:
            await self._check_package(run)
        except RtcError as error:
            run.package_refused(error)
        else:
            if run.state is JobState.STAGING:
                run.package_staged()

    async def _check_package(self, run: JobRun) -> None:
        """Guard every configuration, then let sleap-nn look at the result.

        Raises:
            RtcError: the package is not acceptable.
        """
        files, spec = self._tools.files, run.record.spec
        members = await in_thread(None, files.members, run.job_id)
        configs: dict[str, Path] = {}
        weights: set[str] = set()
        labels: set[str] = set()
        made: set[str] = set()
        for index, step in enumerate(spec.steps):
            match step:
                case TrainStep():
                    refuse_run_folder(step, members)
                    text = files.read_config(run.job_id, step.config)
                    guarded = guard_training_config(
                        text, step, members, allow_wandb=spec.allow_wandb
                    )
                    configs[step.config] = files.write_config(
                        run.job_id, index, step, guarded.text
                    )
                    weights.update(guarded.weights)
                    labels.update(label_members(guarded.text, members), [step.labels])
                    made.add(f"models/{step.run_name}")
                case PredictStep():
                    labels.add(step.data)
                    for model in brought_models(step, members, made):
                        name = f"{model}/training_config.yaml"
                        text = files.read_config(run.job_id, name)
                        guard_model_config(text, name)
                        weights.update(checkpoints_in(model, members))
        root = files.package_dir(run.job_id)
        await check_configs(
            configs,
            weights={member: root / member for member in sorted(weights)},
            labels={member: root / member for member in sorted(labels)},
            mounts=self._mounts,
            worker=self._state.name,
        )

    def _expire_abandoned(self) -> None:
        """Drop jobs whose package never came."""
        oldest = time.time() - STAGING_IDLE_TIMEOUT_S
        for run in list(self._jobs.values()):
            idle = run.job_id not in self._staging and run.record.created_at < oldest
            if run.state is JobState.STAGING and idle:
                run.cancel()

    # -- running -----------------------------------------------------------------------

    def _changed(self, run: JobRun) -> None:
        if run.has_ended:
            staging = self._staging.get(run.job_id)
            if staging is not None:
                staging.cancel()
            self._on_ended(run)
        # A state may change while slots are being granted; the loop there sees it.
        asyncio.get_running_loop().call_soon(self._grant_slots)

    def _grant_slots(self) -> None:
        runs = list(self._jobs.values())
        running = sum(not r.has_ended and r.state not in _WAITING for r in runs)
        for run in runs:
            if running < self._slots and run.state is JobState.QUEUED:
                run.grant_slot()
                running += 1
        self._state.set_load(running_jobs=running, queue_length=self.queue_length)


def check_spec(spec: JobSpec) -> None:
    """Check every name and option of a job before its package is asked for.

    Raises:
        RtcError: one of them is not acceptable.
    """
    run_names: set[str] = set()
    for step in spec.steps:
        match step:
            case TrainStep():
                check_path(step.config)
                check_path(step.labels)
                name = check_component(step.run_name).casefold()
                if name in run_names:
                    raise BadRequest(reason=f"two models are named {step.run_name}")
                run_names.add(name)
            case PredictStep():
                check_path(step.data)
                check_component(step.output)
                for model in step.models:
                    check_path(model)
                check_options(step.options)


def refuse_run_folder(step: TrainStep, members: frozenset[str]) -> None:
    """Check that a package brings nothing into the folder that a training writes to.

    It would be taken for what the training has made: results, and the checkpoint
    that it goes on from after a crash.

    Raises:
        ConfigRefused: it does.
    """
    folder = f"models/{step.run_name}/".casefold()
    if any(member.casefold().startswith(folder) for member in members):
        raise ConfigRefused(
            config=step.config,
            reason=f"the package holds a model {step.run_name} already, and a training "
            "needs another run name",
        )


def brought_models(
    step: PredictStep, members: frozenset[str], made: set[str]
) -> list[str]:
    """Check that an inference step finds its data and models.

    Args:
        step: the inference.
        members: the package's files.
        made: model folders that earlier steps of the job make.

    Returns:
        The model folders that came with the package.

    Raises:
        ConfigRefused: something is missing.
    """
    brought: list[str] = []
    if step.data not in members:
        raise ConfigRefused(
            config="of the inference", reason=f"the package does not hold {step.data}"
        )
    for model in step.models:
        if model in made:
            continue
        if f"{model}/training_config.yaml" not in members:
            raise ConfigRefused(
                config="of the inference", reason=f"there is no model {model}"
            )
        brought.append(model)
    return brought


def checkpoints_in(model: str, members: frozenset[str]) -> list[str]:
    """Return the weight files of a model folder in the package."""
    return [
        member
        for member in members
        if member.startswith(f"{model}/")
        and member.lower().endswith((".ckpt", ".pt", ".pth", ".h5"))
    ]
