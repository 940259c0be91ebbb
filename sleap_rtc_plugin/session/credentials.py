"""Remembers session strings: in the system keyring, or in private files of our own.

A session string opens a room, so it is never logged. The rooms themselves are listed
in the settings, without secrets. Called by the companion; a keyring may ask the user to
unlock it and take its time, so it is only ever asked in a thread, and given up on.
"""

import asyncio
import contextlib
import logging
import os
import stat
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from sleap_rtc_plugin.protocol.errors import (
    RtcError,
    SessionStringInvalid,
    StorageFailed,
)
from sleap_rtc_plugin.protocol.ids import is_id
from sleap_rtc_plugin.protocol.limits import MAX_SESSION_STRING_CHARS
from sleap_rtc_plugin.protocol.session_string import Session
from sleap_rtc_plugin.session.settings import (
    CONFIG_DIR_VARIABLE,
    MAX_ROOMS,
    RememberedRoom,
    Settings,
    change_rooms,
    config_folder,
    replace_file,
)
from sleap_rtc_plugin.transport.effects import storage_error

__all__ = ["SERVICE", "CredentialStore", "in_daemon_thread", "usable_backend"]

logger = logging.getLogger(__name__)

SERVICE: Final = "sleap-remote"
# As long as a person may take to find the password of a locked keyring.
KEYRING_TIMEOUT_S: Final = 60.0
# These keep nothing, keep it readable for everybody, or ask on a terminal.
_REFUSED_BACKENDS: Final = ("keyring.backends.fail", "keyring.backends.null")
_REFUSED_PACKAGE: Final = "keyrings.alt"
_CHAIN: Final = "keyring.backends.chainer"
_PRIVATE_FILE: Final = 0o600
_PRIVATE_FOLDER: Final = 0o700

T = TypeVar("T")


class Room(Protocol):
    """What is remembered of a room without its secret."""

    @property
    def room_id(self) -> str:
        """The room."""

    @property
    def server(self) -> str:
        """Its signaling server."""

    @property
    def last_used(self) -> float:
        """When it was entered last, in Unix seconds."""


class CredentialStore:
    """The remembered rooms and their session strings."""

    def __init__(self, folder: Path | None = None) -> None:
        """Keep everything in `folder`, if one is given, and nothing in the keyring."""
        self._folder = folder or config_folder()
        self._files = _SecretFiles(self._folder / "sessions")
        is_forced = folder is not None or bool(os.environ.get(CONFIG_DIR_VARIABLE))
        self._keyring = None if is_forced else _Keyring()

    async def place(self) -> str:
        """Return the sentence that says where session strings are kept."""
        if await self._ask_keyring(_Keyring.is_usable, otherwise=False):
            return "Session strings are kept in this computer's keyring."
        return (
            "Session strings are kept in files that only you can read, in "
            f"{self._files.folder}, since no keyring can be used here."
        )

    async def rooms(self) -> list[RememberedRoom]:
        """Return the remembered rooms, the last used first."""
        settings = await asyncio.to_thread(Settings.load, self._folder)
        return sorted(settings.rooms, key=lambda room: room.last_used, reverse=True)

    async def remember(self, room: Room, session: str) -> None:
        """Keep the session string of a room, in place of an earlier one.

        Raises:
            StorageFailed, DiskFull: neither keyring nor file takes it.
        """
        room_id = _checked(room.room_id)
        is_kept = await self._ask_keyring(
            lambda keyring: keyring.keep(room_id, session), otherwise=False
        )
        if is_kept:
            await asyncio.to_thread(self._files.erase, room_id)
        else:
            await asyncio.to_thread(self._files.keep, room_id, session)
        entry = RememberedRoom(
            room_id=room_id, server=room.server, last_used=room.last_used
        )
        for forgotten in await asyncio.to_thread(self._list_room, entry):
            await self._erase(forgotten.room_id)

    async def load(self, room_id: str) -> str | None:
        """Return the session string of a room, or None where there is none."""
        _checked(room_id)
        # A file is there only where the keyring did not take the newest one.
        found = await asyncio.to_thread(self._files.find, room_id)
        if found is not None:
            return found
        found = await self._ask_keyring(
            lambda keyring: keyring.find(room_id), otherwise=None
        )
        is_sound = found is not None and _is_session_of(room_id, found)
        return found if is_sound else None

    async def forget(self, room_id: str) -> None:
        """Remove a room and its session string.

        Raises:
            StorageFailed: the session string is still there.
        """
        _checked(room_id)
        await self._erase(room_id)
        await asyncio.to_thread(
            change_rooms,
            self._folder,
            lambda rooms: [room for room in rooms if room.room_id != room_id],
        )

    async def _erase(self, room_id: str) -> None:
        await asyncio.to_thread(self._files.erase, room_id)
        is_gone = await self._ask_keyring(
            lambda keyring: keyring.erase(room_id), otherwise=True
        )
        if not is_gone:
            raise StorageFailed(
                place="The keyring", reason="it did not remove the session string"
            )

    def _list_room(self, room: RememberedRoom) -> list[RememberedRoom]:
        """Put a room first; return those for which there was no place any more."""
        forgotten: list[RememberedRoom] = []

        def change(rooms: list[RememberedRoom]) -> list[RememberedRoom]:
            others = [one for one in rooms if one.room_id != room.room_id]
            others.sort(key=lambda one: one.last_used, reverse=True)
            forgotten.extend(others[MAX_ROOMS - 1 :])
            return [room, *others[: MAX_ROOMS - 1]]

        change_rooms(self._folder, change)
        return forgotten

    async def _ask_keyring(
        self, question: "Callable[[_Keyring], T]", *, otherwise: T
    ) -> T:
        """Ask the keyring, or return `otherwise` where there is none that answers."""
        keyring = self._keyring
        if keyring is None:
            return otherwise
        try:
            return await in_daemon_thread(lambda: question(keyring))
        except TimeoutError:
            # It may wait for an answer that nobody gives; do not ask again.
            logger.warning("the system keyring does not answer and is not used")
            self._keyring = None
        except Exception as error:  # whatever a backend of somebody else's raises
            logger.warning("the system keyring failed: %s", type(error).__name__)
        return otherwise


