"""Training packages for tests, cut from the demo's, which sleap-nn really trains.

Each is what SLEAP would export; `rewrite` makes every variant a test needs.
"""

import contextlib
import os
import shutil
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

LABELS = "demo.pkg.slp"
CENTROID = "centroid.yaml"
INSTANCE = "centered_instance.yaml"
CONFIGS = (CENTROID, INSTANCE)
MIB = 1024 * 1024

Members = dict[str, bytes]


def read_members(package: Path) -> Members:
    with zipfile.ZipFile(package) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_package(path: Path, members: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def rewrite(source: Path, target: Path, change: Callable[[Members], object]) -> Path:
    """Write a package with other members; `change` edits them in place."""
    members = read_members(source)
    change(members)
    return write_package(target, members)


def edit_config(members: Members, name: str, values: Mapping[str, Any]) -> None:
    """Set values in a configuration by dotted names."""
    config = yaml.safe_load(members[name])
    for path, value in values.items():
        *parents, last = path.split(".")
        node = config
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    members[name] = yaml.safe_dump(config, sort_keys=False).encode()


def shorten(members: Members, *, epochs: int, steps: int) -> None:
    """Make sleap-nn's training as short as can be."""
    for name in CONFIGS:
        values = {
            "trainer_config.max_epochs": epochs,
            "trainer_config.train_steps_per_epoch": steps,
            "trainer_config.min_train_steps_per_epoch": steps,
        }
        edit_config(members, name, values)


def keep_one_training(members: Members) -> None:
    """Leave the first training only: no second model, no inference."""
    jobs = yaml.safe_load(members["jobs.yaml"])
    jobs["training"], jobs["inference"] = jobs["training"][:1], []
    members["jobs.yaml"] = yaml.safe_dump(jobs).encode()
    for name in (INSTANCE, "train-script.sh", "inference-script.sh"):
        del members[name]


def pad_labels(package: Path, target: Path, size_mib: int, scratch: Path) -> Path:
    """Make a package large with data in its labels that nothing compresses."""
    import h5py
    import numpy as np

    members = read_members(package)
    labels = scratch / "padded.slp"
    labels.write_bytes(members[LABELS])
    with h5py.File(labels, "a") as file:
        noise = np.frombuffer(os.urandom(size_mib * MIB), dtype=np.uint8)
        file.create_dataset("padding", data=noise)
    members[LABELS] = labels.read_bytes()
    labels.unlink()
    return write_package(target, members)


def extract(package: Path, folder: Path) -> Path:
    shutil.unpack_archive(package, folder, "zip")
    return folder


def with_images(
    package: Path, target: Path, images: Sequence[bytes], scratch: Path
) -> Path:
    """Add images to a package's labels as SLEAP embeds them, a row each."""
    import h5py
    import numpy as np

    members = read_members(package)
    labels = scratch / "images.slp"
    labels.write_bytes(members[LABELS])
    with h5py.File(labels, "a") as file:
        shape = (len(images), max(map(len, images)))
        rows = file.create_dataset("video9/video", shape, "int8")
        for number, image in enumerate(images):
            rows[number, : len(image)] = np.frombuffer(image, np.int8)
    members[LABELS] = labels.read_bytes()
    labels.unlink()
    return write_package(target, members)


def bytes_on_disk(folder: Path, pattern: str) -> int:
    """Return how much of files that are still being written has reached the disk."""
    total_bytes = 0
    for path in folder.glob(pattern):
        # A part is renamed once it is whole.
        with contextlib.suppress(FileNotFoundError):
            total_bytes += path.stat().st_blocks * 512
    return total_bytes
