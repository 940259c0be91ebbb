"""A program that ends right after it used a store ends well."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

_TRIES: Final = 12
_PROGRAM: Final = """
import asyncio
from sleap_rtc_plugin.registry.model_registry import ModelRegistry
from sleap_rtc_plugin.registry.object_store import memory_store

async def main():
    store = memory_store()
    for _ in range(20):
        await ModelRegistry(store, "room-1").manifest()
        await store.replace("room-1/x", b"1", None)

asyncio.run(main())
"""


def test_no_thread_of_a_store_aborts_a_program_that_ends(tmp_path: Path) -> None:
    # With obstore's own coroutines every third one ended with SIGABRT.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for _ in range(_TRIES):
        ended = subprocess.run(
            [sys.executable, "-c", _PROGRAM],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr.decode()
