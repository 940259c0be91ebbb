"""A training's loss as a line of blocks, for a terminal.

Pure: epochs and losses in, text out. Drawn by `cli.progress`.
"""

import math
from collections.abc import Mapping
from typing import Final

__all__ = ["LossCurve"]

_BLOCKS: Final = "▁▂▃▄▅▆▇█"
WIDTH: Final = 40
MAX_EPOCHS: Final = 100_000
# What a peer says may be any finite number; what is drawn has a logarithm.
TINY: Final = 1e-12
HUGE: Final = 1e12


class LossCurve:
    """One training's loss by epoch: the validation's, or the training's before that.

    An epoch that comes again, after a restart from a checkpoint, replaces itself.
    """

    def __init__(self) -> None:
        """Begin without an epoch."""
        self._losses: dict[int, float] = {}
        self._names: tuple[str, ...] = ("val/loss", "train/loss", "loss")

    def add(self, epoch: int | None, losses: Mapping[str, float]) -> None:
        """Take the losses at the end of an epoch."""
        name = next((name for name in self._names if name in losses), None)
        if epoch is None or name is None or len(self._losses) >= MAX_EPOCHS:
            return
        if name == "val/loss" and len(self._names) > 1:
            # Another quantity than what was drawn so far.
            self._names = ("val/loss",)
            self._losses.clear()
        self._losses[epoch] = losses[name]

    def __len__(self) -> int:
        """Return the number of epochs."""
        return len(self._losses)

    def draw(self, width: int = WIDTH) -> str:
        """Return the curve, on a logarithmic scale; empty with less than two epochs.

        Each block stands for the mean of the epochs below it.
        """
        bounded = {e: min(max(v, TINY), HUGE) for e, v in self._losses.items()}
        losses = [bounded[epoch] for epoch in sorted(bounded)]
        if len(losses) < 2:
            return ""
        columns = min(width, len(losses))
        means = []
        for column in range(columns):
            first = column * len(losses) // columns
            last = (column + 1) * len(losses) // columns
            part = losses[first:last]
            means.append(math.log(sum(part) / len(part)))
        low, high = min(means), max(means)
        step = (high - low) / (len(_BLOCKS) - 1) or 1.0
        return "".join(_BLOCKS[round((mean - low) / step)] for mean in means)

    def summary(self, width: int = WIDTH) -> str:
        """Return the curve with its first, best and number of epochs, in one line."""
        drawn = self.draw(width)
        if not drawn:
            return ""
        first = self._losses[min(self._losses)]
        best = min(self._losses.values())
        return f"{drawn} {first:.3g} → {best:.3g} in {len(self)} epochs"
