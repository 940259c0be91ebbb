"""Whose turn it is, and what is told to those who wait."""

import pytest

from sleap_rtc_worker.job_estimates import (
    Ended,
    EpochPace,
    time_left,
    typical_duration,
)
from sleap_rtc_worker.job_queue import (
    Place,
    Running,
    Waiting,
    has_share,
    next_job,
    places,
)

SHAPE = (True, True, False)


def waiting(*users: str, lasts_s: float | None = None) -> list[Waiting]:
    return [
        Waiting(f"job-{number}", user, number, lasts_s)
        for number, user in enumerate(users, start=1)
    ]


def order(told: dict[str, Place]) -> list[str]:
    return sorted(told, key=lambda job_id: told[job_id].position)


def test_users_take_turns() -> None:
    jobs = waiting("ann", "ann", "ann", "bob", "cleo", "bob")
    assert order(places(jobs, [], {}, 1)) == [
        f"job-{number}" for number in (1, 4, 5, 2, 6, 3)
    ]


def test_who_runs_a_job_lets_others_go_first() -> None:
    jobs = waiting("ann", "bob")
    job = next_job(jobs, {"ann": 1}, {"bob": 99})
    assert job is not None
    assert job.user == "bob"
    assert next_job([], {}, {}) is None


def test_a_new_user_does_not_pass_those_who_waited_before() -> None:
    jobs = [Waiting("old", "ann", 3), Waiting("new", "bob", 9)]
    job = next_job(jobs, {}, {"ann": 7})
    assert job is not None
    assert job.job_id == "old"


def test_jobs_of_a_journal_without_tickets_are_taken_by_their_ids() -> None:
    jobs = [Waiting("b", "ann", 0), Waiting("a", "ann", 0)]
    job = next_job(jobs, {}, {})
    assert job is not None
    assert job.job_id == "a"


def test_estimates_add_up() -> None:
    jobs = waiting("ann", "bob", "cleo", lasts_s=100.0)
    running = [Running("r1", "dan", 1, 30.0), Running("r2", "eve", 2, 50.0)]
    told = places(jobs, running, {}, 2)
    assert [told[job.job_id].starts_in_s for job in jobs] == [30.0, 50.0, 130.0]
    assert {place.waiting for place in told.values()} == {3}


def test_what_is_not_known_is_not_told() -> None:
    [job] = waiting("ann")
    assert places([job], [Running("r", "b", 1, None)], {}, 1) == {
        job.job_id: Place(1, 1, None)
    }
    # The other slot is free soon, and what comes after an unknown length is unknown.
    running = [Running("r1", "b", 1, None), Running("r2", "c", 2, 60.0)]
    told = places(waiting("ann", "dan"), running, {}, 2)
    assert [told[f"job-{n}"].starts_in_s for n in (1, 2)] == [60.0, None]


def test_a_free_slot_is_taken_now() -> None:
    [job] = waiting("ann")
    assert places([job], [], {}, 1)[job.job_id].starts_in_s == 0.0


# -- shares --------------------------------------------------------------------------


def taken(most: int, users: int) -> list[int]:
    """Return how many places each user gets who comes and takes all he may."""
    own = [0] * users
    for user in range(users):
        while has_share(own[user], sum(own), most):
            own[user] += 1
    return own


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        (1, [1, 0]),
        (2, [1, 1, 0]),
        (3, [2, 1, 0]),
        (4, [2, 1, 1, 0]),
        (100, [50, 25, 13, 6, 3, 2, 1, 0]),
    ],
)
def test_who_comes_gets_half_of_what_is_free(most: int, expected: list[int]) -> None:
    assert taken(most, len(expected)) == expected


@pytest.mark.parametrize("most", range(1, 101))
def test_who_has_none_waiting_gets_any_place_that_is_free(most: int) -> None:
    assert all(has_share(0, waiting, most) for waiting in range(most))
    assert not has_share(0, most, most)


def test_a_queue_that_has_become_shorter_takes_nothing() -> None:
    # A worker that is started again with a smaller `--max-jobs` keeps its jobs.
    assert not has_share(0, 5, 3)
    assert not has_share(5, 5, 3)


# -- durations -----------------------------------------------------------------------


def test_a_typical_duration_is_that_of_jobs_alike() -> None:
    history = [Ended(SHAPE, 10.0), Ended((False,), 1.0), Ended(SHAPE, 30.0)]
    assert typical_duration(SHAPE, history) == 20.0
    assert typical_duration((True,), history) is None


def left(
    ran_s: float,
    *,
    epochs_left_s: float | None = None,
    is_last_step: bool = True,
    limit_s: float | None = None,
) -> float | None:
    history = [Ended(SHAPE, 100.0), Ended(SHAPE, 300.0)]
    return time_left(
        SHAPE,
        history,
        ran_s=ran_s,
        is_last_step=is_last_step,
        epochs_left_s=epochs_left_s,
        limit_s=limit_s,
    )


def test_what_is_left_of_a_running_job() -> None:
    assert left(50.0) == 150.0
    # Longer than the shorter one: it is compared with the longer.
    assert left(150.0) == 150.0
    assert left(400.0) is None
    assert left(400.0, epochs_left_s=20.0) == 20.0
    assert left(50.0, epochs_left_s=20.0) == 20.0
    assert left(400.0, epochs_left_s=20.0, is_last_step=False) is None
    assert left(50.0, limit_s=60.0) == 10.0
    assert left(400.0, limit_s=500.0) is None


def test_the_pace_of_epochs() -> None:
    pace = EpochPace()
    pace.note(0, 100.0)
    assert pace.left_s(10, 105.0) is None
    pace.note(1, 110.0)
    pace.note(1, 115.0)
    pace.note(2, 120.0)
    assert pace.left_s(10, 125.0) == pytest.approx(75.0)
    assert pace.left_s(0, 125.0) is None
    assert pace.left_s(2, 125.0) == 0.0
    # A restart goes back: what was measured before says nothing of it.
    pace.note(1, 130.0)
    assert pace.left_s(10, 135.0) is None
    pace.note(None, 140.0)
    assert pace.left_s(10, 145.0) is None
