"""What a try that was cut off leaves to the next one."""

import csv
import io
import pickle
import zipfile
from pathlib import Path

import pytest

from sleap_rtc_worker.step_checkpoint import (
    Kept,
    checkpoint_epochs,
    drop_last,
    is_whole,
    join_log,
    joined_logs,
    put_best_back,
    rescue,
)


def write_checkpoint(path: Path, epoch: int, word: bytes = b"") -> None:
    """Write what torch does: a zip, described by a pickle, with its tensors beside."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        state = {"epoch": epoch, "global_step": 10 * epoch, "state_dict": {}}
        archive.writestr("last/data.pkl", pickle.dumps(state, protocol=2))
        archive.writestr("last/data/0", word * 1000)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "models" / "r"
    (folder / "viz").mkdir(parents=True)
    (folder / "train_imgs").mkdir()
    (folder / "train_imgs" / "0.jpg").write_bytes(b"image")
    (folder / "viz" / "validation.0000.png").write_bytes(b"image")
    (folder / "labels_gt.train.0.slp").write_bytes(b"labels")
    (folder / "training_config.yaml").write_text("seed: 7\n")
    (folder / "training_log.csv").write_text("epoch,val/loss\n0,0.5\n1,0.4\n2,0.")
    write_checkpoint(folder / "best.ckpt", 0, b"best")
    write_checkpoint(folder / "last.ckpt", 1, b"last")
    return folder


def test_checkpoints_are_kept_and_nothing_else_stays(
    run_dir: Path, tmp_path: Path
) -> None:
    kept_dir = tmp_path / "kept"
    for _ in range(2):
        kept = rescue(run_dir, kept_dir)
        assert kept == Kept(kept_dir / "last.ckpt", 2)
        assert [path.name for path in run_dir.iterdir()] == ["viz"]
        assert sorted(path.name for path in kept_dir.iterdir()) == [
            "best.ckpt",
            "last.ckpt",
            "training_config.yaml",
            "training_log.csv",
        ]
    assert (kept_dir / "training_log.csv").read_text().splitlines()[1:] == [
        "0,0.5",
        "1,0.4",
    ]


def test_a_torn_checkpoint_is_never_used(run_dir: Path, tmp_path: Path) -> None:
    whole = (run_dir / "last.ckpt").read_bytes()
    for torn in (
        whole[:-30],
        whole[:200],
        b"",
        whole.replace(b"last" * 9, b"lost" * 9),
    ):
        (run_dir / "last.ckpt").write_bytes(torn)
        assert not is_whole(run_dir / "last.ckpt")
    assert not is_whole(run_dir)
    assert not is_whole(run_dir / "missing")
    kept = rescue(run_dir, tmp_path / "kept")
    assert kept == Kept(tmp_path / "kept" / "best.ckpt", 1)


def test_a_link_is_no_checkpoint(run_dir: Path, tmp_path: Path) -> None:
    (run_dir / "last.ckpt").replace(tmp_path / "elsewhere.ckpt")
    (run_dir / "last.ckpt").symlink_to(tmp_path / "elsewhere.ckpt")
    assert not is_whole(run_dir / "last.ckpt")
    rescue(run_dir, tmp_path / "kept")
    assert (tmp_path / "elsewhere.ckpt").is_file()


def test_nothing_to_keep(tmp_path: Path) -> None:
    assert rescue(tmp_path / "none", tmp_path / "kept") == Kept()


def test_the_epoch_is_read_without_loading(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    for protocol in (2, 4, 5):
        for epoch in (0, 7, 70_000):
            with zipfile.ZipFile(path, "w") as archive:
                state = {"epoch": epoch, "rest": [print]}
                archive.writestr("x/data.pkl", pickle.dumps(state, protocol=protocol))
            assert checkpoint_epochs(path) == epoch + 1
    for text in (b"", b"cos\nsystem\n(S'true'\ntR.", pickle.dumps({"epoch": "x"})):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x/data.pkl", text)
        assert checkpoint_epochs(path) is None


def test_the_best_model_comes_back_unless_there_is_a_better_one(
    run_dir: Path, tmp_path: Path
) -> None:
    kept_dir = tmp_path / "kept"
    best = (run_dir / "best.ckpt").read_bytes()
    rescue(run_dir, kept_dir)
    # sleap-nn has not chosen its folder yet, and would choose another.
    assert not put_best_back(run_dir, kept_dir)
    assert not (run_dir / "best.ckpt").exists()
    (run_dir / "initial_config.yaml").write_text("")
    assert put_best_back(run_dir, kept_dir)
    assert (run_dir / "best.ckpt").read_bytes() == best
    # The next try is cut off at once: both names are one file by now.
    rescue(run_dir, kept_dir)
    assert not (run_dir / "best.ckpt").exists()
    assert (kept_dir / "best.ckpt").read_bytes() == best
    (run_dir / "initial_config.yaml").write_text("")
    write_checkpoint(run_dir / "best.ckpt", 5, b"better")
    better = (run_dir / "best.ckpt").read_bytes()
    assert put_best_back(run_dir, kept_dir)
    assert (run_dir / "best.ckpt").read_bytes() == better
    assert not put_best_back(tmp_path / "not yet", kept_dir)


def test_the_log_is_joined_and_the_last_checkpoint_dropped(
    run_dir: Path, tmp_path: Path
) -> None:
    kept_dir = tmp_path / "kept"
    rescue(run_dir, kept_dir)
    (run_dir / "training_log.csv").write_text("epoch,val/loss\n1,0.41\n2,0.3\n")
    write_checkpoint(run_dir / "last.ckpt", 2)
    join_log(run_dir, kept_dir)
    drop_last(run_dir)
    drop_last(run_dir)
    assert not (run_dir / "last.ckpt").exists()
    rows = list(csv.reader(io.StringIO((run_dir / "training_log.csv").read_text())))
    assert rows == [["epoch", "val/loss"], ["0", "0.5"], ["1", "0.41"], ["2", "0.3"]]


def test_what_a_row_leaves_empty_is_known_from_before() -> None:
    # sleap-nn's first row after a restart has no training loss.
    joined = joined_logs("epoch,train,val\n0,9,8\n1,7,6\n", "epoch,train,val\n1,,5\n")
    assert joined.splitlines() == ["epoch,train,val", "0,9,8", "1,7,5"]
    assert joined_logs("", "epoch,a\n0,1\n").splitlines() == ["epoch,a", "0,1"]
    assert joined_logs("epoch,b\n0,1\n", "epoch,a\n1,1\n").split() == ["epoch,a", "1,1"]
    assert joined_logs("epoch,a\n0,1\n", "").splitlines() == ["epoch,a", "0,1"]
