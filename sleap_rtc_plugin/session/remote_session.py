"""A session with a lab: sign in to the room, see its workers, reach one of them.

The client's way in, for every command and later for SLEAP's window. Owns the
signaling client and every link made through it.
"""

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from sleap_rtc_plugin.protocol.codec import decode_peer_payload, encode_peer_payload
from sleap_rtc_plugin.protocol.errors import (
    NoReply,
    NoWayToWorker,
    RemoteProtocolError,
    RtcError,
    WorkerBusy,
    from_wire,
)
from sleap_rtc_plugin.protocol.ids import new_command_id, new_peer_id
from sleap_rtc_plugin.protocol.limits import SIGNALING_REPLY_TIMEOUT_S
from sleap_rtc_plugin.protocol.session_string import Session
from sleap_rtc_plugin.protocol.signaling_messages import (
    JobComplete,
    JobRequest,
    JobResponse,
    PeerMessage,
    PeerMetadata,
    RegistryQuery,
    RegistryResponse,
    RelayedAnswer,
    RelayedMessage,
    RelayedPeerMessage,
    RelayResponse,
)
from sleap_rtc_plugin.session.accounts import SignedInAccounts
from sleap_rtc_plugin.session.model_news import ModelNews, read_news
from sleap_rtc_plugin.session.warm_workers import WorkerAnswers, choose_warm
from sleap_rtc_plugin.session.worker_info import (
    WorkerInfo,
    choose_worker,
    read_worker,
)
from sleap_rtc_plugin.session.worker_link import WorkerLink
from sleap_rtc_plugin.transport.climb import (
    Connection,
    Destination,
    Replies,
    connect_to_worker,
)
from sleap_rtc_plugin.transport.effects import monotonic
from sleap_rtc_plugin.transport.ice_source import IceSource
from sleap_rtc_plugin.transport.link import Link
from sleap_rtc_plugin.transport.shared_storage import SharedStorage
from sleap_rtc_plugin.transport.signaling_client import SignalingClient
from sleap_rtc_plugin.transport.transport_options import TransportOptions

__all__ = ["RemoteSession"]

logger = logging.getLogger(__name__)

Response = JobResponse | RegistryResponse
"""What a worker answers through the room, by the id of the question."""


