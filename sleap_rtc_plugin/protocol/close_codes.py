"""Why the signaling server closed a WebSocket, and whether to come back.

The codes are in the range that RFC 6455 section 7.4.2 leaves to applications. Used
by the server that closes and by the client that decides whether to reconnect.
"""

from enum import IntEnum
from typing import Final

__all__ = ["FATAL_CLOSE_CODES", "CloseCode"]


class CloseCode(IntEnum):
    """The server's reasons for closing a socket."""

    PROTOCOL_BROKEN = 4400
    """What was sent is not a message, too often or before registering."""
    NOT_REGISTERED = 4401
    """Something other than `register` came first."""
    REGISTRATION_REFUSED = 4403
    """The `error` reply just before says why."""
    REGISTER_DEADLINE = 4408
    """No `register` came in time."""
    REPLACED = 4409
    """The same peer registered on a newer socket, with the same resume key."""
    ROOM_ENDED = 4410
    """The room expired or its owner deleted it."""
    TOO_SLOW = 4413
    """The peer did not read what was sent to it."""
    RATE_LIMITED = 4429
    """The peer kept sending although it was told to wait."""


FATAL_CLOSE_CODES: Final = frozenset(
    {
        CloseCode.PROTOCOL_BROKEN,
        CloseCode.NOT_REGISTERED,
        CloseCode.REGISTRATION_REFUSED,
        CloseCode.REPLACED,
        CloseCode.ROOM_ENDED,
    }
)
"""After these, connecting again with the same registration gives the same end.

For `REGISTRATION_REFUSED` the reply's own code decides: `rate_limited` may be tried
again. Every other code, 1001, 1006 and 1012 among them, means: connect again, later.
"""
