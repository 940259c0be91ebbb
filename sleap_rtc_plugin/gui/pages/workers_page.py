"""The workers of the lab: a table that stays calm while it is updated.

One worker is chosen, by mouse or keyboard; those that take no jobs are grey and say
why. A passive view.
"""

from typing import Final

from qtpy.QtCore import QItemSelection, QItemSelectionModel, QRect, Qt, Signal
from qtpy.QtGui import QPainter, QPaintEvent, QPalette
from qtpy.QtWidgets import (
    QAbstractItemView,
    QGroupBox,
    QHeaderView,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from sleap_rtc_plugin.gui.models import COLUMNS, WorkersModel, WorkersProxy
from sleap_rtc_plugin.gui.snapshot import Snapshot
from sleap_rtc_plugin.gui.status_line import workers_hint

__all__ = ["WorkersPage"]

HINT_MARGIN_PX: Final = 12
ROWS_SEEN_AT_LEAST: Final = 2
STRETCHED_COLUMNS: Final = 2


class HintedTable(QTableView):
    """A table that says in its empty middle why it is empty."""

    def __init__(self, parent: QWidget | None = None) -> None:
        """Begin without a hint."""
        super().__init__(parent)
        self._hint = ""

    def set_hint(self, hint: str) -> None:
        """Show this while there are no rows."""
        if hint != self._hint:
            self._hint = hint
            self.setAccessibleDescription(hint)
            self.viewport().update()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the rows, or the hint where there are none."""
        super().paintEvent(event)
        if not self._hint or self.model().rowCount() > 0:
            return
        margin = HINT_MARGIN_PX
        area: QRect = self.viewport().rect().adjusted(margin, margin, -margin, -margin)
        painter = QPainter(self.viewport())
        painter.setPen(self.palette().color(QPalette.ColorRole.PlaceholderText))
        flags = Qt.AlignmentFlag.AlignCenter | Qt.TextFlag.TextWordWrap
        painter.drawText(area, int(flags), self._hint)
        painter.end()


class WorkersPage(QGroupBox):
    """Which worker to use."""

    workerChosen = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        """Make the table."""
        super().__init__("&Worker", parent)
        self.setObjectName("workersPage")
        self._is_rendering = False
        self.model = WorkersModel(self)
        self.proxy = WorkersProxy(self.model, self)
        self.table = HintedTable(self)
        self.table.setObjectName("workerTable")
        self.table.setAccessibleName("Workers")
        self.table.setModel(self.proxy)
        self._set_manners()
        layout = QVBoxLayout(self)
        layout.addWidget(self.table)
        self.table.selectionModel().selectionChanged.connect(self._selection_changed)

    def _set_manners(self) -> None:
        table = self.table
        table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        table.setAlternatingRowColors(True)
        table.setShowGrid(False)
        table.setWordWrap(False)
        table.setTabKeyNavigation(False)
        table.setSortingEnabled(True)
        table.sortByColumn(0, Qt.SortOrder.AscendingOrder)
        table.verticalHeader().hide()
        header = table.horizontalHeader()
        header.setHighlightSections(False)
        header.setResizeContentsPrecision(0)  # measure what is seen, not all rows
        for column in range(len(COLUMNS)):
            header.setSectionResizeMode(
                column,
                QHeaderView.ResizeMode.Stretch
                if column < STRETCHED_COLUMNS
                else QHeaderView.ResizeMode.ResizeToContents,
            )
        row_height = table.verticalHeader().defaultSectionSize()
        table.setMinimumHeight(
            header.sizeHint().height() + ROWS_SEEN_AT_LEAST * row_height
        )

    def _selection_changed(
        self, selected: QItemSelection, deselected: QItemSelection
    ) -> None:
        """Tell whom the user chose; what a live update moves is nobody's choice."""
        if self._is_rendering or selected.isEmpty():
            return
        worker = self.proxy.worker_at(selected.indexes()[0])
        if worker is not None:
            self.workerChosen.emit(worker.worker_id)

    def render_snapshot(self, snapshot: Snapshot) -> None:
        """Draw."""
        self._is_rendering = True
        try:
            self.model.show(snapshot.workers or ())
            self._select(snapshot.worker_id)
        finally:
            self._is_rendering = False
        self.table.set_hint(workers_hint(snapshot))

    def _select(self, worker_id: str | None) -> None:
        index = self.proxy.index_of(worker_id)
        selection = self.table.selectionModel()
        if not index.isValid():
            selection.clear()
        elif not selection.isRowSelected(index.row(), index.parent()):
            rows = QItemSelectionModel.SelectionFlag.Rows
            chosen = QItemSelectionModel.SelectionFlag.ClearAndSelect
            selection.setCurrentIndex(index, chosen | rows)
