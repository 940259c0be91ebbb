"""Bad input gets one sentence and the exit code of the design, and loses nothing.

A real client against a real worker whose trainer is scripted; what sleap-nn itself
refuses is in `test_training`.
"""

import asyncio
import base64
import binascii
import json
import os
import secrets
import socket
import stat
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from support.packages import (
    CENTROID,
    LABELS,
    Members,
    edit_config,
    pad_labels,
    read_members,
    rewrite,
    write_package,
)
from support.programs import POSIX, Program, Programs, Worker

from sleap_rtc_plugin.protocol.account_messages import RoomMade
from sleap_rtc_plugin.protocol.session_string import Session
from sleap_rtc_plugin.transport.account import AccountClient
from sleap_rtc_signaling.tokens import Tokens, load_or_make_key

JOB_FAILED, USAGE, UNREACHABLE, REFUSED, BAD_PACKAGE = 1, 2, 3, 4, 5
MIB = 1024 * 1024
ONLY_ROOT = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0,
    reason="only root on Linux can mount a small disk",
)


@pytest.fixture(scope="module")
def worker(module_programs: Programs) -> Worker:
    """One worker for every test that leaves it as it was."""
    return module_programs.scripted_worker("train", "--name", "lab").wait_ready()


@pytest.fixture(scope="module")
def signaling(module_programs: Programs) -> str:
    return module_programs.signaling()


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 6 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("this machine lets nobody mount a small disk")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)  # noqa: S607


