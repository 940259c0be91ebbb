"""What goes wrong in the real SLEAP window, one scenario a test.

The test does what happens elsewhere (workers that vanish, servers that forget) when a
scenario has said where it is, and leaves notes for it to go on by.
"""

import contextlib
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QAbstractButton, QComboBox, QMenu, QMessageBox, QTableView
from sleap_scenarios import (
    enter,
    is_inside,
    leave,
    open_dialog,
    remote_button,
)
from sleap_user import Scenario, User, run

PATIENCE_S = 90.0
LOADING_ENDS_S = 0.2

# -- parts of a day --------------------------------------------------------------------


def send(user: User) -> Scenario:
    """Press Run remotely in SLEAP's own dialog, as it comes up."""
    user.press_named("configureButton")
    yield lambda: remote_button(user, "training").isEnabled()
    user.press(remote_button(user, "training"))


def train(user: User) -> Scenario:
    """Enter, send, and wait until the first epoch is drawn."""
    yield from enter(user)
    yield from send(user)
    yield lambda: is_drawn(user)


def is_drawn(user: User) -> bool:
    return any(epochs_of(viewer) for viewer in user.viewers())


def epochs_of(viewer: Any) -> list[float]:
    return [float(x) for x in viewer.mp_series["val_loss"].get_data()[0]]


def losses_of(viewer: Any) -> list[float]:
    return [float(y) for y in viewer.mp_series["val_loss"].get_data()[1]]


def footer(viewer: Any) -> str:
    return str(viewer.statusBar().currentMessage())


def progress(user: User) -> str:
    is_seen = user.is_open("progressRow")
    return user.label("progressLabel") if is_seen else ""


def open_jobs(user: User) -> Scenario:
    user.menu("remoteJobsAction")
    yield lambda: user.is_open("RemoteJobsWindow")


def waiting(user: User) -> list[str]:
    """Return why results wait, a reason each."""
    table = user.named("waitingTable", QTableView)
    model = table.model()
    if not user.is_open("waitingGroup"):
        return []
    return [model.index(row, 2).data() for row in range(model.rowCount())]


def can_merge(user: User) -> bool:
    return user.named("mergeButton", QAbstractButton).isEnabled()


# -- the project -----------------------------------------------------------------------


def project_of(user: User) -> Path:
    return Path(user.window().state["filename"])  # type: ignore[attr-defined]


def has_changes(user: User) -> bool:
    return bool(user.window().state["has_changes"])  # type: ignore[attr-defined]


def save_as(user: User, path: Path) -> None:
    """Use File > Save As..., and choose `path`."""
    from sleap.gui.dialogs.filedialog import FileDialog

    FileDialog.save = staticmethod(lambda *args, **kwargs: (str(path), ""))
    stock(user, "File", "Save As...")


def stock(user: User, menu: str, entry: str) -> None:
    """Choose an entry of SLEAP's own menus."""
    for action in user.window().menuBar().actions():
        if action.text() == menu and isinstance(action.menu(), QMenu):
            for one in action.menu().actions():
                if one.text() == entry:
                    assert one.isEnabled(), entry
                    one.trigger()
                    return
    raise LookupError(f"{menu} > {entry}")


def say_home(user: User) -> None:
    """Tell what was merged into the project."""
    labels = user.window().labels  # type: ignore[attr-defined]
    user.say(
        "home",
        predicted=[
            (frame.frame_idx, len(frame.predicted_instances))
            for frame in labels.labeled_frames
            if frame.predicted_instances
        ],
        videos=len(labels.videos),
        skeletons=len(labels.skeletons),
        status=user.window().statusBar().currentMessage(),
        boxes=user.boxes,
    )


# -- the companion ---------------------------------------------------------------------


def companions() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if "sleap_rtc_plugin.companion" in child.cmdline():
                found.append(child)
    return found


def kill_companion() -> None:
    (companion,) = companions()
    companion.kill()


# -- the whole way, with a worker that goes and comes ----------------------------------


