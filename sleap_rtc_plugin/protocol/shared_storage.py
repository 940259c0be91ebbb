"""Where a job's files lie on storage that both sides mount, and how they find out.

One side writes a random nonce, the other reads it through its own mount and proves it;
only relative paths and the proof cross the wire. Pure; `transport.shared_storage`
touches the disk.
"""

import hashlib
import hmac
from typing import Final

from sleap_rtc_plugin.protocol.paths import path_fault

__all__ = [
    "JOBS_FOLDER",
    "PROBES_FOLDER",
    "input_path",
    "is_proof",
    "job_folder",
    "output_path",
    "path_error",
    "probe_path",
    "prove",
]

JOBS_FOLDER: Final = "jobs"
PROBES_FOLDER: Final = "probes"
_PURPOSE: Final = b"sleap-remote shared storage\0"


def job_folder(job_id: str) -> str:
    """Return the folder of everything of a job."""
    return f"{JOBS_FOLDER}/{job_id}"


def input_path(job_id: str) -> str:
    """Return where a job's package lies."""
    return f"{job_folder(job_id)}/input"


def output_path(job_id: str) -> str:
    """Return where a job's results lie."""
    return f"{job_folder(job_id)}/output"


def probe_path(probe: str) -> str:
    """Return where the nonce of a probe lies."""
    return f"{PROBES_FOLDER}/{probe}"


def path_error(path: str, job_id: str) -> str | None:
    """Say why a peer may not name `path` for a job, or None where it may.

    The words complete a sentence's bracket; nothing of the path is repeated.
    """
    fault = path_fault(path)
    if fault is not None:
        return f"the path named {fault}"
    if not path.startswith(f"{job_folder(job_id)}/"):
        return "the path named is not below the job's folder"
    return None


def prove(nonce: bytes, job_id: str) -> str:
    """Return the proof, in hex, of having read `nonce` for a job.

    The nonce is the key, so whoever did not read it learns nothing from the proof.
    """
    return hmac.new(nonce, _PURPOSE + job_id.encode(), hashlib.sha256).hexdigest()


def is_proof(proof: str | None, nonce: bytes, job_id: str) -> bool:
    """Tell whether a peer read `nonce`."""
    return proof is not None and hmac.compare_digest(proof, prove(nonce, job_id))
