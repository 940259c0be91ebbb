"""The dialog's table of workers, and what strangers may make the dialog show."""

from collections.abc import Iterator

import pytest
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QEvent, QItemSelectionModel, QPoint, Qt
from qtpy.QtGui import QHelpEvent
from qtpy.QtTest import QAbstractItemModelTester
from qtpy.QtWidgets import QApplication, QLabel, QPushButton, QToolTip
from support.dialog_world import WORKERS, World
from support.scripted_host import SERVER, make_run, make_session, make_worker

from sleap_rtc_plugin.companion.messages import RoomChanged, RoomRow
from sleap_rtc_plugin.gui.models import COLUMNS, WorkersModel, WorkersProxy

Key = Qt.Key


@pytest.fixture
def world(qtbot: QtBot) -> Iterator[World]:
    world = World(qtbot)
    yield world
    world.dialog.close()


# -- the table -------------------------------------------------------------------------


def test_live_updates_keep_the_selection(world: World) -> None:
    world.connect()
    world.presenter.choose_worker("w-2")
    world.settle()
    first = make_worker("w-0", name="a first one")
    for workers in (
        [first, *WORKERS],
        list(reversed(WORKERS)),
        [make_worker("w-2", name="zzz"), first],
        [*WORKERS, first],
    ):
        world.host.tell_workers(*workers)
        world.settle()
        assert world.selected() == ["w-2"]
        assert world.presenter.snapshot.worker_id == "w-2"


def test_nobody_is_selected_in_place_of_one_who_left(world: World) -> None:
    world.connect()
    world.presenter.choose_worker("w-2")
    world.settle()
    world.host.tell_workers(WORKERS[0], WORKERS[2])
    world.settle()
    assert world.selected() == []
    assert world.status == ("gpu-2 is not online now. Wait for it or choose another.")
    world.host.tell_workers(*WORKERS)
    world.settle()
    assert world.selected() == ["w-2"]


def test_sorting_by_a_column_keeps_the_selection(world: World) -> None:
    world.connect()
    world.presenter.choose_worker("w-1")
    world.settle()
    for column in range(len(COLUMNS)):
        for order in Qt.SortOrder:
            world.table.sortByColumn(column, order)
            assert world.selected() == ["w-1"]
    world.table.sortByColumn(4, Qt.SortOrder.DescendingOrder)  # the longest queue first
    assert world.dialog.workers.proxy.index(0, 0).data() == "gpu-2"


def test_a_worker_that_refuses_says_why(world: World) -> None:
    world.connect()
    world.presenter.configure(make_run())
    world.presenter.choose_worker("w-3")
    world.settle()
    assert world.status == "gpu-3 takes no new jobs."
    assert not world.find(QPushButton, "runRemotelyButton").isEnabled()
    index = world.dialog.workers.proxy.index_of("w-3")
    assert "takes no new jobs" in index.data(Qt.ItemDataRole.ToolTipRole)
    grey = index.data(Qt.ItemDataRole.ForegroundRole)
    other = world.dialog.workers.proxy.index_of("w-1")
    assert grey is not None
    assert other.data(Qt.ItemDataRole.ForegroundRole) is None


def test_an_empty_table_says_what_to_do(world: World) -> None:
    assert "Connect to a lab" in world.table.accessibleDescription()
    world.presenter.connect(make_session())
    world.settle()
    assert "Looking for workers" in world.table.accessibleDescription()
    world.host.tell_workers()
    world.settle()
    assert "sleap-remote worker" in world.table.accessibleDescription()
    world.host.tell_workers(*WORKERS)
    world.settle()
    assert world.table.accessibleDescription() == ""


def test_two_hundred_workers_are_updated_in_place(world: World) -> None:
    model = world.dialog.workers.model
    resets: list[bool] = []
    changes: list[bool] = []
    model.modelReset.connect(lambda: resets.append(True))
    model.dataChanged.connect(lambda: changes.append(True))
    world.presenter.connect(make_session())
    for tick in range(20):
        crowd = [
            make_worker(f"w-{i}", name=f"node {i:03}", round_trip_ms=float(tick * i))
            for i in range(200)
        ]
        world.host.tell_workers(*crowd)
        if tick == 0:
            world.settle()
            world.presenter.choose_worker("w-150")
    world.settle()
    assert model.rowCount() == 200
    assert world.selected() == ["w-150"]
    assert resets == []
    # Every signal makes the view measure and sort: a second of them for 200 rows.
    assert 0 < len(changes) <= 20


