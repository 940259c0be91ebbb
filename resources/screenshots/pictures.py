"""What the user of the pictures does in the real SLEAP, and what is kept of it.

Started by `make.py` beside it. The windows are drawn without a window manager, so each
picture gets a plain bar with the window's own title.
"""

import io
import os
import re
import sys
from pathlib import Path
from typing import Any, Final

from PIL import Image
from qtpy.QtCore import QBuffer, QIODevice, QPoint, QRect, Qt
from qtpy.QtGui import QColor, QPainter, QPalette, QPixmap
from qtpy.QtTest import QTest
from qtpy.QtWidgets import (
    QAbstractButton,
    QApplication,
    QCheckBox,
    QComboBox,
    QLabel,
    QLineEdit,
    QMenu,
    QPlainTextEdit,
    QTableView,
    QWidget,
)

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))

from sleap_user import Scenario, User, draw_without_display, run

MAIN_SIZE: Final = (1060, 660)
MENU_PICTURE: Final = QRect(0, 0, 760, 420)
BAR_PX: Final = 30
COLORS: Final = 128
WORKERS_COLUMN: Final = 7
PATIENCE_S: Final = 400.0
MONITOR_AT_EPOCH: Final = 14
JOBS_AT_EPOCH: Final = 18
RUNNING_ROW: Final = 1  # below the one that waits, since the newest comes first
LIGHT: Final = {
    "bar": "#e4e4e7",
    "text": "#27272a",
    "edge": "#b4b4bb",
}
DARK: Final = {
    "bar": "#27272a",
    "text": "#e4e4e7",
    "edge": "#52525b",
}


class Album:
    """Where the pictures go, and how they are framed."""

    def __init__(self, user: User) -> None:
        self._folder = Path(user.options["output"])
        self._is_dark = user.options["is_dark"] == "1"
        self._colors = DARK if self._is_dark else LIGHT

    def dress(self) -> None:
        """Give the application its palette."""
        application = QApplication.instance()
        if self._is_dark and isinstance(application, QApplication):
            application.setPalette(dark_palette())

    def keep(self, name: str, window: QWidget, picture: QPixmap | None = None) -> None:
        """Write a picture of a window, under its title."""
        content = picture or window.grab()
        home = os.environ["HOME"]
        title = window.windowTitle().replace(home, "~").replace("[*]", "")
        framed = QPixmap(content.width() + 2, content.height() + BAR_PX + 1)
        framed.fill(QColor(self._colors["edge"]))
        painter = QPainter(framed)
        bar = QRect(1, 1, content.width(), BAR_PX - 1)
        painter.fillRect(bar, QColor(self._colors["bar"]))
        painter.setPen(QColor(self._colors["text"]))
        painter.drawText(bar, int(Qt.AlignmentFlag.AlignCenter), title)
        painter.drawPixmap(QPoint(1, BAR_PX), content)
        painter.end()
        buffer = QBuffer()
        buffer.open(QIODevice.OpenModeFlag.WriteOnly)
        framed.save(buffer, "PNG")
        image = Image.open(io.BytesIO(bytes(buffer.data().data()))).convert("RGB")
        path = self._folder / f"{name}.png"
        image.quantize(COLORS, dither=Image.Dither.NONE).save(path, optimize=True)
        sys.stderr.write(f"{path}: {path.stat().st_size // 1024} KiB\n")


