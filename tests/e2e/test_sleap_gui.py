"""The real SLEAP window with bad input and bad luck.

Every test runs SLEAP's own program with the plugin, a real signaling server and a real
worker whose trainer is a script; `support/sleap_mishaps` is the user.
"""

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.programs import POSIX, SUPPORT, Program, Programs, Worker

pytestmark = [
    POSIX,
    pytest.mark.timeout(400),
    pytest.mark.skipif(
        importlib.util.find_spec("sleap") is None, reason="SLEAP is not installed"
    ),
]

# Longer than the user's own patience, whose words say more.
WAIT_S = 130.0
SUGGESTED = list(range(7, 87, 10))


class Desk:
    """Starts SLEAP for a user, and leaves notes for them."""

    def __init__(self, programs: Programs) -> None:
        self.programs = programs
        self._notes = programs.folder / "notes"
        self._notes.mkdir()

    def sleap(self, scenario: str, project: Path | None, **options: object) -> Program:
        """Start SLEAP with a project and a user."""
        words = [f"{name}={value}" for name, value in options.items()]
        return self.programs.start(
            SUPPORT / "sleap_mishaps.py",
            scenario,
            f"notes={self._notes}",
            *words,
            "--",
            *([project] if project else []),
            QT_QPA_PLATFORM="offscreen",
            PYTHON_KEYRING_BACKEND="keyring.backends.fail.Keyring",
        )

    def tell(self, note: str, text: str = "") -> None:
        """Leave a note, whole at once."""
        draft = self._notes / f"{note}.draft"
        draft.write_text(text)
        draft.rename(self._notes / note)


@pytest.fixture
def desk(programs: Programs) -> Desk:
    return Desk(programs)


@pytest.fixture
def project(demo_package: Path, tmp_path: Path) -> Path:
    """A saved project with labels and suggestions, in a folder of its own."""
    folder = tmp_path / "project"
    folder.mkdir()
    return Path(shutil.copy(demo_package.with_name("demo.slp"), folder))


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    return tmp_path / "gate"


def worker_behind(
    programs: Programs, gate: Path, *words: str, **options: int
) -> Worker:
    """Start a worker that trains until the gate opens, and sees animals."""
    more = "".join(f",{name}={value}" for name, value in options.items())
    behaviour = f"gated,gate={gate},sees=1{more}"
    return programs.scripted_worker(behaviour, "--name", "gpu", *words).wait_ready()


def saw(sleap: Program, what: str) -> dict[str, Any]:
    """Return what the user told when they saw this."""
    return sleap.wait_event(WAIT_S, saw=what)


def assert_ended_well(sleap: Program) -> None:
    assert sleap.wait() == 0, sleap.story()
    said = "\n".join(sleap.err)
    assert "Traceback" not in said, sleap.story()


# -- the whole way ---------------------------------------------------------------------


@pytest.mark.parametrize("host", ["companion", "in-process"])
def test_a_worker_goes_and_comes_back_and_the_run_is_whole(
    host: str, desk: Desk, programs: Programs, project: Path, gate: Path
) -> None:
    use_host(programs, host)
    url = programs.signaling()
    first = worker_behind(programs, gate, "--signaling", url)
    sleap = desk.sleap("worker_away", project, session=first.session)
    training = saw(sleap, "training")
    assert "gpu" in training["title"]
    assert training["companions"] == (1 if host == "companion" else 0)
    first.kill()
    away = saw(sleap, "away")
    assert "cannot be reached" in away["title"]
    worker_behind(programs, gate, "--session", first.session)
    back = saw(sleap, "back")
    assert "cannot be reached" not in back["title"]
    gate.touch()
    curve = saw(sleap, "curve")
    assert curve["epochs"] == [1.0, 2.0]
    assert curve["batches"] >= 2
    home = saw(sleap, "home")
    assert home["predicted"] == [[frame, 1] for frame in SUGGESTED]
    assert (home["videos"], home["skeletons"], home["boxes"]) == (1, 1, [])
    assert_ended_well(sleap)
    models = list((project.parent / "models").glob("*/best.ckpt"))
    assert len(models) == 2


def use_host(programs: Programs, host: str) -> None:
    folder = programs.home / "config" / "sleap-remote"
    folder.mkdir(parents=True)
    (folder / "settings.json").write_text(f'{{"host": "{host}"}}')
