"""The ICE configuration as it is now, for programs that run for days.

Fetches it from the signaling server when it is first wanted, and again before its
credentials expire. Used by a client's stay in a room, and by the worker's door.
"""

import asyncio
import logging
import time

from sleap_rtc_plugin.protocol.errors import (
    AccountError,
    NotAllowed,
    RtcError,
    TokenRefused,
)
from sleap_rtc_plugin.protocol.relay_messages import IceServerList
from sleap_rtc_plugin.transport.account import AccountClient
from sleap_rtc_plugin.transport.effects import monotonic
from sleap_rtc_plugin.transport.ice_config import is_worth_keeping
from sleap_rtc_plugin.transport.signaling_client import AccountToken, nobody

__all__ = ["IceSource"]

logger = logging.getLogger(__name__)


class IceSource:
    """One server's configuration, for one room.

    Args:
        server: whom to ask; nothing is asked yet.
        token: a room token.
        room_id: the room, for whoever has no good room token but an account.
        account: gives the account's token.
    """

    def __init__(
        self,
        server: str,
        token: str,
        *,
        room_id: str = "",
        account: AccountToken = nobody,
    ) -> None:
        self._server = server
        self._token = token
        self._room_id = room_id
        self._account = account
        self._uses_account = False
        self._config: IceServerList | None = None
        self._fetched_at = 0.0
        self._is_doubtful = False
        self._asking = asyncio.Lock()

    def forget(self) -> None:
        """The servers did not work; ask again before they are used again."""
        self._is_doubtful = True

    @property
    def room_token(self) -> str:
        """The room's token, or an empty text where the server did not take it.

        It may have ended, or been taken back, in a room of which the account that is
        signed in is a member.
        """
        return "" if self._uses_account else self._token

    async def bearer(self) -> str:
        """Return the token that the server takes: the room's, or the account's."""
        if not self._uses_account:
            return self._token
        try:
            return await self._account()
        except RtcError as error:
            # It is for the relay alone, which may not be needed.
            logger.warning("No account is used: %s", error)
            return self._token

    async def current(self) -> IceServerList:
        """Return the configuration, fetched anew where the old one is too old.

        Raises:
            RtcError: it was never fetched, and cannot be now.
        """
        async with self._asking:
            known = self._config
            age_s = monotonic() - self._fetched_at
            if (
                known is not None
                and not self._is_doubtful
                and is_worth_keeping(known, age_s=age_s, unix_now=time.time())
            ):
                return known
            try:
                config = await self._fetch()
            except RtcError as error:
                if known is None:
                    raise
                # A direct way needs none of it, and the error of a TURN server
                # says more than this one would.
                logger.warning("The ICE servers are those of before: %s", error)
                return known
            self._config, self._fetched_at = config, monotonic()
            self._is_doubtful = False
            return config

    async def _fetch(self) -> IceServerList:
        async with AccountClient(self._server) as server:
            try:
                config = await server.ice_config(self._token)
            except (TokenRefused, NotAllowed, AccountError) as error:
                account = await self._account_token(error)
                config = await server.ice_config(account, self._room_id)
                self._uses_account = True
            else:
                self._uses_account = False
        return config

    async def _account_token(self, refusal: RtcError) -> str:
        """Return the account's token; raise the refusal where there is none."""
        try:
            token = await self._account()
        except RtcError as error:
            logger.warning("No account is used: %s", error)
            raise refusal from None
        if not token:
            raise refusal
        return token
