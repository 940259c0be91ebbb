"""What to do with a lab that was just opened: start workers, invite colleagues.

Shown once, after signing in, with the session string and the command that starts a
worker with it. A passive view, part of the lab page.
"""

from typing import Final

from qtpy.QtCore import Signal
from qtpy.QtGui import QFontDatabase, QGuiApplication
from qtpy.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from sleap_rtc_plugin.gui.pages.parts import plain_label, push_button, text_edit

__all__ = ["NewLabPanel"]

EXPLANATION: Final = (
    "Start a worker on the machine with the GPU by this command. The session string in "
    "it is the key to this lab: give it only to people you trust. It is shown only now."
)


class NewLabPanel(QWidget):
    """The session string of a new lab, to be copied."""

    done = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        """Begin hidden."""
        super().__init__(parent)
        self.setObjectName("newLabPanel")
        self._session = ""
        explanation = plain_label(self, "newLabLabel", EXPLANATION, wraps=True)
        self.command_edit = text_edit(
            self, "workerCommandEdit", "Command that starts a worker"
        )
        self.command_edit.setReadOnly(True)
        fixed = QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont)
        self.command_edit.setFont(fixed)
        self.copy_command_button = push_button(
            self, "copyCommandButton", "Cop&y command"
        )
        self.copy_session_button = push_button(
            self, "copySessionButton", "Copy session s&tring"
        )
        self.done_button = push_button(self, "newLabDoneButton", "&Done")
        self.done_button.setToolTip("Hide the session string")
        row = QHBoxLayout()
        row.addWidget(self.command_edit, 1)
        row.addWidget(self.copy_command_button)
        row.addWidget(self.copy_session_button)
        row.addWidget(self.done_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(explanation)
        layout.addLayout(row)
        self.copy_command_button.clicked.connect(
            lambda: _copy(self.command_edit.text())
        )
        self.copy_session_button.clicked.connect(lambda: _copy(self._session))
        self.done_button.clicked.connect(self.done)
        self.hide()

    def show_session(self, session: str) -> None:
        """Show a session string, or hide the panel and forget it."""
        self.setVisible(bool(session))
        if session == self._session:
            return
        self._session = session
        command = f"sleap-remote worker --session {session}" if session else ""
        self.command_edit.setText(command)
        self.command_edit.setCursorPosition(0)


def _copy(text: str) -> None:
    QGuiApplication.clipboard().setText(text)