def dark_palette() -> QPalette:
    """Return the colours of a dark desktop."""
    role = QPalette.ColorRole
    colors = {
        role.Window: "#2b2b2e",
        role.WindowText: "#e4e4e7",
        role.Base: "#1e1e20",
        role.AlternateBase: "#26262a",
        role.Text: "#e4e4e7",
        role.Button: "#38383d",
        role.ButtonText: "#e4e4e7",
        role.BrightText: "#ff6b6b",
        role.Highlight: "#3d6fb4",
        role.HighlightedText: "#ffffff",
        role.ToolTipBase: "#38383d",
        role.ToolTipText: "#e4e4e7",
        role.PlaceholderText: "#8b8b93",
        role.Link: "#7ab0ff",
        role.Light: "#4a4a50",
        role.Midlight: "#404046",
        role.Mid: "#232326",
        role.Dark: "#1a1a1c",
        role.Shadow: "#000000",
    }
    palette = QPalette()
    for one, color in colors.items():
        palette.setColor(one, QColor(color))
    for one in (role.WindowText, role.Text, role.ButtonText):
        palette.setColor(QPalette.ColorGroup.Disabled, one, QColor("#77777f"))
    return palette


def pictures(user: User) -> Scenario:
    """Train the fish remotely, as the README tells it."""
    album = Album(user)
    album.dress()
    window: Any = user.window()
    window.resize(*MAIN_SIZE)
    yield lambda: window.isVisible() and window.labels.videos
    yield pause()

    menu: Any = window.findChild(QMenu, "remoteTrainMenu")
    bar = window.menuBar()
    place = bar.actionGeometry(menu.menuAction())
    bar.setActiveAction(menu.menuAction())
    menu.popup(bar.mapToGlobal(place.bottomLeft()))
    menu.setActiveAction(menu.actions()[0])
    yield lambda: menu.isVisible()
    yield pause()
    whole = window.grab()
    painter = QPainter(whole)
    painter.drawPixmap(bar.mapTo(window, place.bottomLeft()), menu.grab())
    painter.end()
    album.keep("menu", window, whole.copy(MENU_PICTURE))
    menu.close()

    user.menu("remoteTrainAction")
    yield lambda: user.is_open("RemoteTrainingDialog")
    user.type_into("sessionEdit", user.options["session"])
    user.press_named("connectButton")
    yield lambda: user.rows("workerTable") == 2 and has_round_trips(user)
    user.pick_row("workerTable")
    yield lambda: "Nothing is configured" in user.status()
    dialog = user.named("RemoteTrainingDialog", QWidget)
    album.keep("dialog", dialog)

    training = yield from configure(user)
    album.keep("training-dialog", training)
    user.press_named("runRemotelyButton", training)
    yield lambda: "left" in progress(user)
    album.keep("sending", dialog)

    yield lambda: user.viewers()
    (viewer,) = user.viewers()
    yield lambda: epochs(viewer) >= MONITOR_AT_EPOCH
    album.keep("monitor", viewer)

    training = yield from configure(user)
    user.press_named("runRemotelyButton", training)
    yield lambda: "waits in the queue" in user.status()
    dialog.close()
    user.menu("remoteJobsAction")
    yield lambda: user.rows("jobsTable") == 2
    user.pick_row("jobsTable", RUNNING_ROW)
    yield lambda: epochs(viewer) >= JOBS_AT_EPOCH
    album.keep("jobs", user.named("RemoteJobsWindow", QWidget))

    window.state["has_changes"] = False
    window.close()


