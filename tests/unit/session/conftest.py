"""Synthetic packages: the files of a real one, small, with any of them replaced."""

import copy
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

LABELS = b"stands for labels; the check of labels is replaced in these tests"

CENTROID: dict[str, Any] = {
    "data_config": {"train_labels_path": ["fly.pkg.slp"], "val_labels_path": None},
    "model_config": {
        "pretrained_backbone_weights": None,
        "head_configs": {"centroid": {"confmaps": {}}, "centered_instance": None},
    },
    "trainer_config": {
        "ckpt_dir": "models",
        "run_name": "a.centroid",
        "wandb": {"api_key": None},
    },
}
INSTANCE = copy.deepcopy(CENTROID)
INSTANCE["model_config"]["head_configs"] = {
    "centroid": None,
    "centered_instance": {"confmaps": {}},
}
INSTANCE["trainer_config"]["run_name"] = "b.centered"

JOBS: dict[str, Any] = {
    "inference": [
        {
            "data_path": "fly.pkg.slp",
            "models": ["models/a.centroid", "models/b.centered"],
            "only_suggested_frames": True,
            "output_path": "fly.pkg.slp.predictions.slp",
            "tracking": {},
            "type": "labels",
        }
    ],
    "training": [
        {
            "cfg": "centroid.yaml",
            "run_path": "models/a.centroid",
            "train_labels": "fly.pkg.slp",
        },
        {
            "cfg": "centered_instance.yaml",
            "run_path": "models/b.centered",
            "train_labels": "fly.pkg.slp",
        },
    ],
}
TRAIN_SCRIPT = (
    "#!/bin/bash\n"
    "sleap train --config-name centroid.yaml --config-dir . "
    "'trainer_config.ckpt_dir=\"models\"' 'trainer_config.run_name=\"a.centroid\"' \n"
    "sleap train --config-name centered_instance.yaml --config-dir . "
    "'trainer_config.run_name=\"b.centered\"' \n"
)
INFERENCE_SCRIPT = (
    "#!/bin/bash\n"
    "sleap predict --gui --data_path /home/someone/fly.slp --only_suggested_frames "
    "--model_paths models/a.centroid --model_paths models/b.centered "
    "-o fly.pkg.slp.predictions.slp --exclude_user_labeled --peak_threshold 0.3\n"
)

Members = dict[str, bytes]
WriteZip = Callable[[Members], Path]


def dump(value: Any) -> bytes:
    return yaml.safe_dump(value, sort_keys=False).encode()


@pytest.fixture
def members() -> Members:
    return {
        "centroid.yaml": dump(CENTROID),
        "centered_instance.yaml": dump(INSTANCE),
        "jobs.yaml": dump(JOBS),
        "fly.pkg.slp": LABELS,
        "train-script.sh": TRAIN_SCRIPT.encode(),
        "inference-script.sh": INFERENCE_SCRIPT.encode(),
    }


@pytest.fixture
def centroid() -> dict[str, Any]:
    return copy.deepcopy(CENTROID)


@pytest.fixture
def jobs() -> dict[str, Any]:
    return copy.deepcopy(JOBS)


@pytest.fixture
def to_yaml() -> Callable[[Any], bytes]:
    return dump


@pytest.fixture
def write_zip(tmp_path: Path) -> WriteZip:
    def write(members: Members) -> Path:
        path = tmp_path / "fly.training_job.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        return path

    return write


@pytest.fixture
def write_folder(tmp_path: Path) -> WriteZip:
    def write(members: Members) -> Path:
        folder = tmp_path / "package folder"
        for name, data in members.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return folder

    return write
