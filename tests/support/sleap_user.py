"""A user of the real SLEAP: finds things by name, presses them, waits, and tells.

Started as `sleap_user.py SCENARIO name=value ... -- LABELS [sleap label options]`.
SLEAP runs through its own `main`, with the plugin loaded as `sleap-remote label` does
it; a scenario is a generator that yields what it waits for. What it sees is printed as
JSON lines, and the exit code is SLEAP's.
"""

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, TypeVar

from qtpy.QtCore import QPoint, Qt, QTimer
from qtpy.QtTest import QTest
from qtpy.QtWidgets import (
    QAbstractButton,
    QApplication,
    QMainWindow,
    QMenu,
    QMessageBox,
    QWidget,
)

sys.path.insert(0, str(Path(__file__).parent))

STEP_MS = 40
PATIENCE_S = 150.0
W = TypeVar("W", bound=QWidget)

Wait = Callable[[], object]
Scenario = Generator[Wait, None, None]


class User:
    """What a user sees and does."""

    def __init__(self, options: dict[str, str]) -> None:
        self.options = options
        self.boxes: list[str] = []

    # -- telling -----------------------------------------------------------------------

    def say(self, what: str, **facts: Any) -> None:
        line = json.dumps({"saw": what, **facts})
        os.write(1, line.encode() + b"\n")

    def is_told(self, note: str) -> bool:
        """Whether the test has left this note; what it says is then an option."""
        path = Path(self.options["notes"]) / note
        if not path.exists():
            return False
        self.options[note] = path.read_text()
        return True

    # -- looking -----------------------------------------------------------------------

    def window(self) -> QMainWindow:
        from sleap.gui.app import MainWindow

        for widget in QApplication.topLevelWidgets():
            if isinstance(widget, MainWindow) and widget.isVisible():
                return widget
        raise LookupError("SLEAP's main window")

    def is_open(self, name: str) -> bool:
        try:
            return self.named(name, QWidget).isVisible()
        except LookupError:
            return False

    def named(self, name: str, kind: type[W], inside: QWidget | None = None) -> W:
        """Return the visible widget of this name, or any of it."""
        roots = [inside] if inside is not None else QApplication.topLevelWidgets()
        found: list[W] = []
        for root in roots:
            if isinstance(root, kind) and root.objectName() == name:
                found.append(root)
            found += root.findChildren(kind, name)
        for widget in found:
            if widget.isVisible():
                return widget
        if found:
            return found[0]
        raise LookupError(f"nothing is called {name}")

    def viewers(self) -> list[Any]:
        from sleap.gui.widgets.monitor import LossViewer

        return [
            widget
            for widget in QApplication.topLevelWidgets()
            if isinstance(widget, LossViewer) and widget.isVisible()
        ]

    def status(self) -> str:
        return self.label("statusLabel")

    def label(self, name: str) -> str:
        from qtpy.QtWidgets import QLabel

        return self.named(name, QLabel).text()

    def words(self) -> list[str]:
        """Return what can be read in the windows, for who looks into a failure."""
        from qtpy.QtWidgets import QLabel, QStatusBar

        found = [f"a box said: {text}" for text in self.boxes]
        for root in QApplication.topLevelWidgets():
            if root.isVisible():
                found.append(f"{type(root).__name__}: {root.windowTitle()}")
                found += [
                    f"  {label.objectName()}: {label.text()[:200]}"
                    for label in root.findChildren(QLabel)
                    if label.isVisible() and label.objectName() and label.text()
                ]
                found += [
                    f"  at the foot: {bar.currentMessage()}"
                    for bar in root.findChildren(QStatusBar)
                    if bar.currentMessage()
                ]
        return found

    def shot(self, name: str, widget: QWidget | None = None) -> None:
        """Keep a picture, where the test wants some."""
        folder = self.options.get("shots")
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            (widget or self.window()).grab().save(str(Path(folder) / f"{name}.png"))

    # -- doing -------------------------------------------------------------------------

    def menu(self, action_name: str) -> None:
        menu = self.window().findChild(QMenu, "remoteTrainMenu")
        assert menu is not None and menu.title() == "Remote Train"
        for action in menu.actions():
            if action.objectName() == action_name:
                assert action.isEnabled()
                action.trigger()
                return
        raise LookupError(action_name)

    def press(self, button: QAbstractButton) -> None:
        assert button.isVisible() and button.isEnabled(), button.objectName()
        QTest.mouseClick(button, Qt.MouseButton.LeftButton)

    def close_soon(self) -> None:
        """Close the main window as Qt does it, outside of a step: it may ask."""
        QTimer.singleShot(0, self.window().close)

    def press_named(self, name: str, inside: QWidget | None = None) -> None:
        self.press(self.named(name, QAbstractButton, inside))

    def type_into(self, name: str, text: str) -> None:
        from qtpy.QtWidgets import QLineEdit

        edit = self.named(name, QLineEdit)
        edit.setFocus()
        edit.clear()
        edit.setText(text)

    def pick_row(self, table_name: str, row: int = 0) -> None:
        from qtpy.QtWidgets import QTableView

        table = self.named(table_name, QTableView)
        where = table.visualRect(table.model().index(row, 0)).center()
        QTest.mouseClick(
            table.viewport(),
            Qt.MouseButton.LeftButton,
            Qt.KeyboardModifier.NoModifier,
            QPoint(where),
        )

    def rows(self, table_name: str) -> int:
        from qtpy.QtWidgets import QTableView

        return int(self.named(table_name, QTableView).model().rowCount())


