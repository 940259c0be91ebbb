"""Fair turns, whatever jobs come in whatever order: nobody starves, nobody jumps in."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc_worker.job_queue import Running, Waiting, next_job, places

users = st.sampled_from("abcde")
# What happens: a user queues a job, a job begins if it can, a running job ends.
happenings = st.lists(
    st.one_of(
        st.tuples(st.just("queue"), users),
        st.tuples(st.just("begin"), st.none()),
        st.tuples(st.just("end"), st.integers(0, 7)),
    ),
    max_size=80,
)


class Worker:
    """A worker of so many slots that does nothing but take turns."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.count = 0
        self.waiting: list[Waiting] = []
        self.running: list[Running] = []
        self.served: dict[str, int] = {}
        self.begun: list[Waiting] = []

    def queue(self, user: str) -> None:
        self.count += 1
        self.waiting.append(Waiting(f"job-{self.count}", user, self.count))

    def begin(self) -> Waiting | None:
        if len(self.running) >= self.slots:
            return None
        job = next_job(self.waiting, Counter(r.user for r in self.running), self.served)
        if job is not None:
            self.count += 1
            self.waiting.remove(job)
            self.running.append(Running(job.job_id, job.user, self.count))
            self.served[job.user] = self.count
            self.begun.append(job)
        return job

    def end(self, number: int) -> None:
        if self.running:
            self.count += 1
            gone = self.running.pop(number % len(self.running))
            self.served[gone.user] = self.count

    def play(self, what: list[tuple[str, object]]) -> None:
        for name, detail in what:
            match name:
                case "queue":
                    self.queue(str(detail))
                case "begin":
                    self.begin()
                case _:
                    self.end(int(str(detail)))


@given(happenings, st.integers(1, 3))
def test_a_users_own_jobs_begin_in_their_order(
    what: list[tuple[str, object]], slots: int
) -> None:
    worker = Worker(slots)
    worker.play(what)
    for user in "abcde":
        tickets = [job.ticket for job in worker.begun if job.user == user]
        assert tickets == sorted(tickets)


@given(happenings, st.integers(1, 3), users)
def test_who_waits_without_a_running_job_is_passed_once_by_each_other(
    what: list[tuple[str, object]], slots: int, other: str
) -> None:
    """However many jobs the others bring, also users who come later."""
    worker = Worker(slots)
    worker.play(what)
    worker.queue("me")
    passed: Counter[str] = Counter()
    for turn in range(60):
        worker.queue(other)
        worker.queue(f"new-{turn}")
        worker.end(turn)
        job = worker.begin()
        if job is None:
            continue
        if job.user == "me":
            break
        passed[job.user] += 1
    else:
        raise AssertionError("it never began")
    assert all(times == 1 for times in passed.values())
    assert not [user for user in passed if user.startswith("new-")]


@given(happenings, st.integers(1, 3))
def test_every_job_begins_once_all_that_run_have_ended(
    what: list[tuple[str, object]], slots: int
) -> None:
    worker = Worker(slots)
    worker.play(what)
    left = len(worker.waiting)
    for _ in range(left):
        worker.end(0)
        assert worker.begin() is not None
    assert not worker.waiting


@given(happenings, st.integers(1, 3), st.randoms())
def test_a_restarted_worker_decides_the_same(
    what: list[tuple[str, object]], slots: int, random: object
) -> None:
    """The order in which jobs are read from the journal does not matter."""
    worker = Worker(slots)
    worker.play(what)
    shuffled = list(worker.waiting)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    running = Counter(r.user for r in worker.running)
    first = next_job(worker.waiting, running, worker.served)
    assert next_job(shuffled, running, worker.served) == first
    told = places(worker.waiting, worker.running, worker.served, slots)
    assert places(shuffled, worker.running, worker.served, slots) == told


@given(happenings, st.integers(1, 3))
def test_places_are_those_that_come_true_with_one_slot(
    what: list[tuple[str, object]], slots: int
) -> None:
    worker = Worker(slots)
    worker.play(what)
    told = places(worker.waiting, worker.running, worker.served, slots)
    assert sorted(p.position for p in told.values()) == list(range(1, len(told) + 1))
    assert {p.waiting for p in told.values()} <= {len(told)}
    assert set(told) == {job.job_id for job in worker.waiting}
    first = worker.begin() if len(worker.running) < slots else None
    if first is not None:
        assert told[first.job_id].position == 1
    if slots == 1:
        begun = [] if first is None else [first.job_id]
        while worker.waiting:
            worker.end(0)
            job = worker.begin()
            assert job is not None
            begun.append(job.job_id)
        assert begun == sorted(told, key=lambda job_id: told[job_id].position)
