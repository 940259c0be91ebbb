"""Which runs were submitted from here, and what of them is not at home or merged yet.

One small file per run in the user's state folder, written before the job is submitted
and removed when nothing of it waits any more. This is what a SLEAP that was closed and
opened again finds its jobs by. Holds no secret.
"""

import contextlib
import logging
import os
from pathlib import Path
from typing import BinaryIO, Final, Literal

import msgspec
import platformdirs
from msgspec import Struct

from sleap_rtc_plugin.protocol.ids import is_job_id
from sleap_rtc_plugin.protocol.limits import MIB
from sleap_rtc_plugin.protocol.model_records import Publication
from sleap_rtc_plugin.session.run_request import MergeChoice, ProjectFacts
from sleap_rtc_plugin.transport.file_lock import try_lock

__all__ = ["RunRecord", "RunRecords"]

logger = logging.getLogger(__name__)

MAX_RECORD_BYTES: Final = 1 * MIB
MAX_RECORDS: Final = 1000


class RunRecord(Struct, frozen=True, kw_only=True):
    """A run that is under way, or whose results wait.

    Attributes:
        job_id: its job.
        room_id: the room of its worker.
        worker_id: the worker.
        worker: the worker's name.
        name: what the job is called.
        output: the folder its results go to.
        phase: `sending` until the worker has the package, `running` until the results
            are at home, `home` until they are merged.
        created_at: Unix seconds.
        project: the project it was submitted from, or None for a package.
        merge: how its predictions are to be merged.
        models: folders, once they are at home.
        predictions: files, once they are at home.
        video_names: the project's names of videos by the worker's, of those that the
            worker has itself; the results name the worker's.
        publish: what the job's models are published as, or None for not at all.
    """

    job_id: str
    room_id: str
    worker_id: str
    worker: str
    name: str
    output: str
    phase: Literal["sending", "running", "home"] = "sending"
    created_at: float = 0.0
    project: ProjectFacts | None = None
    merge: MergeChoice | None = None
    models: list[str] = []
    predictions: list[str] = []
    video_names: dict[str, str] = {}
    publish: Publication | None = None


class RunRecords:
    """The user's runs, one file each."""

    def __init__(self, folder: Path | None = None) -> None:
        """Keep them in `folder`, or in the user's own state folder."""
        base = folder or platformdirs.user_state_path("sleap-remote")
        self._folder = base / "runs"

    def find(self, job_id: str) -> RunRecord | None:
        """Return the record of a job, or None."""
        return self._read(self._path(job_id)) if is_job_id(job_id) else None

    def all(self) -> list[RunRecord]:
        """Return every record that can be read, the oldest first."""
        try:
            paths = sorted(self._folder.glob("*.json"))[:MAX_RECORDS]
        except OSError:
            return []
        records = [record for path in paths if (record := self._read(path))]
        return sorted(records, key=lambda record: record.created_at)

    def write(self, record: RunRecord) -> None:
        """Write a record down; it replaces an older one of the same job.

        Raises:
            OSError: the disk does not take it.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._path(record.job_id)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        with temporary.open("wb") as file:
            file.write(msgspec.json.encode(record))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)

    def remove(self, job_id: str) -> None:
        """Nothing of the run waits any more."""
        if is_job_id(job_id):
            for path in (self._path(job_id), self._folder / f"{job_id}.lock"):
                with contextlib.suppress(OSError):
                    path.unlink()

    def claim(self, job_id: str) -> BinaryIO | None:
        """Take a run for this program, until what is returned is closed.

        Returns:
            What holds the claim, or None where another SLEAP follows the run.

        Raises:
            OSError: the disk does not take it.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = (self._folder / f"{job_id}.lock").open("ab")
        if try_lock(file.fileno()):
            return file
        file.close()
        return None

    def _path(self, job_id: str) -> Path:
        return self._folder / f"{job_id}.json"

    def _read(self, path: Path) -> RunRecord | None:
        try:
            with path.open("rb") as file:
                data = file.read(MAX_RECORD_BYTES + 1)
            record = msgspec.json.decode(data, type=RunRecord)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            logger.warning("The record %s cannot be read: %s", path.name, error)
            return None
        return record if path.stem == record.job_id else None
