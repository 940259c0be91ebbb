"""Processes in groups of their own: start, signal, tell apart, leave none behind.

Each child leads a session (POSIX) or a process group (Windows), so that a signal
reaches everything it started and nothing else. A pid alone names nobody, since pids
are used again; a pid with its start time does.
"""

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final, Literal

from sleap_rtc_worker.limits import MAX_ENVIRONMENT_BYTES

__all__ = [
    "How",
    "has_exited",
    "is_same_process",
    "kill_group",
    "kill_marked",
    "leashed",
    "signal_group",
    "spawn",
    "start_time",
]

How = Literal["interrupt", "terminate", "kill"]

_POSIX_SIGNALS: Final[dict[How, str]] = {
    "interrupt": "SIGINT",
    "terminate": "SIGTERM",
    "kill": "SIGKILL",
}
_TOOL_TIMEOUT_S: Final = 10.0
# https://learn.microsoft.com/windows/win32/procthread/process-security-and-access-rights
_QUERY_LIMITED_INFORMATION: Final = 0x1000
_STILL_ACTIVE: Final = 259


def spawn(
    argv: Sequence[str],
    *,
    cwd: Path,
    environment: Mapping[str, str],
    stdout: int | IO[Any],
    stderr: int | IO[Any],
    own_console: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a program as the leader of a group of its own, with nothing on stdin.

    Args:
        argv: the program and its words; never given to a shell.
        cwd: the folder to start in.
        environment: all of its environment.
        stdout: where its output goes, as for `subprocess.Popen`.
        stderr: the same for its errors.
        own_console: on Windows, give it an invisible console of its own, so that it
            outlives ours; without, it shares ours and a break reaches it.

    Raises:
        OSError: it cannot be started.
    """
    flags = 0
    if sys.platform == "win32":
        flags = subprocess.CREATE_NEW_PROCESS_GROUP
        if own_console:
            flags |= subprocess.CREATE_NO_WINDOW
    return subprocess.Popen(  # noqa: S603 - a list of words, never a shell
        list(argv),
        cwd=cwd,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        close_fds=True,
        start_new_session=sys.platform != "win32",
        creationflags=flags,
    )


def leashed(argv: Sequence[str], cwd: Path) -> list[str]:
    """Return the words that start a program which ends when this process does.

    Only Linux can promise that; elsewhere they are the program's own.

    Raises:
        FileNotFoundError: there is no such program.
    """
    if sys.platform != "linux":
        return list(argv)
    if shutil.which(argv[0]) is None and shutil.which(cwd / argv[0]) is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), argv[0])
    leash = Path(__file__).with_name("leash.py")
    return [sys.executable, "-I", "-S", str(leash), str(os.getpid()), *argv]


def kill_marked(name: str, value: str) -> list[int]:
    """Kill every process of this user that was started with a variable; Linux only.

    Finds what a process group no longer tells: the group's leader is gone, or nobody
    had written its pid down yet.

    Returns:
        The pids that were killed and may not be gone yet.
    """
    if sys.platform != "linux":
        return []
    mark, killed = f"{name}={value}".encode(), []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            with (entry / "environ").open("rb") as file:
                environment = file.read(MAX_ENVIRONMENT_BYTES)
            if mark in environment.split(b"\0"):
                os.kill(int(entry.name), signal.SIGKILL)
                killed.append(int(entry.name))
        except OSError:
            # It is another user's, or has ended.
            continue
    return killed


def signal_group(pid: int, how: How) -> None:
    """Signal the group that `pid` leads; nothing happens where it is gone."""
    if pid <= 1:
        return
    if sys.platform == "win32":
        _signal_windows(pid, how)
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, getattr(signal, _POSIX_SIGNALS[how]))


def kill_group(pid: int) -> None:
    """Kill whatever is left of the group that `pid` led."""
    signal_group(pid, "kill")


def _signal_windows(pid: int, how: How) -> None:
    if how == "interrupt":
        with contextlib.suppress(OSError):
            os.kill(pid, getattr(signal, "CTRL_BREAK_EVENT", signal.SIGTERM))
        return
    # Windows knows no group signal: taskkill walks the tree of children.
    system = os.environ.get("SYSTEMROOT", r"C:\Windows")
    tool = str(Path(system, "System32", "taskkill.exe"))
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(  # noqa: S603 - fixed words and a number
            [tool, "/T", "/F", "/PID", str(pid)],
            check=False,
            capture_output=True,
            timeout=_TOOL_TIMEOUT_S,
        )


def has_exited(child: subprocess.Popen[bytes]) -> bool:
    """Tell whether a child has ended, without reaping it where that can be told.

    While the leader is not reaped its pid cannot be used again, so its group can
    still be killed safely.
    """
    if child.returncode is not None:
        return True
    if sys.platform == "win32" or not hasattr(os, "waitid"):
        return child.poll() is not None
    try:
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, child.pid, flags) is not None
    except ChildProcessError:
        return child.poll() is not None


def start_time(pid: int) -> str | None:
    """Return a word that differs between two processes of the same pid.

    None means that no such process runs; a zombie does not run.
    """
    if pid <= 0:
        return None
    if sys.platform == "linux":
        return _linux_start(pid)
    if sys.platform == "win32":
        return _windows_start(pid)
    return _ps_start(pid)


def is_same_process(pid: int, started: str | None) -> bool:
    """Tell whether the process that was `pid` when it started then still runs."""
    return started is not None and start_time(pid) == started


def _linux_start(pid: int) -> str | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:
        return None
    # proc(5): the name in brackets may hold anything, also brackets and spaces.
    fields = text.rpartition(")")[2].split()
    if len(fields) < 20 or fields[0] in ("Z", "X"):
        return None
    return f"{fields[19]}@{boot.strip()}"


def _ps_start(pid: int) -> str | None:
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(  # noqa: S603 - fixed words and a number
            ["/bin/ps", "-o", "state=,lstart=", "-p", str(pid)],
            check=False,
            capture_output=True,
            timeout=_TOOL_TIMEOUT_S,
            env={"LC_ALL": "C", "TZ": "UTC"},
        )
        words = done.stdout.decode("ascii", "replace").split()
        if done.returncode == 0 and words and not words[0].startswith("Z"):
            return " ".join(words[1:])
    return None


def _windows_start(pid: int) -> str | None:
    import ctypes

    kernel: Any = getattr(ctypes, "windll").kernel32  # noqa: B009 - Windows only
    handle = kernel.OpenProcess(_QUERY_LIMITED_INFORMATION, False, pid)
    if not handle:
        return None
    try:
        code = ctypes.c_ulong()
        created, ended, in_kernel, in_user = (ctypes.c_ulonglong() for _ in range(4))
        alive = kernel.GetExitCodeProcess(handle, ctypes.byref(code))
        if not alive or code.value != _STILL_ACTIVE:
            return None
        known = kernel.GetProcessTimes(
            handle, *(ctypes.byref(t) for t in (created, ended, in_kernel, in_user))
        )
        return str(created.value) if known else None
    finally:
        kernel.CloseHandle(handle)
