"""A stand-in for sleap-nn that speaks real ZMQ and does what a test asks of it.

Started as `scripted_trainer.py BEHAVIOUR publish=PORT controller=PORT [files=A,B]`.
Its progress socket is an XPUB, so that it begins when somebody listens: no waiting.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq

WAIT_MS = 30_000


class Trainer:
    def __init__(self, words: list[str]) -> None:
        self.behaviour = words[0]
        self.options = dict(word.split("=", 1) for word in words[1:])
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.progress = self.context.socket(zmq.XPUB)
        self.progress.setsockopt(zmq.LINGER, 2000)
        self.progress.setsockopt(zmq.SNDHWM, 0)
        self.controller = self.context.socket(zmq.SUB)
        self.controller.subscribe("")

    def connect(self) -> None:
        self.progress.connect(f"tcp://127.0.0.1:{self.options['publish']}")
        self.controller.connect(f"tcp://127.0.0.1:{self.options['controller']}")
        if not self.progress.poll(WAIT_MS):
            sys.exit("nobody listens")
        self.progress.recv()

    def send(self, event: str, logs: Any = None, **fields: Any) -> None:
        # The order and the names of sleap-nn's own messages.
        message = {"what": "", "event": event, "logs": logs, **fields}
        self.progress.send_string(json.dumps(message))

    def begin(self) -> None:
        self.send("train_begin", wandb_url=None)
        self.send("epoch_begin", epoch=0)

    def epoch(self, number: int, batches: int) -> None:
        for batch in range(batches):
            self.send("batch_start", batch=batch)
            self.send("batch_end", {"loss": 0.5}, epoch=number, batch=batch)
        logs = {"loss": 0.5, "val/loss": 0.25, "epoch": float(number)}
        self.send("epoch_end", logs, epoch=number)

    def write_files(self) -> None:
        for name in filter(None, self.options.get("files", "").split(",")):
            path = Path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("written by the scripted trainer\n")

    def wait_for_stop(self) -> None:
        if not self.controller.poll(WAIT_MS):
            sys.exit("no stop came")
        command = json.loads(self.controller.recv())
        if command != {"command": "stop"}:
            sys.exit(f"a strange command: {command}")

    def end(self) -> None:
        self.send("train_end")
        self.write_files()

    def close(self) -> None:
        self.progress.close()
        self.controller.close()
        self.context.term()


def train(trainer: Trainer) -> int:
    trainer.connect()
    sys.stderr.write("loading\r50%\r100%\nstarting \x1b[31mnow\x1b[0m\n")
    trainer.begin()
    trainer.epoch(0, batches=2)
    trainer.end()
    return 0


def until_stopped(trainer: Trainer) -> int:
    trainer.connect()
    trainer.begin()
    trainer.wait_for_stop()
    trainer.epoch(0, batches=1)
    trainer.end()
    return 0


def deaf(trainer: Trainer) -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    trainer.connect()
    trainer.begin()
    while True:
        trainer.controller.poll(WAIT_MS)


def obedient(trainer: Trainer) -> int:
    """Ends by Python's own reaction to an interrupt."""
    trainer.connect()
    trainer.begin()
    try:
        while True:
            trainer.controller.poll(WAIT_MS)
    except KeyboardInterrupt:
        return 1


def crash(trainer: Trainer) -> int:
    trainer.connect()
    trainer.begin()
    sys.stderr.write("Traceback (most recent call last):\n")
    sys.stderr.write("RuntimeError: CUDA out of memory\n")
    return 3


def no_end(trainer: Trainer) -> int:
    """What sleap-nn does on SIGTERM: exit 0, and the training is not over."""
    trainer.connect()
    trainer.begin()
    return 0


def ends_on_term(trainer: Trainer) -> int:
    """What sleap-nn does on SIGTERM: it ends at once, as if nothing had happened."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    trainer.connect()
    trainer.begin()
    while True:
        trainer.controller.poll(WAIT_MS)


def flood(trainer: Trainer) -> int:
    trainer.connect()
    trainer.begin()
    for batch in range(10_000):
        trainer.send("batch_end", {"loss": 0.5}, epoch=0, batch=batch)
    for number in range(100):
        trainer.send("epoch_end", {"val/loss": 0.1}, epoch=number)
    for line in range(5_000):
        sys.stdout.write(f"line {line}\n")
    trainer.end()
    return 0


def hostile(trainer: Trainer) -> int:
    trainer.connect()
    trainer.begin()
    marker = trainer.options["marker"]
    payload = {
        "py/reduce": [
            {"py/function": "builtins.open"},
            {"py/tuple": [marker, "w"]},
        ]
    }
    raw = trainer.progress.send
    raw(json.dumps(payload).encode())
    raw(json.dumps({"event": "epoch_end", "logs": payload, "epoch": 0}).encode())
    raw(b'{"event": "epoch_end", "epoch": 1, "logs": {"a": NaN, "b": -Infinity}}')
    raw(b'{"event": "epoch_end", "epoch": ' + b"9" * 4000 + b"}")
    raw(b'{"event": "epoch_end", "epoch": ' + b"9" * 5000 + b"}")
    raw(b'{"event": "run_this", "epoch": 2}')
    raw(b'{"event": ["train_end"]}')
    raw(b"[" * 20_000)
    raw(b"\xff\xfe not text")
    raw(b"")
    trainer.progress.send_multipart([b"a", b"b"])
    trainer.end()
    return 0


def environment(trainer: Trainer) -> int:
    trainer.connect()
    for name in sorted(os.environ):
        sys.stdout.write(f"{name}={os.environ[name]}\n")
    trainer.end()
    return 0


def children(trainer: Trainer) -> int:
    """Leaves a child behind, as a loader process that nobody waits for."""
    trainer.connect()
    sleeper = "import signal; signal.pause()"
    # In a session of its own, so that the group's signals do not reach it.
    lingers = "lingers" in trainer.options
    child = subprocess.Popen([sys.executable, "-c", sleeper], start_new_session=lingers)
    sys.stdout.write(f"child {child.pid}\n")
    child.returncode = 0
    sys.stdout.flush()
    while "lingers" in trainer.options:
        trainer.controller.poll(WAIT_MS)
    trainer.end()
    return 0


def predict(trainer: Trainer) -> int:
    total = 40
    for done in range(1, total + 1):
        line = {"n_processed": done, "n_total": total, "rate": 8.5, "eta": 0.1}
        sys.stdout.write(json.dumps(line) + "\n")
    sys.stderr.write("Predictions saved\n")
    trainer.write_files()
    return 0


def predict_fails(trainer: Trainer) -> int:
    error = {"error": True, "type": "ValueError", "message": "no such model"}
    sys.stdout.write(json.dumps(error) + "\n")
    return 1


def predict_waits(trainer: Trainer) -> int:
    sys.stdout.write(json.dumps({"n_processed": 1, "n_total": 9, "rate": 1}) + "\n")
    sys.stdout.flush()
    try:
        while True:
            trainer.controller.poll(WAIT_MS)
    except KeyboardInterrupt:
        return 1


BEHAVIOURS: dict[str, Callable[[Trainer], int]] = {
    function.__name__: function
    for function in (
        train,
        until_stopped,
        deaf,
        obedient,
        crash,
        no_end,
        ends_on_term,
        flood,
        hostile,
        environment,
        children,
        predict,
        predict_fails,
        predict_waits,
    )
}


def main() -> int:
    trainer = Trainer(sys.argv[1:])
    try:
        return BEHAVIOURS[trainer.behaviour](trainer)
    finally:
        trainer.close()


if __name__ == "__main__":
    sys.exit(main())
