"""The folder in which results arrive: one program at a time has it."""

import asyncio
from pathlib import Path

import pytest

from sleap_rtc_plugin.protocol.errors import StorageFailed
from sleap_rtc_plugin.session.incoming_folder import (
    INCOMING_FOLDER,
    incoming_folder,
    remove_incoming,
)

JOB = "job-1"


def left(output: Path) -> list[str]:
    return sorted(path.name for path in output.rglob("*"))


async def test_the_second_waits_for_the_first(tmp_path: Path) -> None:
    done: list[str] = []
    first_has_it = asyncio.Event()
    gate = asyncio.Event()

    async def first() -> None:
        async with incoming_folder(tmp_path, JOB) as incoming:
            incoming.mkdir()
            first_has_it.set()
            await gate.wait()
            remove_incoming(incoming)
            done.append("first")

    async def second() -> None:
        await first_has_it.wait()
        async with incoming_folder(tmp_path, JOB) as incoming:
            assert not incoming.exists()
            done.append("second")

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(first())
        tasks.create_task(second())
        await first_has_it.wait()
        # Another job's is not kept waiting.
        async with incoming_folder(tmp_path, "job-2"):
            assert not done
        gate.set()
    assert done == ["first", "second"]
    assert left(tmp_path) == []


async def test_what_arrived_stays_when_the_work_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        async with incoming_folder(tmp_path, JOB) as incoming:
            incoming.mkdir()
            (incoming / "part").write_bytes(b"half")
            raise ZeroDivisionError
    assert left(tmp_path) == [INCOMING_FOLDER, JOB, "part"]
    async with incoming_folder(tmp_path, JOB) as incoming:
        assert (incoming / "part").read_bytes() == b"half"


async def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / INCOMING_FOLDER).write_text("a file")
    with pytest.raises(StorageFailed, match=INCOMING_FOLDER):
        async with incoming_folder(tmp_path, JOB):
            pass
