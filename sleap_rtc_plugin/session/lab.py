"""A room entered for hours, its workers watched: who is there, and who takes jobs.

Tells when the room cannot be reached and when it can again; `SteadyRoom` does the
entering and the links. Used by the companion; the commands use the room itself.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from sleap_rtc_plugin.protocol.errors import RtcError
from sleap_rtc_plugin.protocol.retries import may_enter_again
from sleap_rtc_plugin.protocol.session_string import Session
from sleap_rtc_plugin.session.steady_room import SteadyRoom
from sleap_rtc_plugin.session.worker_info import WorkerInfo
from sleap_rtc_plugin.session.worker_link import WorkerLink
from sleap_rtc_plugin.transport.effects import in_thread, monotonic
from sleap_rtc_plugin.transport.shared_storage import SharedStorage
from sleap_rtc_plugin.transport.transport_options import TransportOptions

__all__ = ["Lab", "Probe", "WorkerSeen"]

logger = logging.getLogger(__name__)

WORKERS_INTERVAL_S: Final = 2.0
PROBE_INTERVAL_S: Final = 6.0
MAX_WORKERS_PROBED: Final = 32


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


class Lab:
    """One room, for as long as the user works with it.

    Args:
        session: the room and its secret.
        owner: shown to the room.
        shared_storage: a folder that workers may mount as well.
        transport: asked, in a thread, how data channels go whenever a link is opened;
            the environment's choice by default.
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
        transport: Callable[[], TransportOptions] | None = None,
        on_workers: Callable[[Sequence[WorkerSeen]], None],
        on_offline: Callable[[RtcError], None],
        on_online: Callable[[], None],
    ) -> None:
        self.session = session
        self._on_workers = on_workers
        self._on_offline = on_offline
        self._on_online = on_online
        self._transport = transport
        self._room = SteadyRoom(session, owner=owner, shared_storage=shared_storage)
        self._probes: dict[str, Probe] = {}
        self._probed_at = 0.0
        self._is_online = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def enter(self) -> None:
        """Enter the room and begin to watch it.

        Raises:
            RtcError: why it cannot be entered.
        """
        await self._room.__aenter__()
        self._is_online = True
        self._spawn(self._watch())

    async def leave(self) -> None:
        """Close every link and leave the room."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._room.__aexit__(None, None, None)

    # -- asking ----------------------------------------------------------------------

    async def link(self, worker_id: str) -> WorkerLink:
        """Return the link to a worker; opens it where there is none.

        Raises:
            RtcError: no link came about.
        """
        transport = None
        if self._transport is not None:
            transport = await in_thread(None, self._transport)
        return await self._room.link(worker_id, transport)

    # -- watching --------------------------------------------------------------------

    async def _watch(self) -> None:
        while True:
            try:
                workers = await self._room.workers()
            except RtcError as error:
                ended_with = self._room.ended_with
                self._went_offline(ended_with or error)
                if ended_with is not None and not may_enter_again(ended_with):
                    await asyncio.Event().wait()  # until the user connects anew
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
        room = await self._room.stay()
        answers = await asyncio.gather(
            *(room.probe(worker) for worker in asked), return_exceptions=True
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
