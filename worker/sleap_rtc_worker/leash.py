"""Becomes a program that ends with whoever started it; Linux only.

Started as `python -I -S leash.py PARENT_PID PROGRAM WORD...` by the step runner. A
runner that is killed cannot end sleap-nn any more, and sleap-nn would go on without
anybody who listens, on a GPU that the next try needs. So the kernel is asked to.
Imports nothing of the package, to be quick.
"""

import ctypes
import os
import signal
import sys

# <linux/prctl.h>; kept by execve.
PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ask for the signal, see that it is not too late, and become the program."""
    parent, program = int(sys.argv[1]), sys.argv[2:]
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        # It ended before the kernel knew.
        os._exit(1)
    os.execvp(program[0], program)  # noqa: S606 - the words of the step runner


if __name__ == "__main__":
    main()
