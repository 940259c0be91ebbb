"""Session strings in a keyring and in files, whatever is wrong with either."""

import asyncio
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.backends.chainer import ChainerBackend
from keyring.backends.fail import Keyring as FailKeyring
from keyring.backends.null import Keyring as NullKeyring
from keyring.errors import KeyringLocked, PasswordDeleteError

from sleap_rtc_plugin.protocol.errors import StorageFailed
from sleap_rtc_plugin.protocol.session_string import Session
from sleap_rtc_plugin.session import credentials as module
from sleap_rtc_plugin.session import secret_store
from sleap_rtc_plugin.session.credentials import CredentialStore
from sleap_rtc_plugin.session.secret_store import SERVICE
from sleap_rtc_plugin.session.settings import (
    CONFIG_DIR_VARIABLE,
    MAX_ROOMS,
    RememberedRoom,
    Settings,
)

SERVER = "https://lab.example:8001"
ROOM = "room-a"
TOKEN = "a-token"
posix_only = pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")


def session(room_id: str = ROOM, token: str = TOKEN) -> str:
    return Session(
        url=SERVER, room_id=room_id, token=token, peer_id="worker-a", secret=b"s" * 32
    ).encode()


def room(room_id: str = ROOM, last_used: float = 1.0) -> RememberedRoom:
    return RememberedRoom(room_id=room_id, server=SERVER, last_used=last_used)


class MemoryKeyring(KeyringBackend):
    """A keyring that works, with the limit of Windows if it is told so."""

    priority = 5  # type: ignore[assignment]

    def __init__(self, limit_bytes: int | None = None) -> None:
        super().__init__()
        self.kept: dict[tuple[str, str], str] = {}
        self._limit_bytes = limit_bytes

    def set_password(self, service: str, username: str, password: str) -> None:
        size = len(password.encode("utf-16-le"))
        if self._limit_bytes is not None and size > self._limit_bytes:
            raise OSError(1783, "CredWrite", "The stub received bad data.")
        self.kept[service, username] = password

    def get_password(self, service: str, username: str) -> str | None:
        return self.kept.get((service, username))

    def delete_password(self, service: str, username: str) -> None:
        if (service, username) not in self.kept:
            raise PasswordDeleteError("there is none")
        del self.kept[service, username]


class LockedKeyring(MemoryKeyring):
    """The user does not unlock it."""

    def set_password(self, service: str, username: str, password: str) -> None:
        raise KeyringLocked("locked")

    def get_password(self, service: str, username: str) -> str | None:
        raise KeyringLocked("locked")


class ForgetfulKeyring(MemoryKeyring):
    """It keeps a part of what it is given, and says nothing."""

    def set_password(self, service: str, username: str, password: str) -> None:
        super().set_password(service, username, password[:20])


class StubbornKeyring(MemoryKeyring):
    """It removes nothing, and says nothing."""

    def delete_password(self, service: str, username: str) -> None:
        pass


class WaitingKeyring(MemoryKeyring):
    """It asks the user something and waits for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.is_asked = threading.Event()
        self.let_go = threading.Event()

    def get_password(self, service: str, username: str) -> str | None:
        self.asked += 1
        self.is_asked.set()
        self.let_go.wait()
        return None

    def set_password(self, service: str, username: str, password: str) -> None:
        self.get_password(service, username)


class PlainKeyring(MemoryKeyring):
    """Of the package that keeps passwords in plain text."""


PlainKeyring.__module__ = "keyrings.alt.file"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own configuration folder, in which nothing is forced."""
    own = tmp_path / "config"
    monkeypatch.delenv(CONFIG_DIR_VARIABLE, raising=False)
    monkeypatch.setattr(module, "config_folder", lambda: own)
    return own


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Any:
    def use(backend: KeyringBackend) -> KeyringBackend:
        monkeypatch.setattr(keyring, "get_keyring", lambda: backend)
        return backend

    return use


