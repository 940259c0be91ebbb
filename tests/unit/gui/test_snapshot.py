"""The dialog's snapshot: what each event of the companion makes of it."""

import dataclasses

from support.scripted_host import job_row, make_run, make_worker

from sleap_rtc_plugin.companion.messages import (
    JobChanged,
    LinkBack,
    LinkLost,
    PackageProgress,
    ResultsHome,
    RoomChanged,
    RoomRow,
    TransferProgress,
    WorkersChanged,
)
from sleap_rtc_plugin.gui.snapshot import (
    MAX_ROOMS_SHOWN,
    Lab,
    Snapshot,
    Submission,
    after_event,
    clean_rooms,
    entering,
    inside,
    left,
    preselected,
)
from sleap_rtc_plugin.protocol.errors import (
    JobCancelled,
    LinkFailed,
    RtcError,
    StepFailed,
)
from sleap_rtc_plugin.protocol.limits import MAX_PEERS_LISTED

ROOM = RoomRow(room_id="room-1", server="http://lab:8080")
INSIDE = inside(entering(Snapshot()), ROOM)


def with_workers(*names: str, snapshot: Snapshot = INSIDE) -> Snapshot:
    workers = [make_worker(name) for name in names]
    return after_event(snapshot, WorkersChanged(workers=workers))


def submission(**changes: object) -> Submission:
    values = {"job_id": "job-1", "worker_id": "w-1", "worker": "w-1", "run": make_run()}
    return Submission(**{**values, **changes})  # type: ignore[arg-type]


def sent(snapshot: Snapshot | None = None, **changes: object) -> Snapshot:
    snapshot = snapshot or with_workers("w-1", "w-2")
    return dataclasses.replace(
        snapshot, worker_id="w-1", run=make_run(), submission=submission(**changes)
    )


def told(snapshot: Snapshot, state: str, error: RtcError | None = None) -> Submission:
    event = JobChanged(
        job=job_row("job-1", state), error=error.to_wire() if error else None
    )
    submission = after_event(snapshot, event).submission
    assert submission is not None
    return submission


# -- the room and its workers ----------------------------------------------------------


def test_entering_forgets_what_was_seen_of_another_room() -> None:
    snapshot = dataclasses.replace(with_workers("w-1"), problem="Oh.", note="Ah.")
    again = entering(snapshot, ROOM)
    assert (again.lab, again.workers, again.problem, again.note) == (
        Lab.ENTERING,
        None,
        "",
        "",
    )
    assert left(again, "Why not.").problem == "Why not."


def test_the_connection_to_the_room_comes_and_goes() -> None:
    away = RoomChanged(state="offline", room=ROOM, reason="It is gone.\x1b")
    off = after_event(INSIDE, away)
    assert (off.lab, off.note) == (Lab.CUT_OFF, "It is gone.")
    assert not off.can_run
    on = after_event(off, RoomChanged(state="online"))
    assert (on.lab, on.note, on.room) == (Lab.INSIDE, "", ROOM)


def test_a_room_that_is_lost_for_good_is_left() -> None:
    gone = after_event(INSIDE, RoomChanged(state="offline", reason="It is gone.\x1b"))
    assert (gone.lab, gone.room, gone.problem) == (Lab.OUTSIDE, None, "It is gone.")


def test_news_of_a_room_that_we_left_are_not_taken() -> None:
    outside = left(INSIDE)
    assert after_event(outside, RoomChanged(state="online", room=ROOM)) == outside
    assert with_workers("w-1", snapshot=outside) == outside


def test_workers_that_come_before_the_answer_are_kept() -> None:
    early = with_workers("w-1", snapshot=entering(Snapshot()))
    assert [w.worker_id for w in inside(early, ROOM).workers or ()] == ["w-1"]


def test_workers_are_cleaned_counted_and_told_apart() -> None:
    hostile = make_worker(
        "w-1",
        name="\u202e<b>" + "x" * 10_000,
        gpu_model="\x1b",
        status="\u2066busy",
        refusal="a\nb" * 10_000,
    )
    crowd = [make_worker(f"w-{i}") for i in range(10_000)]
    snapshot = after_event(INSIDE, WorkersChanged(workers=[hostile, *crowd]))
    workers = snapshot.workers or ()
    assert len(workers) == MAX_PEERS_LISTED - 1  # one id came twice
    first = workers[0]
    assert first.worker_id == "w-1"
    cleaned = after_event(INSIDE, WorkersChanged(workers=[hostile])).workers or ()
    assert cleaned[0].name.startswith("<b>xxx")
    assert len(cleaned[0].name) <= 120
    assert (cleaned[0].gpu_model, cleaned[0].status) == (None, "busy")
    assert "\n" not in cleaned[0].refusal
    assert len(cleaned[0].refusal) <= 600


def test_a_worker_without_a_name_is_called_by_its_id() -> None:
    event = WorkersChanged(workers=[make_worker("w-1", name="\u200b")])
    assert [w.name for w in after_event(INSIDE, event).workers or ()] == ["w-1"]


def test_the_same_list_again_changes_nothing() -> None:
    snapshot = with_workers("w-1")
    assert with_workers("w-1", snapshot=snapshot) is snapshot


