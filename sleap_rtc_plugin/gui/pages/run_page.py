"""The run: what is configured, and how far its package is on its way.

A passive view; configuring happens in SLEAP's own dialog.
"""

from typing import Final

from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QGridLayout,
    QGroupBox,
    QHBoxLayout,
    QProgressBar,
    QVBoxLayout,
    QWidget,
)

from sleap_rtc_plugin.gui.messages import plan_words
from sleap_rtc_plugin.gui.pages.parts import plain_label, push_button
from sleap_rtc_plugin.gui.snapshot import Snapshot
from sleap_rtc_plugin.gui.status_line import PROGRESS_STEPS, Progress, progress_of
from sleap_rtc_plugin.transport.transport_options import RELAY_ONLY_VARIABLE

__all__ = ["RunPage"]


WORKER_VIDEOS: Final = "&Use videos that the worker has itself"
WHY_WORKER_VIDEOS: Final = (
    "Where the worker has mounted the same videos, their images are not sent. Each is "
    "compared by its name, its size and samples of its contents."
)
RELAY_ONLY: Final = "Hide this com&puter's address from workers"
WHY_RELAY_ONLY: Final = (
    "Connections go over the TURN server or the relay that the lab's signaling server "
    "offers, and never directly, so they may be slower. Where the lab offers neither, "
    "no worker can be reached. Connections that are open already stay as they are."
)
RELAY_ONLY_FORCED: Final = (
    f"The environment variable {RELAY_ONLY_VARIABLE} decides it; start SLEAP without "
    "that variable to choose here."
)


class RunPage(QGroupBox):
    """What to run."""

    configureRequested = Signal()
    cancelRequested = Signal()
    usesWorkerVideosChanged = Signal(bool)
    relayOnlyChanged = Signal(bool)

    def __init__(self, parent: QWidget | None = None) -> None:
        """Make the line and the progress below it."""
        super().__init__("Run", parent)
        self.setObjectName("runPage")
        self.plan_label = plain_label(self, "planLabel", wraps=True)
        self.configure_button = push_button(
            self, "configureButton", "Confi&gure...", "Configure the run"
        )
        self.configure_button.setToolTip("Set up models and frames in SLEAP's dialog")
        row = QHBoxLayout()
        row.addWidget(self.plan_label, 1)
        row.addWidget(self.configure_button)
        self.worker_videos_box = QCheckBox(WORKER_VIDEOS, self)
        self.worker_videos_box.setObjectName("workerVideosBox")
        self.worker_videos_box.setToolTip(WHY_WORKER_VIDEOS)
        self.worker_videos_box.setAccessibleDescription(WHY_WORKER_VIDEOS)
        self.relay_only_box = QCheckBox(RELAY_ONLY, self)
        self.relay_only_box.setObjectName("relayOnlyBox")
        # Beside each other: the window has to fit on small screens.
        choices = QHBoxLayout()
        choices.addWidget(self.worker_videos_box)
        choices.addWidget(self.relay_only_box)
        choices.addStretch(1)
        self.progress_row = self._make_progress_row()
        layout = QVBoxLayout(self)
        layout.addLayout(row)
        layout.addLayout(choices)
        layout.addWidget(self.progress_row)
        self.configure_button.clicked.connect(self.configureRequested)
        self.cancel_button.clicked.connect(self.cancelRequested)
        self.worker_videos_box.toggled.connect(self.usesWorkerVideosChanged)
        self.relay_only_box.toggled.connect(self.relayOnlyChanged)

    def _make_progress_row(self) -> QWidget:
        row = QWidget(self)
        row.setObjectName("progressRow")
        self.progress_label = plain_label(row, "progressLabel", wraps=True)
        self.progress_bar = QProgressBar(row)
        self.progress_bar.setObjectName("transferProgress")
        self.progress_bar.setAccessibleName("Progress of the package")
        self.progress_bar.setTextVisible(False)
        self.cancel_button = push_button(
            row, "cancelButton", "Ca&ncel", "Cancel the run that is being sent"
        )
        grid = QGridLayout(row)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setColumnStretch(0, 1)
        grid.addWidget(self.progress_bar, 0, 0)
        grid.addWidget(self.cancel_button, 0, 1, 2, 1)
        grid.addWidget(self.progress_label, 1, 0)
        return row

    def render_snapshot(self, snapshot: Snapshot) -> None:
        """Draw."""
        run = snapshot.run
        self.plan_label.setText(plan_words(run) if run else "Nothing configured yet")
        self.configure_button.setEnabled(not (snapshot.dead or snapshot.is_sending))
        with QSignalBlocker(self.worker_videos_box):
            self.worker_videos_box.setChecked(snapshot.uses_worker_videos)
        self._show_relay_only(snapshot)
        progress = progress_of(snapshot.submission)
        self.progress_row.setVisible(progress is not None)
        self.cancel_button.setEnabled(snapshot.can_cancel)
        if progress is not None:
            self._show_progress(progress)

    def _show_relay_only(self, snapshot: Snapshot) -> None:
        box, is_forced = self.relay_only_box, snapshot.is_relay_only_forced
        with QSignalBlocker(box):
            box.setChecked(snapshot.is_relay_only)
        box.setEnabled(not is_forced)
        words = f"{WHY_RELAY_ONLY} {RELAY_ONLY_FORCED}" if is_forced else WHY_RELAY_ONLY
        box.setToolTip(words)
        box.setAccessibleDescription(words)

    def _show_progress(self, progress: Progress) -> None:
        text = f"{progress.text} {progress.details}".strip()
        self.progress_label.setText(text)
        self.progress_bar.setAccessibleDescription(text)
        is_known = progress.value is not None
        self.progress_bar.setRange(0, PROGRESS_STEPS if is_known else 0)
        if progress.value is not None:
            self.progress_bar.setValue(progress.value)
