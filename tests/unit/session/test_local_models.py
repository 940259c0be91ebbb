"""Which trained models lie in a folder, and which of them belong together."""

import os
from pathlib import Path

import pytest
import yaml

from sleap_rtc_plugin.session.local_models import (
    LocalModel,
    find_local_models,
    model_sets,
)


def write_model(folder: Path, head: str, at: float = 1000.0) -> Path:
    """Write what looks like a trained model."""
    folder.mkdir(parents=True)
    config = {
        "data_config": {},
        "model_config": {"head_configs": {head: {"confmaps": {}}}},
        "trainer_config": {},
    }
    (folder / "training_config.yaml").write_text(yaml.safe_dump(config))
    (folder / "best.ckpt").write_bytes(b"weights")
    os.utime(folder / "best.ckpt", (at, at))
    return folder


def model(name: str, head: str, at: float = 0.0) -> LocalModel:
    return LocalModel(Path("/m") / name, head, at)


def test_trained_models_are_found_the_newest_first(tmp_path: Path) -> None:
    write_model(tmp_path / "old", "bottomup", 1000.0)
    write_model(tmp_path / "new", "single_instance", 2000.0)
    untrained = write_model(tmp_path / "untrained", "bottomup")
    (untrained / "best.ckpt").unlink()
    broken = write_model(tmp_path / "broken", "bottomup")
    (broken / "training_config.yaml").write_text("a: [")
    huge = write_model(tmp_path / "huge", "bottomup")
    (huge / "training_config.yaml").write_bytes(b"#" * (2 << 20))
    (tmp_path / "file.yaml").write_text("x")
    found = find_local_models(tmp_path)
    assert [(one.folder.name, one.head) for one in found] == [
        ("new", "single_instance"),
        ("old", "bottomup"),
    ]


def test_a_folder_that_is_not_there_has_none(tmp_path: Path) -> None:
    assert find_local_models(tmp_path / "models") == []


@pytest.mark.parametrize(
    ("first", "second", "name"),
    [
        (
            "261120_101500.centroid.n=20",
            "261120_101500.centered_instance.n=20",
            "261120_101500.n=20",
        ),
        ("centroid", "centered_instance", None),
        ("flies.centroid", "flies.centered_instance", "flies"),
        ("a.centroid.n=20", "b.centered_instance.n=20", None),
        ("a.centroid.n=20", "a.centered_instance.n=21", None),
    ],
)
def test_pairs_are_known_by_their_names(
    first: str, second: str, name: str | None
) -> None:
    one, two = model(first, "centroid", 1.0), model(second, "centered_instance", 2.0)
    sets = model_sets([two, one])
    if name is None:
        assert [len(found.models) for found in sets] == [1, 1]
        assert {found.name for found in sets} == {first, second}
    else:
        (found,) = sets
        assert (found.name, found.type) == (name, "topdown")
        assert found.models == (one, two), "in the order in which they are used"
        assert found.trained_at == 2.0


def test_models_of_one_network_stand_alone() -> None:
    others = [model("a.bottomup", "bottomup"), model("a.centroid", "centroid")]
    sets = model_sets(others)
    assert [(found.name, found.type) for found in sets] == [
        ("a.bottomup", "bottomup"),
        ("a.centroid", "centroid"),
    ]