def session_nobody_answers() -> str:
    """Return a session at an address where nothing listens."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return Session(
        url=f"http://127.0.0.1:{port}",
        room_id="room-1",
        token="t",
        peer_id="worker-1",
        secret=bytes(32),
    ).encode()


def home_files(output: Path) -> list[Path]:
    """Return what a failed run must not leave: files under their final names."""
    private = output / ".sleap-remote"
    return [
        path
        for path in output.rglob("*")
        if path.is_file() and private not in path.parents
    ]


def assert_one_sentence(
    program: Program, code: int, *words: str, output: Path, alone: bool = True
) -> dict[str, str]:
    """Check the exit code, the words on stderr, and that nothing came home."""
    assert program.wait(90) == code, program.story()
    said = "\n".join(program.err)
    assert "Traceback" not in said, program.story()
    error: dict[str, str] = {}
    if alone:
        assert len(program.err) == 1, program.story()
    if program.events:
        error = program.report["error"]
        assert said.endswith(error["message"]), program.story()
    for word in words:
        assert word in said, program.story()
    assert not output.exists() or home_files(output) == []
    return error


# -- the package ---------------------------------------------------------------------


def _drop_configs(members: Members) -> None:
    del members[CENTROID]


def _drop_labels(members: Members) -> None:
    del members[LABELS]


def _spoil_labels(members: Members) -> None:
    members[LABELS] = members[LABELS][:5000]


def _add(name: str) -> Callable[[Members], None]:
    def change(members: Members) -> None:
        members[name] = b"x"

    return change


def _add_bomb(members: Members) -> None:
    members["zeros.bin"] = bytes(300 * MIB)


def _add_many(members: Members) -> None:
    members.update({f"many/{number}": b"" for number in range(100_000)})


@pytest.mark.parametrize(
    ("change", "code", "word"),
    [
        (_drop_configs, "not_a_package", "no training configuration"),
        (_drop_labels, "not_a_package", "no labels"),
        (_spoil_labels, "labels_unreadable", "do not load"),
        (_add("../x"), "unsafe_member", "leads out of its folder"),
        (_add("/etc/x"), "unsafe_member", "absolute"),
        (_add("C:/x"), "unsafe_member", "absolute"),
        (_add("aux.slp"), "unsafe_member", "Windows reserves"),
        (_add_many, "package_too_large", "members"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_packages_that_are_refused_before_anything_is_sent(
    programs: Programs,
    small_package: Path,
    tmp_path: Path,
    output: Path,
    change: Callable[[Members], None],
    code: str,
    word: str,
) -> None:
    package = rewrite(small_package, tmp_path / "bad.zip", change)
    client = programs.train(package, session_nobody_answers(), output)
    error = assert_one_sentence(client, BAD_PACKAGE, word, output=output)
    assert error["code"] == code
    assert not (tmp_path / "x").exists()


def test_a_zip_bomb(
    programs: Programs, small_package: Path, tmp_path: Path, output: Path
) -> None:
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in read_members(small_package).items():
            archive.writestr(name, data)
        archive.writestr("zeros.bin", bytes(300 * MIB))
    client = programs.train(bomb, session_nobody_answers(), output)
    error = assert_one_sentence(client, BAD_PACKAGE, output=output)
    assert error["code"] == "package_too_large"


def test_a_link_in_a_zip(
    programs: Programs, small_package: Path, tmp_path: Path, output: Path
) -> None:
    package = write_package(tmp_path / "link.zip", read_members(small_package))
    with zipfile.ZipFile(package, "a") as archive:
        link = zipfile.ZipInfo("link.slp")
        link.create_system = 3
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    client = programs.train(package, session_nobody_answers(), output)
    error = assert_one_sentence(client, BAD_PACKAGE, "link.slp", output=output)
    assert error["code"] == "unsafe_member"


def test_a_file_that_is_no_zip(
    programs: Programs, tmp_path: Path, output: Path
) -> None:
    package = tmp_path / "package.zip"
    package.write_text("this is not a zip")
    client = programs.train(package, session_nobody_answers(), output)
    assert_one_sentence(client, BAD_PACKAGE, "not a training package", output=output)


def test_a_package_that_is_not_there(
    programs: Programs, tmp_path: Path, output: Path
) -> None:
    client = programs.train(tmp_path / "no.zip", session_nobody_answers(), output)
    assert_one_sentence(client, USAGE, "does not exist", output=output)


def test_a_config_that_the_worker_refuses(
    programs: Programs,
    worker: Worker,
    small_package: Path,
    tmp_path: Path,
    output: Path,
) -> None:
    def change(members: Members) -> None:
        values = {
            "trainer_config.profiler": "simple",
            "data_config.evil": "${oc.env:A}",
        }
        edit_config(members, CENTROID, values)

    package = rewrite(small_package, tmp_path / "bad.zip", change)
    client = programs.train(package, worker.session, output)
    error = assert_one_sentence(
        client, BAD_PACKAGE, CENTROID, output=output, alone=False
    )
    assert error["code"] == "config_refused"


# -- the session ---------------------------------------------------------------------


def with_fields(text: str, **changes: object) -> str:
    """Return a session string with other fields and a sound checksum."""
    scheme, _, body = text.partition(":")
    raw = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
    fields = json.dumps(json.loads(raw[:-4]) | changes).encode()
    check = binascii.crc32(fields).to_bytes(4, "big")
    return f"{scheme}:{base64.urlsafe_b64encode(fields + check).decode().rstrip('=')}"


def _altered(text: str) -> str:
    middle = len(text) // 2
    other = "A" if text[middle] != "A" else "B"
    return text[:middle] + other + text[middle + 1 :]


@pytest.mark.parametrize(
    ("change", "code", "error"),
    [
        (lambda text: text[:-20], REFUSED, "session_string_invalid"),
        (_altered, REFUSED, "session_string_invalid"),
        (lambda text: "hello", REFUSED, "session_string_invalid"),
        (lambda text: with_fields(text, v=99), REFUSED, "session_string_too_new"),
        (lambda text: session_nobody_answers(), UNREACHABLE, "signaling_unreachable"),
        (lambda text: with_fields(text, token="x"), REFUSED, "token_refused"),
        (
            lambda text: with_fields(
                text, secret=base64.urlsafe_b64encode(bytes(32)).decode().rstrip("=")
            ),
            REFUSED,
            "peer_not_authenticated",
        ),
    ],
    ids=["truncated", "altered", "none", "newer", "dead", "token", "secret"],
)
def test_sessions_that_are_not_accepted(
    programs: Programs,
    worker: Worker,
    small_package: Path,
    output: Path,
    change: Callable[[str], str],
    code: int,
    error: str,
) -> None:
    client = programs.train(small_package, change(worker.session), output)
    said = assert_one_sentence(client, code, output=output)
    # Before the session is read there is no submission to report on.
    assert said.get("code", "session_string") in error or said["code"] == error


def make_room(url: str, *, close: bool = False) -> str:
    """Open a room, and close it again if told to; return a session for it."""

    async def make() -> RoomMade:
        async with AccountClient(url) as account:
            owner = await account.sign_in_anonymously()
            room = await account.create_room(owner.token)
            if close:
                await account.delete_room(owner.token, room.room_id)
            return room

    room = asyncio.run(make())
    return Session(
        url=url,
        room_id=room.room_id,
        token=room.token,
        peer_id="worker-1",
        secret=secrets.token_bytes(32),
    ).encode()


def test_a_room_without_a_worker(
    programs: Programs, signaling: str, small_package: Path, output: Path
) -> None:
    session = make_room(signaling)
    client = programs.train(small_package, session, output)
    said = assert_one_sentence(client, UNREACHABLE, "No worker", output=output)
    assert said["code"] == "no_worker"


def test_a_room_that_was_closed(
    programs: Programs, signaling: str, small_package: Path, output: Path
) -> None:
    session = make_room(signaling, close=True)
    client = programs.train(small_package, session, output)
    said = assert_one_sentence(client, REFUSED, output=output)
    assert said["code"] == "room_gone"


def test_a_session_that_expired(
    programs: Programs,
    module_programs: Programs,
    signaling: str,
    small_package: Path,
    output: Path,
) -> None:
    session = make_room(signaling)
    room_id = Session.parse(session).room_id
    key = load_or_make_key(module_programs.folder / "signaling")
    now = time.time()
    token = Tokens(key, signaling).issue("room", room_id, now - 20, now - 10)
    client = programs.train(small_package, with_fields(session, token=token), output)
    said = assert_one_sentence(client, REFUSED, "expired", output=output)
    assert said["code"] == "token_refused"


# -- the worker ------------------------------------------------------------------------


def test_a_worker_of_another_name(
    programs: Programs, worker: Worker, small_package: Path, output: Path
) -> None:
    client = programs.train(small_package, worker.session, output, "--worker", "nobody")
    said = assert_one_sentence(client, UNREACHABLE, "nobody", "lab", output=output)
    assert said["code"] == "worker_not_found"


@POSIX
def test_a_worker_that_dies_while_the_package_is_sent(
    programs: Programs, small_package: Path, tmp_path: Path, output: Path
) -> None:
    package = pad_labels(small_package, tmp_path / "large.zip", 60, tmp_path)
    worker = programs.scripted_worker("train").wait_ready()
    client = programs.train(package, worker.session, output, "--reconnect-for", "1s")
    client.wait_line(
        lambda line: '"transfer"' in line and json.loads(line)["bytes_sent"] > MIB
    )
    worker.kill()
    said = assert_one_sentence(
        client, UNREACHABLE, "run the same command again", output=output, alone=False
    )
    assert said["code"] == "worker_vanished"


def test_a_worker_without_sleap_nn(
    programs: Programs, small_package: Path, output: Path
) -> None:
    worker = programs.scripted_worker("none").wait_ready()
    client = programs.train(small_package, worker.session, output)
    said = assert_one_sentence(client, JOB_FAILED, "no sleap-nn", output=output)
    assert said["code"] == "trainer_missing"
    assert client.report["bytes_sent"] == 0


@POSIX
@pytest.mark.parametrize(
    ("behaviour", "code", "words"),
    [
        ("crash", "step_failed", ["exit code 3", "RuntimeError: CUDA out of memory"]),
        ("absent", "trainer_missing", ["has no sleap-nn"]),
        ("forgetful", "results_incomplete", ["best.ckpt"]),
    ],
)
def test_a_trainer_that_fails(
    programs: Programs,
    small_package: Path,
    output: Path,
    behaviour: str,
    code: str,
    words: list[str],
) -> None:
    worker = programs.scripted_worker(behaviour).wait_ready()
    client = programs.train(small_package, worker.session, output)
    said = assert_one_sentence(client, JOB_FAILED, *words, output=output, alone=False)
    assert said["code"] == code
    assert client.report["state"] == "failed"


@POSIX
def test_results_that_differ_from_their_digest(
    programs: Programs, small_package: Path, output: Path
) -> None:
    worker = programs.scripted_worker("train", E2E_FAULT="corrupt-results")
    worker.wait_ready()
    client = programs.train(small_package, worker.session, output)
    said = assert_one_sentence(
        client, JOB_FAILED, "did not arrive as it was sent", output=output, alone=False
    )
    assert said["code"] == "digest_mismatch"


def test_a_port_in_use(programs: Programs) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for program in (
            programs.scripted_worker("train", "--port", port),
            programs.client(
                "signaling", "--port", port, "--data", programs.folder / "signaling"
            ),
        ):
            assert program.wait() == UNREACHABLE, program.story()
            assert program.out == []
            (sentence,) = program.err
            assert str(port) in sentence
            assert "already in use" in sentence


def test_two_workers_in_one_folder(programs: Programs) -> None:
    programs.scripted_worker("train").wait_ready()
    second = programs.scripted_worker("train")
    assert second.wait() == UNREACHABLE, second.story()
    (sentence,) = second.err
    assert "is in use by another worker" in sentence


# -- full disks ------------------------------------------------------------------------


@ONLY_ROOT
def test_a_full_disk_at_the_worker(
    programs: Programs,
    small_package: Path,
    small_disk: Path,
    tmp_path: Path,
    output: Path,
) -> None:
    package = pad_labels(small_package, tmp_path / "large.zip", 8, tmp_path)
    worker = programs.scripted_worker("train", "--data", small_disk / "data")
    worker.wait_ready()
    client = programs.train(package, worker.session, output)
    said = assert_one_sentence(
        client, JOB_FAILED, "not enough space", output=output, alone=False
    )
    assert said["code"] == "disk_full"


@ONLY_ROOT
def test_a_worker_that_may_not_write_so_much(
    programs: Programs, small_package: Path, tmp_path: Path, output: Path
) -> None:
    """The disk says no in the middle of a file."""
    import resource

    package = pad_labels(small_package, tmp_path / "large.zip", 8, tmp_path)
    worker = programs.scripted_worker("train").wait_ready()
    limit = (4 * MIB, resource.RLIM_INFINITY)
    resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, limit)
    client = programs.train(package, worker.session, output)
    said = assert_one_sentence(client, JOB_FAILED, output=output, alone=False)
    assert said["code"] == "storage_failed"
    # Room is made, and the same command goes on.
    infinite = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, infinite)
    again = programs.train(package, worker.session, output)
    assert again.wait() == 0, again.story()
    assert again.report["bytes_reused"] > MIB


@ONLY_ROOT
def test_a_full_disk_for_the_results(
    programs: Programs, small_package: Path, small_disk: Path
) -> None:
    worker = programs.scripted_worker("train,checkpoint_mib=8").wait_ready()
    output = small_disk / "out"
    client = programs.train(small_package, worker.session, output)
    said = assert_one_sentence(
        client, JOB_FAILED, "not enough space", output=output, alone=False
    )
    assert said["code"] == "disk_full"
    assert client.report["state"] == "succeeded"
    # The results wait at the worker for a disk with room.
    subprocess.run(
        ["mount", "-o", "remount,size=64m", str(small_disk)],  # noqa: S607
        check=True,
    )
    again = programs.train(small_package, worker.session, output)
    assert again.wait() == 0, again.story()
    assert again.report["job_id"] == client.report["job_id"]


@ONLY_ROOT
def test_a_full_disk_for_the_package(
    programs: Programs,
    worker: Worker,
    small_package: Path,
    small_disk: Path,
    tmp_path: Path,
    output: Path,
) -> None:
    package = pad_labels(small_package, tmp_path / "large.zip", 8, tmp_path)
    client = programs.client(
        *("train", package, "--session", worker.session, "--output", output, "--json"),
        XDG_CACHE_HOME=str(small_disk),
    )
    said = assert_one_sentence(client, JOB_FAILED, "not enough space", output=output)
    assert said["code"] == "disk_full"
    assert not any(path.is_file() for path in small_disk.rglob("*"))


def test_the_report_always_has_the_same_fields(
    programs: Programs, tmp_path: Path, output: Path
) -> None:
    package = tmp_path / "package.zip"
    package.write_text("no zip")
    client = programs.train(package, session_nobody_answers(), output)
    client.wait()
    assert list(client.report) == [
        "state",
        "job_id",
        "worker",
        "models",
        "predictions",
        "bytes_total",
        "bytes_sent",
        "bytes_reused",
        "seconds",
        "link",
        "error",
    ]
    assert msgspec.convert(client.report["error"], dict[str, str]).keys() == {
        "code",
        "message",
    }
