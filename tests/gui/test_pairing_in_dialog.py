"""A worker's pairing code in the dialog, in the field of session strings."""

from collections.abc import Iterator

import pytest
from pytestqt.qtbot import QtBot
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLineEdit
from support.dialog_world import World
from support.scripted_host import SERVER, make_session

from sleap_rtc_plugin.companion.messages import Connect, Pair
from sleap_rtc_plugin.gui.snapshot import Lab
from sleap_rtc_plugin.protocol.errors import PairingFailed, PairingRefused

CODE = "7-copper-otter-lagoon"


@pytest.fixture
def world(qtbot: QtBot) -> Iterator[World]:
    world = World(qtbot)
    yield world
    world.dialog.close()


def type_in(world: World, code: str, server: str = SERVER) -> None:
    world.find(QLineEdit, "sessionEdit").setText(code)
    world.find(QLineEdit, "serverEdit").setText(server)


def test_a_code_and_its_server_lead_in(world: World) -> None:
    type_in(world, f" {CODE} ")
    world.click("connectButton")
    (command,) = world.host.asked_for(Pair)
    assert (command.server, command.code.strip()) == (SERVER, CODE)
    assert world.presenter.snapshot.lab is Lab.INSIDE
    assert world.find(QLineEdit, "sessionEdit").text() == ""


def test_enter_in_the_field_is_enough(world: World) -> None:
    type_in(world, "7 copp otte lago", SERVER.removeprefix("http://"))
    field = world.find(QLineEdit, "sessionEdit")
    field.setFocus()
    world.qtbot.keyClick(field, Qt.Key.Key_Return)
    world.settle()
    (command,) = world.host.asked_for(Pair)
    assert command.server == SERVER


def test_a_code_without_a_server_says_what_is_missing(world: World) -> None:
    type_in(world, CODE, "")
    world.click("connectButton")
    assert "Type the server's address as well" in world.status
    assert world.host.asked_for(Pair) == []
    assert world.find(QLineEdit, "sessionEdit").text() == CODE


def test_a_slip_is_told_before_anybody_is_asked(world: World) -> None:
    type_in(world, "7-coper-otter-lagoon")
    world.click("connectButton")
    assert "copper is" in world.status
    assert world.host.asked_for(Pair) == []


@pytest.mark.parametrize(
    "error",
    [
        PairingRefused(reason="it was used, has expired, or never was"),
        PairingFailed(reason="the worker shows other words"),
    ],
)
def test_a_code_that_is_not_good_is_told(
    world: World, error: PairingRefused | PairingFailed
) -> None:
    world.host.answer(Pair, error)
    type_in(world, CODE)
    world.click("connectButton")
    assert error.reason in world.status
    assert world.presenter.snapshot.lab is Lab.OUTSIDE


def test_a_companion_that_comes_after_uses_what_was_handed_over(world: World) -> None:
    type_in(world, CODE)
    world.click("connectButton")
    assert world.presenter._way == Connect(
        session=make_session("room-paired"), remember=True
    )
