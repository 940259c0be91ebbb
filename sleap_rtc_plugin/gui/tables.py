"""Tables that are brought up to date while somebody looks at them.

`KeyedTableModel` changes row by row, so that a selection and the scroll position
survive. Used by the windows of jobs and of models.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qtpy.QtCore import (
    QAbstractTableModel,
    QModelIndex,
    QObject,
    QPersistentModelIndex,
    Qt,
)
from qtpy.QtGui import QPalette
from qtpy.QtWidgets import QAbstractItemView, QApplication, QTableView

__all__ = ["KeyedTableModel", "TableRow", "row_table"]

_Index = QModelIndex | QPersistentModelIndex


@dataclass(frozen=True)
class TableRow:
    """A row of a table: its key, its cells, and a tip over all of them."""

    key: str
    cells: tuple[str, ...]
    tip: str = ""
    is_dim: bool = False


class KeyedTableModel(QAbstractTableModel):
    """A table of rows with keys, brought up to date in place."""

    def __init__(self, headers: Sequence[str], parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._headers = tuple(headers)
        self._rows: list[TableRow] = []

    def set_rows(self, rows: Sequence[TableRow]) -> None:
        """Show these rows, in this order; each key once."""
        wanted = {row.key for row in rows}
        for index in reversed(range(len(self._rows))):
            if self._rows[index].key not in wanted:
                self.beginRemoveRows(QModelIndex(), index, index)
                del self._rows[index]
                self.endRemoveRows()
        for index, row in enumerate(rows):
            self._put(index, row)

    def _put(self, index: int, row: TableRow) -> None:
        """Have `row` at `index`, where all rows before are in place."""
        found = next(
            (i for i in range(index, len(self._rows)) if self._rows[i].key == row.key),
            None,
        )
        if found is None:
            self.beginInsertRows(QModelIndex(), index, index)
            self._rows.insert(index, row)
            self.endInsertRows()
            return
        if found != index:
            self.beginMoveRows(QModelIndex(), found, found, QModelIndex(), index)
            self._rows.insert(index, self._rows.pop(found))
            self.endMoveRows()
        if self._rows[index] != row:
            self._rows[index] = row
            last = len(self._headers) - 1
            self.dataChanged.emit(self.index(index, 0), self.index(index, last))

    def key_at(self, row: int) -> str | None:
        """Return the key of a row by its place."""
        return self._rows[row].key if 0 <= row < len(self._rows) else None

    def row_of(self, key: str) -> int | None:
        """Return the place of a row by its key."""
        return next((i for i, row in enumerate(self._rows) if row.key == key), None)

    # -- for Qt ------------------------------------------------------------------------

    def rowCount(self, parent: _Index | None = None) -> int:
        """Return the number of rows."""
        return 0 if parent is not None and parent.isValid() else len(self._rows)

    def columnCount(self, parent: _Index | None = None) -> int:
        """Return the number of columns."""
        return 0 if parent is not None and parent.isValid() else len(self._headers)

    def headerData(
        self,
        section: int,
        orientation: Qt.Orientation,
        role: int = Qt.ItemDataRole.DisplayRole,
    ) -> Any:
        """Return a column's title."""
        if (
            orientation == Qt.Orientation.Horizontal
            and role == Qt.ItemDataRole.DisplayRole
        ):
            return self._headers[section]
        return None

    def data(self, index: _Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return a cell's text, tip or color."""
        if not index.isValid():
            return None
        row = self._rows[index.row()]
        text = row.cells[index.column()]
        if role in (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.AccessibleTextRole):
            return text
        if role == Qt.ItemDataRole.ToolTipRole:
            # Tips are rich text where they look like it, so ours always are.
            lines = html.escape(row.tip or text).replace("\n", "<br>")
            return f"<p>{lines}</p>"
        if role == Qt.ItemDataRole.ForegroundRole and row.is_dim:
            palette = QApplication.palette()
            return palette.color(QPalette.ColorGroup.Disabled, QPalette.ColorRole.Text)
        return None


def row_table(
    name: str, title: str, model: KeyedTableModel, widths: Sequence[int]
) -> QTableView:
    """Return a table of which one row at a time is chosen.

    Args:
        name: its object's name.
        title: what a screen reader calls it.
        model: what it shows.
        widths: of the first columns, in pixels.
    """
    table = QTableView()
    table.setObjectName(name)
    table.setAccessibleName(title)
    table.setModel(model)
    table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
    table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
    table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
    table.setTabKeyNavigation(False)
    table.setShowGrid(False)
    table.setWordWrap(False)
    table.setAlternatingRowColors(True)
    table.verticalHeader().hide()
    header = table.horizontalHeader()
    header.setHighlightSections(False)
    header.setDefaultAlignment(
        Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
    )
    for column, width in enumerate(widths):
        table.setColumnWidth(column, width)
    return table
