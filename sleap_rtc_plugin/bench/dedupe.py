"""`bench dedupe`: how much of a package a worker lacks that has the one before.

Packages are written by sleap-io as SLEAP writes them, with frames of noise, which
nothing compresses away; then only manifests are compared. Beside our chunks stand two
plain ways of cutting: even blocks, and FastCDC alone. One package is sent, with a cut.
"""

import asyncio
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sleap_rtc_plugin.bench.cut import CutFigures, send_with_cut
from sleap_rtc_plugin.bench.figures import BenchResult, describe_machine
from sleap_rtc_plugin.protocol.limits import GIB, KIB, MIB
from sleap_rtc_plugin.transport.file_source import FileSource
from sleap_rtc_plugin.transport.plan_cache import SETTLED_NS, PlanCache

if TYPE_CHECKING:
    import numpy as np

__all__ = ["PackagePlan", "bench_dedupe"]

_BLOCK_BYTES: Final = 64 * KIB
_LABELS: Final = "labels.pkg.slp"
_INSTANCES: Final = 2
_NODES: Final = 13
_SEED: Final = 3
_CUT_SHARE: Final = 0.5
# The noise of a camera takes some 7 bits of a pixel's 8; one frame takes them all.
_MEAN: Final = 128.0
_SPREAD: Final = 30.0


@dataclass(frozen=True)
class PackagePlan:
    """What the packages are to hold.

    Attributes:
        frame_count: labeled in the first package.
        added_count: labeled later, here and there between the others.
        side_px: of the square frames.
    """

    frame_count: int = 300
    added_count: int = 20
    side_px: int = 1024


def bench_dedupe(
    plan: PackagePlan, repeats: int, say: Callable[[str], None]
) -> BenchResult:
    """Make packages and compare their manifests. Blocking: takes minutes.

    Args:
        plan: what the packages hold.
        repeats: how often planning is measured; its figures are medians.
        say: told what is going on.
    """
    rows: list[dict[str, Any]] = []
    ratios: dict[str, float] = {}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        say(f"Drawing {plan.frame_count + plan.added_count} frames.")
        project = _Project(folder, plan)
        say("Saving the first package.")
        package = project.save(added=False)
        known = {engine: scan(package) for engine, scan in _ENGINES.items()}
        say("Planning it.")
        planned = _planning(package, folder / "plans", repeats)
        say(f"Sending it, with a cut at {_CUT_SHARE:.0%}.")
        cut = asyncio.run(send_with_cut(package, folder / "cut", _CUT_SHARE))
        ratios["sent twice after a cut"] = cut.twice_bytes / cut.total_bytes
        for case, save in project.changes().items():
            say(f"Saving it again: {case}.")
            save()
            size_bytes = package.stat().st_size
            for engine, scan in _ENGINES.items():
                needed = needed_bytes(scan(package), known[engine])
                share = needed / size_bytes
                rows.append(
                    {
                        "case": case,
                        "engine": engine,
                        "package_mib": round(size_bytes / MIB, 2),
                        "needed_mib": round(needed / MIB, 3),
                        "needed_percent": round(100 * share, 4),
                    }
                )
                ratios[f"{case}, {engine}"] = share
    return BenchResult(
        bench="dedupe",
        machine=describe_machine(),
        rows=[*rows, _cut_row(cut), *planned],
        ratios=ratios,
    )


def _cut_row(cut: CutFigures) -> dict[str, Any]:
    return {
        "case": f"after a cut at {_CUT_SHARE:.0%}",
        "engine": "ours",
        "package_mib": round(cut.total_bytes / MIB, 2),
        "sent_before_mib": round(cut.before_bytes / MIB, 3),
        "sent_after_mib": round(cut.after_bytes / MIB, 3),
        "sent_twice_percent": round(100 * cut.twice_bytes / cut.total_bytes, 4),
    }


def needed_bytes(offer: FileSource, known: FileSource) -> int:
    """Return what is sent to a receiver that has all of `known`, manifest included."""
    if offer.manifest_digest == known.manifest_digest:
        return 0
    here = _chunks(known)
    lacking = [
        size_bytes
        for digest, size_bytes in _chunks(offer).items()
        if digest not in here
    ]
    return sum(lacking) + len(offer.encoded_manifest)


def _chunks(source: FileSource) -> dict[bytes, int]:
    """Return the size of each chunk that is sent at all, by digest."""
    manifest = source.manifest
    chunks = map(manifest.chunk, range(manifest.chunk_count))
    return {chunk.digest: chunk.size_bytes for chunk in chunks if not chunk.is_hole}


# -- ways of cutting -------------------------------------------------------------------


def _scan_ours(package: Path) -> FileSource:
    return FileSource.scan(package.parent, [package.name])


