"""An announcement of a model is taken for no more than it can be."""

import pytest

from sleap_rtc_plugin.protocol.signaling_messages import JobComplete
from sleap_rtc_plugin.session.model_news import ModelNews, read_news

JOB = "job-" + "a" * 20
MODEL = "model-" + "b" * 20


def announced(model: str, alias: str = "") -> ModelNews | None:
    message = JobComplete(job_id=JOB, state="succeeded", model=model, alias=alias)
    return read_news("worker-1", message)


def test_a_model_with_its_alias() -> None:
    assert announced(MODEL, "flies-v1") == ModelNews("worker-1", JOB, MODEL, "flies-v1")


@pytest.mark.parametrize("model", ["", "model-1", "../../etc/passwd", MODEL + "0"])
def test_a_job_without_a_model_is_no_news(model: str) -> None:
    assert announced(model) is None


@pytest.mark.parametrize("alias", ["", "\x1b[31m", "Flies", MODEL, "a" * 65])
def test_an_alias_that_cannot_be_one_is_not_told(alias: str) -> None:
    news = announced(MODEL, alias)
    assert news is not None
    assert news.alias == ""
