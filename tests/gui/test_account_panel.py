"""Signing in at a server in the dialog: ways, codes, labs, and invitations."""

from collections.abc import Iterator

import pytest
from pytestqt.qtbot import QtBot
from qtpy.QtCore import Qt, QUrl
from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import QComboBox, QLabel, QLineEdit, QProgressBar, QPushButton
from support.account_scenes import (
    ANONYMOUS,
    FLIES,
    GITHUB,
    MICE,
    UNI,
    at_door,
    choose_keyless,
    code,
    door,
    inside_door,
    signed_in,
    with_code,
)
from support.dialog_world import World
from support.scripted_host import SERVER, make_session

from sleap_rtc_plugin.companion.account_messages import (
    AcceptInvite,
    CancelSignIn,
    InvitationAccepted,
    OpenServer,
    ServerOpened,
    SignOut,
    StartSignIn,
)
from sleap_rtc_plugin.companion.messages import Connect, ConnectRemembered, SignIn
from sleap_rtc_plugin.gui.account_choices import OTHER_LAB
from sleap_rtc_plugin.gui.snapshot import Lab
from sleap_rtc_plugin.protocol.errors import (
    AccountsUnavailable,
    InvitationRefused,
    NotSignedIn,
    SignInRefused,
)
from sleap_rtc_plugin.protocol.invitation_code import InvitationCode

Key = Qt.Key
INVITATION = InvitationCode(
    url=SERVER, invitation_id="invitation-1", secret="s" * 22
).encode()


@pytest.fixture
def world(qtbot: QtBot) -> Iterator[World]:
    world = World(qtbot)
    yield world
    world.dialog.close()


def text_of(world: World, name: str) -> str:
    return str(world.find(QLabel, name).text())


# -- ways ----------------------------------------------------------------------------


def test_a_server_without_names_opens_a_lab_at_once(world: World) -> None:
    world.presenter.sign_in(SERVER)
    world.settle()
    assert len(world.host.asked_for(SignIn)) == 1
    assert not world.is_seen("accountPanel")
    assert world.presenter.snapshot.lab is Lab.INSIDE


def test_the_ways_of_a_server_are_buttons(world: World) -> None:
    at_door(world)
    world.settle()
    assert not world.is_seen("labForm")
    buttons = world.dialog.lab.account.way_buttons
    assert [button.text() for button in buttons] == [
        "GitHub",
        "R&&D University",
        "Without a name",
    ]
    assert world.dialog.focusWidget() is buttons[0]
    world.click("accountBackButton")
    assert world.is_seen("labForm")
    assert world.host.asked_for(CancelSignIn) == []


def test_the_only_way_is_taken(world: World) -> None:
    world.host.answer(OpenServer, ServerOpened(server=SERVER, ways=[GITHUB]))
    world.host.hold(StartSignIn)
    world.presenter.sign_in(SERVER)
    world.settle()
    (command,) = world.host.asked_for(StartSignIn)
    assert (command.server, command.method) == (SERVER, "github")


def test_a_server_that_cannot_be_asked(world: World) -> None:
    world.host.answer(
        OpenServer, AccountsUnavailable(server=SERVER, reason="no answer")
    )
    world.presenter.sign_in(SERVER)
    world.settle()
    assert "no answer" in world.status
    assert world.is_seen("labForm")


# -- the code ------------------------------------------------------------------------


def test_a_code_is_shown_large_to_copy_and_with_its_page(world: World) -> None:
    with_code(world)
    world.settle()
    label = world.find(QLabel, "signInCodeLabel")
    assert label.text() == "WDJB-MJHT"
    plain = world.find(QLabel, "accountLabel").font().pointSizeF()
    assert label.font().pointSizeF() >= 2 * plain
    assert text_of(world, "signInPageLabel") == "https://github.example/login/device"
    world.click("copyCodeButton")
    assert QGuiApplication.clipboard().text() == "WDJB-MJHT"
    opened: list[QUrl] = []
    world.dialog.lab.account._opens_page = opened.append  # type: ignore[assignment]
    world.click("openPageButton")
    assert [url.toString() for url in opened] == [code().page_with_code]


