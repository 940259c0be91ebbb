"""The settings file: what is kept, what is repaired, and two writers at once."""

import json
import multiprocessing
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from sleap_rtc_plugin.session import settings as module
from sleap_rtc_plugin.session.settings import (
    CONFIG_DIR_VARIABLE,
    MAX_ROOMS,
    RememberedRoom,
    Settings,
    change_rooms,
    chosen_transport,
    config_folder,
    replace_file,
)
from sleap_rtc_plugin.transport.transport_options import (
    CONGESTION_VARIABLE,
    ENGINE_VARIABLE,
    RATE_VARIABLE,
    RELAY_ONLY_VARIABLE,
    TransportOptions,
)

SERVER = "https://lab.example:8001"


def stored(folder: Path) -> Any:
    return json.loads((folder / "settings.json").read_text())


def write(folder: Path, content: Any) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "settings.json").write_text(text)


def room(number: int) -> RememberedRoom:
    return RememberedRoom(room_id=f"room-{number}", server=SERVER, last_used=number)


def test_nothing_stored(tmp_path: Path) -> None:
    settings = Settings.load(tmp_path / "new")
    assert settings == Settings()
    settings.save()
    assert not (tmp_path / "new").exists()


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    settings = Settings.load(tmp_path / "new")
    settings.host = "in-process"
    settings.last_server = SERVER
    settings.last_worker = "worker-a"
    settings.remember = False
    settings.shared_storage_root = "/mnt/lab"
    settings.save()
    assert Settings.load(tmp_path / "new") == settings
    if os.name == "posix":
        mode = (tmp_path / "new" / "settings.json").stat().st_mode
        assert stat.S_IMODE(mode) == 0o600


def test_the_folder_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CONFIG_DIR_VARIABLE, str(tmp_path))
    assert config_folder() == tmp_path
    settings = Settings.load()
    settings.last_worker = "worker-a"
    settings.save()
    assert stored(tmp_path) == {"last_worker": "worker-a"}


def test_unknown_keys_are_kept(tmp_path: Path) -> None:
    write(tmp_path, {"of_a_newer_version": [1, {"a": 2}], "remember": True})
    settings = Settings.load(tmp_path)
    settings.remember = False
    settings.save()
    assert stored(tmp_path) == {"of_a_newer_version": [1, {"a": 2}], "remember": False}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("host", "elsewhere"),
        ("host", 1),
        ("last_server", ["x"]),
        ("last_server", "x" * 10_000),
        ("last_room_id", "x" * 65),
        ("last_worker", None),
        ("remember", "yes"),
        ("rooms", [{"room_id": "../x", "server": SERVER}]),
        ("rooms", [{"room_id": "room-1", "server": "javascript:x"}]),
        ("rooms", [{"room_id": "room-1"}, 5]),
        ("rooms", {"room-1": 1}),
    ],
)
def test_wrong_values_give_defaults(tmp_path: Path, key: str, value: Any) -> None:
    write(tmp_path, {key: value, "last_worker": "worker-a"} | {key: value})
    settings = Settings.load(tmp_path)
    assert getattr(settings, key) == getattr(Settings(), key)
    if key != "last_worker":
        assert settings.last_worker == "worker-a"


def test_a_wrong_value_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, {"remember": 7})
    Settings.load(tmp_path)
    assert "remember" in caplog.text


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "[" * 100_000, "\x00", '{"a": ' * 5_000]
)
def test_a_broken_file_is_put_aside(tmp_path: Path, text: str) -> None:
    write(tmp_path, text)
    settings = Settings.load(tmp_path)
    assert settings == Settings()
    assert (tmp_path / "settings.broken.json").read_text() == text
    settings.last_worker = "worker-a"
    settings.save()
    assert stored(tmp_path) == {"last_worker": "worker-a"}


def test_a_huge_file_is_put_aside(tmp_path: Path) -> None:
    write(tmp_path, {"a": "x" * module.MAX_SETTINGS_BYTES})
    assert Settings.load(tmp_path) == Settings()
    assert (tmp_path / "settings.broken.json").exists()


