"""What users do in the real SLEAP window, one scenario a test."""

from pathlib import Path
from typing import Any

from qtpy.QtWidgets import QAbstractButton, QDialog, QWidget
from sleap_user import Scenario, User, run


def enter(user: User) -> Scenario:
    """Open the dialog, enter the lab of the session string, and choose its worker."""
    yield from open_dialog(user)
    user.shot("dialog-lab", user.named("RemoteTrainingDialog", QDialog))
    user.type_into("sessionEdit", user.options["session"])
    user.press_named("connectButton")
    yield from arrive(user)


def open_dialog(user: User) -> Scenario:
    yield lambda: user.window().isVisible()
    user.shot("menu")
    user.menu("remoteTrainAction")
    yield lambda: user.is_open("RemoteTrainingDialog")


def arrive(user: User) -> Scenario:
    """Wait until we are in a lab with a worker, and choose that one."""
    yield lambda: is_inside(user)
    yield lambda: user.rows("workerTable") > 0
    user.pick_row("workerTable")


def is_inside(user: User) -> bool:
    label = user.label("connectedLabel")
    return user.is_open("connectedRow") and label.startswith("Connected to")


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


def press_run_remotely(user: User, mode: str) -> None:
    user.press(remote_button(user, mode))
    user.say("pressed", boxes=user.boxes)


def watch(user: User, epochs: int) -> Scenario:
    """Watch both models train; the first is stopped after so many epochs."""
    yield lambda: user.viewers()
    (viewer,) = user.viewers()
    user.say("monitor", title=viewer.windowTitle())
    yield lambda: len(viewer.X) > 0
    yield lambda: epochs_drawn(viewer) >= epochs
    user.shot("monitor", viewer)
    user.say("curve", batches=len(viewer.X), epochs=epochs_drawn(viewer))
    user.press(viewer.stop_button)
    yield lambda: [v for v in user.viewers() if v is not viewer]
    (second,) = [v for v in user.viewers() if v is not viewer]
    user.say("monitor", title=second.windowTitle())
    yield lambda: len(second.X) > 0


def epochs_drawn(viewer: Any) -> int:
    return len(viewer.mp_series["val_loss"].get_data()[0])


def tell_models(user: User) -> None:
    """Say which models SLEAP itself lists as trained."""
    from sleap.gui.learning.configs import TrainingConfigsGetter

    path = user.window().state["filename"]  # type: ignore[attr-defined]
    getter = TrainingConfigsGetter.make_from_labels_filename(path)
    getter.update()
    trained = {
        info.head_name: Path(info.path).parent.name
        for head in ("centroid", "centered_instance")
        for info in getter.get_filtered_configs(head)
        if info.has_trained_model
    }
    user.say("models", trained=trained)


def tell_predictions(user: User) -> None:
    """Say which frames of the open project have predictions now."""
    labels = user.window().labels  # type: ignore[attr-defined]
    user.say(
        "predictions",
        suggested=sorted(s.frame_idx for s in labels.suggestions),
        predicted=sorted(
            lf.frame_idx for lf in labels.labeled_frames if lf.has_predicted_instances
        ),
        user_frames=len(labels.user_labeled_frames),
        videos=len(labels.videos),
        skeletons=len(labels.skeletons),
        has_changes=user.window().state["has_changes"],  # type: ignore[attr-defined]
        status=user.window().statusBar().currentMessage(),
        boxes=user.boxes,
    )


def train(user: User) -> Scenario:
    """Train flies remotely with a monitor, then predict remotely with the models."""
    yield from enter(user)
    yield from configure(user)
    user.shot("training-dialog", dialog_of(user, "training"))
    press_run_remotely(user, "training")
    yield from watch(user, int(user.options.get("epochs", "1")))
    yield lambda: "are home" in user.status()
    tell_models(user)
    if "predicts" in user.options:
        yield lambda: user.window().state["has_changes"]  # type: ignore[attr-defined]
        tell_predictions(user)
    else:
        yield from predict(user)
    user.menu("remoteJobsAction")
    yield lambda: user.rows("jobsTable") > 0
    user.shot("jobs", user.named("RemoteJobsWindow", QWidget))
    leave(user)


def predict(user: User) -> Scenario:
    """Predict on the suggestions through SLEAP's own inference dialog."""
    user.menu("remoteInferenceAction")
    yield lambda: user.is_open("RemoteTrainingDialog")
    user.press_named("configureButton")
    yield lambda: dialog_of(user, "inference").isVisible()
    # The quick models are weak: take every peak, of two animals.
    dialog_of(user, "inference").pipeline_form_widget.set_form_data(
        {
            "_peak_threshold_default": False,
            "_peak_threshold": 0.0,
            "_max_instances_disabled": False,
            "_max_instances": 2,
        }
    )
    user.shot("inference-dialog", dialog_of(user, "inference"))
    press_run_remotely(user, "inference")
    yield lambda: user.window().state["has_changes"]  # type: ignore[attr-defined]
    tell_predictions(user)


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
