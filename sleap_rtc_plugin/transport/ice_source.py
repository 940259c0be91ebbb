"""The ICE configuration as it is now, for programs that run for days.

Fetches it from the signaling server when it is first wanted, and again before its
credentials expire. Used by a client's stay in a room, and by the worker's door.
"""

import asyncio
import logging
import time

from sleap_rtc_plugin.protocol.errors import RtcError
from sleap_rtc_plugin.protocol.relay_messages import IceServerList
from sleap_rtc_plugin.transport.account import AccountClient
from sleap_rtc_plugin.transport.effects import monotonic
from sleap_rtc_plugin.transport.ice_config import is_worth_keeping

__all__ = ["IceSource"]

logger = logging.getLogger(__name__)


class IceSource:
    """One server's configuration, for one token."""

    def __init__(self, server: str, token: str) -> None:
        """Ask `server`, as whom `token` says; nothing is asked yet."""
        self._server = server
        self._token = token
        self._config: IceServerList | None = None
        self._fetched_at = 0.0
        self._is_doubtful = False
        self._asking = asyncio.Lock()

    def forget(self) -> None:
        """The servers did not work; ask again before they are used again."""
        self._is_doubtful = True

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
                async with AccountClient(self._server) as account:
                    config = await account.ice_config(self._token)
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
