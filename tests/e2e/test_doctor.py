"""`sleap-remote doctor` finds planted faults and names the remedy; real programs all.

Each fault is planted alone, and the doctor has to point at it: the check fails (or
warns), its words say what is so, and its remedy what to do.
"""

import asyncio
import base64
import contextlib
import http.server
import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.doctor_faults import (
    Turn,
    free_port,
    make_certificate,
    moved_to,
    small_disk,
    start_turn,
    tls_front,
)
from support.programs import CLI, POSIX, SUPPORT, Program, Programs, Worker, wait_for
from support.shared_mounts import two_mounts

from sleap_rtc_plugin.protocol.session_string import Session
from sleap_rtc_plugin.session.doctor.finding import CHECKS, NOTHING_TO_DO
from sleap_rtc_plugin.transport.account import AccountClient

SERVER = ("--only", "server")
WORKER = ("--only", "worker")
# The deadlines add up to 30; a machine with more to do than cores adds its own.
MAX_S = 45.0
SECRET = "the-secret-of-the-lab-s-turn"
OTHER_SECRET = "the-secret-of-another-lab"

Lines = dict[str, dict[str, Any]]


class Doctor:
    """Runs the command and reads what it says."""

    def __init__(self, programs: Programs) -> None:
        self.programs = programs
        self.secrets: set[str] = set()

    def start(self, session: str, *words: str, **environment: str) -> Program:
        if session:
            environment["SLEAP_SESSION"] = session
            self.secrets |= {session, session.partition(":")[2]}
            with contextlib.suppress(Exception):
                parsed = Session.parse(session)
                secret = base64.urlsafe_b64encode(parsed.secret).decode().rstrip("=")
                self.secrets |= {parsed.token, secret, parsed.secret.hex()}
        return self.programs.client("doctor", "--json", *words, **environment)

    def read(self, run: Program) -> Lines:
        code = run.wait()
        *lines, summary = run.events
        failed = [line for line in lines if line["status"] == "failed"]
        assert code == (1 if failed else 0), run.story()
        assert summary["failed"] == len(failed), run.story()
        assert summary["seconds"] < MAX_S, run.story()
        for line in lines:
            # Each line says what to do; one that is well, that nothing is.
            assert line["check"] in CHECKS
            assert line["found"].endswith((".", "…")), line
            assert line["remedy"], line
            if line["status"] in ("failed", "warning", "skipped"):
                assert line["remedy"] != NOTHING_TO_DO, line
        said = "\n".join([*run.out, *run.err])
        assert "Traceback" not in said, run.story()
        for secret in self.secrets:
            assert secret not in said, "a secret is printed"
        # Of several of one kind the worst counts.
        order = ["ok", "note", "skipped", "warning", "failed"]
        lines.sort(key=lambda line: order.index(line["status"]))
        return {line["check"]: line for line in lines}

    def __call__(self, session: str, *words: str, **environment: str) -> Lines:
        return self.read(self.start(session, *words, **environment))

    async def beside(self, session: str, *words: str, **environment: str) -> Lines:
        """Run while this process serves something."""
        run = self.start(session, *words, **environment)
        return await asyncio.to_thread(self.read, run)


@pytest.fixture
def doctor(programs: Programs) -> Doctor:
    return Doctor(programs)


@pytest.fixture(scope="module")
def gpu_box(module_programs: Programs) -> Worker:
    """One worker, with its own server, for the tests that leave it as it is."""
    return module_programs.scripted_worker("train", "--name", "gpu-box").wait_ready()


def assert_found(lines: Lines, check: str, status: str, found: str, do: str) -> None:
    line = lines[check]
    assert line["status"] == status, lines
    assert found in line["found"], line
    assert do in line["remedy"], line


def server_url(worker: Worker) -> str:
    return Session.parse(worker.session).url


# -- nothing is wrong --------------------------------------------------------------


def test_a_healthy_lab(doctor: Doctor, gpu_box: Worker) -> None:
    lines = doctor(gpu_box.session)
    assert [c for c, line in lines.items() if line["status"] == "failed"] == []
    assert set(lines) == set(CHECKS)
    # Importing SLEAP takes longer on a busy machine than the doctor waits.
    sleap = lines.pop("sleap")
    assert sleap["status"] == "ok" or "no answer within" in sleap["found"]
    for check in ("python", "packages", "settings", "disk", "name", "port"):
        assert lines[check]["status"] == "ok", lines[check]
    for check in ("server", "clock", "room", "worker", "trainer", "jobs", "link"):
        assert lines[check]["status"] == "ok", lines[check]
    assert "directly" in lines["link"]["found"]
    assert "bit/s to the worker" in lines["throughput"]["found"]
    # A machine without a GPU is slow, not broken.
    assert_found(lines, "gpu", "warning", "no GPU", "built for CUDA")


