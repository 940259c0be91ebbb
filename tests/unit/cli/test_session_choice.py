"""Which session a command goes by: a string, a room, or both where both make sense."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from sleap_rtc_plugin.cli.session_choice import SessionChoice, session_option
from sleap_rtc_plugin.protocol.account_messages import Account
from sleap_rtc_plugin.protocol.errors import RoomNotKnown, SessionStringInvalid
from sleap_rtc_plugin.protocol.session_string import Session
from sleap_rtc_plugin.session.accounts import SignedInAccounts
from sleap_rtc_plugin.session.credentials import CredentialStore
from sleap_rtc_plugin.session.known_rooms import keep_session
from sleap_rtc_plugin.session.settings import CONFIG_DIR_VARIABLE, Settings

SERVER = "https://lab.example"
SESSION = Session(
    url=SERVER, room_id="room-1", token="t", peer_id="worker-a", secret=b"s" * 32
)
TEXT = SESSION.encode()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CONFIG_DIR_VARIABLE, str(tmp_path))
    return tmp_path


async def sign_in(folder: Path) -> None:
    account = Account(account_id="a", token="t", expires_at=9e12)
    await SignedInAccounts(folder).keep(SERVER, account)


async def kept(folder: Path) -> str | None:
    return await CredentialStore(folder).load("room-1")


def given(*words: str, environment: str | None = None) -> SessionChoice:
    """Return what a command is given."""
    found: list[SessionChoice] = []

    @click.command()
    @session_option
    def command(session: SessionChoice) -> None:
        found.append(session)

    variables = {"SLEAP_SESSION": environment}
    result = CliRunner().invoke(command, list(words), env=variables)
    assert result.exit_code == 0, result.output
    return found[0]


def test_what_is_given() -> None:
    assert not given()
    assert given("--session", TEXT) == SessionChoice(TEXT, None, False)
    assert given(environment=TEXT) == SessionChoice(TEXT, None, True)
    assert given("--room", "Flies", environment=TEXT) == SessionChoice(
        TEXT, "Flies", True
    )
    assert TEXT not in repr(given("--session", TEXT))


async def test_a_string_is_used_as_it_is(folder: Path) -> None:
    assert await SessionChoice(TEXT).find() == SESSION
    # Who never signed in has nothing kept behind their back.
    assert list(folder.iterdir()) == []
    with pytest.raises(SessionStringInvalid):
        await SessionChoice("rubbish").find()
    with pytest.raises(click.UsageError, match="--session"):
        await SessionChoice().find()


async def test_a_string_is_kept_where_the_user_is_signed_in(folder: Path) -> None:
    await sign_in(folder)
    await SessionChoice(TEXT).find()
    assert await kept(folder) == TEXT
    assert await SessionChoice(None, "room-1").find() == SESSION


async def test_nothing_is_kept_where_the_user_wants_nothing_kept(
    folder: Path,
) -> None:
    await sign_in(folder)
    settings = Settings.load(folder)
    settings.remember = False
    settings.save()
    await SessionChoice(TEXT).find()
    assert await kept(folder) is None


async def test_a_room_goes_before_the_environment(folder: Path) -> None:
    other = Session(
        url=SERVER, room_id="room-2", token="t", peer_id="worker-a", secret=b"s" * 32
    )
    await keep_session(other, CredentialStore(folder), is_asked_for=True)
    assert await SessionChoice(TEXT, "room-2", True).find() == other
    with pytest.raises(click.UsageError, match="not both"):
        await SessionChoice(TEXT, "room-2").find()
    with pytest.raises(RoomNotKnown):
        await SessionChoice(None, "room-3").find()


def test_what_a_room_means_where_models_have_a_store_of_their_own() -> None:
    room = SessionChoice(None, "flies")
    assert room.beside_store() == (room, None)
    assert room.beside_store("s3://models") == (SessionChoice(), "flies")
    both = SessionChoice(TEXT, "flies", True)
    assert both.beside_store() == (SessionChoice(TEXT, None, True), "flies")
    string = SessionChoice(TEXT)
    assert string.beside_store("s3://models") == (string, None)
