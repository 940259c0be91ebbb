"""`kill -9` at random points of a transfer: the same command goes on, nothing is lost.

Real programs with a server, a worker's folder and a home for every point; only the
trainer is scripted. The short series runs with the other tests. The long one, 20
points of 300 MB, is started by hand, with `-m slow -s`, and prints what it measured.
"""

import os
import random
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import pytest
from support.packages import Members, bytes_on_disk, pad_labels, read_members
from support.programs import POSIX, Program, Programs, Worker, wait_for

from sleap_rtc_plugin.protocol.limits import KIB, MIB, REQUEST_WINDOW_BYTES

Who = Literal["client", "worker"]
Phase = Literal["planning", "stock-taking", "middle", "finishing"]

PARTS = "jobs/*/package/parts/*"
FILES = "jobs/*/package/files/**/*"
ALMOST_BYTES = 256 * KIB
# How long the short phases last, per MiB of package, on a slow machine.
SHORT_PHASE_S_PER_MIB = 0.004
SHORT_MIB = 24
SHORT_SEED = 4
LONG_MIB = 287  # 300 MB
LONG_POINTS = 20
LOST_LINK_S = 90.0
HOME_S = 240.0

pytestmark = POSIX


@dataclass(frozen=True)
class Point:
    """Who is killed when: `share` of a phase after it began."""

    who: Who
    phase: Phase
    share: float

    def __str__(self) -> str:
        return f"{self.who} at {self.share:.0%} of {self.phase}"


def points(seed: int, phases: list[Phase]) -> list[Point]:
    """Return a point for each phase, at random; client and worker take turns."""
    chosen = random.Random(seed)  # noqa: S311 - where to kill, not a secret
    kinds: tuple[Who, ...] = get_args(Who)
    return [
        Point(kinds[number % 2], phase, chosen.random())
        for number, phase in enumerate(phases)
    ]


class Series:
    """One package, sent again and again by new programs, each time with a crash."""

    def __init__(self, folder: Path, caches: Path, package: Path) -> None:
        self._folder, self._caches, self._package = folder, caches, package
        self._members: Members = read_members(package)
        self.package_bytes = sum(map(len, self._members.values()))

    def run(self, number: int, point: Point) -> int:
        """Crash once, run the command until it is home; return the bytes sent twice."""
        folder = self._folder / str(number)
        programs = Programs(folder, self._caches)
        try:
            return _Story(programs, self._package, self._members, point).tell()
        finally:
            # Shows what the programs said only if something went wrong.
            with _silent(sys.exc_info()[0] is None):
                programs.close()
            shutil.rmtree(folder, ignore_errors=True)


