"""`bench transfer`: a package of a given size from a client process to a worker's.

Real programs from end to end: signaling, worker, client; the worker's job is
cancelled once the package is there. Measures speed, CPU seconds and memory.
"""

import asyncio
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from sleap_rtc_plugin.bench.figures import BenchResult, describe_machine
from sleap_rtc_plugin.bench.memory import PeakMemory
from sleap_rtc_plugin.bench.package import make_package
from sleap_rtc_plugin.bench.transfer_client import ClientFigures, ClientTask
from sleap_rtc_plugin.local_lab import LocalLab, local_lab
from sleap_rtc_plugin.protocol.errors import NoReply
from sleap_rtc_plugin.protocol.ids import new_command_id
from sleap_rtc_plugin.protocol.limits import GIB, MIB
from sleap_rtc_plugin.protocol.messages import JobCancel
from sleap_rtc_plugin.session.remote_session import RemoteSession

__all__ = ["bench_transfer"]

_CLIENT = "sleap_rtc_plugin.bench.transfer_client"


async def bench_transfer(
    size_bytes: int, repeats: int, say: Callable[[str], None]
) -> BenchResult:
    """Send a package of about `size_bytes`, `repeats` times, each to a fresh worker.

    Args:
        size_bytes: of the ballast in the package.
        repeats: how often; the figures are medians.
        say: told what is going on.
    """
    runs: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        say(f"Making a package of {size_bytes / MIB:.0f} MiB.")
        package = await asyncio.to_thread(make_package, folder, size_bytes)
        for number in range(1, repeats + 1):
            say(f"Sending it, run {number} of {repeats}.")
            place = folder / f"run-{number}"
            place.mkdir()
            async with local_lab(place, worker_name="bench-worker") as lab:
                runs.append(await _measure(lab, package, place))
    row: dict[str, Any] = {
        "case": f"{size_bytes / MIB:.0f} MiB package, loopback",
        "engine": "aiortc",
        "runs": repeats,
    }
    for figure in runs[0]:
        row[figure] = round(statistics.median(run[figure] for run in runs), 2)
    return BenchResult(
        bench="transfer", machine=describe_machine(), rows=[row], ratios={}
    )


async def _measure(lab: LocalLab, package: Path, folder: Path) -> dict[str, float]:
    task = ClientTask(
        session=lab.session.encode(), package=str(package), folder=str(folder)
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", _CLIENT),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    with PeakMemory(lab.worker_pid) as worker:
        output, _ = await process.communicate(msgspec.json.encode(task) + b"\n")
    if process.returncode != 0:
        raise NoReply(peer="the client process", command="bench transfer")
    client = msgspec.json.decode(output, type=ClientFigures)
    await _cancel(lab, client.job_id)
    gib = client.bytes_sent / GIB
    return {
        "mib_per_s": client.bytes_sent / MIB / client.transfer_s,
        "client_cpu_s_per_gib": client.cpu_s / gib,
        "worker_cpu_s_per_gib": worker.cpu_s / gib,
        "client_idle_mib": client.idle_mib,
        "client_peak_above_idle_mib": client.peak_mib - client.idle_mib,
        "worker_idle_mib": worker.idle_mib,
        "worker_peak_above_idle_mib": worker.above_idle_mib,
    }


async def _cancel(lab: LocalLab, job_id: str) -> None:
    """Cancel the job, so that nothing of it outlives the benchmark."""
    async with RemoteSession(lab.session) as session:
        link = await session.connect(await session.choose())
        command = JobCancel(command_id=new_command_id(), job_id=job_id)
        await link.ask(command)
