"""How an attack on the real programs must end, for the tests of attacks."""

import asyncio
from pathlib import Path
from typing import Final

from support.programs import Program

BASE_TIMEOUT_S: Final = 60.0


async def exit_of(program: Program) -> int:
    return await asyncio.to_thread(program.wait, BASE_TIMEOUT_S)


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def assert_refused(client: Program, code: int, error: str, output: Path) -> None:
    assert client.wait() == code, client.story()
    assert client.report["error"]["code"] == error, client.story()
    assert client.err[-1] == client.report["error"]["message"]
    assert "Traceback" not in "\n".join(client.err), client.story()
    assert client.report["models"] == client.report["predictions"] == []
    private = output / ".sleap-remote"
    assert [path for path in files_in(output) if private not in path.parents] == []