class Driver:
    """Carries a scenario out, a step each time what it waits for has come."""

    def __init__(self, user: User, scenario: Scenario, patience_s: float) -> None:
        self._user = user
        self._patience_s = patience_s
        self._scenario = scenario
        self._wait: Wait | None = None
        self._since = self._began = time.monotonic()
        self._is_stepping = False
        self._timer = QTimer()
        self._timer.timeout.connect(self._step)
        self._timer.start(STEP_MS)

    def _step(self) -> None:
        # A box may be open in the middle of a step.
        self._close_boxes()
        if self._is_stepping:
            return
        self._is_stepping = True
        try:
            if self._wait is not None and not self._wait():
                if time.monotonic() - self._since > self._patience_s:
                    raise TimeoutError("waited too long")
                return
            self._since = time.monotonic()
            self._wait = next(self._scenario)
            at = " > ".join(_places(self._scenario))
            now, work = time.monotonic() - self._began, time.process_time()
            sys.stderr.write(f"{now:.1f} s, {work:.1f} s of work: waits at {at}\n")
        except StopIteration:
            self._timer.stop()
        except BaseException:
            self._timer.stop()
            at = " > ".join(_places(self._scenario)) or "the end"
            sys.stderr.write(f"the scenario failed at {at}\n{traceback.format_exc()}")
            sys.stderr.write("\n".join(self._user.words()) + "\n")
            sys.stderr.flush()
            os._exit(70)
        finally:
            self._is_stepping = False

    def _close_boxes(self) -> None:
        """Note what a box says that nobody expects, and close it."""
        box = QApplication.activeModalWidget()
        expected = ("closingQuestion", "confirmCancel")
        if isinstance(box, QMessageBox) and box.objectName() not in expected:
            self._user.boxes.append(box.text())
            box.accept()


def _places(scenario: Any) -> Iterator[str]:
    """Yield where a scenario is, and where the parts are that it waits for."""
    while scenario is not None and scenario.gi_frame is not None:
        yield f"{scenario.gi_code.co_name}:{scenario.gi_frame.f_lineno}"
        scenario = scenario.gi_yieldfrom


def draw_without_display() -> None:
    """Let matplotlib choose Qt: without a display it wants to see an application."""
    application = QApplication([])
    import sleap.gui.widgets.mpl
    import sleap.gui.widgets.qc  # noqa: F401

    application.shutdown()


def run(
    scenarios: dict[str, Callable[[User], Scenario]], patience_s: float = PATIENCE_S
) -> None:
    """Be the program."""
    words = sys.argv[1:]
    at = words.index("--")
    options = dict(word.split("=", 1) for word in words[1:at])
    patience_s = float(options.get("patience_s", patience_s))
    user = User(options)
    drivers: list[Driver] = []

    def began(window: QMainWindow) -> None:
        if not drivers:
            drivers.append(Driver(user, scenarios[words[0]](user), patience_s))

    os.environ["SLEAP_SKIP_QT_FIX"] = "1"
    if os.environ.get("QT_QPA_PLATFORM") == "offscreen":
        draw_without_display()
    from sleap_rtc_plugin.gui import sleap_compat, startup

    startup.hook_into_sleap()
    sleap_compat.on_menus_created(lambda w: QTimer.singleShot(0, lambda: began(w)))
    sleap_compat.run_sleap(["--no-usage-data", *words[at + 1 :]])
    user.say("left", at=time.time())
