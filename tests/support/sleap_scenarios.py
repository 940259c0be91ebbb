"""What users do in the real SLEAP window, one scenario a test."""

from pathlib import Path
from typing import Any

from qtpy.QtWidgets import QAbstractButton, QDialog
from sleap_user import Scenario, User, run


def enter(user: User) -> Scenario:
    """Open the dialog and enter the lab of the session string."""
    yield lambda: user.window().isVisible()
    user.shot("menu")
    user.menu("remoteTrainAction")
    yield lambda: user.is_open("RemoteTrainingDialog")
    user.shot("dialog-lab", user.named("RemoteTrainingDialog", QDialog))
    user.type_into("sessionEdit", user.options["session"])
    user.press_named("connectButton")
    yield lambda: user.rows("workerTable") > 0
    user.pick_row("workerTable")


def configure(user: User) -> Scenario:
    """Open SLEAP's own dialog from ours and choose the quick configurations."""
    user.press_named("configureButton")
    yield lambda: dialog_of(user, "training").isVisible()
    choose_quick(user)
    yield lambda: remote_button(user, "training").isEnabled()


def dialog_of(user: User, mode: str) -> Any:
    found = user.window()._child_windows.get(mode)  # type: ignore[attr-defined]
    if found is None:
        raise LookupError(f"SLEAP's {mode} dialog")
    return found


def remote_button(user: User, mode: str) -> QAbstractButton:
    return user.named("runRemotelyButton", QAbstractButton, dialog_of(user, mode))


def choose_quick(user: User) -> None:
    """Choose in each tab the configuration that lies beside the project."""
    dialog = dialog_of(user, "training")
    for name in dialog.shown_tab_names:
        choices = dialog.tabs[name]._cfg_list_widget
        texts = [choices.itemText(i) for i in range(choices.count())]
        (index,) = [i for i, text in enumerate(texts) if "quick" in text]
        choices.setCurrentIndex(index)


def is_in_view(viewer: Any) -> bool:
    return len(viewer.X) > 0


def train(user: User) -> Scenario:
    """The whole way: configure, run remotely, watch, stop early, results merged."""
    yield from enter(user)
    yield from configure(user)
    user.shot("training-dialog", dialog_of(user, "training"))
    user.press(remote_button(user, "training"))
    user.say("pressed", boxes=user.boxes)
    yield lambda: user.viewers()
    (viewer,) = user.viewers()
    user.say("monitor", title=viewer.windowTitle())
    yield lambda: is_in_view(viewer)
    user.shot("monitor-early", viewer)
    yield lambda: len(viewer.mp_series["val_loss"].get_data()[0]) > 0
    user.shot("monitor", viewer)
    user.say(
        "curve",
        batches=len(viewer.X),
        epochs=len(viewer.mp_series["val_loss"].get_data()[0]),
    )
    user.press(viewer.stop_button)
    yield lambda: len([v for v in user.viewers() if v is not viewer]) > 0
    (second,) = [v for v in user.viewers() if v is not viewer]
    user.say("second monitor", title=second.windowTitle())
    yield lambda: is_in_view(second)
    yield lambda: user.window().state["has_changes"]  # type: ignore[attr-defined]
    from sleap.gui.learning.configs import TrainingConfigsGetter

    labels_path = user.window().state["filename"]  # type: ignore[attr-defined]
    getter = TrainingConfigsGetter.make_from_labels_filename(labels_path)
    getter.update()
    trained = [
        (info.head_name, str(Path(info.path).parent.name))
        for info in getter.get_filtered_configs("centroid")
        + getter.get_filtered_configs("centered_instance")
        if info.has_trained_model
    ]
    labels = user.window().labels  # type: ignore[attr-defined]
    suggested = {s.frame_idx for s in labels.suggestions}
    with_predictions = {
        lf.frame_idx for lf in labels.labeled_frames if lf.has_predicted_instances
    }
    user.say(
        "home",
        trained=trained,
        suggested=sorted(suggested),
        predicted=sorted(with_predictions),
        videos=len(labels.videos),
        skeletons=len(labels.skeletons),
        status=user.window().statusBar().currentMessage(),
        boxes=user.boxes,
    )
    user.shot("home")
    user.menu("remoteJobsAction")
    yield lambda: user.rows("jobsTable") > 0
    user.shot("jobs", user.named("RemoteJobsWindow", QDialog.__mro__[1]))
    leave(user)


def leave(user: User) -> None:
    """Close SLEAP without saving."""
    user.window().state["has_changes"] = False  # type: ignore[attr-defined]
    user.window().close()


def look(user: User) -> Scenario:
    """Only see what is there, and close."""
    yield lambda: user.window().isVisible()
    bar = user.window().menuBar()
    user.say("menus", menus=[action.text() for action in bar.actions()])
    leave(user)


if __name__ == "__main__":
    run({"train": train, "look": look})
