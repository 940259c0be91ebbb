"""What the companion does about accounts: sign in, sign out, rooms, invitations.

Tokens stay here: SLEAP's side is told names and codes for people. The service hands it
commands; entering a room is the service's own.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from sleap_rtc_plugin.companion.account_messages import (
    AcceptInvite,
    AccountCommand,
    AccountRoom,
    CancelSignIn,
    InvitationAccepted,
    OpenServer,
    ServerOpened,
    SignInCode,
    SignInWay,
    SignOut,
    StartSignIn,
)
from sleap_rtc_plugin.companion.messages import Done, Event, Result
from sleap_rtc_plugin.protocol.account_messages import DeviceFlow
from sleap_rtc_plugin.protocol.errors import NotSignedIn, SignInRefused
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.session.accounts import SignedInAccounts
from sleap_rtc_plugin.session.credentials import CredentialStore
from sleap_rtc_plugin.session.known_rooms import KnownRoom, known_rooms
from sleap_rtc_plugin.session.room_office import accept_invitation
from sleap_rtc_plugin.session.sign_in import choose_method, sign_in
from sleap_rtc_plugin.transport.account import AccountClient

__all__ = ["AccountsService"]

logger = logging.getLogger(__name__)

MAX_ROOMS_LISTED: Final = 200


class AccountsService:
    """Accounts behind their commands.

    Args:
        credentials: the session strings.
        emit: takes every event, on the event loop.
        accounts: who is signed in where; the user's own by default.
    """

    def __init__(
        self,
        credentials: CredentialStore,
        emit: Callable[[Event], None],
        accounts: SignedInAccounts | None = None,
    ) -> None:
        self._credentials = credentials
        self._emit = emit
        self.accounts = accounts or SignedInAccounts()
        self._signing_in: asyncio.Task[None] | None = None

    async def carry_out(self, command: AccountCommand) -> Result:
        """Carry out one command.

        Raises:
            RtcError: why it could not be carried out.
        """
        match command:
            case OpenServer(server=server):
                return await self._open(server.rstrip("/"))
            case StartSignIn(server=server, method=method):
                return await self._sign_in(server.rstrip("/"), method)
            case CancelSignIn():
                self.cancel()
            case SignOut(server=server):
                await self.accounts.sign_out(server)
            case AcceptInvite(code=code):
                room = await accept_invitation(code, self.accounts, self._credentials)
                return InvitationAccepted(room=_row(room))
        return Done()

    def cancel(self) -> None:
        """Give up a sign-in that waits for the user."""
        if self._signing_in is not None:
            self._signing_in.cancel()

    async def _open(self, server: str) -> ServerOpened:
        async with AccountClient(server) as client:
            methods = await client.sign_in_methods()
        ways = [
            SignInWay(
                name=method.name,
                label=clean_text(method.label) or method.name,
                has_code=method.kind == "device",
                is_named=method.is_named,
            )
            for method in methods
        ]
        try:
            account = await self.accounts.account(server)
        except NotSignedIn:
            return ServerOpened(server=server, ways=ways)
        rooms, faults = await known_rooms(
            self.accounts, self._credentials, server=server
        )
        if faults:
            raise faults[0]
        mine = [room for room in rooms if room.role is not None]
        return ServerOpened(
            server=server,
            ways=ways,
            account_id=clean_text(account.account_id),
            name=clean_text(account.name),
            rooms=[_row(room) for room in mine[:MAX_ROOMS_LISTED]],
        )

    async def _sign_in(self, server: str, method: str) -> ServerOpened:
        self.cancel()

        def show(flow: DeviceFlow) -> None:
            self._emit(
                SignInCode(
                    server=server,
                    code=clean_text(flow.user_code),
                    page=flow.verification_uri,
                    page_with_code=flow.verification_uri_complete,
                    expires_at=flow.expires_at,
                )
            )

        async def work() -> None:
            async with AccountClient(server) as client:
                methods = await client.sign_in_methods()
            way = choose_method(methods, method, server)
            await sign_in(server, way, self.accounts, show)

        task = asyncio.create_task(work())
        self._signing_in = task
        try:
            await task
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                raise
            raise SignInRefused(server=server, reason="it was given up") from None
        finally:
            task.cancel()
            if self._signing_in is task:
                self._signing_in = None
        return await self._open(server)


def _row(room: KnownRoom) -> AccountRoom:
    return AccountRoom(
        room_id=room.room_id,
        server=room.server,
        name=room.name,
        role=room.role or "",
        is_kept=room.is_kept,
    )
