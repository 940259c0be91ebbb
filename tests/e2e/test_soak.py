"""The fast data path at full speed for an hour: every byte checked, memory flat."""

import asyncio
import os
import statistics
import sys
from collections.abc import Sequence

import psutil
import pytest

from sleap_rtc_plugin.bench.path_spec import LOOPBACK
from sleap_rtc_plugin.bench.turns import Work, take_turn

SECONDS = float(os.environ.get("SOAK_SECONDS", "3600"))
SAMPLE_S = 5.0
WARM_UP_SHARE = 0.1
MAX_GROWTH_MIB = 4.0
MIB = 1024 * 1024
GB = 1e9


def ends() -> list[psutil.Process]:
    """Return the two processes of the benchmark, in one order."""
    children = psutil.Process().children(recursive=True)
    found = [p for p in children if any("path_end" in word for word in p.cmdline())]
    return sorted(found, key=lambda process: process.pid)


def say(figures: str) -> None:
    """Tell whoever runs it by hand, with `-s`."""
    sys.stdout.write(f"\n{figures}")


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 300)
async def test_an_hour_at_full_speed() -> None:
    turn = asyncio.create_task(take_turn(LOOPBACK, Work("fast", SECONDS), seed=1))
    memory: dict[int, list[float]] = {}
    files: dict[int, list[int]] = {}
    while not turn.done():
        await asyncio.wait({turn}, timeout=SAMPLE_S)
        for process in ends():
            try:
                rss, count = process.memory_info().rss, process.num_fds()
            except psutil.NoSuchProcess:
                continue
            memory.setdefault(process.pid, []).append(rss / MIB)
            files.setdefault(process.pid, []).append(count)
    figures = await turn
    assert figures.client.engine == figures.worker.engine == "fast"
    arrived_gb = figures.worker.size_bytes / GB
    say(f"{arrived_gb:.1f} GB in {figures.worker.seconds:.0f} s, all intact")
    assert len(memory) == 2
    growth = [
        (_early_and_late(memory[pid]), _early_and_late(files[pid])) for pid in memory
    ]
    for pid, ((before, after), open_files) in zip(memory, growth, strict=True):
        most = max(memory[pid])
        say(
            f"memory {before:.1f} MiB, at the end {after:.1f}, most {most:.1f}; "
            f"open files {open_files[0]:.0f}, at the end {open_files[1]:.0f}"
        )
    for (before, after), (few, many) in growth:
        assert after - before < MAX_GROWTH_MIB
        assert many == few


def _early_and_late(samples: Sequence[float]) -> tuple[float, float]:
    """Return medians of a tenth of the samples, after the warm-up and at the end.

    Medians, since a process opens a file for a moment now and then.
    """
    some = len(samples) // 10 + 1
    begin = int(len(samples) * WARM_UP_SHARE)
    early, late = samples[begin : begin + some], samples[-some - 2 : -2]
    return statistics.median(early), statistics.median(late)