def test_the_table_says_the_same(doctor: Doctor, gpu_box: Worker) -> None:
    for width in ("80", "120"):
        run = doctor.programs.client(
            *("doctor", "--session", gpu_box.session, "--worker", "gpu-box"),
            *("--only", "gpu", "--only", "port"),
            COLUMNS=width,
            PYTHONIOENCODING="utf-8",
        )
        assert run.wait() == 0, run.story()
        text = "\n".join(run.out)
        assert "✓  Server port" in text
        assert "!  GPU" in text
        assert "→ If it has an NVIDIA card" in text
        assert "1 warning" in run.out[-1]
        assert max(map(len, run.out)) <= int(width)
        assert Session.parse(gpu_box.session).token not in text


def test_without_a_session_this_computer_alone(doctor: Doctor) -> None:
    lines = doctor("", "--only", "python", "--only", "session")
    assert_found(lines, "session", "skipped", "only this computer", "--session")
    assert lines["python"]["status"] == "ok"


# -- the session and its server ----------------------------------------------------


def test_a_session_string_that_was_cut(doctor: Doctor, gpu_box: Worker) -> None:
    lines = doctor(gpu_box.session[:-9], *SERVER)
    assert_found(lines, "session", "failed", "cannot be read", "Copy the whole line")


def test_a_name_that_leads_nowhere(doctor: Doctor, gpu_box: Worker) -> None:
    url = f"http://{'a' * 64}.example:8080"
    lines = doctor(moved_to(gpu_box.session, url), *SERVER, *WORKER)
    assert_found(lines, "name", "failed", "leads nowhere", "--public-url")
    assert lines["room"]["status"] == "skipped"


def test_a_server_that_is_down(doctor: Doctor, gpu_box: Worker) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    session = moved_to(gpu_box.session, url)
    lines = doctor(
        session, *SERVER, "--only", "proxy", HTTPS_PROXY="http://u:pass@proxy:3128"
    )
    assert_found(lines, "port", "failed", "Nothing listens", "Start the worker")
    # The proxy may be what the network wants; what is in its address is secret.
    assert_found(lines, "proxy", "warning", "HTTPS_PROXY is set", "allow the conn")
    assert "pass" not in json.dumps(lines["proxy"])


