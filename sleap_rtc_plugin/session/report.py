"""What became of a submission, as the last line of the commands prints it.

Filled part by part, so that it is true at whichever point a submission ends.
"""

import time
from collections.abc import Callable

import msgspec
from msgspec import UNSET, Struct, UnsetType

from sleap_rtc_plugin.protocol.errors import RtcError
from sleap_rtc_plugin.protocol.messages import ModelPublished

__all__ = ["LinkReport", "Report", "Seconds", "Stopwatch"]


class Seconds(Struct, kw_only=True):
    """How long each part took."""

    package: float = 0.0
    transfer: float = 0.0
    queue: float = 0.0
    run: float = 0.0
    results: float = 0.0


class LinkReport(Struct, kw_only=True):
    """How the worker was reached, and with which engine."""

    kind: str = ""
    engine: str = ""


class Report(Struct, kw_only=True):
    """A submission's outcome; sizes in bytes, times in seconds, paths absolute."""

    state: str = "unsent"
    job_id: str = ""
    worker: str = ""
    models: list[str] = []
    predictions: list[str] = []
    bytes_total: int = 0
    bytes_sent: int = 0
    bytes_reused: int = 0
    seconds: Seconds = msgspec.field(default_factory=Seconds)
    link: LinkReport = msgspec.field(default_factory=LinkReport)
    # Told where something was published only.
    published: dict[str, str] | UnsetType = UNSET
    error: dict[str, str] | None = None

    def set_published(self, event: ModelPublished) -> None:
        """Note as what the trained models were published, if they were."""
        if event.model is not None:
            self.published = {"id": event.model, "alias": event.alias or ""}

    def set_error(self, error: RtcError) -> None:
        """Say what went wrong."""
        self.error = {"code": error.code, "message": str(error)}


class Stopwatch:
    """Measures the parts of a submission into its report."""

    def __init__(
        self, seconds: Seconds, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Measure into `seconds`."""
        self._seconds = seconds
        self._clock = clock
        self._began: dict[str, float] = {}

    def start(self, part: str) -> None:
        """A part begins; nothing happens where it began already."""
        self._began.setdefault(part, self._clock())

    def stop(self, part: str) -> None:
        """A part ends; nothing happens where it has not begun."""
        began = self._began.pop(part, None)
        if began is not None:
            value = getattr(self._seconds, part) + self._clock() - began
            setattr(self._seconds, part, round(value, 3))