def secret_file(folder: Path, room_id: str = ROOM) -> Path:
    return folder / "sessions" / f"room-{room_id}.txt"


async def check_round_trip(store: CredentialStore) -> None:
    assert await store.load(ROOM) is None
    await store.remember(room(), session(token="old"))
    await store.remember(room(last_used=2.0), session())
    assert await store.load(ROOM) == session()
    assert await store.rooms() == [room(last_used=2.0)]
    await store.forget(ROOM)
    assert await store.load(ROOM) is None
    assert await store.rooms() == []


async def test_in_the_keyring(use: Any, folder: Path) -> None:
    backend = use(MemoryKeyring())
    store = CredentialStore()
    await check_round_trip(store)
    await store.remember(room(), session())
    assert backend.kept == {(SERVICE, ROOM): session()}
    assert not secret_file(folder).exists()
    assert TOKEN not in (folder / "settings.json").read_text()
    assert session() not in (folder / "settings.json").read_text()
    assert "keyring" in await store.place()


@pytest.mark.parametrize(
    "backend",
    [FailKeyring, NullKeyring, LockedKeyring, ForgetfulKeyring, PlainKeyring],
)
async def test_without_a_keyring_that_works(
    use: Any, folder: Path, backend: type[KeyringBackend]
) -> None:
    use(backend())
    store = CredentialStore()
    await check_round_trip(store)
    await store.remember(room(), session())
    assert secret_file(folder).read_text() == session()
    if backend in (FailKeyring, NullKeyring, PlainKeyring):
        assert str(folder / "sessions") in await store.place()


async def test_keyring_is_not_installed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "keyring", None)
    await check_round_trip(CredentialStore())


