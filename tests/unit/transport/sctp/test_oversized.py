"""What was cut for larger packets than the path carries: how long it may travel so."""

import pytest

from sleap_rtc_plugin.transport.sctp.congestion import CongestionControl
from sleap_rtc_plugin.transport.sctp.data_path import (
    NARROW_PATH_S,
    Association,
    DataPath,
)
from sleap_rtc_plugin.transport.sctp.loss_based import LossBased
from sleap_rtc_plugin.transport.sctp.packet import sack_chunk, seal
from sleap_rtc_plugin.transport.sctp.path_mtu import (
    BASE_PACKET_BYTES,
    BASE_PAYLOAD_BYTES,
    JUMBO_PACKET_BYTES,
    SILENCE_S,
    STUCK_S,
    Oversized,
    PathMtu,
)
from sleap_rtc_plugin.transport.sctp.receiver import Receiver
from sleap_rtc_plugin.transport.sctp.streams import OutboundMessage

FIRST = 1000


@pytest.fixture
def oversized() -> Oversized:
    made = Oversized()
    made.begin(10, now=100.0)
    made.on_heard(100.0)
    return made


def test_none_is_outstanding_before_and_after() -> None:
    assert not Oversized().is_outstanding(5)
    assert not Oversized().is_stuck(5, now=1e9)


def test_they_are_outstanding_until_the_last_is_acknowledged(
    oversized: Oversized,
) -> None:
    assert oversized.is_outstanding(8)
    assert not oversized.is_outstanding(9)


def _talk(oversized: Oversized, begin: float, end: float, acked: int) -> float | None:
    """Hear the peer each second; return when they count as stuck."""
    now = begin
    while now < end:
        oversized.on_heard(now)
        if oversized.is_stuck(acked, now):
            return now
        now += 1
    return None


def test_they_are_stuck_when_none_arrives_for_long(oversized: Oversized) -> None:
    assert _talk(oversized, 100, 200, acked=0) == 100 + STUCK_S


def test_each_that_arrives_begins_the_wait_anew(oversized: Oversized) -> None:
    assert _talk(oversized, 100, 110, acked=0) is None
    assert _talk(oversized, 110, 125, acked=1) is None
    assert _talk(oversized, 125, 200, acked=1) == 110 + STUCK_S


def test_an_outage_is_no_narrow_path(oversized: Oversized) -> None:
    assert not oversized.is_stuck(0, now=100 + 3 * STUCK_S)
    back_at = 100 + 3 * STUCK_S + SILENCE_S
    assert _talk(oversized, back_at, 1000, acked=0) == back_at + STUCK_S


def _path(congestion: CongestionControl | None = None) -> DataPath:
    path = DataPath(
        Association(5000, 5000, 1, 2, peer_takes_forward_tsn=True),
        receiver=Receiver(FIRST),
        first_tsn=FIRST,
        peer_window_bytes=1 << 20,
        congestion=congestion or LossBased(BASE_PAYLOAD_BYTES),
        path_mtu=PathMtu(JUMBO_PACKET_BYTES),
    )
    path.packets(0.0)
    # As if probes had been answered.
    path.path_mtu.packet_bytes = JUMBO_PACKET_BYTES
    path._apply_packet_size()
    return path


def _message(size: int) -> OutboundMessage:
    return OutboundMessage(
        stream_id=1,
        protocol=53,
        data=bytes(size),
        is_unordered=False,
        expires_at=None,
        max_retransmits=None,
        is_counted=True,
    )


def _acknowledge(path: DataPath, now: float) -> None:
    everything = path.sender.next_serial - 1
    header = (5000).to_bytes(2, "big") * 2 + (1).to_bytes(4, "big") + bytes(4)
    path.receive_packet(seal(header, sack_chunk(everything, 1 << 20, [], [])), now)


def test_fragments_are_allowed_while_something_is_too_large() -> None:
    path = _path()
    path.send(_message(40_000))
    assert max(map(len, path.packets(1.0))) > BASE_PACKET_BYTES
    path.on_too_large(JUMBO_PACKET_BYTES, 1.1)
    path.packets(1.2)
    assert path.may_fragment
    _acknowledge(path, 1.3)
    path.send(_message(40_000))
    assert max(map(len, path.packets(1.4))) <= BASE_PACKET_BYTES
    assert not path.may_fragment


def test_fragments_are_allowed_on_a_new_path_for_what_the_old_one_carried() -> None:
    path = _path()
    path.send(_message(40_000))
    path.packets(1.0)
    path.on_new_path(1.1)
    packets = path.packets(1.2)
    assert path.may_fragment
    # No probe: it would be cut, and tell nothing.
    assert max(map(len, packets)) <= JUMBO_PACKET_BYTES
    assert path.path_mtu.packet_bytes == BASE_PACKET_BYTES


def test_fragments_are_allowed_where_not_even_small_packets_pass() -> None:
    path = _path()
    path.on_too_large(JUMBO_PACKET_BYTES, 1.0)
    path.packets(1.0)
    assert not path.may_fragment
    path.on_too_large(BASE_PACKET_BYTES, 2.0)
    path.packets(1e6)
    assert path.may_fragment


def test_after_an_outage_fragments_are_allowed_for_a_while() -> None:
    path = _path()
    path.send(_message(100))
    now = 1.0
    path.packets(now)
    while not path.may_fragment:
        deadline = path.deadline()
        assert deadline is not None
        assert deadline < 60
        now = max(now, deadline)
        path.handle_timeout(now)
        path.packets(now)
    _acknowledge(path, now)
    path.packets(now + NARROW_PATH_S - 1)
    assert path.may_fragment
    path.packets(now + NARROW_PATH_S + 1)
    assert not path.may_fragment
