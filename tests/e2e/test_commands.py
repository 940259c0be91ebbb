"""What the commands print, how fast they come, and what they refuse."""

import json
import sys
from pathlib import Path

import psutil
import pytest
from support.programs import Programs, Worker

from sleap_rtc_plugin.protocol.session_string import Session
from sleap_rtc_plugin.session.remote_session import RemoteSession

USAGE = 2
COMMANDS = (
    *("train", "jobs", "workers", "files", "doctor", "demo"),
    *("worker", "signaling", "bench", "pair"),
)
HEAVY = {
    "aiortc",
    "av",
    "cryptography",
    "h5py",
    "httpx",
    "matplotlib",
    "numpy",
    "rich",
    "sleap_io",
    "sleap_nn",
    "starlette",
    "torch",
    "websockets",
    "zmq",
}
PROBE = """
import contextlib, io, sys
from sleap_rtc_plugin.cli.main import main
sys.argv = ["sleap-remote", *sys.argv[1:]]
said = io.StringIO()
with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
    main()
print(len(said.getvalue()))
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


@pytest.fixture
def worker(programs: Programs) -> Worker:
    return programs.scripted_worker("train", "--name", "gpu box [red]").wait_ready()


@pytest.mark.parametrize("words", [(), *((command,) for command in COMMANDS)])
def test_help_imports_nothing_heavy(programs: Programs, words: tuple[str, ...]) -> None:
    probe = programs.start("-c", PROBE, *words, "--help")
    assert probe.wait() == 0, probe.story()
    length, modules = probe.out
    assert int(length) > 100
    assert set(modules.split()) & HEAVY == set()


def test_the_table_of_workers(programs: Programs, worker: Worker) -> None:
    client = programs.client("workers", "--session", worker.session)
    assert client.wait() == 0, client.story()
    title, row = client.out
    assert title.split() == ["Worker", "GPU", "Memory", "Status", "Queue", "sleap-nn"]
    # What a peer calls itself is shown as it is, never as markup.
    assert row.startswith("gpu box [red]")
    assert "none (cpu)" in row
    assert "available" in row
    assert client.err == []


def test_the_workers_as_json_with_the_session_in_the_environment(
    programs: Programs, worker: Worker
) -> None:
    client = programs.client("workers", "--json", SLEAP_SESSION=worker.session)
    assert client.wait() == 0, client.story()
    (line,) = client.out
    found = json.loads(line)
    assert found["name"] == "gpu box [red]"
    assert found["peer_id"] == Session.parse(worker.session).peer_id
    assert (found["device"], found["gpu_model"]) == ("cpu", None)
    assert found["sleap_nn_version"] == "0.3.5"


def test_training_with_the_session_in_the_environment(
    programs: Programs, worker: Worker, small_package: Path, tmp_path: Path
) -> None:
    client = programs.client(
        *("train", small_package, "--output", tmp_path / "out"),
        SLEAP_SESSION=worker.session,
    )
    assert client.wait() == 0, client.story()
    # Without --json, what came home and nothing else.
    assert client.out == [str(tmp_path / "out" / "models" / "demo.centroid.n=20")]
    assert client.err[-1].startswith("Done: 1 model")


@pytest.mark.parametrize(
    "words",
    [
        ("train",),
        ("train", "package.zip"),
        ("train", "package.zip", "--nonsense"),
        ("train", "package.zip", "--session"),
        ("workers",),
        ("workers", "extra", "--session", "s"),
        ("worker", "--port", "70000"),
        ("worker", "--port", "x"),
        ("worker", "--signaling", "not an address"),
        ("signaling", "--rest-port", "x"),
        ("signaling", "--config", "no-such-file.toml"),
        ("nonsense",),
    ],
    ids=" ".join,
)
def test_wrong_usage(programs: Programs, words: tuple[str, ...]) -> None:
    (programs.folder / "package.zip").write_text("x")
    client = programs.client(*words)
    assert client.wait() == USAGE, client.story()
    assert client.out == []
    assert "Traceback" not in "\n".join(client.err)
    assert client.err


def test_a_worker_says_one_line(programs: Programs, worker: Worker) -> None:
    assert worker.out == [worker.session]
    worker.terminate()
    assert worker.wait() == 0, worker.story()
    assert worker.out == [worker.session]
    assert "The worker has stopped" in worker.err[-1]
    assert list(programs.processes()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="sockets of others are hidden")
async def test_leaving_a_room_closes_the_connection(worker: Worker) -> None:
    session = Session.parse(worker.session)
    port = int(session.url.rpartition(":")[2])
    async with RemoteSession(session) as room:
        assert len(await room.workers()) == 1
        assert port in ports()
    assert port not in ports()


def ports() -> list[int]:
    """Return the ports that this process is connected to."""
    found = psutil.Process().net_connections("tcp")
    return [c.raddr.port for c in found if c.status == psutil.CONN_ESTABLISHED]
