"""The fast data path at full speed for an hour: every byte checked, memory flat."""

import asyncio
import os
import statistics
import sys

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
    for pid, samples in memory.items():
        early = samples[int(len(samples) * WARM_UP_SHARE) :][: len(samples) // 10 + 1]
        late = samples[-len(samples) // 10 - 2 : -2]
        before, after = statistics.median(early), statistics.median(late)
        most = max(samples)
        say(f"memory {before:.1f} MiB, at the end {after:.1f}, most {most:.1f}")
        assert after - before < MAX_GROWTH_MIB
        assert max(files[pid][2:]) == files[pid][2]
