"""The jobs window with its presenter, over a scripted companion."""

from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest
from qtpy.QtCore import QModelIndex, Qt
from qtpy.QtGui import QTextDocument
from qtpy.QtWidgets import (
    QApplication,
    QFileDialog,
    QMainWindow,
    QMessageBox,
    QPlainTextEdit,
    QPushButton,
    QTableView,
)

from sleap_rtc_plugin.companion.messages import (
    AttachJob,
    CancelJob,
    Command,
    Done,
    FetchResults,
    JobChanged,
    JobLog,
    JobRow,
    Jobs,
    ListJobs,
    Log,
    Result,
    ResultsHome,
    RoomChanged,
    StepBegan,
    StopJob,
    TransferProgress,
    WorkerRow,
    WorkersChanged,
)
from sleap_rtc_plugin.gui.home_coming import Waiting
from sleap_rtc_plugin.gui.jobs_model import (
    JOB_COLUMNS,
    allowed_actions,
    job_table_row,
    merge_log,
)
from sleap_rtc_plugin.gui.jobs_presenter import FOLLOWED, JobsPresenter
from sleap_rtc_plugin.gui.jobs_window import RemoteJobsWindow
from sleap_rtc_plugin.gui.quantities import UNKNOWN
from sleap_rtc_plugin.gui.tables import KeyedTableModel, TableRow
from sleap_rtc_plugin.protocol.errors import ErrorInfo, NoReply, RtcError
from sleap_rtc_plugin.protocol.job import ENDED, JobState

NOW = 1_790_000_000.0
W1, W2 = (
    WorkerRow(worker_id="worker-1", name="gpu-box"),
    WorkerRow(worker_id="worker-2", name="basement"),
)


def row(number: int, state: str = "running", **options: Any) -> JobRow:
    facts: dict[str, Any] = {
        "job_id": f"job-{number:020x}",
        "worker_id": W1.worker_id,
        "worker": W1.name,
        "name": f"flies {number}",
        "owner": "ada",
        "created_at": NOW - 100.0 * number,
        "started_at": NOW - 100.0 * number + 10,
    }
    return JobRow(state=state, **{**facts, **options})


class Companion:
    """Answers the presenter's commands at once."""

    def __init__(self) -> None:
        self.commands: list[Command] = []
        self.jobs: dict[str, list[JobRow]] = {}
        self.lines: list[str] = []
        self.errors: dict[type, RtcError] = {}

    async def ask(self, command: Command) -> Result:
        self.commands.append(command)
        if type(command) in self.errors:
            raise self.errors[type(command)]
        if isinstance(command, ListJobs):
            return Jobs(jobs=list(self.jobs.get(command.worker_id, [])))
        if isinstance(command, JobLog):
            return Log(lines=list(self.lines))
        return Done()

    def spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        # Nothing here ever waits, so there is no need of a loop.
        with pytest.raises(StopIteration):
            coroutine.send(None)

    def of(self, kind: type) -> list[Any]:
        return [command for command in self.commands if isinstance(command, kind)]


class Home:
    """What waits to be merged, scripted."""

    def __init__(self) -> None:
        self.on_changed: Callable[[], None] = lambda: None
        self.waiting: tuple[Waiting, ...] = ()
        self.merged: list[str] = []
        self.dismissed: list[str] = []

    def merge_now(self, job_id: str) -> None:
        self.merged.append(job_id)

    def dismiss(self, job_id: str) -> None:
        self.dismissed.append(job_id)
        self.waiting = tuple(w for w in self.waiting if w.job_id != job_id)
        self.on_changed()


class World:
    """The window and everything around it."""

    def __init__(self, parent: QMainWindow) -> None:
        self.companion, self.home = Companion(), Home()
        self.reopened: list[str] = []
        self.folders: list[str] = []
        self.now = NOW
        self.presenter = JobsPresenter(
            self.companion.ask, self.companion.spawn, reopen_monitor=self._reopen
        )
        self.window = RemoteJobsWindow(
            parent,
            self.presenter,
            self.home,  # type: ignore[arg-type]
            default_output=lambda: str(Path.cwd()),
            open_folder=self.folders.append,
            clock=lambda: self.now,
        )
        self.parent = parent

    def _reopen(self, job_id: str) -> bool:
        self.reopened.append(job_id)
        return False

    def enter(self, *workers: WorkerRow, jobs: Sequence[JobRow] = ()) -> None:
        self.companion.jobs[W1.worker_id] = list(jobs)
        self.presenter.handle(RoomChanged(state="online"))
        self.presenter.handle(WorkersChanged(workers=list(workers)))
        self.show()

    def show(self) -> None:
        self.window.show()
        self.window._redraw()

    def button(self, name: str) -> QPushButton:
        found = self.window.findChild(QPushButton, f"{name}Button")
        assert isinstance(found, QPushButton)
        return found

    @property
    def table(self) -> QTableView:
        found = self.window.findChild(QTableView, "jobsTable")
        assert isinstance(found, QTableView)
        return found

    def choose(self, job: JobRow) -> None:
        index = self.window._jobs.row_of(job.job_id)
        assert index is not None
        self.table.selectRow(index)

    def cells(self, column: str) -> list[str]:
        model, place = self.table.model(), JOB_COLUMNS.index(column)
        return [model.index(i, place).data() for i in range(model.rowCount())]

    def enabled(self) -> set[str]:
        return {name for name, b in self.window._buttons.items() if b.isEnabled()}