def test_remembered_rooms_are_cleaned_and_counted() -> None:
    rooms = [RoomRow(room_id=f"r{i}", server="\u202eevil") for i in range(1000)]
    shown = clean_rooms(rooms)
    assert len(shown) == MAX_ROOMS_SHOWN
    assert shown[0].server == "evil"


def test_who_is_chosen_for_the_user() -> None:
    assert preselected(with_workers("w-1", "w-2"), "w-2") == "w-2"
    assert preselected(with_workers("w-1", "w-2"), "w-9") is None
    assert preselected(with_workers("w-1"), "w-9") == "w-1"
    assert preselected(INSIDE, "w-1") is None
    refusing = WorkersChanged(workers=[make_worker("w-1", refusal="No.")])
    assert preselected(after_event(INSIDE, refusing), "w-1") is None


def test_the_chosen_worker_may_leave_and_come_back() -> None:
    snapshot = dataclasses.replace(with_workers("w-1"), worker_id="w-1", run=make_run())
    assert snapshot.can_run
    gone = with_workers("w-2", snapshot=snapshot)
    assert (gone.worker, gone.worker_id, gone.can_run) == (None, "w-1", False)
    assert with_workers("w-1", "w-2", snapshot=gone).can_run


# -- the run ---------------------------------------------------------------------------


def test_progress_of_other_jobs_is_not_ours() -> None:
    snapshot = sent()
    for event in (
        PackageProgress(job_id="job-2", phase="reading"),
        TransferProgress(job_id="job-2", purpose="package", done=1, total=2),
        JobChanged(job=job_row("job-2", "queued")),
        LinkLost(job_id="job-2", reason=""),
        ResultsHome(job_id="job-2", worker="w", models=[], predictions=[]),
    ):
        assert after_event(snapshot, event) is snapshot


def test_a_queued_job_is_sent_and_its_run_is_not_sent_again() -> None:
    snapshot = sent()
    assert snapshot.is_sending
    for state in ("packaging", "submitted", "staging"):
        snapshot = after_event(snapshot, JobChanged(job=job_row("job-1", state)))
        assert snapshot.is_sending
    snapshot = after_event(snapshot, JobChanged(job=job_row("job-1", "queued")))
    assert not snapshot.is_sending
    assert snapshot.run is None
    assert not snapshot.can_run


def test_a_run_that_was_configured_meanwhile_is_kept() -> None:
    other = make_run(predictions=[])
    snapshot = dataclasses.replace(sent(), run=other)
    snapshot = after_event(snapshot, JobChanged(job=job_row("job-1", "running")))
    assert snapshot.run == other


def test_a_failure_before_the_queue_can_be_taken_up_again() -> None:
    why = LinkFailed(worker="w-1", reason="no route")
    for state in ("unsent", "staging", "submitted"):
        failed = told(sent(), state, why)
        assert not failed.is_sending
        assert "no route" in failed.problem
        assert failed.can_resume("w-1", make_run())
        assert not failed.can_resume("w-2", make_run())
        assert not failed.can_resume("w-1", make_run(predictions=[]))


def test_a_job_that_failed_on_its_worker_is_not_taken_up_again() -> None:
    why = StepFailed(step="Training", reason="it crashed", last_lines="")
    failed = told(sent(was_queued=True), "failed", why)
    assert failed.is_over
    assert failed.problem
    assert not failed.can_resume("w-1", make_run())
    assert not told(sent(), "rejected", why).can_resume("w-1", make_run())


def test_a_cancelled_job_is_no_problem_and_hears_nothing_more() -> None:
    cancelled = told(sent(), "cancelled", JobCancelled(job_id="job-1"))
    assert (cancelled.was_cancelled, cancelled.problem) == (True, "")
    assert not cancelled.can_resume("w-1", make_run())
    snapshot = sent(was_cancelled=True, is_over=True)
    assert not after_event(
        snapshot, JobChanged(job=job_row("job-1", "queued"))
    ).is_sending
    late = TransferProgress(job_id="job-1", purpose="package", done=1, total=2)
    assert after_event(snapshot, late) is snapshot


def test_a_lost_link_is_shown_until_bytes_move_again() -> None:
    cut = after_event(sent(), LinkLost(job_id="job-1", reason="x"))
    assert cut.submission is not None
    assert cut.submission.is_cut_off
    moving = TransferProgress(job_id="job-1", purpose="package", done=1, total=2)
    for event in (LinkBack(job_id="job-1"), moving):
        back = after_event(cut, event).submission
        assert back is not None
        assert not back.is_cut_off


def test_results_that_move_are_not_the_package() -> None:
    event = TransferProgress(job_id="job-1", purpose="results", done=1, total=2)
    snapshot = sent(was_queued=True)
    assert after_event(snapshot, event) is snapshot


def test_a_job_is_cleaned_before_it_is_kept() -> None:
    event = JobChanged(job=job_row("job-1", "running", worker="\u202ex", error="\x1b"))
    kept = after_event(sent(), event).submission
    assert kept is not None
    assert kept.job is not None
    assert (kept.job.worker, kept.job.error) == ("x", "")
