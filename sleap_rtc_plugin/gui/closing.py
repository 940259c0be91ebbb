"""What happens to remote work when SLEAP is closed.

Asks whether a package that is on its way is to be sent to its end. Once the main window
is closed its monitors close too, since Qt goes on while any window is open; the rest
is done as Qt quits. SLEAP's own question about unsaved changes comes as always, and a
close that the user takes back undoes nothing.
"""

from collections.abc import Callable, Coroutine
from typing import Any

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtWidgets import QMainWindow, QMessageBox

from sleap_rtc_plugin.gui import event_loop
from sleap_rtc_plugin.gui.messages import CLOSING_QUESTION, closing_question
from sleap_rtc_plugin.gui.presenter import RemotePresenter

__all__ = ["Closing"]


class Closing(QObject):
    """Watches one main window close."""

    def __init__(
        self,
        window: QMainWindow,
        presenter: RemotePresenter,
        close_windows: Callable[[], None],
        shut_down: Callable[[bool], Coroutine[Any, Any, None]],
    ) -> None:
        """Watch.

        Args:
            window: the main window.
            presenter: knows what is on its way.
            close_windows: closes the windows beside it, once it is closed.
            shut_down: ends the companion; told whether to finish sending.
        """
        super().__init__(window)
        self._window = window
        self._presenter = presenter
        self._close_windows = close_windows
        self._finishes_sending = False
        window.installEventFilter(self)
        event_loop.at_quit(lambda: shut_down(self._finishes_sending))

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Ask before the window closes, where something is on its way."""
        if watched is not self._window:
            return False
        if event.type() == QEvent.Type.Close:
            self._finishes_sending = False
            if self._presenter.snapshot.is_sending and not self._may_close():
                event.ignore()
                return True
        elif event.type() == QEvent.Type.Hide and not event.spontaneous():
            # Closed for good: SLEAP's own question came before this.
            event_loop.call_soon_in_qt(self._close_windows)
        return False

    def _may_close(self) -> bool:
        """Ask what becomes of the package; called from Qt, never from a coroutine."""
        submission = self._presenter.snapshot.submission
        if submission is None:
            return True
        box = QMessageBox(self._window)
        box.setObjectName("closingQuestion")
        box.setIcon(QMessageBox.Icon.Question)
        box.setTextFormat(Qt.TextFormat.PlainText)
        box.setWindowTitle("Remote training")
        box.setText(closing_question(submission.worker))
        roles = QMessageBox.ButtonRole
        finish = box.addButton(CLOSING_QUESTION.finish, roles.AcceptRole)
        stop = box.addButton(CLOSING_QUESTION.stop, roles.DestructiveRole)
        box.addButton(QMessageBox.StandardButton.Cancel)
        box.setDefaultButton(finish)
        box.exec()
        clicked = box.clickedButton()
        box.deleteLater()
        self._finishes_sending = clicked is finish
        return clicked in (finish, stop)
