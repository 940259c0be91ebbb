"""Remembers session strings, each with the room that it opens.

The strings are in the keyring or in private files (`session.secret_store`); the rooms
themselves are listed in the settings, without secrets. Called by the companion, and by
commands that name a room in place of a session string.
"""

import asyncio
import os
from pathlib import Path
from typing import Protocol

from sleap_rtc_plugin.protocol.errors import RtcError, SessionStringInvalid
from sleap_rtc_plugin.protocol.ids import is_id
from sleap_rtc_plugin.protocol.limits import MAX_SESSION_STRING_CHARS
from sleap_rtc_plugin.protocol.session_string import Session
from sleap_rtc_plugin.session.secret_store import SecretStore
from sleap_rtc_plugin.session.settings import (
    CONFIG_DIR_VARIABLE,
    MAX_ROOMS,
    RememberedRoom,
    Settings,
    change_rooms,
    config_folder,
)

__all__ = ["CredentialStore"]


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
        self._secrets = SecretStore(
            self._folder / "sessions",
            what="session string",
            prefix="room-",
            in_keyring="",
            max_chars=MAX_SESSION_STRING_CHARS,
            is_sound=_is_session_of,
            uses_keyring=folder is None and not os.environ.get(CONFIG_DIR_VARIABLE),
        )

    async def place(self) -> str:
        """Return the sentence that says where session strings are kept."""
        if await self._secrets.has_keyring():
            return "Session strings are kept in this computer's keyring."
        return (
            "Session strings are kept in files that only you can read, in "
            f"{self._secrets.folder}, since no keyring can be used here."
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
        await self._secrets.keep(_checked(room.room_id), session)
        entry = RememberedRoom(
            room_id=room.room_id, server=room.server, last_used=room.last_used
        )
        for forgotten in await asyncio.to_thread(self._list_room, entry):
            await self._secrets.erase(forgotten.room_id)

    async def load(self, room_id: str) -> str | None:
        """Return the session string of a room, or None where there is none."""
        return await self._secrets.find(_checked(room_id))

    async def forget(self, room_id: str) -> None:
        """Remove a room and its session string.

        Raises:
            StorageFailed: the session string is still there.
        """
        await self._secrets.erase(_checked(room_id))
        await asyncio.to_thread(
            change_rooms,
            self._folder,
            lambda rooms: [room for room in rooms if room.room_id != room_id],
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