class _Keyring:
    """The system keyring; every method may block, and raise anything."""

    def __init__(self) -> None:
        self._has_looked = False
        self._backend: Any = None

    def _find_backend(self) -> Any:
        if not self._has_looked:
            import keyring

            self._backend = usable_backend(keyring.get_keyring())
            self._has_looked = True
        return self._backend

    def is_usable(self) -> bool:
        return self._find_backend() is not None

    def keep(self, room_id: str, session: str) -> bool:
        """Return whether it is kept: a keyring may have no room for it."""
        backend = self._find_backend()
        if backend is None:
            return False
        try:
            backend.set_password(SERVICE, room_id, session)
            is_kept = bool(backend.get_password(SERVICE, room_id) == session)
        except Exception:
            with contextlib.suppress(Exception):
                backend.delete_password(SERVICE, room_id)
            raise
        return is_kept

    def find(self, room_id: str) -> str | None:
        backend = self._find_backend()
        found = backend and backend.get_password(SERVICE, room_id)
        return found if isinstance(found, str) else None

    def erase(self, room_id: str) -> bool:
        """Return whether there is no session string of this room now."""
        backend = self._find_backend()
        if backend is None or backend.get_password(SERVICE, room_id) is None:
            return True
        backend.delete_password(SERVICE, room_id)
        return backend.get_password(SERVICE, room_id) is None


def usable_backend(backend: Any) -> Any:
    """Return the backend, or the one of a chain, that keeps secrets; None if none."""
    is_chain = type(backend).__module__ == _CHAIN
    for one in backend.backends if is_chain else [backend]:
        module = type(one).__module__
        if module in _REFUSED_BACKENDS or module.startswith(_REFUSED_PACKAGE):
            continue
        return one
    return None


class _SecretFiles:
    """One file per room, for its owner only; every method may block."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _path(self, room_id: str) -> Path:
        # With a prefix, since a bare id may be a name that Windows reserves.
        return self.folder / f"room-{room_id}.txt"

    def keep(self, room_id: str, session: str) -> None:
        path = self._path(room_id)
        try:
            self.folder.mkdir(mode=_PRIVATE_FOLDER, parents=True, exist_ok=True)
            if os.name == "posix":  # on Windows the profile's own rights are private
                self.folder.chmod(_PRIVATE_FOLDER)
            replace_file(path, session.encode(), is_synced=True)
        except OSError as error:
            raise storage_error(error, path) from error

    def find(self, room_id: str) -> str | None:
        path = self._path(room_id)
        try:
            session = _read_private(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            logger.warning("the session string in %s cannot be read: %s", path, error)
            return None
        if _is_session_of(room_id, session):
            return session
        aside = path.with_suffix(".broken")
        logger.warning("%s holds no session string and is kept as %s", path, aside)
        with contextlib.suppress(OSError):
            path.replace(aside)
        return None

    def erase(self, room_id: str) -> None:
        path = self._path(room_id)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(error, path) from error


def _read_private(path: Path) -> str:
    """Read a file that nobody else could have written, and that nobody else reads.

    Raises:
        OSError: it cannot be read, or is another user's, or not a plain file.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with os.fdopen(os.open(path, flags), "rb") as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise OSError("it is not a plain file")
        if os.name == "posix":
            if facts.st_uid != os.geteuid():
                raise PermissionError("it belongs to another user")
            if stat.S_IMODE(facts.st_mode) & ~_PRIVATE_FILE:
                logger.warning("%s was open to others and is closed to them", path)
                os.fchmod(file.fileno(), _PRIVATE_FILE)
        return file.read(MAX_SESSION_STRING_CHARS + 1).decode("ascii", "replace")


def _is_session_of(room_id: str, text: str) -> bool:
    try:
        return Session.parse(text).room_id == room_id
    except SessionStringInvalid:
        return False
    except RtcError:
        return True  # of a newer version, which whoever uses it will say


def _checked(room_id: str) -> str:
    if not is_id(room_id):
        raise ValueError("not the id of a room")
    return room_id


async def in_daemon_thread(
    function: Callable[[], T], timeout_s: float | None = None
) -> T:
    """Run what may never return, without keeping the program from ending.

    Raises:
        TimeoutError: it has not returned after `timeout_s`, or `KEYRING_TIMEOUT_S`.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(outcome: Callable[[], None]) -> None:
        if not future.done():
            outcome()

    def run() -> None:
        outcome: Callable[[], None]
        try:
            outcome = partial(future.set_result, function())
        except Exception as error:
            outcome = partial(future.set_exception, error)
        with contextlib.suppress(RuntimeError):  # the loop may be closed by now
            loop.call_soon_threadsafe(settle, outcome)

    threading.Thread(target=run, name="keyring", daemon=True).start()
    return await asyncio.wait_for(future, timeout_s or KEYRING_TIMEOUT_S)
