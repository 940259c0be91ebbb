"""`bench gui`: how late SLEAP's own loop is while a package is sent beside it.

Real programs: signaling, a worker, SLEAP's LossViewer that a training's feed draws in,
and the companion, as a child and in SLEAP's process, against the same without anything
to send. The cases take turns within each round, since a machine's load changes.
"""

import asyncio
import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from sleap_rtc_plugin.bench.figures import BenchResult, describe_machine
from sleap_rtc_plugin.bench.gui_figures import (
    CASES,
    Case,
    Figures,
    Notes,
    WindowTask,
    differences,
    figures,
    medians,
    shared_seconds,
)
from sleap_rtc_plugin.bench.package import make_package
from sleap_rtc_plugin.local_lab import local_lab
from sleap_rtc_plugin.protocol.errors import NoReply
from sleap_rtc_plugin.protocol.limits import MIB
from sleap_rtc_plugin.transport.transport_options import TransportOptions

__all__ = ["SentTooSoon", "bench_gui"]

RUN_TIMEOUT_S: Final = 600.0
END_TIMEOUT_S: Final = 10.0
MIN_SECONDS: Final = 0.3
_WINDOW: Final = "sleap_rtc_plugin.bench.gui_window"
_NEEDS_DISPLAY: Final = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")


class SentTooSoon(Exception):
    """A package was sent before there was anything to measure."""

    def __init__(self, size_bytes: int) -> None:
        """Say so of a package of `size_bytes`."""
        super().__init__(
            f"A package of {size_bytes / MIB:.0f} MiB is sent here before anything "
            "can be measured; choose a larger one with --size-mib."
        )


async def bench_gui(
    size_bytes: int, rounds: int, seconds: float, say: Callable[[str], None]
) -> BenchResult:
    """Measure every case once a round.

    Args:
        size_bytes: of the ballast in the package.
        rounds: how often; the figures are medians.
        seconds: how long to measure at most; less where the package is sent sooner.
        say: told what is going on.

    Raises:
        SentTooSoon: the package is too small to measure anything.
        RtcError: why a run failed.
    """
    measured: list[dict[Case, Figures]] = []
    # What else runs here takes the timer's time, too.
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    platform = ""
    engine = TransportOptions.from_environment().engine
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        say(f"Making a package of {size_bytes / MIB:.0f} MiB.")
        package = await asyncio.to_thread(make_package, folder, size_bytes)
        for number in range(rounds):
            notes: dict[Case, Notes] = {}
            first = number % len(CASES)
            for case in CASES[first:] + CASES[:first]:
                say(f"Round {number + 1} of {rounds}: {case}.")
                place = folder / "run"
                place.mkdir()
                notes[case] = await _measure(case, package, place, seconds)
                await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)
            length = shared_seconds(list(notes.values()))
            if length < MIN_SECONDS:
                raise SentTooSoon(size_bytes)
            found = {case: figures(notes[case], length) for case in CASES}
            measured.append(found)
            for case in CASES:
                say(f"  {case}: {_in_words(found[case])}")
            platform = notes["idle"].qt_platform
    rows: list[dict[str, Any]] = [
        {
            "case": case,
            "engine": "none" if case == "idle" else engine,
            "rounds": rounds,
            "package_mib": round(size_bytes / MIB, 1),
            **medians([one[case] for one in measured]),
        }
        for case in CASES
    ]
    return BenchResult(
        bench="gui",
        machine=describe_machine()
        | {"qt_platform": platform, "load_average_before": load},
        rows=rows,
        ratios=differences(measured),
    )


def _in_words(found: Figures) -> str:
    late = ", ".join(
        f"{name} {found[f'late_{name}_ms']:.1f}" for name in ("p50", "p99", "max")
    )
    rate = found["mib_per_s"]
    sending = "" if rate is None else f", {rate:.0f} MiB/s"
    return f"late by {late} ms in {found['seconds_measured']:.1f} s{sending}"


async def _measure(case: Case, package: Path, folder: Path, seconds: float) -> Notes:
    """Run a case with a worker of its own, which has nothing of the package yet."""
    async with local_lab(folder, worker_name="bench-worker") as lab:
        output = folder / "output"
        output.mkdir()
        notes = folder / "notes.json"
        task = WindowTask(
            case=case,
            session=lab.session.encode(),
            package=str(package),
            folder=str(output),
            seconds=seconds,
            notes=str(notes),
        )
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", _WINDOW),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            env=_environment(folder),
        )
        try:
            async with asyncio.timeout(RUN_TIMEOUT_S):
                await process.communicate(msgspec.json.encode(task) + b"\n")
        except TimeoutError:
            raise NoReply(peer="the window process", command="bench gui") from None
        finally:
            if process.returncode is None:
                process.kill()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(END_TIMEOUT_S):
                    await process.wait()
        if process.returncode != 0:
            raise NoReply(peer="the window process", command="bench gui")
        return msgspec.json.decode(notes.read_bytes(), type=Notes)


def _environment(folder: Path) -> dict[str, str]:
    """Return a window process's environment: own folders, and a way to draw.

    What the companion writes down and unpacks goes with the folder, where the system
    has names for such places.
    """
    kept = {
        f"XDG_{name}_HOME": str(folder / name.lower())
        for name in ("CACHE", "CONFIG", "DATA", "STATE")
    }
    environment = os.environ | kept | {"SLEAP_SKIP_QT_FIX": "1"}
    has_display = any(environment.get(name) for name in _NEEDS_DISPLAY)
    if sys.platform == "linux" and not has_display:
        environment["QT_QPA_PLATFORM"] = "offscreen"
    return environment