class _Story:
    """One point: what happens before it, at it, and after it."""

    def __init__(
        self, programs: Programs, package: Path, members: Members, point: Point
    ) -> None:
        self._programs, self._package = programs, package
        self._members, self._point = members, point
        self._size_bytes = sum(map(len, members.values()))
        self._data = programs.folder / "worker-data"
        self._output = programs.folder / "out"
        self._url = programs.signaling()
        self._worker = self._start_worker("--signaling", self._url)
        self._session = self._worker.session
        self._sent: list[dict[str, Any]] = []

    def tell(self) -> int:
        if self._point.phase == "stock-taking":
            # There must be something to take stock of.
            client = self._train()
            self._wait_for_bytes(client, self._size_bytes // 2)
            client.kill()
            self._note(client)
        client = self._train()
        self._wait_for_point(client)
        if self._point.who == "client":
            client.kill()
            code = 1
        else:
            self._worker.kill()
            self._check_names()
            self._start_worker("--session", self._session)
            # One that had not found the worker yet may not even notice.
            code = client.wait(LOST_LINK_S + HOME_S)
        there_bytes = self._settled_bytes()
        self._check_names()
        self._note(client)
        if code != 0:
            client = self._train()
            assert client.wait(HOME_S) == 0, client.story()
            self._note(client)
        self._check_home(client)
        return self._sent_twice(client.report, there_bytes if code else 0)

    # -- the programs ----------------------------------------------------------------

    def _start_worker(self, *words: object) -> Worker:
        return self._programs.scripted_worker("train", *words).wait_ready()

    def _train(self) -> Program:
        return self._programs.train(self._package, self._session, self._output)

    def _wait_for_point(self, client: Program) -> None:
        phase_s = SHORT_PHASE_S_PER_MIB * self._size_bytes / MIB
        match self._point.phase:
            case "planning":
                extracted = self._programs.home / "cache" / "sleap-remote" / "packages"
                wait_for(lambda: any(extracted.glob("*/*")), "the package to be read")
                self._pass(phase_s)
            case "stock-taking":
                client.wait_event(event="worker")
                self._pass(phase_s)
            case "middle":
                self._wait_for_bytes(client, int(self._size_bytes * self._point.share))
            case "finishing":
                self._wait_for_bytes(client, self._size_bytes - ALMOST_BYTES)
                self._pass(phase_s)

    def _pass(self, phase_s: float) -> None:
        until = time.monotonic() + phase_s * self._point.share
        wait_for(lambda: time.monotonic() > until, "a moment")

    def _wait_for_bytes(self, client: Program, size_bytes: int) -> None:
        def arrived() -> bool:
            assert client.is_running, client.story()
            return self._there_bytes() >= size_bytes

        wait_for(arrived, f"{size_bytes} bytes", HOME_S)

    # -- what must hold --------------------------------------------------------------

    def _there_bytes(self) -> int:
        return bytes_on_disk(self._data, PARTS) + bytes_on_disk(self._data, FILES)

    def _settled_bytes(self) -> int:
        """Return what the worker has once it writes no more of what was on its way."""
        seen = [-1, self._there_bytes()]

        def is_settled() -> bool:
            seen.append(self._there_bytes())
            return seen[-1] == seen[-10:][0] and len(seen) > 10

        wait_for(is_settled, "the worker to write what arrived")
        return seen[-1]

    def _check_names(self) -> None:
        """What has its final name is whole, whenever somebody looks."""
        for files in self._data.glob("jobs/*/package/files"):
            for name, data in self._members.items():
                if (files / name).exists():
                    assert (files / name).read_bytes() == data, f"half of {name}"

    def _check_home(self, client: Program) -> None:
        assert client.report["state"] == "succeeded", client.story()
        [job] = (self._data / "jobs").iterdir()
        assert job.name == client.report["job_id"]
        for name, data in self._members.items():
            assert (job / "package" / "files" / name).read_bytes() == data, name
        assert {path.name for path in (job / "package").iterdir()} <= {
            "parts",
            "files",
            "manifest",
        }
        assert list((job / "package" / "parts").iterdir()) == []
        assert not (self._output / ".sleap-remote").exists()
        [model] = client.report["models"]
        assert (Path(model) / "best.ckpt").is_file()

    # -- what it cost ----------------------------------------------------------------

    def _note(self, client: Program) -> None:
        """Remember what a client says it sent: its report, or its last words."""
        said = [e for e in client.events if "bytes_sent" in e]
        said = [e for e in said if e.get("purpose", "package") == "package"]
        self._sent.append(said[-1] if said else {"bytes_sent": 0})

    def _sent_twice(self, report: dict[str, Any], there_bytes: int) -> int:
        """Return the larger of two measures, in bytes.

        What all clients together sent beyond the package, and what the last one sent
        although the worker had it. A killed client's last words are up to a fifth of
        a second old; what it sent since then shows in the other measure, or arrived.
        """
        needed = report["bytes_total"] - self._sent[0].get("bytes_reused", 0)
        in_all = sum(each["bytes_sent"] for each in self._sent)
        beyond = report["bytes_sent"] + there_bytes - report["bytes_total"]
        return max(0, in_all - needed, beyond)


@contextmanager
def _silent(is_silent: bool) -> Iterator[None]:
    """Keep what programs said out of the log of a long series."""
    if not is_silent:
        yield
        return
    stderr = sys.stderr
    with Path(os.devnull).open("w") as sys.stderr:
        try:
            yield
        finally:
            sys.stderr = stderr


@pytest.fixture
def series(
    small_package: Path, tmp_path: Path, caches: Path
) -> Callable[[int], Series]:
    def make(size_mib: int) -> Series:
        package = pad_labels(small_package, tmp_path / "l.zip", size_mib, tmp_path)
        return Series(tmp_path, caches, package)

    return make


@pytest.mark.timeout(600)
def test_a_short_series(series: Callable[[int], Series]) -> None:
    made = series(SHORT_MIB)
    for number, point in enumerate(points(SHORT_SEED, list(get_args(Phase)))):
        # So small a package may be on its way as a whole.
        assert made.run(number, point) <= REQUEST_WINDOW_BYTES, str(point)


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_twenty_points_of_300_mb(series: Callable[[int], Series]) -> None:
    made = series(LONG_MIB)
    seed = int(os.environ.get("KILL_SERIES_SEED", "0")) or int(time.time())
    phases: list[Phase] = ["planning", "stock-taking", "finishing"] * 2
    phases += ["middle"] * (LONG_POINTS - len(phases))
    random.Random(seed).shuffle(phases)  # noqa: S311 - an order, not a secret
    shares: list[float] = []
    say(f"seed {seed}, {made.package_bytes / 1e6:.1f} MB")
    for number, point in enumerate(points(seed, phases)):
        begun = time.monotonic()
        shares.append(made.run(number, point) / made.package_bytes)
        seconds = time.monotonic() - begun
        say(f"{point}: {shares[-1]:.3%} sent twice, home after {seconds:.0f} s")
    say(f"median {statistics.median(shares):.3%}, worst {max(shares):.3%}")
    assert max(shares) <= 0.02


def say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
