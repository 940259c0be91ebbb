"""The worker as one object: builds its parts, wires them, runs, and closes them.

`RTCWorkerClient` keeps the surface that users of earlier workers know. It decides
nothing: jobs are the coordinator's, files the file manager's, links their services'.
"""

import asyncio
import contextlib
import logging
import random
import socket
import sys
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

from sleap_rtc_plugin.protocol.errors import RtcError
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.retries import Retries, is_passing
from sleap_rtc_plugin.protocol.session_string import Session
from sleap_rtc_plugin.protocol.signaling_messages import (
    RelayedMessage,
    RelayedOffer,
    RelayedPeerMessage,
)
from sleap_rtc_plugin.transport.effects import in_thread, monotonic
from sleap_rtc_plugin.transport.link import Link
from sleap_rtc_plugin.transport.signaling_client import (
    AccountToken,
    SignalingClient,
    nobody,
)
from sleap_rtc_plugin.transport.transport_options import TransportOptions
from sleap_rtc_worker.capabilities import (
    WorkerCapabilities,
    detect,
)
from sleap_rtc_worker.file_manager import FileManager
from sleap_rtc_worker.gpu_slots import variables_of
from sleap_rtc_worker.health import Health, HealthFile
from sleap_rtc_worker.identity import load_or_make_identity
from sleap_rtc_worker.job_coordinator import JobCoordinator
from sleap_rtc_worker.job_executor import JobExecutor
from sleap_rtc_worker.job_run import StepTools
from sleap_rtc_worker.journal import Journal
from sleap_rtc_worker.link_service import LinkService
from sleap_rtc_worker.link_tests import LinkTests
from sleap_rtc_worker.live_service import LiveSessions, live_environment
from sleap_rtc_worker.model_tools import ModelOptions, ModelTools
from sleap_rtc_worker.mounts import MountTable
from sleap_rtc_worker.offer_service import OfferService
from sleap_rtc_worker.retention import JobLimits
from sleap_rtc_worker.room_service import RoomService, until_gone
from sleap_rtc_worker.shared_files import storage_at
from sleap_rtc_worker.sleap_nn_command import trainer_command
from sleap_rtc_worker.state_manager import StateManager, WorkerStatus

__all__ = ["RTCWorkerClient"]

logger = logging.getLogger(__name__)


