"""`kill -9` while a model is published: what is visible is whole, at every point.

In a folder the process ends at a chosen call to the disk, at an S3 server once so many
bytes have left it. The points are spread by a seed; the long series is started by hand
with `-m slow`.
"""

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

import pytest
from support import store_servers
from support.programs import POSIX
from support.registry_ends import ROOM
from support.trained_models import local_model

from sleap_rtc_plugin.protocol.model_records import Publication
from sleap_rtc_plugin.registry.model_registry import ModelRegistry
from sleap_rtc_plugin.registry.object_store import ObjectStore
from sleap_rtc_plugin.registry.store_address import open_store

pytestmark = POSIX

SEED: Final = 7
FEW: Final = 4
MANY: Final = 20
# More than a piece, so that S3 gets it in parts.
SIZE_BYTES: Final = 9_000_000
_END: Final = Path(__file__).parents[1] / "support" / "registry_ends.py"


class Publisher:
    """A process that publishes one model."""

    def __init__(self, address: str, folder: Path, seed: int, die_at: int = 0) -> None:
        self.seed = seed
        self.folder = folder / f"m{seed}"
        self._argv = [
            str(_END),
            "publish",
            f"--store={address}",
            f"--folder={self.folder}",
            f"--seed={seed}",
            f"--size-bytes={SIZE_BYTES}",
            f"--die-at={die_at}",
        ]
        self.process: asyncio.subprocess.Process | None = None

    async def run(self) -> dict[str, object] | None:
        """Return what it says in the end, or None where it was killed."""
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            *self._argv,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={
                **os.environ,
                **store_servers.CREDENTIALS,
                "PYTHONPATH": os.pathsep.join(sys.path),
            },
        )
        out, err = await self.process.communicate()
        if self.process.returncode == -signal.SIGKILL:
            return None
        assert self.process.returncode == 0, err.decode()
        answer: dict[str, object] = json.loads(out.splitlines()[-1])
        return answer

    def kill(self) -> None:
        # Not by Popen, which would look for an exit status that asyncio waits for.
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGKILL)


@contextlib.asynccontextmanager
async def counted_path(
    endpoint: str, heard: Callable[[int], None]
) -> AsyncIterator[str]:
    """Yield the URL of a way to a server; `heard` is told what passes to it."""
    host, port = endpoint.removeprefix("http://").split(":")

    async def pump(
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        tell: Callable[[int], None],
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                tell(len(data))
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            there_reader, there_writer = await asyncio.open_connection(host, int(port))
            await asyncio.gather(
                pump(reader, there_writer, heard),
                pump(there_reader, writer, lambda size: None),
            )

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def check(store: ObjectStore, home: Path) -> int:
    """Pull every visible model, which verifies it; return how many there are."""
    registry = ModelRegistry(store, ROOM)
    manifest = await registry.manifest()
    for record in manifest.models.values():
        for folder in await registry.pull(record, home / record.id):
            assert (folder / "best.ckpt").is_file()
    return len(manifest.models)


async def check_tidy(store: ObjectStore) -> None:
    """Collect garbage; what stays is what the visible models need."""
    registry = ModelRegistry(store, ROOM)
    await registry.collect(age_s=-3600.0)
    manifest = await registry.manifest()
    named = {f.digest for r in manifest.models.values() for f in r.files}
    left = {
        entry.key.rpartition("/")[2] async for entry in store.entries(f"{ROOM}/blobs")
    }
    assert left - {".lock"} == named


async def publish_again(store: ObjectStore, publisher: Publisher) -> None:
    registry = ModelRegistry(store, ROOM)
    published = await registry.publish(
        local_model(publisher.folder),
        publication=Publication(alias=f"alias-{publisher.seed}"),
        by="bob",
    )
    assert published.alias_error is None


async def kills_in_a_folder(folder: Path, points: int) -> None:
    (folder / "store").mkdir()
    store = open_store(str(folder / "store"))
    # The first one also makes the room's folders, so the second one is measured.
    await Publisher(str(folder / "store"), folder, 0).run()
    whole = await Publisher(str(folder / "store"), folder, 1).run()
    assert whole is not None
    calls = int(str(whole["calls"]))
    chosen = random.Random(SEED).sample(range(1, calls), points)  # noqa: S311 - a seed
    visible = 0
    for seed, point in enumerate(sorted(chosen), 2):
        publisher = Publisher(str(folder / "store"), folder, seed, point)
        assert await publisher.run() is None
        found = await check(store, folder / "home")
        visible += found - seed
        assert found in (seed, seed + 1)
        await publish_again(store, publisher)
        assert await check(store, folder / "home") == seed + 1
    await check_tidy(store)
    print(f"killed at {sorted(chosen)} of {calls} calls; visible {visible}")  # noqa: T201


async def kills_at_a_server(folder: Path, points: int) -> None:
    passed = 0
    limit: int | None = None
    publisher: Publisher | None = None

    def heard(size: int) -> None:
        nonlocal passed
        passed += size
        if limit is not None and passed >= limit and publisher is not None:
            publisher.kill()

    with store_servers.seaweedfs(folder / "server") as endpoint:
        store = open_store(
            store_servers.address_of(endpoint), environment=store_servers.CREDENTIALS
        )
        async with counted_path(endpoint, heard) as way:
            address = store_servers.address_of(way)
            assert await Publisher(address, folder, 0).run() is not None
            total, visible = passed, 0
            # Half of them where little is sent: before and behind the weights.
            chance = random.Random(SEED)  # noqa: S311 - a seed
            chosen = [
                chance.randrange(1, total)
                if number % 2
                else total - chance.randrange(1, 12_000)
                for number in range(points)
            ]
            for seed, point in enumerate(sorted(chosen), 1):
                passed, limit = 0, point
                publisher = Publisher(address, folder, seed)
                ended = await publisher.run()
                found = await check(store, folder / "home")
                visible += found - seed
                assert found == seed + 1 if ended else found in (seed, seed + 1)
                limit = None
                await publish_again(store, publisher)
                assert await check(store, folder / "home") == seed + 1
        await check_tidy(store)
    print(  # noqa: T201 - figures
        f"killed at {sorted(chosen)} of {total} bytes; visible {visible}"
    )


@pytest.mark.timeout(300)
async def test_killed_while_publishing_into_a_folder(tmp_path: Path) -> None:
    await kills_in_a_folder(tmp_path, FEW)


@pytest.mark.timeout(300)
async def test_killed_while_publishing_to_a_server(tmp_path: Path) -> None:
    await kills_at_a_server(tmp_path, FEW)


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_twenty_kills_while_publishing_into_a_folder(tmp_path: Path) -> None:
    await kills_in_a_folder(tmp_path, MANY)


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_twenty_kills_while_publishing_to_a_server(tmp_path: Path) -> None:
    await kills_at_a_server(tmp_path, MANY)
