"""What a client shows of a worker, read from metadata that anyone in the room wrote.

Pure. Every field is checked for its type and cleaned, since a peer chose it; called
by the session that lists workers and picks one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from sleap_rtc_plugin.protocol.errors import NoWorker, WorkerNotFound
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.signaling_messages import PeerInfo

__all__ = ["WorkerInfo", "choose_worker", "read_worker", "way_words"]

MAX_NAMES_SHOWN = 10
_WAY_WORDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "direct": "reached directly",
        "turn-udp": "reached over a TURN server (UDP)",
        "turn-tcp": "reached over a TURN server (TCP)",
        "turn-tls": "reached over a TURN server (TLS)",
        "relay": "reached through the signaling server's relay, which is slow",
    }
)


@dataclass(frozen=True)
class WorkerInfo:
    """A worker as a person sees it; memory in MiB, None where it did not say."""

    peer_id: str
    name: str
    status: str
    device: str
    gpu_model: str | None
    gpu_memory_mb: int | None
    gpu_free_mb: int | None
    queue_length: int
    running_jobs: int
    sleap_nn_version: str | None
    slots: int = 1
    takes_relay: bool = False
    # What kind of model store it has, and which where several workers may share it;
    # `""` where it shares no models.
    model_store: str = ""
    # By which way this program is linked with it, `""` without a link.
    link_kind: str = ""

    @property
    def is_available(self) -> bool:
        """Whether it takes jobs."""
        return self.status in ("available", "busy")

    @property
    def jobs_before(self) -> int:
        """How many jobs have to end before another one can begin."""
        return max(0, self.queue_length + self.running_jobs + 1 - self.slots)


def way_words(link_kind: str) -> str:
    """Say how a worker is reached; nothing for what needs no words."""
    return _WAY_WORDS.get(link_kind, "")


def read_worker(peer: PeerInfo) -> WorkerInfo:
    """Read a peer's metadata."""
    values = peer.metadata.properties
    return WorkerInfo(
        peer_id=peer.peer_id,
        name=_text(values, "name") or peer.peer_id,
        status=_text(values, "status") or "unknown",
        device=_text(values, "device") or "unknown",
        gpu_model=_text(values, "gpu_model"),
        gpu_memory_mb=_count(values, "gpu_memory_mb"),
        gpu_free_mb=_count(values, "gpu_memory_free_mb"),
        queue_length=_count(values, "queue_length") or 0,
        running_jobs=_count(values, "running_jobs") or 0,
        sleap_nn_version=_text(values, "sleap_nn_version"),
        slots=_count(values, "slots") or 1,
        takes_relay=values.get("relay") is True,
        model_store=_text(values, "model_store") or "",
    )


def choose_worker(
    workers: Sequence[WorkerInfo],
    *,
    wanted: str | None,
    preferred: str,
    server: str,
) -> WorkerInfo:
    """Pick a worker.

    Args:
        workers: who is online.
        wanted: a name or peer id that the user gave, or None.
        preferred: the peer id in the session string; taken where it is available.
        server: for the error.

    Raises:
        NoWorker: nobody is online.
        WorkerNotFound: nobody of that name is online.
    """
    if not workers:
        raise NoWorker(server=server)
    if wanted is not None:
        for worker in workers:
            if wanted in (worker.peer_id, worker.name):
                return worker
        names = ", ".join(w.name for w in workers[:MAX_NAMES_SHOWN])
        raise WorkerNotFound(worker=clean_text(wanted), online=names)
    return min(
        workers,
        key=lambda w: (
            not w.is_available,
            w.jobs_before,
            w.queue_length + w.running_jobs,
            w.peer_id != preferred,
        ),
    )


def _text(values: dict[str, Any], name: str) -> str | None:
    value = values.get(name)
    return clean_text(value) or None if isinstance(value, str) else None


def _count(values: dict[str, Any], name: str) -> int | None:
    value = values.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if 0 <= value < 2**53 else None
