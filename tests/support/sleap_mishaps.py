"""What goes wrong in the real SLEAP window, one scenario a test.

The test does what happens elsewhere (workers that vanish, servers that forget) when a
scenario has said where it is, and leaves notes for it to go on by.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from qtpy.QtCore import QElapsedTimer, Qt, QTimer
from qtpy.QtWidgets import QAbstractButton, QMessageBox, QTableView, QWidget
from sleap_scenarios import dialog_of, leave, remote_button
from sleap_user import Scenario, User, run

PATIENCE_S = 60.0

# -- parts of a day --------------------------------------------------------------------


def enter(user: User) -> Scenario:
    """Open the dialog, enter the lab of the session string, and choose its worker."""
    yield lambda: user.window().isVisible()
    user.menu("remoteTrainAction")
    yield lambda: user.is_open("RemoteTrainingDialog")
    user.type_into("sessionEdit", user.options["session"])
    user.press_named("connectButton")
    yield from arrive(user)


def arrive(user: User) -> Scenario:
    """Wait until we are in a lab with a worker, and choose that one."""
    yield lambda: is_inside(user)
    yield lambda: user.rows("workerTable") > 0
    user.pick_row("workerTable")


def is_inside(user: User) -> bool:
    label = user.label("connectedLabel")
    return user.is_open("connectedRow") and label.startswith("Connected to")


def send(user: User) -> Scenario:
    """Press Run remotely in SLEAP's own dialog, as it comes up."""
    user.press_named("configureButton")
    yield lambda: remote_button(user, "training").isEnabled()
    user.press(remote_button(user, "training"))


def companion() -> psutil.Process:
    """Return the companion of this SLEAP."""
    (found,) = companions()
    return found


def companions() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if "sleap_rtc_plugin.companion" in child.cmdline():
                found.append(child)
    return found


def predicted(user: User) -> dict[int, int]:
    """Return how many predicted instances there are by frame."""
    labels = user.window().labels  # type: ignore[attr-defined]
    return {
        frame.frame_idx: len(frame.predicted_instances)
        for frame in labels.labeled_frames
        if frame.predicted_instances
    }


def has_merged(user: User) -> bool:
    return bool(user.window().state["has_changes"])  # type: ignore[attr-defined]


def epochs_of(viewer: Any) -> list[float]:
    return [float(x) for x in viewer.mp_series["val_loss"].get_data()[0]]


def footer(viewer: Any) -> str:
    return str(viewer.statusBar().currentMessage())


def say_home(user: User) -> None:
    labels = user.window().labels  # type: ignore[attr-defined]
    user.say(
        "home",
        predicted=list(predicted(user).items()),
        videos=len(labels.videos),
        skeletons=len(labels.skeletons),
        status=user.window().statusBar().currentMessage(),
        boxes=user.boxes,
    )


# -- the whole way, with a worker that goes and comes ----------------------------------


def worker_away(user: User) -> Scenario:
    """Train; the worker is killed and started again; the curve and the results."""
    yield from enter(user)
    yield from send(user)
    yield lambda: user.viewers() and epochs_of(user.viewers()[0])
    (viewer,) = user.viewers()
    user.say("training", title=viewer.windowTitle(), companions=len(companions()))
    yield lambda: "cannot be reached" in footer(viewer)
    user.say("away", footer=footer(viewer), title=viewer.windowTitle())
    yield lambda: "is back" in footer(viewer)
    user.say("back", footer=footer(viewer), title=viewer.windowTitle())
    yield lambda: len(epochs_of(viewer)) == 2
    user.say("curve", epochs=epochs_of(viewer), batches=len(viewer.X))
    yield lambda: has_merged(user)
    say_home(user)
    user.menu("remoteJobsAction")
    yield lambda: user.rows("jobsTable") > 0
    leave(user)


if __name__ == "__main__":
    run({function.__name__: function for function in (worker_away,)}, PATIENCE_S)
