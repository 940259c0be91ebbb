"""What tests of live frames need: models that are folders, and frames from nowhere."""

import contextlib
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sleap_rtc_plugin.protocol.errors import ModelNotFound

RUNNER = Path(__file__).with_name("scripted_live_runner.py")


def runner(*behaviour: str) -> list[str]:
    """Return the words that start a scripted runner."""
    return [sys.executable, str(RUNNER), *behaviour]


class FolderModels:
    """Published models that are folders of this machine."""

    def __init__(self, models: dict[str, Sequence[Path]]) -> None:
        self.models = models
        self.in_use = 0

    @contextlib.asynccontextmanager
    async def using(self, ref: str) -> AsyncIterator[Sequence[Path]]:
        if ref not in self.models:
            raise ModelNotFound(model=ref)
        self.in_use += 1
        try:
            yield self.models[ref]
        finally:
            self.in_use -= 1


class MadeUpFrames:
    """Frames whose first pixel is their number."""

    name = "made up"

    def __init__(
        self,
        count: int | None = 10,
        *,
        fps: float | None = None,
        size: tuple[int, int] = (32, 48),
    ) -> None:
        self.count, self.fps = count, fps
        self.height, self.width = size
        self.channels = 1
        self.video: Any = None
        self.is_closed = False
        self.noise = np.random.default_rng(7).integers(
            0, 255, (self.height, self.width, 1), dtype=np.uint8
        )

    def read(self, index: int) -> Any:
        image = self.noise.copy()
        image[0, 0, 0] = index % 256
        return image

    def close(self) -> None:
        self.is_closed = True
