"""Peers that do not keep to the rules, for attacks on the real programs.

They use the project's own transport and leave the rules out, in the test's process;
whoever is attacked runs in a process of its own, with every rule in place.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from sleap_rtc_plugin.protocol import codec
from sleap_rtc_plugin.protocol.errors import RtcError
from sleap_rtc_plugin.protocol.ids import new_command_id, new_peer_id
from sleap_rtc_plugin.protocol.messages import (
    Acknowledged,
    Auth,
    ControlMessage,
    FileDone,
    FileMeta,
    FileNeed,
    Hello,
    JobAccepted,
    JobAttach,
    JobEvent,
    JobFetch,
    JobSubmit,
)
from sleap_rtc_plugin.protocol.session_string import Session
from sleap_rtc_plugin.protocol.signaling_messages import (
    Answer,
    JobRequest,
    JobResponse,
    Offer,
    PeerMessage,
    PeerMetadata,
    RelayedAnswer,
    RelayedMessage,
    RelayedOffer,
    RelayedPeerMessage,
)
from sleap_rtc_plugin.session.remote_session import RemoteSession
from sleap_rtc_plugin.session.worker_link import WorkerLink
from sleap_rtc_plugin.transport.file_source import FileSource
from sleap_rtc_plugin.transport.link import Link, LinkClosed
from sleap_rtc_plugin.transport.link_opening import LinkOpening
from sleap_rtc_plugin.transport.peer import PeerConnection, accept_offer
from sleap_rtc_plugin.transport.signaling_client import SignalingClient
from sleap_rtc_plugin.transport.staging_area import StagingArea
from sleap_rtc_plugin.transport.transfer_pump import TransferPump

WAIT_S = 30.0
STATES = ("queued", "starting", "running", "collecting", "succeeded")


@contextlib.asynccontextmanager
async def member(session: str) -> AsyncIterator[WorkerLink]:
    """A member of the room, with the right secret, linked to its worker."""
    async with RemoteSession(Session.parse(session)) as room:
        yield await room.connect(await room.choose())


# -- without proof -----------------------------------------------------------------

FALSE_AUTH = codec.encode_control(Auth(mac="0" * 64))


def hello(role: str = "client") -> str:
    """A HELLO with a nonce of nobody's."""
    return codec.encode_control(
        Hello(role=role, protocol_min=1, protocol_max=1, nonce=secrets.token_hex(32))  # type: ignore[arg-type]
    )


class _DeafOpening(LinkOpening):
    """Notes what comes, and answers nothing."""

    def __init__(self, **known: Any) -> None:
        super().__init__(**known)
        self.heard: list[str | bytes] = []
        self.closed = asyncio.Event()
        self.on_transfer_open = lambda: None

    def control_received(self, frame: bytes | str) -> None:
        self.heard.append(frame)

    def transfer_received(self, frame: bytes | str) -> None:
        self.heard.append(frame)

    def transfer_opened(self) -> None:
        self.on_transfer_open()

    def lost(self, reason: str) -> None:
        self.closed.set()


class RudePeer(PeerConnection):
    """Sends frames of its choice in place of the handshake."""

    def __init__(
        self, frames: Sequence[str | bytes], *, on_transfer: bool = False, **known: Any
    ) -> None:
        super().__init__(**known)
        self._frames = frames
        self._on_transfer_channel = on_transfer
        self._opening = deaf = _DeafOpening(
            role=known["role"],
            peer_id=known["peer_id"],
            secret=known["secret"],
            close=self._close_soon,
        )
        deaf.on_transfer_open = self._on_transfer_open
        self.heard, self.closed = deaf.heard, deaf.closed

    def _begin_handshake(self) -> None:
        if not self._on_transfer_channel and self._control is not None:
            for frame in self._frames:
                self._control.send(frame)

    def _on_transfer_open(self) -> None:
        if self._on_transfer_channel and self._transfer is not None:
            for frame in self._frames:
                self._transfer.send(frame)


async def be_rude_to_worker(
    session: Session, frames: Sequence[str | bytes], *, on_transfer: bool = False
) -> list[str | bytes]:
    """Offer a link, send frames, and return what came before the link closed."""
    answers: asyncio.Queue[RelayedAnswer] = asyncio.Queue()

    def take(message: RelayedMessage) -> None:
        if isinstance(message, RelayedAnswer):
            answers.put_nowait(message)

    signaling = SignalingClient(
        server=session.url,
        room_id=session.room_id,
        token=session.token,
        peer_id=new_peer_id("client"),
        role="client",
        on_relayed=take,
    )
    async with signaling, asyncio.timeout(WAIT_S):
        peer = RudePeer(
            frames,
            on_transfer=on_transfer,
            role="client",
            peer_id=session.peer_id,
            secret=bytes(32),
        )
        try:
            sdp = await peer.make_offer()
            offer = Offer(id=new_command_id(), to=session.peer_id, sdp=sdp)
            await signaling.ask(offer)
            await peer.take_answer((await answers.get()).sdp)
            await peer.closed.wait()
            return peer.heard
        finally:
            await peer.close()


