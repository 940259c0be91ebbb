"""What the room sees of jobs: the order, the bounds, the pace, and no names."""

import json
import math
from typing import Any

import msgspec

from sleap_rtc_plugin.protocol.job import JobState
from sleap_rtc_plugin.protocol.limits import MAX_METADATA_BYTES
from sleap_rtc_plugin.protocol.messages import JobSpec, PredictStep, TrainStep
from sleap_rtc_plugin.protocol.signaling_messages import PeerMetadata
from sleap_rtc_signaling.discovery import check_metadata
from sleap_rtc_worker.job_board import JobBoard, board
from sleap_rtc_worker.journal import JobRecord
from sleap_rtc_worker.limits import (
    BOARD_ENDED_S,
    BOARD_INTERVAL_S,
    MAX_BOARD_BYTES,
    MAX_BOARD_JOBS,
    MAX_TRAIL_POINTS,
)
from sleap_rtc_worker.loss_trail import LossTrail

NOW = 1_000_000.0
SPEC = JobSpec(
    name="secret-project",
    owner="secret-person",
    steps=[
        TrainStep(
            config="secret.yaml",
            labels="secret.slp",
            run_name="secret",
            head="centroid",
        ),
        PredictStep(data="secret.mp4", models=["models/secret"], output="secret.slp"),
    ],
)


def record(number: int, state: JobState, **changes: Any) -> JobRecord:
    made = JobRecord(
        job_id=f"job-{number:020x}"[:24],
        spec=SPEC,
        package_digest="0" * 64,
        package_bytes=10,
        submitter="client-secret",
        created_at=NOW - 100,
        state=state,
    )
    return msgspec.structs.replace(made, **changes)


def running(number: int = 1, **changes: Any) -> JobRecord:
    values = {"step": 0, "started_at": NOW - 50, "epoch": 3, "epochs": [100], "turn": 1}
    return record(number, JobState.RUNNING, **{**values, **changes})


def trail(count: int, of: str = "val") -> LossTrail:
    points = [(n, math.exp(-n / 10)) for n in range(count)]
    return LossTrail(step=0, of=of, points=points)  # type: ignore[arg-type]


def test_a_training_says_where_it_stands() -> None:
    (row,) = board([running(trail=trail(3))], NOW)
    assert row == {
        "id": "00000000",
        "state": "running",
        "kind": "train",
        "head": "centroid",
        "step": 0,
        "steps": 2,
        "since": int(NOW - 50),
        "epoch": 3,
        "epochs": 100,
        "loss": 0.8187,
        "loss_of": "val",
        "curve": [1.0, 0.9048, 0.8187],
    }


def test_a_prediction_tells_frames_and_no_loss_of_the_training_before() -> None:
    (row,) = board([running(step=1, done=5, total=50, trail=trail(3))], NOW)
    assert (row["kind"], row["done"], row["total"]) == ("predict", 5, 50)
    assert not {"loss", "curve", "epoch", "head"} & set(row)


def test_a_head_that_the_client_made_up_is_not_told() -> None:
    step = TrainStep(config="c", labels="l", run_name="r", head="my-cohort")
    spec = JobSpec(name="n", steps=[step])
    assert "head" not in board([running(spec=spec)], NOW)[0]


def test_what_runs_is_first_and_old_ends_are_left_out() -> None:
    records = [
        record(1, JobState.SUCCEEDED, ended_at=NOW - 10),
        record(2, JobState.FAILED, ended_at=NOW - 5),
        record(3, JobState.LOST, ended_at=NOW - BOARD_ENDED_S),
        record(4, JobState.QUEUED, ticket=9),
        record(5, JobState.QUEUED, ticket=8),
        running(6, turn=2),
        running(7, turn=1),
        record(8, JobState.STAGING),
    ]
    states = [row["state"] for row in board(records, NOW)]
    assert states == ["running"] * 2 + ["queued"] * 2 + ["failed", "succeeded"]


def test_no_name_of_the_client_is_in_it() -> None:
    rows = board([running(trail=trail(3)), running(2, step=1)], NOW)
    assert "secret" not in json.dumps(rows)


def test_it_always_fits_into_the_metadata() -> None:
    records = [
        running(n, trail=trail(MAX_TRAIL_POINTS), epochs=[10**6], epoch=10**6)
        for n in range(50)
    ]
    rows = board(records, NOW)
    assert len(rows) == MAX_BOARD_JOBS
    assert len(msgspec.json.encode(rows)) <= MAX_BOARD_BYTES < MAX_METADATA_BYTES
    check_metadata(PeerMetadata(properties={"jobs": rows}))


def test_the_room_is_told_on_a_change_and_not_too_often() -> None:
    shown = JobBoard()
    assert shown.due([], NOW) is None
    assert shown.due([running()], NOW) is not None
    assert shown.due([running(epoch=4)], NOW + BOARD_INTERVAL_S - 1) is None
    later = shown.due([running(epoch=4)], NOW + BOARD_INTERVAL_S)
    assert later is not None and later[0]["epoch"] == 4
    assert shown.due([running(epoch=4)], NOW + 3 * BOARD_INTERVAL_S) is None


def test_a_clock_that_was_set_back_does_not_silence_it() -> None:
    shown = JobBoard()
    assert shown.due([running()], NOW) is not None
    assert shown.due([running(epoch=9)], NOW - 3600) is not None
