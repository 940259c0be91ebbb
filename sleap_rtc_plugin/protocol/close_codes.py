"""Why the signaling server closed a WebSocket, and whether to come back.

The codes are in the range that RFC 6455 section 7.4.2 leaves to applications. Used
by the server that closes and by the client that decides whether to reconnect.
"""

from enum import IntEnum
from typing import Final

__all__ = [
    "FATAL_CLOSE_CODES",
    "FATAL_RELAY_CLOSE_CODES",
    "CloseCode",
    "RelayCloseCode",
]


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
    REVOKED = 4411
    """The token, the credential or the membership was taken back or has ended."""
    TOO_SLOW = 4413
    """The peer did not read what was sent to it."""
    RATE_LIMITED = 4429
    """The peer kept sending although it was told to wait."""


class RelayCloseCode(IntEnum):
    """The server's reasons for closing a relay's socket.

    The close frame's reason says more, in words of the server.
    """

    NOT_OFFERED = 4420
    """This server offers no relay."""
    REFUSED = 4421
    """The token, the room or the `relay_join` is not accepted, or is no longer."""
    PARTNER_ABSENT = 4422
    """The partner did not come in time."""
    PARTNER_LEFT = 4423
    """The partner's socket has closed."""
    LIMIT = 4424
    """A bound was passed: a quota, the number of relays, a partner that does not read,
    a relay on which nothing happens."""


FATAL_CLOSE_CODES: Final = frozenset(
    {
        CloseCode.PROTOCOL_BROKEN,
        CloseCode.NOT_REGISTERED,
        CloseCode.REGISTRATION_REFUSED,
        CloseCode.REPLACED,
        CloseCode.ROOM_ENDED,
        CloseCode.REVOKED,
    }
)
"""After these, connecting again with the same registration gives the same end.

For `REGISTRATION_REFUSED` the reply's own code decides: `rate_limited` may be tried
again. Every other code, 1001, 1006 and 1012 among them, means: connect again, later.
"""

FATAL_RELAY_CLOSE_CODES: Final = frozenset(
    {RelayCloseCode.NOT_OFFERED, RelayCloseCode.REFUSED}
)
"""After these, the relay with the same token gives the same end.

After every other code a new relay, with an id of its own, may be tried: at once where
the partner was absent or left, later where a limit was passed.
"""