class RTCWorkerClient:
    """A worker that serves one room.

    Attributes:
        status: how the worker is, as the room sees it.
        gpu_memory_mb: the GPU's memory in MiB, or None without a GPU.
        gpu_model: the GPU's name, or None.
        cuda_version: the driver's CUDA version, or None.
    """

    def __init__(
        self,
        *,
        data_dir: Path,
        name: str = "",
        chunk_size: int | None = None,
        gpu_id: int | Sequence[int] | None = None,
        slots: int | None = None,
        limits: JobLimits | None = None,
        shared_storage_root: Path | None = None,
        mounts: Mapping[str, Path] | None = None,
        store_limit_bytes: int | None = None,
        models: ModelOptions | None = None,
        transport: TransportOptions | None = None,
        capabilities: WorkerCapabilities | None = None,
        trainer: list[str] | None = None,
        shows_jobs: bool = True,
    ) -> None:
        """Build a worker; nothing is contacted before `run_worker`.

        Args:
            data_dir: where its jobs live; one worker at a time.
            name: what users call it; the host's name where empty.
            chunk_size: bytes per chunk of what is sent home; by default it is cut by
                what it holds.
            gpu_id: the GPUs to use, or None for all; one job runs on each.
            slots: how many jobs run at once, if fewer.
            limits: what jobs may take.
            shared_storage_root: a mount shared with clients.
            mounts: what clients may look into, by name.
            store_limit_bytes: how much of earlier packages is kept; 0 for nothing.
            models: where the room's models are, and how many are kept at hand.
            transport: how data channels go; the environment's choice by default.
            capabilities: what this machine has, where it is known already.
            trainer: the words that start sleap-nn, for tests.
            shows_jobs: whether the room sees how far its jobs are.

        Raises:
            StorageFailed: the data folder is in use or cannot be used.
            StoreInvalid: the store of models cannot be used.
        """
        # Steps run elsewhere in the file system and must still find their folders.
        data_dir = data_dir.absolute()
        self.name = clean_text(name or socket.gethostname())
        gpus = [gpu_id] if isinstance(gpu_id, int) else gpu_id or ()
        self.capabilities = capabilities or detect(gpus, slots=slots)
        self._journal = Journal(data_dir)
        self.identity = load_or_make_identity(data_dir, self.name)
        self._health = HealthFile(data_dir)
        self._files = FileManager(
            data_dir,
            place=f"the disk of the worker {self.name}",
            chunk_size=chunk_size,
            store_limit_bytes=store_limit_bytes,
        )
        version = self.capabilities.sleap_nn_version or ""
        options = models or ModelOptions()
        self._models = ModelTools(data_dir, self._files, options, self.name, version)
        self._shared_storage = storage_at(shared_storage_root, self.name)
        self._mounts = MountTable(mounts or {})
        self._tests = LinkTests(self.name)
        self._live = LiveSessions(
            worker_name=self.name,
            models=self._models.models,
            environment=live_environment(self.capabilities.slots),
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._room = RoomService(self._spawn)
        self._state = StateManager(
            name=self.name,
            capabilities=self.capabilities.to_properties() | self._models.properties,
            tags=["sleap-nn"] if version else [],
            on_change=self._room.announce,
        )
        self._coordinator = JobCoordinator(
            tools=StepTools(
                journal=self._journal,
                files=self._files,
                executor=JobExecutor(),
                trainer=trainer or trainer_command(sys.executable),
                worker_name=self.name,
                gpu_variables=variables_of(self.capabilities.slots),
                publisher=self._models.publisher,
            ),
            state=self._state,
            can_train=trainer is not None or bool(version),
            slots=self.capabilities.slots,
            limits=limits,
            mounts=list(self._mounts.roots.values()),
            models=self._models.models,
            on_ended=self._room.job_ended,
            shows_jobs=shows_jobs,
        )
        self._offers = OfferService(self._serve, self._spawn, transport)
        self._stopping = asyncio.Event()
        self._has_entered = False

    # -- what users of earlier workers read ------------------------------------------

    @property
    def status(self) -> str:
        """How the worker is."""
        return self._state.status.value

    @property
    def gpu_memory_mb(self) -> int | None:
        """The GPU's memory, in MiB."""
        return self.capabilities.gpu_memory_mb

    @property
    def gpu_model(self) -> str | None:
        """The GPU's name."""
        return self.capabilities.gpu_model

    @property
    def running_jobs(self) -> int:
        """How many jobs run."""
        return self._state.running_jobs

    @property
    def cuda_version(self) -> str | None:
        """The CUDA version of the driver."""
        return self.capabilities.cuda_version

    # -- running ---------------------------------------------------------------------

    async def run_worker(
        self,
        session: Session,
        *,
        on_ready: Callable[[], None] = lambda: None,
        account: AccountToken = nobody,
    ) -> None:
        """Serve the room of `session` until `stop` is called.

        Args:
            session: the room and its secret.
            on_ready: called once the room can see us.
            account: gives the token of who is signed in at the room's server.

        Raises:
            RtcError: the room cannot be entered, or is gone for good.
        """
        self._spawn(self._health.keep(self._how_it_is))
        await in_thread(None, self._files.open_store, session.room_id, time.time())
        await self._models.models.open(session.room_id)
        retries = Retries()
        try:
            self._state.set_status(WorkerStatus.AVAILABLE)
            self._spawn(self._models.models.watch())
            await self._coordinator.resume()
            while not self._stopping.is_set():
                try:
                    return await self._stay(session, on_ready, account)
                except RtcError as error:
                    is_needed = self._coordinator.has_jobs
                    if self._has_entered or not (is_needed and is_passing(error)):
                        raise
                    logger.warning("%s Jobs go on here; it is tried again.", error)
                wait_s = retries.failed(monotonic(), random.random())  # noqa: S311
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), wait_s)
        finally:
            self._offers.leave()
            self._room.leave()
            await self._close()

    async def _stay(
        self, session: Session, on_ready: Callable[[], None], account: AccountToken
    ) -> None:
        token = await self._offers.prepare(session, account)
        async with SignalingClient(
            server=session.url,
            room_id=session.room_id,
            token=token,
            peer_id=self.identity.peer_id,
            resume_key=self.identity.resume_key,
            role="worker",
            metadata=self._state.metadata(),
            on_relayed=self._on_relayed,
            account=account,
        ) as signaling:
            self._has_entered = True
            self._offers.enter(signaling)
            self._room.enter(signaling)
            if self.capabilities.device == "cuda":
                self._spawn(self._state.watch_gpu(self.capabilities.slots[0]))
            on_ready()
            await until_gone(signaling, self._stopping)

    def stop(self) -> None:
        """End `run_worker`; running steps go on and are adopted by the next worker."""
        self._state.set_status(WorkerStatus.CLOSING)
        self._stopping.set()

    def close(self) -> None:
        """Let go of the data folder; after `run_worker`, or instead of it."""
        self._files.close_store()
        self._journal.close()

    async def _close(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._coordinator.close()
        await self._models.models.close()
        self._health.remove()

    def _how_it_is(self) -> Health:
        return Health(
            status=self.status,
            has_entered=self._has_entered,
            running_jobs=self._state.running_jobs,
            queue_length=self._state.queue_length,
        )

    # -- the room --------------------------------------------------------------------

    def _on_relayed(self, message: RelayedMessage) -> None:
        match message:
            case RelayedOffer():
                self._offers.offered(message)
            case RelayedPeerMessage():
                self._room.received(
                    message,
                    refusal=self._coordinator.refusal,
                    queue_length=self._coordinator.queue_length,
                    on_relay=self._offers.relay_asked,
                    on_query=self._models.models.answer,
                )
            case _:
                logger.info("An unexpected message of %s", message.from_)

    def _serve(self, link: Link) -> LinkService:
        return LinkService(
            link,
            coordinator=self._coordinator,
            journal=self._journal,
            shared_storage=self._shared_storage,
            mounts=self._mounts,
            tests=self._tests,
            live=self._live,
            models=self._models.models,
            pushes=self._models.pushes,
        )

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
