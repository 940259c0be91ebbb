"""The server's figures in Prometheus text, each server with a registry of its own.

Labels come from fixed tables only: nothing that a peer sends, no address and no id
becomes a label. Called by the switchboard and by `GET /metrics`.
"""

from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from sleap_rtc_signaling.instructions import Counts
from sleap_rtc_signaling.limits import REQUEST_BUCKETS_S
from sleap_rtc_signaling.relay_book import RelayCounts

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

        self._relays = Gauge(
            "sleap_signaling_relays",
            "Open relays of last resort.",
            registry=self._registry,
        )
        self._relays_waiting = Gauge(
            "sleap_signaling_relays_waiting",
            "Peers that wait at a relay for their partner.",
            registry=self._registry,
        )
        self._relay_bytes = Counter(
            "sleap_signaling_relay_bytes",
            "Bytes that relays of last resort passed on.",
            registry=self._registry,
        )
        self._relay_ends = Counter(
            "sleap_signaling_relay_ends",
            "Sockets of relays that the server refused or closed.",
            ["reason"],
            registry=self._registry,
        )

        self._requests = Histogram(
            "sleap_signaling_request_seconds",
            "How long requests took, by route and status.",
            ["method", "route", "status"],
            buckets=REQUEST_BUCKETS_S,
            registry=self._registry,
        )

    def requested(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request; `route` is the pattern, never the path that was asked."""
        self._requests.labels(method, route, str(status)).observe(seconds)

    def relay_passed(self, size_bytes: int) -> None:
        """Count bytes from one partner to the other."""
        self._relay_bytes.inc(size_bytes)

    def relay_ended(self, reason: str) -> None:
        """Count a relay's socket that the server closed, by the name of its end."""
        self._relay_ends.labels(reason).inc()

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

    def render(self, counts: Counts, sockets: int, relays: RelayCounts) -> bytes:
        """Return everything as text."""
        self._relays.set(relays.relays)
        self._relays_waiting.set(relays.waiting)
        self._rooms.set(counts.rooms)
        for role, number in counts.peers.items():
            self._peers.labels(role).set(number)
        self._sockets.set(sockets)
        return generate_latest(self._registry)
