"""Opens a new room at a signaling server, with a secret that the server never sees.

Used by a worker that makes its own room and by a user who signs in to a server.
"""

import secrets

from sleap_rtc_plugin.protocol.account_messages import ANONYMOUS, Access, RoomMade
from sleap_rtc_plugin.protocol.errors import NotSignedIn
from sleap_rtc_plugin.protocol.limits import SECRET_BYTES
from sleap_rtc_plugin.protocol.session_string import Session
from sleap_rtc_plugin.session.accounts import SignedInAccounts
from sleap_rtc_plugin.transport.account import AccountClient

__all__ = ["open_room"]


async def open_room(
    server: str,
    worker_id: str,
    *,
    name: str = "",
    access: Access = "open",
    accounts: SignedInAccounts | None = None,
    needs_account: bool = False,
) -> Session:
    """Open a room, and return its session.

    It belongs to the account that is signed in at the server, or else to a new one that
    nobody can sign in to again.

    Args:
        server: the signaling server's address, `http(s)://host[:port]`.
        worker_id: the worker that clients of this session prefer.
        name: what its owner calls it.
        access: who may enter.
        accounts: who is signed in where; nobody by default.
        needs_account: do not open one that nobody owns.

    Raises:
        NotSignedIn: nobody is, and the server knows no accounts without a name.
        RtcError: the server cannot be reached, or opens no room.
    """

    async def ask(client: AccountClient, token: str) -> RoomMade:
        return await client.create_room(token, name=name, access=access)

    if accounts is not None and await accounts.find(server) is not None:
        room = await accounts.call(server, ask)
    else:
        async with AccountClient(server) as client:
            methods = await client.sign_in_methods()
            is_possible = any(method.name == ANONYMOUS for method in methods)
            if needs_account or not is_possible:
                raise NotSignedIn(server=server)
            signed_in = await client.sign_in_anonymously()
            room = await ask(client, signed_in.token)
    return Session(
        url=server,
        room_id=room.room_id,
        token=room.token,
        peer_id=worker_id,
        secret=secrets.token_bytes(SECRET_BYTES),
    )
