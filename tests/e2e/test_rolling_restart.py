"""haproxy in front of two instances, which are restarted one after the other.

Real programs: haproxy, Redis, two servers, workers and clients; only the trainer is
scripted. Trainings run all the while, and new ones begin during each restart.
"""

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from support.programs import POSIX, Program, Programs, Worker, wait_for
from support.redis_server import RedisServer, redis_server
from support.signaling_lab import free_port

pytestmark = [POSIX, pytest.mark.timeout(300)]

WORKERS = 2
EPOCHS = 3
# By then every peer of an instance that stops is at the other one.
BACK_S = 10.0
HAPROXY = """
global
    maxconn 1000
defaults
    mode http
    timeout connect 2s
    timeout client 30s
    timeout server 30s
    timeout tunnel 1h
frontend lab
    bind 127.0.0.1:{port}
    http-request set-header X-Forwarded-For %[src]
    default_backend signaling
backend signaling
    balance leastconn
    option httpchk GET /ready
    http-check expect status 200
    default-server check inter 200ms fall 1 rise 1
    server one 127.0.0.1:{one}
    server two 127.0.0.1:{two}
"""
SETTINGS = """
public_url = "http://127.0.0.1:{port}"
trusted_proxies = ["127.0.0.1"]
[bus]
url = "{redis}"
drain_s = 1.0
"""


class Instances:
    """Two servers on one data folder, behind one address."""

    def __init__(self, programs: Programs, redis: RedisServer) -> None:
        self._programs = programs
        self.port = free_port()
        self.ports = [free_port(), free_port()]
        self.url = f"http://127.0.0.1:{self.port}"
        self._settings = programs.folder / "signaling.toml"
        self._settings.write_text(SETTINGS.format(port=self.port, redis=redis.url))
        self.programs: list[Program] = []
        for port in self.ports:
            self.programs.append(self._start(port))

    def _start(self, port: int) -> Program:
        program = self._programs.client(
            *("signaling", "--config", self._settings, "--port", port),
            *("--rest-port", "none", "--data", self._programs.folder / "signaling"),
        )
        program.wait_line(lambda line: " listens on " in line, stream="err")
        return program

    def restart(self, number: int) -> None:
        """Stop one as an administrator does, and start it again."""
        self.programs[number].terminate()
        assert self.programs[number].wait() == 0
        self.programs[number] = self._start(self.ports[number])
        wait_for(lambda: self.is_ready(number), "an instance is ready", BACK_S)

    def is_ready(self, number: int) -> bool:
        address = f"http://127.0.0.1:{self.ports[number]}/ready"
        return httpx.get(address).status_code == 200

    def peers(self, number: int) -> float:
        """Return how many peers are registered at one instance."""
        text = httpx.get(f"http://127.0.0.1:{self.ports[number]}/metrics").text
        lines = [line for line in text.splitlines() if "signaling_peers{" in line]
        return sum(float(line.rpartition(" ")[2]) for line in lines)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    folder = tmp_path / "redis"
    folder.mkdir()
    with redis_server(folder) as running:
        yield running


@pytest.fixture
def instances(programs: Programs, redis: RedisServer) -> Iterator[Instances]:
    haproxy = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    if haproxy is None:
        pytest.skip("there is no haproxy on this machine")
    two = Instances(programs, redis)
    settings = programs.folder / "haproxy.cfg"
    settings.write_text(
        HAPROXY.format(port=two.port, one=two.ports[0], two=two.ports[1])
    )
    with subprocess.Popen([haproxy, "-db", "-f", settings]) as process:
        try:
            wait_for(lambda: _answers(two.url), "haproxy has an instance", BACK_S)
            yield two
        finally:
            process.send_signal(signal.SIGKILL)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ready").status_code == 200
    except httpx.HTTPError:
        return False


def test_no_job_is_lost(
    programs: Programs, instances: Instances, small_package: Path, tmp_path: Path
) -> None:
    gates = tmp_path / "gates"
    gates.mkdir()
    (gates / "0").touch()
    workers = [_worker(programs, instances, gates, n) for n in range(WORKERS)]
    jobs: list[Program] = []

    def begin(worker: Worker) -> None:
        output = tmp_path / f"out-{len(jobs)}"
        jobs.append(programs.train(small_package, worker.session, output))

    for worker in workers:
        begin(worker)
    for job in jobs:
        job.wait_event(event="progress", kind="epoch_end")
    assert instances.peers(0) + instances.peers(1) >= 2 * WORKERS
    for number in (0, 1):
        # One that begins while an instance goes, and one while it is away.
        time.monotonic()
        for worker in workers:
            begin(worker)
        instances.restart(number)
        wait_for(
            lambda: instances.peers(0) + instances.peers(1) >= 2 * WORKERS,
            "everybody is back",
            BACK_S,
        )
    for epoch in range(EPOCHS):
        (gates / str(epoch)).touch()
    for job in jobs:
        assert job.wait(120.0) == 0, job.story()
    for number in range(len(jobs)):
        assert list((tmp_path / f"out-{number}").rglob("best.ckpt")), number


def _worker(
    programs: Programs, instances: Instances, gates: Path, number: int
) -> Worker:
    worker = programs.scripted_worker(
        f"paced,epochs={EPOCHS},gates={gates},log={programs.folder / 'log'}",
        *("--signaling", instances.url, "--name", f"worker-{number}"),
        *("--data", programs.folder / f"worker-{number}"),
    )
    return worker.wait_ready()
