"""Everything of SLEAP that the plugin relies on; no other module imports SLEAP.

The names relied on stand in `_RELIED_ON`, and `missing_names` says which of them a
SLEAP lacks. SLEAP is imported inside the functions, since it must not be loaded
earlier than it loads itself. All of it belongs to the GUI thread, except for
`load_predictions`.
"""

from __future__ import annotations

import importlib
import logging
import sys
import weakref
from copy import deepcopy
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from qtpy.QtCore import QEvent, QObject
from qtpy.QtWidgets import QPushButton, QWidget

from sleap_rtc_plugin.gui.monitor_ports import choose_ports
from sleap_rtc_plugin.gui.prediction_fit import (
    PredictionsDoNotFit,
    frames_that_fit,
    load_predictions,
    video_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from qtpy.QtWidgets import QDialog, QMainWindow

    from sleap_rtc_plugin.session.run_request import (
        MergeChoice,
        ProjectFacts,
        RunRequest,
    )

__all__ = [
    "OpenProject",
    "PredictionsDoNotFit",
    "ProjectNotReady",
    "add_run_remotely_button",
    "close_image_window",
    "close_loss_viewer",
    "free_run_remotely",
    "gather_run",
    "load_predictions",
    "loss_viewer_is_cancelled",
    "loss_viewer_points",
    "loss_viewer_ports",
    "make_image_window",
    "make_loss_viewer",
    "merge_predictions",
    "missing_names",
    "on_learning_dialog",
    "on_menus_created",
    "open_project",
    "refresh_image_window",
    "refresh_model_lists",
    "require_ready",
    "reset_loss_viewer",
    "run_sleap",
    "show_learning_dialog",
    "unsupported_reason",
]

Mode = Literal["training", "inference"]

SUPPORTED_SLEAP = "1.6"
"""The major and minor version whose internals these are."""

MAX_VIEWER_ATTEMPTS = 5
"""How often a LossViewer is made whose ports were taken in between."""

LINGER_MS = 200
"""How long a closing LossViewer may still send a Stop that was just pressed."""

_PREDICTIONS_NAME = "predictions.slp"

_log = logging.getLogger(__name__)

# Module -> name -> members: methods, and attributes that its methods set or use.
_RELIED_ON: dict[str, dict[str, tuple[str, ...]]] = {
    "sleap.gui.app": {
        "main": (),
        "MainWindow": (
            "_child_windows",
            "_create_menus()",
            "_handle_learning_finished()",
            "_show_learning_dialog()",
            "commands",
            "labels",
            "state",
        ),
    },
    "sleap.gui.commands": {"CommandContext": ("changestack_push()",)},
    "sleap.gui.config_utils": {"filter_cfg": ()},
    "sleap.gui.learning.configs": {
        "ConfigFileInfo": ("config", "dont_retrain", "head_name", "path"),
    },
    "sleap.gui.learning.dialog": {
        "LearningDialog": (
            "cancel_button",
            "frame_target_selector",
            "get_every_head_config_data()",
            "get_items_for_inference()",
            "labels",
            "labels_filename",
            "pipeline_form_widget",
            "run_button",
            "update_file_lists()",
        ),
    },
    "sleap.gui.learning.main_tab": {"MainTabWidget": ("get_form_data()",)},
    "sleap.gui.learning.runners": {
        "InferenceTask": ("make_predict_cli_call()", "merge_results()"),
    },
    "sleap.gui.widgets.frame_target_selector": {
        "FrameTargetSelector": ("get_selection()",),
    },
    "sleap.gui.widgets.imagedir": {
        "QtImageDirectoryWidget": ("cleanup()", "make_training_vizualizer()", "poll()"),
    },
    "sleap.gui.widgets.monitor": {
        "LossViewer": (
            "X",
            "canceled",
            "close()",
            "ctx",
            "reset()",
            "set_message()",
            "sub",
            "timer",
            "zmq_ctrl",
            "zmq_ports",
        ),
    },
}


class ProjectNotReady(Exception):
    """The open project cannot be sent as it is; the text says what to do."""


@dataclass(frozen=True)
class OpenProject:
    """The project that a window has open, as it lies on the disk.

    Attributes:
        facts: what tells it from another project.
        has_changes: it differs from the saved file.
        user_frames: the number of frames that the user labeled.
    """

    facts: ProjectFacts
    has_changes: bool
    user_frames: int


# -- is this a SLEAP we know? --------------------------------------------------------


def missing_names(*, load: bool = False) -> list[str]:
    """Return the names relied on that this SLEAP lacks, with their modules.

    Args:
        load: import what SLEAP has not imported yet, which takes a quarter of a
            second; such modules count as complete otherwise.
    """
    missing = []
    for module_name, names in _RELIED_ON.items():
        if not load and module_name not in sys.modules:
            continue
        try:
            module = importlib.import_module(module_name)
        except ImportError:
            missing.append(module_name)
            continue
        for name, members in names.items():
            found = getattr(module, name, None)
            if found is None:
                missing.append(f"{module_name}.{name}")
                continue
            missing += [
                f"{module_name}.{name}.{member}"
                for member in members
                if not _has(found, member)
            ]
    return missing


def _has(owner: type, member: str) -> bool:
    """Tell whether a class has a method, or whether its methods know an attribute."""
    if member.endswith("()"):
        return callable(getattr(owner, member[:-2], None))
    if hasattr(owner, member) or member in getattr(owner, "__annotations__", {}):
        return True
    codes = (getattr(value, "__code__", None) for value in vars(owner).values())
    return any(code is not None and member in code.co_names for code in codes)


def unsupported_reason(version: str | None = None, *, load: bool = False) -> str | None:
    """Say why this SLEAP is not supported; None where it is.

    Args:
        version: SLEAP's version; the installed one's by default.
        load: see `missing_names`.
    """
    if version is None:
        from sleap.version import __version__

        version = str(__version__)
    if version.split(".")[:2] != SUPPORTED_SLEAP.split("."):
        return (
            f"This is SLEAP {version}, and this remote training was made for SLEAP "
            f"{SUPPORTED_SLEAP}; update sleap-rtc-plugin, or install SLEAP "
            f"{SUPPORTED_SLEAP}."
        )
    missing = missing_names(load=load)
    if missing:
        return (
            f"SLEAP {version} lacks {', '.join(missing)}, which remote training needs; "
            "update sleap-rtc-plugin."
        )
    return None


# -- the main window -----------------------------------------------------------------


def run_sleap(arguments: list[str]) -> None:
    """Run SLEAP's GUI until it is closed, with the arguments of `sleap-label`."""
    from sleap.gui.app import main

    main(arguments)


def on_menus_created(callback: Callable[[QMainWindow], object]) -> None:
    """Call back with each main window as soon as it has its menus.

    What the callback raises becomes one log line; SLEAP starts all the same.
    """
    from sleap.gui.app import MainWindow

    # The last that MainWindow.__init__ does to its menu bar; every window calls it,
    # those of File > New and File > Open too.
    stock = MainWindow._create_menus

    @wraps(stock)
    def create_menus(window: QMainWindow, *args: Any, **kwargs: Any) -> Any:
        result = stock(window, *args, **kwargs)
        try:
            callback(window)
        except Exception as error:
            _log.warning("Remote training is not available: %r", error)
        return result

    MainWindow._create_menus = create_menus


def open_project(window: Any) -> OpenProject | None:
    """Return the project that a window has open; None where it was never saved."""
    # GuiState keys of sleap.gui.commands: set by open and save, and by every edit.
    path = window.state.get("filename", default=None)
    if not path:
        return None
    return OpenProject(
        facts=_facts(path, window.labels),
        has_changes=bool(window.state.get("has_changes", default=False)),
        user_frames=len(window.labels.user_labeled_frames),
    )


def require_ready(window: Any, mode: Mode = "training") -> OpenProject:
    """Return the open project if it can be sent.

    Raises:
        ProjectNotReady: it has no videos, or is not saved, or has nothing to train on.
    """
    from sleap_rtc_plugin.gui import messages

    if not window.labels.videos:
        raise ProjectNotReady(messages.PROJECT_EMPTY)
    project = open_project(window)
    if project is None:
        raise ProjectNotReady(messages.PROJECT_NEVER_SAVED)
    if project.has_changes:
        raise ProjectNotReady(messages.PROJECT_CHANGED)
    if not Path(project.facts.path).is_file():
        raise ProjectNotReady(messages.project_file_gone(project.facts.path))
    if mode == "training" and not project.user_frames:
        raise ProjectNotReady(messages.PROJECT_UNLABELED)
    return project


def _facts(path: str, labels: Any) -> ProjectFacts:
    from sleap_rtc_plugin.session.run_request import ProjectFacts

    return ProjectFacts(
        path=str(Path(path).absolute()),
        nodes=list(labels.skeletons[0].node_names) if labels.skeletons else [],
        videos=[video_name(video) for video in labels.videos],
    )


# -- SLEAP's own dialog --------------------------------------------------------------


def show_learning_dialog(window: Any, mode: Mode) -> QDialog | None:
    """Show SLEAP's training or inference dialog; None where SLEAP refused.

    SLEAP says why in a modal box, so this is called from Qt slots only.
    """
    # Behind Predict > Run Training and Run Inference; keeps one dialog of each mode
    # in `_child_windows` and shows it again.
    window._show_learning_dialog(mode)
    dialog = window._child_windows.get(mode)
    return dialog if dialog is not None and dialog.isVisible() else None


def on_learning_dialog(window: Any, callback: Callable[[QDialog, str], None]) -> None:
    """Call back with each dialog that SLEAP shows, once, and with its mode.

    What the callback raises becomes one log line.
    """
    stock = window._show_learning_dialog
    told: weakref.WeakSet[QDialog] = weakref.WeakSet()

    @wraps(stock)
    def show_dialog(mode: str, *args: Any, **kwargs: Any) -> Any:
        result = stock(mode, *args, **kwargs)
        dialog = window._child_windows.get(mode)
        if dialog is not None and dialog not in told:
            told.add(dialog)
            try:
                callback(dialog, mode)
            except Exception as error:
                _log.warning("There is no Run remotely button: %r", error)
        return result

    # The menu's actions look the method up when they are triggered.
    window._show_learning_dialog = show_dialog


class _EnabledFollower(QObject):
    """Keeps a widget enabled while another one is, and while it is free."""

    def __init__(self, leader: QWidget, follower: QWidget) -> None:
        super().__init__(follower)
        self.setObjectName("enabledFollower")
        self._leader = leader
        self._follower = follower
        self._is_free = False
        self._follow()
        leader.installEventFilter(self)

    def set_free(self, is_free: bool) -> None:
        self._is_free = is_free
        self._follow()

    def eventFilter(self, leader: QObject, event: QEvent) -> bool:
        if event.type() == QEvent.Type.EnabledChange:
            self._follow()
        return False

    def _follow(self) -> None:
        self._follower.setEnabled(self._leader.isEnabled() or self._is_free)


def add_run_remotely_button(dialog: Any) -> QPushButton:
    """Put the button Run remotely beside Run, or return the one that is there."""
    existing: QPushButton | None = dialog.findChild(QPushButton, "runRemotelyButton")
    if existing is not None:
        return existing
    # LearningDialog.__init__ lays its buttons out in a row of their own and enables
    # Run in `_validate_pipeline`.
    run = dialog.run_button
    row = run.parentWidget()
    button = QPushButton("Run remotely", row)
    button.setObjectName("runRemotelyButton")
    button.setToolTip("Run the pipeline on another machine's GPU.")
    button.setAutoDefault(False)
    row.layout().insertWidget(row.layout().indexOf(run), button)
    # The dialog may be on the screen already.
    button.show()
    QWidget.setTabOrder(dialog.cancel_button, button)
    QWidget.setTabOrder(button, run)
    _EnabledFollower(run, button)
    return button


def free_run_remotely(window: Any, is_free: bool) -> None:
    """Let the inference dialog's Run remotely be pressed although Run may not be.

    SLEAP enables Run only where it has trained models of its own, and a run with a
    model of the lab needs none.
    """
    dialog = window._child_windows.get("inference")
    if dialog is not None:
        button = dialog.findChild(QPushButton, "runRemotelyButton")
        if button is not None:
            button.findChild(_EnabledFollower, "enabledFollower").set_free(is_free)


def gather_run(dialog: Any, *, has_model: bool = False) -> RunRequest:
    """Return what Run would do with the dialog's settings, without doing it.

    It asks the dialog as `LearningDialog.run` does, and leaves it open. Frames of a
    random sample are drawn here. Called from Qt slots only.

    Args:
        dialog: SLEAP's own.
        has_model: the run predicts with a model of the lab; what the dialog says of
            models does not matter, and the run has none.

    Raises:
        ProjectNotReady: the pipeline can run on this machine only.
    """
    from omegaconf import OmegaConf
    from sleap.gui.config_utils import filter_cfg
    from sleap.gui.learning.runners import InferenceTask

    from sleap_rtc_plugin.session.run_request import (
        MergeChoice,
        ModelToTrain,
        PublishedModel,
        RunRequest,
        TrainedModel,
    )

    selection = dialog.frame_target_selector.get_selection()
    form = dialog.pipeline_form_widget.get_form_data()
    form["_prediction_mode"] = selection.prediction_mode
    if "movenet" in form["_pipeline"]:
        raise ProjectNotReady(
            "MoveNet runs on this computer only; choose another pipeline to run it "
            "remotely."
        )
    items = dialog.get_items_for_inference(form)

    models: list[ModelToTrain | TrainedModel | PublishedModel] = []
    for info in [] if has_model else dialog.get_every_head_config_data(form):
        if info.dont_retrain:
            path = str(Path(info.path).absolute())
            models.append(TrainedModel(head=info.head_name, path=path))
            continue
        # `filter_cfg` deletes the form's own keys, so it gets a copy.
        config = filter_cfg(deepcopy(info.config))
        run_name = OmegaConf.select(config, "trainer_config.run_name", default=None)
        models.append(
            ModelToTrain(
                head=info.head_name,
                config=OmegaConf.to_yaml(config),
                # SLEAP writes an empty field as None or as its name.
                run_name="" if run_name in (None, "None") else str(run_name),
            )
        )

    task = InferenceTask(trained_job_paths=[], inference_params=form)
    # With no output path, make_predict_cli_call would make folders.
    predictions = [
        task.make_predict_cli_call(item, output_path=_PREDICTIONS_NAME, gui=True)[0]
        for item in items.items
    ]
    return RunRequest(
        project=_facts(dialog.labels_filename, dialog.labels),
        models=models,
        predictions=[[str(argument) for argument in argv] for argv in predictions],
        merge=MergeChoice(
            mode="replace" if selection.prediction_mode == "replace" else "add",
            clear_all_first=bool(form.get("_clear_all_first", False)),
            target=str(form.get("_predict_target", "")),
        ),
    )


def refresh_model_lists(window: Any) -> None:
    """Let the dialogs that are open list new models; the others look when shown.

    SLEAP may open a box over an old configuration, so it is called from Qt slots only.
    """
    for mode in ("training", "inference"):
        dialog = window._child_windows.get(mode)
        if dialog is not None and dialog.isVisible():
            dialog.update_file_lists()


# -- the monitor ---------------------------------------------------------------------


def make_loss_viewer(publish_port: int, controller_port: int) -> Any:
    """Make SLEAP's LossViewer on these ports, or on others if they were just taken.

    Its constructor binds a port again right after a probe let go of it, which fails
    now and then; so it is tried a few times.

    Raises:
        OSError: it could not be made; the last reason is in the message.
    """
    from sleap.gui.widgets.monitor import LossViewer

    ports, reason = (publish_port, controller_port), ""
    for _ in range(MAX_VIEWER_ATTEMPTS):
        viewer = LossViewer.__new__(LossViewer)
        try:
            # Called by name, since a constructor that raises would leave its sockets
            # to a half made object that cannot close itself.
            LossViewer.__init__(
                viewer,
                zmq_ports={"publish_port": ports[0], "controller_port": ports[1]},
            )
        except Exception as error:
            _log.info("The monitor could not open the ports %s: %s", ports, error)
            reason = str(error)
            _release_sockets(viewer)
            viewer.deleteLater()
            ports = choose_ports(taken=ports)
        else:
            return viewer
    raise OSError(f"SLEAP's training monitor could not be made ({reason}).")


def _release_sockets(viewer: Any) -> None:
    """Close the sockets of a LossViewer whose constructor failed."""
    for name in ("sub", "zmq_ctrl"):
        zmq_socket = getattr(viewer, name, None)
        if zmq_socket is not None:
            zmq_socket.close(linger=0)
        setattr(viewer, name, None)
    context = getattr(viewer, "ctx", None)
    if context is not None:
        context.term()
    viewer.ctx = None
    # LossViewer.__del__ reads it, also where the constructor came not so far.
    viewer.ctx_given = True


def reset_loss_viewer(
    viewer: Any, head: str, patience: int | None, min_delta: float | None
) -> None:
    """Empty the plot for the next model; makes new buttons, too."""
    viewer.reset(what=head, plateau_patience=patience, plateau_min_delta=min_delta)


def loss_viewer_ports(viewer: Any) -> tuple[int, int]:
    """Return the publish and controller port that a LossViewer really has."""
    ports = viewer.zmq_ports
    return ports["publish_port"], ports["controller_port"]


def loss_viewer_is_cancelled(viewer: Any) -> bool:
    """Tell whether Cancel Training was pressed."""
    return bool(viewer.canceled)


def loss_viewer_points(viewer: Any) -> int:
    """Return how many batches a LossViewer draws."""
    return len(viewer.X)


def close_loss_viewer(viewer: Any) -> None:
    """Close a LossViewer and its sockets; again does nothing."""
    # `LossViewer.close` leaves its timer running, and waits for what was not sent.
    viewer.timer.stop()
    if viewer.zmq_ctrl is not None:
        viewer.zmq_ctrl.linger = LINGER_MS
    viewer.close()


def make_image_window(folder: str) -> QWidget:
    """Make the window for images in `folder`/viz; the first image shows it."""
    from sleap.gui.widgets.imagedir import QtImageDirectoryWidget

    window: QWidget = QtImageDirectoryWidget.make_training_vizualizer(folder)
    return window


def refresh_image_window(widget: Any) -> None:
    """Let an image window look for new images."""
    widget.poll()


def close_image_window(widget: Any) -> None:
    """Close an image window and end its loader thread."""
    widget.cleanup()
    widget.close()


# -- predictions ---------------------------------------------------------------------


def merge_predictions(
    window: Any,
    loaded: list[Any],
    merge: MergeChoice,
    *,
    is_tracking_only: bool = False,
) -> int:
    """Merge predictions into the open project as SLEAP merges its own.

    Only predicted instances are taken, unless the run was for tracking only, which
    gives the user's own instances new tracks. The project then has unsaved changes.

    Args:
        window: the main window.
        loaded: what `load_predictions` returned, in the order of inference.
        merge: what the user chose.
        is_tracking_only: the run had no models.

    Returns:
        The number of frames with predictions.

    Raises:
        PredictionsDoNotFit: they are for other videos or another skeleton; nothing
            was merged.
    """
    from sleap.gui.learning.runners import InferenceTask

    frames = frames_that_fit(
        window.labels, loaded, with_user_instances=is_tracking_only
    )
    task = InferenceTask(
        # Only whether there are any counts for the merge.
        trained_job_paths=[] if is_tracking_only else [_PREDICTIONS_NAME],
        inference_params={
            "_prediction_mode": merge.mode,
            "_clear_all_first": merge.clear_all_first,
            "_predict_target": merge.target,
        },
        labels=window.labels,
        results=frames,
    )
    count: int = task.merge_results()
    # The slot behind LearningDialog's signal of the same name: redraws everything,
    # and notes unsaved changes where there are new frames.
    window._handle_learning_finished(count)
    if not count and merge.clear_all_first:
        window.commands.changestack_push("cleared predictions")
    return count
