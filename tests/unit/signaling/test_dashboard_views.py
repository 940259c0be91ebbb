"""What a page shows of peers, whatever they wrote about themselves."""

import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc_plugin.protocol.job import JobState
from sleap_rtc_plugin.protocol.signaling_messages import PeerInfo, PeerMetadata
from sleap_rtc_signaling.dashboard.views import (
    RoomView,
    duration_words,
    left_words,
    moment,
    room_view,
    size_words,
)
from sleap_rtc_signaling.limits import (
    MAX_ENDED_JOBS_SHOWN,
    MAX_JOBS_READ_PER_WORKER,
    MAX_JOBS_SHOWN,
)

NOW = 1_700_000_000.0
TRAINING: dict[str, Any] = {
    "id": "0a1b2c3d",
    "state": "running",
    "kind": "train",
    "head": "centroid",
    "step": 0,
    "steps": 2,
    "since": int(NOW - 700),
    "epoch": 11,
    "epochs": 100,
    "loss": 0.0123,
    "loss_of": "val",
    "curve": [0.5, 0.1, 0.0123],
}


def peer(peer_id: str = "worker-a", role: str = "worker", **values: Any) -> PeerInfo:
    metadata = PeerMetadata(properties=values)
    return PeerInfo(peer_id=peer_id, role=role, metadata=metadata, connected_at=NOW)  # type: ignore[arg-type]


def seen(*peers: PeerInfo) -> RoomView:
    return room_view(peers, NOW)


def test_a_worker_with_a_gpu() -> None:
    (worker,) = seen(
        peer(
            name="gpu-1",
            status="busy",
            gpu_model="NVIDIA A100",
            gpu_count=2,
            gpu_memory_mb=81_920,
            gpu_memory_free_mb=20_480,
            running_jobs=1,
            slots=2,
            queue_length=3,
            sleap_nn_version="0.3.5",
        )
    ).workers
    assert (worker.name, worker.state.word, worker.state.shape) == (
        "gpu-1",
        "Busy",
        "half",
    )
    assert worker.gpu == "NVIDIA A100, 2 of them"
    assert worker.memory is not None
    assert worker.memory.words == "20.0 of 80.0 GiB free"
    assert worker.memory.used_percent == 75
    assert (worker.running, worker.waiting) == ("1 of 2", "3")


def test_a_worker_that_says_nothing_is_shown_by_its_id() -> None:
    (worker,) = seen(peer()).workers
    assert worker.name == "worker-a"
    assert worker.state.word == "Unknown"
    assert worker.memory is None
    assert worker.version == "not installed"


def test_a_worker_without_a_gpu() -> None:
    (worker,) = seen(peer(device="cpu")).workers
    assert worker.gpu == "none (CPU)"


@pytest.mark.parametrize("free", [-1, 10**9, "many", True, None, 1.5])
def test_free_memory_that_cannot_be_is_not_believed(free: object) -> None:
    (worker,) = seen(peer(gpu_memory_mb=1_024, gpu_memory_free_mb=free)).workers
    assert worker.memory is not None
    assert 0 <= (worker.memory.used_percent or 0) <= 100


def test_a_training_with_its_epochs_and_loss() -> None:
    (job,) = seen(peer(name="gpu-1", jobs=[TRAINING])).jobs
    assert (job.title, job.step) == ("Training, centroid", "step 1 of 2")
    assert (job.progress, job.percent) == ("epoch 12 of 100", 12)
    assert (job.loss, job.loss_of) == ("0.0123", "validation")
    assert (job.worker, job.ago) == ("gpu-1", "for 11 min")
    assert "polyline" in job.spark


def test_a_prediction_with_its_frames() -> None:
    row = {**TRAINING, "kind": "predict", "done": 30, "total": 120}
    (job,) = seen(peer(jobs=[row])).jobs
    assert (job.title, job.progress, job.percent) == (
        "Prediction",
        "30 of 120 frames",
        25,
    )


def test_what_ended_is_apart_the_newest_first_and_without_a_bar() -> None:
    rows = [
        {**TRAINING, "id": f"{n}", "state": state, "since": NOW - n * 100}
        for n, state in enumerate(["succeeded", "failed", "running", "queued"], 1)
    ]
    view = seen(peer(jobs=list(reversed(rows))))
    assert [job.id for job in view.ended] == ["1", "2"]
    assert [job.id for job in view.jobs] == ["3", "4"]
    assert all(job.percent is None for job in view.ended)
    assert view.ended[0].ago == "1 min ago"


