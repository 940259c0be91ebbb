"""What the room sees of a worker's store: which it is, and nothing else."""

from pathlib import Path

import pytest

from sleap_rtc_plugin.protocol.errors import StoreInvalid
from sleap_rtc_worker.file_manager import FileManager
from sleap_rtc_worker.model_tools import ModelOptions, ModelTools

LAB = "s3://lab/models?endpoint=http://127.0.0.1:9&credentials=none"


def tools(folder: Path, name: str, **options: str) -> ModelTools:
    data = folder / name
    files = FileManager(data, store_limit_bytes=0)
    return ModelTools(data, files, ModelOptions(**options), name, "0.3.5")  # type: ignore[arg-type]


def seen(folder: Path, name: str, **options: str) -> str:
    return tools(folder, name, **options).properties["model_store"]


def test_workers_with_one_store_are_known_by_it(tmp_path: Path) -> None:
    shared, link = tmp_path / "shared", tmp_path / "link"
    shared.mkdir()
    link.symlink_to(shared)
    first = seen(tmp_path, "a", store=str(shared))
    assert first == seen(tmp_path, "b", store=str(link))
    assert first != seen(tmp_path, "c", store=str(shared), room="other")
    assert seen(tmp_path, "d") != seen(tmp_path, "e")
    assert seen(tmp_path, "f", store=LAB) == seen(tmp_path, "g", store=LAB)
    assert seen(tmp_path, "h", store=LAB).startswith("s3:")


def test_it_tells_neither_path_nor_address(tmp_path: Path) -> None:
    own = tools(tmp_path, "a")
    assert own.properties["model_store"].startswith("folder:")
    assert len(own.properties["model_store"]) < 40
    assert (tmp_path / "a" / "models").is_dir()
    assert str(tmp_path) not in own.models._store.name
    assert "lab" not in seen(tmp_path, "b", store=LAB)


@pytest.mark.parametrize("address", ["http://lab/models", "", "s3://A B", "a\0b"])
def test_an_address_that_is_none_is_refused(tmp_path: Path, address: str) -> None:
    with pytest.raises(StoreInvalid):
        tools(tmp_path, "a", store=address)


def test_a_disk_that_is_not_mounted_keeps_no_worker_from_starting(
    tmp_path: Path,
) -> None:
    missing = tmp_path / "not-mounted"
    assert seen(tmp_path, "a", store=str(missing)).startswith("folder:")
    assert not missing.exists()
