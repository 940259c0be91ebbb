"""Keeps what a live session found, and saves it as predictions that SLEAP opens.

Numbers are kept as arrays, so that an hour of frames takes some hundred MiB at most
for many instances, and hardly any for two. Blocking; called by the command `live`.
"""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sleap_rtc_plugin.protocol.errors import StorageFailed
from sleap_rtc_plugin.protocol.live_messages import LiveInstances
from sleap_rtc_plugin.transport.effects import storage_error

__all__ = ["LivePredictions"]


class LivePredictions:
    """The predictions of one session."""

    def __init__(
        self, video: Any, nodes: Sequence[str], edges: Sequence[tuple[int, int]]
    ) -> None:
        """Keep predictions of `video`, whose instances have these nodes."""
        self._video = video
        self._nodes = list(nodes)
        self._edges = list(edges)
        self._frames: list[tuple[int, list[tuple[float, str, Any]]]] = []

    def __len__(self) -> int:
        """Return how many frames there are."""
        return len(self._frames)

    def add(self, found: LiveInstances) -> None:
        """Keep what was found in a frame."""
        import numpy as np

        nan = float("nan")
        instances = []
        for one in found.instances:
            rows = [
                (nan if x is None else x, nan if y is None else y, score)
                for x, y, score in one.points
            ]
            points = np.array(rows, dtype=np.float32).reshape(-1, 3)
            instances.append((one.score, one.track, points))
        self._frames.append((found.frame, instances))

    def save(self, path: Path) -> None:
        """Write all of them to a new `.slp` file; it appears as a whole.

        Raises:
            StorageFailed: there is such a file already, or it cannot be written.
            DiskFull: there is no room for it.
        """
        if path.exists():
            raise StorageFailed(place=str(path), reason="there is such a file already")
        temporary = path.with_name(f".{path.stem}.{os.getpid()}.slp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._labels().save(str(temporary), embed=False, verbose=False)
            temporary.rename(path)
        except OSError as error:
            raise storage_error(error, path) from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _labels(self) -> Any:
        import sleap_io

        skeleton = sleap_io.Skeleton(nodes=_distinct(self._nodes), edges=self._edges)
        tracks: dict[str, Any] = {}
        frames = []
        for index, instances in sorted(self._frames, key=lambda frame: frame[0]):
            predicted = []
            for score, name, points in instances:
                track = None
                if name:
                    track = tracks.setdefault(name, sleap_io.Track(name))
                predicted.append(
                    sleap_io.PredictedInstance.from_numpy(
                        points[:, :2],
                        skeleton=skeleton,
                        point_scores=points[:, 2],
                        score=score,
                        track=track,
                    )
                )
            frames.append(
                sleap_io.LabeledFrame(
                    video=self._video, frame_idx=index, instances=predicted
                )
            )
        return sleap_io.Labels(
            labeled_frames=frames,
            videos=[self._video],
            skeletons=[skeleton],
            tracks=list(tracks.values()),
        )


def _distinct(names: Sequence[str]) -> list[str]:
    """Return the names; a worker that says one twice does not break the file."""
    seen: set[str] = set()
    distinct = []
    for index, name in enumerate(names):
        own = name if name and name not in seen else f"{name or 'node'} {index}"
        seen.add(own)
        distinct.append(own)
    return distinct
