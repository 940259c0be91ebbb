"""What every job of a worker is run with, as one value.

Made by the worker's root; used by `job_run` and the modules around it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sleap_rtc_worker.file_manager import FileManager
from sleap_rtc_worker.job_executor import Executor
from sleap_rtc_worker.journal import JobRecord, Journal
from sleap_rtc_worker.publish_outcome import Outcome

__all__ = ["Publisher", "StepTools"]


class Publisher(Protocol):
    """Publishes what a job trained; `model_publishing.JobPublisher`."""

    async def publish(self, record: JobRecord) -> Sequence[Outcome]:
        """Publish what the job was asked to; never raises an `RtcError`."""


@dataclass(frozen=True)
class StepTools:
    """What every job of a worker uses.

    `gpu_variables` are what a job's steps see of the GPUs, by the name in its record.
    Without a `publisher` nothing is published.
    """

    journal: Journal
    files: FileManager
    executor: Executor
    trainer: list[str]
    worker_name: str
    gpu_variables: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    publisher: Publisher | None = None
