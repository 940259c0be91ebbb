"""The frame about a worker's queue: where a job that waits stands, and for how long.

Sent by a worker to clients that attached to the job, on a link where both sides named
the feature `job-queue`; part of `messages.ControlMessage`. It is no event: it has no
number, and only the newest counts.
"""

from typing import Annotated, ClassVar

from msgspec import Meta

from sleap_rtc_plugin.protocol.frames import Frame, JobId
from sleap_rtc_plugin.protocol.limits import MAX_STARTS_IN_S

__all__ = ["JobQueue", "Position", "StartsIn"]

Position = Annotated[int, Meta(ge=1, le=2**53 - 1)]
StartsIn = Annotated[float, Meta(ge=0, le=MAX_STARTS_IN_S)]


class JobQueue(Frame, frozen=True):
    """Where a job that waits for its turn stands now.

    Attributes:
        position: 1 for the job that begins next.
        waiting: how many jobs wait, this one included.
        starts_in_s: the estimated time until it begins, or None where it cannot be
            told.
    """

    NAME: ClassVar[str] = "JOB_QUEUE"
    job_id: JobId
    position: Position
    waiting: Position
    starts_in_s: StartsIn | None = None
