"""The few choices that outlive SLEAP, in one JSON file of the user's.

Holds no secret. Several SLEAPs and their companions may write it at once: each
changes only its own keys, under a lock, and replaces the file as a whole. Called by
SLEAP's side, by `session.credentials` and by `session.accounts`; faults are logged,
none is worth a crash.
"""

import contextlib
import logging
import math
import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
import platformdirs
from msgspec import Meta, Struct

from sleap_rtc_plugin.protocol.ids import is_id
from sleap_rtc_plugin.protocol.limits import MAX_ID_LENGTH, MAX_URL_CHARS, MIB
from sleap_rtc_plugin.protocol.session_string import is_signaling_url
from sleap_rtc_plugin.transport.file_lock import try_lock
from sleap_rtc_plugin.transport.transport_options import (
    MAX_MBIT,
    TransportOptions,
    bytes_per_s,
    forced_relay_only,
)

__all__ = [
    "CONFIG_DIR_VARIABLE",
    "MODEL_ROOM_VARIABLE",
    "MODEL_STORE_VARIABLE",
    "ModelPlace",
    "RememberedAccount",
    "RememberedRoom",
    "Settings",
    "change_accounts",
    "change_rooms",
    "chosen_model_place",
    "chosen_transport",
    "config_folder",
    "replace_file",
]

logger = logging.getLogger(__name__)

# Names a folder to use in place of the user's own, and in place of the keyring.
CONFIG_DIR_VARIABLE: Final = "SLEAP_REMOTE_CONFIG_DIR"
# Name the store of a room's models, and the room that they are filed under.
MODEL_STORE_VARIABLE: Final = "SLEAP_MODEL_STORE"
MODEL_ROOM_VARIABLE: Final = "SLEAP_MODEL_ROOM"
MAX_SETTINGS_BYTES: Final = 1 * MIB
MAX_ROOMS: Final = 50
MAX_ACCOUNTS: Final = 16
MAX_FOLDER_PATH_CHARS: Final = 4096
# The lock is held for a millisecond; who waits longer goes on without it.
LOCK_TIMEOUT_S: Final = 0.5
LOCK_RETRY_S: Final = 0.01
_FILE: Final = "settings.json"
# What several programs add to and take from, each entry by itself.
_LISTS: Final = frozenset({"rooms", "accounts"})

Id = Annotated[str, Meta(max_length=MAX_ID_LENGTH)]
FolderPath = Annotated[str, Meta(max_length=MAX_FOLDER_PATH_CHARS)]
Url = Annotated[str, Meta(max_length=MAX_URL_CHARS)]


class RememberedRoom(Struct, frozen=True, kw_only=True):
    """A room that was entered; its session string is elsewhere.

    `last_used` is in Unix seconds.
    """

    room_id: str
    server: str
    last_used: float = 0.0


class RememberedAccount(Struct, frozen=True, kw_only=True):
    """An account that is signed in at a server; its tokens are elsewhere.

    Attributes:
        server: the signaling server.
        account_id: who it is there.
        name: what the person is called; empty for an anonymous account.
        method: the way it was signed in.
    """

    server: str
    account_id: str
    name: str = ""
    method: str = ""


class Settings(Struct, kw_only=True, dict=True):
    """The choices, with defaults for what the file does not say or says wrongly.

    Attributes:
        host: where the session runs: in a companion process, or in SLEAP's own.
        last_server: the server that was signed in to last.
        last_room_id: the room that was entered last.
        last_worker: the worker that was chosen last.
        remember: whether the next room is to be remembered.
        shared_storage_root: where this machine mounts a folder that workers mount as
            well; files may go through it. Set in the file, or by the environment.
        data_channels: which way they go: the fast one, or that of aiortc alone.
        congestion: what sets the pace of sending: `loss` shares a path as TCP does,
            `rate` keeps its pace on a path that loses packets at random.
        max_mbit_per_s: the most to send; 0 for what the path carries.
        relay_only: whether no address of this machine is told to workers: links go
            over TURN servers or the signaling server's relay, or not at all.
        use_worker_videos: whether a worker uses its own copies of a project's videos,
            where it has mounted them, instead of being sent their images.
        model_store: where the room's models are, if this machine reaches that itself:
            a folder or an `s3://` address.
        model_room: the room that they are filed under there, if not the one entered.
        rooms: those remembered, changed by `change_rooms` only.
        accounts: those signed in, changed by `change_accounts` only.
    """

    host: Literal["companion", "in-process"] = "companion"
    last_server: Url = ""
    last_room_id: Id = ""
    last_worker: Id = ""
    remember: bool = True
    shared_storage_root: FolderPath = ""
    data_channels: Literal["fast", "stock"] = "fast"
    congestion: Literal["loss", "rate"] = "loss"
    max_mbit_per_s: Annotated[float, Meta(ge=0, le=MAX_MBIT)] = 0.0
    relay_only: bool = False
    use_worker_videos: bool = True
    model_store: FolderPath = ""
    model_room: Id = ""
    rooms: list[RememberedRoom] = []
    accounts: list[RememberedAccount] = []

    def __post_init__(self) -> None:
        self._path = config_folder() / _FILE
        self._saved: dict[str, Any] = msgspec.to_builtins(self)

    @property
    def forced_relay_only(self) -> bool | None:
        """What the environment says in place of `relay_only`, or None."""
        return forced_relay_only()

    @classmethod
    def load(cls, folder: Path | None = None) -> "Settings":
        """Read the settings of `folder`, or the user's own."""
        path = (folder or config_folder()) / _FILE
        settings = cls(**_sound_values(_read(path)))
        settings._path = path
        return settings

    def save(self) -> None:
        """Write what was changed here since it was read or saved last."""
        now: dict[str, Any] = msgspec.to_builtins(self)
        changes = {
            key: value
            for key, value in now.items()
            if value != self._saved[key] and key not in _LISTS
        }
        if changes and _change(self._path, lambda stored: stored | changes):
            self._saved |= changes