def test_every_state_has_a_word_and_a_shape() -> None:
    for state in JobState:
        view = seen(peer(jobs=[{**TRAINING, "state": state.value}]))
        (job,) = [*view.jobs, *view.ended]
        assert job.state.word
        assert job.state.shape


@pytest.mark.parametrize(
    "broken",
    [
        None,
        7,
        "job",
        [],
        {},
        {**TRAINING, "id": "<b>"},
        {**TRAINING, "id": "a" * 21},
        {**TRAINING, "state": "dancing"},
        {**TRAINING, "kind": "steal"},
        {**TRAINING, "since": -1},
        {**TRAINING, "epoch": -1},
        {**TRAINING, "epoch": "12"},
        {**TRAINING, "curve": [1.0] * 65},
        {**TRAINING, "curve": ["1"]},
        {**TRAINING, "total": 2**60},
    ],
)
def test_a_job_that_is_not_as_it_must_be_is_left_out(broken: object) -> None:
    view = seen(peer(jobs=[broken, TRAINING]))
    assert [job.id for job in view.jobs] == [TRAINING["id"]]


@pytest.mark.parametrize("loss", [math.inf, -math.inf, math.nan])
def test_a_loss_that_is_no_number_is_not_shown(loss: float) -> None:
    row = {**TRAINING, "loss": loss, "curve": [loss, 1.0, 2.0]}
    (job,) = seen(peer(jobs=[row])).jobs
    assert job.loss == ""
    assert "inf" not in job.spark
    assert "nan" not in job.spark


def test_a_head_that_nobody_knows_is_not_shown() -> None:
    (job,) = seen(peer(jobs=[{**TRAINING, "head": "<script>"}])).jobs
    assert job.title == "Training"


def test_names_are_cleaned() -> None:
    (worker,) = seen(peer(name="a\u202eb\x1b[31m\u2066c" + "x" * 500)).workers
    assert worker.name.startswith("a b [31m c")
    assert len(worker.name) <= 120


def test_there_are_never_more_rows_than_may_be_shown() -> None:
    live = [TRAINING] * (MAX_JOBS_READ_PER_WORKER + 5)
    over = [{**TRAINING, "state": "failed"}] * MAX_JOBS_READ_PER_WORKER
    view = seen(
        *(peer(f"worker-{n}", jobs=live) for n in range(10)),
        *(peer(f"worker-{n}", jobs=over) for n in range(10, 20)),
    )
    assert len(view.jobs) == MAX_JOBS_SHOWN
    assert view.left_out == 10 * MAX_JOBS_READ_PER_WORKER - MAX_JOBS_SHOWN
    assert len(view.ended) == MAX_ENDED_JOBS_SHOWN


def test_people_are_counted_and_not_named() -> None:
    view = seen(peer("client-a", "client", name="Ann"), peer("client-b", "client"))
    assert view.clients == 2
    assert view.workers == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(sorted(TRAINING)), inner, max_size=12)
    ),
    max_leaves=20,
)


@given(
    st.dictionaries(
        st.sampled_from(
            ["name", "status", "gpu_model", "gpu_memory_mb", "slots", "jobs"]
        ),
        JSON,
    ),
    st.dictionaries(st.sampled_from(sorted(TRAINING)), JSON),
)
def test_nothing_that_a_peer_writes_breaks_a_page(
    values: dict[str, Any], job: dict[str, Any]
) -> None:
    view = seen(peer(**values), peer(jobs=[{**TRAINING, **job}]))
    assert len(view.workers) == 2
    json.dumps(msgspec.to_builtins([job.title for job in view.jobs]))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "under a minute"),
        (61, "1 min"),
        (3_600, "1 h 00 min"),
        (7_500, "2 h 05 min"),
        (86_400, "1 day"),
        (200_000, "2 days"),
    ],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert duration_words(seconds) == words


def test_a_week_is_one_a_moment_later_too() -> None:
    assert left_words(7 * 86_400 - 0.2) == "7 days"


def test_sizes_and_times_in_words() -> None:
    assert [size_words(n) for n in (5, 2_048, 3 * 1024**3, 5 * 1024**4)] == [
        "5 B",
        "2.0 KiB",
        "3.0 GiB",
        "5.0 TiB",
    ]
    assert moment(0) == "1970-01-01T00:00:00Z"
    assert moment(2**53).startswith("9999")