def test_the_time_that_is_left_runs_out(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_code(world)
    world.settle()
    bar = world.find(QProgressBar, "codeTimeBar")
    full = bar.value()
    assert full >= bar.maximum() - 1
    panel = world.dialog.lab.account
    expires_at = world.presenter.snapshot.account.code.expires_at
    monkeypatch.setattr(
        "sleap_rtc_plugin.gui.pages.account_panel.time.time", lambda: expires_at - 65.5
    )
    panel._tick()
    assert bar.value() == 65
    assert bar.text() == "1:05 left"


def test_signing_in_leads_to_the_labs(world: World) -> None:
    with_code(world)
    world.host.release(StartSignIn, inside_door())
    world.settle()
    assert not world.is_seen("codeBox")
    assert "as Ada Łovelace" in text_of(world, "accountLabel")
    combo = world.find(QComboBox, "accountRoomsCombo")
    rows = [combo.itemText(index) for index in range(combo.count())]
    assert rows == ["Flies (owner)", "Mice (guest), asks for its session string"]
    assert world.dialog.focusWidget() is combo
    world.press(Key.Key_Return)
    (command,) = world.host.asked_for(ConnectRemembered)
    assert command.room_id == "room-flies"
    assert world.presenter.snapshot.lab is Lab.INSIDE
    assert not world.is_seen("accountPanel")


def test_giving_up_is_no_problem(world: World) -> None:
    with_code(world)
    world.settle()
    world.click("accountBackButton")
    assert len(world.host.asked_for(CancelSignIn)) == 1
    refused = SignInRefused(server=SERVER, reason="it was given up")
    world.host.release(StartSignIn, refused)
    world.settle()
    assert "given up" not in world.status
    assert world.is_seen("labForm")


def test_a_refusal_leads_back_to_the_ways(world: World) -> None:
    with_code(world)
    world.host.release(StartSignIn, SignInRefused(server=SERVER, reason="denied"))
    world.settle()
    assert "denied" in world.status
    assert len(world.dialog.lab.account.way_buttons) == 3
    assert not world.is_seen("codeBox")


def test_a_code_that_comes_too_late_is_not_shown(world: World) -> None:
    with_code(world)
    world.presenter.accounts.close()
    world.host.on_event(code())
    world.settle()
    assert not world.is_seen("accountPanel")


def test_a_companion_that_ends_meanwhile(world: World) -> None:
    with_code(world)
    world.host.die()
    world.settle()
    assert world.is_seen("labForm")


# -- the labs ------------------------------------------------------------------------


def test_a_lab_without_its_key_asks_for_it_once(world: World) -> None:
    signed_in(world)
    choose_keyless(world)
    world.settle()
    assert "The key of Mice" in text_of(world, "roomSessionLabel")
    edit = world.find(QLineEdit, "roomSessionEdit")
    assert edit.echoMode() is QLineEdit.EchoMode.Password
    edit.setFocus()
    edit.setText("sleap-session:x")
    world.press(Key.Key_Return)
    assert "cannot be read" in world.status
    edit.setText(make_session("room-other"))
    world.press(Key.Key_Return)
    assert world.status == OTHER_LAB
    assert world.host.asked_for(Connect) == []
    edit.setText(make_session("room-mice"))
    world.press(Key.Key_Return)
    (command,) = world.host.asked_for(Connect)
    assert command.session == make_session("room-mice")
    assert edit.text() == ""


def test_back_leads_to_the_labs_again(world: World) -> None:
    signed_in(world)
    choose_keyless(world)
    world.settle()
    world.find(QLineEdit, "roomSessionEdit").setText("something")
    world.click("accountBackButton")
    assert world.is_seen("accountRooms")
    assert world.find(QLineEdit, "roomSessionEdit").text() == ""
    world.click("accountBackButton")
    assert world.is_seen("labForm")


def test_a_new_lab_belongs_to_the_account(world: World) -> None:
    signed_in(world)
    world.settle()
    world.click("newLabButton")
    assert len(world.host.asked_for(SignIn)) == 1
    assert world.is_seen("newLabPanel")


def test_signing_out(world: World) -> None:
    signed_in(world)
    world.settle()
    world.click("signOutButton")
    (command,) = world.host.asked_for(SignOut)
    assert command.server == SERVER
    assert world.is_seen("labForm")


def test_hostile_names_are_plain_and_short(world: World) -> None:
    name = "<b>\u202eevil</b>\n" + "x" * 5000
    answer = inside_door(
        FLIES.__class__(room_id="room-1", server=SERVER, name=name, role="owner")
    )
    world.host.answer(OpenServer, answer)
    world.presenter.sign_in(SERVER)
    world.settle()
    text = world.find(QComboBox, "accountRoomsCombo").itemText(0)
    assert "\u202e" not in text
    assert "\n" not in text
    assert len(text) < 200


# -- invitations ---------------------------------------------------------------------


def paste(world: World, text: str) -> None:
    world.find(QLineEdit, "sessionEdit").setText(text)
    world.click("connectButton")


def test_an_invitation_goes_where_session_strings_go(world: World) -> None:
    world.host.answer(AcceptInvite, InvitationAccepted(room=MICE))
    world.host.answer(OpenServer, inside_door())
    paste(world, f" {INVITATION}\n")
    (command,) = world.host.asked_for(AcceptInvite)
    assert command.code == INVITATION
    assert "The key of Mice" in text_of(world, "roomSessionLabel")
    assert world.find(QLineEdit, "sessionEdit").text() == ""


def test_an_invitation_to_a_lab_whose_key_is_here_leads_in(world: World) -> None:
    world.host.answer(AcceptInvite, InvitationAccepted(room=FLIES))
    paste(world, INVITATION)
    (command,) = world.host.asked_for(ConnectRemembered)
    assert command.room_id == FLIES.room_id


def test_an_invitation_waits_for_the_sign_in(world: World) -> None:
    world.host.answer(
        AcceptInvite, NotSignedIn(server=SERVER), InvitationAccepted(room=MICE)
    )
    world.host.answer(OpenServer, door(), inside_door())
    world.host.answer(StartSignIn, inside_door(FLIES))
    paste(world, INVITATION)
    names = [way.name for way in (GITHUB, UNI, ANONYMOUS)]
    assert [way.name for way in world.presenter.snapshot.account.ways] == names
    world.qtbot.mouseClick(
        world.find(QPushButton, "signInWay-github"), Qt.MouseButton.LeftButton
    )
    world.settle()
    assert len(world.host.asked_for(AcceptInvite)) == 2
    assert "The key of Mice" in text_of(world, "roomSessionLabel")


def test_an_invitation_that_is_not_good(world: World) -> None:
    world.host.answer(
        AcceptInvite, InvitationRefused(server=SERVER, reason="it was used")
    )
    paste(world, INVITATION)
    assert "it was used" in world.status
    assert world.is_seen("labForm")
    paste(world, INVITATION[:-4])
    assert "cannot be read" in world.status
    assert len(world.host.asked_for(AcceptInvite)) == 1
