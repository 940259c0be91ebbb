"""The run: what is configured, and how far its package is on its way.

A passive view; configuring happens in SLEAP's own dialog.
"""

import html
from typing import Any, Final

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QGridLayout,
    QGroupBox,
    QHBoxLayout,
    QProgressBar,
    QVBoxLayout,
    QWidget,
)

from sleap_rtc_plugin.gui.messages import plan_words
from sleap_rtc_plugin.gui.model_choice import ModelChoice, type_words
from sleap_rtc_plugin.gui.pages.parts import plain_label, push_button, text_edit
from sleap_rtc_plugin.gui.snapshot import Snapshot
from sleap_rtc_plugin.gui.status_line import PROGRESS_STEPS, Progress, progress_of
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.limits import MAX_ALIAS_CHARS
from sleap_rtc_plugin.transport.transport_options import RELAY_ONLY_VARIABLE

__all__ = ["RunPage"]


WORKER_VIDEOS: Final = "&Use videos that the worker has itself"
WHY_WORKER_VIDEOS: Final = (
    "Where the worker has mounted the same videos, their images are not sent. Each is "
    "compared by its name, its size and samples of its contents."
)
OWN_MODELS: Final = "The trained models that SLEAP's dialog names"
PUBLISH: Final = "Pu&blish the trained model as"
WHY_PUBLISH: Final = (
    "Everyone in the lab finds it under this name, and can predict with it on any "
    "worker."
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
    modelChosen = Signal(object)
    publishesChanged = Signal(bool)
    aliasChanged = Signal(str)
    browseRequested = Signal()
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
        self._entries: list[tuple[str | None, str, str]] = []
        self.model_row = self._make_model_row()
        self.publish_row = self._make_publish_row()
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
        layout.addWidget(self.model_row)
        layout.addWidget(self.publish_row)
        layout.addLayout(choices)
        layout.addWidget(self.progress_row)
        self.configure_button.clicked.connect(self.configureRequested)
        self.cancel_button.clicked.connect(self.cancelRequested)
        self.worker_videos_box.toggled.connect(self.usesWorkerVideosChanged)
        self.relay_only_box.toggled.connect(self.relayOnlyChanged)

    def _make_model_row(self) -> QWidget:
        row = QWidget(self)
        row.setObjectName("modelRow")
        self.model_chooser = QComboBox(row)
        self.model_chooser.setObjectName("modelChooser")
        self.model_chooser.setAccessibleName("Model to predict with")
        self.model_chooser.setMinimumContentsLength(24)
        self.model_chooser.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        label = plain_label(row, "modelLabel", "M&odel:")
        label.setBuddy(self.model_chooser)
        self.browse_button = push_button(
            row, "browseModelsButton", "Bro&wse...", "Browse the lab's models"
        )
        self.browse_button.setAutoDefault(False)
        layout = QHBoxLayout(row)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(label)
        layout.addWidget(self.model_chooser, 1)
        layout.addWidget(self.browse_button)
        self.model_chooser.activated.connect(self._choose_model)
        self.browse_button.clicked.connect(self.browseRequested)
        return row

    def _make_publish_row(self) -> QWidget:
        row = QWidget(self)
        row.setObjectName("publishRow")
        self.publish_box = QCheckBox(PUBLISH, row)
        self.publish_box.setObjectName("publishBox")
        self.publish_box.setToolTip(WHY_PUBLISH)
        self.publish_box.setAccessibleDescription(WHY_PUBLISH)
        self.alias_edit = text_edit(row, "publishAliasEdit", "Alias", "flies-v1")
        self.alias_edit.setMaxLength(MAX_ALIAS_CHARS)
        self.alias_label = plain_label(row, "publishAliasLabel", wraps=True)
        grid = QGridLayout(row)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setColumnStretch(1, 1)
        grid.addWidget(self.publish_box, 0, 0)
        grid.addWidget(self.alias_edit, 0, 1)
        grid.addWidget(self.alias_label, 1, 0, 1, 2)
        self.publish_box.toggled.connect(self._publish_toggled)
        self.alias_edit.textEdited.connect(self.aliasChanged)
        return row

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
        run = snapshot.planned
        self._render_models(snapshot)
        self._render_publishing(snapshot)
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

    def _render_models(self, snapshot: Snapshot) -> None:
        is_shown = snapshot.is_inside and not snapshot.is_choosing
        self.model_row.setVisible(is_shown and snapshot.mode == "inference")
        self.model_chooser.setEnabled(not (snapshot.dead or snapshot.is_sending))
        entries = _entries(snapshot)
        if entries != self._entries:
            self._entries = entries
            self.model_chooser.clear()
            model: Any = self.model_chooser.model()
            for index, (model_id, words, misfit) in enumerate(entries):
                self.model_chooser.addItem(words, model_id)
                if misfit:
                    model.item(index).setEnabled(False)
                    tip = f"<qt>{html.escape(misfit)}</qt>"
                    self.model_chooser.setItemData(
                        index, tip, Qt.ItemDataRole.ToolTipRole
                    )
        chosen = snapshot.model.id if snapshot.model is not None else None
        index = [model_id for model_id, _, _ in entries].index(chosen)
        if self.model_chooser.currentIndex() != index:
            self.model_chooser.setCurrentIndex(index)
        self.model_row.setToolTip(
            f"<qt>{html.escape(snapshot.offer_problem)}</qt>"
            if snapshot.offer_problem
            else ""
        )

    def _render_publishing(self, snapshot: Snapshot) -> None:
        is_shown = snapshot.is_inside and not snapshot.is_choosing
        self.publish_row.setVisible(is_shown and snapshot.mode == "training")
        is_free = not (snapshot.dead or snapshot.is_sending)
        self.publish_box.setEnabled(is_free)
        self.alias_edit.setEnabled(is_free and snapshot.publishes)
        with QSignalBlocker(self.publish_box):
            self.publish_box.setChecked(snapshot.publishes)
        if self.alias_edit.text().strip() != snapshot.alias:
            self.alias_edit.setText(snapshot.alias)
        self.alias_label.setText(snapshot.publish_hint)
        self.alias_label.setVisible(bool(snapshot.publish_hint))

    def _choose_model(self, index: int) -> None:
        self.modelChosen.emit(self.model_chooser.itemData(index))

    def _publish_toggled(self, publishes: bool) -> None:
        self.publishesChanged.emit(publishes)
        # The window draws a moment later, and the user types on at once.
        self.alias_edit.setEnabled(publishes)
        if publishes:
            self.alias_edit.setFocus()

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


def _entries(snapshot: Snapshot) -> list[tuple[str | None, str, str]]:
    """Return what can be predicted with: id, words, and why it cannot be chosen."""
    offered = list(snapshot.offered or ())
    chosen = snapshot.model
    if chosen is not None and chosen.id not in [one.model.id for one in offered]:
        offered.insert(0, ModelChoice(chosen))
    entries: list[tuple[str | None, str, str]] = [(None, OWN_MODELS, "")]
    for one in offered:
        words = f"{clean_text(one.model.name)} ({type_words(one.model.head)})"
        if one.misfit:
            words += f": {one.misfit}"
        entries.append((one.model.id, words, one.misfit))
    return entries
