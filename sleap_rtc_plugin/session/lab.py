"""A room entered for hours: its workers watched, the links to them kept and renewed.

`RemoteSession` is one stay in a room; a lab enters again after the stay ended, and
hands out one link per worker however often it is asked. Used by the companion; the
command line, which stays for one job, uses the session itself.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from sleap_rtc_plugin.protocol.errors import (
    RtcError,
    SignalingUnreachable,
    WorkerNotFound,
)
from sleap_rtc_plugin.protocol.session_string import Session
from sleap_rtc_plugin.session.remote_session import RemoteSession
from sleap_rtc_plugin.session.worker_info import WorkerInfo
from sleap_rtc_plugin.session.worker_link import WorkerLink
from sleap_rtc_plugin.transport.effects import monotonic
from sleap_rtc_plugin.transport.shared_storage import SharedStorage
from sleap_rtc_plugin.transport.transport_options import TransportOptions

__all__ = ["Lab", "Probe", "WorkerSeen"]

logger = logging.getLogger(__name__)

WORKERS_INTERVAL_S: Final = 2.0
PROBE_INTERVAL_S: Final = 6.0
MAX_WORKERS_PROBED: Final = 32
REENTER_FIRST_S: Final = 1.0
REENTER_MAX_S: Final = 30.0


@dataclass(frozen=True)
class Probe:
    """What one question through the room told: how long it took, and any refusal."""

    seconds: float
    refusal: str


@dataclass(frozen=True)
class WorkerSeen:
    """A worker in the room, with the newest probe of it where there is one."""

    info: WorkerInfo
    probe: Probe | None = None


@dataclass
class _Links:
    """The links that are open, by worker."""

    opened: dict[str, WorkerLink] = field(default_factory=dict)
    opening: asyncio.Lock = field(default_factory=asyncio.Lock)


class Lab:
    """One room, for as long as the user works with it.

    Args:
        session: the room and its secret.
        owner: shown to the room.
        shared_storage: a folder that workers may mount as well.
        transport: how data channels go; the environment's choice by default.
        on_workers: told who is in the room, every few seconds.
        on_offline: told why the room cannot be reached, once each time, and again if
            it is for good: then the error is not retryable.
        on_online: told when it can be again.
    """

    def __init__(
        self,
        session: Session,
        *,
        owner: str,
        shared_storage: SharedStorage | None = None,
        transport: TransportOptions | None = None,
        on_workers: Callable[[Sequence[WorkerSeen]], None],
        on_offline: Callable[[RtcError], None],
        on_online: Callable[[], None],
    ) -> None:
        self.session = session
        self._owner = owner
        self._shared_storage = shared_storage
        self._transport = transport
        self._on_workers = on_workers
        self._on_offline = on_offline
        self._on_online = on_online
        self._room: RemoteSession | None = None
        self._links = _Links()
        self._probes: dict[str, Probe] = {}
        self._probed_at = 0.0
        self._is_online = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def enter(self) -> None:
        """Enter the room and begin to watch it.

        Raises:
            RtcError: why it cannot be entered.
        """
        self._room = await self._enter_room()
        self._is_online = True
        self._spawn(self._watch())

    async def leave(self) -> None:
        """Close every link and leave the room."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for link in self._links.opened.values():
            link.link.close("the room was left")
        self._links.opened.clear()
        room, self._room = self._room, None
        if room is not None:
            await room.__aexit__(None, None, None)

    # -- asking ----------------------------------------------------------------------

    async def worker(self, worker_id: str) -> WorkerInfo:
        """Return a worker of the room.

        Raises:
            WorkerNotFound: it is not in the room now.
            RtcError: the room cannot be asked.
        """
        workers = await self.room.workers()
        for worker in workers:
            if worker.peer_id == worker_id:
                return worker
        names = ", ".join(worker.name for worker in workers) or "nobody"
        raise WorkerNotFound(worker=worker_id, online=names)

    async def link(self, worker_id: str) -> WorkerLink:
        """Return the link to a worker; opens it where there is none.

        Raises:
            RtcError: no link came about.
        """
        # One at a time: answers to offers arrive in one queue.
        async with self._links.opening:
            known = self._links.opened.get(worker_id)
            if known is not None and not known.link.closed.is_set():
                return known
            link = await self.room.connect(await self.worker(worker_id))
            self._links.opened[worker_id] = link
            return link

    @property
    def room(self) -> RemoteSession:
        """The stay in the room.

        Raises:
            SignalingUnreachable: there is none now.
        """
        if self._room is None:
            raise SignalingUnreachable(
                server=self.session.url, reason="the room was left"
            )
        return self._room

    # -- watching --------------------------------------------------------------------

    async def _watch(self) -> None:
        while True:
            try:
                workers = await self.room.workers()
            except RtcError as error:
                ended_with = self.room.ended_with
                self._went_offline(ended_with or error)
                if ended_with is not None:
                    await self._enter_again(ended_with)
            else:
                self._came_online()
                self._report(workers)
                await self._probe(workers)
            await asyncio.sleep(WORKERS_INTERVAL_S)

    def _report(self, workers: Sequence[WorkerInfo]) -> None:
        present = {worker.peer_id for worker in workers}
        for gone in self._probes.keys() - present:
            del self._probes[gone]
        self._on_workers(
            [WorkerSeen(worker, self._probes.get(worker.peer_id)) for worker in workers]
        )

    async def _probe(self, workers: Sequence[WorkerInfo]) -> None:
        if monotonic() - self._probed_at < PROBE_INTERVAL_S:
            return
        self._probed_at = monotonic()
        asked = workers[:MAX_WORKERS_PROBED]
        answers = await asyncio.gather(
            *(self.room.probe(worker) for worker in asked), return_exceptions=True
        )
        for worker, answer in zip(asked, answers, strict=True):
            if isinstance(answer, tuple):
                self._probes[worker.peer_id] = Probe(*answer)
            elif isinstance(answer, RtcError):
                self._probes.pop(worker.peer_id, None)
            else:
                raise answer
        self._report(workers)

    # -- going and coming --------------------------------------------------------------

    async def _enter_room(self) -> RemoteSession:
        room = RemoteSession(
            self.session,
            owner=self._owner,
            shared_storage=self._shared_storage,
            transport=self._transport,
        )
        await room.__aenter__()
        return room

    async def _enter_again(self, error: RtcError) -> None:
        """Enter anew after the server ended our stay; with what it refuses, never."""
        delay = REENTER_FIRST_S
        while error.retryable:
            await asyncio.sleep(delay)
            delay = min(2 * delay, REENTER_MAX_S)
            try:
                entered = await self._enter_room()
            except RtcError as again:
                error = again
                self._went_offline(error)
                continue
            old, self._room = self._room, entered
            if old is not None:
                await old.__aexit__(None, None, None)
            return
        await asyncio.Event().wait()  # until the user connects anew

    def _went_offline(self, error: RtcError) -> None:
        if self._is_online or not error.retryable:
            logger.warning("The room cannot be reached: %s", error)
            self._on_offline(error)
        self._is_online = False

    def _came_online(self) -> None:
        if not self._is_online:
            self._on_online()
        self._is_online = True

    def _spawn(self, coroutine: "asyncio._CoroutineLike[None]") -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        with contextlib.suppress(asyncio.CancelledError):
            if (error := task.exception()) is not None:
                logger.error("Watching the room failed", exc_info=error)
