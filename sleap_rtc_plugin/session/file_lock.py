"""A lock between programs on an open file, which ends with the program at the latest.

Used for the settings, and for runs of which two SLEAPs know.
"""

import sys

__all__ = ["try_lock"]


def try_lock(descriptor: int) -> bool:
    """Take the lock of an open file; False where another open file has it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
