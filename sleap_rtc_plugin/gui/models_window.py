"""The browser of a room's models: find one, look at it, use it, share one.

Passive: draws the snapshot of `ModelsPresenter` and hands it what the user does. It
asks before an alias moves and before a model is deleted, in boxes that block nothing.
Opened by the plugin from the Remote Train menu.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from qtpy import QtGui
from qtpy.QtCore import QItemSelectionModel, QSignalBlocker, Qt, QTimer
from qtpy.QtGui import QHideEvent, QKeySequence, QShowEvent
from qtpy.QtWidgets import (
    QComboBox,
    QHBoxLayout,
    QHeaderView,
    QMessageBox,
    QProgressBar,
    QPushButton,
    QSplitter,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from sleap_rtc_plugin.gui.model_choice import misfit, model_name, type_words
from sleap_rtc_plugin.gui.model_details import ModelDetailsPanel
from sleap_rtc_plugin.gui.models_model import (
    delete_words,
    model_table_row,
    move_words,
)
from sleap_rtc_plugin.gui.models_presenter import ModelsPresenter
from sleap_rtc_plugin.gui.models_snapshot import (
    COLUMNS,
    AliasQuestion,
    ModelsSnapshot,
    types_of,
)
from sleap_rtc_plugin.gui.pages.parts import plain_label, push_button, text_edit
from sleap_rtc_plugin.gui.publish_dialog import PublishModelDialog
from sleap_rtc_plugin.gui.tables import KeyedTableModel, row_table
from sleap_rtc_plugin.session.run_request import PublishedModel

__all__ = ["RemoteModelsWindow"]

MIN_REDRAW_INTERVAL_MS: Final = 100
REFRESH_INTERVAL_MS: Final = 60_000
MAX_FILTER_CHARS: Final = 200
_SIZE: Final = (1000, 680)
_LEAST_SIZE: Final = (820, 520)
_COLUMN_WIDTHS: Final = (150, 100, 85, 95, 75, 60, 70, 90, 90)
_ROW_PADDING_PX: Final = 9
_FIRST_HEIGHTS: Final = (270, 310)
_OFFLINE: Final = (
    "Not connected to a lab. Connect in Remote Train > Train Remotely to see its "
    "models."
)
_LISTING: Final = "Asking for the lab's models…"
_FAILED: Final = "The lab's models are not known. Press Refresh to ask again."
_EMPTY: Final = (
    "This lab has no models yet. Train one with Publish in Run remotely, or press "
    "Publish a Local Model."
)
_NO_MATCH: Final = "No model matches. Clear the filter to see all of them."
_ALL_TYPES: Final = "All types"
_NO_PROJECT: Final = "Open or save a project first; its folder is where models go."


class RemoteModelsWindow(QWidget):
    """The models of the room and what may be done with them."""

    def __init__(
        self,
        parent: QWidget | None,
        presenter: ModelsPresenter,
        *,
        on_use: Callable[[PublishedModel], None],
        models_folder: Callable[[], str | None],
        project_nodes: Callable[[], Sequence[str]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Build the window; it asks for the models when it is shown.

        Args:
            parent: SLEAP's main window.
            presenter: knows the models.
            on_use: takes the model that is to predict; called from a Qt slot.
            models_folder: the open project's folder for models; None without one.
            project_nodes: the nodes of the open project, to tell what fits it.
            clock: the time in Unix seconds.
        """
        super().__init__(parent, Qt.WindowType.Window)
        self.setObjectName("RemoteModelsWindow")
        self.setWindowTitle("Remote Models")
        self.resize(*_SIZE)
        self.setMinimumSize(*_LEAST_SIZE)
        self._presenter = presenter
        self._on_use = on_use
        self._models_folder = models_folder
        self._project_nodes = project_nodes
        self._clock = clock
        self._model = KeyedTableModel([title for title, _ in COLUMNS], self)
        self._publishing: PublishModelDialog | None = None
        self._asked: AliasQuestion | None = None
        self._build()
        self._redraw_pause = QTimer(self)
        self._redraw_pause.setSingleShot(True)
        self._redraw_pause.setInterval(MIN_REDRAW_INTERVAL_MS)
        self._redraw_pause.timeout.connect(self._redraw)
        self._refresh_timer = QTimer(self)
        self._refresh_timer.setInterval(REFRESH_INTERVAL_MS)
        self._refresh_timer.timeout.connect(presenter.refresh)
        presenter.on_changed = self._redraw_soon
        self.destroyed.connect(partial(_let_go, presenter))
        self._redraw()

    # -- building ----------------------------------------------------------------------

    def _build(self) -> None:
        # In the order in which Tab is to walk through them.
        filter_row, table = self._build_filter(), self._build_table()
        self.details = ModelDetailsPanel(self)
        self.details.notesSaved.connect(self._presenter.save_notes)
        self.details.tagsSaved.connect(self._presenter.save_tags)
        self.details.aliasPut.connect(self._presenter.put_alias)
        self.details.aliasRemoved.connect(self._presenter.remove_alias)
        self.splitter = QSplitter(Qt.Orientation.Vertical, self)
        self.splitter.setObjectName("modelsSplitter")
        self.splitter.setChildrenCollapsible(False)
        self.splitter.addWidget(table)
        self.splitter.addWidget(self.details)
        self.splitter.setSizes(_FIRST_HEIGHTS)
        self.splitter.setStretchFactor(0, 1)
        self.splitter.setStretchFactor(1, 1)
        layout = QVBoxLayout(self)
        layout.addLayout(filter_row)
        layout.addWidget(self.splitter, 1)
        layout.addLayout(self._build_actions())
        layout.addLayout(self._build_foot())
        shortcut = QKeySequence.StandardKey
        for key, slot in (
            (shortcut.Refresh, self._presenter.refresh),
            (shortcut.Close, self.close),
            (shortcut.Find, self._find),
        ):
            pressed = QtGui.QShortcut(QKeySequence(key), self)
            pressed.activated.connect(slot)

    def _build_filter(self) -> QHBoxLayout:
        self.filter_edit = text_edit(
            self, "modelsFilterEdit", "Filter", "alias, name, tag, person or worker"
        )
        self.filter_edit.setClearButtonEnabled(True)
        self.filter_edit.setMaxLength(MAX_FILTER_CHARS)
        self.filter_edit.textChanged.connect(self._presenter.narrow)
        self.filter_edit.returnPressed.connect(self._choose_first)
        label = plain_label(self, "modelsFilterLabel", "&Filter:")
        label.setBuddy(self.filter_edit)
        self.type_chooser = QComboBox(self)
        self.type_chooser.setObjectName("modelsTypeChooser")
        self.type_chooser.setAccessibleName("Type of model")
        self.type_chooser.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToContents
        )
        self.type_chooser.activated.connect(self._choose_type)
        self.refresh_button = push_button(self, "modelsRefreshButton", "&Refresh")
        self.refresh_button.setAutoDefault(False)
        self.refresh_button.clicked.connect(lambda: self._presenter.refresh())
        row = QHBoxLayout()
        row.addWidget(label)
        row.addWidget(self.filter_edit, 1)
        row.addWidget(self.type_chooser)
        row.addWidget(self.refresh_button)
        return row

    def _build_table(self) -> QStackedWidget:
        table = row_table("modelsTable", "Models", self._model, _COLUMN_WIDTHS)
        table.verticalHeader().setDefaultSectionSize(
            table.fontMetrics().height() + _ROW_PADDING_PX
        )
        header = table.horizontalHeader()
        header.setSectionsClickable(True)
        header.setSortIndicatorShown(False)
        header.sectionClicked.connect(self._presenter.sort)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        table.selectionModel().selectionChanged.connect(self._selection_changed)
        table.activated.connect(lambda _: self._use())
        self.models_table = table
        self.empty_label = plain_label(self, "modelsEmptyLabel", wraps=True)
        self.empty_label.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._pages = QStackedWidget(self)
        self._pages.addWidget(table)
        self._pages.addWidget(self.empty_label)
        return self._pages

    def _build_actions(self) -> QHBoxLayout:
        slots: dict[str, tuple[str, str, Callable[[], None]]] = {
            "useForInferenceButton": (
                "&Use for Inference...",
                "Predict on the open project with this model, on a worker.",
                self._use,
            ),
            "pullModelButton": (
                "Pull into &models/",
                "Bring this model into the project's folder, where SLEAP lists it.",
                self._pull,
            ),
            "publishModelButton": (
                "&Publish a Local Model...",
                "Share a trained model of this computer with the lab.",
                self._open_publishing,
            ),
            "deleteModelButton": (
                "&Delete...",
                "Take this model out of the lab's list.",
                self._delete,
            ),
        }
        row = QHBoxLayout()
        self._buttons: dict[str, QPushButton] = {}
        for name, (text, tip, slot) in slots.items():
            button = push_button(self, name, text)
            button.setAutoDefault(False)
            button.setToolTip(tip)
            button.clicked.connect(lambda _=False, slot=slot: slot())
            self._buttons[name] = button
            row.addWidget(button)
            if name in ("pullModelButton", "publishModelButton"):
                row.addSpacing(12)
        row.addStretch(1)
        return row

    def _build_foot(self) -> QHBoxLayout:
        self.progress_bar = QProgressBar(self)
        self.progress_bar.setObjectName("modelsProgress")
        self.progress_bar.setAccessibleName("Progress of the model")
        self.progress_bar.setTextVisible(False)
        self.progress_bar.setFixedWidth(180)
        self.notice_label = plain_label(self, "modelsNoticeLabel", wraps=True)
        self.notice_label.setAccessibleName("Status")
        self.notice_label.setTextInteractionFlags(
            Qt.TextInteractionFlag.TextSelectableByMouse
        )
        self.notice_label.setMinimumHeight(2 * self.fontMetrics().lineSpacing())
        row = QHBoxLayout()
        row.addWidget(self.progress_bar)
        row.addWidget(self.notice_label, 1)
        return row

    # -- drawing -----------------------------------------------------------------------

    def showEvent(self, event: QShowEvent) -> None:
        """Be up to date while visible."""
        super().showEvent(event)
        self._refresh_timer.start()
        self._presenter.watch(True)
        self._redraw()
        self.filter_edit.setFocus()

    def hideEvent(self, event: QHideEvent) -> None:
        """Ask nothing while hidden."""
        self._refresh_timer.stop()
        self._presenter.watch(False)
        super().hideEvent(event)

    def _redraw_soon(self) -> None:
        if self.isVisible() and not self._redraw_pause.isActive():
            self._redraw_pause.start()

    def _redraw(self) -> None:
        snapshot, now = self._presenter.snapshot, self._clock()
        self._draw_filter(snapshot)
        self._draw_table(snapshot, now)
        self.details.render_snapshot(snapshot, now, self._project_nodes())
        self.details.setVisible(bool(snapshot.rows))
        self._draw_actions(snapshot)
        self._draw_foot(snapshot)
        if self._publishing is not None:
            self._publishing.show_models(snapshot.local)
        if snapshot.question is not None and snapshot.question != self._asked:
            self._ask_whether_to_move(snapshot.question)
        self._asked = snapshot.question

    def _draw_filter(self, snapshot: ModelsSnapshot) -> None:
        chooser = self.type_chooser
        entries = [("", _ALL_TYPES)]
        entries += [(kind, type_words(kind)) for kind in types_of(snapshot.rows)]
        if snapshot.type not in dict(entries):
            entries.append((snapshot.type, type_words(snapshot.type)))
        shown = [
            (chooser.itemData(i), chooser.itemText(i)) for i in range(chooser.count())
        ]
        if shown != entries:
            chooser.clear()
            for kind, words in entries:
                chooser.addItem(words, kind)
        chooser.setCurrentIndex([kind for kind, _ in entries].index(snapshot.type))
        self.refresh_button.setEnabled(snapshot.is_online)

    def _draw_table(self, snapshot: ModelsSnapshot, now: float) -> None:
        rows = snapshot.shown
        with QSignalBlocker(self.models_table.selectionModel()):
            self._model.set_rows([model_table_row(row, now) for row in rows])
        self._pages.setCurrentIndex(0 if rows else 1)
        self.empty_label.setText(_empty_words(snapshot))
        header, order = self.models_table.horizontalHeader(), snapshot.order
        header.setSortIndicatorShown(order is not None)
        if order is not None:
            header.setSortIndicator(
                order.column,
                Qt.SortOrder.DescendingOrder
                if order.is_descending
                else Qt.SortOrder.AscendingOrder,
            )
        self._select(snapshot.chosen)

    def _select(self, chosen: str | None) -> None:
        selection = self.models_table.selectionModel()
        row = self._model.row_of(chosen) if chosen is not None else None
        with QSignalBlocker(selection):
            if row is None:
                selection.clear()
            elif not selection.isRowSelected(row):
                flags = QItemSelectionModel.SelectionFlag
                selection.setCurrentIndex(
                    self._model.index(row, 0), flags.ClearAndSelect | flags.Rows
                )
        self.models_table.viewport().update()

    def _draw_actions(self, snapshot: ModelsSnapshot) -> None:
        row, folder = snapshot.chosen_row, self._models_folder()
        is_free = not snapshot.working
        unfit = self._misfit(snapshot)
        use, pull = self._buttons["useForInferenceButton"], None
        use.setEnabled(row is not None and folder is not None and not unfit)
        use.setToolTip(
            unfit
            or (
                _NO_PROJECT
                if folder is None
                else "Predict on the open project with this model, on a worker."
            )
        )
        pull = self._buttons["pullModelButton"]
        pull.setEnabled(row is not None and folder is not None and is_free)
        pull.setToolTip(
            _NO_PROJECT
            if folder is None
            else "Bring this model into the project's folder, where SLEAP lists it."
        )
        self._buttons["publishModelButton"].setEnabled(snapshot.is_online and is_free)
        self._buttons["deleteModelButton"].setEnabled(row is not None and is_free)

    def _misfit(self, snapshot: ModelsSnapshot) -> str:
        row, details = snapshot.chosen_row, snapshot.details
        if row is None:
            return ""
        skeleton = details.record.training.skeleton if details is not None else []
        return misfit(row.type, skeleton, self._project_nodes())

    def _draw_foot(self, snapshot: ModelsSnapshot) -> None:
        self.progress_bar.setVisible(bool(snapshot.working))
        done, total = snapshot.progress or (0, 0)
        # Qt counts in 32 bits.
        self.progress_bar.setRange(0, 1000 if total > 0 else 0)
        if total > 0:
            self.progress_bar.setValue(min(1000, done * 1000 // total))
        self.notice_label.setText(snapshot.notice or snapshot.working)

    # -- what the user does ------------------------------------------------------------

    def _find(self) -> None:
        self.filter_edit.setFocus()
        self.filter_edit.selectAll()

    def _choose_first(self) -> None:
        """Lead the keyboard from the filter to the first model that matches."""
        shown = self._presenter.snapshot.shown
        if shown:
            self._presenter.choose(shown[0].id)
            self._redraw()
            self.models_table.setFocus()

    def _choose_type(self, index: int) -> None:
        self._presenter.choose_type(self.type_chooser.itemData(index))

    def _selection_changed(self) -> None:
        rows = self.models_table.selectionModel().selectedRows()
        key = self._model.key_at(rows[0].row()) if rows else None
        self._presenter.choose(key)

    def _use(self) -> None:
        row = self._presenter.snapshot.chosen_row
        if row is not None and self._buttons["useForInferenceButton"].isEnabled():
            name = model_name(row.id, row.aliases, row.name)
            self._on_use(PublishedModel(id=row.id, head=row.type, name=name))

    def _pull(self) -> None:
        folder = self._models_folder()
        if folder is not None:
            self._presenter.pull(folder)

    def _open_publishing(self) -> None:
        if self._publishing is not None:
            self._publishing.raise_()
            self._publishing.activateWindow()
            return
        folder = self._models_folder() or str(Path.home())
        dialog = PublishModelDialog(folder, self)
        dialog.folderChosen.connect(self._presenter.find_local)
        dialog.publishRequested.connect(self._presenter.publish)
        dialog.finished.connect(self._publishing_closed)
        self._publishing = dialog
        self._presenter.find_local(folder)
        dialog.open()

    def _publishing_closed(self) -> None:
        self._publishing = None

    def _delete(self) -> None:
        row = self._presenter.snapshot.chosen_row
        if row is None:
            return
        text, means = delete_words(row)
        box = _question(self, "deleteModelQuestion", "Delete Model", text, means)
        delete = box.addButton("&Delete It", QMessageBox.ButtonRole.DestructiveRole)
        keep = box.addButton("&Keep It", QMessageBox.ButtonRole.RejectRole)
        box.setDefaultButton(keep)
        box.setEscapeButton(keep)
        delete.clicked.connect(lambda: self._delete_if_chosen(row.id))
        box.open()

    def _delete_if_chosen(self, model: str) -> None:
        # The list may have moved on under the open question.
        if self._presenter.snapshot.chosen == model:
            self._presenter.delete()

    def _ask_whether_to_move(self, question: AliasQuestion) -> None:
        box = _question(
            self,
            "moveAliasQuestion",
            "Move Alias",
            move_words(question.alias, question.owner_name),
            "Whoever uses the alias gets this model from then on. Who moved it, and "
            "when, is kept in its history.",
        )
        move = box.addButton("&Move It", QMessageBox.ButtonRole.DestructiveRole)
        keep = box.addButton("&Leave It", QMessageBox.ButtonRole.RejectRole)
        box.setDefaultButton(keep)
        box.setEscapeButton(keep)
        move.clicked.connect(lambda: self._presenter.move_alias(question))
        keep.clicked.connect(self._presenter.dismiss_question)
        box.open()


def _let_go(presenter: ModelsPresenter) -> None:
    """Tell nobody any more; events may outlive the window."""
    presenter.on_changed = lambda: None


def _question(
    parent: QWidget, name: str, title: str, text: str, means: str
) -> QMessageBox:
    box = QMessageBox(parent)
    box.setObjectName(name)
    box.setIcon(QMessageBox.Icon.Question)
    box.setTextFormat(Qt.TextFormat.PlainText)
    box.setWindowTitle(title)
    box.setText(text)
    box.setInformativeText(means)
    box.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    return box


def _empty_words(snapshot: ModelsSnapshot) -> str:
    if snapshot.rows:
        return _NO_MATCH
    if not snapshot.is_online:
        return _OFFLINE
    if snapshot.is_listed:
        return _EMPTY
    return _LISTING if snapshot.is_listing or not snapshot.is_problem else _FAILED
