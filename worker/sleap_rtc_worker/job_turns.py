"""The slots of a worker and the jobs that wait for them, as they stand now.

Asks `job_queue` who is next, measures how long jobs run, holds them to their limit, and
tells each job that waits its place. Made by the job coordinator.
"""

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from sleap_rtc_plugin.protocol.errors import RuntimeExceeded, StorageFailed
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.job import JobState
from sleap_rtc_plugin.transport.effects import monotonic
from sleap_rtc_worker.gpu_slots import Slot, free_slots
from sleap_rtc_worker.job_estimates import (
    Ended,
    EpochPace,
    shape_of,
    time_left,
    typical_duration,
)
from sleap_rtc_worker.job_queue import Running, Waiting, is_news, next_job, places
from sleap_rtc_worker.job_run import JobRun
from sleap_rtc_worker.journal import JobRecord
from sleap_rtc_worker.limits import (
    MAX_DURATIONS_KEPT,
    PLACES_INTERVAL_S,
    RAN_NOTE_S,
)
from sleap_rtc_worker.retention import JobLimits

__all__ = ["WAITING", "JobTurns", "duration_words", "user_of"]

WAITING = (JobState.SUBMITTED, JobState.STAGING, JobState.QUEUED)
_RUNNING = (JobState.STARTING, JobState.RUNNING, JobState.STOPPING)


def user_of(record: JobRecord) -> str:
    """Return whose turn a job takes: its owner's, or without a name its submitter's.

    A command makes up a new peer id each time, so that alone is nobody.
    """
    owner = clean_text(record.spec.owner).casefold()
    return f"owner {owner}" if owner else f"peer {record.submitter}"


def duration_words(seconds: float) -> str:
    """Say a limit as an owner wrote it: "12 h", "90 min", "1 d 12 h"."""
    parts = []
    left = round(seconds)
    for unit, size in (("d", 24 * 3600), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts) or "0 s"


class _Clock:
    """How long a job was seen running, by a clock that does not jump."""

    def __init__(self, ran_s: float) -> None:
        self.ran_s = ran_s
        self.noted_s = ran_s
        self.pace = EpochPace()
        self.step: int | None = None
        self._seen_at: float | None = None

    def tick(self, *, is_running: bool, now: float) -> None:
        if self._seen_at is not None:
            self.ran_s += now - self._seen_at
        self._seen_at = now if is_running else None


