"""A stand-in for sleap-nn's command line that trains in no time, for a real worker.

Started as `scripted_sleap_nn.py BEHAVIOUR [name=value ...] train|predict ...` with
the words that a worker gives to sleap-nn behind it. Writes the files that a training
leaves, and speaks real ZMQ as `scripted_trainer` does.
"""

import io
import json
import os
import pickle
import re
import shutil
import signal
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import zmq

sys.path.insert(0, str(Path(__file__).parent))

from scripted_trainer import Trainer

# Longer than the longest time for which anybody is held still.
WAIT_S = 400.0
POLL_MS = 20
MIB = 1024 * 1024


class SleapNN:
    """One call of the stand-in."""

    def __init__(self, words: list[str]) -> None:
        verb = next(w for w in words[1:] if w in ("train", "predict"))
        at = words.index(verb, 1)
        self.verb, self.argv = verb, words[at + 1 :]
        self.options = dict(word.split("=", 1) for word in words[1:at])
        self.behaviour = words[0]
        if "log" in self.options:
            with Path(self.options["log"]).open("a") as log:
                log.write(f"{verb} {os.getpid()}\n")

    # -- words ---------------------------------------------------------------------

    def override(self, name: str) -> str:
        """Return a Hydra override without its quotes."""
        for word in self.argv:
            found = re.fullmatch(rf'\+\+trainer_config\.{name}="?([^"]*)"?', word)
            if found:
                return found[1]
        sys.exit(f"the worker gave no {name}: {self.argv}")

    def value(self, option: str) -> str:
        """Return the value of `--option=value`."""
        for word in self.argv:
            if word.startswith(f"--{option}="):
                return word.partition("=")[2]
        sys.exit(f"the worker gave no --{option}: {self.argv}")

    # -- training ------------------------------------------------------------------

    def wait_for(self, path: Path) -> None:
        """Wait until the test has made a file."""
        until = time.monotonic() + WAIT_S
        while not path.exists():
            if time.monotonic() > until:
                sys.exit(f"nobody made {path}")
            time.sleep(POLL_MS / 1000)

    def trainer(self) -> Trainer:
        publish = self.override("zmq.publish_port")
        controller = self.override("zmq.controller_port")
        words = [f"publish={publish}", f"controller={controller}"]
        trainer = Trainer([self.behaviour, *words])
        trainer.connect()
        trainer.begin()
        return trainer

    def write_model(self) -> None:
        folder = Path(self.override("ckpt_dir")) / self.override("run_name")
        folder.mkdir(parents=True, exist_ok=True)
        size = int(self.options.get("checkpoint_mib", "0")) * MIB
        (folder / "best.ckpt").write_bytes(checkpoint(os.urandom(size)))
        (folder / "training_log.csv").write_text("epoch,train/loss\n0,0.5\n")
        config = self.config()
        for name in ("initial_config.yaml", "training_config.yaml"):
            (folder / name).write_text(config)
        for name in ("labels_gt.train.0.slp", "labels_gt.val.0.slp"):
            (folder / name).write_bytes(b"labels")

    def config(self) -> str:
        """Return the configuration that the worker gave, as sleap-nn saves it."""
        at = {word: self.argv[n + 1] for n, word in enumerate(self.argv[:-1])}
        return Path(at["--config-dir"], at["--config-name"]).read_text()

    def finish(self, trainer: Trainer) -> int:
        self.write_model()
        trainer.send("train_end")
        trainer.close()
        return 0

    def wait_for_gate(self, trainer: Trainer) -> None:
        """Train until the gate opens or, unless told to be deaf, a stop comes."""
        gate = Path(self.options["gate"])
        until = time.monotonic() + WAIT_S
        while not gate.exists():
            if trainer.controller.poll(POLL_MS, zmq.POLLIN):
                message = json.loads(trainer.controller.recv())
                if message == {"command": "stop"} and "deaf" not in self.options:
                    return
            elif time.monotonic() > until:
                sys.exit("nobody opened the gate")


