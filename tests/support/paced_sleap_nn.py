"""A stand-in for sleap-nn that takes its time, goes on from a checkpoint, and can be
checked: what it trains follows from the job alone.

Started as `paced_sleap_nn.py resuming [epochs=N] [pace_s=S] train|predict ...`, for a
real worker. A run whose name begins with `real` is handed to sleap-nn itself.
"""

import hashlib
import os
import sys
import time
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from scripted_sleap_nn import SleapNN, checkpoint, predict
from scripted_trainer import Trainer

REAL = "real"
BATCHES = 4
STORAGE_BYTES = 256 * 1024
SLEAP_NN = ("-P", "-m", "sleap_nn.cli")


def storage_of(run_name: str) -> bytes:
    """Return the bytes that the training of this run always ends with."""
    seed = hashlib.sha256(run_name.encode()).digest()
    return hashlib.shake_256(seed).digest(STORAGE_BYTES)


def main() -> int:
    call = SleapNN(sys.argv[1:])
    if call.verb == "predict":
        return predict(call)
    run_name = call.override("run_name")
    if run_name.startswith(REAL):
        os.execv(  # noqa: S606 - no shell is wanted: one program becomes another
            sys.executable, [sys.executable, *SLEAP_NN, call.verb, *call.argv]
        )
    return train(call, run_name)


def train(call: SleapNN, run_name: str) -> int:
    folder = Path(call.override("ckpt_dir")) / run_name
    folder.mkdir(parents=True, exist_ok=True)
    trainer = call.trainer()
    for epoch in range(first_epoch(call), int(call.options.get("epochs", "4"))):
        if epoch:
            trainer.send("epoch_begin", epoch=epoch)
        train_epoch(call, trainer, epoch)
        save(folder / "last.ckpt", checkpoint(str(epoch).encode()))
    # What else a model has is written beside it, as for every scripted training.
    call.write_model()
    (folder / "best.ckpt").write_bytes(checkpoint(storage_of(run_name)))
    trainer.send("train_end")
    trainer.close()
    return 0


def train_epoch(call: SleapNN, trainer: Trainer, epoch: int) -> None:
    until = time.monotonic() + float(call.options.get("pace_s", "0.5"))
    trainer.epoch(epoch, batches=BATCHES)
    while (left_s := until - time.monotonic()) > 0:
        trainer.controller.poll(left_s * 1000)


def first_epoch(call: SleapNN) -> int:
    """Return where to begin: behind the epoch of the checkpoint, if there is one."""
    for word in call.argv:
        name, _, value = word.partition("=")
        if name.endswith("resume_ckpt_path"):
            with zipfile.ZipFile(value.strip('"')) as archive:
                return int(archive.read("best/data/0")) + 1
    return 0


def save(path: Path, data: bytes) -> None:
    """Write a file as a whole or not at all, as Lightning does."""
    part = path.with_suffix(".part")
    part.write_bytes(data)
    part.replace(path)


if __name__ == "__main__":
    sys.exit(main())
