"""How a process beside SLEAP leaves the processor to SLEAP.

Sending a package can keep a core busy, and on a laptop with few of them SLEAP's own
drawing would wait for its turn. What is niced still gets whatever is left.
"""

import contextlib
import os
from pathlib import Path
from typing import Final

__all__ = ["NICENESS", "WINDOWS_PRIORITY", "give_way", "make_give_way"]

NICENESS: Final = 10
"""POSIX niceness beside SLEAP's 0: about a tenth of its share where both want all."""

WINDOWS_PRIORITY: Final = "BELOW_NORMAL_PRIORITY_CLASS"
"""The name of the `subprocess` flag that says the same on Windows."""

_AUTOGROUP: Final = Path("/proc/self/autogroup")


def give_way() -> None:
    """Lower this process's priority where the system has one to lower.

    Linux may schedule sessions against each other before it looks at the processes in
    them (sched(7), autogroup), and a companion is a session of its own.
    """
    if os.name != "posix":
        return  # its parent has said it with `WINDOWS_PRIORITY`
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    with contextlib.suppress(OSError):
        _AUTOGROUP.write_text(str(NICENESS))


def make_give_way(pid: int) -> None:
    """Lower the priority of a child that has just been started."""
    if os.name == "posix":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, pid, NICENESS)