def _scan_with_fastcdc(package: Path) -> FileSource:
    """Scan it under a name that says nothing about images."""
    place = package.with_suffix(".bin")
    os.link(package, place)
    try:
        return _scan_ours(place)
    finally:
        place.unlink()


def _scan_blocks(package: Path) -> FileSource:
    return FileSource.scan(package.parent, [package.name], chunk_bytes=_BLOCK_BYTES)


_ENGINES: Final[dict[str, Callable[[Path], FileSource]]] = {
    "ours": _scan_ours,
    "FastCDC": _scan_with_fastcdc,
    "64 KiB blocks": _scan_blocks,
}


# -- planning --------------------------------------------------------------------------


def _planning(package: Path, plans: Path, repeats: int) -> list[dict[str, Any]]:
    """Measure reading a package for the first time, and knowing it again."""
    # The package is seconds old, and so young a file is not remembered.
    cache = PlanCache(plans, clock_ns=lambda: time.time_ns() + SETTLED_NS)
    size_bytes = package.stat().st_size

    def scan_what_is_known() -> None:
        FileSource.scan(package.parent, [package.name], cache=cache)

    scan_what_is_known()
    rows = []
    for case, engine, work in (
        ("planning", "ours", lambda: _scan_ours(package)),
        ("planning", "FastCDC", lambda: _scan_with_fastcdc(package)),
        ("planning what is known", "ours", scan_what_is_known),
    ):
        timed = [_timed(work) for _ in range(repeats)]
        wall_s = statistics.median(wall for wall, _ in timed)
        cpu_s = statistics.median(cpu for _, cpu in timed)
        rows.append(
            {
                "case": case,
                "engine": engine,
                "runs": repeats,
                "mb_per_s": round(size_bytes / 1e6 / wall_s, 1),
                "s_per_gib": round(wall_s * GIB / size_bytes, 4),
                "cpu_s_per_gib": round(cpu_s * GIB / size_bytes, 4),
            }
        )
    return rows


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


# -- packages --------------------------------------------------------------------------


class _Project:
    """A video of noise, and the package that is exported from it time and again."""

    def __init__(self, folder: Path, plan: PackagePlan) -> None:
        import numpy as np

        self._folder = folder
        total = plan.frame_count + plan.added_count
        chosen = random.Random(_SEED)  # noqa: S311 - which frames, not a secret
        self._later = frozenset(chosen.sample(range(total), plan.added_count))
        rng = np.random.default_rng(_SEED)
        shape = (plan.side_px, plan.side_px)
        self._images: list[str] = []
        for number in range(total):
            noise = rng.normal(_MEAN, _SPREAD, shape)
            path = folder / f"{number:05}.png"
            _write_png(path, np.clip(noise, 0, 255).astype(np.uint8))
            self._images.append(str(path))
        self._longest = folder / "longest.png"
        _write_png(self._longest, rng.integers(0, 256, shape, dtype=np.uint8))
        self._points = rng.uniform(0, plan.side_px, (total, _INSTANCES, _NODES, 2))

    def changes(self) -> dict[str, Callable[[], Path]]:
        """Return what may have happened since the first package, and how to save it."""
        images = list(self._images)
        images[max(self._later)] = str(self._longest)
        moved = self._points + 1.5
        return {
            "frames added": self.save,
            "frames added, one longer than all before": lambda: self.save(
                images=images
            ),
            "labels moved": lambda: self.save(added=False, points=moved),
            "nothing changed": lambda: self.save(added=False),
        }

    def save(
        self,
        *,
        added: bool = True,
        images: Sequence[str] | None = None,
        points: "np.ndarray[Any, Any] | None" = None,
    ) -> Path:
        """Export the package anew; with `added`, of the frames labeled later too."""
        import sleap_io

        skeleton = sleap_io.Skeleton(nodes=[f"node {n}" for n in range(_NODES)])
        video = sleap_io.Video.from_filename(list(images or self._images))
        labels = sleap_io.Labels(
            labeled_frames=[
                sleap_io.LabeledFrame(
                    video=video,
                    frame_idx=number,
                    instances=[
                        sleap_io.Instance.from_numpy(each, skeleton=skeleton)
                        for each in instances
                    ],
                )
                for number, instances in self._labeled(
                    added, self._points if points is None else points
                )
            ],
            videos=[video],
            skeletons=[skeleton],
        )
        path = self._folder / _LABELS
        labels.save(str(path), embed=True, verbose=False)
        return path

    def _labeled(
        self, added: bool, points: "np.ndarray[Any, Any]"
    ) -> Iterable[tuple[int, "np.ndarray[Any, Any]"]]:
        for number, instances in enumerate(points):
            if added or number not in self._later:
                yield number, instances


def _write_png(path: Path, pixels: "np.ndarray[Any, Any]") -> None:
    import imageio.v3

    imageio.v3.imwrite(path, pixels, extension=".png", compress_level=1)
