"""Answers the offers of clients, and serves each link until it closes.

Bounds how many there are at once. Made by the worker's root; what a client may ask for
is `LinkService`'s.
"""

import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from sleap_rtc_plugin.protocol.errors import (
    PeerNotAuthenticated,
    RelayRefused,
    RemoteProtocolError,
    RtcError,
)
from sleap_rtc_plugin.protocol.limits import (
    MAX_LINKS_PER_WORKER,
    MAX_PENDING_OFFERS,
    MAX_PENDING_OFFERS_PER_PEER,
    MAX_RELAYS_PER_WORKER,
)
from sleap_rtc_plugin.protocol.session_string import Session
from sleap_rtc_plugin.protocol.signaling_messages import (
    RelayedOffer,
    RelayRequest,
    RelayResponse,
)
from sleap_rtc_plugin.transport.answer_way import AnswerWays
from sleap_rtc_plugin.transport.climb import Connection
from sleap_rtc_plugin.transport.ice_source import IceSource
from sleap_rtc_plugin.transport.link import Link
from sleap_rtc_plugin.transport.peer import accept_offer
from sleap_rtc_plugin.transport.relay_link import RelayConnection
from sleap_rtc_plugin.transport.signaling_client import (
    AccountToken,
    SignalingClient,
)
from sleap_rtc_plugin.transport.transport_options import TransportOptions
from sleap_rtc_worker.link_service import LinkService

__all__ = ["OfferService"]

logger = logging.getLogger(__name__)


class OfferService:
    """The door through which clients come in."""

    def __init__(
        self,
        make_service: Callable[[Link], LinkService],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        options: TransportOptions | None = None,
    ) -> None:
        """Prepare; nobody is let in before `enter`.

        Args:
            make_service: returns what serves a link.
            spawn: starts a task that ends with the worker.
            options: how data channels go; the environment's choice by default.
        """
        self._make_service = make_service
        self._spawn = spawn
        self._options = options or TransportOptions.from_environment()
        self._links = 0
        self._relays = 0
        self._pending: Counter[str] = Counter()
        self._signaling: SignalingClient | None = None
        self._session: Session | None = None
        self._source: IceSource | None = None
        self._ways = AnswerWays(relay_only=self._options.relay_only)

    async def prepare(self, session: Session, account: AccountToken) -> str:
        """Fetch what the room's server says of STUN, TURN and its relay.

        Args:
            session: the room and its secret.
            account: gives the token of who is signed in at its server.

        Returns:
            The room token to register with; empty where the account alone admits.

        Raises:
            RtcError: the server cannot be asked.
        """
        self._session = session
        self._source = IceSource(
            session.url, session.token, room_id=session.room_id, account=account
        )
        await self._source.current()
        return self._source.room_token

    def enter(self, signaling: SignalingClient) -> None:
        """Answer through `signaling` from now on."""
        self._signaling = signaling

    def leave(self) -> None:
        """Answer nobody any more."""
        self._signaling = None

    # -- offers ------------------------------------------------------------------------

    def offered(self, offer: RelayedOffer) -> None:
        """Answer an offer and serve its link until it closes, in a task."""
        self._spawn(self._serve_offer(offer))

    async def _serve_offer(self, offer: RelayedOffer) -> None:
        if self._signaling is None or self._session is None or self._source is None:
            return
        peer_id = offer.from_
        if not self._has_room(peer_id):
            logger.warning("An offer of %s was refused: too many links", peer_id)
            return
        try:
            with self._attempt(peer_id):
                servers = await self._ways.for_offer(
                    offer.sdp, await self._source.current()
                )
                connection, link = await accept_offer(
                    self._signaling,
                    offer,
                    secret=self._session.secret,
                    ice_servers=servers.ice_servers,
                    options=self._options,
                    relay_only=servers.relay_only,
                )
            await self._serve(connection, link)
        except RtcError as error:
            logger.log(_level_of(error), "No link with %s: %s", peer_id, error)

    def _has_room(self, peer_id: str) -> bool:
        pending = self._pending.total()
        return (
            self._links + pending < MAX_LINKS_PER_WORKER
            and pending < MAX_PENDING_OFFERS
            and self._pending[peer_id] < MAX_PENDING_OFFERS_PER_PEER
        )

    @contextmanager
    def _attempt(self, peer_id: str) -> Iterator[None]:
        """Count what is no link yet."""
        self._pending[peer_id] += 1
        try:
            yield
        finally:
            self._pending[peer_id] -= 1
            if not self._pending[peer_id]:
                del self._pending[peer_id]

    async def _serve(self, connection: Connection, link: Link) -> None:
        self._links += 1
        try:
            service = self._make_service(link)
            logger.info(
                "Linked with %s (%s, %s)", link.peer_id, link.kind, link.software
            )
            await service.run()
        finally:
            self._links -= 1
            await connection.close()

    # -- the server's relay ------------------------------------------------------------

    def relay_asked(
        self,
        request: RelayRequest,
        peer_id: str,
        answer: Callable[[RelayResponse], None],
    ) -> None:
        """Meet a client on the server's relay, in a task; `answer` says whether."""
        self._spawn(self._serve_relay(request, peer_id, answer))

    async def _serve_relay(
        self,
        request: RelayRequest,
        peer_id: str,
        answer: Callable[[RelayResponse], None],
    ) -> None:
        request_id = request.request_id
        try:
            if self._relays >= MAX_RELAYS_PER_WORKER or not self._has_room(peer_id):
                raise self._relay_refusal("this worker has too many links")
            connection = await self._relay_connection(request, peer_id)
        except RtcError as error:
            logger.info("No relay with %s: %s", peer_id, error)
            refusal = error.to_wire()
            answer(RelayResponse(request_id=request_id, accepts=False, error=refusal))
            return
        answer(RelayResponse(request_id=request_id, accepts=True))
        self._relays += 1
        try:
            with self._attempt(peer_id):
                await connection.join()
                link = await connection.authenticate()
            await self._serve(connection, link)
        except RtcError as error:
            logger.log(_level_of(error), "No relay with %s: %s", peer_id, error)
        finally:
            self._relays -= 1
            await connection.close()

    def _relay_refusal(self, reason: str) -> RelayRefused:
        server = self._session.url if self._session is not None else ""
        return RelayRefused(server=server, reason=reason)

    async def _relay_connection(
        self, request: RelayRequest, peer_id: str
    ) -> RelayConnection:
        session, signaling, source = self._session, self._signaling, self._source
        if session is None or signaling is None or source is None:
            raise self._relay_refusal("this worker is not in the room")
        terms = (await source.current()).relay
        if terms is None:
            raise self._relay_refusal("it is not offered")
        return RelayConnection(
            role="worker",
            peer_id=peer_id,
            own_peer_id=signaling.peer_id,
            secret=session.secret,
            server=session.url,
            terms=terms,
            token=await source.bearer(),
            room_id=session.room_id,
            relay_id=request.relay_id,
            options=self._options,
        )


def _level_of(error: RtcError) -> int:
    """Return how loudly to say that an attempt failed.

    A client tries several ways and knows which were in vain; one who does not know
    the secret, or sits in between, is for whoever runs the worker to see.
    """
    is_foul = isinstance(error, PeerNotAuthenticated | RemoteProtocolError)
    return logging.WARNING if is_foul else logging.INFO
