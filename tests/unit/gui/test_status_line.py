"""What the dialog says in each state: one sentence, and how far a package is."""

import dataclasses

import pytest
from support.scripted_host import SERVER, RoomRow, job_row, make_run, make_worker

from sleap_rtc_plugin.companion.messages import (
    PackageProgress,
    TransferProgress,
    VideosFound,
    WorkersChanged,
)
from sleap_rtc_plugin.gui.snapshot import (
    Lab,
    Snapshot,
    Submission,
    after_event,
    entering,
    inside,
)
from sleap_rtc_plugin.gui.status_line import (
    PROGRESS_STEPS,
    progress_of,
    status_of,
    workers_hint,
)
from sleap_rtc_plugin.protocol.job import JobState
from sleap_rtc_plugin.session.run_request import RunRequest, TrainedModel

ROOM = RoomRow(room_id="room-1", server=SERVER)
INSIDE = after_event(
    inside(Snapshot(), ROOM),
    WorkersChanged(workers=[make_worker("w-1", name="gpu-1")]),
)
PREDICTING = make_run(models=[TrainedModel(head="centroid", path="/m")])


def submission(run: RunRequest | None = None, **changes: object) -> Submission:
    values = {"job_id": "j", "worker_id": "w-1", "worker": "gpu-1"}
    return Submission(run=run or make_run(), **{**values, **changes})  # type: ignore[arg-type]


def words(snapshot: Snapshot = INSIDE, **changes: object) -> str:
    status = status_of(dataclasses.replace(snapshot, **changes))  # type: ignore[arg-type]
    assert not status.is_problem
    return status.text


def test_what_to_do_next_until_the_run_can_be_sent() -> None:
    assert "Connect to a lab" in words(Snapshot())
    assert words(entering(Snapshot())) == "Connecting…"
    assert words(inside(Snapshot(), ROOM)) == "Waiting for a worker."
    assert words() == "Choose a worker."
    assert "is not online now" in words(worker_id="w-9", worker_name="gpu-9")
    assert "Press Configure" in words(worker_id="w-1")
    ready = {"worker_id": "w-1", "run": make_run()}
    assert words(**ready) == "Ready to be sent to gpu-1."
    closing = [make_worker("w-1", name="gpu-1", status="closing")]
    snapshot = after_event(INSIDE, WorkersChanged(workers=closing))
    assert words(snapshot, **ready).startswith("gpu-1 takes no jobs now.")


@pytest.mark.parametrize("state", JobState)
@pytest.mark.parametrize("run", [make_run(), PREDICTING], ids=["train", "predict"])
def test_every_state_of_a_queued_job_has_a_sentence(
    state: JobState, run: RunRequest
) -> None:
    sent = submission(run, was_queued=True, job=job_row("j", state))
    said = words(submission=sent)
    assert said.endswith(".")
    assert "gpu-1" in said


def test_a_place_in_the_queue_is_said() -> None:
    job = job_row("j", JobState.QUEUED, position=3, starts_in_s=720.0)
    assert words(submission=submission(was_queued=True, job=job)).startswith(
        "The job is third in the queue of gpu-1 and starts in about 12 min; the monitor"
    )
    job = job_row("j", JobState.QUEUED, position=1)
    assert words(submission=submission(PREDICTING, was_queued=True, job=job)) == (
        "The job is first in the queue of gpu-1. You can close this window."
    )


def test_a_prediction_is_not_called_a_training() -> None:
    for state in (JobState.QUEUED, JobState.RUNNING):
        sent = submission(PREDICTING, was_queued=True, job=job_row("j", state))
        assert "train" not in words(submission=sent)
        assert "monitor" not in words(submission=sent)


@pytest.mark.parametrize(
    ("found", "total", "said"),
    [
        (2, 3, "2 of 3 videos are on gpu-1 already; images of 1 are sent. The package"),
        (1, 2, "1 of 2 videos is on gpu-1 already; images of 1 are sent. The package"),
        (1, 1, "1 of 1 video is on gpu-1 already. The package"),
        (0, 2, "The package is on its way"),
    ],
)
def test_videos_that_the_worker_has(found: int, total: int, said: str) -> None:
    event = VideosFound(job_id="j", found=found, total=total)
    sent = after_event(dataclasses.replace(INSIDE, submission=submission()), event)
    assert words(sent).startswith(said)


