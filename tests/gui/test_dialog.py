"""The remote training dialog as a user has it: keys, clicks, and what is to be seen."""

import gc
import itertools
import re
import weakref
from collections.abc import Iterator

import pytest
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QPoint, Qt
from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import (
    QAbstractButton,
    QComboBox,
    QGroupBox,
    QLabel,
    QLineEdit,
    QProgressBar,
    QPushButton,
    QWidget,
)
from support.account_scenes import at_door, choose_keyless, signed_in, with_code
from support.dialog_world import WORKERS, World
from support.scripted_host import SERVER, make_run, make_session

from sleap_rtc_plugin.companion.messages import (
    Connect,
    PackageProgress,
    RoomChanged,
    RoomRow,
    SubmitRun,
)
from sleap_rtc_plugin.gui.dialog import RemoteTrainingDialog
from sleap_rtc_plugin.gui.messages import COMPANION_DEAD
from sleap_rtc_plugin.gui.snapshot import Lab
from sleap_rtc_plugin.gui.status_line import PROGRESS_STEPS
from sleap_rtc_plugin.protocol.errors import RoomGone
from sleap_rtc_plugin.transport.transport_options import RELAY_ONLY_VARIABLE

Key = Qt.Key


@pytest.fixture
def world(qtbot: QtBot) -> Iterator[World]:
    world = World(qtbot)
    yield world
    world.dialog.close()


# -- the way through -------------------------------------------------------------------


def test_the_whole_way_by_keyboard(world: World) -> None:
    QGuiApplication.clipboard().setText(make_session())
    edit = world.find(QLineEdit, "sessionEdit")
    assert world.dialog.focusWidget() is edit
    world.qtbot.keyClick(edit, Key.Key_V, Qt.KeyboardModifier.ControlModifier)
    world.press(Key.Key_Return)
    assert len(world.host.asked_for(Connect)) == 1
    world.host.tell_workers(*WORKERS)
    world.settle()
    assert world.dialog.focusWidget() is world.table
    world.press(Key.Key_Down)
    assert world.selected() == ["w-1"]
    world.press(Key.Key_Return)  # the obvious is to configure
    assert world.pressed == ["configure"]
    world.press(Key.Key_Return)  # and now to run
    (command,) = world.host.asked_for(SubmitRun)
    assert command.worker_id == "w-1"
    world.press(Key.Key_Escape)
    assert not world.dialog.isVisible()
    assert world.presenter.snapshot.is_sending


def test_enter_in_the_server_field_signs_in(world: World) -> None:
    edit = world.find(QLineEdit, "serverEdit")
    edit.setFocus()
    world.qtbot.keyClicks(edit, "lab.example:8080")
    world.press(Key.Key_Return)
    assert world.presenter.snapshot.lab is Lab.INSIDE
    assert world.host.asked_for(Connect) == []
    assert world.pressed == []


def test_a_known_lab_is_two_keys_away(qtbot: QtBot) -> None:
    rooms = [
        RoomRow(room_id="room-a", server=SERVER, last_used=1.7e9),
        RoomRow(room_id="room-b", server="http://other:8080"),
    ]
    world = World(qtbot, *rooms)
    combo = world.find(QComboBox, "knownLabsCombo")
    assert combo.count() == 2
    combo.setFocus()
    world.press(Key.Key_Down, Key.Key_Return)
    assert world.presenter.snapshot.room.room_id == "room-b"


def test_the_last_lab_and_worker_are_there_when_the_dialog_opens(qtbot: QtBot) -> None:
    room = RoomRow(room_id="room-a", server=SERVER)
    world = World(qtbot, room, last_room_id="room-a", last_worker="w-2")
    world.host.tell_workers(*WORKERS)
    world.settle()
    assert world.selected() == ["w-2"]
    assert not world.is_seen("labForm")


def test_a_lab_can_be_left_and_kept(world: World) -> None:
    world.connect()
    assert world.is_seen("changeButton")
    world.click("changeButton")
    assert world.is_seen("labForm")
    assert world.dialog.focusWidget() is world.find(QComboBox, "knownLabsCombo")
    world.click("keepButton")
    assert not world.is_seen("labForm")
    assert world.dialog.focusWidget() is world.table
    world.click("changeButton")
    world.click("leaveButton")
    assert world.presenter.snapshot.lab is Lab.OUTSIDE
    assert not world.is_seen("connectedRow")


def test_known_labs_can_be_forgotten(qtbot: QtBot) -> None:
    world = World(qtbot, RoomRow(room_id="room-a", server=SERVER))
    assert world.is_seen("knownLabsCombo")
    world.click("forgetButton")
    assert not world.is_seen("knownLabsCombo")


def test_the_workers_own_videos_are_the_users_choice(world: World) -> None:
    box = world.find(QAbstractButton, "workerVideosBox")
    assert box.isChecked()
    world.qtbot.mouseClick(box, Qt.MouseButton.LeftButton)
    world.settle()
    assert world.presenter.snapshot.uses_worker_videos is False
    assert not box.isChecked()


