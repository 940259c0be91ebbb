"""A worker's service and a client's link to it, in one process, over real peers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.peers import linked

from sleap_rtc_plugin.transport.link import Link
from sleap_rtc_worker.file_manager import FileManager
from sleap_rtc_worker.job_coordinator import JobCoordinator
from sleap_rtc_worker.job_executor import JobExecutor
from sleap_rtc_worker.job_run import StepTools
from sleap_rtc_worker.journal import Journal
from sleap_rtc_worker.link_service import LinkService
from sleap_rtc_worker.model_registry import WorkerModels
from sleap_rtc_worker.state_manager import StateManager, WorkerStatus


@dataclass
class LinkedWorker:
    """Both ends of the link, and the sizes of the fragments that crossed it."""

    client: Link
    worker: Link
    coordinator: JobCoordinator
    files: FileManager
    fragments: list[int]
    serving: asyncio.Future[None]

    async def served(self) -> None:
        """Wait until the service has let go of everything."""
        await self.serving


@contextlib.asynccontextmanager
async def linked_worker(
    folder: Path, *, room_models: WorkerModels | None = None, **service: Any
) -> AsyncIterator[LinkedWorker]:
    """Serve one client from the data in `folder`; `service` is more of the service."""
    files = FileManager(folder)
    state = StateManager(name="w", capabilities={}, tags=[], on_change=lambda _: None)
    state.set_status(WorkerStatus.AVAILABLE)
    with contextlib.closing(Journal(folder)) as journal:
        tools = StepTools(
            journal=journal,
            files=files,
            executor=JobExecutor(),
            trainer=["sleap-nn"],
            worker_name="w",
        )
        coordinator = JobCoordinator(
            tools=tools, state=state, can_train=True, models=room_models
        )
        async with linked() as (client, worker):
            fragments: list[int] = []
            for link in (client, worker):
                _count(link, fragments)
            serving = LinkService(
                worker, coordinator=coordinator, journal=journal, **service
            )
            running = asyncio.ensure_future(serving.run())
            yield LinkedWorker(client, worker, coordinator, files, fragments, running)
            client.close("done")
            worker.close("done")
            await running
            await coordinator.close()


def leave_packages_alone(coordinator: JobCoordinator) -> None:
    """Let packages stay as they arrive; what is in them is no configuration."""

    async def wait(*_: object) -> None:
        await asyncio.Event().wait()

    coordinator._check_package = wait  # type: ignore[assignment]


def _count(link: Link, sizes: list[int]) -> None:
    send = link.send_fragment

    async def send_fragment(frame: bytes) -> None:
        sizes.append(len(frame))
        await send(frame)

    link.send_fragment = send_fragment  # type: ignore[method-assign]