def test_a_search_for_videos_that_was_not_finished_is_told() -> None:
    event = VideosFound(job_id="j", found=0, total=2, is_complete=False)
    assert words(submission=submission(videos=event)).startswith(
        "gpu-1 could not look everywhere for the videos in time. The package"
    )


def test_the_turns_of_sending() -> None:
    assert "on its way to gpu-1" in words(submission=submission())
    assert "trying again" in words(submission=submission(is_cut_off=True))
    assert "being cancelled" in words(submission=submission(is_cancelling=True))
    over = submission(was_cancelled=True, is_over=True)
    assert words(submission=over) == "The job was cancelled; nothing of it was kept."
    home = submission(was_queued=True, are_results_home=True, is_over=True)
    assert words(submission=home) == "The results of gpu-1 are home."


def test_problems_come_first_and_the_gravest_of_them() -> None:
    failed = dataclasses.replace(INSIDE, submission=submission(problem="It failed."))
    said = [status_of(failed)]
    for change in ({"problem": "Oh."}, {"dead": "It is dead."}):
        failed = dataclasses.replace(failed, **change)
        said.append(status_of(failed))
    assert [status.text for status in said] == ["It failed.", "Oh.", "It is dead."]
    assert all(status.is_problem for status in said)
    assert status_of(dataclasses.replace(INSIDE, lab=Lab.CUT_OFF)).is_problem


def test_a_note_stands_before_what_to_do() -> None:
    assert words(note="Mind this.") == "Mind this. Choose a worker."


def test_hints_of_an_empty_table() -> None:
    assert workers_hint(INSIDE) == ""
    assert "Connect" in workers_hint(Snapshot())
    assert "Looking" in workers_hint(inside(Snapshot(), ROOM))
    empty = after_event(inside(Snapshot(), ROOM), WorkersChanged(workers=[]))
    assert "sleap-remote worker --session" in workers_hint(empty)


# -- progress --------------------------------------------------------------------------


def transfer(**values: object) -> Submission:
    event = TransferProgress(job_id="j", purpose="package", **values)  # type: ignore[arg-type]
    return submission(transfer=event)


def test_no_progress_where_nothing_is_sent() -> None:
    assert progress_of(None) is None
    assert progress_of(submission(was_queued=True)) is None
    assert progress_of(submission(is_over=True)) is None


def test_the_phases_of_a_package() -> None:
    start = progress_of(submission())
    assert start is not None
    assert start.value is None
    for phase, details in (
        ("loading", "5 of 10"),
        ("embedding", "5 of 10"),
        ("reading", "5 bytes of 10 bytes"),
    ):
        event = PackageProgress(job_id="j", phase=phase, done=5, total=10)  # type: ignore[arg-type]
        shown = progress_of(submission(package=event))
        assert shown is not None
        assert (shown.value, shown.details) == (PROGRESS_STEPS // 2, details)
        unknown = PackageProgress(job_id="j", phase=phase)  # type: ignore[arg-type]
        shown = progress_of(submission(package=unknown))
        assert shown is not None
        assert (shown.value, shown.details) == (None, "")


def test_a_transfer_says_only_what_is_known() -> None:
    shown = progress_of(transfer(done=0, total=1000))
    assert shown is not None
    assert (shown.value, shown.details) == (0, "0 bytes of 1.0 kB")
    shown = progress_of(transfer(done=1000, total=1000))
    assert shown is not None
    assert shown.value == PROGRESS_STEPS
    assert "checks" in shown.text


@pytest.mark.parametrize(
    ("done", "total"), [(0, 0), (5, -1), (-5, 10), (10**30, 1), (-(10**30), 10**30)]
)
def test_numbers_that_cannot_be_stay_in_the_bar(done: int, total: int) -> None:
    rates = {"rate": float("inf"), "seconds_left": float("nan")}
    shown = progress_of(transfer(done=done, total=total, **rates))
    assert shown is not None
    assert shown.value is None or 0 <= shown.value <= PROGRESS_STEPS
    shown = progress_of(submission(is_cancelling=True))
    assert shown is not None
    assert shown.text == "Cancelling…"
