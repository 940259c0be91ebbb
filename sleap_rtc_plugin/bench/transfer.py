"""`bench transfer`: files from a client process to a worker's, beside the plain loop.

Two cases go over a bare link, in this project's way and in the loop of the existing
system: one large file, and many small ones. The third is a package through the real
programs. All take turns. Measured are speed, CPU, memory, and how long a stop command
takes meanwhile.
"""

import asyncio
import itertools
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol, get_args

import msgspec

from sleap_rtc_plugin.bench.child import child, pass_on
from sleap_rtc_plugin.bench.figures import BenchResult, describe_machine
from sleap_rtc_plugin.bench.memory import PeakMemory
from sleap_rtc_plugin.bench.package import make_package
from sleap_rtc_plugin.bench.transfer_client import ClientFigures, ClientTask
from sleap_rtc_plugin.bench.transfer_end import EndFigures, EndTask
from sleap_rtc_plugin.local_lab import LocalLab, local_lab
from sleap_rtc_plugin.protocol.errors import NoReply
from sleap_rtc_plugin.protocol.ids import new_command_id
from sleap_rtc_plugin.protocol.limits import GIB, MIB
from sleap_rtc_plugin.protocol.messages import JobCancel
from sleap_rtc_plugin.session.remote_session import RemoteSession

__all__ = ["CASES", "bench_transfer"]

SMALL_FILES: Final = 2_000
SMALL_FILE_BYTES: Final = 3_000
_CLIENT = "sleap_rtc_plugin.bench.transfer_client"
_END = "sleap_rtc_plugin.bench.transfer_end"
_BLOCK_BYTES = 8 * MIB

Engine = Literal["ours", "plain loop"]
CaseKind = Literal["large", "small", "package"]
CASES: Final[tuple[CaseKind, ...]] = get_args(CaseKind)
Say = Callable[[str], None]


@dataclass(frozen=True)
class _Case:
    """Files to send: all that lie in a folder."""

    name: str
    folder: Path
    paths: list[str]
    size_bytes: int


class _Measured(Protocol):
    """What a process took."""

    cpu_s: float
    idle_mib: float
    peak_mib: float