class RemoteSession:
    """One client in one room. Use as an async context manager."""

    def __init__(
        self,
        session: Session,
        *,
        owner: str = "",
        shared_storage: SharedStorage | None = None,
        transport: TransportOptions | None = None,
        on_model: Callable[[ModelNews], None] = lambda news: None,
        accounts: SignedInAccounts | None = None,
    ) -> None:
        """Prepare to enter a room.

        Args:
            session: the room and its secret.
            owner: shown to the room.
            shared_storage: a folder that workers may mount as well.
            transport: how data channels go; the environment's choice by default.
            on_model: told of models that somebody published.
            accounts: who is signed in where; the user's own by default.
        """
        known = accounts or SignedInAccounts()

        async def account() -> str:
            return await known.token(session.url)

        self._on_model = on_model
        self._transport = transport
        self.session = session
        self._shared_storage = shared_storage
        self._replies = Replies()
        self._responses: dict[str, asyncio.Future[Response]] = {}
        self._connections: list[tuple[Connection, Link]] = []
        self._links: dict[str, Link] = {}
        self._ice = IceSource(
            session.url, session.token, room_id=session.room_id, account=account
        )
        self._signaling = SignalingClient(
            server=session.url,
            room_id=session.room_id,
            token=session.token,
            peer_id=new_peer_id("client"),
            role="client",
            metadata=PeerMetadata(properties={"name": owner} if owner else {}),
            on_relayed=self._on_relayed,
            account=account,
        )

    async def __aenter__(self) -> Self:
        """Enter the room; raises the `RtcError` that says why it cannot be."""
        await self._ice.current()
        self._signaling.use_room_token(self._ice.room_token)
        await self._signaling.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close every link and leave the room."""
        for connection, _ in self._connections:
            await connection.close()
        await self._signaling.close()

    @property
    def ended_with(self) -> RtcError | None:
        """Why the server ended this stay for good, or None while it lasts."""
        gave_up = self._signaling.gave_up
        if gave_up is None or not gave_up.done() or gave_up.cancelled():
            return None
        return gave_up.result()

    async def workers(self) -> list[WorkerInfo]:
        """List the room's workers."""
        peers = await self._signaling.discover("worker")
        return [
            dataclasses.replace(read_worker(peer), link_kind=self._way_to(peer.peer_id))
            for peer in peers
        ]

    def _way_to(self, worker_id: str) -> str:
        """Return how the worker is linked with us now, or an empty text."""
        link = self._links.get(worker_id)
        return link.kind if link is not None and not link.closed.is_set() else ""

    async def choose(self, wanted: str | None = None) -> WorkerInfo:
        """Pick a worker by name, or the one with the shortest queue.

        Raises:
            NoWorker: nobody is online.
            WorkerNotFound: nobody of that name is online.
        """
        return choose_worker(
            await self.workers(),
            wanted=wanted,
            preferred=self.session.peer_id,
            server=self.session.url,
        )

    async def check_acceptance(
        self, worker: WorkerInfo, *, package_bytes: int, steps: int
    ) -> JobResponse:
        """Ask, before connecting, whether a worker would take a job.

        Raises:
            RtcError: why it would not, or could not be asked.
        """
        answer = await self._ask_acceptance(
            worker, package_bytes=package_bytes, steps=steps
        )
        refusal = _refusal(worker, answer)
        if refusal is not None:
            raise refusal
        return answer

    async def probe(self, worker: WorkerInfo) -> tuple[float, str]:
        """Measure a question and its answer through the room.

        Returns:
            The round trip in seconds, and the sentence with which the worker would
            refuse even a small job, or an empty text.

        Raises:
            RtcError: it did not answer.
        """
        asked_at = monotonic()
        answer = await self._ask_acceptance(worker, package_bytes=0, steps=1)
        refusal = _refusal(worker, answer)
        return monotonic() - asked_at, str(refusal) if refusal is not None else ""

    async def _ask_acceptance(
        self, worker: WorkerInfo, *, package_bytes: int, steps: int
    ) -> JobResponse:
        request = JobRequest(
            request_id=new_command_id(), package_bytes=package_bytes, steps=steps
        )
        answer = await self._ask(worker, request)
        if not isinstance(answer, JobResponse):
            raise RemoteProtocolError(detail="an answer to another question")
        return answer

    async def ask_models(
        self, workers: Sequence[WorkerInfo], models: Sequence[str]
    ) -> list[WorkerAnswers]:
        """Ask workers what they know of models, without a link to any of them.

        A worker that does not answer knows nothing of them.

        Args:
            workers: whom to ask.
            models: aliases and ids.
        """

        async def ask(worker: WorkerInfo) -> WorkerAnswers:
            answers: dict[str, RegistryResponse] = {}
            for model in models:
                query = RegistryQuery(request_id=new_command_id(), model=model)
                try:
                    answer = await self._ask(worker, query)
                except RtcError as error:
                    logger.info("%s does not tell of %s: %s", worker.name, model, error)
                    break
                if isinstance(answer, RegistryResponse):
                    answers[model] = answer
            return WorkerAnswers(worker, answers)

        return list(await asyncio.gather(*map(ask, workers)))

    async def choose_for_models(
        self, wanted: str | None, models: Sequence[str]
    ) -> WorkerInfo:
        """Pick a worker that can predict with published models, by their ids.

        Raises:
            NoWorker: nobody is online.
            WorkerNotFound: nobody of that name is online.
            ModelNotFound: no worker knows a model.
            ModelTooNew: no worker can load one.
        """
        first = await self.choose(wanted)
        workers = [first] if wanted is not None else await self.workers()
        asked = await self.ask_models(workers, models)
        return choose_warm(models, asked, preferred=self.session.peer_id)

    async def _ask(
        self, worker: WorkerInfo, request: JobRequest | RegistryQuery
    ) -> "Response":
        """Ask a worker through the room.

        Raises:
            RtcError: it does not answer.
        """
        response: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._responses[request.request_id] = response
        try:
            await self._signaling.ask(
                PeerMessage(
                    id=new_command_id(),
                    to=worker.peer_id,
                    payload=encode_peer_payload(request),
                )
            )
            async with asyncio.timeout(SIGNALING_REPLY_TIMEOUT_S):
                return await response
        except TimeoutError:
            command = str(request.__struct_config__.tag)
            raise NoReply(peer=f"the worker {worker.name}", command=command) from None
        finally:
            del self._responses[request.request_id]

    async def connect(
        self, worker: WorkerInfo, transport: TransportOptions | None = None
    ) -> WorkerLink:
        """Connect to a worker and prove each other's membership.

        Args:
            worker: whom to.
            transport: how data channels go; by default as for the whole stay.

        Raises:
            NoWayToWorker: no way leads there; the error says which were tried.
            RtcError: it is not there, or the proof failed.
        """
        options = transport or self._transport or TransportOptions.from_environment()
        config = await self._ice.current()
        destination = Destination(
            worker_id=worker.peer_id,
            worker_name=worker.name,
            takes_relay=worker.takes_relay,
            secret=self.session.secret,
            server=self.session.url,
            token=await self._ice.bearer(),
            room_id=self.session.room_id,
        )
        try:
            connection, link = await connect_to_worker(
                self._signaling,
                destination,
                replies=self._replies,
                config=config,
                options=options,
            )
        except NoWayToWorker:
            # Credentials may have been changed on the server meanwhile.
            self._ice.forget()
            raise
        # A program that runs for days opens many, one after another.
        self._connections = [c for c in self._connections if not c[1].closed.is_set()]
        self._connections.append((connection, link))
        self._links[worker.peer_id] = link
        return WorkerLink(link, worker.name, self.session.room_id, self._shared_storage)

    def _on_relayed(self, message: RelayedMessage) -> None:
        match message:
            case RelayedAnswer():
                self._replies.take(message.offer_id, message.from_, message)
            case RelayedPeerMessage():
                with contextlib.suppress(RemoteProtocolError):
                    payload = decode_peer_payload(message.payload)
                    match payload:
                        case JobResponse() | RegistryResponse():
                            self._settle(payload)
                        case JobComplete():
                            news = read_news(message.from_, payload)
                            if news is not None:
                                self._on_model(news)
                        case RelayResponse(request_id=request_id):
                            self._replies.take(request_id, message.from_, payload)
            case _:
                logger.info("An unexpected message of %s", message.from_)

    def _settle(self, response: "Response") -> None:
        future = self._responses.get(response.request_id)
        if future is not None and not future.done():
            future.set_result(response)


def _refusal(worker: WorkerInfo, answer: JobResponse) -> RtcError | None:
    """Return why a worker would not take the job, or None where it would."""
    if answer.error is not None:
        return from_wire(answer.error)
    if not answer.accepts:
        return WorkerBusy(worker=worker.name, reason="it gives no reason")
    return None
