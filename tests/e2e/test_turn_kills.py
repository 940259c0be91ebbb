"""The TURN server is killed at points from a seed, and every link goes over it.

Real programs, coturn among them; only the trainer is scripted. Client and worker tell
each other no address of their own and the signaling server's relay is off, so without
coturn there is no link at all. It skips where coturn is missing. Twenty points are
started by hand with `-m slow -s`.
"""

import os
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.doctor_faults import Turn, start_turn
from support.packages import pad_labels
from support.programs import POSIX, Program, Programs, wait_for
from support.story import (
    BACK_S,
    PHASES,
    SIZE_MIB,
    Phase,
    Story,
    begin,
    finish,
)

from sleap_rtc_plugin.transport.transport_options import RELAY_ONLY_VARIABLE

SECRET = "what the TURN server shares with signaling"
# So slow that a phase lasts for seconds.
SLOW_AND_PRIVATE = {"SLEAP_REMOTE_MAX_MBIT": "40", RELAY_ONLY_VARIABLE: "1"}
# How far a phase has come at a kill: begun, and with enough left to be cut off.
SHARES = (0.02, 0.75)
# For how long it is away where nobody is to notice before it is back.
MOMENT_S = 2.0
SHORT_SEED = 6
SHORT_POINTS = 3
LONG_POINTS = 20

pytestmark = POSIX


@dataclass(frozen=True)
class Point:
    """When the TURN server is killed, and for how long it is away.

    Attributes:
        phase: of the job.
        share: how far that phase has come, from 0 to 1.
        away_s: seconds until it is back, or None: until the client has noticed.
    """

    phase: Phase
    share: float
    away_s: float | None

    def __str__(self) -> str:
        away = "until noticed" if self.away_s is None else f"for {self.away_s:.1f} s"
        return f"at {self.share:.0%} of {self.phase}, away {away}"


def points(seed: int, count: int) -> Iterator[Point]:
    """Yield points of every phase in turn; from every other the server stays away."""
    chance = random.Random(seed)  # noqa: S311 - when to kill, not a secret
    for number in range(count):
        share, away_s = chance.uniform(*SHARES), chance.uniform(0.0, MOMENT_S)
        stays_away = number % 2 == 1
        yield Point(PHASES[number % 3], share, None if stays_away else away_s)


@pytest.fixture(scope="session")
def padded_package(
    small_package: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("padded")
    return pad_labels(small_package, folder / "p.training_job.zip", SIZE_MIB, folder)


class Lab:
    """One story whose links go over a TURN server that can be killed."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs
        self.turn = start_turn(programs, SECRET)
        config = programs.folder / "signaling.toml"
        url = f"turn:127.0.0.1:{self.turn.port}"
        config.write_text(f"[[turn]]\nurls = ['{url}']\nsecret = '{SECRET}'\n")
        self.story = Story(
            programs,
            more=f",checkpoint_mib={SIZE_MIB}",
            environment=SLOW_AND_PRIVATE,
            server=("--config", str(config)),
        )

    def tell(self, package: Path, output: Path, point: Point) -> float:
        """Tell the story of one job and one kill.

        Returns:
            The seconds from the kill until the client had its worker again.
        """
        story = self.story
        client = begin(story, package, output, point.phase, point.share)
        link = client.wait_event(event="worker")["link"]
        assert link.startswith("turn-"), link
        assert not _links(client)
        killed_at = time.monotonic()
        self.turn.program.kill()
        # The job needs nobody's link.
        story.allow_all()
        if point.away_s is None:
            client.wait_event(BACK_S, event="link", state="lost")
        else:
            back_at = killed_at + point.away_s
            wait_for(lambda: time.monotonic() > back_at, "the moment to be over")
        self.turn = self._restarted()
        client.wait_event(BACK_S, event="link", state="back")
        took_s = time.monotonic() - killed_at
        finish(story, client, output, self.turn.program)
        assert _links(client) == ["lost", "back"]
        return took_s

    def _restarted(self) -> Turn:
        return start_turn(self._programs, SECRET, port=self.turn.port)


def _links(client: Program) -> list[str]:
    """Return what became of the client's link so far: lost, back, lost and so on."""
    return [event["state"] for event in client.events if event.get("event") == "link"]


class Series:
    """One lab after another, each with one kill."""

    def __init__(self, folder: Path, caches: Path, package: Path) -> None:
        self._folder, self._caches, self._package = folder, caches, package

    def run(self, seed: int, count: int) -> None:
        say(f"seed {seed}")
        for number, point in enumerate(points(seed, count), start=1):
            programs = Programs(self._folder / str(number), self._caches)
            try:
                took_s = Lab(programs).tell(
                    self._package, programs.folder / "out", point
                )
            finally:
                programs.close()
            say(f"{number}: {point}; linked again after {took_s:.1f} s, all is whole")


def say(text: str) -> None:
    """Print a line that pytest shows with `-s`."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


@pytest.fixture
def series(padded_package: Path, tmp_path: Path, caches: Path) -> Series:
    return Series(tmp_path, caches, padded_package)


@pytest.mark.timeout(600)
def test_kills_at_three_random_points(series: Series) -> None:
    series.run(SHORT_SEED, SHORT_POINTS)


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_kills_at_twenty_random_points(series: Series) -> None:
    seed = int(os.environ.get("KILL_SERIES_SEED", "0")) or int(time.time())
    series.run(seed, LONG_POINTS)
