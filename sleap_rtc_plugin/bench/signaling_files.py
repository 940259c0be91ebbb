"""As many open files as the system lets a process have, for thousands of sockets.

Most systems start a program with 1,024 or fewer. Used by the processes of
`bench signaling`.
"""

import contextlib
import sys
from typing import Final

__all__ = ["allow_open_files"]

# Beyond this nothing here opens; some systems say "no limit" and take no such number.
_MOST: Final = 65_536


def allow_open_files() -> None:
    """Raise this process's own limit as far as it may."""
    if sys.platform == "win32":
        return
    import resource

    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST if most == resource.RLIM_INFINITY else min(_MOST, most)
    if now != resource.RLIM_INFINITY and now < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
