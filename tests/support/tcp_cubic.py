"""A congestion control as a kernel's TCP has it: CUBIC, to compete with in tests.

Written on its own after RFC 9438, with the window in packets: it shares no line with
what it is compared to. Driven by `support.narrow_path`.
"""

from sleap_rtc_plugin.transport.sctp.congestion import AckSample

__all__ = ["TcpCubic"]

PACKET_BYTES = 1_200
BETA = 0.7
C = 0.4


class TcpCubic:
    """CUBIC with standard slow start, left when the delay rises as Linux does it."""

    pace_bytes_per_s = None

    def __init__(self) -> None:
        self.cwnd = 10.0
        self.ssthresh = float("inf")
        self.w_max = 0.0
        self.w_tcp = 0.0
        self.k = 0.0
        self.origin = 0.0
        self.epoch: float | None = None
        self.reduced_at = -1.0
        self.min_rtt = float("inf")
        self.srtt = 0.0

    @property
    def window_bytes(self) -> int:
        return int(self.cwnd * PACKET_BYTES)

    def on_ack(self, sample: AckSample) -> None:
        rtt = sample.rtt_s
        if rtt is not None:
            self.min_rtt = min(self.min_rtt, rtt)
            self.srtt = self.srtt * 7 / 8 + rtt / 8 if self.srtt else rtt
            delay_limit = min(max(self.min_rtt / 8, 0.004), 0.016)
            if (
                self.ssthresh == float("inf")
                and self.cwnd >= 16
                and rtt > self.min_rtt + delay_limit
            ):
                self.ssthresh = self.cwnd
        lost_at = sample.lost_sent_at
        if lost_at is not None and lost_at > self.reduced_at:
            self.reduced_at = sample.now
            self._reduce()
            return
        if not sample.is_window_limited:
            return
        acked = sample.acked_bytes / PACKET_BYTES
        if self.cwnd < self.ssthresh:
            self.cwnd += acked
            return
        if self.epoch is None:
            self.epoch = sample.now
            self.w_tcp = self.cwnd
            self.origin = max(self.w_max, self.cwnd)
            self.k = ((self.origin - self.cwnd) / C) ** (1 / 3)
        t = sample.now - self.epoch + self.min_rtt
        target = self.origin + C * (t - self.k) ** 3
        target = min(max(target, self.cwnd), 1.5 * self.cwnd)
        self.w_tcp += 3 * (1 - BETA) / (1 + BETA) * acked / self.cwnd
        growth = (target - self.cwnd) * acked / self.cwnd
        if not self.w_max:
            # Linux: a twentieth in each round trip, until something is lost.
            growth = max(growth, acked / 20)
        self.cwnd = max(self.cwnd + growth, self.w_tcp)

    def _reduce(self) -> None:
        fast = self.cwnd < self.w_max
        self.w_max = self.cwnd * (1 + BETA) / 2 if fast else self.cwnd
        self.cwnd = self.ssthresh = max(2.0, self.cwnd * BETA)
        self.epoch = None

    def on_timeout(self, now: float) -> None:
        self._reduce()
        self.reduced_at = now
        self.cwnd = 1.0

    def on_idle(self, idle_s: float, rto_s: float) -> None: ...

    def on_packet_size(self, payload_bytes: int) -> None: ...

    def on_new_path(self, now: float) -> None: ...
