"""Opens a new room at a signaling server, with a secret that the server never sees.

Used by a worker that makes its own room and by a user who signs in to a server.
"""

import secrets

from sleap_rtc_plugin.protocol.limits import SECRET_BYTES
from sleap_rtc_plugin.protocol.session_string import Session
from sleap_rtc_plugin.transport.account import AccountClient

__all__ = ["open_room"]


async def open_room(server: str, worker_id: str) -> Session:
    """Sign in anonymously, open a room, and return its session.

    Args:
        server: the signaling server's address, `http(s)://host[:port]`.
        worker_id: the worker that clients of this session prefer.

    Raises:
        RtcError: the server cannot be reached, or opens no room.
    """
    async with AccountClient(server) as account:
        signed_in = await account.sign_in_anonymously()
        room = await account.create_room(signed_in.token)
    return Session(
        url=server,
        room_id=room.room_id,
        token=room.token,
        peer_id=worker_id,
        secret=secrets.token_bytes(SECRET_BYTES),
    )
