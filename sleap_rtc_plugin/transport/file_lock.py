"""A lock between programs on an open file, which ends with the program at the latest.

Used for the settings, for runs of which two SLEAPs know, for results on their way, and
for a folder of models that many share.
"""

import errno
import sys
from typing import Final

__all__ = ["try_lock"]

_TAKEN: Final = frozenset({errno.EACCES, errno.EAGAIN, errno.EDEADLK})


def try_lock(descriptor: int, *, needs_locks: bool = False) -> bool:
    """Take the lock of an open file; False where another open file has it.

    On a disk that knows no locks nobody is kept out.

    Args:
        descriptor: of the file.
        needs_locks: nothing may go on without one.

    Raises:
        OSError: the disk knows no locks, and one is needed.
    """
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if needs_locks and error.errno not in _TAKEN:
            raise OSError(errno.EROFS, "its disk knows no locks") from error
        return error.errno not in _TAKEN
    return True
