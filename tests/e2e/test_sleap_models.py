"""A lab's models in the real SLEAP window, by object name and mostly by keyboard.

SLEAP's own program with the plugin, a real signaling server, a real worker with its
model store, and a script for a trainer; `support/sleap_models` is the user.
"""

import importlib.util
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.programs import POSIX, SUPPORT, Program, Programs
from support.trained_models import write_model

from sleap_rtc_plugin.resources import resource
from sleap_rtc_plugin.session.demo_project import NODES

pytestmark = [
    POSIX,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        importlib.util.find_spec("sleap") is None, reason="SLEAP is not installed"
    ),
]

# Shorter than the user's own patience for each of several things.
WAIT_S = 240.0
SUGGESTED = list(range(7, 87, 10))
HEADS = ("centroid", "centered_instance")


@pytest.fixture
def project(demo_package: Path, tmp_path: Path) -> Path:
    """A saved project with labels and suggestions, in a folder of its own."""
    folder = tmp_path / "ada"
    folder.mkdir()
    return Path(shutil.copy(demo_package.with_name("demo.slp"), folder))


def write_pair(folder: Path) -> None:
    """Write a trained top-down pair as SLEAP would, with its nodes."""
    for seed, head in enumerate(HEADS):
        model = write_model(folder / f"fish.{head}.n=20", seed=seed, head=head)
        config = yaml.safe_load(resource(f"demo/{head}.yaml").read_text())
        nodes = [{"name": node} for node in NODES]
        config["data_config"]["skeletons"] = [{"name": "fish", "nodes": nodes}]
        config["sleap_nn_version"] = "0.3.5"
        (model / "training_config.yaml").write_text(yaml.safe_dump(config))


def sleap(programs: Programs, scenario: str, project: Path, session: str) -> Program:
    options = {"session": session}
    if shots := os.environ.get("E2E_SHOTS"):
        options["shots"] = shots
    return programs.start(
        SUPPORT / "sleap_models.py",
        scenario,
        *(f"{name}={value}" for name, value in options.items()),
        "--",
        project,
        QT_QPA_PLATFORM="offscreen",
        PYTHON_KEYRING_BACKEND="keyring.backends.fail.Keyring",
    )


def saw(program: Program, what: str) -> dict[str, Any]:
    return program.wait_event(WAIT_S, saw=what)


def assert_ended_well(program: Program) -> None:
    assert program.wait(WAIT_S) == 0, program.story()
    assert "Traceback" not in "\n".join(program.err), program.story()


def test_a_local_model_is_shared_pulled_and_used_elsewhere(
    programs: Programs, project: Path, tmp_path: Path
) -> None:
    worker = programs.scripted_worker("train,sees=1", "--name", "gpu").wait_ready()
    theirs = tmp_path / "bob"
    shutil.copytree(project.parent, theirs)
    write_pair(project.parent / "models")
    ada = sleap(programs, "share", project, worker.session)
    assert "An alias must be" in saw(ada, "refused")["words"]
    published = saw(ada, "published")["facts"]
    assert published["Name"] == "fish.n=20"
    assert published["Nodes"] == ", ".join(NODES)
    assert_ended_well(ada)

    bob = sleap(programs, "take", theirs / project.name, worker.session)
    pulled = saw(bob, "pulled")
    assert pulled["facts"]["Id"] == published["Id"]
    folders = {path.name for path in (theirs / "models").iterdir()}
    assert folders == {f"fish.{head}.n=20" for head in HEADS}
    # As SLEAP itself lists them.
    trained = saw(bob, "models")["trained"]
    assert trained == {head: f"fish.{head}.n=20" for head in HEADS}
    seen = saw(bob, "predictions")
    assert seen["predicted"] == SUGGESTED
    assert seen["boxes"] == []
    assert_ended_well(bob)
    # No weights were sent: the worker had them.
    (steps,) = (programs.folder / "worker-data" / "jobs").rglob("jobs.yaml")
    assert published["Id"] in steps.read_text()
    weights = [path.relative_to(steps.parent) for path in steps.parent.rglob("*.ckpt")]
    assert {path.parts[0] for path in weights} <= {"published"}


def test_a_training_publishes_itself(programs: Programs, project: Path) -> None:
    worker = programs.scripted_worker("train,sees=1", "--name", "gpu").wait_ready()
    window = sleap(programs, "publish_training", project, worker.session)
    assert "Published as fish (model-" in saw(window, "said")["status"]
    listed = saw(window, "listed")["facts"]
    assert listed["Type"].startswith("Top-down: ")
    assert_ended_well(window)
