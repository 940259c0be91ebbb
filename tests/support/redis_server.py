"""A real Redis on this machine, which tests kill, freeze and start again, empty."""

import contextlib
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

_START_S: Final = 20.0
_POLL_S: Final = 0.02


class RedisServer:
    """Redis on a port of its own; nothing of it outlives the process.

    Args:
        folder: for its log.
        port: a free one; the same after every start.
    """

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self.url = f"redis://127.0.0.1:{port}/0"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it answers when this returns."""
        argv = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1"]
        argv += ["--save", "", "--appendonly", "no", "--dir", str(self._folder)]
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(argv, stdout=log, stderr=log)
        ends = time.monotonic() + _START_S
        while time.monotonic() < ends:
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", self.port), 1.0) as ask,
            ):
                ask.sendall(b"PING\r\n")
                if ask.recv(16).startswith(b"+PONG"):
                    return
            time.sleep(_POLL_S)
        raise AssertionError((self._folder / "redis.log").read_text())

    def kill(self) -> None:
        """Kill it, if it runs; what it held is lost."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Let it stand still: connections stay open and nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def redis_server(folder: Path) -> Iterator[RedisServer]:
    """Run Redis, or skip where this machine has none."""
    if shutil.which("redis-server") is None:
        pytest.skip("there is no redis-server on this machine")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = RedisServer(folder, port)
    server.start()
    try:
        yield server
    finally:
        server.kill()