def test_the_models_keep_qts_rules(qtbot: QtBot) -> None:
    model = WorkersModel()
    proxy = WorkersProxy(model)
    fatal = QAbstractItemModelTester.FailureReportingMode.Fatal
    testers = [QAbstractItemModelTester(each, fatal) for each in (model, proxy)]
    lists = [WORKERS, WORKERS[1:], [], [*WORKERS[:1], make_worker("w-9")], WORKERS]
    for workers in lists:
        model.show(workers)
        assert proxy.rowCount() == len(workers)
        for column in range(len(COLUMNS)):
            proxy.sort(column)
    assert testers
    assert model.headerData(0, Qt.Orientation.Horizontal) == "Name"
    assert model.headerData(0, Qt.Orientation.Vertical) is None


def test_the_arrow_keys_choose_a_worker(world: World) -> None:
    world.connect()
    world.table.setFocus()
    world.press(Key.Key_Down, Key.Key_Down)
    assert world.presenter.snapshot.worker_id == "w-2"
    flags = QItemSelectionModel.SelectionFlag.ClearAndSelect
    world.table.selectionModel().select(
        world.dialog.workers.proxy.index_of("w-1"),
        flags | QItemSelectionModel.SelectionFlag.Rows,
    )
    assert world.presenter.snapshot.worker_id == "w-1"


# -- strangers' texts ------------------------------------------------------------------


def test_no_text_of_a_peer_is_ever_rich(world: World) -> None:
    hostile = "<b>bold</b><img src='file:///etc/passwd'>\u202e" + "x" * 10_000
    world.presenter.connect(make_session())
    world.host.tell_workers(
        make_worker("w-1", name=hostile, gpu_model=hostile, refusal=hostile),
        make_worker("w-2", name="N" * 10_000),
    )
    world.presenter.choose_worker("w-1")
    world.settle()
    labels = world.dialog.findChildren(QLabel)
    assert all(label.textFormat() is Qt.TextFormat.PlainText for label in labels)
    assert world.status.startswith("<b>bold</b>")
    assert "\u202e" not in world.status
    width = world.dialog.width()
    world.host.on_event(
        RoomChanged(
            state="offline",
            room=RoomRow(room_id="room-1", server=SERVER),
            reason=hostile,
        )
    )
    world.settle()
    assert world.dialog.width() == width
    index = world.dialog.workers.proxy.index_of("w-1")
    for column in range(len(COLUMNS)):
        cell = index.siblingAtColumn(column)
        tip = cell.data(Qt.ItemDataRole.ToolTipRole)
        assert "<b>" not in tip
        assert "<img" not in tip
    assert "<b>" in index.data(Qt.ItemDataRole.DisplayRole)


def test_the_tool_tip_shows_the_refusal_and_not_its_tags(world: World) -> None:
    world.presenter.connect(make_session())
    world.host.tell_workers(make_worker("w-1", refusal="<b>Full</b> until noon."))
    world.settle()
    index = world.dialog.workers.proxy.index_of("w-1")
    where: QPoint = world.table.visualRect(index).center()
    event = QHelpEvent(
        QEvent.Type.ToolTip, where, world.table.viewport().mapToGlobal(where)
    )
    QApplication.sendEvent(world.table.viewport(), event)
    assert QToolTip.text() == "<qt>&lt;b&gt;Full&lt;/b&gt; until noon.</qt>"
    QToolTip.hideText()


def test_the_tool_tip_says_how_a_linked_worker_is_reached(world: World) -> None:
    world.presenter.connect(make_session())
    world.host.tell_workers(make_worker("w-1", link_kind="turn-tcp"))
    world.settle()
    index = world.dialog.workers.proxy.index_of("w-1")
    tip = index.data(Qt.ItemDataRole.ToolTipRole)
    assert tip.endswith("(reached over a TURN server (TCP))</qt>")
