"""Whose job is next, where each job that waits stands, and who may queue another.

Next is the user with the fewest running jobs, and among those the one who has waited
longest: since he last got or gave back a slot, or since he had a job waiting, whichever
was later. His own jobs begin in the order in which they were queued.

Pure: what happened when is told in numbers of one count (`ticket` where a job was
queued, `turn` where it was begun, `left` where it gave its slot back), which the
journal keeps; so a restarted worker and a clock that jumps decide as before. Nobody
starves: whoever waits is passed at most once by every other user while none of his jobs
runs. Called by `job_turns`; `has_share` by the job coordinator.
"""

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sleap_rtc_worker.limits import ESTIMATE_TOLERANCE, PLACES_REFRESH_S

__all__ = ["Place", "Running", "Waiting", "has_share", "is_news", "next_job", "places"]


@dataclass(frozen=True)
class Waiting:
    """A job that waits for a slot.

    Attributes:
        user: who it belongs to.
        ticket: when it was queued.
        lasts_s: how long it will probably run, or None.
    """

    job_id: str
    user: str
    ticket: int
    lasts_s: float | None = None


@dataclass(frozen=True)
class Running:
    """A job that holds a slot; `left_s` is how long it probably still will, or None."""

    job_id: str
    user: str
    turn: int
    left_s: float | None = None


@dataclass(frozen=True)
class Place:
    """Where a job that waits stands.

    Attributes:
        position: 1 for the job that begins next.
        waiting: how many jobs wait.
        starts_in_s: the estimated time until it begins, or None.
    """

    position: int
    waiting: int
    starts_in_s: float | None = None


def next_job(
    waiting: Iterable[Waiting],
    running: Mapping[str, int],
    served: Mapping[str, int],
) -> Waiting | None:
    """Return the job that begins next, or None where none waits.

    Args:
        waiting: the jobs that wait.
        running: how many jobs of each user run.
        served: the number at which each user last got or gave back a slot.
    """
    heads: dict[str, Waiting] = {}
    for job in waiting:
        head = heads.get(job.user)
        if head is None or _in_line(job) < _in_line(head):
            heads[job.user] = job

    def rank(job: Waiting) -> tuple[int, int, str]:
        since = max(served.get(job.user, 0), job.ticket)
        return running.get(job.user, 0), since, job.job_id

    return min(heads.values(), key=rank, default=None)


def places(
    waiting: Sequence[Waiting],
    running: Sequence[Running],
    served: Mapping[str, int],
    slots: int,
) -> dict[str, Place]:
    """Return where each job that waits stands, the next one first.

    Plays through what will happen if every job runs for as long as is thought. A slot
    whose job is of unknown length counts as never free again: what begins there is
    told no time, and what begins on another is told one that is not too early.

    Args:
        waiting: the jobs that wait.
        running: the jobs that hold a slot.
        served: the number at which each user last got or gave back a slot.
        slots: how many there are.
    """
    left = list(waiting)
    counts = Counter(job.user for job in running)
    turns = dict(served)
    turn = max([0, *turns.values(), *(job.ticket for job in left)])
    # When each slot is free, in the order in which those of unknown time were begun.
    ends = [(_or_never(job.left_s), job.turn, job.user) for job in running]
    heapq.heapify(ends)
    found: dict[str, Place] = {}
    now = 0.0
    while left:
        if len(ends) >= max(1, slots):
            end, _, user = heapq.heappop(ends)
            now = max(now, end)
            counts[user] -= 1
            turn += 1
            turns[user] = turn
            continue
        job = next_job(left, counts, turns)
        if job is None:
            break
        left.remove(job)
        turn += 1
        counts[job.user] += 1
        turns[job.user] = turn
        heapq.heappush(ends, (now + _or_never(job.lasts_s), turn, job.user))
        starts = now if math.isfinite(now) else None
        found[job.job_id] = Place(len(found) + 1, len(waiting), starts)
    return found


def has_share(own: int, waiting: int, most: int) -> bool:
    """Tell whether a user may have one more job wait.

    Yes while fewer of his jobs wait than there are places free. So whoever is alone
    gets half of the places, whoever comes then half of the rest, and a user with none
    waiting is let in as long as there is any place. The rule is that of a switch whose
    ports share one buffer (dynamic thresholds: Choudhury and Hahne, 1998).

    Args:
        own: how many jobs of this user wait.
        waiting: how many jobs wait, these included.
        most: how many may wait.
    """
    return own < most - waiting


def is_news(place: Place, told: Place | None) -> bool:
    """Tell whether a place differs from what was told by more than an estimate may."""
    if told is None or (place.position, place.waiting) != (
        told.position,
        told.waiting,
    ):
        return True
    if place.starts_in_s is None or told.starts_in_s is None:
        return place.starts_in_s != told.starts_in_s
    allowed = max(PLACES_REFRESH_S, ESTIMATE_TOLERANCE * told.starts_in_s)
    return abs(place.starts_in_s - told.starts_in_s) > allowed


def _in_line(job: Waiting) -> tuple[int, str]:
    return job.ticket, job.job_id


def _or_never(seconds: float | None) -> float:
    return math.inf if seconds is None else max(0.0, seconds)
