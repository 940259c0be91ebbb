"""An announcement of a model is taken for no more than it can be."""

import pytest

from sleap_rtc_plugin.protocol.codec import encode_peer_payload
from sleap_rtc_plugin.protocol.session_string import Session
from sleap_rtc_plugin.protocol.signaling_messages import JobComplete, RelayedPeerMessage
from sleap_rtc_plugin.session.model_news import ModelNews, read_news
from sleap_rtc_plugin.session.remote_session import RemoteSession

JOB = "job-" + "a" * 20
MODEL = "model-" + "b" * 20
SESSION = Session(
    url="http://gpu-1:8080",
    room_id="room-1",
    token="a.b.c",
    peer_id="worker-1",
    secret=b"s" * 32,
)


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


def test_a_room_hears_of_it_while_it_is_entered() -> None:
    heard: list[ModelNews] = []
    remote = RemoteSession(SESSION, on_model=heard.append)
    for model in ("", MODEL):
        complete = JobComplete(job_id=JOB, state="succeeded", model=model, alias="a")
        payload = encode_peer_payload(complete)
        relayed = RelayedPeerMessage(id="m-1", from_="worker-1", payload=payload)
        remote._on_relayed(relayed)
    assert heard == [ModelNews("worker-1", JOB, MODEL, "a")]