class JobTurns:
    """Who runs, who is next, and what those who wait are told.

    Args:
        jobs: every job by its id, as the coordinator keeps them.
        slots: room for so many jobs at once.
        limits: what the worker's owner allows.
        clock: seconds, of a clock that does not jump.
    """

    def __init__(
        self,
        jobs: Mapping[str, JobRun],
        slots: Sequence[Slot],
        limits: JobLimits,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._jobs = jobs
        self._slots = slots
        self._limits = limits
        self._clock = clock
        self._clocks: dict[str, _Clock] = {}
        self._watchers: dict[str, Callable[[], None]] = {}
        self._telling: asyncio.TimerHandle | None = None
        self._told_at = -PLACES_INTERVAL_S
        records = [run.record for run in jobs.values()]
        self._number = max((max(r.ticket, r.turn, r.left) for r in records), default=0)
        self._served: dict[str, int] = {}
        for record in records:
            user = user_of(record)
            last = max(record.turn, record.left)
            self._served[user] = max(self._served.get(user, 0), last)
        self._history: deque[Ended] = deque(maxlen=MAX_DURATIONS_KEPT)
        for record in sorted(records, key=lambda record: record.ended_at or 0.0):
            self._remember(record)

    def close(self) -> None:
        """Tell nobody anything any more."""
        if self._telling is not None:
            self._telling.cancel()

    def next_number(self) -> int:
        """Return the next number of the count that decides about turns."""
        self._number += 1
        return self._number

    # -- jobs that come and go ---------------------------------------------------------

    def follow(self, run: JobRun) -> None:
        """Measure a job from now on."""
        self._clocks[run.job_id] = _Clock(run.record.ran_s)
        watcher = partial(self._heard_of, run)
        self._watchers[run.job_id] = watcher
        run.watch(watcher)

    def ended(self, run: JobRun) -> None:
        """A job has ended: learn from how long it took."""
        self._clocks.pop(run.job_id, None)
        watcher = self._watchers.pop(run.job_id, None)
        if watcher is not None:
            run.unwatch(watcher)
            self._remember(run.record)
        if run.record.turn > run.record.left:
            left = self.next_number()
            self._served[user_of(run.record)] = left
            # Without it a restarted worker takes the turns a little differently.
            with contextlib.suppress(StorageFailed):
                run.note(left=left)

    def _remember(self, record: JobRecord) -> None:
        began, ended = record.started_at, record.ended_at
        is_whole = record.state is JobState.SUCCEEDED and record.stop_scope is None
        if is_whole and began is not None and ended is not None and ended > began:
            self._history.appendleft(Ended(shape_of(record.spec), ended - began))

    def _heard_of(self, run: JobRun) -> None:
        clock, record = self._clocks.get(run.job_id), run.record
        if clock is None:
            return
        if clock.step != record.step:
            clock.step = record.step
            clock.pace.note(None, 0.0)
        clock.pace.note(record.epoch, self._clock())

    # -- slots -------------------------------------------------------------------------

    def grant(self) -> int:
        """Give every free slot to whose turn it is; return how many jobs run."""
        running = [r for r in self._jobs.values() if _holds_slot(r)]
        free = free_slots(self._slots, [run.record.gpu for run in running])
        counts = Counter(user_of(run.record) for run in running)
        waiting = self._waiting()
        for slot in free:
            job = next_job(waiting, counts, self._served)
            if job is None:
                break
            waiting.remove(job)
            counts[job.user] += 1
            self._served[job.user] = self.next_number()
            self._jobs[job.job_id].grant_slot(self._served[job.user], slot.name)
        return counts.total()

    def _waiting(self) -> list[Waiting]:
        return [
            Waiting(
                run.job_id,
                user_of(run.record),
                run.record.ticket,
                self._duration(run),
            )
            for run in self._jobs.values()
            if run.state is JobState.QUEUED
        ]

    # -- time --------------------------------------------------------------------------

    def tick(self) -> None:
        """Measure what runs and hold it to its limit."""
        now = self._clock()
        for job_id, clock in list(self._clocks.items()):
            run = self._jobs[job_id]
            clock.tick(is_running=run.state in _RUNNING, now=now)
            limit_s = self._limits.max_runtime_s
            if limit_s is None:
                continue
            if clock.ran_s - clock.noted_s >= RAN_NOTE_S:
                clock.noted_s = clock.ran_s
                run.note(ran_s=clock.ran_s)
            if clock.ran_s >= limit_s and run.state in _RUNNING and run.error is None:
                limit = duration_words(limit_s)
                run.limit_reached(RuntimeExceeded(job_id=job_id, limit=limit))

    def _duration(self, run: JobRun) -> float | None:
        typical = typical_duration(shape_of(run.record.spec), self._history)
        limit_s = self._limits.max_runtime_s
        if typical is None or limit_s is None:
            return typical
        return min(typical, limit_s)

    def _time_left(self, run: JobRun, now: float) -> float | None:
        record, clock = run.record, self._clocks.get(run.job_id)
        if clock is None:
            return None
        step = record.step
        is_known = step is not None and step < len(record.epochs)
        epochs = record.epochs[step or 0] if is_known else 0
        return time_left(
            shape_of(record.spec),
            self._history,
            ran_s=clock.ran_s,
            is_last_step=step is not None and step + 1 == len(record.spec.steps),
            epochs_left_s=clock.pace.left_s(epochs, now),
            limit_s=self._limits.max_runtime_s,
        )

    # -- places ------------------------------------------------------------------------

    def tell_soon(self) -> None:
        """Tell those who wait their places, not more often than they can be read."""
        if self._telling is not None:
            return
        wait_s = max(0.0, self._told_at + PLACES_INTERVAL_S - self._clock())
        loop = asyncio.get_running_loop()
        self._telling = loop.call_later(wait_s, self._tell)

    def _tell(self) -> None:
        self._telling = None
        self._told_at = now = self._clock()
        waiting = self._waiting()
        running = [
            Running(
                run.job_id,
                user_of(run.record),
                run.record.turn,
                self._time_left(run, now),
            )
            for run in self._jobs.values()
            if waiting and _holds_slot(run)
        ]
        told = places(waiting, running, self._served, len(self._slots))
        for job_id, place in told.items():
            run = self._jobs[job_id]
            if is_news(place, run.place):
                run.stands_at(place)


def _holds_slot(run: JobRun) -> bool:
    return not run.has_ended and run.state not in WAITING
