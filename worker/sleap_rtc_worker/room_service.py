"""What the worker says to its room: its state, answers to questions, jobs that ended.

Everything here goes through the signaling server, which reads it; nothing secret is
said. Made by the worker's root before it connects; silent until it has entered.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from sleap_rtc_plugin.protocol.codec import decode_peer_payload, encode_peer_payload
from sleap_rtc_plugin.protocol.errors import RemoteProtocolError, RtcError
from sleap_rtc_plugin.protocol.ids import new_command_id
from sleap_rtc_plugin.protocol.signaling_messages import (
    JobComplete,
    JobRequest,
    JobResponse,
    PeerMessage,
    PeerMetadata,
    PeerPayload,
    RegistryQuery,
    RegistryResponse,
    RelayedPeerMessage,
    RelayRequest,
    RelayResponse,
)
from sleap_rtc_plugin.transport.signaling_client import SignalingClient
from sleap_rtc_worker.job_run import JobRun

__all__ = ["RoomService", "until_gone"]

logger = logging.getLogger(__name__)

OnQuery = Callable[[RegistryQuery], Awaitable[RegistryResponse | None]]
OnRelay = Callable[[RelayRequest, str, Callable[[RelayResponse], None]], None]


class RoomService:
    """The worker's voice in its room."""

    def __init__(self, spawn: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        """Prepare; `spawn` starts a task that ends with the worker."""
        self._spawn = spawn
        self._signaling: SignalingClient | None = None
        self._metadata: PeerMetadata | None = None
        self._changed = asyncio.Event()

    def enter(self, signaling: SignalingClient) -> None:
        """Speak through `signaling` from now on."""
        self._signaling = signaling
        self._spawn(self._publish())

    def leave(self) -> None:
        """Fall silent."""
        self._signaling = None

    def announce(self, metadata: PeerMetadata) -> None:
        """Make this what the room sees of us."""
        self._metadata = metadata
        self._changed.set()

    def job_ended(self, run: JobRun) -> None:
        """Tell the peer that submitted a job, if it is still here.

        Where there is a new model, every client in the room is told.
        """
        record = run.record
        complete = JobComplete(
            job_id=run.job_id,
            state=run.state.value,
            model=record.model or "",
            alias=record.alias or "",
        )
        self._tell(record.submitter, complete)
        if record.model is not None:
            self._spawn(self._tell_others(record.submitter, complete))

    def received(
        self,
        message: RelayedPeerMessage,
        *,
        refusal: Callable[[int], RtcError | None],
        queue_length: int,
        on_relay: OnRelay,
        on_query: OnQuery,
    ) -> None:
        """Answer another peer's question.

        Args:
            message: the question.
            refusal: says why a job with a package of so many bytes would not be
                taken now, or None.
            queue_length: how many jobs wait.
            on_relay: meets a client on the server's relay, and answers it.
            on_query: says whether a model is at hand, or nothing.
        """
        try:
            payload = decode_peer_payload(message.payload)
        except RemoteProtocolError as error:
            logger.info("A message of %s: %s", message.from_, error.detail)
            return
        match payload:
            case JobRequest(request_id=request_id, package_bytes=package_bytes):
                reason = refusal(package_bytes)
                response = JobResponse(
                    request_id=request_id,
                    accepts=reason is None,
                    queue_length=queue_length,
                    error=reason.to_wire() if reason else None,
                )
                self._tell(message.from_, response)
            case RelayRequest():
                peer_id = message.from_
                on_relay(payload, peer_id, lambda said: self._tell(peer_id, said))
            case RegistryQuery():
                self._spawn(self._tell_held(message.from_, payload, on_query))

    async def _tell_held(
        self, peer_id: str, query: RegistryQuery, on_query: OnQuery
    ) -> None:
        response = await on_query(query)
        if response is not None:
            await self._send(peer_id, response)

    async def _tell_others(self, submitter: str, complete: JobComplete) -> None:
        """Tell every other client in the room of a new model, one after the other."""
        if self._signaling is None:
            return
        with contextlib.suppress(RtcError):
            for peer in await self._signaling.discover("client"):
                if peer.peer_id != submitter:
                    await self._send(peer.peer_id, complete)

    async def _publish(self) -> None:
        """Keep the room's picture of us true; only the newest state is sent."""
        while self._signaling is not None:
            await self._changed.wait()
            self._changed.clear()
            if self._metadata is not None:
                with contextlib.suppress(RtcError):
                    await self._signaling.update_metadata(self._metadata)

    def _tell(self, peer_id: str, payload: PeerPayload) -> None:
        self._spawn(self._send(peer_id, payload))

    async def _send(self, peer_id: str, payload: PeerPayload) -> None:
        if self._signaling is None:
            return
        message = PeerMessage(
            id=new_command_id(), to=peer_id, payload=encode_peer_payload(payload)
        )
        # Whoever is not there learns it from the journal when it comes back.
        with contextlib.suppress(RtcError):
            await self._signaling.ask(message)


async def until_gone(signaling: SignalingClient, stopping: asyncio.Event) -> None:
    """Wait until the worker is told to stop.

    Raises:
        RtcError: the room is gone for good.
    """
    told = asyncio.ensure_future(stopping.wait())
    ends: set[asyncio.Future[object]] = {told}  # type: ignore[arg-type]
    if signaling.gave_up is not None:
        ends.add(signaling.gave_up)  # type: ignore[arg-type]
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        told.cancel()
    if signaling.gave_up is not None and signaling.gave_up.done():
        raise signaling.gave_up.result()