def test_a_port_with_something_else(doctor: Doctor, gpu_box: Worker) -> None:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            """Say nothing."""

    other = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    thread = threading.Thread(target=other.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{other.server_address[1]}"
        lines = doctor(moved_to(gpu_box.session, url), *SERVER)
    finally:
        other.shutdown()
        thread.join()
        other.server_close()
    assert_found(lines, "server", "failed", "no signaling server", "Check the port")


def test_a_port_that_never_answers(doctor: Doctor, gpu_box: Worker) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        lines = doctor(moved_to(gpu_box.session, url), *SERVER)
    assert_found(lines, "server", "failed", "does not answer", "start the server again")


def test_https_to_a_port_without_tls(doctor: Doctor, gpu_box: Worker) -> None:
    url = server_url(gpu_box).replace("http://", "https://")
    lines = doctor(moved_to(gpu_box.session, url), *SERVER)
    assert_found(lines, "certificate", "failed", "does not speak TLS", "http://")


@pytest.mark.parametrize(
    ("name", "days", "trusted", "status", "found", "do"),
    [
        ("localhost", 90, True, "ok", "for 89 more days", "Nothing"),
        ("localhost", 5, True, "warning", "for 4 more days", "Renew it"),
        ("localhost", -1, True, "failed", "has expired", "Renew it"),
        ("other.example", 90, True, "failed", "not for the name localhost", "name"),
        ("localhost", 90, False, "failed", "Nobody whom", "SSL_CERT_FILE"),
    ],
    ids=["good", "soon", "expired", "wrong-name", "unknown-authority"],
)
async def test_certificates(
    doctor: Doctor,
    gpu_box: Worker,
    tmp_path: Path,
    name: str,
    days: int,
    trusted: bool,
    status: str,
    found: str,
    do: str,
) -> None:
    certificate = make_certificate(tmp_path, name, days=days)
    trust = {"SSL_CERT_FILE": str(certificate.authority)} if trusted else {}
    async with tls_front(server_url(gpu_box), certificate) as port:
        session = moved_to(gpu_box.session, f"https://localhost:{port}")
        lines = await doctor.beside(session, *SERVER, "--only", "link", **trust)
    assert_found(lines, "certificate", status, found, do)
    is_good = status != "failed"
    # REST and WebSocket both go through TLS, and believe the same authorities.
    assert lines["server"]["status"] == ("ok" if is_good else "skipped")
    assert lines["room"]["status"] == ("ok" if is_good else "skipped")
    assert lines["link"]["status"] == ("ok" if is_good else "skipped")


def test_a_clock_that_is_an_hour_off(doctor: Doctor, programs: Programs) -> None:
    words = ("signaling", "--port", "0", "--rest-port", "none")
    server = programs.start(
        str(SUPPORT / "shifted_signaling.py"),
        *(*words, "--data", programs.folder / "signaling"),
        E2E_CLOCK_S="3600",
    )
    line = server.wait_line(lambda text: " listens on " in text, stream="err")
    url = line.partition(" listens on ")[2].partition(";")[0]
    session = asyncio.run(open_room(url))
    lines = doctor(session.encode(), *SERVER)
    assert_found(lines, "clock", "failed", "1 hour ahead of this", "NTP")


async def open_room(url: str, *, is_deleted: bool = False) -> Session:
    """Open a room without a worker."""
    async with AccountClient(url) as client:
        account = await client.sign_in_anonymously()
        room = await client.create_room(account.token)
        if is_deleted:
            await client.delete_room(account.token, room.room_id)
    return Session(
        url=url,
        room_id=room.room_id,
        token=room.token,
        peer_id="worker-a",
        secret=os.urandom(32),
    )


def test_a_room_that_is_gone(doctor: Doctor, programs: Programs) -> None:
    session = asyncio.run(open_room(programs.signaling(), is_deleted=True))
    lines = doctor(session.encode(), *SERVER, *WORKER)
    assert_found(lines, "room", "failed", "no longer exists", "Start the worker again")
    assert lines["worker"]["status"] == "skipped"


def test_a_token_that_has_expired(doctor: Doctor, programs: Programs) -> None:
    config = programs.folder / "short.toml"
    config.write_text("room_lifetime_s = 0.5\nroom_token_lifetime_s = 0.5\n")
    url = programs.signaling("--config", config)
    session = asyncio.run(open_room(url))
    lines: Lines = {}

    def has_expired() -> bool:
        lines.update(doctor(session.encode(), *SERVER))
        return "expired" in lines["room"]["found"]

    wait_for(has_expired, "the token expires")
    assert_found(lines, "room", "failed", "the token has expired", "new session string")


def test_a_room_without_a_worker(doctor: Doctor, programs: Programs) -> None:
    session = asyncio.run(open_room(programs.signaling()))
    lines = doctor(session.encode(), *SERVER, *WORKER)
    assert lines["room"]["status"] == "ok"
    assert_found(lines, "worker", "failed", "No worker is online", "Start one with")


# -- ways through networks ---------------------------------------------------------


def lab_with(programs: Programs, toml: str) -> str:
    """Start a server with more configuration; return a session of it."""
    config = programs.folder / "ice.toml"
    config.write_text(toml)
    url = programs.signaling("--config", config)
    return asyncio.run(open_room(url)).encode()


def turn_lab(programs: Programs, secret: str, *urls: str) -> str:
    return lab_with(
        programs, f'[[turn]]\nurls = {json.dumps(urls)}\nsecret = "{secret}"\n'
    )


def test_turn_that_relays(doctor: Doctor, programs: Programs) -> None:
    turn = start_turn(programs, SECRET)
    url = f"turn:127.0.0.1:{turn.port}"
    doctor.secrets.add(SECRET)
    lines = doctor(turn_lab(programs, SECRET, url, f"{url}?transport=tcp"), *SERVER)
    assert_found(lines, "turn", "ok", "relays", "Nothing")
    # It tells our address, too: our own, since nothing is in between.
    assert_found(lines, "nat", "ok", "none on the way", "Nothing")


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_turn_with_another_secret(
    doctor: Doctor, programs: Programs, transport: str
) -> None:
    turn = start_turn(programs, SECRET)
    url = f"turn:127.0.0.1:{turn.port}?transport={transport}"
    doctor.secrets |= {SECRET, OTHER_SECRET}
    lines = doctor(turn_lab(programs, OTHER_SECRET, url), *SERVER)
    assert_found(lines, "turn", "failed", "refused the credentials", "same secret")


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_turn_that_is_down(doctor: Doctor, programs: Programs, transport: str) -> None:
    url = f"turn:127.0.0.1:{free_port()}?transport={transport}"
    lines = doctor(turn_lab(programs, SECRET, url), *SERVER)
    assert_found(lines, "turn", "failed", url, "Check that it runs")


@pytest.mark.parametrize("is_trusted", [True, False])
def test_turn_over_tls(
    doctor: Doctor, programs: Programs, tmp_path: Path, is_trusted: bool
) -> None:
    certificate = make_certificate(tmp_path)
    turn: Turn = start_turn(programs, SECRET, certificate)
    session = turn_lab(programs, SECRET, f"turns:localhost:{turn.tls_port}")
    trust = {"SSL_CERT_FILE": str(certificate.authority)} if is_trusted else {}
    lines = doctor(session, *SERVER, **trust)
    if is_trusted:
        assert_found(lines, "turn", "ok", "relays", "Nothing")
    else:
        assert_found(lines, "turn", "failed", "not trusted", "SSL_CERT_FILE")


def test_stun_that_does_not_answer(doctor: Doctor, programs: Programs) -> None:
    url = f"stun:127.0.0.1:{free_port()}"
    session = lab_with(programs, f'[[ice_servers]]\nurls = ["{url}"]\n')
    lines = doctor(session, *SERVER)
    assert_found(lines, "stun", "failed", url, "lets UDP to its port through")
    assert lines["nat"]["status"] == "note"


# -- the worker --------------------------------------------------------------------


def test_a_worker_without_sleap_nn(doctor: Doctor, programs: Programs) -> None:
    worker = programs.scripted_worker("none").wait_ready()
    lines = doctor(worker.session, *WORKER)
    assert_found(lines, "trainer", "failed", "has no sleap-nn", "pip install")
    assert lines["jobs"]["status"] == "failed"
    assert lines["link"]["status"] == "ok"


def test_another_name_than_the_worker_s(doctor: Doctor, gpu_box: Worker) -> None:
    lines = doctor(gpu_box.session, *WORKER, "--worker", "gpu-bax")
    assert_found(lines, "worker", "failed", "No worker named gpu-bax", "gpu-box")


@POSIX
def test_a_worker_that_hangs(doctor: Doctor, programs: Programs) -> None:
    worker = programs.scripted_worker("train").wait_ready()
    # Its server is in the same process, so it has one of its own here.
    url = programs.signaling("--data", programs.folder / "other")
    other = programs.scripted_worker(
        "train", "--signaling", url, "--data", programs.folder / "more"
    ).wait_ready()
    worker.kill()
    with other.paused():
        lines = doctor(other.session, *WORKER)
    assert_found(lines, "jobs", "failed", "no reply from", "Try again")
    assert lines["link"]["status"] == "failed"


def test_a_worker_with_a_full_disk(doctor: Doctor, programs: Programs) -> None:
    with small_disk(programs.folder / "small", mib=40) as disk:
        worker = programs.scripted_worker("train", "--data", disk / "data")
        worker.wait_ready()
        lines = doctor(worker.session, *WORKER)
        worker.terminate()
        worker.wait()
    assert_found(lines, "worker-disk", "failed", "does not fit", "Make room there")


def test_shared_storage_that_both_see(doctor: Doctor, programs: Programs) -> None:
    here, there = two_mounts(programs.folder)
    worker = programs.scripted_worker("train", "--shared-storage-root", there)
    worker.wait_ready()
    lines = doctor(
        worker.session, *WORKER, "--only", "storage", SHARED_STORAGE_ROOT=str(here)
    )
    assert lines["storage"]["status"] == "ok"
    assert lines["worker-storage"]["status"] == "ok"
    # Nothing is left of the question.
    assert not [p for p in (programs.folder / "exported").rglob("*") if p.is_file()]
    elsewhere = programs.folder / "not-mounted"
    elsewhere.mkdir()
    lines = doctor(
        worker.session,
        *("--only", "worker-storage"),
        SHARED_STORAGE_ROOT=str(elsewhere),
    )
    assert_found(
        lines, "worker-storage", "warning", "is not used", "--shared-storage-root"
    )


def test_a_worker_without_shared_storage(doctor: Doctor, gpu_box: Worker) -> None:
    folder = doctor.programs.folder
    lines = doctor(
        gpu_box.session, "--only", "worker-storage", SHARED_STORAGE_ROOT=str(folder)
    )
    assert_found(
        lines, "worker-storage", "warning", "not told of any", "--shared-storage-root"
    )


def test_a_job_that_went_wrong(
    doctor: Doctor, programs: Programs, small_package: Path, output: Path
) -> None:
    worker = programs.scripted_worker("fail").wait_ready()
    train = programs.train(small_package, worker.session, output)
    assert train.wait() == 1, train.story()
    lines = doctor(worker.session, "--only", "last-error")
    assert_found(lines, "last-error", "warning", "went wrong", "Logs")


# -- this computer -----------------------------------------------------------------


def test_a_full_disk_at_home(doctor: Doctor, programs: Programs) -> None:
    with small_disk(programs.folder / "small", mib=1) as disk:
        lines = doctor("", "--only", "disk", XDG_CACHE_HOME=str(disk))
    assert_found(lines, "disk", "failed", "MiB are free for packages", "Make room")


def test_settings_that_cannot_be_written(doctor: Doctor, programs: Programs) -> None:
    place = programs.folder / "a-file"
    place.write_text("in the way")
    lines = doctor("", "--only", "settings", SLEAP_REMOTE_CONFIG_DIR=str(place))
    assert_found(
        lines, "settings", "failed", "Nothing can be written", "SLEAP_REMOTE_CONFIG_DIR"
    )


def test_settings_that_cannot_be_read(doctor: Doctor, programs: Programs) -> None:
    folder = programs.folder / "config"
    folder.mkdir()
    (folder / "settings.json").write_text("{")
    lines = doctor("", "--only", "settings", SLEAP_REMOTE_CONFIG_DIR=str(folder))
    assert_found(lines, "settings", "warning", "cannot be read", "delete it")
    assert (folder / "settings.json").read_text() == "{"


def test_a_keyring_that_does_not_work(doctor: Doctor) -> None:
    lines = doctor("", "--only", "keyring", PYTHON_KEYRING_BACKEND="no.such.Backend")
    assert_found(lines, "keyring", "warning", "does not work", "PYTHON_KEYRING_BACKEND")


@POSIX
def test_session_strings_that_others_may_read(
    doctor: Doctor, programs: Programs
) -> None:
    folder = programs.home / "config" / "sleap-remote" / "sessions"
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    path = folder / "room-1.txt"
    path.write_text("sleap-session:abc")
    path.chmod(0o644)
    lines = doctor("", "--only", "keyring")
    assert_found(lines, "keyring", "failed", "Other users", "chmod -R go=")
    path.chmod(0o600)
    assert doctor("", "--only", "keyring")["keyring"]["status"] != "failed"


def test_shared_storage_that_is_not_mounted(doctor: Doctor) -> None:
    lines = doctor("", "--only", "storage", SHARED_STORAGE_ROOT="/no/such/mount")
    assert_found(lines, "storage", "warning", "it is not there", "Mount it")


@pytest.fixture
def environment(programs: Programs) -> Iterator[Path]:
    """Yield the Python of an environment of its own, over the same packages."""
    folder = programs.folder / "environment"
    made = programs.start("-m", "venv", "--without-pip", folder)
    assert made.wait() == 0, made.story()
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    yield python


def test_a_menu_that_is_broken(programs: Programs, environment: Path) -> None:
    import sys

    shared = [path for path in sys.path if path and Path(path).is_dir()]
    (site,) = environment.parents[1].rglob("site-packages")
    (site / "packages.pth").write_text("\n".join(shared))

    def look() -> dict[str, Any]:
        run = Program(
            [str(environment), *CLI, "doctor", "--json", "--only", "menu"],
            cwd=programs.folder,
            environment=programs.environment,
        )
        programs.adopt(run)
        run.wait()
        return run.events[0]

    pytest.importorskip("sleap")
    assert look()["status"] == "note"
    (site / "sleap_remote.pth").write_text("import no_such_module_of_ours\n")
    line = look()
    assert line["status"] == "failed"
    assert "sleap-remote enable" in line["remedy"]


def test_a_sleap_that_is_not_ours(doctor: Doctor, programs: Programs) -> None:
    pytest.importorskip("sleap")
    # What a SLEAP without its Qt looks like.
    shadow = programs.folder / "shadow"
    (shadow / "qtpy").mkdir(parents=True)
    (shadow / "qtpy" / "__init__.py").write_text("raise ImportError('broken')\n")
    path = os.pathsep.join([str(shadow), os.environ.get("PYTHONPATH", "")])
    lines = doctor("", "--only", "sleap", PYTHONPATH=path)
    assert_found(
        lines, "sleap", "warning", "could not be looked at", "sleap-remote label"
    )
