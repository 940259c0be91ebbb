"""A sender with a window that a test sets, and time as the test lets it pass."""

from support.path_pair import FixedWindow
from support.sctp_invariants import check_sender

from sleap_rtc_plugin.transport.sctp.congestion import AckSample
from sleap_rtc_plugin.transport.sctp.packet import (
    TSN_MODULO,
)
from sleap_rtc_plugin.transport.sctp.sender import (
    Sender,
)
from sleap_rtc_plugin.transport.sctp.sent_chunk import SentChunk
from sleap_rtc_plugin.transport.sctp.streams import OutboundMessage

__all__ = ["ANY", "FIRST", "LARGE", "PAYLOAD", "RTT_S", "Bench", "Recorded", "measured"]

PAYLOAD = 100
LARGE = 1000
FIRST = 10
ANY = 1 << 20
RTT_S = 0.1


class Recorded(FixedWindow):
    """A window that a test sets, and what the sender told."""

    def __init__(self, window_bytes: int, pace: float | None = None) -> None:
        super().__init__(window_bytes, pace)
        self.samples: list[AckSample] = []
        self.idle_s: list[float] = []

    def set_window(self, window_bytes: int) -> None:
        self._window_bytes = window_bytes

    def on_ack(self, sample: AckSample) -> None:
        super().on_ack(sample)
        self.samples.append(sample)

    def on_idle(self, idle_s: float, rto_s: float) -> None:
        self.idle_s.append(idle_s)


class Bench:
    """A sender, and time as the test lets it pass."""

    def __init__(
        self,
        window: int = ANY,
        peer_window: int = ANY,
        pace: float | None = None,
        first: int = FIRST,
    ) -> None:
        self.congestion = Recorded(window, pace)
        self.sender = Sender(
            first, self.congestion, payload_bytes=PAYLOAD, peer_window_bytes=peer_window
        )
        self.first = first
        self.now = 50.0

    def push(self, size: int = PAYLOAD, stream: int = 1, **options: object) -> None:
        self.sender.streams.push(OutboundMessage(stream, 53, bytes(size), **options))

    def poll(self, max_chunks: int = 1000) -> list[int]:
        """Send, and return the TSNs, counted from the first."""
        chunks = self.sender.poll(self.now, max_chunks, ANY)
        check_sender(self.sender)
        return [chunk.serial - self.first for chunk in chunks]

    def send(self, count: int) -> list[int]:
        """Send so many messages of one packet each."""
        for _ in range(count):
            self.push()
        return self.poll()

    def ack(
        self,
        upto: int,
        *gaps: tuple[int, int],
        after_s: float = RTT_S,
        window: int = ANY,
        duplicates: tuple[int, ...] = (),
    ) -> list[int]:
        """Take a SACK of all up to a TSN and of ranges; send, and return that."""
        self.now += after_s
        self.sender.on_sack(
            (self.first + upto) % TSN_MODULO,
            window,
            [(low - upto, high - upto) for low, high in gaps],
            [(self.first + tsn) % TSN_MODULO for tsn in duplicates],
            self.now,
        )
        check_sender(self.sender)
        return self.poll()

    def wait(self) -> list[int]:
        """Let time pass to the deadline; send, and return that."""
        deadline = self.sender.deadline()
        assert deadline is not None
        assert deadline > self.now
        self.now = deadline
        self.sender.on_deadline(self.now)
        check_sender(self.sender)
        return self.poll()

    def sent(self, tsn: int) -> SentChunk:
        return self.sender._outstanding[self.first + tsn]


def measured() -> Bench:
    """A bench whose round trip is known, and nothing in flight."""
    bench = Bench()
    assert bench.send(1) == [0]
    bench.ack(0)
    bench.first += 1
    return bench