def models(user: User) -> Scenario:
    """Share two models, and choose one of them to predict with."""
    album = Album(user)
    album.dress()
    window: Any = user.window()
    window.resize(*MAIN_SIZE)
    yield lambda: window.isVisible() and window.labels.videos
    user.menu("remoteTrainAction")
    yield lambda: user.is_open("RemoteTrainingDialog")
    user.type_into("sessionEdit", user.options["session"])
    user.press_named("connectButton")
    yield lambda: user.rows("workerTable") == 2 and has_round_trips(user)
    user.pick_row("workerTable")
    yield lambda: "Nothing is configured" in user.status()
    box = user.named("publishBox", QCheckBox)
    box.click()
    user.named("publishAliasEdit", QLineEdit).setFocus()
    QTest.keyClicks(user.named("publishAliasEdit", QLineEdit), "fish-v3")
    yield pause()
    album.keep("publishing", user.named("RemoteTrainingDialog", QWidget))
    box.click()
    user.named("RemoteTrainingDialog", QWidget).close()

    user.menu("remoteModelsAction")
    yield lambda: user.is_open("RemoteModelsWindow")
    browser = user.named("RemoteModelsWindow", QWidget)
    for row, alias in (("n=12", "fish-v1"), ("n=20", "fish-v2")):
        yield from share(user, row, alias)
    table = user.named("modelsTable", QTableView)
    yield lambda: table.model().rowCount() == 2
    yield lambda: user.is_open("factId")
    user.press_named("modelsRefreshButton")
    yield lambda: table.model().index(0, WORKERS_COLUMN).data() == "workstation-1"
    yield pause()
    album.keep("models", browser)
    user.press_named("useForInferenceButton")
    yield lambda: user.is_open("RemoteTrainingDialog")
    yield lambda: user.named("modelChooser", QComboBox).count() == 3
    yield pause()
    album.keep("inference", user.named("RemoteTrainingDialog", QWidget))
    window.state["has_changes"] = False
    window.close()


def share(user: User, which: str, alias: str) -> Any:
    """Publish a model of this computer through its dialog."""
    button = user.named("publishModelButton", QAbstractButton)
    yield lambda: button.isEnabled()
    user.press(button)
    yield lambda: user.is_open("PublishModelDialog")
    dialog = user.named("PublishModelDialog", QWidget)
    chooser = user.named("localModelChooser", QComboBox)
    yield lambda: chooser.count() == 2
    texts = [chooser.itemText(i) for i in range(chooser.count())]
    chooser.setCurrentIndex([which in text for text in texts].index(True))
    dialog.findChild(QLineEdit, "publishAliasEdit").setText(alias)
    dialog.findChild(QLineEdit, "publishTagsEdit").setText("fish, top-view")
    notes = dialog.findChild(QPlainTextEdit, "publishNotesEdit")
    notes.setPlainText("Good in clear water; weak where the two touch.")
    yield pause()
    user.press_named("publishButton", dialog)
    yield lambda: f"Published as {alias}" in user.label("modelsNoticeLabel")
    yield lambda: not user.is_open("PublishModelDialog")


def configure(user: User) -> Any:
    """Open SLEAP's dialog and choose the project's configurations; returns it."""
    user.press_named("configureButton")
    found = user.window()._child_windows  # type: ignore[attr-defined]
    yield lambda: found.get("training") and found["training"].isVisible()
    training = found["training"]
    for name in training.shown_tab_names:
        choices = training.tabs[name]._cfg_list_widget
        texts = [choices.itemText(i) for i in range(choices.count())]
        wanted = [i for i, text in enumerate(texts) if "fish." in text]
        choices.setCurrentIndex(wanted[0])
    # It takes longer than the training itself.
    training.pipeline_form_widget.set_form_data({"trainer_config.eval.enabled": False})
    yield lambda: training.run_button.isEnabled()
    yield pause()
    return training


def has_round_trips(user: User) -> bool:
    """Tell whether every worker has answered a question."""
    model = user.named("workerTable", QTableView).model()
    last = model.columnCount() - 1
    texts = [model.index(row, last).data() for row in range(model.rowCount())]
    return all(re.search(r"\d", str(text)) for text in texts)


def progress(user: User) -> str:
    """Return what stands below the progress bar."""
    return user.named("progressLabel", QLabel).text()


def epochs(viewer: Any) -> int:
    """Return how many validation losses are drawn."""
    return len(viewer.mp_series["val_loss"].get_data()[0])


def pause() -> Any:
    """Wait until what was asked for has been drawn: a few turns of Qt's loop."""
    turns = iter(range(10))
    return lambda: next(turns, None) is None


if __name__ == "__main__":
    draw_without_display()
    run({"pictures": pictures, "models": models}, PATIENCE_S)
