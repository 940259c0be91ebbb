"""Reading a model from its folders: what is taken, refused, and what it is called."""

import os
import pickle
import sys
from pathlib import Path

import pytest
from support.trained_models import write_checkpoint, write_model

from sleap_rtc_plugin.protocol.errors import NotAModel, UnsafeCheckpoint
from sleap_rtc_plugin.registry import model_files
from sleap_rtc_plugin.registry.model_files import read_model
from sleap_rtc_plugin.registry.model_identity import model_id_of

TAKEN = {
    "best.ckpt",
    "initial_config.yaml",
    "metrics.val.0.json",
    "training_config.yaml",
    "training_log.csv",
}


def names_of(folder: Path) -> set[str]:
    return {Path(file.path).name for file in read_model([folder]).files}


def test_only_files_of_known_kinds_are_taken(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "run.n=24")
    (folder / "viz").mkdir()
    (folder / "notes.txt").write_text("mine")
    (folder / "last.ckpt").write_bytes(b"")
    model = read_model([folder])
    assert {file.path for file in model.files} == {f"run.n=24/{n}" for n in TAKEN}
    assert (model.type, model.name) == ("single_instance", "run.n=24")
    assert model.training.best_loss == 0.125
    assert model.training.skeleton == ["head", "thorax"]
    assert model.trained_at == pytest.approx((folder / "best.ckpt").stat().st_mtime)


def test_the_same_networks_are_the_same_model(tmp_path: Path) -> None:
    first = read_model([write_model(tmp_path / "a")])
    folder = write_model(tmp_path / "b")
    (folder / "metrics.val.0.json").unlink()
    (folder / "training_log.csv").write_text("")
    assert read_model([folder]).id == first.id
    assert read_model([write_model(tmp_path / "c", seed=2)]).id != first.id
    assert first.id == model_id_of(first.parts, first.model_files())


def test_a_pair_is_one_model_whatever_the_order(tmp_path: Path) -> None:
    centroid = write_model(tmp_path / "flies.centroid", head="centroid")
    instance = write_model(tmp_path / "flies.instance", head="centered_instance")
    model = read_model([instance, centroid])
    assert model.type == "topdown"
    assert [part.folder for part in model.parts] == ["flies.centroid", "flies.instance"]
    assert model.name == "flies"
    assert read_model([centroid, instance]).id == model.id
    assert read_model([centroid]).id != model.id
    assert model.training.duration_s == 2 * 8.5


def test_networks_that_are_not_used_together(tmp_path: Path) -> None:
    first = write_model(tmp_path / "a", head="centroid")
    second = write_model(tmp_path / "b", head="bottomup_x")
    with pytest.raises(NotAModel, match="are not used together"):
        read_model([first, second])
    for folders in ([], [first] * 3):
        with pytest.raises(NotAModel, match="one folder or two"):
            read_model(folders)


def test_names_that_not_every_system_stores_become_the_heads(tmp_path: Path) -> None:
    first = write_model(tmp_path / "con", head="centroid")
    second = write_model(tmp_path / "x" / "CON", head="centered_instance")
    model = read_model([first, second])
    assert [p.folder for p in model.parts] == ["centroid", "centered_instance"]
    third = write_model(tmp_path / "y" / "A", head="centroid")
    fourth = write_model(tmp_path / "z" / "a", head="centered_instance")
    model = read_model([third, fourth], "our\x1b name")
    assert [p.folder for p in model.parts] == ["centroid", "centered_instance"]
    assert model.name == "our  name"


@pytest.mark.parametrize("missing", ["best.ckpt", "training_config.yaml"])
def test_a_folder_without_what_a_model_needs(tmp_path: Path, missing: str) -> None:
    folder = write_model(tmp_path / "a")
    (folder / missing).unlink()
    with pytest.raises(NotAModel, match=f"it holds no {missing}"):
        read_model([folder])


def test_what_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(NotAModel, match="there is no such folder"):
        read_model([tmp_path / "nothing"])
    (tmp_path / "file").touch()
    with pytest.raises(NotAModel, match="it is no folder"):
        read_model([tmp_path / "file"])


@pytest.mark.skipif(sys.platform == "win32", reason="links are those of POSIX")
def test_links_and_pipes_are_not_files(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "a")
    (folder / "best.ckpt").rename(tmp_path / "elsewhere")
    (folder / "best.ckpt").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotAModel, match=r"holds no best\.ckpt"):
        read_model([folder])
    (folder / "best.ckpt").unlink()
    os.mkfifo(folder / "best.ckpt")
    with pytest.raises(NotAModel, match=r"holds no best\.ckpt"):
        read_model([folder])


class Attack:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("true",)


def test_what_would_run_code_is_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "a")
    (folder / "best.ckpt").write_bytes(pickle.dumps(Attack()))
    with pytest.raises(UnsafeCheckpoint):
        read_model([folder])
    write_checkpoint(folder / "best.ckpt", b"weights")
    (folder / "metrics.val.0.npz").write_bytes(pickle.dumps(Attack()))
    with pytest.raises(UnsafeCheckpoint):
        read_model([folder])


def test_the_key_of_a_service_is_not_published(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "a", wandb_key="0123456789abcdef")
    model = read_model([folder])
    for file in model.files:
        if file.path.endswith(".yaml"):
            assert file.content is not None
            assert b"0123456789abcdef" not in file.content
            assert len(file.content) == file.size_bytes
    assert read_model([write_model(tmp_path / "b")]).id == model.id
    assert b"0123456789abcdef" in (folder / "training_config.yaml").read_bytes()


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ("a: [", "it is not YAML"),
        ("trainer_config: {}", "head_configs"),
        ("model_config: {head_configs: {centroid: {}, bottomup: {}}}", "choose one"),
        ("a: &x 1\nb: *x", "aliases"),
    ],
)
def test_configurations_that_are_none(tmp_path: Path, config: str, reason: str) -> None:
    folder = write_model(tmp_path / "a")
    (folder / "training_config.yaml").write_text(config)
    with pytest.raises(NotAModel, match=reason):
        read_model([folder])


def test_absurd_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_model(tmp_path / "a")
    monkeypatch.setitem(model_files._LIMITS, "training_log.csv", 10)
    with pytest.raises(NotAModel, match=r"its training_log.csv is larger than"):
        read_model([folder])
    monkeypatch.setitem(model_files._LIMITS, "training_log.csv", 10_000)
    monkeypatch.setattr(model_files, "MAX_MODEL_BYTES", 100)
    with pytest.raises(NotAModel, match="larger than"):
        read_model([folder])
