"""The window of remote jobs: what runs where, what may be done with it, what waits.

Passive: draws the snapshot of `JobsPresenter` and what waits in `HomeComing`, and
hands every press of a button to them. Opened by the plugin from the Remote Train menu.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from qtpy import QtGui
from qtpy.QtCore import Qt, QTimer, QUrl
from qtpy.QtGui import QDesktopServices, QHideEvent, QKeySequence, QShowEvent
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QGroupBox,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QMessageBox,
    QPushButton,
    QStackedWidget,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from sleap_rtc_plugin.companion.messages import JobRow
from sleap_rtc_plugin.gui.home_coming import HomeComing
from sleap_rtc_plugin.gui.job_log_window import JobLogWindow
from sleap_rtc_plugin.gui.jobs_model import (
    JOB_COLUMNS,
    WAITING_COLUMNS,
    allowed_actions,
    job_table_row,
    shown_error,
    waiting_table_row,
)
from sleap_rtc_plugin.gui.jobs_presenter import FOLLOWED, JobsPresenter
from sleap_rtc_plugin.gui.tables import KeyedTableModel, row_table
from sleap_rtc_plugin.protocol.ids import clean_text

__all__ = ["RemoteJobsWindow"]

REFRESH_INTERVAL_MS: Final = 4000
CLOCK_INTERVAL_MS: Final = 1000
MIN_REDRAW_INTERVAL_MS: Final = 100
MAX_LOG_WINDOWS: Final = 8
_SIZE: Final = (880, 480)
_LEAST_WIDTH: Final = 760
_COLUMN_WIDTHS: Final = (150, 200, 80, 120, 125, 90)
_WAITING_WIDTHS: Final = (160, 130)
_WAITING_HEIGHT: Final = 130
_FOLLOWED_WORDS: Final = "All workers: jobs from this computer"
_OFFLINE: Final = (
    "Not connected to a lab. Connect in Remote Train > Train Remotely; your jobs go on "
    "without you."
)
_NO_FOLLOWED: Final = (
    "No jobs from this computer yet. Send one with Remote Train > Train Remotely, or "
    "choose a worker above to see its jobs."
)
_NO_JOBS: Final = "This worker has no jobs."
_LISTING: Final = "Asking the worker for its jobs..."


def _open_folder(folder: str) -> None:
    QDesktopServices.openUrl(QUrl.fromLocalFile(folder))


class RemoteJobsWindow(QWidget):
    """The jobs of a worker, and results that wait to be merged."""

    def __init__(
        self,
        parent: QWidget | None,
        presenter: JobsPresenter,
        home: HomeComing,
        *,
        default_output: Callable[[], str],
        open_folder: Callable[[str], None] = _open_folder,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Build the window; it refreshes itself while it is visible.

        Args:
            parent: SLEAP's main window.
            presenter: knows the jobs.
            home: knows what waits.
            default_output: the folder that fetched results are offered first.
            open_folder: shows a folder in the system's file manager.
            clock: the time in Unix seconds.
        """
        super().__init__(parent, Qt.WindowType.Window)
        self.setObjectName("RemoteJobsWindow")
        self.setWindowTitle("Remote Jobs")
        self.resize(*_SIZE)
        self.setMinimumWidth(_LEAST_WIDTH)
        self._presenter = presenter
        self._home = home
        self._default_output = default_output
        self._open_folder = open_folder
        self._clock = clock
        self._logs: dict[str, JobLogWindow] = {}
        self._can_merge: set[str] = set()
        self._jobs = KeyedTableModel(JOB_COLUMNS, self)
        self._waiting = KeyedTableModel(WAITING_COLUMNS, self)
        self._build()
        self._redraw_pause = _timer(self, MIN_REDRAW_INTERVAL_MS, self._redraw)
        self._redraw_pause.setSingleShot(True)
        self._refresh_timer = _timer(self, REFRESH_INTERVAL_MS, self._refresh)
        self._clock_timer = _timer(self, CLOCK_INTERVAL_MS, self._draw_jobs)
        presenter.on_changed = self._redraw_soon
        home.on_changed = self._redraw_soon
        self.destroyed.connect(partial(_let_go, presenter, home))
        self._redraw()

    # -- building ----------------------------------------------------------------------

    def _build(self) -> None:
        layout = QVBoxLayout(self)
        layout.addLayout(self._build_chooser())
        layout.addWidget(self._build_table(), stretch=1)
        self.detail_label = _plain_label("jobDetailLabel")
        layout.addWidget(self.detail_label)
        layout.addLayout(self._build_actions())
        layout.addWidget(self._build_waiting())
        self.notice_label = _plain_label("jobsNoticeLabel")
        layout.addWidget(self.notice_label)
        shortcut = QKeySequence.StandardKey
        for key, slot in (
            (shortcut.Refresh, self._refresh),
            (shortcut.Close, self.close),
        ):
            pressed = QtGui.QShortcut(QKeySequence(key), self)
            pressed.activated.connect(slot)

    def _build_chooser(self) -> QHBoxLayout:
        self.worker_chooser = QComboBox()
        self.worker_chooser.setObjectName("jobsWorkerChooser")
        self.worker_chooser.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToContents
        )
        self.worker_chooser.activated.connect(self._choose_worker)
        label = QLabel("&Worker:")
        label.setBuddy(self.worker_chooser)
        self.refresh_button = _button("refreshButton", "&Refresh", self._refresh)
        row = QHBoxLayout()
        row.addWidget(label)
        row.addWidget(self.worker_chooser)
        row.addStretch(1)
        row.addWidget(self.refresh_button)
        return row

    def _build_table(self) -> QStackedWidget:
        self.jobs_table = row_table("jobsTable", "Jobs", self._jobs, _COLUMN_WIDTHS)
        self.jobs_table.horizontalHeader().setSectionResizeMode(
            1, QHeaderView.ResizeMode.Stretch
        )
        self.jobs_table.activated.connect(lambda _: self._with_job(self._attach))
        self.jobs_table.selectionModel().selectionChanged.connect(self._draw_actions)
        self.empty_label = _plain_label("jobsEmptyLabel")
        self.empty_label.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._pages = QStackedWidget()
        self._pages.addWidget(self.jobs_table)
        self._pages.addWidget(self.empty_label)
        return self._pages

    def _build_actions(self) -> QHBoxLayout:
        slots: dict[str, tuple[str, str, Callable[[JobRow], None]]] = {
            "attach": (
                "&Attach",
                "Follow the job and open its training monitor.",
                self._attach,
            ),
            "logs": ("&Logs", "Show what the trainer writes.", self._show_log),
            "stop": (
                "&Stop Early",
                "End the training of the current model after its batch and keep it.",
                self._presenter.stop,
            ),
            "cancel": ("&Cancel Job...", "End the job and discard it.", self._cancel),
            "fetch": (
                "&Fetch Results...",
                "Bring the models and predictions to a folder.",
                self._fetch,
            ),
            "openFolder": (
                "&Open Folder",
                "Show the results in the file manager.",
                self._show_folder,
            ),
        }
        row = QHBoxLayout()
        self._buttons: dict[str, QPushButton] = {}
        for name, (text, tip, slot) in slots.items():
            button = _button(f"{name}Button", text, partial(self._with_job, slot))
            button.setToolTip(tip)
            self._buttons[name] = button
            row.addWidget(button)
            if name in ("logs", "cancel"):
                row.addSpacing(12)
        row.addStretch(1)
        return row

    def _build_waiting(self) -> QGroupBox:
        self.waiting_table = row_table(
            "waitingTable", "Waiting results", self._waiting, _WAITING_WIDTHS
        )
        self.waiting_table.horizontalHeader().setStretchLastSection(True)
        self.waiting_table.setMaximumHeight(_WAITING_HEIGHT)
        self.waiting_table.setWordWrap(True)
        self.waiting_table.verticalHeader().setSectionResizeMode(
            QHeaderView.ResizeMode.ResizeToContents
        )
        self.waiting_table.selectionModel().selectionChanged.connect(
            self._draw_waiting_actions
        )
        self.merge_button = _button("mergeButton", "&Merge Now", self._merge)
        self.dismiss_button = _button("dismissButton", "&Dismiss", self._dismiss)
        self.dismiss_button.setToolTip(
            "Do not merge these predictions; their file is kept."
        )
        self.show_files_button = _button(
            "showFilesButton", "Show &Predictions", self._show_waiting_files
        )
        row = QHBoxLayout()
        for button in (self.merge_button, self.show_files_button, self.dismiss_button):
            row.addWidget(button)
        row.addStretch(1)
        self.waiting_group = QGroupBox("Predictions that wait to be merged")
        self.waiting_group.setObjectName("waitingGroup")
        inside = QVBoxLayout(self.waiting_group)
        inside.addWidget(self.waiting_table)
        inside.addLayout(row)
        return self.waiting_group

    # -- drawing -----------------------------------------------------------------------

    def showEvent(self, event: QShowEvent) -> None:
        """Be up to date while visible."""
        super().showEvent(event)
        self._refresh_timer.start()
        self._clock_timer.start()
        self._refresh()
        self._redraw()

    def hideEvent(self, event: QHideEvent) -> None:
        """Ask nothing while hidden."""
        self._refresh_timer.stop()
        self._clock_timer.stop()
        super().hideEvent(event)

    def _redraw_soon(self) -> None:
        if self.isVisible() and not self._redraw_pause.isActive():
            self._redraw_pause.start()

    def _redraw(self) -> None:
        snapshot = self._presenter.snapshot
        self._draw_chooser()
        self._draw_jobs()
        self._pages.setCurrentIndex(0 if snapshot.jobs else 1)
        self.empty_label.setText(self._empty_words())
        _say(self.notice_label, snapshot.notice)
        self.refresh_button.setEnabled(snapshot.is_online)
        self._draw_actions()
        self._draw_waiting()

    def _draw_jobs(self) -> None:
        snapshot, now = self._presenter.snapshot, self._clock()
        self._jobs.set_rows(
            [job_table_row(job, now, head=snapshot.head(job)) for job in snapshot.jobs]
        )

    def _draw_actions(self) -> None:
        job = self._chosen_job()
        folder = self._presenter.snapshot.folder(job.job_id if job else None)
        allowed = allowed_actions(job, has_folder=folder is not None)
        for name, button in self._buttons.items():
            button.setEnabled(name in allowed)
        _say(self.detail_label, shown_error(job) if job else "")

    def _draw_chooser(self) -> None:
        snapshot, chooser = self._presenter.snapshot, self.worker_chooser
        entries = [(FOLLOWED, _FOLLOWED_WORDS)]
        entries += [
            (worker.worker_id, clean_text(worker.name) or worker.worker_id)
            for worker in snapshot.workers
        ]
        if snapshot.worker_id not in dict(entries):
            entries.append((snapshot.worker_id, f"{snapshot.worker_id} (away)"))
        shown = [
            (chooser.itemData(i), chooser.itemText(i)) for i in range(chooser.count())
        ]
        if shown != entries:
            chooser.clear()
            for worker_id, words in entries:
                chooser.addItem(words, worker_id)
        index = [worker_id for worker_id, _ in entries].index(snapshot.worker_id)
        if chooser.currentIndex() != index:
            chooser.setCurrentIndex(index)

    def _draw_waiting(self) -> None:
        waiting = self._home.waiting
        self._waiting.set_rows([waiting_table_row(one) for one in waiting])
        self.waiting_group.setVisible(bool(waiting))
        if waiting and self._chosen_waiting() is None:
            self.waiting_table.selectRow(0)
        self._can_merge = {one.job_id for one in waiting if one.can_merge}
        self._draw_waiting_actions()

    def _draw_waiting_actions(self) -> None:
        chosen = self._chosen_waiting()
        self.merge_button.setEnabled(chosen in self._can_merge)
        self.dismiss_button.setEnabled(chosen is not None)
        self.show_files_button.setEnabled(chosen is not None)

    def _empty_words(self) -> str:
        snapshot = self._presenter.snapshot
        if not snapshot.is_online:
            return _OFFLINE
        if snapshot.worker_id == FOLLOWED:
            return _NO_FOLLOWED
        return _NO_JOBS if snapshot.is_listed else _LISTING

    # -- what the user chose -----------------------------------------------------------

    def _chosen_job(self) -> JobRow | None:
        return self._presenter.snapshot.job(_chosen(self.jobs_table, self._jobs))

    def _chosen_waiting(self) -> str | None:
        return _chosen(self.waiting_table, self._waiting)

    def _choose_worker(self, index: int) -> None:
        self._presenter.choose_worker(self.worker_chooser.itemData(index))

    def _with_job(self, act: Callable[[JobRow], None]) -> None:
        job = self._chosen_job()
        if job is not None:
            act(job)

    # -- what the user does ------------------------------------------------------------

    def _refresh(self) -> None:
        self._presenter.refresh()
        # Which project is open may have changed, and nobody says so.
        self._draw_waiting()

    def _attach(self, job: JobRow) -> None:
        if "attach" in allowed_actions(job):
            self._presenter.attach(job)

    def _cancel(self, job: JobRow) -> None:
        box = QMessageBox(self)
        box.setObjectName("cancelQuestion")
        box.setIcon(QMessageBox.Icon.Question)
        box.setTextFormat(Qt.TextFormat.PlainText)
        box.setWindowTitle("Cancel Job")
        name, owner = clean_text(job.name), clean_text(job.owner)
        whose = f" of {owner}" if owner else ""
        box.setText(f"Cancel the job {name}{whose}?")
        box.setInformativeText(
            "Its models and predictions are discarded. Stop Early would keep the model."
        )
        end = box.addButton("&Cancel Job", QMessageBox.ButtonRole.DestructiveRole)
        keep = box.addButton("&Keep It", QMessageBox.ButtonRole.RejectRole)
        box.setDefaultButton(keep)
        box.setEscapeButton(keep)
        box.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        end.clicked.connect(lambda: self._presenter.cancel(job))
        box.open()

    def _fetch(self, job: JobRow) -> None:
        dialog = QFileDialog(self, "Fetch Results To", self._default_output())
        dialog.setObjectName("fetchDialog")
        dialog.setFileMode(QFileDialog.FileMode.Directory)
        dialog.setOption(QFileDialog.Option.ShowDirsOnly, True)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.fileSelected.connect(lambda path: self._presenter.fetch(job, path))
        dialog.open()

    def _show_folder(self, job: JobRow) -> None:
        folder = self._presenter.snapshot.folder(job.job_id)
        if folder is not None:
            self._open_folder(folder)

    def _show_log(self, job: JobRow) -> None:
        job_id = job.job_id
        known = self._logs.get(job_id)
        if known is not None:
            known.raise_()
            known.activateWindow()
            return
        if len(self._logs) >= MAX_LOG_WINDOWS:
            next(iter(self._logs.values())).close()
        title = f"{clean_text(job.name) or job_id} on {clean_text(job.worker)}"
        window = JobLogWindow(
            self,
            title,
            lambda deliver: self._presenter.read_log(job, deliver),
            partial(self._logs.pop, job_id, None),
        )
        self._logs[job_id] = window
        window.show()

    def _merge(self) -> None:
        chosen = self._chosen_waiting()
        if chosen is not None:
            self._home.merge_now(chosen)

    def _dismiss(self) -> None:
        chosen = self._chosen_waiting()
        if chosen is not None:
            self._home.dismiss(chosen)

    def _show_waiting_files(self) -> None:
        chosen = self._chosen_waiting()
        for waiting in self._home.waiting:
            if waiting.job_id == chosen:
                self._open_folder(str(Path(waiting.predictions[0]).parent))


# -- parts -----------------------------------------------------------------------------


def _let_go(presenter: JobsPresenter, home: HomeComing) -> None:
    """Tell nobody any more; events may outlive the window."""
    presenter.on_changed = home.on_changed = lambda: None


def _button(name: str, text: str, slot: Callable[[], object]) -> QPushButton:
    button = QPushButton(text)
    button.setObjectName(name)
    button.setAutoDefault(False)
    button.clicked.connect(lambda: slot())
    return button


def _plain_label(name: str) -> QLabel:
    label = QLabel()
    label.setObjectName(name)
    label.setTextFormat(Qt.TextFormat.PlainText)
    label.setWordWrap(True)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    return label


def _say(label: QLabel, words: str) -> None:
    label.setText(words)
    label.setVisible(bool(words))


def _timer(parent: QWidget, interval_ms: int, slot: Callable[[], None]) -> QTimer:
    timer = QTimer(parent)
    timer.setInterval(interval_ms)
    timer.timeout.connect(slot)
    return timer


def _chosen(table: QTableView, model: KeyedTableModel) -> str | None:
    rows = table.selectionModel().selectedRows()
    return model.key_at(rows[0].row()) if rows else None