def chosen_transport() -> TransportOptions:
    """Return how data channels go by the environment, or by the user's settings."""
    settings = Settings.load()
    return TransportOptions.from_environment(
        default=TransportOptions(
            engine=settings.data_channels,
            congestion=settings.congestion,
            max_bytes_per_s=bytes_per_s(settings.max_mbit_per_s),
            relay_only=settings.relay_only,
        )
    )


@dataclass(frozen=True)
class ModelPlace:
    """Where a room's models are.

    Attributes:
        store: the address of their store, None to ask the room's workers.
        room: what they are filed under there, None for the room that is entered.
    """

    store: str | None
    room: str | None


def chosen_model_place(store: str | None = None, room: str | None = None) -> ModelPlace:
    """Return where models are: as given, by the environment, or by the settings."""
    settings = Settings.load()
    environment = os.environ
    store = store or environment.get(MODEL_STORE_VARIABLE) or settings.model_store
    room = room or environment.get(MODEL_ROOM_VARIABLE) or settings.model_room
    return ModelPlace(store=store or None, room=room or None)


def config_folder() -> Path:
    """Return the folder for settings and remembered session strings."""
    forced = os.environ.get(CONFIG_DIR_VARIABLE)
    return Path(forced) if forced else platformdirs.user_config_path("sleap-remote")


def change_rooms(
    folder: Path, change: Callable[[list[RememberedRoom]], list[RememberedRoom]]
) -> None:
    """Change the list of remembered rooms as it is in the file now.

    Args:
        folder: where the settings are.
        change: is given the stored rooms and returns those to store.
    """

    def apply(stored: dict[str, Any]) -> dict[str, Any]:
        rooms = change(_sound_rooms(stored.get("rooms", [])))
        return stored | {"rooms": msgspec.to_builtins(rooms[:MAX_ROOMS])}

    _change(folder / _FILE, apply)


def change_accounts(
    folder: Path,
    change: Callable[[list[RememberedAccount]], list[RememberedAccount]],
) -> None:
    """Change the list of signed-in accounts as it is in the file now.

    Args:
        folder: where the settings are.
        change: is given the stored accounts and returns those to store.
    """

    def apply(stored: dict[str, Any]) -> dict[str, Any]:
        accounts = change(_sound_accounts(stored.get("accounts", [])))
        return stored | {"accounts": msgspec.to_builtins(accounts[:MAX_ACCOUNTS])}

    _change(folder / _FILE, apply)


def _sound_values(stored: dict[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(Settings):
        if field.name not in stored:
            continue
        value = stored[field.name]
        try:
            if field.name == "rooms":
                values["rooms"] = _sound_rooms(value)
            elif field.name == "accounts":
                values["accounts"] = _sound_accounts(value)
            else:
                values[field.name] = msgspec.convert(value, field.type)
        except msgspec.ValidationError as error:
            logger.warning("the setting %s is ignored: %s", field.name, error)
    return values


def _sound_rooms(stored: object) -> list[RememberedRoom]:
    rooms = []
    for entry in stored if isinstance(stored, list) else []:
        try:
            room = msgspec.convert(entry, RememberedRoom)
        except msgspec.ValidationError as error:
            logger.warning("a remembered room is ignored: %s", error)
            continue
        is_sound = is_id(room.room_id) and is_signaling_url(room.server)
        if is_sound and math.isfinite(room.last_used):
            rooms.append(room)
    return rooms[:MAX_ROOMS]


def _sound_accounts(stored: object) -> list[RememberedAccount]:
    accounts = []
    for entry in stored if isinstance(stored, list) else []:
        try:
            account = msgspec.convert(entry, RememberedAccount)
        except msgspec.ValidationError as error:
            logger.warning("a signed-in account is ignored: %s", error)
            continue
        if is_signaling_url(account.server):
            accounts.append(account)
    return accounts[:MAX_ACCOUNTS]


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SETTINGS_BYTES + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        logger.warning("the settings cannot be read: %s", error)
        return {}
    try:
        if len(data) > MAX_SETTINGS_BYTES:
            raise ValueError("the file is too large")
        return msgspec.json.decode(data, type=dict[str, Any])
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        aside = path.with_suffix(".broken.json")
        logger.warning("the settings are unreadable, kept as %s: %s", aside, error)
        with contextlib.suppress(OSError):
            path.replace(aside)
        return {}


def _change(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> bool:
    """Read, change and replace the file; return whether it was written."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(path.with_suffix(".lock")):
            data = msgspec.json.encode(change(_read(path)))
            replace_file(path, msgspec.json.format(data) + b"\n")
    except OSError as error:
        logger.warning("the settings cannot be saved: %s", error)
        return False
    return True


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other programs out, for as long as a well-behaved one takes."""
    with path.open("ab") as file:
        ends_at = time.monotonic() + LOCK_TIMEOUT_S
        while not try_lock(file.fileno()):
            if time.monotonic() > ends_at:
                logger.warning("the settings are locked by another program")
                break
            time.sleep(LOCK_RETRY_S)
        # Closing the file lets go of the lock, as does the end of the program.
        yield


def replace_file(path: Path, data: bytes, *, is_synced: bool = False) -> None:
    """Write a file of mode 0600 that is, at any moment, the old one or the new one.

    Args:
        path: its folder exists.
        data: the whole content.
        is_synced: wait until it would survive a power failure, which takes time.

    Raises:
        OSError: it cannot be written; the old one is unchanged.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    descriptor = os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            if is_synced:
                os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    if is_synced and os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