def whole(user: User) -> Scenario:
    """Train, with a worker that goes and comes if need be; the curve, the results."""
    yield from train(user)
    (viewer,) = user.viewers()
    user.say("training", title=viewer.windowTitle(), companions=len(companions()))
    if "away" in user.options:
        yield lambda: "cannot be reached" in footer(viewer)
        user.say("away", footer=footer(viewer), title=viewer.windowTitle())
        yield lambda: "is back" in footer(viewer)
        user.say("back", footer=footer(viewer), title=viewer.windowTitle())
    yield lambda: len(epochs_of(viewer)) == 2
    user.say("curve", epochs=epochs_of(viewer), batches=len(viewer.X))
    yield lambda: has_changes(user)
    say_home(user)
    yield from open_jobs(user)
    yield lambda: user.rows("jobsTable") > 0
    leave(user)


# -- projects that are not ready, and a lab that is not there --------------------------


def unready(user: User) -> Scenario:
    """Begin without a project and without a server."""
    yield from open_dialog(user)
    yield from configure_in_vain(user)
    user.say("without videos", status=user.status())
    user.type_into("sessionEdit", user.options["session"])
    user.press_named("connectButton")
    yield lambda: "cannot be reached" in user.status()
    user.say("without a server", status=user.status(), form=user.is_open("labForm"))

    from sleap_io import load_slp

    labels = load_slp(user.options["labels"])
    user.window().commands.loadLabelsObject(labels=labels)  # type: ignore[attr-defined]
    yield lambda: bool(user.window().labels.videos)  # type: ignore[attr-defined]
    yield from configure_in_vain(user)
    user.say("never saved", status=user.status())
    save_as(user, Path(user.options["saved"]))
    yield lambda: not has_changes(user)
    user.press_named("configureButton")
    yield lambda: remote_button(user, "training").isEnabled()
    yield from use_stock_menus(user)
    yield lambda: has_changes(user)
    yield from configure_in_vain(user)
    user.say("changed", status=user.status())
    user.press(remote_button(user, "training"))
    user.say("pressed with changes", status=user.status(), sent=progress(user))
    stock(user, "File", "Save")
    yield lambda: not has_changes(user)
    project_of(user).unlink()
    yield from configure_in_vain(user)
    user.say("file gone", status=user.status(), boxes=user.boxes)
    leave(user)


def configure_in_vain(user: User) -> Scenario:
    before = user.status()
    user.press_named("configureButton")
    yield lambda: user.status() != before


def use_stock_menus(user: User) -> Scenario:
    """Use some of SLEAP's own menus; the last leaves a change."""
    state: Any = user.window().state  # type: ignore[attr-defined]
    state["frame_idx"] = 0
    stock(user, "Go", "Next Suggestion")
    yield lambda: state["frame_idx"] == 7
    stock(user, "Go", "Next Labeled Frame")
    yield lambda: state["frame_idx"] == 10
    shown = state["show instances"]
    stock(user, "View", "Show Instances")
    yield lambda: state["show instances"] != shown
    stock(user, "View", "Show Instances")
    stock(user, "Labels", "Add Instance")
    yield lambda: len(state["labeled_frame"].instances) == 3
    user.say("menus")


# -- projects that move while a job runs -----------------------------------------------


def moved(user: User) -> Scenario:
    """Results come home to a project that is not open, not there, not the same."""
    gate = Path(user.options["gate"])
    yield from train(user)
    project = project_of(user)
    save_as(user, project.with_name("another.slp"))
    yield lambda: project_of(user) != project
    gate.touch()
    yield from open_jobs(user)
    yield lambda: waiting(user)
    user.say("another is open", reasons=waiting(user), can_merge=can_merge(user))
    away = project.rename(project.with_name("moved.slp"))
    user.press_named("refreshButton")
    yield lambda: "moved or deleted" in waiting(user)[0]
    user.say("moved", reasons=waiting(user), can_merge=can_merge(user))
    away.rename(project)
    skeleton = user.window().labels.skeletons[0]  # type: ignore[attr-defined]
    save_as(user, project)
    yield lambda: project_of(user) == project
    skeleton.add_node("fin")
    user.press_named("refreshButton")
    yield lambda: "no longer the one" in waiting(user)[0]
    user.say("replaced", reasons=waiting(user), can_merge=can_merge(user))
    skeleton.remove_node("fin")
    user.press_named("refreshButton")
    yield lambda: can_merge(user)
    user.say("fits", reasons=waiting(user))
    user.press_named("mergeButton")
    yield lambda: has_changes(user)
    yield lambda: not user.is_open("waitingGroup")
    say_home(user)
    stock(user, "File", "Save")
    yield lambda: not has_changes(user)
    yield from results_of_deleted(user, gate, project)
    leave(user)


