"""Runs the project's programs as real processes and ends every one of them.

What a program prints is collected while it runs, so a test waits for a line, for a
file or for an exit, each with a deadline; what was waited for in vain is shown with
all that the program said. Homes and caches lie in the test's own folder.
"""

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import psutil
import pytest

Stream = Literal["out", "err"]
P = TypeVar("P", bound="Program")

POSIX = pytest.mark.skipif(
    sys.platform == "win32", reason="kill -9 and signals are those of POSIX"
)

DEADLINE_S = 60.0
EXIT_DEADLINE_S = 15.0
POLL_S = 0.02
MARK = "SLEAP_E2E_MARK"
SCHEME = "sleap-session:"
SUPPORT = Path(__file__).parent
CLI = ("-m", "sleap_rtc_plugin.cli")
_NOT_INHERITED = (
    "SLEAP_SESSION",
    "SLEAP_MODEL_STORE",
    "SHARED_STORAGE_ROOT",
    "PYTHONWARNINGS",
)
_TAIL_LINES = 60


class Program:
    """One running program. `out` and `err` are the lines it printed so far."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        environment: dict[str, str],
        stdin: int = subprocess.DEVNULL,
    ) -> None:
        self.argv = list(argv)
        self.out: list[str] = []
        self.err: list[str] = []
        self._news = threading.Condition()
        self._process = subprocess.Popen(
            self.argv,
            cwd=cwd,
            env=environment,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        self.pid = self._process.pid
        self._readers = [
            threading.Thread(target=self._read, args=(pipe, lines), daemon=True)
            for pipe, lines in (
                (self._process.stdout, self.out),
                (self._process.stderr, self.err),
            )
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, pipe: Any, lines: list[str]) -> None:
        with contextlib.suppress(ValueError, OSError), pipe:
            for line in pipe:
                with self._news:
                    lines.append(line.rstrip("\n"))
                    self._news.notify_all()
        with self._news:
            self._news.notify_all()

    # -- waiting -----------------------------------------------------------------------

    def wait_line(
        self,
        matches: Callable[[str], bool],
        *,
        stream: Stream = "out",
        timeout_s: float = DEADLINE_S,
    ) -> str:
        """Return the first line that matches, printed already or within the time."""
        lines = self.out if stream == "out" else self.err
        until = time.monotonic() + timeout_s
        seen = 0
        with self._news:
            while True:
                for line in lines[seen:]:
                    if matches(line):
                        return line
                seen = len(lines)
                left = until - time.monotonic()
                if left <= 0 or not any(r.is_alive() for r in self._readers):
                    raise AssertionError(f"no such line on std{stream}\n{self.story()}")
                self._news.wait(min(left, 1.0))

    def wait_event(
        self, timeout_s: float = DEADLINE_S, **wanted: object
    ) -> dict[str, Any]:
        """Return the first JSON line with these fields."""

        def matches(line: str) -> bool:
            value = _json(line)
            return isinstance(value, dict) and wanted.items() <= value.items()

        found: dict[str, Any] = json.loads(self.wait_line(matches, timeout_s=timeout_s))
        return found

    def wait(self, timeout_s: float = DEADLINE_S) -> int:
        """Wait for the exit and all output; return the exit code."""
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"no exit in {timeout_s} s\n{self.story()}") from None
        for reader in self._readers:
            reader.join(EXIT_DEADLINE_S)
        return code

    # -- what it said ------------------------------------------------------------------

    @property
    def events(self) -> list[dict[str, Any]]:
        """Every JSON line so far."""
        values = map(_json, list(self.out))
        return [value for value in values if isinstance(value, dict)]

    @property
    def report(self) -> dict[str, Any]:
        """The last JSON line."""
        assert self.events, self.story()
        return self.events[-1]

    def story(self) -> str:
        """Everything a person needs to see why a test failed."""
        parts = [f"$ {' '.join(map(str, self.argv))}  -> {self._process.poll()}"]
        for name, lines in (("stdout", self.out), ("stderr", self.err)):
            parts += [f"-- {name}:", *lines[-_TAIL_LINES:]]
        return "\n".join(parts)

    # -- faults ------------------------------------------------------------------------

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """End it as a crash would (`kill -9`), it alone, and wait."""
        self._process.kill()
        self._process.wait(EXIT_DEADLINE_S)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Hold it still meanwhile, as a suspended laptop would."""
        self._process.send_signal(signal.SIGSTOP)
        yield
        self._process.send_signal(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

    def terminate(self) -> None:
        """Ask it to end."""
        self._process.terminate()


class Worker(Program):
    """A worker; `session` is its session string once it is ready."""

    session: str = ""

    def wait_ready(self, timeout_s: float = DEADLINE_S) -> Self:
        if "--session" in self.argv:
            self.session = self.argv[self.argv.index("--session") + 1]
        else:
            self.session = self.wait_line(
                lambda line: line.startswith(SCHEME), timeout_s=timeout_s
            )
        self.wait_line(
            lambda line: " is ready" in line, stream="err", timeout_s=timeout_s
        )
        return self


class Programs:
    """Starts programs that share a home, and ends whatever is left of them."""

    def __init__(self, folder: Path, caches: Path) -> None:
        """Use `folder` for this test; `caches` holds what no test changes."""
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir(parents=True, exist_ok=True)
        # The words that start a program elsewhere, in a network namespace say.
        self.where: tuple[str, ...] = ()
        self._mark = secrets.token_hex(8)
        self.started: list[Program] = []
        self._descriptors: list[int] = []
        inherited = {k: v for k, v in os.environ.items() if k not in _NOT_INHERITED}
        homes = ("HOME", "USERPROFILE", "APPDATA", "LOCALAPPDATA")
        self.environment = (
            inherited
            | dict.fromkeys(homes, str(self.home))
            | {
                "XDG_CACHE_HOME": str(self.home / "cache"),
                "XDG_CONFIG_HOME": str(self.home / "config"),
                "XDG_DATA_HOME": str(self.home / "data"),
                "XDG_STATE_HOME": str(self.home / "state"),
                "MPLCONFIGDIR": str(caches / "matplotlib"),
                "PYTHONUNBUFFERED": "1",
                "NO_COLOR": "1",
                "COLUMNS": "200",
                # What a test wants to interrupt takes a while on any machine.
                "SLEAP_REMOTE_MAX_MBIT": "100",
                MARK: self._mark,
            }
        )

    # -- starting ----------------------------------------------------------------------

    def start(
        self, *words: object, cwd: Path | None = None, **environment: str
    ) -> Program:
        """Start `python WORDS`."""
        return self._run(Program, words, cwd, environment)

    def client(
        self, *words: object, cwd: Path | None = None, **environment: str
    ) -> Program:
        """Start `sleap-remote WORDS`."""
        return self._run(Program, (*CLI, *words), cwd, environment)

    def train(self, package: Path, session: str, output: Path, *words: str) -> Program:
        """Start `sleap-remote train` with JSON lines."""
        where = ("--session", session, "--output", output, "--json")
        return self.client("train", package, *where, *words)

    def train_at_terminal(
        self, package: Path, session: str, output: Path
    ) -> tuple[Program, int]:
        """Start `train` with a terminal as its input, and return where to type."""
        where = ("--session", session, "--output", output, "--json")
        return self.at_terminal("train", package, *where)

    def at_terminal(self, *words: object) -> tuple[Program, int]:
        """Start `sleap-remote WORDS` at a terminal, and return where to type."""
        keyboard, terminal = os.openpty()
        self._descriptors.append(keyboard)
        try:
            argv = (*CLI, *words)
            return self._run(Program, argv, None, {}, stdin=terminal), keyboard
        finally:
            os.close(terminal)

    def signaling(self, *words: object) -> str:
        """Start a signaling server and return its address."""
        where = ("--port", "0", "--rest-port", "none")
        server = self.client(
            "signaling", *where, "--data", self.folder / "signaling", *words
        )
        line = server.wait_line(lambda text: " listens on " in text, stream="err")
        return line.partition(" listens on ")[2].partition(";")[0]

    def worker(self, *words: object, **environment: str) -> Worker:
        """Start a real worker with a room and a data folder of its own."""
        return self._worker(CLI, words, environment)

    def scripted_worker(
        self, behaviour: str, *words: object, **environment: str
    ) -> Worker:
        """Start a worker whose trainer is a script."""
        start = (str(SUPPORT / "scripted_worker.py"), behaviour)
        return self._worker(start, words, environment)

    def _worker(
        self,
        start: Sequence[str],
        words: Sequence[object],
        environment: dict[str, str],
    ) -> Worker:
        if "--data" not in words:
            words = (*words, "--data", self.folder / "worker-data")
        if not {"--session", "--signaling", "--port"} & set(map(str, words)):
            words = (*words, "--port", "0")
        return self._run(Worker, (*start, "worker", *words), None, environment)

    def adopt(self, program: Program) -> None:
        """End another program with the others; it has our `environment`."""
        self.started.append(program)

    def _run(
        self,
        kind: type[P],
        words: Sequence[object],
        cwd: Path | None,
        environment: dict[str, str],
        stdin: int = subprocess.DEVNULL,
    ) -> P:
        program = kind(
            [*self.where, sys.executable, *map(str, words)],
            cwd=cwd or self.folder,
            environment=self.environment | environment,
            stdin=stdin,
        )
        self.started.append(program)
        return program

    # -- ending ------------------------------------------------------------------------

    def processes(self) -> Iterator[psutil.Process]:
        """Yield every living process of this test, runners and trainers too."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if (
                    process.environ().get(MARK) == self._mark
                    and process.status() != psutil.STATUS_ZOMBIE
                ):
                    yield process

    def close(self) -> None:
        """End everything, and show what was said: pytest prints it on a failure."""
        for _ in range(3):
            left = list(self.processes())
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(left, timeout=EXIT_DEADLINE_S)
        for descriptor in self._descriptors:
            os.close(descriptor)
        for program in self.started:
            with contextlib.suppress(AssertionError):
                program.wait(EXIT_DEADLINE_S)
            sys.stderr.write(program.story() + "\n")


def wait_for(
    condition: Callable[[], bool], what: str, timeout_s: float = DEADLINE_S
) -> None:
    """Wait until another program made `condition` true (a file, an exit)."""
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, f"in vain: {what}"
        # What is waited for is a file or a process of another program: no event.
        time.sleep(POLL_S)


def _json(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
