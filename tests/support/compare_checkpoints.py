"""Prints how many tensors two checkpoints share and which differ in any bit.

Started as `compare_checkpoints.py FIRST SECOND`, in a process of its own since torch
is heavy; loads nothing but tensors and plain values.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch


def tensors(value: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            if str(key).startswith("LastEpochCheckpoint"):
                # A worker lets every epoch be saved, to go on from after a crash; the
                # callback's own state in here is no part of the model.
                continue
            # Lightning remembers the best score by its file's absolute path.
            short = Path(key).name if str(key).endswith(".ckpt") else key
            yield from tensors(inner, f"{name}/{short}")
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from tensors(inner, f"{name}/{index}")


def main() -> None:
    first, second = (
        dict(tensors(torch.load(path, map_location="cpu", weights_only=True)))
        for path in sys.argv[1:3]
    )
    different = sorted(first.keys() ^ second.keys())
    different += [
        name
        for name in first.keys() & second.keys()
        if first[name].dtype != second[name].dtype
        or not torch.equal(first[name], second[name])
    ]
    weights = [name for name in first if name.startswith("/state_dict/")]
    found = {"weights": len(weights), "different": different}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
