"""The table of workers as a Qt model that changes in place.

`WorkersModel.show` takes each new list and tells the view only what differs, so that
the selection, the scroll position and the keyboard's place survive live updates.
Sorting is left to `WorkersProxy`. Called by the workers page.
"""

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from qtpy.QtCore import (
    QAbstractTableModel,
    QModelIndex,
    QObject,
    QPersistentModelIndex,
    QSortFilterProxyModel,
    Qt,
)
from qtpy.QtGui import QGuiApplication, QPalette

from sleap_rtc_plugin.companion.messages import WorkerRow
from sleap_rtc_plugin.gui.messages import takes_jobs, worker_state
from sleap_rtc_plugin.gui.quantities import UNKNOWN, format_memory, format_round_trip
from sleap_rtc_plugin.session.worker_info import way_words

__all__ = ["COLUMNS", "WorkersModel", "WorkersProxy"]

ALIGNMENT: Final = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
Index = QModelIndex | QPersistentModelIndex


@dataclass(frozen=True)
class Column:
    """One column: its header, what it shows of a worker, and how it sorts."""

    title: str
    hint: str
    text: Callable[[WorkerRow], str]
    key: Callable[[WorkerRow], Any]


def _gpu(worker: WorkerRow) -> str:
    if worker.gpu_model:
        return worker.gpu_model
    return "None (CPU)" if worker.device == "cpu" else UNKNOWN


def _queue(worker: WorkerRow) -> str:
    jobs = worker.queue_length + worker.running_jobs
    if not jobs:
        return "Empty"
    running = f"{worker.running_jobs} running" if worker.running_jobs else ""
    waiting = f"{worker.queue_length} waiting" if worker.queue_length else ""
    return ", ".join(part for part in (running, waiting) if part)


def _state_key(worker: WorkerRow) -> tuple[bool, str]:
    return (not takes_jobs(worker), worker_state(worker))


COLUMNS: Final = (
    Column("Name", "", lambda w: w.name, lambda w: w.name.casefold()),
    Column("GPU", "", _gpu, lambda w: _gpu(w).casefold()),
    Column(
        "Memory",
        "Free and total memory of the GPU",
        lambda w: format_memory(w.gpu_free_mb, w.gpu_memory_mb),
        lambda w: (w.gpu_free_mb or 0, w.gpu_memory_mb or 0),
    ),
    Column("State", "", worker_state, _state_key),
    Column(
        "Queue",
        "Jobs that are running and waiting there",
        _queue,
        lambda w: w.queue_length + w.running_jobs,
    ),
    Column(
        "Round trip",
        "How long the worker takes to answer a question through the lab's server",
        lambda w: format_round_trip(w.round_trip_ms),
        lambda w: float("inf") if w.round_trip_ms is None else w.round_trip_ms,
    ),
)


class WorkersModel(QAbstractTableModel):
    """The workers of the room, one a row, in the order in which they came."""

    def __init__(self, parent: QObject | None = None) -> None:
        """Begin empty."""
        super().__init__(parent)
        self._workers: list[WorkerRow] = []

    def show(self, workers: Sequence[WorkerRow]) -> None:
        """Become this list, in as few changes as it takes."""
        wanted = {worker.worker_id: worker for worker in workers}
        for row in reversed(range(len(self._workers))):
            if self._workers[row].worker_id not in wanted:
                self.beginRemoveRows(QModelIndex(), row, row)
                del self._workers[row]
                self.endRemoveRows()
        changed = []
        for row, worker in enumerate(self._workers):
            new = wanted.pop(worker.worker_id)
            if new != worker:
                self._workers[row] = new
                changed.append(row)
        if changed:
            # One signal for all: the proxy sorts and the view measures at each.
            last = self.index(changed[-1], len(COLUMNS) - 1)
            self.dataChanged.emit(self.index(changed[0], 0), last)
        if wanted:
            first = len(self._workers)
            self.beginInsertRows(QModelIndex(), first, first + len(wanted) - 1)
            self._workers.extend(wanted.values())
            self.endInsertRows()

    def worker(self, row: int) -> WorkerRow:
        """Return the worker in a row."""
        return self._workers[row]

    def row_of(self, worker_id: str | None) -> int | None:
        """Return the row of a worker, or None."""
        for row, worker in enumerate(self._workers):
            if worker.worker_id == worker_id:
                return row
        return None

    # -- QAbstractTableModel -----------------------------------------------------------

    def rowCount(self, parent: Index = QModelIndex()) -> int:  # noqa: B008
        """Return how many workers there are."""
        return 0 if parent.isValid() else len(self._workers)

    def columnCount(self, parent: Index = QModelIndex()) -> int:  # noqa: B008
        """Return how many columns there are."""
        return 0 if parent.isValid() else len(COLUMNS)

    def headerData(
        self,
        section: int,
        orientation: Qt.Orientation,
        role: int = Qt.ItemDataRole.DisplayRole,
    ) -> Any:
        """Return a column's title, or what it means."""
        if orientation is not Qt.Orientation.Horizontal:
            return None
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return COLUMNS[section].title
            case Qt.ItemDataRole.ToolTipRole:
                return COLUMNS[section].hint or None
            case Qt.ItemDataRole.TextAlignmentRole:
                return int(ALIGNMENT)
        return None

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return what a cell shows."""
        if not index.isValid():
            return None
        worker, column = self._workers[index.row()], COLUMNS[index.column()]
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return column.text(worker)
            case Qt.ItemDataRole.ToolTipRole:
                return _tool_tip(worker, column)
            case Qt.ItemDataRole.AccessibleDescriptionRole:
                return worker.refusal or None
            case Qt.ItemDataRole.ForegroundRole if not takes_jobs(worker):
                return QGuiApplication.palette().brush(
                    QPalette.ColorGroup.Disabled, QPalette.ColorRole.Text
                )
        return None


def _tool_tip(worker: WorkerRow, column: Column) -> str:
    """Say the refusal, or the cell in full; escaped, since Qt guesses at rich text."""
    words = worker.refusal or column.text(worker)
    if way := way_words(worker.link_kind):
        words = f"{words} ({way})"
    return f"<qt>{html.escape(words)}</qt>"


class WorkersProxy(QSortFilterProxyModel):
    """Sorts the workers by a column, those that are equal by name."""

    def __init__(self, model: WorkersModel, parent: QObject | None = None) -> None:
        """Sort `model` by name to begin with."""
        super().__init__(parent)
        self._model = model
        self.setSourceModel(model)
        self.setDynamicSortFilter(True)
        self.sort(0, Qt.SortOrder.AscendingOrder)

    def lessThan(self, left: Index, right: Index) -> bool:
        """Tell which of two cells comes first."""
        key = COLUMNS[left.column()].key
        first, second = self._model.worker(left.row()), self._model.worker(right.row())
        one, two = key(first), key(second)
        if one == two:
            return (first.name, first.worker_id) < (second.name, second.worker_id)
        return bool(one < two)

    def worker_at(self, index: Index) -> WorkerRow | None:
        """Return the worker of a row as it is sorted, or None."""
        source = self.mapToSource(index)
        return self._model.worker(source.row()) if source.isValid() else None

    def index_of(self, worker_id: str | None) -> QModelIndex:
        """Return where a worker is now; an invalid index where it is not."""
        row = self._model.row_of(worker_id)
        if row is None:
            return QModelIndex()
        return self.mapFromSource(self._model.index(row, 0))