def results_of_deleted(user: User, gate: Path, project: Path) -> Scenario:
    """Send it again, and delete its folder while it trains."""
    for viewer in user.viewers():
        viewer.close()
    gate.unlink()
    yield from send(user)
    yield lambda: is_drawn(user)
    elsewhere = Path(user.options["elsewhere"])
    elsewhere.mkdir()
    save_as(user, elsewhere / "kept.slp")
    yield lambda: project_of(user).parent == elsewhere
    shutil.rmtree(project.parent)
    gate.touch()
    yield lambda: waiting(user)
    user.say("deleted", reasons=waiting(user), can_merge=can_merge(user))


# -- a lab that is gone ----------------------------------------------------------------


def expired(user: User) -> Scenario:
    """Be in a remembered lab that is deleted; come back when its server forgot."""
    yield from open_dialog(user)
    user.type_into("sessionEdit", user.options["session"])
    user.press_named("connectButton")
    yield lambda: is_inside(user)
    user.say("inside")
    yield lambda: user.is_open("labForm")
    user.say("deleted", status=user.status())
    yield from try_known(user)
    user.say("refused", status=user.status(), form=user.is_open("labForm"))
    yield lambda: user.is_told("forgotten")
    yield from try_known(user)
    user.say("unknown", status=user.status(), form=user.is_open("labForm"))
    leave(user)


def try_known(user: User) -> Scenario:
    yield lambda: user.named("knownLabsCombo", QComboBox).isEnabled()
    assert user.named("knownLabsCombo", QComboBox).count() == 1
    before = user.status()
    user.press_named("enterButton")
    # The words differ; the form may come back before it was seen to go.
    yield lambda: user.status() not in (before, "Connecting…")


# -- a hostile worker ------------------------------------------------------------------


class Lateness:
    """How late a timer of 10 ms comes, at worst."""

    def __init__(self) -> None:
        self.worst_ms = 0.0
        self._due = time.perf_counter() + 0.01
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self._tick)
        self._timer.start(10)

    def _tick(self) -> None:
        now = time.perf_counter()
        self.worst_ms = max(self.worst_ms, 1000 * (now - self._due))
        self._due = now + 0.01


def hostile(user: User) -> Scenario:
    """Watch what a hostile worker sends, and go on working."""
    yield from enter(user)
    yield from send(user)
    yield lambda: user.viewers()
    (viewer,) = user.viewers()
    lateness = Lateness()
    yield lambda: len(viewer.X) > 0
    yield lambda: user.is_told("flooded")
    stock(user, "Labels", "Add Instance")
    yield lambda: has_changes(user)
    user.say(
        "flood",
        worst_ms=lateness.worst_ms,
        drawn=len(viewer.X),
        losses=sorted({float(y) for y in [*viewer.Y, *losses_of(viewer)]}),
        title=viewer.windowTitle(),
    )
    yield lambda: "broke the protocol" in footer(viewer)
    user.say("cut off", footer=footer(viewer), boxes=user.boxes)
    viewer.close()
    leave(user)


# -- a companion that is killed --------------------------------------------------------


def companion_killed(user: User) -> Scenario:
    """Kill it while it packs, sends, watches and fetches: each second time is dead."""
    worker = psutil.Process(int(user.options["worker"]))
    yield from enter(user)
    yield from send(user)
    yield lambda: progress(user).startswith("Collecting")
    kill_companion()
    yield lambda: "was started again" in user.status()
    user.say("restarted", status=user.status())
    yield lambda: progress(user).startswith("Sending")
    worker.suspend()
    kill_companion()
    yield lambda: user.is_open("startAgainButton")
    worker.resume()
    user.say("dead", status=user.status())
    user.press_named("startAgainButton")
    yield lambda: is_drawn(user)
    (viewer,) = user.viewers()
    before = epochs_of(viewer)
    kill_companion()
    yield lambda: not epochs_of(viewer)
    yield lambda: epochs_of(viewer)
    user.say("watching again", before=before, now=epochs_of(viewer))
    yield from open_jobs(user)
    Path(user.options["gate"]).touch()
    yield lambda: user.label("jobsNoticeLabel").startswith("Fetching")
    kill_companion()
    yield lambda: user.is_open("startAgainButton")
    user.say("dead again", status=user.status())
    user.press_named("startAgainButton")
    yield lambda: has_changes(user)
    say_home(user)
    leave(user)


