"""The windows of one model's training: SLEAP's LossViewer and its validation images.

Makes, labels and closes them, and tells when the user cancels or closes the view.
Knows nothing of jobs, workers' links or the companion; made by the monitor launcher.
"""

from typing import Any, Final

from qtpy.QtCore import QEvent, QObject, QPoint, Qt, QTimer, Signal
from qtpy.QtWidgets import QMainWindow, QPushButton, QWidget

from sleap_rtc_plugin.companion.messages import StepBegan
from sleap_rtc_plugin.gui.messages import worker_back, worker_gone
from sleap_rtc_plugin.gui.monitor_ports import PortPair
from sleap_rtc_plugin.protocol.ids import clean_text

__all__ = ["VIEWER_SIZE", "MonitorView"]

VIEWER_SIZE: Final = (600, 400)
"""Width and height in pixels, as SLEAP opens it."""
CANCEL_WATCH_MS: Final = 100
IMAGES_INTERVAL_MS: Final = 1000
"""The least time between two looks into the folder of validation images."""
MAX_HEAD_CHARS: Final = 40
_IMAGES_GAP_PX: Final = 20
_WAITING: Final = "Waiting for the first batch..."


class MonitorView(QObject):
    """One LossViewer, reset to one step's head; shown by `show_at`.

    Words about the training stand in the window's status bar, since SLEAP rewrites
    the plot's title many times a second while a training runs.

    Signals:
        cancelled: the user pressed Cancel Training; once.
        closed: the user closed the window; the view has let go of everything.
    """

    cancelled = Signal()
    closed = Signal()

    def __init__(self, compat: Any, began: StepBegan, ports: PortPair) -> None:
        """Make the viewer on these ports, or on others where they were just lost.

        Args:
            compat: the module `gui.sleap_compat`.
            began: the step to show.
            ports: two ports that were free a moment ago.

        Raises:
            Exception: whatever SLEAP raises where it cannot bind its ports.
        """
        super().__init__()
        self._compat = compat
        self._began = began
        self._viewer: QMainWindow = compat.make_loss_viewer(*ports)
        self.ports = PortPair(*compat.loss_viewer_ports(self._viewer))
        self._images: QWidget | None = None
        self._wants_images = True
        self._is_open = True
        self._has_ended = False
        self._is_unreachable = False
        self._words = ""
        self._cancel_watch = QTimer(self)
        self._cancel_watch.setInterval(CANCEL_WATCH_MS)
        self._cancel_watch.timeout.connect(self._look_for_cancel)
        self._images_pause = QTimer(self)
        self._images_pause.setSingleShot(True)
        self._images_pause.setInterval(IMAGES_INTERVAL_MS)
        self._images_pause.timeout.connect(self._refresh_images)
        self._viewer.installEventFilter(self)
        self._viewer.resize(*VIEWER_SIZE)
        self.begin_again()

    # -- what the launcher does --------------------------------------------------------

    @property
    def viewer(self) -> QMainWindow:
        """SLEAP's window."""
        return self._viewer

    @property
    def images(self) -> QWidget | None:
        """SLEAP's window of validation images, once there were some."""
        return self._images

    @property
    def what(self) -> str:
        """The name that the viewer was reset to; only messages for it are drawn."""
        return self._began.head

    def begin_again(self) -> None:
        """Empty the plot, since the whole curve is about to be drawn."""
        self._compat.reset_loss_viewer(
            self._viewer, self._began.head, self._began.patience, self._began.min_delta
        )
        self._viewer.set_message(_WAITING)  # type: ignore[attr-defined]
        if not self._compat.loss_viewer_is_cancelled(self._viewer):
            self._cancel_watch.start()
        self._show_words()

    def show_at(self, position: QPoint, *, activate: bool) -> None:
        """Show the window, without taking the keyboard unless the user asked for it."""
        quietly = Qt.WidgetAttribute.WA_ShowWithoutActivating
        self._viewer.setAttribute(quietly, not activate)
        self._viewer.move(position)
        self._viewer.show()
        if activate:
            self.bring_to_front()

    def bring_to_front(self) -> None:
        """Show the window above the others."""
        if self._viewer.isMinimized():
            self._viewer.showNormal()
        self._viewer.raise_()
        self._viewer.activateWindow()

    def say(self, words: str) -> None:
        """Show a sentence below the plot."""
        self._words = words
        self._show_words()

    def set_unreachable(self, is_unreachable: bool) -> None:
        """Say that the worker cannot be reached, or that it is back."""
        if self._is_unreachable and not is_unreachable and not self._has_ended:
            self._words = worker_back(self._began.worker)
        self._is_unreachable = is_unreachable
        self._show_words()

    def end(self, words: str) -> None:
        """Show that this training is over: nothing is left to stop or cancel."""
        self._has_ended = True
        self._is_unreachable = False
        self._cancel_watch.stop()
        self.say(words)

    def show_images(self, folder: str) -> None:
        """Show the images in `folder`/viz, or look for new ones."""
        if self._images is None:
            self._images = self._compat.make_image_window(folder)
            self._images.installEventFilter(self)
            frame = self._viewer.frameGeometry()
            self._images.move(frame.topRight() + QPoint(_IMAGES_GAP_PX, 0))
        elif not self._images_pause.isActive():
            self._images_pause.start()

    def close(self) -> None:
        """Close the windows and release the sockets; may be called twice."""
        if not self._is_open:
            return
        self._is_open = False
        self._cancel_watch.stop()
        self._images_pause.stop()
        self._viewer.removeEventFilter(self)
        self._compat.close_loss_viewer(self._viewer)
        self._viewer.deleteLater()
        if self._images is not None:
            self._images.removeEventFilter(self)
            self._compat.close_image_window(self._images)
            self._images.deleteLater()
            self._images = None

    # -- what the user does ------------------------------------------------------------

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Notice that a window is being closed; SLEAP itself does not."""
        if event.type() == QEvent.Type.Close and watched is self._viewer:
            # Qt is in the middle of closing it.
            QTimer.singleShot(0, self._closed_by_user)
        elif event.type() == QEvent.Type.Close:
            self._wants_images = False
        return False

    def _closed_by_user(self) -> None:
        if self._is_open:
            self.close()
            self.closed.emit()

    def _look_for_cancel(self) -> None:
        if self._compat.loss_viewer_is_cancelled(self._viewer):
            self._cancel_watch.stop()
            self.cancelled.emit()

    def _refresh_images(self) -> None:
        if self._images is not None and self._wants_images:
            self._compat.refresh_image_window(self._images)

    # -- words -------------------------------------------------------------------------

    def _show_words(self) -> None:
        head = clean_text(self._began.head, MAX_HEAD_CHARS)
        title = f"Training Model - {head} - on {clean_text(self._began.worker)}"
        if self._is_unreachable:
            title += " - cannot be reached"
        self._viewer.setWindowTitle(title)
        gone = worker_gone(self._began.worker)
        words = gone if self._is_unreachable else self._words
        self._viewer.statusBar().showMessage(words)
        if self._has_ended:
            # SLEAP makes new buttons at every reset; all of them steer the training.
            for button in self._viewer.findChildren(QPushButton):
                button.setEnabled(False)
