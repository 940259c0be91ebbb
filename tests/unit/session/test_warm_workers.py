"""Which model a name means in a room, and which worker predicts with it."""

from typing import Any

import pytest

from sleap_rtc_plugin.protocol.errors import (
    ModelAmbiguous,
    ModelNotFound,
    ModelTooNew,
    NoWorker,
)
from sleap_rtc_plugin.protocol.signaling_messages import RegistryResponse
from sleap_rtc_plugin.session.warm_workers import (
    WorkerAnswers,
    choose_warm,
    model_id_of,
)
from sleap_rtc_plugin.session.worker_info import WorkerInfo

FIRST, SECOND = (f"model-{digit * 20}" for digit in "12")


def answer(model: str = FIRST, **rest: Any) -> RegistryResponse:
    values = {"held": False, **rest}
    return RegistryResponse(request_id="q", model=model, **values)


def worker(
    name: str, *answers: RegistryResponse, by: str = "", **rest: Any
) -> WorkerAnswers:
    values: dict[str, Any] = {
        "peer_id": f"worker-{name}",
        "name": name,
        "status": "available",
        "device": "cpu",
        "gpu_model": None,
        "gpu_memory_mb": None,
        "gpu_free_mb": None,
        "queue_length": 0,
        "running_jobs": 0,
        "sleap_nn_version": "0.3.5",
    }
    told = {by or one.model: one for one in answers}
    return WorkerAnswers(WorkerInfo(**values | rest), told)


def choose(*asked: WorkerAnswers, models: tuple[str, ...] = (FIRST,)) -> str:
    return choose_warm(models, asked, preferred="worker-liked").name


def test_a_name_means_what_the_workers_say() -> None:
    silent = worker("silent")
    none = worker("none", answer(model=""), by="flies")
    one, two = (worker(name, answer(), by="flies") for name in "ab")
    assert model_id_of("flies", [silent, none, one, two]) == FIRST
    with pytest.raises(ModelNotFound, match="no model flies"):
        model_id_of("flies", [silent, none])
    other = worker("c", answer(SECOND), by="flies")
    with pytest.raises(ModelAmbiguous, match=r"on a, b.*on c"):
        model_id_of("flies", [one, two, other])


def test_an_answer_that_is_no_id_counts_for_nothing() -> None:
    with pytest.raises(ModelNotFound):
        model_id_of("flies", [worker("a", answer("../../x"), by="flies")])


def test_one_that_has_it_comes_first() -> None:
    cold, warm = worker("cold", answer()), worker("warm", answer(held=True))
    assert choose(cold, warm) == "warm"


def test_a_free_one_comes_before_a_warm_one_with_a_queue() -> None:
    cold = worker("cold", answer())
    warm = worker("warm", answer(held=True), running_jobs=1)
    assert choose(warm, cold) == "cold"
    away = worker("away", answer(held=True), status="maintenance")
    assert choose(away, cold) == "cold"


def test_one_that_has_more_of_them_comes_first() -> None:
    both = {"held": True}
    half = worker("half", answer(held=True), answer(SECOND))
    all_ = worker("all", answer(**both), answer(SECOND, **both))
    assert choose(half, all_, models=(FIRST, SECOND)) == "all"


def test_one_that_cannot_load_it_is_left_out() -> None:
    old = worker("old", answer(held=True, loads=False, sleap_nn_version="0.4.0"))
    assert choose(old, worker("new", answer())) == "new"
    with pytest.raises(ModelTooNew, match=r"0\.4\.0, and the worker old has 0\.3\.5"):
        choose(old)


def test_one_that_knows_another_model_is_left_out() -> None:
    with pytest.raises(ModelNotFound):
        choose(worker("a", answer(SECOND), by=FIRST), worker("b"))
    with pytest.raises(NoWorker):
        choose()
