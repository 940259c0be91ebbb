"""PURE: a training's loss so far, in few enough numbers to tell a whole room.

Thinned evenly as it grows; no file and no clock. Kept in the job's record, so that it
survives a restart of the worker. Called by `job_run`; read by `job_board`.
"""

from typing import Literal

from msgspec import Struct

from sleap_rtc_plugin.protocol.messages import ProgressReport
from sleap_rtc_worker.limits import MAX_TRAIL_POINTS

__all__ = ["LossTrail"]

_NAMES: tuple[tuple[str, Literal["val", "train"]], ...] = (
    ("val/loss", "val"),
    ("train/loss", "train"),
    ("loss", "train"),
)


class LossTrail(Struct, frozen=True, kw_only=True):
    """The losses at the ends of epochs, of one training.

    Attributes:
        step: of which step of the job.
        of: whether these are validation losses or the training's own.
        points: epoch (counted from 0) and loss, in order; the last is the newest.
        stride: of the epochs before the newest, every so many are kept.
    """

    step: int = -1
    of: Literal["val", "train"] = "train"
    points: list[tuple[int, float]] = []
    stride: int = 1

    def after(self, report: ProgressReport) -> "LossTrail":
        """Return the trail with what a report adds; itself where that is nothing."""
        found = next((pair for pair in _NAMES if pair[0] in report.losses), None)
        if report.kind != "epoch_end" or report.epoch is None or found is None:
            return self
        name, of = found
        stride = self.stride
        points: list[tuple[int, float]] = []
        if report.step == self.step and of == self.of:
            # An epoch that comes again, after a restart, takes the place of what was.
            points = [point for point in self.points if point[0] < report.epoch]
            # The newest stays only where its turn to stay has come.
            if points and points[-1][0] % stride:
                points.pop()
        elif report.step == self.step and self.of == "val":
            return self
        if not points:
            stride = 1
        points.append((report.epoch, report.losses[name]))
        while len(points) > MAX_TRAIL_POINTS:
            stride *= 2
            kept = [point for point in points[:-1] if point[0] % stride == 0]
            points = [*kept, points[-1]]
        return LossTrail(step=report.step, of=of, points=points, stride=stride)