@pytest.fixture
def world(qtbot: Any) -> World:
    parent = QMainWindow()
    qtbot.addWidget(parent)
    return World(parent)


# -- what is shown ---------------------------------------------------------------------


def test_without_a_lab_the_window_says_what_to_do(world: World) -> None:
    world.show()
    assert world.window.empty_label.isVisible()
    assert "Not connected" in world.window.empty_label.text()
    assert not world.enabled()
    assert not world.button("refresh").isEnabled()
    assert not world.window.waiting_group.isVisible()


def test_the_jobs_of_the_first_worker_are_shown(world: World) -> None:
    running = row(2, step=0, steps=2, epoch=11)
    world.enter(W1, W2, jobs=[row(1, "queued", started_at=None), running])
    assert world.cells("Name") == ["flies 1", "flies 2"]
    assert world.cells("State") == [
        "Waiting in the queue",
        "Training, step 1 of 2, epoch 12",
    ]
    assert world.cells("Owner") == ["ada", "ada"]
    assert world.cells("Duration") == [UNKNOWN, "3 min 10 s"]
    world.presenter.handle(
        StepBegan(
            job_id=running.job_id, worker="w", step=0, head="centroid", run_name="a"
        )
    )
    world.window._redraw()
    assert world.cells("State")[1] == "Training centroid, epoch 12"


def test_durations_are_live_and_times_local(world: World) -> None:
    ended = row(3, "succeeded", ended_at=NOW - 290 + 3590)
    old = row(4, "failed", created_at=NOW - 40 * 86400, started_at=None)
    world.enter(W1, jobs=[row(1), ended, old])
    assert world.cells("Duration")[:2] == ["1 min 30 s", "59 min 50 s"]
    world.now += 30
    world.window._clock_timer.timeout.emit()
    assert world.cells("Duration")[:2] == ["2 min", "59 min 50 s"]
    today, _, before = world.cells("Submitted")
    assert today in before or len(before) > len(today)


def test_an_event_is_shown_at_once_and_keeps_the_selection(
    qtbot: Any, world: World
) -> None:
    jobs = [row(1), row(2)]
    world.enter(W1, jobs=jobs)
    world.choose(jobs[1])
    inserted: list[object] = []
    reset: list[object] = []
    world.table.model().rowsInserted.connect(lambda *a: inserted.append(a))
    world.table.model().modelReset.connect(lambda: reset.append(0))
    world.presenter.handle(JobChanged(job=row(0, is_followed=True)))
    world.presenter.handle(JobChanged(job=row(2, "succeeded", is_followed=True)))
    qtbot.waitUntil(lambda: len(world.cells("Name")) == 3)
    assert world.window._chosen_job().job_id == jobs[1].job_id  # type: ignore[union-attr]
    assert world.cells("State")[2] == "Done"
    assert (len(inserted), reset) == (1, [])
    assert "fetch" in world.enabled()


def test_followed_jobs_are_shown_first_wherever_they_run(world: World) -> None:
    here = row(1, worker_id="worker-2", worker="basement", is_followed=True)
    world.presenter.handle(JobChanged(job=here))
    world.enter(W1, W2, jobs=[row(5)])
    assert world.presenter.snapshot.worker_id == FOLLOWED
    assert world.cells("Worker") == ["basement"]
    chooser = world.window.worker_chooser
    assert [chooser.itemText(i) for i in range(3)][1:] == ["gpu-box", "basement"]
    chooser.setCurrentIndex(1)
    chooser.activated.emit(1)
    world.window._redraw()
    assert world.cells("Name") == ["flies 5"]
    world.presenter.handle(WorkersChanged(workers=[W2]))
    world.window._redraw()
    assert chooser.currentText() == "worker-1 (away)"


