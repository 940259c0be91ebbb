"""What every job of a worker is run with, as one value.

Made by the worker's root; used by `job_run` and the modules around it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sleap_rtc_worker.file_manager import FileManager
from sleap_rtc_worker.job_executor import Executor
from sleap_rtc_worker.journal import Journal

__all__ = ["StepTools"]


@dataclass(frozen=True)
class StepTools:
    """What every job of a worker uses.

    `gpu_variables` are what a job's steps see of the GPUs, by the name in its record.
    """

    journal: Journal
    files: FileManager
    executor: Executor
    trainer: list[str]
    worker_name: str
    gpu_variables: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
