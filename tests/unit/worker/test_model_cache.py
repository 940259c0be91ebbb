"""The worker's copies of models: bounded, verified, and kept while they are used."""

import os
from pathlib import Path

import msgspec
import pytest
from blake3 import blake3

from sleap_rtc_plugin.protocol.errors import DiskFull, ModelDamaged
from sleap_rtc_plugin.protocol.model_records import ModelFile, ModelPart, ModelRecord
from sleap_rtc_worker.model_cache import ModelCache

SIZE = 100
NAMES = ("best.ckpt", "training_config.yaml")


class Clock:
    """Unix seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def model_id(number: int) -> str:
    return f"model-{number:020x}"


def record_of(number: int) -> ModelRecord:
    data = bytes([number]) * (SIZE // 2)
    return ModelRecord(
        id=model_id(number),
        type="centroid",
        name="flies",
        parts=[ModelPart(folder="c", head="centroid")],
        checkpoint_path="c/best.ckpt",
        files=[
            ModelFile(
                path=f"c/{name}",
                size_bytes=len(data),
                digest=blake3(data).hexdigest(),
            )
            for name in NAMES
        ],
        size_bytes=SIZE,
        published_at=1.0,
    )


def put(cache: ModelCache, number: int) -> ModelRecord:
    record = record_of(number)
    folder = cache.incoming(record) / "c"
    folder.mkdir()
    for name in NAMES:
        (folder / name).write_bytes(bytes([number]) * (SIZE // 2))
    cache.keep(record)
    return record


@pytest.fixture
def cache(tmp_path: Path) -> ModelCache:
    return ModelCache(tmp_path / "cache", 3 * SIZE, now=Clock())


def held(cache: ModelCache) -> set[str]:
    return set(cache.records)


def test_what_was_not_used_for_longest_goes_first(
    cache: ModelCache, tmp_path: Path
) -> None:
    for number in (1, 2, 3):
        put(cache, number)
    cache.copy(model_id(1), tmp_path / "job")
    put(cache, 4)
    assert held(cache) == {model_id(n) for n in (1, 3, 4)}
    assert cache.size_bytes == 3 * SIZE
    assert not (tmp_path / "cache" / model_id(2)).exists()


def test_what_is_in_use_stays_and_goes_when_it_is_not(cache: ModelCache) -> None:
    with cache.using(model_id(1)), cache.using(model_id(1)):
        for number in (1, 2, 3, 4):
            put(cache, number)
        assert model_id(1) in held(cache)
        assert model_id(2) not in held(cache)
        cache.keep_only({model_id(4)})
        assert held(cache) == {model_id(1), model_id(4)}
    cache.trim()
    assert held(cache) == {model_id(4)}


def test_one_that_is_larger_than_the_cache_is_there_while_it_is_used(
    tmp_path: Path,
) -> None:
    cache = ModelCache(tmp_path / "cache", 0)
    with cache.using(model_id(1)):
        put(cache, 1)
        cache.copy(model_id(1), tmp_path / "job")
    cache.trim()
    assert not held(cache)
    assert (tmp_path / "job" / "c" / "best.ckpt").read_bytes() == b"\1" * (SIZE // 2)


def test_a_later_worker_takes_it_up_but_for_what_is_torn(
    cache: ModelCache, tmp_path: Path
) -> None:
    for number in (1, 2):
        put(cache, number)
    cache.incoming(record_of(5))
    folder = tmp_path / "cache"
    (folder / model_id(2) / "record.json").write_bytes(b"{")
    (folder / "stray").write_bytes(b"x")
    (folder / model_id(6)).mkdir()
    again = ModelCache(folder, 3 * SIZE)
    assert held(again) == {model_id(1)}
    assert [path.name for path in folder.iterdir()] == [model_id(1)]


def test_the_last_use_outlives_the_worker(cache: ModelCache, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        put(cache, number)
        path = tmp_path / "cache" / model_id(number) / "record.json"
        os.utime(path, (number, number))
    cache.verify(model_id(1))
    again = ModelCache(tmp_path / "cache", SIZE)
    assert held(again) == {model_id(1)}


@pytest.mark.parametrize("damage", ["changed", "shorter", "gone", "link"])
def test_a_copy_that_changed_is_noticed_and_leaves(
    cache: ModelCache, tmp_path: Path, damage: str
) -> None:
    put(cache, 1)
    path = cache.files_of(model_id(1)) / "c" / "best.ckpt"
    match damage:
        case "changed":
            path.write_bytes(b"\2" * (SIZE // 2))
        case "shorter":
            path.write_bytes(b"\1" * (SIZE // 2 - 1))
        case "gone":
            path.unlink()
        case "link":
            other = tmp_path / "other"
            other.write_bytes(b"\2" * (SIZE // 2))
            path.unlink()
            path.hardlink_to(other)
    with pytest.raises(ModelDamaged, match=r"c/best\.ckpt.*changed"):
        cache.copy(model_id(1), tmp_path / "job")
    assert not held(cache)
    assert not (tmp_path / "job").exists()
    with pytest.raises(ModelDamaged, match="gone"):
        cache.verify(model_id(1))


def test_a_record_with_an_odd_path_is_not_taken_up(
    cache: ModelCache, tmp_path: Path
) -> None:
    record = put(cache, 1)
    odd = msgspec.json.encode(record).replace(b"c/best.ckpt", b"../../passwd")
    (tmp_path / "cache" / model_id(1) / "record.json").write_bytes(odd)
    assert not held(ModelCache(tmp_path / "cache", 3 * SIZE))


def test_no_room_on_the_disk_is_said_before_anything_is_fetched(
    cache: ModelCache,
) -> None:
    huge = msgspec.structs.replace(record_of(1), size_bytes=2**60)
    with pytest.raises(DiskFull):
        cache.incoming(huge)