# -- SLEAP is closed -------------------------------------------------------------------


def closes(user: User) -> Scenario:
    """Close SLEAP at a given moment, and answer its question."""
    yield from MOMENTS[user.options["at"]](user)
    if user.options.get("stays"):
        user.close_soon()
        yield from answer(user, "Cancel")
        yield lambda: not user.is_open("closingQuestion")
        assert user.window().isVisible()
        user.say("stays", progress=progress(user))
    children = psutil.Process().children(recursive=True)
    user.say("closes", children=[child.pid for child in children], at=time.time())
    user.close_soon()
    if "answer" in user.options:
        yield from answer(user, user.options["answer"])
        user.say("answered", at=time.time())


def answer(user: User, words: str) -> Scenario:
    yield lambda: user.is_open("closingQuestion")
    box = user.named("closingQuestion", QMessageBox)
    (button,) = [b for b in box.buttons() if words in b.text().replace("&", "")]
    user.say("asked", text=box.text())
    user.press(button)


def connecting(user: User) -> Scenario:
    yield from open_dialog(user)
    user.type_into("sessionEdit", user.options["session"])
    user.press_named("connectButton")
    yield lambda: user.status() == "Connecting…"


def packaging(user: User) -> Scenario:
    yield from enter(user)
    yield from send(user)
    yield lambda: progress(user).startswith("Collecting")


def sending(user: User) -> Scenario:
    yield from packaging(user)
    yield lambda: progress(user).startswith("Sending")
    # Or it would be over before the question is answered.
    psutil.Process(int(user.options["worker"])).suspend()


def training(user: User) -> Scenario:
    yield from train(user)


def merging(user: User) -> Scenario:
    """Come back to a job that trains; its results come, and SLEAP is closed."""
    yield from open_dialog(user)
    yield lambda: is_inside(user)
    yield lambda: is_drawn(user)
    (viewer,) = user.viewers()
    viewer.close()
    yield lambda: not user.viewers()
    yield from open_jobs(user)
    yield lambda: user.rows("jobsTable") > 0
    user.pick_row("jobsTable")
    yield lambda: user.named("attachButton", QAbstractButton).isEnabled()
    user.press_named("attachButton")
    yield lambda: is_drawn(user)
    (viewer,) = user.viewers()
    user.say("attached", epochs=epochs_of(viewer), batches=len(viewer.X))
    loads, may_load = threading.Event(), threading.Event()
    hold_loading(loads, may_load)
    Path(user.options["gate"]).touch()
    yield loads.is_set
    # In the middle of closing, as a slow disk would have it; Qt's timers end sooner.
    threading.Timer(LOADING_ENDS_S, may_load.set).start()


def hold_loading(loads: threading.Event, may_load: threading.Event) -> None:
    """Let the predictions to merge be loaded only as they may."""
    from sleap_rtc_plugin.gui import sleap_compat

    load = sleap_compat.load_predictions

    def load_late(path: str) -> Any:
        loads.set()
        may_load.wait(PATIENCE_S)
        return load(path)

    sleap_compat.load_predictions = load_late


MOMENTS = {
    function.__name__: function
    for function in (connecting, packaging, sending, training, merging)
}


def returns(user: User) -> Scenario:
    """Open SLEAP again: what is not merged yet comes by itself."""
    yield from open_dialog(user)
    yield lambda: is_inside(user)
    user.say("inside")
    yield lambda: has_changes(user)
    say_home(user)
    leave(user)


if __name__ == "__main__":
    scenarios = (
        whole,
        unready,
        moved,
        expired,
        hostile,
        companion_killed,
        closes,
        returns,
    )
    run({function.__name__: function for function in scenarios}, PATIENCE_S)
