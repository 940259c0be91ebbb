"""A window with the last lines that a job's trainer wrote, live while it is open.

Passive: asks whom it is given for lines, and shows them as plain text. Opened by the
jobs window.
"""

from collections.abc import Callable
from typing import Final

from qtpy import QtGui
from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QCloseEvent, QFontDatabase, QKeySequence
from qtpy.QtWidgets import (
    QLabel,
    QPlainTextEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from sleap_rtc_plugin.gui.jobs_model import merge_log

__all__ = ["JobLogWindow"]

POLL_INTERVAL_MS: Final = 2000
MAX_LOG_LINES: Final = 5000
_SIZE: Final = (720, 420)

Deliver = Callable[[list[str] | None, str], None]


class JobLogWindow(QWidget):
    """The log of one job."""

    def __init__(
        self,
        parent: QWidget,
        title: str,
        read: Callable[[Deliver], None],
        on_closed: Callable[[], object],
    ) -> None:
        """Show an empty log and begin to read.

        Args:
            parent: the window above which this one stands.
            title: the job's name.
            read: asks for the last lines; its argument is called once with them.
            on_closed: called when the user closes the window.
        """
        super().__init__(parent, Qt.WindowType.Window)
        self.setObjectName("JobLogWindow")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle(f"Log of {title}")
        self.resize(*_SIZE)
        self._read = read
        self._on_closed = on_closed
        self._lines: list[str] = []
        self._is_open = True
        self._is_reading = False

        self.log_view = QPlainTextEdit()
        self.log_view.setObjectName("logView")
        self.log_view.setAccessibleName("Log")
        self.log_view.setReadOnly(True)
        self.log_view.setMaximumBlockCount(MAX_LOG_LINES)
        self.log_view.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        font = QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont)
        self.log_view.setFont(font)
        self.log_view.setPlaceholderText("The trainer has not written anything yet.")
        self.trouble_label = QLabel()
        self.trouble_label.setObjectName("logTroubleLabel")
        self.trouble_label.setTextFormat(Qt.TextFormat.PlainText)
        self.trouble_label.setWordWrap(True)
        self.trouble_label.hide()
        close = QPushButton("&Close")
        close.setObjectName("closeLogButton")
        close.clicked.connect(self.close)
        layout = QVBoxLayout(self)
        layout.addWidget(self.log_view)
        layout.addWidget(self.trouble_label)
        layout.addWidget(close, alignment=Qt.AlignmentFlag.AlignRight)
        for key in (QKeySequence.StandardKey.Close, QKeySequence.StandardKey.Cancel):
            pressed = QtGui.QShortcut(QKeySequence(key), self)
            pressed.activated.connect(self.close)

        self._poll = QTimer(self)
        self._poll.setInterval(POLL_INTERVAL_MS)
        self._poll.timeout.connect(self.read_again)
        self._poll.start()
        self.read_again()

    def read_again(self) -> None:
        """Ask for the last lines, unless that is under way."""
        if not self._is_reading:
            self._is_reading = True
            self._read(self._take)

    def closeEvent(self, event: QCloseEvent) -> None:
        """Stop reading."""
        if self._is_open:
            self._is_open = False
            self._poll.stop()
            self._on_closed()
        super().closeEvent(event)

    def _take(self, lines: list[str] | None, trouble: str) -> None:
        self._is_reading = False
        if not self._is_open:
            return
        self.trouble_label.setText(trouble)
        self.trouble_label.setVisible(bool(trouble))
        if lines is None:
            return
        fresh = merge_log(self._lines, lines)
        if fresh:
            bar = self.log_view.verticalScrollBar()
            follows = bar.value() >= bar.maximum()
            self.log_view.appendPlainText("\n".join(fresh))
            if follows:
                bar.setValue(bar.maximum())
        self._lines = lines or self._lines
