"""The menu Remote Train in each of SLEAP's main windows, and what is behind it.

Runs as SLEAP starts, so it imports nothing that SLEAP has not: the plugin proper is
imported when the user first wants it. What fails here leaves a line in the log and a
sentence behind the menu entry, and SLEAP as it was.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Literal

from qtpy.QtCore import QObject, Qt
from qtpy.QtWidgets import QMenu, QMessageBox

from sleap_rtc_plugin.gui import sleap_compat
from sleap_rtc_plugin.gui.event_loop import refuse_bad_pair

if TYPE_CHECKING:
    from qtpy.QtWidgets import QDialog, QMainWindow

__all__ = ["RemoteMenu", "hook_into_sleap"]

_Show = Literal["show_training", "show_inference", "show_jobs", "show_models"]

# Text, object name, and the plugin's method. No shortcuts: SLEAP's users choose
# theirs freely, and a key with two meanings has none.
_ACTIONS: tuple[tuple[str, str, _Show], ...] = (
    ("Train Remotely...", "remoteTrainAction", "show_training"),
    ("Predict Remotely...", "remoteInferenceAction", "show_inference"),
    ("Remote Jobs...", "remoteJobsAction", "show_jobs"),
    ("Remote Models...", "remoteModelsAction", "show_models"),
)

_log = logging.getLogger(__name__)
_is_hooked = False


def hook_into_sleap() -> None:
    """Give every main window its menu from now on; again does nothing."""
    global _is_hooked
    if not _is_hooked:
        sleap_compat.on_menus_created(RemoteMenu)
        _is_hooked = True


class RemoteMenu(QObject):
    """The menu of one main window; lives as long as the window."""

    def __init__(self, window: QMainWindow) -> None:
        """Add the menu before Help, with a reason in place of entries if need be."""
        super().__init__(window)
        self._window = window
        self._plugin: Any = None
        self._menu = QMenu("Remote Train", window)
        self._menu.setObjectName("remoteTrainMenu")
        self._menu.setToolTipsVisible(True)
        self._insert()
        reason = refuse_bad_pair() or sleap_compat.unsupported_reason()
        if reason:
            _log.warning("Remote training is not available: %s", reason)
            self._menu.addAction(reason).setEnabled(False)
            return
        for text, name, method in _ACTIONS:
            action = self._menu.addAction(text)
            action.setObjectName(name)
            action.triggered.connect(lambda _=False, method=method: self._show(method))
        sleap_compat.on_learning_dialog(window, self._learning_dialog_shown)

    def _insert(self) -> None:
        bar = self._window.menuBar()
        for action in bar.actions():
            if action.text() == "Help":
                bar.insertMenu(action, self._menu)
                return
        bar.addMenu(self._menu)

    def _load_plugin(self) -> Any:
        if self._plugin is None:
            from sleap_rtc_plugin.gui.plugin import RemotePlugin

            self._plugin = RemotePlugin(self._window)
        return self._plugin

    def _learning_dialog_shown(self, dialog: QDialog, mode: str) -> None:
        self._load_plugin().learning_dialog_shown(dialog, mode)

    def _show(self, method: _Show) -> None:
        """Do what an entry says, or say why not."""
        try:
            reason = sleap_compat.unsupported_reason(load=True)
            if reason is None:
                getattr(self._load_plugin(), method)()
        except ImportError as error:
            reason = (
                f"Remote training cannot be loaded ({error}); install it again with: "
                "python -m pip install --force-reinstall 'sleap-rtc-plugin[gui]'"
            )
        except Exception as error:
            reason = (
                f"Remote training failed ({error!r}); SLEAP itself is not affected. "
                "Save your project, start SLEAP again, and report this if it stays."
            )
        if reason is not None:
            _log.warning("%s", reason)
            self._say(reason)

    def _say(self, reason: str) -> None:
        box = QMessageBox(self._window)
        box.setObjectName("remoteTrainProblem")
        box.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        box.setIcon(QMessageBox.Icon.Warning)
        box.setWindowTitle("Remote Train")
        box.setTextFormat(Qt.TextFormat.PlainText)
        box.setText(reason)
        box.open()
