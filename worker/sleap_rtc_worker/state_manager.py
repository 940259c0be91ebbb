"""What the room sees of this worker: capabilities, status, queue.

Holds the truth in one place and tells one listener when it changed; it knows neither
signaling nor jobs. Called by the job coordinator and the worker's root.
"""

import asyncio
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from sleap_rtc_plugin.protocol.signaling_messages import PeerMetadata
from sleap_rtc_plugin.transport.effects import in_thread
from sleap_rtc_worker.capabilities import free_gpu_memory_mb
from sleap_rtc_worker.gpu_slots import Slot
from sleap_rtc_worker.limits import GPU_MEMORY_POLL_S, GPU_MEMORY_STEP_MB

__all__ = ["StateManager", "WorkerStatus"]


class WorkerStatus(StrEnum):
    """How the worker is; the values are shown to users."""

    STARTING = "starting"
    AVAILABLE = "available"
    BUSY = "busy"
    CLOSING = "closing"


class StateManager:
    """The worker's public state."""

    def __init__(
        self,
        *,
        name: str,
        capabilities: Mapping[str, Any],
        tags: list[str],
        on_change: Callable[[PeerMetadata], None],
    ) -> None:
        """Begin in STARTING.

        Args:
            name: what users call this worker.
            capabilities: what the machine has; of it, only the GPU's free memory
                changes.
            tags: labels for discovery.
            on_change: told the new metadata after every change.
        """
        self.name = name
        self._capabilities = dict(capabilities)
        self._tags = tags
        self._on_change = on_change
        self.status = WorkerStatus.STARTING
        self.queue_length = 0
        self.running_jobs = 0
        self._jobs: list[dict[str, Any]] = []

    def set_status(self, status: WorkerStatus) -> None:
        """Set the status; CLOSING is final."""
        if self.status not in (status, WorkerStatus.CLOSING):
            self.status = status
            self._on_change(self.metadata())

    def set_load(self, *, running_jobs: int, queue_length: int) -> None:
        """Set how much there is to do."""
        if (running_jobs, queue_length) == (self.running_jobs, self.queue_length):
            return
        self.running_jobs, self.queue_length = running_jobs, queue_length
        if self.status in (WorkerStatus.AVAILABLE, WorkerStatus.BUSY):
            busy = running_jobs >= self._capabilities.get("slots", 1)
            self.status = WorkerStatus.BUSY if busy else WorkerStatus.AVAILABLE
        self._on_change(self.metadata())

    def set_jobs(self, jobs: list[dict[str, Any]]) -> None:
        """Set what is shown of the jobs (`job_board`); the caller sees to the pace."""
        if jobs != self._jobs:
            self._jobs = jobs
            self._on_change(self.metadata())

    async def watch_gpu(self, slot: Slot) -> None:
        """Keep the room's picture of the GPU's memory true, until cancelled."""
        while True:
            await asyncio.sleep(GPU_MEMORY_POLL_S)
            self.set_gpu_free(await in_thread(None, free_gpu_memory_mb, slot))

    def set_gpu_free(self, free_mb: int | None) -> None:
        """Set the GPU's free memory (MiB); small changes are not told."""
        told = self._capabilities.get("gpu_memory_free_mb")
        if free_mb is None or (
            told is not None and abs(free_mb - told) < GPU_MEMORY_STEP_MB
        ):
            return
        self._capabilities["gpu_memory_free_mb"] = free_mb
        self._on_change(self.metadata())

    @property
    def takes_jobs(self) -> bool:
        """Whether new jobs are accepted."""
        return self.status in (WorkerStatus.AVAILABLE, WorkerStatus.BUSY)

    def metadata(self) -> PeerMetadata:
        """Return what the room sees."""
        return PeerMetadata(
            tags=self._tags,
            properties={
                **self._capabilities,
                "name": self.name,
                "status": self.status.value,
                "queue_length": self.queue_length,
                "running_jobs": self.running_jobs,
                **({"jobs": self._jobs} if self._jobs else {}),
                # It comes to the signaling server's relay when it is asked.
                "relay": True,
            },
        )
