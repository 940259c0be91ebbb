"""Answers the offers of clients, and serves each link until it closes.

Bounds how many there are at once. Made by the worker's root; what a client may ask for
is `LinkService`'s.
"""

import logging
from collections.abc import Callable, Sequence

from sleap_rtc_plugin.protocol.errors import RtcError
from sleap_rtc_plugin.protocol.limits import MAX_LINKS_PER_WORKER
from sleap_rtc_plugin.protocol.signaling_messages import IceServer, RelayedOffer
from sleap_rtc_plugin.transport.link import Link
from sleap_rtc_plugin.transport.peer import accept_offer
from sleap_rtc_plugin.transport.signaling_client import SignalingClient
from sleap_rtc_plugin.transport.transport_options import TransportOptions
from sleap_rtc_worker.link_service import LinkService

__all__ = ["OfferService"]

logger = logging.getLogger(__name__)


class OfferService:
    """The door through which clients come in."""

    def __init__(
        self,
        make_service: Callable[[Link], LinkService],
        options: TransportOptions | None = None,
    ) -> None:
        """Prepare; nobody is let in before `serve`.

        Args:
            make_service: returns what serves a link.
            options: how data channels go; the environment's choice by default.
        """
        self._make_service = make_service
        self._options = options
        self._links = 0

    async def serve(
        self,
        offer: RelayedOffer,
        *,
        signaling: SignalingClient,
        secret: bytes,
        ice_servers: Sequence[IceServer],
    ) -> None:
        """Answer an offer and serve its link until it closes.

        Args:
            offer: what the client sent.
            signaling: carries the answer.
            secret: the room's; a client that does not know it is sent away.
            ice_servers: used as they are.
        """
        if self._links >= MAX_LINKS_PER_WORKER:
            logger.warning("An offer of %s was refused: too many links", offer.from_)
            return
        self._links += 1
        try:
            connection, link = await accept_offer(
                signaling,
                offer,
                secret=secret,
                ice_servers=ice_servers,
                options=self._options,
            )
            service = self._make_service(link)
            logger.info("Linked with %s (%s)", link.peer_id, link.software)
            try:
                await service.run()
            finally:
                await connection.close()
        except RtcError as error:
            logger.warning("No link with %s: %s", offer.from_, error)
        finally:
            self._links -= 1
