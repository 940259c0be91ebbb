"""Many processes that publish and move aliases at one store, real servers included.

A reader polls throughout: the manifest is whole at any time. The short form is for
every run of the tests; the whole one is started by hand with `-m slow -s`.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from support import store_servers
from support.registry_ends import ROOM

from sleap_rtc_plugin.protocol.limits import MAX_REGISTRY_BYTES
from sleap_rtc_plugin.registry.model_registry import ModelRegistry
from sleap_rtc_plugin.registry.object_store import ObjectStore
from sleap_rtc_plugin.registry.room_manifest import RoomManifest, decode_manifest
from sleap_rtc_plugin.registry.store_address import open_store

PROCESSES: Final = 6
FEW: Final = 18
MANY: Final = 200
_END: Final = Path(__file__).parents[1] / "support" / "registry_ends.py"


@pytest.fixture(params=["directory", "seaweedfs", "moto"])
def address(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "directory":
        (folder / "store").mkdir()
        yield str(folder / "store")
        return
    with getattr(store_servers, request.param)(folder / "server") as endpoint:
        yield store_servers.address_of(endpoint)


async def _one(address: str, folder: Path, number: int, models: int) -> dict[str, str]:
    argv = [
        str(_END),
        "crowd",
        f"--store={address}",
        f"--folder={folder / str(number)}",
        f"--number={number}",
        f"--of={PROCESSES}",
        f"--models={models}",
    ]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *argv,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={
            **os.environ,
            **store_servers.CREDENTIALS,
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    ids: dict[str, str] = json.loads(out)["ids"]
    return ids


async def _poll(store: ObjectStore, until: asyncio.Event) -> list[RoomManifest]:
    """Read the manifest again and again; keep one of each size that it had."""
    seen: dict[int, RoomManifest] = {}
    reads = 0
    while not until.is_set():
        found = await store.read(f"{ROOM}/manifest.json", MAX_REGISTRY_BYTES)
        if found is not None:
            manifest = decode_manifest(found.data or b"", store.name)
            seen[len(manifest.models)] = manifest
            reads += 1
        await asyncio.sleep(0)
    print(f"{reads} reads", end=", ")  # noqa: T201 - a figure of the whole form
    return list(seen.values())


async def _crowd(address: str, folder: Path, models: int) -> None:
    store = open_store(address, environment=store_servers.CREDENTIALS)
    ended = asyncio.Event()
    started = time.monotonic()
    reader = asyncio.create_task(_poll(store, ended))
    try:
        parts = await asyncio.gather(
            *(_one(address, folder, number, models) for number in range(PROCESSES)),
            return_exceptions=True,
        )
    finally:
        ended.set()
        seen = await reader
    took_s = time.monotonic() - started
    for part in parts:
        if isinstance(part, BaseException):
            raise part
    ids = {
        int(number): model_id
        for part in parts
        if isinstance(part, dict)
        for number, model_id in part.items()
    }
    assert len(set(ids.values())) == models
    registry = ModelRegistry(store, ROOM)
    manifest = await registry.manifest()
    assert set(manifest.models) == set(ids.values())
    assert {f"model-no-{n}": manifest.aliases[f"model-no-{n}"].model for n in ids} == {
        f"model-no-{n}": model_id for n, model_id in ids.items()
    }
    for number in range(PROCESSES):
        last = max(n for n in ids if n % PROCESSES == number)
        alias = manifest.aliases[f"best-of-{number}"]
        assert alias.model == ids[last]
        theirs = [ids[n] for n in sorted(ids, reverse=True) if n % PROCESSES == number]
        assert [move.model for move in alias.moves] == theirs[: len(alias.moves)]
    latest = manifest.aliases["latest"]
    assert latest.model == latest.moves[0].model
    times = [move.at for move in latest.moves]
    assert times == sorted(times, reverse=True)
    updates = [m.updated_at for m in sorted(seen, key=lambda m: len(m.models))]
    assert updates == sorted(updates)
    some = list(manifest.models.values())[:: max(1, models // 10)]
    for record in some:
        await registry.pull(record, folder / "home" / record.id)
    print(f"{models} models in {took_s:.1f} s at {store.name}")  # noqa: T201


@pytest.mark.timeout(300)
async def test_six_processes_at_one_store_lose_nothing(
    address: str, tmp_path: Path
) -> None:
    await _crowd(address, tmp_path, FEW)


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_six_processes_and_two_hundred_models(
    address: str, tmp_path: Path
) -> None:
    await _crowd(address, tmp_path, MANY)
