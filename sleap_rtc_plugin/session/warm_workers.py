"""Which worker predicts with a model of the room: a free one that has it at hand.

Pure: what workers answered to `registry_query` in, a model's id or a worker out. Called
by `submission`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sleap_rtc_plugin.protocol.errors import (
    ModelAmbiguous,
    ModelNotFound,
    ModelTooNew,
    NoWorker,
)
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.model_records import is_model_id
from sleap_rtc_plugin.protocol.signaling_messages import RegistryResponse
from sleap_rtc_plugin.session.worker_info import WorkerInfo

__all__ = ["Answers", "WorkerAnswers", "choose_warm", "model_id_of"]

Answers = Mapping[str, RegistryResponse]
"""What a worker said of models, by the names that it was asked for."""


@dataclass(frozen=True)
class WorkerAnswers:
    """A worker and what it said; of a model that it did not answer for, nothing."""

    worker: WorkerInfo
    answers: Answers


def model_id_of(ref: str, asked: Sequence[WorkerAnswers]) -> str:
    """Return the id of the model that an alias or id means in the room.

    Raises:
        ModelNotFound: no worker knows it.
        ModelAmbiguous: it is another model on each of several workers.
    """
    found: dict[str, list[str]] = {}
    for one in asked:
        answer = one.answers.get(ref)
        if answer is not None and is_model_id(answer.model):
            found.setdefault(answer.model, []).append(one.worker.name)
    if not found:
        raise ModelNotFound(model=clean_text(ref))
    if len(found) > 1:
        candidates = ", ".join(
            f"{model} (on {', '.join(names)})" for model, names in sorted(found.items())
        )
        raise ModelAmbiguous(model=clean_text(ref), candidates=clean_text(candidates))
    return next(iter(found))


def choose_warm(
    models: Sequence[str], asked: Sequence[WorkerAnswers], *, preferred: str
) -> WorkerInfo:
    """Pick a worker that can predict with all of these models.

    One that begins at once comes before one that has a queue; among those, one that
    has the models at hand; then the shortest queue.

    Args:
        models: their ids; at least one.
        asked: the workers and what they said of each id.
        preferred: the peer id in the session string.

    Raises:
        NoWorker: nobody is there.
        ModelNotFound: no worker knows one of the models.
        ModelTooNew: no worker's sleap-nn can load one of them.
    """
    if not asked:
        raise NoWorker(server="the signaling server")
    knowing = list(asked)
    for model in models:
        knowing = [one for one in knowing if _knows(one, model)]
        if not knowing:
            raise ModelNotFound(model=model)
    loading = list(knowing)
    for model in models:
        before, loading = loading, [o for o in loading if o.answers[model].loads]
        if not loading:
            raise _too_new(model, before[0])

    def rank(one: WorkerAnswers) -> tuple[bool, bool, int, int, int, bool]:
        worker = one.worker
        missing = sum(not one.answers[model].held for model in models)
        return (
            not worker.is_available,
            worker.jobs_before > 0,
            missing,
            worker.jobs_before,
            worker.queue_length + worker.running_jobs,
            worker.peer_id != preferred,
        )

    return min(loading, key=rank).worker


def _knows(one: WorkerAnswers, model: str) -> bool:
    answer = one.answers.get(model)
    return answer is not None and answer.model == model


def _too_new(model: str, one: WorkerAnswers) -> ModelTooNew:
    needed = clean_text(one.answers[model].sleap_nn_version)
    return ModelTooNew(
        model=model,
        needed=needed or "of a newer release",
        worker=one.worker.name,
        found=one.worker.sleap_nn_version or "none",
    )