def test_what_a_worker_no_longer_lists_is_gone(world: World) -> None:
    sending = row(1, "staging", is_followed=True, created_at=None)
    world.presenter.choose_worker(W1.worker_id)
    world.presenter.handle(JobChanged(job=sending))
    world.enter(W1, jobs=[row(2), row(3)])
    assert world.cells("Name") == ["flies 1", "flies 2", "flies 3"]
    world.companion.jobs[W1.worker_id] = [row(3)]
    world.button("refresh").click()
    world.window._redraw()
    assert world.cells("Name") == ["flies 1", "flies 3"], "one is still being sent"


def test_it_asks_only_while_it_is_visible(world: World) -> None:
    world.enter(W1)
    assert world.window._refresh_timer.isActive()
    assert "no jobs" in world.window.empty_label.text()
    world.window.close()
    assert not world.window._refresh_timer.isActive()
    assert not world.window._clock_timer.isActive()


def test_a_worker_that_does_not_answer_is_said(world: World) -> None:
    world.companion.errors[ListJobs] = NoReply(peer="gpu-box", command="listing")
    world.enter(W1)
    assert "gpu-box" in world.window.notice_label.text()
    assert "Asking" in world.window.empty_label.text()
    del world.companion.errors[ListJobs]
    world.companion.jobs[W1.worker_id] = [row(1)]
    world.window._refresh()
    world.window._redraw()
    assert world.cells("Name") == ["flies 1"]


def test_hostile_names_are_plain_and_bounded(world: World) -> None:
    evil = "<img src=x>\u202e\n" + "x" * 10_000
    job = row(1, "failed", name=evil, owner=evil, worker=evil, error=evil)
    strange = row(2, created_at=float("nan"), started_at=1e300)
    world.enter(WorkerRow(worker_id=W1.worker_id, name=evil), jobs=[job, strange])
    world.choose(job)
    model = world.table.model()
    for column in range(model.columnCount()):
        index = model.index(0, column)
        assert len(index.data()) <= 600
        assert "\u202e" not in index.data()
        document = QTextDocument()
        document.setHtml(index.data(Qt.ItemDataRole.ToolTipRole))
        assert document.toPlainText().startswith("<img src=x>")
    assert world.window.detail_label.textFormat() == Qt.TextFormat.PlainText
    assert world.window.notice_label.textFormat() == Qt.TextFormat.PlainText
    assert world.cells("Submitted")[1] == UNKNOWN


def test_events_that_outlive_the_window_do_no_harm(qtbot: Any, world: World) -> None:
    world.enter(W1, jobs=[row(1)])
    gone: list[bool] = []
    world.window.destroyed.connect(lambda: gone.append(True))
    world.window.deleteLater()
    qtbot.waitUntil(lambda: bool(gone))
    world.presenter.handle(JobChanged(job=row(2)))
    world.home.on_changed()


# -- what may be done ------------------------------------------------------------------


@pytest.mark.parametrize("state", list(JobState))
def test_what_may_be_done_in_each_state(state: JobState) -> None:
    allowed = allowed_actions(row(1, state.value))
    assert ("cancel" in allowed) == (state not in ENDED | {JobState.CANCELLING})
    assert ("stop" in allowed) == (state in {JobState.STARTING, JobState.RUNNING})
    assert ("fetch" in allowed) == (
        state in {JobState.SUCCEEDED, JobState.FAILED, JobState.LOST}
    )
    assert ("attach" in allowed) == (state is not JobState.REJECTED)
    assert "openFolder" not in allowed
    assert "openFolder" in allowed_actions(row(1, state.value), has_folder=True)
    assert not allowed_actions(None)


def test_attach_shows_the_monitor_and_follows(world: World) -> None:
    job = row(1)
    world.enter(W1, jobs=[job])
    assert not world.enabled(), "nothing is chosen yet"
    world.choose(job)
    world.button("attach").click()
    assert world.reopened == [job.job_id]
    assert world.companion.of(AttachJob) == [
        AttachJob(worker_id="worker-1", job_id=job.job_id)
    ]


def test_stop_is_sent(world: World) -> None:
    job = row(1)
    world.enter(W1, jobs=[job])
    world.choose(job)
    world.button("stop").click()
    assert world.companion.of(StopJob) == [
        StopJob(worker_id="worker-1", job_id=job.job_id, scope="step")
    ]


def question(world: World) -> QMessageBox:
    box = world.window.findChild(QMessageBox, "cancelQuestion")
    assert isinstance(box, QMessageBox)
    return box


