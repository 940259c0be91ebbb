"""A lab of real programs that a test kills and starts again: server, worker, clients.

The server keeps its port, so a session string outlives it. The trainer is a script
that waits before each epoch for the test's leave. Each program may live in a network
namespace of its own. `begin` and `finish` are the two ends of a story of one job.
"""

import contextlib
import socket
import subprocess
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

from support.namespaces import Cable
from support.packages import bytes_on_disk
from support.programs import Program, Programs, Worker, wait_for

__all__ = [
    "BACK_S",
    "PHASES",
    "SIZE_MIB",
    "Net",
    "Phase",
    "Server",
    "Story",
    "begin",
    "epochs",
    "finish",
    "free_port",
]

Phase = Literal["transfer", "training", "home"]
PHASES: tuple[Phase, ...] = ("transfer", "training", "home")
# Of a package and a model that take a while at the rate of such a story.
SIZE_MIB = 24
MIB = 1024 * 1024
# By when something that was away is to be back.
BACK_S = 150.0
EPOCHS = 6
Place = Callable[[], AbstractContextManager[None]]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Net:
    """A client's network, a worker's, and a router between them with the server.

    Made of a cable with a router; the client is its end 0, the worker its end 1.
    """

    def __init__(self, cable: Cable) -> None:
        assert cable.router is not None
        self.router, (self.client, self.worker) = cable.router, cable.names
        self.address = "10.83.0.2"
        self._cable = cable
        for name in (self.router, self.client, self.worker):
            _ip("-n", name, "link", "set", "lo", "up")

    def at(self, name: str) -> Place:
        return lambda: self._cable.inside_of(name)

    @contextlib.contextmanager
    def cut(self, name: str) -> Any:
        """Take the cable of the client or the worker out meanwhile."""
        _ip("-n", self.router, "link", "set", f"to{name}", "down")
        yield
        _ip("-n", self.router, "link", "set", f"to{name}", "up")

    def move(self, name: str) -> None:
        """Give the client or the worker another address, as another Wi-Fi would."""
        net = (self.client, self.worker).index(name)
        _ip("-n", name, "address", "flush", "dev", name)
        _ip("-n", name, "address", "add", f"10.83.{net}.77/24", "dev", name)
        _ip("-n", name, "route", "add", "default", "via", f"10.83.{net}.2")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)  # noqa: S607


class Server:
    """A signaling server that comes back where it was."""

    def __init__(self, programs: Programs, *words: str, net: Net | None = None) -> None:
        self._programs = programs
        self._words = words if net is None else (*words, "--host", "0.0.0.0")  # noqa: S104
        self._place = contextlib.nullcontext if net is None else net.at(net.router)
        self._address = "127.0.0.1" if net is None else net.address
        self.port = free_port()
        self.program = self.start()

    @property
    def url(self) -> str:
        return f"http://{self._address}:{self.port}"

    def start(self) -> Program:
        with self._place():
            return self._start()

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
        self.program = self.start()


class Story:
    """A server, a worker with a paced trainer, and whoever comes to them."""

    def __init__(
        self,
        programs: Programs,
        *,
        epochs: int = EPOCHS,
        more: str = "",
        net: Net | None = None,
        environment: dict[str, str] | None = None,
        server: tuple[str, ...] = (),
    ) -> None:
        """Start the server and the worker.

        Args:
            programs: starts and ends everything.
            epochs: how many the trainer trains.
            more: of the scripted trainer's options.
            net: where the programs live; all on this machine's own otherwise.
            environment: of the worker and of clients.
            server: more words for the signaling server.
        """
        self.programs = programs
        self.epochs = epochs
        self._more = more
        self._environment = environment or {}
        self._at_worker: Place = contextlib.nullcontext
        self._at_client: Place = contextlib.nullcontext
        if net is not None:
            self._at_worker, self._at_client = net.at(net.worker), net.at(net.client)
        self.gates = programs.folder / "gates"
        self.gates.mkdir()
        self.log = programs.folder / "trainings.log"
        self.server = Server(programs, *server, net=net)
        self.data = programs.folder / "worker-data"
        self.worker = self._start_worker("--signaling", self.server.url)
        self.session = self.worker.session

    def _start_worker(self, *words: str, is_ready: bool = True) -> Worker:
        behaviour = f"paced,epochs={self.epochs},gates={self.gates},log={self.log}"
        with self._at_worker():
            worker = self.programs.scripted_worker(
                behaviour + self._more,
                *("--name", "gpu-box", *words),
                **self._environment,
            )
        return worker.wait_ready() if is_ready else worker

    def restart_worker(self) -> None:
        """Kill the worker, it alone, and start it again."""
        self.worker.kill()
        self.start_worker()

    def start_worker(self, *, is_ready: bool = True) -> None:
        self.worker = self._start_worker("--session", self.session, is_ready=is_ready)

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
        with self._at_client():
            return self.programs.client(
                *("train", package, "--session", self.session, "--output", output),
                *("--json", *words),
                **(self._environment | where),
            )

    def jobs(self, verb: str, *words: object, **where: str) -> Program:
        with self._at_client():
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


def begin(
    story: Story,
    package: Path,
    output: Path,
    phase: Phase,
    share: float = 0.25,
    words: Sequence[str] = (),
) -> Program:
    """Start a client and bring it so far into a phase of its job.

    The package and the model have `SIZE_MIB` of what cannot be packed, and go slowly.
    """
    client = story.train(package, output, *words)
    parts = {
        "transfer": (story.data, "jobs/*/package/parts/*"),
        "home": (output, ".sleap-remote/*/parts/*.part"),
    }
    if phase != "transfer":
        last = int(share * (story.epochs - 1)) if phase == "training" else 0
        story.allow(*range(last + 1))
        client.wait_event(BACK_S, event="progress", kind="epoch_end", epoch=last)
    if phase == "home":
        story.allow_all()
    if phase in parts:
        folder, pattern = parts[phase]
        some = share * SIZE_MIB * MIB
        wait_for(
            lambda: bytes_on_disk(folder, pattern) > some, f"some of {phase}", BACK_S
        )
    return client


def finish(story: Story, client: Program, output: Path, *others: Program) -> None:
    """Let the job end, and check what every story ends with.

    The whole curve, each epoch once; one model, as it was trained; nothing half done
    at either end; no process but the server, the worker and `others`.
    """
    story.allow_all()
    assert client.wait(BACK_S) == 0, client.story()
    assert client.report["state"] == "succeeded"
    assert epochs(client) == list(range(story.epochs))
    assert story.trainings == 1
    [model] = client.report["models"]
    assert Path(model).parent == output / "models"
    found = (Path(model) / "best.ckpt").read_bytes()
    assert found == story.checkpoint(client.report["job_id"])
    assert [path.name for path in (output / "models").iterdir()] == [Path(model).name]
    assert not (output / ".sleap-remote").exists()
    [job] = (story.data / "jobs").iterdir()
    assert list((job / "package" / "parts").iterdir()) == []
    left = {process.pid for process in story.programs.processes()}
    there = (story.server.program, story.worker, *others)
    assert left == {program.pid for program in there}
