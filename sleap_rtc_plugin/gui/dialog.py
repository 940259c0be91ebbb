"""The remote training dialog: the lab, the workers and the run in one window.

Draws the presenter's snapshots and hands it what the user wants. It opens nothing by
itself: SLEAP's own dialog and the jobs window are the plugin's, whose functions it
calls. Made once per main window and shown again and again.
"""

from collections.abc import Callable
from typing import Final

from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import (
    QApplication,
    QDialog,
    QDialogButtonBox,
    QHBoxLayout,
    QPushButton,
    QStyle,
    QVBoxLayout,
    QWidget,
)

from sleap_rtc_plugin.gui.pages import LabPage, RunPage, WorkersPage
from sleap_rtc_plugin.gui.pages.parts import plain_label, push_button
from sleap_rtc_plugin.gui.presenter import RemotePresenter
from sleap_rtc_plugin.gui.snapshot import Lab, Snapshot
from sleap_rtc_plugin.gui.status_line import status_of

__all__ = ["RemoteTrainingDialog"]

REPAINT_INTERVAL_MS: Final = 100
FIRST_SIZE_PX: Final = (800, 540)


class RemoteTrainingDialog(QDialog):
    """Connect, pick a worker, configure, run. Not modal; Escape hides it."""

    def __init__(
        self,
        presenter: RemotePresenter,
        *,
        on_configure: Callable[[], None],
        on_jobs: Callable[[], None],
        on_models: Callable[[], None],
        on_start_again: Callable[[], None],
        parent: QWidget | None = None,
    ) -> None:
        """Draw what `presenter` has, from now on.

        Args:
            presenter: decides and carries out.
            on_configure: opens SLEAP's own dialog; called from a Qt slot.
            on_jobs: opens the window of remote jobs.
            on_models: opens the browser of the lab's models.
            on_start_again: gives the presenter a new companion after a dead one.
            parent: the main window.
        """
        super().__init__(parent)
        self.setObjectName("RemoteTrainingDialog")
        self.setWindowTitle("Run remotely")
        self.setModal(False)
        self._presenter = presenter
        self._shown: Snapshot | None = None
        self._repaint = QTimer(self)
        self._repaint.setObjectName("repaintTimer")
        self._repaint.setSingleShot(True)
        self._repaint.setInterval(REPAINT_INTERVAL_MS)
        self._repaint.timeout.connect(self._render)
        self.lab = LabPage(self)
        self.workers = WorkersPage(self)
        self.run = RunPage(self)
        self._add_foot()
        layout = QVBoxLayout(self)
        layout.addWidget(self.lab)
        layout.addWidget(self.workers, 1)
        layout.addWidget(self.run)
        layout.addLayout(self._status_row)
        layout.addWidget(self._buttons)
        self._connect_signals()
        self.run.configureRequested.connect(on_configure)
        self.jobs_button.clicked.connect(lambda: on_jobs())
        self.run.browseRequested.connect(on_models)
        self.start_again_button.clicked.connect(lambda: on_start_again())
        self.resize(*FIRST_SIZE_PX)
        unsubscribe = presenter.subscribe(self._changed)
        self.destroyed.connect(lambda: unsubscribe())
        self._render()

    def _add_foot(self) -> None:
        self.status_icon = plain_label(self, "statusIcon")
        self.status_icon.setAccessibleName("Problem")
        self.status_label = plain_label(self, "statusLabel", wraps=True)
        self.status_label.setAccessibleName("Status")
        self.status_label.setTextInteractionFlags(
            Qt.TextInteractionFlag.TextSelectableByMouse
            | Qt.TextInteractionFlag.TextSelectableByKeyboard
        )
        lines = 2 * self.status_label.fontMetrics().lineSpacing()
        self.status_label.setMinimumHeight(lines)
        self._status_row = QHBoxLayout()
        self._status_row.addWidget(self.status_icon)
        self._status_row.addWidget(self.status_label, 1)
        roles = QDialogButtonBox.ButtonRole
        self._buttons = QDialogButtonBox(self)
        self._buttons.setObjectName("buttonBox")
        self.jobs_button = push_button(self, "jobsButton", "Remote &jobs...")
        self.start_again_button = push_button(self, "startAgainButton", "Start &again")
        self.run_button = push_button(self, "runRemotelyButton", "&Run remotely")
        self.close_button = push_button(self, "closeButton", "Close")
        self._buttons.addButton(self.jobs_button, roles.ResetRole)
        self._buttons.addButton(self.start_again_button, roles.ActionRole)
        self._buttons.addButton(self.run_button, roles.AcceptRole)
        self._buttons.addButton(self.close_button, roles.RejectRole)

    def _connect_signals(self) -> None:
        presenter = self._presenter
        self.lab.connectRequested.connect(presenter.connect)
        self.lab.enterRequested.connect(presenter.connect_remembered)
        self.lab.forgetRequested.connect(presenter.forget_room)
        self.lab.signInRequested.connect(presenter.sign_in)
        self.lab.leaveRequested.connect(presenter.leave)
        self.lab.choosingChanged.connect(presenter.choose_lab)
        self.lab.remembersChanged.connect(presenter.set_remembers)
        self.lab.newSessionHidden.connect(presenter.hide_new_session)
        account = self.lab.account
        account.methodChosen.connect(presenter.accounts.start)
        account.roomChosen.connect(presenter.accounts.choose)
        account.sessionGiven.connect(presenter.accounts.complete)
        account.newLabRequested.connect(presenter.accounts.new_lab)
        account.signOutRequested.connect(presenter.accounts.sign_out)
        account.backRequested.connect(presenter.accounts.back)
        account.closeRequested.connect(presenter.accounts.close)
        self.workers.workerChosen.connect(presenter.choose_worker)
        self.run.cancelRequested.connect(presenter.cancel)
        self.run.usesWorkerVideosChanged.connect(presenter.set_uses_worker_videos)
        choices = presenter.run_choices
        self.run.modelChosen.connect(choices.choose_model)
        self.run.publishesChanged.connect(choices.set_publishes)
        self.run.aliasChanged.connect(choices.set_alias)
        self.run.relayOnlyChanged.connect(presenter.set_relay_only)
        self.run_button.clicked.connect(presenter.submit)
        self._buttons.rejected.connect(self.reject)
        application = QApplication.instance()
        if isinstance(application, QApplication):
            application.focusChanged.connect(self._choose_default)

    # -- drawing -----------------------------------------------------------------------

    def _changed(self, snapshot: Snapshot) -> None:
        """Draw at once, or with the next repaint where the last was just now."""
        if not self._repaint.isActive():
            self._render()

    def _render(self) -> None:
        snapshot = self._presenter.snapshot
        if snapshot == self._shown:
            return
        before, self._shown = self._shown, snapshot
        self._repaint.start()
        focused = self.focusWidget()
        self.lab.render_snapshot(snapshot, self._presenter.new_session)
        self.workers.render_snapshot(snapshot)
        self.run.render_snapshot(snapshot)
        self._render_foot(snapshot)
        if before is not None:
            self._move_focus(before, snapshot, focused)
        self._choose_default()

    def _render_foot(self, snapshot: Snapshot) -> None:
        status = status_of(snapshot)
        self.status_label.setText(status.text)
        self.status_icon.setVisible(status.is_problem)
        if status.is_problem and self.status_icon.pixmap().isNull():
            size = self.style().pixelMetric(QStyle.PixelMetric.PM_SmallIconSize)
            icon = self.style().standardIcon(
                QStyle.StandardPixmap.SP_MessageBoxWarning, None, self
            )
            self.status_icon.setPixmap(icon.pixmap(size))
        self.run_button.setEnabled(snapshot.can_run)
        self.jobs_button.setEnabled(snapshot.lab is Lab.INSIDE and not snapshot.dead)
        self.start_again_button.setVisible(bool(snapshot.dead))

    # -- the keyboard ------------------------------------------------------------------

    def _move_focus(
        self, before: Snapshot, now: Snapshot, focused: QWidget | None
    ) -> None:
        """Lead the keyboard to a form that appeared, or on from what disappeared."""
        if now.is_choosing and not before.is_choosing:
            self.lab.first_field().setFocus()
            return
        if now.account is not None and now.account != before.account:
            if focused is None or not (focused.isVisible() and focused.isEnabled()):
                self.lab.first_field().setFocus()
            return
        was_changed = (before.lab, before.is_choosing) != (now.lab, now.is_choosing)
        if not was_changed or (focused and focused.isVisible() and focused.isEnabled()):
            return
        if now.lab is Lab.INSIDE:
            self.workers.table.setFocus()
        elif now.lab is Lab.OUTSIDE:
            self.lab.first_field().setFocus()

    def _choose_default(self) -> None:
        """Let Enter press what is obvious next to where the keyboard is."""
        button: QPushButton | None = self.lab.obvious_button(self.focusWidget())
        if button is None:
            can_run = self._presenter.snapshot.can_run
            button = self.run_button if can_run else self.run.configure_button
        button.setDefault(True)

    def showEvent(self, event: QShowEvent) -> None:
        """Take up the last lab, and put the keyboard where the user begins."""
        super().showEvent(event)
        self.lab.suggest_server(self._presenter.last_server)
        self._presenter.begin()
        if self._presenter.snapshot.lab is Lab.INSIDE:
            self.workers.table.setFocus()
        else:
            self.lab.first_field().setFocus()
