"""What a training on a worker is held against: the same package, trained here."""

import csv
import shlex
from pathlib import Path

from support.programs import SUPPORT, Programs

TRAINING_S = 420.0


def assert_same_as_local(programs: Programs, folder: Path, models: list[Path]) -> None:
    """Train the package in `folder` there, by its own script, and compare every bit."""
    for line in (folder / "train-script.sh").read_text().splitlines():
        if not line.startswith("sleap train "):
            continue
        # A worker has sleap-nn alone; its `train` is the one that `sleap train` calls.
        words = shlex.split(line)[1:]
        local = programs.start("-P", "-m", "sleap_nn.cli", *words, cwd=folder)
        assert local.wait(TRAINING_S) == 0, local.story()
    for model in models:
        beside = folder / "models" / model.name
        compare = programs.start(
            SUPPORT / "compare_checkpoints.py",
            beside / "best.ckpt",
            model / "best.ckpt",
        )
        assert compare.wait() == 0, compare.story()
        assert compare.report["weights"] > 10
        assert compare.report["different"] == []
        for name in ("training_config.yaml", "initial_config.yaml"):
            assert (model / name).read_text() == (beside / name).read_text()
        ours, theirs = (_log(place / "training_log.csv") for place in (model, beside))
        assert ours == theirs
        assert len(ours) > 1


def _log(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert any(name.endswith("/time") for name in rows[0])
    return [
        {name: value for name, value in row.items() if not name.endswith("/time")}
        for row in rows
    ]