def test_the_address_is_hidden_where_the_user_wants_it(world: World) -> None:
    box = world.find(QAbstractButton, "relayOnlyBox")
    assert not box.isChecked()
    assert "slower" in box.toolTip()
    box.setFocus()
    world.press(Key.Key_Space)
    assert world.presenter.snapshot.is_relay_only
    assert box.isChecked()
    world.press(Key.Key_Space)
    assert not world.presenter.snapshot.is_relay_only


@pytest.mark.parametrize("forced", [True, False])
def test_what_the_environment_says_of_the_address_is_shown(
    qtbot: QtBot, forced: bool
) -> None:
    world = World(qtbot, relay_only=not forced, forced_relay_only=forced)
    box = world.find(QAbstractButton, "relayOnlyBox")
    assert (box.isChecked(), box.isEnabled()) == (forced, False)
    assert RELAY_ONLY_VARIABLE in box.toolTip()


def test_remember_is_the_users_choice(world: World) -> None:
    world.qtbot.mouseClick(
        world.find(QAbstractButton, "rememberBox"), Qt.MouseButton.LeftButton
    )
    assert world.presenter.snapshot.remembers is False


# -- secrets ---------------------------------------------------------------------------


def test_the_session_string_is_hidden_and_does_not_stay(world: World) -> None:
    edit = world.find(QLineEdit, "sessionEdit")
    assert edit.echoMode() is QLineEdit.EchoMode.Password
    world.click("revealButton")
    assert edit.echoMode() is QLineEdit.EchoMode.Normal
    edit.setText(make_session())
    world.click("connectButton")
    assert edit.text() == ""
    assert edit.echoMode() is QLineEdit.EchoMode.Password


def test_a_new_labs_session_is_shown_once_with_the_command(world: World) -> None:
    world.presenter.sign_in(SERVER)
    world.settle()
    command = f"sleap-remote worker --session {make_session('room-new')}"
    assert world.find(QLineEdit, "workerCommandEdit").text() == command
    world.click("copyCommandButton")
    assert QGuiApplication.clipboard().text() == command
    world.click("copySessionButton")
    assert QGuiApplication.clipboard().text() == make_session("room-new")
    world.click("newLabDoneButton")
    assert not world.is_seen("newLabPanel")
    assert world.find(QLineEdit, "workerCommandEdit").text() == ""


# -- sending ---------------------------------------------------------------------------


def test_a_package_on_its_way_shows_how_far_it_is(world: World) -> None:
    world.sending()
    bar = world.find(QProgressBar, "transferProgress")
    assert world.is_seen("transferProgress")
    assert (bar.minimum(), bar.maximum()) == (0, 0)
    world.host.on_event(
        PackageProgress(job_id=world.job_id, phase="embedding", done=6, total=24)
    )
    world.settle()
    assert bar.value() == PROGRESS_STEPS // 4
    assert "6 of 24" in world.find(QLabel, "progressLabel").text()
    world.transfer(100_000_000)
    world.settle()
    assert bar.value() == PROGRESS_STEPS // 5
    assert world.find(QLabel, "progressLabel").text() == (
        "Sending… 100 MB of 500 MB, 8.1 MB/s, 45 s left, 30.0 MB were there already"
    )
    assert not world.find(QPushButton, "runRemotelyButton").isEnabled()
    assert not world.find(QPushButton, "configureButton").isEnabled()
    world.host.tell_job(world.job_id, "running")
    world.settle()
    assert not world.is_seen("transferProgress")
    assert world.status == (
        "gpu-1 is training; the monitor opens by itself. You can close this window."
    )
    assert world.find(QLabel, "planLabel").text() == "Nothing configured yet"
    world.click("jobsButton")
    assert world.pressed == ["jobs"]


def test_cancelling(world: World) -> None:
    world.sending()
    world.transfer(1)
    world.settle()
    world.click("cancelButton")
    assert "cancelled" in world.status
    assert not world.is_seen("transferProgress")
    assert world.find(QPushButton, "runRemotelyButton").isEnabled()


def test_a_storm_of_progress_is_drawn_ten_times_a_second(world: World) -> None:
    world.sending()
    drawn: list[bool] = []
    label = world.find(QLabel, "progressLabel")
    bar = world.find(QProgressBar, "transferProgress")
    bar.valueChanged.connect(lambda: drawn.append(True))
    for done in range(0, 500_000_000, 100_000):
        world.transfer(done)
    world.settle()
    assert len(drawn) <= 2
    assert "500 MB of 500 MB" in label.text()


def test_problems_are_seen_and_go_away(world: World) -> None:
    world.host.answer(Connect, RoomGone(server=SERVER))
    world.presenter.connect(make_session())
    world.settle()
    assert "no longer exists" in world.status
    assert world.is_seen("statusIcon")
    world.connect()
    assert not world.is_seen("statusIcon")
    world.host.on_event(
        RoomChanged(
            state="offline",
            room=RoomRow(room_id="room-1", server=SERVER),
            reason="It is gone.",
        )
    )
    world.settle()
    assert world.status == (
        "The connection to the lab was lost; trying again. It is gone."
    )
    assert not world.find(QPushButton, "jobsButton").isEnabled()


