"""One chunk store under several processes, and under processes that are killed."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sleap_rtc_plugin.protocol.manifest import FileEntry, pack_chunks
from sleap_rtc_plugin.transport.chunk_store import ChunkStore
from sleap_rtc_plugin.transport.file_source import digest_of

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(sys.platform == "win32", reason="kills as POSIX does"),
]
LIMIT_BYTES = 400_000
KILLS = 12

# Keeps, finds, reads and trims without end, and says each round that it is at work.
CHURN = """
import random, sys
from pathlib import Path
sys.path.insert(0, {here!r})
from test_chunk_store_processes import LIMIT_BYTES, entry_of, noise
from sleap_rtc_plugin.transport.chunk_store import ChunkStore
root, seed, rounds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
store = ChunkStore(root / "store", max_bytes=LIMIT_BYTES)
made = random.Random(seed)
for turn in range(rounds):
    data = noise(made.randrange(40))
    path = root / f"{{seed}}-{{turn}}"
    path.write_bytes(data)
    store.keep([(path, entry_of(data))], 1e9 + turn)
    path.unlink()
    store.trim(1e9 + turn)
    wanted = [entry.chunk_digests[:32] for entry in map(entry_of, map(noise, range(5)))]
    with store.lease([entry_of(data).digest], 1e9 + turn):
        for places in store.find(wanted).values():
            store.read(places[0])
    print(turn, flush=True)
store.close()
"""


def noise(seed: int) -> bytes:
    return random.Random(seed).randbytes(20_000 + seed)  # noqa: S311 - test data


def entry_of(data: bytes) -> FileEntry:
    pieces = [data[i : i + 1000] for i in range(0, len(data), 1000)]
    packed = pack_chunks(list(map(len, pieces)), list(map(digest_of, pieces)))
    return FileEntry("file", len(data), digest_of(data), *packed)


def churn(root: Path, seed: int, rounds: int) -> subprocess.Popen[str]:
    script = CHURN.format(here=str(Path(__file__).parent))
    return subprocess.Popen(
        [sys.executable, "-c", script, str(root), str(seed), str(rounds)],
        stdout=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )


def check(root: Path, now: float = 2e9) -> int:
    """Open the store as the next process does; return how many files it has."""
    store = ChunkStore(root / "store", max_bytes=LIMIT_BYTES)
    try:
        store.trim(now)
        names = {path.name for path in (root / "store" / "files").iterdir()}
        found = 0
        for data in map(noise, range(40)):
            entry = entry_of(data)
            whole = store.file(entry.digest)
            assert (whole is not None) == (entry.digest.hex() in names)
            if whole is None:
                continue
            found += 1
            assert store.read(whole) == data
            places = store.find([entry.chunk_digests[:32]])[entry.chunk_digests[:32]]
            assert store.read(places[0]) == data[:1000]
        assert len(names) == found
        assert found * 20_000 <= LIMIT_BYTES
        return found
    finally:
        store.close()


def test_a_store_survives_processes_that_are_killed(tmp_path: Path) -> None:
    pauses = random.Random(7)  # noqa: S311 - when to kill
    for seed in range(KILLS):
        with churn(tmp_path, seed, 100_000) as process:
            assert process.stdout is not None
            # At work; killed at any point of what follows.
            process.stdout.readline()
            deadline = time.monotonic() + pauses.uniform(0, 0.1)
            while time.monotonic() < deadline:
                process.stdout.readline()
            process.kill()
            process.wait()
        check(tmp_path)
    assert check(tmp_path) > 0


def test_a_store_serves_processes_at_once(tmp_path: Path) -> None:
    processes = [churn(tmp_path, seed, 60) for seed in range(3)]
    for process in processes:
        with process:
            out, _ = process.communicate(timeout=100)
        assert process.returncode == 0
        assert out.split()[-1] == "59"
    assert check(tmp_path) > 0
