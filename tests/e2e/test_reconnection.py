"""Networks that go and come, programs that stand still or die: nothing is lost.

Real programs, some in network namespaces; only the trainer is scripted. Every story
ends alike: the whole curve, each epoch once, the model bit for bit, nothing half done.
Long series are started by hand with `-m slow -s`.
"""

import os
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.namespaces import namespaces_joined
from support.packages import pad_labels
from support.programs import POSIX, Program, Programs, wait_for
from support.story import (
    BACK_S,
    PHASES,
    SIZE_MIB,
    Net,
    Phase,
    Story,
    begin,
    finish,
)

from sleap_rtc_plugin.protocol.limits import KEEP_ALIVE_TIMEOUT_S

# So slow that a phase lasts for seconds.
SLOW = {"SLEAP_REMOTE_MAX_MBIT": "40"}
# Longer than a silent peer is waited for.
OUTAGE_S = KEEP_ALIVE_TIMEOUT_S + 5.0
MTU_BYTES = 1500
SHORT_SEED = 6
LONG_POINTS = 20

pytestmark = [POSIX, pytest.mark.timeout(400)]


@pytest.fixture(scope="session")
def padded_package(
    small_package: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("padded")
    return pad_labels(small_package, folder / "p.training_job.zip", SIZE_MIB, folder)


@pytest.fixture
def net() -> Iterator[Net]:
    with namespaces_joined(MTU_BYTES, has_router=True) as cable:
        yield Net(cable)


def make(programs: Programs, net: Net | None = None) -> Story:
    more = f",checkpoint_mib={SIZE_MIB}"
    return Story(programs, more=more, net=net, environment=SLOW)


@pytest.fixture
def story(programs: Programs) -> Story:
    return make(programs)


@pytest.fixture
def apart(programs: Programs, net: Net) -> Story:
    """A client, a worker and a server in three networks."""
    return make(programs, net)


def stand(seconds: float) -> None:
    """Let time pass: what is tested is how long something was away."""
    until = time.monotonic() + seconds
    wait_for(lambda: time.monotonic() > until, "time", seconds + 30.0)


def is_lost(client: Program) -> bool:
    return any(event.get("state") == "lost" for event in client.events)


# -- the network -----------------------------------------------------------------------


def test_a_short_cut_is_not_even_noticed(
    apart: Story, net: Net, padded_package: Path, output: Path
) -> None:
    client = begin(apart, padded_package, output, "transfer")
    with net.cut(net.client):
        stand(4.0)
    finish(apart, client, output)
    assert not is_lost(client)


@pytest.mark.parametrize("phase", PHASES)
def test_a_network_that_is_cut_and_healed(
    apart: Story, net: Net, padded_package: Path, output: Path, phase: Phase
) -> None:
    client = begin(apart, padded_package, output, phase)
    with net.cut(net.client):
        client.wait_event(BACK_S, event="link", state="lost")
        # The job goes on meanwhile.
        apart.allow(1, 2)
        stand(2.0)
    client.wait_event(BACK_S, event="link", state="back")
    finish(apart, client, output)


@pytest.mark.parametrize("who", ["client", "worker"])
def test_an_address_that_changes(
    apart: Story, net: Net, padded_package: Path, output: Path, who: str
) -> None:
    client = begin(apart, padded_package, output, "training")
    net.move(net.client if who == "client" else net.worker)
    client.wait_event(BACK_S, event="link", state="back")
    finish(apart, client, output)


def test_a_worker_that_is_away_for_longer_than_one_waits(
    apart: Story, net: Net, padded_package: Path, output: Path
) -> None:
    client = apart.train(padded_package, output, "--reconnect-for", "3s")
    apart.allow(0)
    client.wait_event(BACK_S, event="progress", kind="epoch_end", epoch=0)
    with net.cut(net.worker):
        assert client.wait(BACK_S) == 3, client.story()
        assert client.report["error"]["code"] == "worker_away"
        apart.allow_all()
    # And the same command brings it home.
    finish(apart, apart.train(padded_package, output), output)


# -- the server ------------------------------------------------------------------------


@pytest.mark.parametrize("phase", PHASES)
def test_links_need_no_server(
    story: Story, padded_package: Path, output: Path, phase: Phase
) -> None:
    client = begin(story, padded_package, output, phase)
    story.server.program.kill()
    story.allow_all()
    assert client.wait(BACK_S) == 0, client.story()
    assert not is_lost(client)
    story.server.program = story.server.start()
    # The worker comes back to its room by itself.
    wait_for(
        lambda: "gpu-box" in "".join(_listed(story)), "the worker to register", BACK_S
    )
    again = story.train(padded_package, output)
    again.wait_event(BACK_S, event="worker")
    again.kill()


def _listed(story: Story) -> list[str]:
    client = story.programs.client("workers", "--json", "--session", story.session)
    client.wait(BACK_S)
    return client.out


# -- programs that stand still ---------------------------------------------------------


@pytest.mark.parametrize("who", ["client", "worker"])
@pytest.mark.parametrize(
    "away_s", [OUTAGE_S, pytest.param(120.0, marks=pytest.mark.slow)]
)
def test_a_program_that_stands_still(
    story: Story, padded_package: Path, output: Path, who: str, away_s: float
) -> None:
    # Longer than a command keeps on by itself.
    words = ("--reconnect-for", "10m")
    client = begin(story, padded_package, output, "training", words=words)
    with (client if who == "client" else story.worker).paused():
        stand(away_s)
    story.allow(1, 2)
    client.wait_event(BACK_S, event="link", state="back")
    finish(story, client, output)


# -- programs that die -----------------------------------------------------------------


class Series:
    """One story after another, each with somebody killed at random."""

    def __init__(self, folder: Path, caches: Path, package: Path) -> None:
        self._folder, self._caches, self._package = folder, caches, package

    def run(self, number: int, who: str, phase: Phase, share: float) -> None:
        programs = Programs(self._folder / str(number), self._caches)
        output = programs.folder / "out"
        try:
            story = make(programs)
            client = begin(story, self._package, output, phase)
            stand(3.0 * share)
            if who == "client":
                client.kill()
                client = story.train(self._package, output)
            elif who == "server":
                story.server.restart()
            else:
                story.restart_worker()
            finish(story, client, output)
        finally:
            programs.close()


@pytest.fixture
def series(padded_package: Path, tmp_path: Path, caches: Path) -> Series:
    return Series(tmp_path, caches, padded_package)


def points(seed: int, count: int) -> Iterator[tuple[str, Phase, float]]:
    """Yield who is killed, in which phase, and when in it; everybody in turn."""
    chance = random.Random(seed)  # noqa: S311 - where to kill, not a secret
    everybody = ("client", "server", "worker")
    for number in range(count):
        phase = chance.choice(PHASES)
        yield everybody[number % len(everybody)], phase, chance.random()


@pytest.mark.timeout(900)
def test_kills_at_three_random_points(series: Series) -> None:
    for number, (who, phase, share) in enumerate(points(SHORT_SEED, 3)):
        series.run(number, who, phase, share)


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_kills_at_twenty_random_points_each(series: Series) -> None:
    seed = int(os.environ.get("KILL_SERIES_SEED", "0")) or int(time.time())
    sys.stderr.write(f"seed {seed}\n")
    for number, (who, phase, share) in enumerate(points(seed, 3 * LONG_POINTS)):
        sys.stderr.write(f"{number}: {who} at {share:.0%} of {phase}\n")
        series.run(number, who, phase, share)
