"""Which submissions are not home yet, so that the same command goes on with them.

One small file per submission in the user's state folder, written before the job is
submitted and removed when its results are home. Holds no secret.
"""

import contextlib
import hashlib
import os
from pathlib import Path

import msgspec
import platformdirs
from msgspec import Struct

from sleap_rtc_plugin.protocol.ids import clean_text, is_id, is_job_id

__all__ = ["PendingJob", "PendingJobs"]

MAX_RECORD_BYTES = 4096
MAX_RECORDS_READ = 10_000


class PendingJob(Struct, frozen=True):
    """A submission that is under way."""

    job_id: str
    worker_id: str
    worker: str = ""


class PendingJobs:
    """The user's submissions under way."""

    def __init__(self, folder: Path | None = None) -> None:
        """Keep them in `folder`, or in the user's own state folder."""
        base = folder or platformdirs.user_state_path("sleap-remote")
        self._folder = base / "pending"

    def find(self, key: str) -> PendingJob | None:
        """Return the submission of this key, or None."""
        return _read(self._path(key))

    def of_job(self, job_id: str) -> PendingJob | None:
        """Return the submission of a job that this computer sent, or None."""
        try:
            paths = list(self._folder.glob("*.json"))[:MAX_RECORDS_READ]
        except OSError:
            return None
        found = (_read(path) for path in paths)
        return next((job for job in found if job and job.job_id == job_id), None)

    def remember(self, key: str, job: PendingJob) -> None:
        """Write a submission down; it replaces one of the same key."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._path(key)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_bytes(msgspec.json.encode(job))
        temporary.replace(path)

    def forget(self, key: str) -> None:
        """The submission has ended."""
        with contextlib.suppress(OSError):
            self._path(key).unlink()

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.json"


def _read(path: Path) -> PendingJob | None:
    try:
        data = path.read_bytes()[:MAX_RECORD_BYTES]
        record = msgspec.json.decode(data, type=PendingJob)
    except (OSError, msgspec.MsgspecError):
        return None
    if not is_job_id(record.job_id) or not is_id(record.worker_id):
        return None
    name = clean_text(record.worker) or record.worker_id
    return msgspec.structs.replace(record, worker=name)


def submission_key(
    *, room_id: str, package_digest: bytes, spec: bytes, output: Path
) -> str:
    """Return what makes two commands the same submission, as a file name."""
    whole = hashlib.sha256()
    for part in (room_id.encode(), package_digest, spec, str(output).encode()):
        whole.update(hashlib.sha256(part).digest())
    return whole.hexdigest()[:40]
