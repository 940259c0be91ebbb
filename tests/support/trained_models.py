"""Folders as sleap-nn leaves them after a training: small, and different by a seed."""

import json
import random
import zipfile
from pathlib import Path

import msgspec

from sleap_rtc_plugin.registry.model_files import LocalModel, read_model

_CONFIG = """\
data_config:
  skeletons:
  - name: fly
    nodes:
    - name: head
    - name: thorax
model_config:
  head_configs:
    bottomup: null
    {head}:
      confmaps: {{sigma: 2.5}}
trainer_config:
  max_epochs: 2
  seed: {seed}
  use_wandb: false
  wandb:
    api_key: {key}
sleap_nn_version: 0.3.5
"""
_LOG = """\
epoch,train/loss,val/loss,learning_rate,train/time,val/time
0,,0.5,,,0.5
1,0.25,0.125,0.001,3.0,1.0
2,0.2,0.25,0.001,3.0,1.0
"""
# What torch.save writes for an empty mapping.
_EMPTY_PICKLE = b"\x80\x02}."


def write_checkpoint(path: Path, content: bytes) -> None:
    """Write a checkpoint that a scan lets through, with `content` as its weights."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (
            ("best/data.pkl", _EMPTY_PICKLE),
            ("best/data/0", content),
            ("best/version", b"3\n"),
        ):
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            archive.writestr(info, data)


def write_model(
    folder: Path,
    *,
    seed: int = 0,
    head: str = "single_instance",
    size_bytes: int = 2_000,
    wandb_key: str = "null",
) -> Path:
    """Write a model folder and return it; another seed makes other weights."""
    folder.mkdir(parents=True)
    noise = random.Random(seed).randbytes(size_bytes)  # noqa: S311 - any will do
    write_checkpoint(folder / "best.ckpt", noise)
    config = _CONFIG.format(head=head, seed=seed, key=wandb_key)
    (folder / "training_config.yaml").write_text(config)
    (folder / "initial_config.yaml").write_text(config)
    (folder / "training_log.csv").write_text(_LOG)
    (folder / "metrics.val.0.json").write_text(json.dumps({"seed": seed}))
    (folder / "labels_gt.train.0.slp").write_bytes(b"labels")
    return folder


def local_model(folder: Path, *, seed: int = 0, size_bytes: int = 2_000) -> LocalModel:
    """Write a model folder, if it is not there, and read it."""
    if not folder.exists():
        write_model(folder, seed=seed, size_bytes=size_bytes)
    return read_model([folder])


def as_plain(struct: msgspec.Struct) -> object:
    """Return a record as plain values, for comparing and for changing it by hand."""
    return msgspec.to_builtins(struct)