async def test_the_first_of_a_chain_that_keeps_secrets(
    use: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = MemoryKeyring()
    chain = [PlainKeyring(), NullKeyring(), good]
    monkeypatch.setattr(ChainerBackend, "backends", chain)
    use(ChainerBackend())
    await CredentialStore().remember(room(), session())
    assert good.kept == {(SERVICE, ROOM): session()}
    monkeypatch.setattr(ChainerBackend, "backends", [])
    assert "no keyring" in await CredentialStore().place()


async def test_too_long_for_the_keyring(use: Any, folder: Path) -> None:
    backend = use(MemoryKeyring(limit_bytes=2560))
    store = CredentialStore()
    await store.remember(room(), session())
    assert not secret_file(folder).exists()
    longer = session(token="t" * 2000)
    await store.remember(room(), longer)
    assert await store.load(ROOM) == longer
    assert backend.kept == {}  # the older one would come back from there
    await store.remember(room(), session())
    assert await store.load(ROOM) == session()
    assert not secret_file(folder).exists()


async def test_a_keyring_that_waits_for_ever(
    use: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = use(WaitingKeyring())
    monkeypatch.setattr(secret_store, "KEYRING_TIMEOUT_S", 0.05)
    store = CredentialStore()
    try:
        await check_round_trip(store)
        assert backend.asked == 1
    finally:
        backend.let_go.set()


async def test_the_loop_turns_while_the_keyring_waits(use: Any) -> None:
    backend = use(WaitingKeyring())
    loading = asyncio.ensure_future(CredentialStore().load(ROOM))
    assert await asyncio.to_thread(backend.is_asked.wait, 10)
    assert not loading.done()
    backend.let_go.set()
    assert await loading is None


async def test_a_keyring_that_does_not_forget(use: Any) -> None:
    use(StubbornKeyring())
    store = CredentialStore()
    await store.remember(room(), session())
    with pytest.raises(StorageFailed, match="keyring"):
        await store.forget(ROOM)
    assert await store.rooms() == [room()]


async def test_rubbish_in_the_keyring(use: Any) -> None:
    backend = use(MemoryKeyring())
    store = CredentialStore()
    for rubbish in ("", "x", session("room-other")):
        backend.kept[SERVICE, ROOM] = rubbish
        assert await store.load(ROOM) is None


async def test_a_forced_folder_leaves_the_keyring_alone(
    use: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = use(MemoryKeyring())
    await CredentialStore(tmp_path / "forced").remember(room(), session())
    assert secret_file(tmp_path / "forced").exists()
    monkeypatch.setenv(CONFIG_DIR_VARIABLE, "anything")
    store = CredentialStore()
    await check_round_trip(store)
    assert backend.kept == {}


# -- files ---------------------------------------------------------------------------


@pytest.fixture
def store(folder: Path) -> Iterator[CredentialStore]:
    return CredentialStore(folder)


@posix_only
async def test_files_are_private(store: CredentialStore, folder: Path) -> None:
    (folder / "sessions").mkdir(parents=True, mode=0o755)
    await store.remember(room(), session())
    assert stat.S_IMODE((folder / "sessions").stat().st_mode) == 0o700
    assert stat.S_IMODE(secret_file(folder).stat().st_mode) == 0o600


@posix_only
async def test_a_file_that_is_open_to_others_is_closed(
    store: CredentialStore, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await store.remember(room(), session())
    secret_file(folder).chmod(0o644)
    assert await store.load(ROOM) == session()
    assert stat.S_IMODE(secret_file(folder).stat().st_mode) == 0o600
    assert "open to others" in caplog.text
    assert session() not in caplog.text


@posix_only
async def test_a_file_of_another_user_is_not_read(
    store: CredentialStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.remember(room(), session())
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert await store.load(ROOM) is None
    assert secret_file(folder).exists()


@posix_only
@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
async def test_what_is_no_plain_file_is_not_read(
    store: CredentialStore, folder: Path, tmp_path: Path, kind: str
) -> None:
    (folder / "sessions").mkdir(parents=True)
    path = secret_file(folder)
    if kind == "link":
        (tmp_path / "elsewhere").write_text(session())
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    assert await store.load(ROOM) is None


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"x" * 20_000, b"sleap-session:"])
async def test_a_broken_file_is_put_aside(
    store: CredentialStore, folder: Path, data: bytes
) -> None:
    await store.remember(room(), session())
    secret_file(folder).write_bytes(data)
    assert await store.load(ROOM) is None
    assert secret_file(folder).with_suffix(".broken").read_bytes() == data
    await store.remember(room(), session())
    assert await store.load(ROOM) == session()


async def test_a_disk_that_takes_nothing(store: CredentialStore, folder: Path) -> None:
    folder.mkdir()
    (folder / "sessions").write_text("a file where a folder should be")
    with pytest.raises(StorageFailed):
        await store.remember(room(), session())
    assert await store.rooms() == []


@pytest.mark.parametrize("room_id", ["", "../x", "a/b", "A", "x" * 65])
async def test_ids_that_are_none(store: CredentialStore, room_id: str) -> None:
    for call in (store.load, store.forget):
        with pytest.raises(ValueError, match="not the id"):
            await call(room_id)
    with pytest.raises(ValueError, match="not the id"):
        await store.remember(room(room_id), session())


async def test_the_oldest_room_gives_way(store: CredentialStore, folder: Path) -> None:
    for number in range(MAX_ROOMS + 1):
        name = f"room-{number}"
        await store.remember(room(name, float(number)), session(name))
    ids = [one.room_id for one in await store.rooms()]
    assert ids == [f"room-{n}" for n in range(MAX_ROOMS, 0, -1)]
    assert not secret_file(folder, "room-0").exists()
    assert secret_file(folder, "room-1").exists()


async def test_other_settings_stay(store: CredentialStore, folder: Path) -> None:
    settings = Settings.load(folder)
    settings.last_worker = "worker-a"
    settings.save()
    await store.remember(room(), session())
    loaded = Settings.load(folder)
    assert loaded.last_worker == "worker-a"
    assert loaded.rooms == [room()]
