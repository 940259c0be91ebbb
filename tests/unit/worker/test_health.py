"""A worker's sign of life, and what whoever watches it reads there."""

import asyncio
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from sleap_rtc_plugin.cli.main import group
from sleap_rtc_worker import health as health_module
from sleap_rtc_worker.health import Health, HealthFile, read_health, verdict
from sleap_rtc_worker.limits import HEALTH_STALE_S, MAX_HEALTH_BYTES

IDLE = Health(status="available", has_entered=True)
BUSY = Health(status="busy", has_entered=True, running_jobs=1, queue_length=3)


def test_what_is_said_is_read(tmp_path: Path) -> None:
    file = HealthFile(tmp_path)
    file.beat(IDLE, 100.0)
    file.beat(BUSY, 110.0)
    seen = read_health(tmp_path)
    assert seen is not None
    assert (seen.health, seen.beaten_at) == (BUSY, 110.0)
    lives, sentence = verdict(seen, 115.0)
    assert lives
    assert "busy" in sentence
    assert "running: 1, waiting: 3" in sentence


def test_a_worker_whose_server_is_away_lives() -> None:
    seen = health_module.Seen(Health(status="available"), 100.0)
    lives, sentence = verdict(seen, 101.0)
    assert lives
    assert "not in its room yet" in sentence


@pytest.mark.parametrize("off_by", [HEALTH_STALE_S + 1, -HEALTH_STALE_S - 1])
def test_a_worker_that_hangs_is_told(off_by: float) -> None:
    lives, sentence = verdict(health_module.Seen(IDLE, 1000.0), 1000.0 + off_by)
    assert not lives
    assert "restart it" in sentence


@pytest.mark.parametrize(
    "data", [None, b"", b"[]", b'{"status":7}', b"x" * (MAX_HEALTH_BYTES + 1)]
)
def test_what_cannot_be_read_is_no_sign_of_life(
    tmp_path: Path, data: bytes | None
) -> None:
    if data is not None:
        (tmp_path / "health.json").write_bytes(data)
    assert read_health(tmp_path) is None
    assert not verdict(None, 0.0)[0]


def test_a_full_disk_is_no_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = HealthFile(tmp_path)
    file.beat(IDLE, 100.0)

    def full(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    file.beat(BUSY, 200.0)
    seen = read_health(tmp_path)
    assert seen is not None
    assert (seen.health, seen.beaten_at) == (IDLE, 200.0)


def test_it_is_said_again_once_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = HealthFile(tmp_path / "gone")
    file.beat(IDLE, 100.0)
    (tmp_path / "gone").mkdir()
    file.beat(IDLE, 110.0)
    assert read_health(tmp_path / "gone") is not None


async def test_it_beats_until_it_is_cancelled(tmp_path: Path) -> None:
    asked = asyncio.Event()

    def how() -> Health:
        asked.set()
        return IDLE

    file = HealthFile(tmp_path)
    task = asyncio.create_task(file.keep(how))
    await asked.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    file.remove()
    file.remove()
    assert read_health(tmp_path) is None


def ask(data: Path) -> tuple[int, str]:
    result = CliRunner().invoke(group, ["worker", "--health", "--data", str(data)])
    return result.exit_code, result.output


def test_the_command_answers_with_its_exit_code(tmp_path: Path) -> None:
    code, text = ask(tmp_path)
    assert code == 1
    assert "No worker runs on this folder" in text
    HealthFile(tmp_path).beat(IDLE, health_module.wall_clock())
    code, text = ask(tmp_path)
    assert code == 0
    assert "The worker is available and in its room" in text
    os.utime(tmp_path / "health.json", (0, 0))
    assert ask(tmp_path)[0] == 1
