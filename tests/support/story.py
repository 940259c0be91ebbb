"""A lab of real programs that a test kills and starts again: server, worker, clients.

The server keeps its port, so a session string outlives it. The trainer is a script
that waits before each epoch for the test's leave.
"""

import socket
from pathlib import Path
from typing import Any

from support.programs import Program, Programs, Worker

__all__ = ["Server", "Story", "epochs", "free_port"]

EPOCHS = 6


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """A signaling server that comes back where it was."""

    def __init__(self, programs: Programs, *words: str) -> None:
        self._programs = programs
        self._words = words
        self.port = free_port()
        self.program = self._start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _start(self) -> Program:
        program = self._programs.client(
            "signaling",
            *("--port", self.port, "--rest-port", "none"),
            *("--data", self._programs.folder / "signaling"),
            *self._words,
        )
        program.wait_line(lambda line: " listens on " in line, stream="err")
        return program

    def restart(self) -> None:
        """Kill it and start it again."""
        self.program.kill()
        self.program = self._start()


class Story:
    """A server, a worker with a paced trainer, and whoever comes to them."""

    def __init__(self, programs: Programs, *, epochs: int = EPOCHS) -> None:
        self.programs = programs
        self.epochs = epochs
        self.gates = programs.folder / "gates"
        self.gates.mkdir()
        self.log = programs.folder / "trainings.log"
        self.server = Server(programs)
        self.data = programs.folder / "worker-data"
        self.worker = self._start_worker("--signaling", self.server.url)
        self.session = self.worker.session

    def _start_worker(self, *words: str) -> Worker:
        behaviour = f"paced,epochs={self.epochs},gates={self.gates},log={self.log}"
        return self.programs.scripted_worker(
            behaviour, "--name", "gpu-box", *words
        ).wait_ready()

    def restart_worker(self) -> None:
        """Kill the worker, it alone, and start it again."""
        self.worker.kill()
        self.start_worker()

    def start_worker(self) -> None:
        self.worker = self._start_worker("--session", self.session)

    def allow(self, *numbers: int) -> None:
        """Let the trainer go through these epochs."""
        for number in numbers:
            (self.gates / str(number)).touch()

    def allow_all(self) -> None:
        self.allow(*range(self.epochs))

    @property
    def trainings(self) -> int:
        """How often a trainer was started."""
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0

    def train(self, package: Path, output: Path, *words: str, **where: str) -> Program:
        return self.programs.client(
            *("train", package, "--session", self.session, "--output", output),
            *("--json", *words),
            **where,
        )

    def jobs(self, verb: str, *words: object, **where: str) -> Program:
        return self.programs.client(
            "jobs", verb, *words, "--session", self.session, **where
        )

    def elsewhere(self, name: str = "desktop") -> dict[str, str]:
        """Return the environment of another computer, which remembers nothing."""
        home = self.programs.folder / name
        home.mkdir(exist_ok=True)
        folders = {f"XDG_{k}_HOME": str(home / k) for k in ("CACHE", "CONFIG", "STATE")}
        return {"HOME": str(home), "XDG_DATA_HOME": str(home / "DATA"), **folders}

    def checkpoint(self, job_id: str) -> bytes:
        """Return the model that the trainer wrote, as it lies at the worker."""
        [path] = (self.data / "jobs" / job_id).rglob("best.ckpt")
        return path.read_bytes()


def epochs(program: Program) -> list[Any]:
    """Return the epochs that a client was told have ended, in order."""
    return [
        event["epoch"]
        for event in program.events
        if event.get("event") == "progress" and event["kind"] == "epoch_end"
    ]
