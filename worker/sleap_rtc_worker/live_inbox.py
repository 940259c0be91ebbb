"""A live session's frames at the worker: put together, and only the newest is kept.

Pure: parts in, at most one whole frame out. Parts come in any order, some never, and
from a client that may be hostile, so all that is held has a bound. Used by
`live_service`; images are decoded by nobody here.
"""

from dataclasses import dataclass, field

from sleap_rtc_plugin.protocol.limits import MAX_LIVE_FRAME_BYTES
from sleap_rtc_plugin.protocol.live_messages import FramePart, ImageFormat
from sleap_rtc_worker.limits import LIVE_IMAGE_SLACK_BYTES, MAX_PARTIAL_FRAMES

__all__ = ["FrameInbox", "LiveFrame", "most_image_bytes"]


@dataclass(frozen=True)
class LiveFrame:
    """A whole frame, still encoded.

    Attributes:
        frame: its number.
        taken_us: the client's own note of when it was taken.
        format: how the image is encoded.
        data: the image.
        arrived: when its last part came, in monotonic seconds.
    """

    frame: int
    taken_us: int
    format: ImageFormat
    data: bytes
    arrived: float


@dataclass
class _Partial:
    """A frame of which parts are missing."""

    parts: int
    taken_us: int
    format: ImageFormat
    size_bytes: int = 0
    data: dict[int, bytes] = field(default_factory=dict)

    def is_of(self, part: FramePart) -> bool:
        """Tell whether a part says the same of its frame as the first one did."""
        return (part.parts, part.taken_us, part.format) == (
            self.parts,
            self.taken_us,
            self.format,
        )


def most_image_bytes(width: int, height: int, channels: int) -> int:
    """Return how large an encoded image of that size may be.

    Even noise takes hardly more than its pixels as PNG, and less than twice as much
    as JPEG.
    """
    pixels_bytes = width * height * channels
    return min(2 * pixels_bytes + LIVE_IMAGE_SLACK_BYTES, MAX_LIVE_FRAME_BYTES)


class FrameInbox:
    """One slot for the newest whole frame, and a few frames that are not whole yet."""

    def __init__(self, max_frame_bytes: int) -> None:
        """Hold frames of `max_frame_bytes` at most."""
        self.received = 0
        self.incomplete = 0
        self.superseded = 0
        self._max_frame_bytes = max_frame_bytes
        self._partials: dict[int, _Partial] = {}
        self._slot: LiveFrame | None = None
        # Of this frame and those before it nothing is wanted any more.
        self._done = -1

    @property
    def held_bytes(self) -> int:
        """How much memory images take here."""
        whole = len(self._slot.data) if self._slot is not None else 0
        return whole + sum(partial.size_bytes for partial in self._partials.values())

    def add(self, part: FramePart, now: float) -> None:
        """Take one part, at `now` in monotonic seconds."""
        if part.frame <= self._done:
            if part.parts == 1 and part.frame < self._done:
                # Whole, and too late: a newer one was quicker on its way.
                self.received += 1
                self.superseded += 1
            return
        partial = self._partials.get(part.frame)
        if partial is None:
            partial = _Partial(part.parts, part.taken_us, part.format)
            self._partials[part.frame] = partial
            if len(self._partials) > MAX_PARTIAL_FRAMES:
                self._drop_up_to(min(self._partials))
        if not partial.is_of(part) or part.part in partial.data:
            return
        if part.frame not in self._partials:
            return
        partial.data[part.part] = part.data
        partial.size_bytes += len(part.data)
        if partial.size_bytes > self._max_frame_bytes:
            self._drop_up_to(part.frame)
        elif len(partial.data) == partial.parts:
            self._complete(part.frame, partial, now)

    def take(self) -> LiveFrame | None:
        """Return the newest whole frame, once."""
        frame, self._slot = self._slot, None
        return frame

    def _complete(self, number: int, partial: _Partial, now: float) -> None:
        del self._partials[number]
        self._drop_up_to(number)
        self.received += 1
        if self._slot is not None:
            self.superseded += 1
        data = b"".join(partial.data[index] for index in range(partial.parts))
        self._slot = LiveFrame(number, partial.taken_us, partial.format, data, now)

    def _drop_up_to(self, number: int) -> None:
        """Want nothing more of the frames up to this one."""
        self._done = max(self._done, number)
        for older in [other for other in self._partials if other <= number]:
            del self._partials[older]
            self.incomplete += 1
