"""What the tries of a job's step that were cut off leave on the worker's disk.

Knows where a job's files are; what is done with them is `step_checkpoint`'s. Blocking
calls, made in threads by `job_run`.
"""

import shutil
from dataclasses import dataclass

from sleap_rtc_plugin.protocol.messages import JobSpec, TrainStep
from sleap_rtc_worker.file_manager import FileManager
from sleap_rtc_worker.sleap_nn_command import MODELS_FOLDER
from sleap_rtc_worker.step_checkpoint import Kept, rescue

__all__ = ["StepTries"]


@dataclass(frozen=True)
class StepTries:
    """The tries of one step."""

    files: FileManager
    job_id: str
    spec: JobSpec
    step: int

    def rescue(self) -> Kept:
        """Take what the last try left out of the way of the next one.

        Raises:
            OSError: the disk failed.
        """
        wanted = self.spec.steps[self.step]
        package = self.files.package_dir(self.job_id)
        if isinstance(wanted, TrainStep):
            run_dir = package / MODELS_FOLDER / wanted.run_name
            return rescue(run_dir, self.files.kept_dir(self.job_id, self.step))
        (package / wanted.output).unlink(missing_ok=True)
        return Kept()

    def forget(self) -> None:
        """Give back the disk that the checkpoints of a finished step's tries take."""
        kept_dir = self.files.kept_dir(self.job_id, self.step)
        shutil.rmtree(kept_dir, ignore_errors=True)