def test_two_writers_change_their_own_keys(tmp_path: Path) -> None:
    one, other = Settings.load(tmp_path), Settings.load(tmp_path)
    one.last_worker = "worker-a"
    one.save()
    other.last_room_id = "room-b"
    other.save()
    one.remember = False
    one.save()
    assert stored(tmp_path) == {
        "last_worker": "worker-a",
        "last_room_id": "room-b",
        "remember": False,
    }


def test_saving_leaves_the_rooms_alone(tmp_path: Path) -> None:
    settings = Settings.load(tmp_path)
    change_rooms(tmp_path, lambda rooms: [*rooms, room(1)])
    settings.last_room_id = "room-1"
    settings.save()
    assert Settings.load(tmp_path).rooms == [room(1)]


def test_rooms_have_a_bound(tmp_path: Path) -> None:
    change_rooms(tmp_path, lambda rooms: [room(n) for n in range(MAX_ROOMS + 10)])
    assert Settings.load(tmp_path).rooms == [room(n) for n in range(MAX_ROOMS)]


def _add_rooms(folder: Path, first: int) -> None:
    for number in range(first, first + 10):
        new = room(number)
        change_rooms(folder, lambda rooms, new=new: [*rooms, new])


def test_programs_that_write_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [
        context.Process(target=_add_rooms, args=(tmp_path, first))
        for first in (100, 200, 300)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    ids = {one.room_id for one in Settings.load(tmp_path).rooms}
    assert ids == {f"room-{first + n}" for first in (100, 200, 300) for n in range(10)}
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "settings.json",
        "settings.lock",
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="locks otherwise on Windows")
def test_a_lock_that_is_never_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import fcntl

    monkeypatch.setattr(module, "LOCK_TIMEOUT_S", 0.02)
    with (tmp_path / "settings.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        settings = Settings.load(tmp_path)
        settings.last_worker = "worker-a"
        settings.save()
    assert stored(tmp_path) == {"last_worker": "worker-a"}
    assert "locked by another program" in caplog.text


def test_a_disk_that_takes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, {"remember": True})

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    settings = Settings.load(tmp_path)
    settings.remember = False
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        settings.save()
    assert stored(tmp_path) == {"remember": True}
    assert "No space left" in caplog.text
    assert not list(tmp_path.glob("*.part"))
    assert not list(tmp_path.glob(".*.part"))
    # It is not forgotten that this is unsaved.
    settings.save()
    assert stored(tmp_path) == {"remember": False}


def test_a_file_that_is_replaced_is_private(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    path.chmod(0o644)
    replace_file(path, b"new", is_synced=True)
    assert path.read_bytes() == b"new"
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_how_data_channels_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment goes before the file; what is no choice says nothing."""
    monkeypatch.setenv(CONFIG_DIR_VARIABLE, str(tmp_path))
    for name in (ENGINE_VARIABLE, CONGESTION_VARIABLE, RATE_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    assert chosen_transport() == TransportOptions("fast", "loss", None)
    write(
        tmp_path,
        {"data_channels": "stock", "congestion": "rate", "max_mbit_per_s": 8},
    )
    assert chosen_transport() == TransportOptions("stock", "rate", 1_000_000)
    write(tmp_path, {"relay_only": True})
    monkeypatch.delenv(RELAY_ONLY_VARIABLE, raising=False)
    assert chosen_transport().relay_only
    monkeypatch.setenv(RELAY_ONLY_VARIABLE, "0")
    assert not chosen_transport().relay_only
    assert Settings.load().forced_relay_only is False
    monkeypatch.delenv(RELAY_ONLY_VARIABLE)
    assert Settings.load().forced_relay_only is None
    write(tmp_path, {"congestion": "rate"})
    monkeypatch.setenv(ENGINE_VARIABLE, "fast")
    monkeypatch.setenv(RATE_VARIABLE, "16")
    monkeypatch.setenv(CONGESTION_VARIABLE, "as fast as it goes")
    assert chosen_transport() == TransportOptions("fast", "rate", 2_000_000)
    write(tmp_path, {"data_channels": "quic", "max_mbit_per_s": 0.000001})
    for nothing in ("", "nan", "0", "-1", "0.000001", "much"):
        monkeypatch.setenv(RATE_VARIABLE, nothing)
        assert chosen_transport() == TransportOptions("fast", "loss", None)