# -- the companion ---------------------------------------------------------------------


def test_a_restarted_companion_is_mentioned(world: World) -> None:
    world.sending()
    world.host.die()
    world.settle()
    assert "was started again" in world.status
    assert world.is_seen("transferProgress")


def test_a_dead_companion_leaves_one_way_on(world: World) -> None:
    world.connect()
    world.presenter.configure(make_run())
    world.presenter.choose_worker("w-1")
    assert not world.is_seen("startAgainButton")
    world.host.die_for_good()
    world.settle()
    assert world.status == COMPANION_DEAD
    for name in ("runRemotelyButton", "configureButton", "jobsButton", "changeButton"):
        assert not world.find(QPushButton, name).isEnabled()
    assert world.selected() == ["w-1"]
    world.click("startAgainButton")
    assert world.pressed == ["start again"]
    world.presenter.replace_host(world.host)
    world.settle()
    assert not world.is_seen("startAgainButton")


# -- manners ---------------------------------------------------------------------------

STATES = {
    "outside": lambda world: None,
    "inside": lambda world: world.connect(),
    "choosing": lambda world: (world.connect(), world.presenter.choose_lab()),
    "new lab": lambda world: world.presenter.sign_in(SERVER),
    "ways to sign in": at_door,
    "a code": with_code,
    "labs of an account": signed_in,
    "a lab without its key": lambda world: (signed_in(world), choose_keyless(world)),
    "sending": lambda world: world.sending(),
    "dead": lambda world: (world.connect(), world.host.die_for_good()),
}


@pytest.fixture(params=STATES)
def state(qtbot: QtBot, request: pytest.FixtureRequest) -> World:
    world = World(qtbot, RoomRow(room_id="room-a", server=SERVER))
    STATES[request.param](world)
    world.settle()
    return world


def test_mnemonics_are_each_used_once(state: World) -> None:
    texts = [
        widget.title() if isinstance(widget, QGroupBox) else widget.text()
        for widget in state.dialog.findChildren(QWidget)
        if isinstance(widget, QAbstractButton | QGroupBox | QLabel)
        and widget.isVisibleTo(state.dialog)
        and not (isinstance(widget, QLabel) and widget.buddy() is None)
    ]
    used = [key.lower() for text in texts for key in re.findall(r"&(\w)", text)]
    assert len(used) == len(set(used)) > 2


def test_everything_has_a_name_of_its_own(state: World) -> None:
    ours = (QAbstractButton, QLineEdit, QComboBox, QLabel, QProgressBar, QGroupBox)
    widgets = [
        widget
        for widget in state.dialog.findChildren(QWidget)
        if isinstance(widget, ours) and not widget.objectName().startswith("qt_")
    ]
    names = [
        widget.objectName()
        for widget in widgets
        if not isinstance(widget.parent(), QComboBox | QLineEdit)
        and widget.parent() is not state.table
    ]
    assert all(names), [w for w in widgets if not w.objectName()]
    assert len(names) == len(set(names))


def test_everything_that_takes_the_keyboard_can_be_read_aloud(state: World) -> None:
    for widget in state.dialog.findChildren(QWidget):
        if widget.focusPolicy() & Qt.FocusPolicy.TabFocus and widget.isVisibleTo(
            state.dialog
        ):
            words = widget.accessibleName() or (
                widget.text() if isinstance(widget, QAbstractButton) else ""
            )
            if not isinstance(widget, QGroupBox) and widget.objectName():
                assert words, widget.objectName()


def test_tab_walks_from_top_to_bottom(state: World) -> None:
    first = state.dialog.focusWidget()
    assert first is not None
    seen: list[QWidget] = []
    widget = first
    while widget not in seen:
        seen.append(widget)
        state.qtbot.keyClick(widget, Key.Key_Tab)
        widget = state.dialog.focusWidget()
        assert widget is not None
    tops = [w.mapTo(state.dialog, QPoint(0, 0)).y() for w in seen]
    start = tops.index(min(tops))
    walk = tops[start:] + tops[:start]
    slack = 8  # buttons of one row are not equally high
    assert all(a <= b + slack for a, b in itertools.pairwise(walk)), walk
    assert len(seen) > 2


def test_it_fits_a_small_screen(state: World) -> None:
    assert state.dialog.minimumSizeHint().width() <= 640
    assert state.dialog.minimumSizeHint().height() <= 480
    assert not state.dialog.isModal()


def test_a_dialog_that_is_gone_hears_nothing_more(world: World) -> None:
    gone = weakref.ref(world.dialog)
    dialog = RemoteTrainingDialog(
        world.presenter,
        on_configure=lambda: None,
        on_jobs=lambda: None,
        on_models=lambda: None,
        on_start_again=lambda: None,
    )
    watchers = len(world.presenter._watchers)
    dialog.deleteLater()
    world.qtbot.waitUntil(lambda: len(world.presenter._watchers) == watchers - 1)
    del dialog
    gc.collect()
    world.connect()
    assert gone() is world.dialog
