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


def test_obstore_is_imported_where_a_bucket_is_opened_and_not_before(
    tmp_path: Path,
) -> None:
    program = (
        "import sys, sleap_rtc_plugin.cli.main, "
        "sleap_rtc_plugin.registry.model_registry;"
        "from sleap_rtc_plugin.registry.store_address import open_store;"
        "open_store('folder');"
        "assert 'obstore' not in sys.modules;"
        "open_store('s3://lab', environment={'AWS_ACCESS_KEY_ID': 'a',"
        "'AWS_SECRET_ACCESS_KEY': 'b'});"
        "assert 'obstore' in sys.modules"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True
    )
