"""The server's figures in Prometheus text, each server with a registry of its own.

Labels come from fixed tables only: nothing that a peer sends, no address and no id
becomes a label. Called by the switchboard and by `GET /metrics`.
"""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from sleap_rtc_signaling.instructions import Counts

__all__ = ["Metrics"]


class Metrics:
    """Counters that the server moves and gauges that are read when asked for."""

    content_type: Final = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._rooms = Gauge(
            "sleap_signaling_rooms",
            "Rooms with peers in them.",
            registry=self._registry,
        )
        self._peers = Gauge(
            "sleap_signaling_peers",
            "Registered peers.",
            ["role"],
            registry=self._registry,
        )
        self._sockets = Gauge(
            "sleap_signaling_sockets", "Open WebSockets.", registry=self._registry
        )
        self._registrations = Counter(
            "sleap_signaling_registrations",
            "Registrations that succeeded.",
            ["role"],
            registry=self._registry,
        )
        self._relayed = Counter(
            "sleap_signaling_relayed_messages",
            "Messages from one peer to another.",
            ["type"],
            registry=self._registry,
        )
        self._refusals = Counter(
            "sleap_signaling_refusals",
            "Commands and requests that were refused.",
            ["code"],
            registry=self._registry,
        )
        self._closed = Counter(
            "sleap_signaling_closed_sockets",
            "WebSockets that the server closed.",
            ["reason"],
            registry=self._registry,
        )

    def registered(self, role: str) -> None:
        """Count a registration."""
        self._registrations.labels(role).inc()

    def relayed(self, kind: str) -> None:
        """Count a relayed message by its type on the wire."""
        self._relayed.labels(kind).inc()

    def refused(self, code: str) -> None:
        """Count a refusal by its error code."""
        self._refusals.labels(code).inc()

    def closed(self, reason: str) -> None:
        """Count a socket that the server closed, by the name of its close code."""
        self._closed.labels(reason).inc()

    def render(self, counts: Counts, sockets: int) -> bytes:
        """Return everything as text."""
        self._rooms.set(counts.rooms)
        for role, number in counts.peers.items():
            self._peers.labels(role).set(number)
        self._sockets.set(sockets)
        return generate_latest(self._registry)
