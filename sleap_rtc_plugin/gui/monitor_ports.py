"""Finds the pair of local ports that one more LossViewer can bind.

SLEAP's own search for free ports fails more often than not when its first choice is
taken, so a pair is chosen and checked here and then handed in. Looks only; whoever
binds next may still lose a race, and tries again. Called by the monitor launcher.
"""

import socket
import sys
from collections.abc import Collection
from contextlib import ExitStack
from typing import Final, NamedTuple

__all__ = ["SLEAP_PORTS", "PortPair", "choose_ports"]

MAX_PORT_DRAWS: Final = 20
_LOOPBACK: Final = "127.0.0.1"


class PortPair(NamedTuple):
    """The two ports of a monitor: it hears progress on one, sends Stop on the other."""

    publish: int
    controller: int


SLEAP_PORTS: Final = PortPair(publish=9001, controller=9000)


def choose_ports(taken: Collection[int] = ()) -> PortPair:
    """Return two free ports of this machine: SLEAP's own ones where they are free.

    Args:
        taken: ports that are promised to other monitors, bound or not.

    Raises:
        OSError: the machine has no free ports to give.
    """
    if not set(SLEAP_PORTS) & set(taken) and all(map(_is_free, SLEAP_PORTS)):
        return SLEAP_PORTS
    for _ in range(MAX_PORT_DRAWS):
        pair = _draw()
        if not set(pair) & set(taken):
            return pair
    raise OSError("this machine has no two free ports for a training monitor")


def _draw() -> PortPair:
    """Let the system choose two ports, both held until both are known."""
    with ExitStack() as held:
        first, second = (held.enter_context(_open()) for _ in range(2))
        first.bind((_LOOPBACK, 0))
        second.bind((_LOOPBACK, 0))
        return PortPair(first.getsockname()[1], second.getsockname()[1])


def _is_free(port: int) -> bool:
    with _open() as candidate:
        try:
            candidate.bind((_LOOPBACK, port))
            candidate.listen(1)
        except OSError:
            return False
    return True


def _open() -> socket.socket:
    candidate = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if sys.platform == "win32":
        # There, the usual option would let us bind a port that somebody listens on.
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
    else:
        # zmq does the same: ports of a monitor that was just closed are free again.
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return candidate