async def bench_transfer(
    size_bytes: int, runs: int, say: Say, cases: Collection[CaseKind] = CASES
) -> BenchResult:
    """Measure some cases, `runs` times in turn.

    Args:
        size_bytes: of the large file, and of the ballast in the package.
        runs: how often; the figures are medians.
        say: told what is going on.
        cases: which ones.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        linked = _Links(folder, size_bytes, cases)
        programs = _Programs(folder, size_bytes)
        for number in range(1, runs + 1):
            await linked.run(number, runs, say)
            if "package" in cases:
                await programs.run(number, runs, say)
    rows = linked.rows() + (programs.rows() if "package" in cases else [])
    return BenchResult(
        bench="transfer",
        machine=describe_machine(),
        rows=rows,
        ratios=linked.ratios(),
    )


def _figures_of(
    size_bytes: int, seconds: float, client: _Measured, worker: _Measured
) -> dict[str, float]:
    gib = size_bytes / GIB
    return {
        "mib_per_s": size_bytes / MIB / seconds,
        "client_cpu_s_per_gib": client.cpu_s / gib,
        "worker_cpu_s_per_gib": worker.cpu_s / gib,
        "client_idle_mib": client.idle_mib,
        "client_peak_above_idle_mib": client.peak_mib - client.idle_mib,
        "worker_idle_mib": worker.idle_mib,
        "worker_peak_above_idle_mib": worker.peak_mib - worker.idle_mib,
    }


def _row(
    case: str, engine: str, runs: Sequence[dict[str, float]], stops_s: list[float]
) -> dict[str, Any]:
    row: dict[str, Any] = {"case": case, "engine": engine, "runs": len(runs)}
    for figure in runs[0]:
        row[figure] = round(statistics.median(run[figure] for run in runs), 2)
    row["stop_p50_ms"] = round(statistics.median(stops_s) * 1000) if stops_s else None
    row["stop_max_ms"] = round(max(stops_s) * 1000) if stops_s else None
    return row


# -- two processes and a link -------------------------------------------------------


class _Links:
    """The cases that go over a bare link, and what was measured of each."""

    def __init__(
        self, folder: Path, size_bytes: int, cases: Collection[CaseKind]
    ) -> None:
        self._folder = folder
        self._cases: list[_Case] = []
        if "large" in cases:
            self._cases.append(_large(folder, size_bytes))
        if "small" in cases:
            self._cases.append(_small(folder))
        self._runs: dict[tuple[str, str], list[dict[str, float]]] = {}
        self._stops_s: dict[tuple[str, str], list[float]] = {}
        self._numbers = itertools.count()

    async def run(self, number: int, runs: int, say: Say) -> None:
        """Give each case and engine its turn."""
        for case in self._cases:
            for engine in get_args(Engine):
                say(f"{case.name}, {engine}, run {number} of {runs}.")
                key = (case.name, engine)
                target = self._folder / f"arrived-{next(self._numbers)}"
                target.mkdir()
                client, worker = await _send(case, engine, target)
                await asyncio.to_thread(shutil.rmtree, target)
                self._stops_s.setdefault(key, []).extend(client.stops_s)
                self._runs.setdefault(key, []).append(
                    _figures_of(case.size_bytes, client.seconds, client, worker)
                )

    def rows(self) -> list[dict[str, Any]]:
        """Return the medians."""
        return [
            _row(*key, runs=runs, stops_s=self._stops_s[key])
            for key, runs in self._runs.items()
        ]

    def ratios(self) -> dict[str, float]:
        """Return how much faster ours is: the median over the runs, pair by pair."""
        return {
            f"{case.name}, speed ours / plain loop": statistics.median(
                ours["mib_per_s"] / plain["mib_per_s"]
                for ours, plain in zip(
                    self._runs[case.name, "ours"],
                    self._runs[case.name, "plain loop"],
                    strict=True,
                )
            )
            for case in self._cases
        }


def _large(folder: Path, size_bytes: int) -> _Case:
    place = folder / "large"
    place.mkdir()
    with (place / "file").open("wb") as file:
        for begin in range(0, size_bytes, _BLOCK_BYTES):
            file.write(os.urandom(min(_BLOCK_BYTES, size_bytes - begin)))
    return _Case(f"{size_bytes / MIB:.0f} MiB file", place, ["file"], size_bytes)


def _small(folder: Path) -> _Case:
    place = folder / "small"
    place.mkdir()
    paths = [f"{number}.txt" for number in range(SMALL_FILES)]
    for path in paths:
        (place / path).write_bytes(os.urandom(SMALL_FILE_BYTES))
    name = f"{SMALL_FILES} files of {SMALL_FILE_BYTES} B"
    return _Case(name, place, paths, SMALL_FILES * SMALL_FILE_BYTES)


async def _send(
    case: _Case, engine: Engine, target: Path
) -> tuple[EndFigures, EndFigures]:
    """Start both ends, carry their descriptions, and return their figures."""
    sending = EndTask("client", engine, str(case.folder), case.paths)
    receiving = EndTask("worker", engine, str(target), case.paths)
    async with (
        child(_END, sending, "one end of the link") as client,
        child(_END, receiving, "the other end of the link") as worker,
    ):
        await pass_on(client, worker)
        await pass_on(worker, client)
        return await asyncio.gather(client.hear(EndFigures), worker.hear(EndFigures))


# -- the real programs -----------------------------------------------------------------


class _Programs:
    """The case of a package through the real programs, to a fresh worker each time."""

    def __init__(self, folder: Path, size_bytes: int) -> None:
        self._folder = folder
        self._size_bytes = size_bytes
        self._package: Path | None = None
        self._runs: list[dict[str, float]] = []

    async def run(self, number: int, runs: int, say: Say) -> None:
        """Send the package once."""
        size = f"{self._size_bytes / MIB:.0f} MiB"
        if self._package is None:
            say(f"Making a package of {size}.")
            self._package = await asyncio.to_thread(
                make_package, self._folder, self._size_bytes
            )
        say(f"{size} package, real programs, run {number} of {runs}.")
        place = self._folder / f"run-{number}"
        place.mkdir()
        async with local_lab(place, worker_name="bench-worker") as lab:
            self._runs.append(await _measure(lab, self._package, place))
        await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)

    def rows(self) -> list[dict[str, Any]]:
        """Return the medians."""
        case = f"{self._size_bytes / MIB:.0f} MiB package, real programs"
        return [_row(case, "ours", self._runs, stops_s=[])]


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
    return _figures_of(client.bytes_sent, client.transfer_s, client, worker)


async def _cancel(lab: LocalLab, job_id: str) -> None:
    """Cancel the job, so that nothing of it outlives the benchmark."""
    async with RemoteSession(lab.session) as session:
        link = await session.connect(await session.choose())
        command = JobCancel(command_id=new_command_id(), job_id=job_id)
        await link.ask(command)
