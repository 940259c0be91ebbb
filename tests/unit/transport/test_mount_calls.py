"""Calls that hang, and the threads that are left behind."""

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from sleap_rtc_plugin.protocol.limits import MAX_STUCK_CALLS
from sleap_rtc_plugin.transport.mount_calls import Mount

SOON_S = 0.05
PATIENCE_S = 10.0


def test_a_call_gives_what_it_gives(tmp_path: Path) -> None:
    with Mount().caller() as caller:
        assert caller.call(os.path.join, "a", "b") == os.path.join("a", "b")  # noqa: PTH118
        with pytest.raises(FileNotFoundError):
            caller.call(os.stat, tmp_path / "missing")
        with pytest.raises(ZeroDivisionError):
            caller.call(divmod, 1, 0)


def test_an_error_of_the_file_system_is_no_silence() -> None:
    def fail() -> None:
        raise TimeoutError(errno.ETIMEDOUT, "the server said so")

    with Mount().caller() as caller:
        with pytest.raises(TimeoutError, match="the server said so"):
            caller.call(fail)
        assert caller.call(int, "7") == 7


def test_what_hangs_is_left_behind_and_never_asked_again() -> None:
    gate, calls = threading.Event(), []
    with Mount(SOON_S).caller() as caller:
        with pytest.raises(TimeoutError, match="does not answer"):
            caller.call(gate.wait)
        with pytest.raises(TimeoutError, match="does not answer"):
            caller.call(calls.append, 1)
    gate.set()
    assert not calls


def test_threads_that_hang_are_bounded_and_forgiven() -> None:
    mount, gate = Mount(SOON_S), threading.Event()
    before = set(threading.enumerate())
    for _ in range(MAX_STUCK_CALLS):
        with mount.caller() as caller, pytest.raises(TimeoutError):
            caller.call(gate.wait)
    left = set(threading.enumerate()) - before
    assert len(left) == MAX_STUCK_CALLS
    assert all(thread.daemon for thread in left)
    with pytest.raises(TimeoutError), mount.caller():
        pytest.fail("one thread too many")
    assert set(threading.enumerate()) - before == left
    gate.set()
    for thread in left:
        thread.join(PATIENCE_S)
    with mount.caller() as caller:
        assert caller.call(int, "7") == 7


def closed(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return True
    return False


def thread_of(action: Callable[[], None]) -> threading.Thread:
    before = set(threading.enumerate())
    action()
    (thread,) = set(threading.enumerate()) - before
    return thread


def test_a_file_opened_too_late_is_closed_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    gate, opened = threading.Event(), []

    def open_late() -> int:
        gate.wait()
        opened.append(os.open(tmp_path / "file", os.O_RDONLY))
        return opened[0]

    def hang() -> None:
        with Mount(SOON_S).caller() as caller, pytest.raises(TimeoutError):
            caller.open(open_late)

    thread = thread_of(hang)
    gate.set()
    thread.join(PATIENCE_S)
    assert closed(opened[0])


def test_files_are_closed_when_the_caller_ends(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    before = set(threading.enumerate())
    with Mount().caller() as caller:
        (thread,) = set(threading.enumerate()) - before
        kept = caller.open(os.open, tmp_path / "file", os.O_RDONLY)
        given_back = caller.open(os.open, tmp_path / "file", os.O_RDONLY)
        caller.close(given_back)
        assert closed(given_back)
        assert not closed(kept)
    thread.join(PATIENCE_S)
    assert closed(kept)