@pytest.mark.parametrize("sure", [False, True])
def test_cancel_asks_first(qtbot: Any, world: World, sure: bool) -> None:
    job = row(1, name="<b>flies</b>", owner="grace")
    world.enter(W1, jobs=[job])
    world.choose(job)
    world.button("cancel").click()
    box = question(world)
    assert box.text() == "Cancel the job <b>flies</b> of grace?"
    assert box.textFormat() == Qt.TextFormat.PlainText
    assert not world.companion.of(CancelJob)
    if sure:
        (button,) = [b for b in box.buttons() if "Cancel" in b.text()]
        button.click()
    else:
        qtbot.keyClick(box, Qt.Key.Key_Escape)
    wanted = [CancelJob(worker_id="worker-1", job_id=job.job_id)] if sure else []
    assert world.companion.of(CancelJob) == wanted


def test_fetch_asks_where_to_and_tells_how_far(
    qtbot: Any, world: World, tmp_path: Path
) -> None:
    job = row(1, "succeeded")
    world.enter(W1, jobs=[job])
    world.choose(job)
    world.button("fetch").click()
    dialog = world.window.findChild(QFileDialog, "fetchDialog")
    assert isinstance(dialog, QFileDialog)
    dialog.fileSelected.emit(str(tmp_path))
    dialog.close()
    assert world.companion.of(FetchResults) == [
        FetchResults(worker_id="worker-1", job_id=job.job_id, output=str(tmp_path))
    ]
    world.presenter.handle(
        TransferProgress(
            job_id=job.job_id, purpose="results", done=5_000_000, total=20_000_000
        )
    )
    assert world.presenter.snapshot.notice == (
        "Fetching the results of flies 1: 5.0 MB of 20.0 MB"
    )
    assert "openFolder" not in world.enabled()
    model = str(tmp_path / "models" / "a")
    home = ResultsHome(
        job_id=job.job_id, worker="gpu-box", models=[model], predictions=[]
    )
    world.presenter.handle(home)
    qtbot.waitUntil(lambda: "openFolder" in world.enabled())
    world.button("openFolder").click()
    assert world.folders == [str(tmp_path / "models")]


def test_a_failed_command_is_said_in_words(world: World) -> None:
    job = row(1)
    world.companion.errors[StopJob] = NoReply(peer="gpu-box", command="stopping")
    world.enter(W1, jobs=[job])
    world.choose(job)
    world.button("stop").click()
    world.window._redraw()
    assert "gpu-box" in world.window.notice_label.text()
    failure = ErrorInfo(code="job_unknown", fields={"job_id": job.job_id})
    world.presenter.handle(JobChanged(job=job, error=failure))
    assert "does not know" in world.presenter.snapshot.notice


def test_the_keyboard_is_enough(qtbot: Any, world: World) -> None:
    jobs = [row(1), row(2)]
    world.enter(W1, jobs=jobs)
    world.table.setFocus()
    qtbot.keyClick(world.table, Qt.Key.Key_Home)
    qtbot.keyClick(world.table, Qt.Key.Key_Down)
    assert world.window._chosen_job() == jobs[1]
    qtbot.keyClick(world.table, Qt.Key.Key_Return)
    assert world.reopened == [jobs[1].job_id]
    buttons = world.window.findChildren(QPushButton)
    letters = [b.text()[b.text().index("&") + 1] for b in buttons if "&" in b.text()]
    letters.append("W")
    assert len(letters) == len({letter.lower() for letter in letters})


# -- logs ------------------------------------------------------------------------------


def test_logs_grow_while_their_window_is_open(qtbot: Any, world: World) -> None:
    job = row(1)
    world.enter(W1, jobs=[job])
    world.choose(job)
    world.companion.lines = ["one", "<b>two</b>"]
    world.button("logs").click()
    (log,) = world.window._logs.values()
    view = log.findChild(QPlainTextEdit, "logView")
    assert isinstance(view, QPlainTextEdit)
    assert view.toPlainText() == "one\n<b>two</b>"
    assert len(world.companion.of(AttachJob)) == 1, "a log is told of followed jobs"
    world.companion.lines = ["<b>two</b>", "three"]
    log._poll.timeout.emit()
    assert view.toPlainText() == "one\n<b>two</b>\nthree"
    world.companion.errors[JobLog] = NoReply(peer="gpu-box", command="reading")
    log.read_again()
    assert log.trouble_label.isVisible()
    assert view.toPlainText().endswith("three"), "what was read stays"
    world.button("logs").click()
    assert len(world.window._logs) == 1
    qtbot.waitUntil(log.isActiveWindow)
    qtbot.keyClick(log, Qt.Key.Key_Escape)
    assert not world.window._logs
    assert not log._poll.isActive()