def checkpoint(storage: bytes, **state: object) -> bytes:
    """Return a zip laid out as `torch.save` does it, with nothing but one storage."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("best/data.pkl", pickle.dumps(state, protocol=2))
        archive.writestr("best/data/0", storage)
    return data.getvalue()


def replace(path: Path, data: bytes) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(data)
    part.replace(path)


class EpochRun:
    """A training as sleap-nn does it, epoch by epoch, with its checkpoints.

    Goes on from `resume_ckpt_path`; every other epoch is better than all before.
    """

    def __init__(self, call: SleapNN) -> None:
        self.call = call
        self.total = int(call.options.get("epochs", "4"))
        self.pace_ms = int(call.options.get("pace_ms", "100"))
        self.folder = Path(call.override("ckpt_dir")) / call.override("run_name")
        if (self.folder / "best.ckpt").exists():
            # What sleap-nn takes for another training's folder.
            self.folder = self.folder.with_name(f"{self.folder.name}-1")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.first, self.resume = 0, self.resumed_from()
        if self.resume is not None:
            with zipfile.ZipFile(self.resume) as archive:
                state = pickle.loads(archive.read("best/data.pkl"))  # noqa: S301
            self.first = state["epoch"] + 1

    def resumed_from(self) -> str | None:
        words = [w for w in self.call.argv if "resume_ckpt_path" in w]
        return words[0].partition("=")[2].strip('"') if words else None

    def write_settings(self) -> None:
        text = (
            "trainer_config:\n  model_ckpt:\n    save_last: true\n"
            f"  resume_ckpt_path: {self.resume or 'null'}\n"
        )
        for name in ("initial_config.yaml", "training_config.yaml"):
            (self.folder / name).write_text(text)
        for name in ("labels_gt.train.0.slp", "labels_gt.val.0.slp"):
            (self.folder / name).write_bytes(b"labels")
        (self.folder / "training_log.csv").write_text("epoch,val/loss\n")

    def train(self, trainer: Trainer, epoch: int) -> bool:
        """Train one epoch; return whether a stop came."""
        trainer.send("epoch_begin", epoch=epoch)
        is_stopped = False
        for batch in range(2):
            is_stopped = is_stopped or bool(trainer.controller.poll(self.pace_ms))
            trainer.send("batch_end", {"loss": 0.5}, epoch=epoch, batch=batch)
        with (self.folder / "training_log.csv").open("a") as log:
            log.write(f"{epoch},{1 / (epoch + 1)}\n")
        trainer.send("epoch_end", {"val/loss": 1 / (epoch + 1)}, epoch=epoch)
        if epoch % 2 == 0:
            best = checkpoint(f"best of {epoch}".encode(), epoch=epoch)
            replace(self.folder / "best.ckpt", best)
        last = checkpoint(b"last" * 1000, epoch=epoch)
        replace(self.folder / "last.ckpt", last)
        hold = Path(self.call.options.get("hold", os.devnull + "/none"))
        while hold.exists() and not is_stopped:
            is_stopped = bool(trainer.controller.poll(POLL_MS))
        return is_stopped

    def run(self) -> int:
        self.write_settings()
        publish = self.call.override("zmq.publish_port")
        controller = self.call.override("zmq.controller_port")
        words = [f"publish={publish}", f"controller={controller}"]
        trainer = Trainer(["epochs", *words])
        trainer.connect()
        trainer.send("train_begin", wandb_url=None)
        for epoch in range(self.first, self.total):
            if self.train(trainer, epoch):
                break
        # sleap-nn ends its fit and imports its evaluation before it looks for it.
        trainer.controller.poll(max(self.pace_ms, POLL_MS))
        if not (self.folder / "best.ckpt").exists():
            sys.exit("there is no best.ckpt to evaluate")
        trainer.send("train_end")
        trainer.close()
        return 0


def epochs(call: SleapNN) -> int:
    # As sleap-nn on SIGTERM: the end, as if nothing had happened.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    return EpochRun(call).run()


def train(call: SleapNN) -> int:
    trainer = call.trainer()
    trainer.epoch(0, batches=2)
    trainer.epoch(1, batches=2)
    return call.finish(trainer)


def gated(call: SleapNN) -> int:
    trainer = call.trainer()
    trainer.epoch(0, batches=1)
    call.wait_for_gate(trainer)
    trainer.epoch(1, batches=1)
    return call.finish(trainer)


def paced(call: SleapNN) -> int:
    """Train epoch after epoch, each once the file of its number is in `gates`."""
    trainer = call.trainer()
    for epoch in range(int(call.options["epochs"])):
        call.wait_for(Path(call.options["gates"]) / str(epoch))
        sys.stdout.write(f"epoch {epoch} begins\n")
        sys.stdout.flush()
        trainer.epoch(epoch, batches=2)
    return call.finish(trainer)


def crash(call: SleapNN) -> int:
    call.trainer()
    sys.stderr.write("RuntimeError: CUDA out of memory\n")
    sys.stderr.flush()
    os._exit(3)


def absent(call: SleapNN) -> int:
    """What Python says where sleap-nn is not installed."""
    sys.stderr.write("python: No module named sleap_nn\n")
    return 1


def forgetful(call: SleapNN) -> int:
    """Ends well and leaves nothing."""
    trainer = call.trainer()
    trainer.send("train_end")
    trainer.close()
    return 0


def hostile(call: SleapNN) -> int:
    """Sends what jsonpickle would turn into a call."""
    trainer = call.trainer()
    marker = call.options["marker"]
    payload = {
        "py/reduce": [{"py/function": "builtins.open"}, {"py/tuple": [marker, "w"]}]
    }
    raw = trainer.progress.send
    raw(json.dumps(payload).encode())
    raw(json.dumps({"event": "epoch_end", "epoch": 0, "logs": payload}).encode())
    raw(json.dumps({"event": payload, "epoch": 0, "logs": {}}).encode())
    line = json.dumps({**payload, "n_processed": 1, "n_total": payload})
    sys.stdout.write(f"{line}\n\x1b]0;owned\x07\x1b[2J\n")
    sys.stdout.flush()
    trainer.epoch(1, batches=1)
    return call.finish(trainer)


def predict(call: SleapNN) -> int:
    if "predict_gate" in call.options:
        call.wait_for(Path(call.options["predict_gate"]))
    for word in call.argv:
        option, _, value = word.partition("=")
        if option == "--model_paths" and not Path(value, "best.ckpt").is_file():
            sys.exit(f"there is no model {value}")
    if "sees" in call.options:
        write_predictions(call.value("data_path"), call.value("output_path"))
    else:
        shutil.copyfile(call.value("data_path"), call.value("output_path"))
    line = {"n_processed": 1, "n_total": 1, "rate": 1.0, "eta": 0.0}
    sys.stdout.write(json.dumps(line) + "\n")
    return 0


def write_predictions(data_path: str, output_path: str) -> None:
    """See an animal in every suggested frame, always the same one."""
    import sleap_io

    labels = sleap_io.load_slp(data_path)
    (skeleton, *_) = labels.skeletons
    seen = sleap_io.PredictedInstance.from_numpy(
        [[10.0 + 5.0 * node, 20.0] for node in range(len(skeleton))],
        skeleton=skeleton,
        point_scores=[0.9] * len(skeleton),
        score=0.9,
    )
    frames = [
        sleap_io.LabeledFrame(
            video=suggestion.video, frame_idx=suggestion.frame_idx, instances=[seen]
        )
        for suggestion in labels.suggestions
    ]
    sleap_io.Labels(frames).save(output_path, embed=False, verbose=False)


BEHAVIOURS: dict[str, Callable[[SleapNN], int]] = {
    function.__name__: function
    for function in (train, gated, paced, epochs, crash, absent, forgetful, hostile)
}


def main() -> int:
    call = SleapNN(sys.argv[1:])
    return predict(call) if call.verb == "predict" else BEHAVIOURS[call.behaviour](call)


if __name__ == "__main__":
    sys.exit(main())
