"""Publishes what a job has trained, once its results are collected.

A top-down pair is one model. It never fails the job: what became of it is told in
an event and a line of the log. Doing it twice is doing it once, so a worker that was
killed meanwhile begins again. Called by `job_run`.
"""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

import msgspec

from sleap_rtc_plugin.protocol.errors import (
    BadRequest,
    RtcError,
    StoreUnreachable,
)
from sleap_rtc_plugin.protocol.messages import JobSpec, TrainStep
from sleap_rtc_plugin.protocol.model_records import (
    Publication,
    TrainingFacts,
    type_of,
)
from sleap_rtc_plugin.registry.model_files import LocalModel
from sleap_rtc_plugin.transport.effects import in_thread, storage_error, wall_clock
from sleap_rtc_plugin.transport.sparse_files import digest_of_file
from sleap_rtc_worker.file_manager import FileManager
from sleap_rtc_worker.journal import JobRecord
from sleap_rtc_worker.limits import (
    MODEL_PUBLISH_PAUSE_S,
    MODEL_PUBLISH_TIMEOUT_S,
    MODEL_PUBLISH_TRIES,
)
from sleap_rtc_worker.model_pushes import completed, read_trained
from sleap_rtc_worker.model_registry import WorkerModels
from sleap_rtc_worker.publish_outcome import Outcome

__all__ = ["JobPublisher", "publications_of", "refusal", "sets_of"]

logger = logging.getLogger(__name__)


# -- decisions ---------------------------------------------------------------------


def sets_of(spec: JobSpec) -> list[list[TrainStep]]:
    """Return the trainings of a job by the models that they make together.

    Two stages of a top-down model are one, in whichever order they were trained. What
    is no such set is published one by one, and the first training's comes last: that
    is the one that the job is known by.
    """
    steps = [step for step in spec.steps if isinstance(step, TrainStep)]
    for order in (steps, steps[::-1]):
        if type_of([step.head for step in order]) is not None:
            return [order]
    return [[step] for step in reversed(steps)]


def publications_of(wanted: Publication, count: int) -> list[Publication]:
    """Return what each of so many models is published as: the last has the alias."""
    others = msgspec.structs.replace(wanted, alias=None, moves_alias=False)
    return [*[others] * (count - 1), wanted]


def refusal(spec: JobSpec, finished: Sequence[int]) -> BadRequest | None:
    """Say why nothing of a job is published, or None where something is."""
    wanted = {i for i, step in enumerate(spec.steps) if isinstance(step, TrainStep)}
    if wanted <= set(finished):
        return None
    return BadRequest(
        reason="not every training of the job has ended well; what there is can be "
        "published with `sleap-remote models push`"
    )


# -- effects -----------------------------------------------------------------------


class JobPublisher:
    """Publishes the models of one worker's jobs."""

    def __init__(
        self,
        models: WorkerModels,
        files: FileManager,
        *,
        worker_name: str,
        sleap_nn_version: str = "",
    ) -> None:
        """Publish through `models` what lies in the jobs' folders of `files`."""
        self._models = models
        self._files = files
        self._worker_name = worker_name
        self._sleap_nn_version = sleap_nn_version

    async def publish(self, record: JobRecord) -> list[Outcome]:
        """Publish what a job was asked to; empty where it was not, or need not say so.

        Args:
            record: the job, with its results collected.
        """
        spec = record.spec
        if spec.publish is None:
            return []
        why_not = refusal(spec, record.finished_steps)
        if why_not is not None:
            # A job that failed says by itself what is missing.
            return [Outcome(error=why_not)] if record.error is None else []
        sets = sets_of(spec)
        outcomes = []
        for steps, wanted in zip(
            sets, publications_of(spec.publish, len(sets)), strict=True
        ):
            outcome = await self._patiently(record, steps, wanted)
            logger.info("The job %s: %s", record.job_id, outcome.line)
            outcomes.append(outcome)
        return outcomes

    async def _patiently(
        self, record: JobRecord, steps: list[TrainStep], wanted: Publication
    ) -> Outcome:
        """Try until it is done, makes no sense, or takes too long."""
        pause_s = MODEL_PUBLISH_PAUSE_S
        try:
            async with asyncio.timeout(MODEL_PUBLISH_TIMEOUT_S):
                for last in (*[False] * (MODEL_PUBLISH_TRIES - 1), True):
                    try:
                        return await self._publish(record, steps, wanted)
                    except RtcError as error:
                        if last or not error.retryable:
                            return Outcome(error=error)
                        logger.warning("The job %s: %s", record.job_id, error)
                    await asyncio.sleep(pause_s)
                    pause_s *= 2
        except TimeoutError:
            pass
        reason = f"publishing took longer than {MODEL_PUBLISH_TIMEOUT_S:.0f} s"
        store = self._models.registry.store_name
        return Outcome(error=StoreUnreachable(store=store, reason=reason))

    async def _publish(
        self, record: JobRecord, steps: list[TrainStep], wanted: Publication
    ) -> Outcome:
        names = [step.run_name for step in steps]
        folders = self._files.model_dirs(record.job_id, names)
        labels = self._files.package_dir(record.job_id) / steps[0].labels
        local, dataset_digest = await in_thread(
            None, _read, folders, labels, record.spec.name
        )
        seen = TrainingFacts(
            dataset_digest=dataset_digest,
            duration_s=record.ran_s or None,
            sleap_nn_version=self._sleap_nn_version,
        )
        owner = record.spec.owner
        published = await self._models.registry.publish(
            local,
            publication=wanted,
            by=owner or record.submitter,
            trained_at=wall_clock(),
            trained_by=owner,
            trained_on=self._worker_name,
            training=completed(local.training, seen),
        )
        self._models.warm(published.details.record)
        has_alias = wanted.alias is not None and published.alias_error is None
        return Outcome(
            model=published.details.record.id,
            alias=wanted.alias if has_alias else None,
            error=published.alias_error,
        )


def _read(folders: list[Path], labels: Path, name: str) -> tuple[LocalModel, str]:
    """Read a model that was trained, and the digest of what it was trained on."""
    try:
        digest = digest_of_file(labels, lambda: None)
    except OSError as error:
        raise storage_error(error, labels, place="the worker's disk") from None
    return read_trained(folders, name), digest.hex()
