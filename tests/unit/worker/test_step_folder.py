"""The files of a step, what they hold, and what sleap-nn inherits."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from sleap_rtc_worker.config_check import read_verdict
from sleap_rtc_worker.job_executor import gpu_environment
from sleap_rtc_worker.limits import MAX_EVENT_LINE_BYTES
from sleap_rtc_worker.process import is_same_process, signal_group, start_time
from sleap_rtc_worker.step_files import append_line, read_bounded, replace_file
from sleap_rtc_worker.step_records import (
    RunnerState,
    StepLog,
    StepOrder,
    StepOutcome,
    StepProgress,
    decode_event,
    decode_order,
    decode_outcome,
    decode_state,
    encode_event,
    encode_record,
    parse_command,
)
from sleap_rtc_worker.trainer_environment import trainer_environment, without_secrets

ORDER = StepOrder(kind="train", argv=["a", "b=c"], cwd="/x", expected=["f"])


def test_records_are_read_as_written() -> None:
    state = RunnerState(pid=1, started="x", heartbeat=2.0, trainer_pid=3)
    outcome = StepOutcome(exit_code=0, ended=9.0, last_lines=["é"], missing=["a"])
    assert decode_order(encode_record(ORDER)) == ORDER
    assert decode_state(encode_record(state)) == state
    assert decode_outcome(encode_record(outcome)) == outcome


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"pid": "x"}', b"\xff"])
def test_what_is_not_a_record_is_none(data: bytes) -> None:
    assert decode_state(data) is None
    assert decode_outcome(data) is None
    assert decode_event(data) is None
    with pytest.raises((msgspec.MsgspecError, UnicodeDecodeError)):
        decode_order(data)


def test_an_event_is_one_line() -> None:
    for event in (
        StepProgress(at=1.0, event="epoch_end", epoch=1, losses={"loss": 0.5}),
        StepLog(at=1.0, lines=["a\nb", "é"], dropped=1),
    ):
        line = encode_event(event)
        assert line.endswith(b"\n")
        assert line.count(b"\n") == 1
        assert decode_event(line) == event
    assert decode_event(b" " * MAX_EVENT_LINE_BYTES + b"{}") is None


@pytest.mark.parametrize(
    ("data", "command"),
    [
        (b"stop", "stop"),
        (b"cancel\n", "cancel"),
        (b"", None),
        (b"STOP", None),
        (b"stop it", None),
        (b"\xff", None),
    ],
)
def test_commands(data: bytes, command: str | None) -> None:
    assert parse_command(data) == command


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "a"
    replace_file(path, b"one")
    replace_file(path, b"two", durable=True, mode=0o644)
    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(OSError):
        replace_file(tmp_path / "missing" / "a", b"x")


def test_reading_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert read_bounded(path, 5) == b"12345"
    assert read_bounded(path, 4) is None
    assert read_bounded(tmp_path / "b", 4) is None


def test_a_line_after_a_torn_one_stands_alone(tmp_path: Path) -> None:
    path = tmp_path / "a"
    append_line(path, b"one\n")
    path.write_bytes(path.read_bytes() + b"to")
    append_line(path, b"three\n", after_torn=True)
    assert path.read_bytes() == b"one\nto\nthree\n"


def test_a_process_is_known_by_its_start() -> None:
    started = start_time(os.getpid())
    assert started
    assert started == start_time(os.getpid())
    assert is_same_process(os.getpid(), started)
    assert not is_same_process(os.getpid(), "another time")
    assert not is_same_process(os.getpid(), None)
    assert start_time(-1) is None


def test_an_ended_process_is_not_alive_though_nobody_reaped_it() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert child.stdout is not None
    with child.stdout as pipe:
        pipe.read()
    if sys.platform != "win32":
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert start_time(child.pid) is None
    child.wait()
    assert start_time(child.pid) is None


def test_no_signal_is_sent_to_everybody() -> None:
    for pid in (0, 1, -1):
        signal_group(pid, "kill")


@pytest.mark.parametrize(
    "name",
    [
        "SLEAP_SESSION",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_PROFILE",
        "WANDB_API_KEY",
        "MY_SECRET",
        "github_token",
        "DB_PASSWORD",
        "SOME_API_KEY",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "SSH_AUTH_SOCK",
        "PYTHONSTARTUP",
    ],
)
def test_secrets_are_not_inherited(name: str) -> None:
    assert without_secrets({name: "x", "PATH": "/bin"}) == {"PATH": "/bin"}
    made = trainer_environment(
        {name: "x"}, {}, allow_wandb=False, allow_downloads=False
    )
    assert name not in made


def test_what_sleap_nn_needs_is_inherited() -> None:
    kept = {
        "PATH": "/bin",
        "HOME": "/home/a",
        "LD_LIBRARY_PATH": "/cuda",
        "CUDA_HOME": "/cuda",
        "OMP_NUM_THREADS": "2",
        "SYSTEMROOT": "C:\\Windows",
        "PYTHONPATH": "/src",
    }
    assert without_secrets(kept) == kept


def test_the_trainers_environment() -> None:
    made = trainer_environment(
        {"WANDB_API_KEY": "x", "CUDA_VISIBLE_DEVICES": "0,1"},
        gpu_environment(1),
        allow_wandb=False,
        allow_downloads=False,
    )
    assert made["CUDA_VISIBLE_DEVICES"] == "1"
    assert made["WANDB_MODE"] == "disabled"
    assert made["HF_HUB_OFFLINE"] == "1"
    assert made["PYTHONSAFEPATH"] == "1"
    allowed = trainer_environment(
        {"WANDB_API_KEY": "x"}, {}, allow_wandb=True, allow_downloads=True
    )
    assert allowed["WANDB_API_KEY"] == "x"
    assert not {"WANDB_MODE", "HF_HUB_OFFLINE"} & set(allowed)
    assert gpu_environment(None) == {}


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (b"", "crashed"),
        (b"Segmentation fault", "crashed"),
        (b"[]", "crashed"),
        (b'{"ok": "yes"}', "no reason"),
        (b'{"ok": false, "error": "bad head", "config": "/c/0.yaml"}', "a.yaml"),
        (b'{"ok": false, "error": "x", "config": "/etc/passwd"}', "package"),
        (b'{"ok": false, "missing": true}', "no sleap-nn"),
    ],
)
def test_anything_but_a_clear_yes_is_an_error(output: bytes, words: str) -> None:
    error = read_verdict(output, {"/c/0.yaml": "a.yaml"}, "gpu-7")
    assert error is not None
    assert words in str(error)


def test_a_clear_yes() -> None:
    assert read_verdict(b'noise\n{"ok": true, "error": null}\n', {}) is None