# -- a worker that lies ------------------------------------------------------------


class FakeWorker:
    """A worker in a room, for a client to fall for. Use as an async context manager.

    Takes every job at once and says that it went well; a subclass lies further.
    """

    def __init__(self, session: str, scratch: Path) -> None:
        self.session = Session.parse(session)
        self.scratch = scratch
        self.heard: list[ControlMessage] = []
        self.refused: list[RtcError] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.link: Link | None = None
        self.pump: TransferPump | None = None
        self._seq = 0
        self._signaling = SignalingClient(
            server=self.session.url,
            room_id=self.session.room_id,
            token=self.session.token,
            peer_id=self.session.peer_id,
            role="worker",
            metadata=PeerMetadata(
                properties={"name": "fake", "status": "available", "device": "cpu"}
            ),
            on_relayed=self._on_relayed,
        )

    async def __aenter__(self) -> "FakeWorker":
        await self._signaling.__aenter__()
        return self

    async def __aexit__(self, *args: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._signaling.close()

    # -- what a subclass changes -----------------------------------------------------

    def secret(self) -> bytes:
        return self.session.secret

    async def run(self, job_id: str) -> None:
        """Say that the job went well."""
        for state in STATES:
            self.say(job_id, state)

    async def results(self) -> FileSource:
        """Return what to send home."""
        raise NotImplementedError

    def results_job(self, job_id: str) -> str:
        return job_id

    # -- the honest part ---------------------------------------------------------------

    def say(self, job_id: str, state: str) -> None:
        assert self.link is not None
        self._seq += 1
        event = JobEvent(job_id=job_id, seq=self._seq, at=0.0, state=state)
        self.link.send(event)

    def next_seq(self) -> int:
        self._seq += 1
        return self._seq

    def send_raw(self, frame: str) -> None:
        """Send a control frame that no class would make."""
        assert self.link is not None
        self.link._control.send(frame)

    def _on_relayed(self, message: RelayedMessage) -> None:
        match message:
            case RelayedOffer():
                self._spawn(self._serve(message))
            case RelayedPeerMessage():
                payload = codec.decode_peer_payload(message.payload)
                if isinstance(payload, JobRequest):
                    self._spawn(self._accept(message.from_, payload.request_id))

    async def _accept(self, peer: str, request_id: str) -> None:
        response = JobResponse(request_id=request_id, accepts=True)
        payload = codec.encode_peer_payload(response)
        await self._signaling.ask(
            PeerMessage(id=new_command_id(), to=peer, payload=payload)
        )

    async def _serve(self, offer: RelayedOffer) -> None:
        try:
            connection, link = await accept_offer(
                self._signaling, offer, secret=self.secret()
            )
        except RtcError as error:
            self.refused.append(error)
            return
        self.link, self.pump = link, TransferPump(link)
        link.on_control = self._on_control
        try:
            await link.closed.wait()
        finally:
            await connection.close()

    def _on_control(self, message: ControlMessage) -> None:
        assert self.link is not None
        assert self.pump is not None
        self.heard.append(message)
        match message:
            case JobSubmit(command_id=command, job_id=job):
                accepted = JobAccepted(command_id=command, job_id=job, state="staging")
                self.link.send(accepted)
            case JobAttach(command_id=command):
                self.link.send(Acknowledged(command_id=command))
            case FileMeta():
                self._spawn(self._take_package(message))
            case JobFetch():
                self._spawn(self._send_results(message))
            case FileNeed() | FileDone():
                self.pump.handle(message)

    async def _take_package(self, meta: FileMeta) -> None:
        assert self.pump is not None
        self.say(meta.job_id, "staging")
        await self.pump.receive(meta, StagingArea(self.scratch / "package"))
        await self.run(meta.job_id)

    async def _send_results(self, message: JobFetch) -> None:
        assert self.link is not None
        assert self.pump is not None
        self.link.send(Acknowledged(command_id=message.command_id))
        with contextlib.suppress(RtcError, LinkClosed):
            await self.pump.send(
                await self.results(),
                job_id=self.results_job(message.job_id),
                purpose="results",
            )

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class RudeWorker(FakeWorker):
    """Answers an offer and sends frames in place of the handshake."""

    def __init__(
        self, session: str, scratch: Path, frames: Callable[[], list[str]]
    ) -> None:
        super().__init__(session, scratch)
        self._frames = frames
        self.peers: list[RudePeer] = []

    async def _serve(self, offer: RelayedOffer) -> None:
        peer = RudePeer(
            self._frames(), role="worker", peer_id=offer.from_, secret=bytes(32)
        )
        self.peers.append(peer)
        try:
            sdp = await peer.make_answer(offer.sdp)
            await self._signaling.ask(
                Answer(id=new_command_id(), to=offer.from_, sdp=sdp, offer_id=offer.id)
            )
            await peer.closed.wait()
        finally:
            await peer.close()
