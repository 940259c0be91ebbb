"""One direction of an emulated wide-area path: what is dropped, and what is due when.

Packets meet random loss, then a bottleneck with a queue that drops its tail, then a
delay. Pure: packets and seconds go in, packets come out. Driven by `bench.wan`.
"""

import random
from collections import deque
from collections.abc import Sequence
from typing import Final

from sleap_rtc_plugin.bench.path_spec import PathSpec

__all__ = ["QUEUE_S", "WanPath"]

# How long a packet may wait at the bottleneck: what home routers hold, or less.
QUEUE_S: Final = 0.2


class WanPath:
    """One direction. Times are seconds of one clock that does not go back.

    Attributes:
        taken: packets that came, whatever became of them.
        lost: dropped at random.
        overflowed: dropped because the queue was full.
    """

    def __init__(self, spec: PathSpec, seed: int) -> None:
        """Carry packets as `spec` says; the same seed loses the same ones again."""
        self._one_way_s = spec.rtt_ms / 2_000
        self._s_per_byte = 8 / (spec.mbit_per_s * 1e6)
        self._loss = spec.loss_percent / 100
        self._random = random.Random(seed).random  # noqa: S311 - loss, not a secret
        self._free_at = 0.0
        self._packets: deque[tuple[float, bytes]] = deque()
        self.taken = 0
        self.lost = 0
        self.overflowed = 0

    def take(self, packets: Sequence[bytes], now: float) -> None:
        """Let packets enter that arrived at `now`, in their order."""
        self.taken += len(packets)
        # One pass with everything in locals: 45,000 packets a second come this way.
        free_at = max(self._free_at, now)
        full_at = now + QUEUE_S
        loss, draw = self._loss, self._random
        s_per_byte, one_way_s = self._s_per_byte, self._one_way_s
        append = self._packets.append
        for packet in packets:
            if loss and draw() < loss:
                self.lost += 1
            elif free_at > full_at:
                self.overflowed += 1
            else:
                free_at += len(packet) * s_per_byte
                append((free_at + one_way_s, packet))
        self._free_at = free_at

    def due(self, now: float) -> list[bytes]:
        """Hand out what has arrived at the far end by `now`, in its order."""
        waiting = self._packets
        arrived = []
        while waiting and waiting[0][0] <= now:
            arrived.append(waiting.popleft()[1])
        return arrived

    @property
    def next_due(self) -> float | None:
        """When the next packet arrives; None while none is on the way."""
        return self._packets[0][0] if self._packets else None
