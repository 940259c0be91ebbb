"""Reaches a worker by whichever way leads there: the driver of `Ladder`.

Each way is a task of its own: an offer and an answer with one STUN or TURN server, or a
meeting on the signaling server's relay. Used by a client's stay in a room.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from sleap_rtc_plugin.protocol.codec import encode_peer_payload
from sleap_rtc_plugin.protocol.errors import (
    LinkFailed,
    LocalProtocolError,
    RelayRefused,
    RtcError,
    from_wire,
)
from sleap_rtc_plugin.protocol.ids import clean_text, new_command_id, new_relay_id
from sleap_rtc_plugin.protocol.limits import (
    LADDER_TIMEOUT_S,
    TURN_PROBE_TIMEOUT_S,
)
from sleap_rtc_plugin.protocol.relay_messages import IceServerList
from sleap_rtc_plugin.protocol.signaling_messages import (
    IceServer,
    Offer,
    PeerMessage,
    RelayedAnswer,
    RelayRequest,
    RelayResponse,
)
from sleap_rtc_plugin.transport.answer_way import candidate_kinds
from sleap_rtc_plugin.transport.effects import monotonic
from sleap_rtc_plugin.transport.ice_config import stun_servers, turn_servers
from sleap_rtc_plugin.transport.ladder import (
    Begun,
    Drop,
    Event,
    Fail,
    Ladder,
    Take,
    Ticked,
    Try,
    Way,
    WayFailed,
    WayOpened,
    no_way,
    possible_ways,
)
from sleap_rtc_plugin.transport.link import Link
from sleap_rtc_plugin.transport.peer import PeerConnection
from sleap_rtc_plugin.transport.relay_link import RelayConnection
from sleap_rtc_plugin.transport.signaling_client import SignalingClient
from sleap_rtc_plugin.transport.transport_options import TransportOptions
from sleap_rtc_plugin.transport.turn_probe import probe_turn

__all__ = ["Connection", "Destination", "Replies", "connect_to_worker"]

logger = logging.getLogger(__name__)

# Ways that were given up and are closing; the event loop alone would forget them.
_closing: "set[asyncio.Task[None]]" = set()

Connection = PeerConnection | RelayConnection
Reply = RelayedAnswer | RelayResponse
R = TypeVar("R", RelayedAnswer, RelayResponse)


class Replies:
    """What workers answer to our offers and requests, by the id of each."""

    def __init__(self) -> None:
        """Begin with nothing asked."""
        self._waiting: dict[str, tuple[str, asyncio.Future[Reply]]] = {}

    def take(self, request_id: str, worker_id: str, reply: Reply) -> None:
        """A reply came; one that nobody waits for, or of another, is dropped."""
        expected = self._waiting.get(request_id)
        if expected is not None and expected[0] == worker_id:
            future = expected[1]
            if not future.done():
                future.set_result(reply)

    async def of(
        self,
        request_id: str,
        worker_id: str,
        kind: type[R],
        ask: Callable[[], Awaitable[object]],
    ) -> R:
        """Ask, and wait for the reply for as long as the caller likes.

        Raises:
            LinkFailed: it is a reply to something else.
        """
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[request_id] = (worker_id, future)
        try:
            await ask()
            reply = await future
        finally:
            del self._waiting[request_id]
        if not isinstance(reply, kind):
            raise LinkFailed(worker=worker_id, reason="it gave another answer")
        return reply


@dataclass(frozen=True)
class Destination:
    """Whom to reach, and as whom.

    Attributes:
        worker_id: the worker in the room.
        worker_name: what people call it.
        takes_relay: whether it says that it knows the server's relay.
        secret: the session's.
        server: the signaling server.
        token: the room's or a member's, for the relay.
        room_id: the room, for the relay.
    """

    worker_id: str
    worker_name: str
    takes_relay: bool
    secret: bytes
    server: str = ""
    token: str = ""
    room_id: str = ""


async def connect_to_worker(
    signaling: SignalingClient,
    destination: Destination,
    *,
    replies: Replies,
    config: IceServerList,
    options: TransportOptions,
) -> tuple[Connection, Link]:
    """Reach a worker of the room and prove each other's membership.

    Args:
        signaling: carries offers and requests.
        destination: who is to be reached.
        replies: where the caller puts what `signaling` brings from the worker.
        config: the servers that may be used.
        options: how data channels go, and what may not be told.

    Raises:
        NoWayToWorker: no way led there.
        RtcError: the worker is not the session's, or is not in the room.
    """
    climb = _Climb(signaling, destination, replies, config, options)
    try:
        # The ladder has deadlines of its own; this one is for a fault of ours.
        async with asyncio.timeout(2 * LADDER_TIMEOUT_S):
            return await climb.run()
    except TimeoutError:
        raise LocalProtocolError(detail="the ladder did not end") from None
    finally:
        climb.drop_all()


class _Climb:
    """One attempt."""

    def __init__(
        self,
        signaling: SignalingClient,
        destination: Destination,
        replies: Replies,
        config: IceServerList,
        options: TransportOptions,
    ) -> None:
        self._signaling = signaling
        self._destination = destination
        self._replies = replies
        self._config = config
        self._options = options
        self._ways = possible_ways(
            config,
            relay_only=options.relay_only,
            takes_relay=destination.takes_relay,
        )
        self._ladder = Ladder(self._ways)
        self._events: asyncio.Queue[Event | RtcError] = asyncio.Queue()
        self._tasks: dict[Way, asyncio.Task[None]] = {}
        self._opened: dict[Way, tuple[Connection, Link]] = {}

    async def run(self) -> tuple[Connection, Link]:
        event: Event = Begun()
        while True:
            for instruction in self._ladder.handle(event, monotonic()):
                match instruction:
                    case Try(way):
                        self._try(way)
                    case Drop(way):
                        self._drop(way)
                    case Take(way):
                        return self._take(way)
                    case Fail(failures):
                        name = self._destination.worker_name
                        raise no_way(name, failures, self._config)
            event = await self._next_event()

    async def _next_event(self) -> Event:
        deadline = self._ladder.deadline()
        timeout_s = None if deadline is None else max(0.0, deadline - monotonic())
        try:
            async with asyncio.timeout(timeout_s):
                event = await self._events.get()
        except TimeoutError:
            return Ticked()
        if isinstance(event, RtcError):
            raise event
        return event

    def _take(self, way: Way) -> tuple[Connection, Link]:
        logger.info("The way to %s: %s", self._destination.worker_name, way)
        return self._opened.pop(way)

    def drop_all(self) -> None:
        """Let go of every way but the one that was taken."""
        for way in self._ways:
            self._drop(way)

    def _drop(self, way: Way) -> None:
        task = self._tasks.pop(way, None)
        if task is not None:
            _closing.add(task)
            task.add_done_callback(_closing.discard)
            task.cancel()
        opened = self._opened.pop(way, None)
        if opened is not None:
            opened[1].close("another way was taken")

    # -- the ways --------------------------------------------------------------------

    def _try(self, way: Way) -> None:
        logger.info("Trying %s to %s", way, self._destination.worker_name)
        task = asyncio.get_running_loop().create_task(self._open(way))
        self._tasks[way] = task

    async def _open(self, way: Way) -> None:
        try:
            opened = await (
                self._over_relay() if way == "relay" else self._over_ice(way)
            )
        except LinkFailed as error:
            self._failed(way, error.reason)
        except RelayRefused as error:
            self._failed(way, error.reason)
        except RtcError as error:
            # The worker is gone or is not the session's: no other way is better.
            self._events.put_nowait(error)
        except Exception as error:
            logger.exception("Trying %s failed", way)
            self._failed(way, clean_text(str(error), 80) or type(error).__name__)
        else:
            self._opened[way] = opened
            self._events.put_nowait(WayOpened(way))

    def _failed(self, way: Way, reason: str) -> None:
        logger.info("%s does not lead there: %s", way, reason)
        self._events.put_nowait(WayFailed(way, reason))

    def _servers(self, way: Way) -> list[IceServer]:
        match way:
            case "turn-udp" | "turn-tcp" | "turn-tls":
                return turn_servers(self._config, way)
            case _:
                return stun_servers(self._config)

    async def _over_ice(self, way: Way) -> tuple[Connection, Link]:
        """Offer one way, and wait for the worker's answer and proof."""
        worker_id = self._destination.worker_id
        servers = self._servers(way)
        is_turn = way != "direct"
        connection = PeerConnection(
            role="client",
            peer_id=worker_id,
            secret=self._destination.secret,
            ice_servers=servers,
            options=self._options,
            relay_only=is_turn,
        )
        try:
            sdp = await connection.make_offer()
            if not connection.has_candidates:
                reason = await _why(servers[0]) if is_turn else "no network"
                raise LinkFailed(worker=worker_id, reason=reason)
            offer = Offer(id=new_command_id(), to=worker_id, sdp=sdp)
            answer = await self._replies.of(
                offer.id, worker_id, RelayedAnswer, lambda: self._signaling.ask(offer)
            )
            if not candidate_kinds(answer.sdp):
                lacks = "relay there" if is_turn else "address to be reached at"
                raise LinkFailed(worker=worker_id, reason=f"the worker got no {lacks}")
            await connection.take_answer(answer.sdp)
            return connection, await connection.authenticate()
        except BaseException:
            await connection.close()
            raise

    async def _over_relay(self) -> tuple[Connection, Link]:
        """Ask the worker to the server's relay, and meet it there."""
        destination, terms = self._destination, self._config.relay
        if terms is None:
            raise LocalProtocolError(detail="a relay that is not offered")
        request = RelayRequest(request_id=new_command_id(), relay_id=new_relay_id())
        connection = RelayConnection(
            role="client",
            peer_id=destination.worker_id,
            own_peer_id=self._signaling.peer_id,
            secret=destination.secret,
            server=destination.server,
            terms=terms,
            token=destination.token,
            room_id=destination.room_id,
            relay_id=request.relay_id,
            options=self._options,
        )
        message = PeerMessage(
            id=new_command_id(),
            to=destination.worker_id,
            payload=encode_peer_payload(request),
        )
        try:
            response = await self._replies.of(
                request.request_id,
                destination.worker_id,
                RelayResponse,
                lambda: self._signaling.ask(message),
            )
            if not response.accepts:
                raise _relay_refusal(destination, response)
            await connection.join()
            return connection, await connection.authenticate()
        except BaseException:
            await connection.close()
            raise


def _relay_refusal(destination: Destination, response: RelayResponse) -> RelayRefused:
    error = from_wire(response.error) if response.error is not None else None
    if isinstance(error, RelayRefused):
        return error
    reason = "the worker does not come" if error is None else str(error)
    return RelayRefused(server=destination.server, reason=reason)


async def _why(server: IceServer) -> str:
    """Return why a TURN server gave us no candidate."""
    with contextlib.suppress(OSError):
        outcome = await probe_turn(
            server, server.urls[0], timeout_s=TURN_PROBE_TIMEOUT_S
        )
        if not outcome.works:
            return outcome.reason
    return "the TURN server was too slow"