def test_a_log_that_answers_late_is_not_drawn(world: World) -> None:
    waiting: list[Any] = []
    world.presenter.read_log = (  # type: ignore[method-assign]
        lambda job, deliver: waiting.append(deliver)
    )
    job = row(1)
    world.enter(W1, jobs=[job])
    world.choose(job)
    world.button("logs").click()
    (log,) = world.window._logs.values()
    log.close()
    QApplication.processEvents()
    waiting[0](["late"], "")


@pytest.mark.parametrize(
    ("shown", "latest", "fresh"),
    [
        ([], ["a", "b"], ["a", "b"]),
        (["a", "b"], ["a", "b"], []),
        (["a", "b"], ["b", "c"], ["c"]),
        (["a", "b", "c"], ["c"], []),
        (["a"], ["x", "y"], ["x", "y"]),
        (["a", "a"], ["a", "a", "a"], ["a"]),
        (["a"], [], []),
    ],
)
def test_lines_told_again_are_not_shown_again(
    shown: list[str], latest: list[str], fresh: list[str]
) -> None:
    assert merge_log(shown, latest) == fresh


# -- what waits ------------------------------------------------------------------------


def test_what_waits_is_shown_and_merged_or_dismissed(qtbot: Any, world: World) -> None:
    world.enter(W1)
    fits = Waiting("job-1", "gpu-box", "/d/flies.slp", ("/d/p/a.slp",), "why", True)
    other = Waiting("job-2", "gpu-box", "/d/mice.slp", ("/d/p/b.slp",), "Not open.")
    world.home.waiting = (other, fits)
    world.home.on_changed()
    qtbot.waitUntil(world.window.waiting_group.isVisible)
    assert not world.button("merge").isEnabled(), "its project is not open"
    world.window.waiting_table.selectRow(1)
    assert world.button("merge").isEnabled()
    world.button("merge").click()
    assert world.home.merged == ["job-1"]
    world.button("showFiles").click()
    assert world.folders == ["/d/p"]
    world.button("dismiss").click()
    assert world.home.dismissed == ["job-1"]
    qtbot.waitUntil(lambda: not world.button("merge").isEnabled())
    world.button("dismiss").click()
    qtbot.waitUntil(lambda: not world.window.waiting_group.isVisible())


# -- the table -------------------------------------------------------------------------


@pytest.mark.parametrize("before", ["", "a", "abc", "cba", "bxd"])
@pytest.mark.parametrize("after", ["", "a", "abc", "acb", "cdab", "xyz"])
def test_a_table_is_brought_up_to_date_in_place(
    qapp: QApplication, before: str, after: str
) -> None:
    model = KeyedTableModel(("Name",))
    resets: list[int] = []
    model.modelReset.connect(lambda: resets.append(0))
    model.set_rows([TableRow(key, (key,)) for key in before])
    kept = {key: model.index(row, 0) for row, key in enumerate(before)}
    model.set_rows([TableRow(key, (key.upper(),)) for key in after])
    shown = [model.index(i, 0).data() for i in range(model.rowCount())]
    assert shown == [key.upper() for key in after]
    assert not resets
    assert set(kept) == set(before)
    assert model.rowCount(model.index(0, 0) if after else QModelIndex()) == 0


def test_a_row_that_did_not_change_is_not_drawn_again(qapp: QApplication) -> None:
    model = KeyedTableModel(JOB_COLUMNS)
    rows = [job_table_row(row(1), NOW), job_table_row(row(2), NOW)]
    model.set_rows(rows)
    changed: list[int] = []
    model.dataChanged.connect(lambda top, *_: changed.append(top.row()))
    model.set_rows(rows)
    assert changed == []
    model.set_rows([rows[0], job_table_row(row(2, "failed"), NOW)])
    assert changed == [1]


def test_a_row_tells_what_becomes_of_its_results() -> None:
    done = row(1, "succeeded", expires_at=NOW + 10.0, restarts=2)
    tip = job_table_row(done, NOW).tip
    assert "begun again 2 times" in tip
    assert "keeps its results at least until" in tip
    assert "fetch" in allowed_actions(done)
    gone = row(1, "succeeded", expires_at=NOW, are_results_removed=True)
    shown = job_table_row(gone, NOW)
    assert shown.cells[1] == "Done, results removed"
    assert shown.tip == "Its results were removed from the worker."
    assert "fetch" not in allowed_actions(gone)
