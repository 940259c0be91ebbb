"""How large packets become (RFC 8899)."""

import pytest

from sleap_rtc_plugin.transport.sctp.path_mtu import (
    BASE_PACKET_BYTES,
    BLACK_HOLE_REST_S,
    ETHERNET_PACKET_BYTES,
    FAST_PEER_PACKET_BYTES,
    JUMBO_PACKET_BYTES,
    MAX_PROBES,
    PROBE_TIMEOUT_S,
    RAISE_INTERVAL_S,
    PathMtu,
)


def climb(path: PathMtu, carries: int, now: float = 0.0) -> list[int]:
    """Answer every probe that the path carries; return the sizes that were tried."""
    sizes = []
    while (probe := path.next_probe(now)) is not None:
        number, size = probe
        sizes.append(size)
        if size <= carries:
            assert path.on_probe_acked(number, now)
        else:
            now = path.deadline()
    return sizes


def test_it_climbs_as_far_as_the_peer_reads() -> None:
    path = PathMtu()
    assert path.packet_bytes == BASE_PACKET_BYTES
    assert climb(path, carries=65_536) == [ETHERNET_PACKET_BYTES]
    path.raise_limit(FAST_PEER_PACKET_BYTES, now=5.0)
    assert climb(path, 65_536, 5.0) == [JUMBO_PACKET_BYTES, FAST_PEER_PACKET_BYTES]
    assert path.packet_bytes == FAST_PEER_PACKET_BYTES
    assert path.deadline() is None


def test_a_size_that_is_lost_three_times_is_left_for_ten_minutes() -> None:
    path = PathMtu(FAST_PEER_PACKET_BYTES)
    sizes = climb(path, carries=1500)
    assert sizes == [ETHERNET_PACKET_BYTES, *[JUMBO_PACKET_BYTES] * MAX_PROBES]
    assert path.packet_bytes == ETHERNET_PACKET_BYTES
    again_at = path.deadline()
    assert again_at == pytest.approx(MAX_PROBES * PROBE_TIMEOUT_S + RAISE_INTERVAL_S)
    assert path.next_probe(again_at - 1) is None
    assert path.next_probe(again_at) is not None


def test_a_probe_that_was_lost_by_chance_is_sent_again() -> None:
    path = PathMtu()
    assert path.next_probe(0.0) == (1, ETHERNET_PACKET_BYTES)
    assert path.next_probe(PROBE_TIMEOUT_S - 0.1) is None
    assert path.next_probe(PROBE_TIMEOUT_S) == (2, ETHERNET_PACKET_BYTES)
    # The answer to the first one comes too late to be believed.
    assert not path.on_probe_acked(1, PROBE_TIMEOUT_S)
    assert path.on_probe_acked(2, PROBE_TIMEOUT_S)
    assert not path.on_probe_acked(2, PROBE_TIMEOUT_S)


def test_nobody_asked_for_an_answer() -> None:
    path = PathMtu()
    assert not path.on_probe_acked(0, 0.0)
    assert path.packet_bytes == BASE_PACKET_BYTES


def test_where_nothing_may_be_tried_nothing_is() -> None:
    path = PathMtu(BASE_PACKET_BYTES)
    assert path.next_probe(0.0) is None
    assert path.deadline() is None


def test_a_black_hole_means_the_base_size_and_a_rest() -> None:
    path = PathMtu()
    climb(path, carries=1500)
    assert path.on_black_hole(10.0)
    assert path.packet_bytes == BASE_PACKET_BYTES
    assert not path.on_black_hole(10.0)
    assert path.next_probe(10.0) is None
    assert path.deadline() == 10.0 + BLACK_HOLE_REST_S
    assert climb(path, 1500, 10.0 + BLACK_HOLE_REST_S) == [ETHERNET_PACKET_BYTES]


def test_what_this_machine_refuses_was_a_probe_or_not() -> None:
    path = PathMtu()
    _, size = path.next_probe(0.0)
    assert not path.on_too_large(size, 0.0)
    assert path.packet_bytes == BASE_PACKET_BYTES
    assert path.next_probe(RAISE_INTERVAL_S) is not None
    path.on_probe_acked(2, RAISE_INTERVAL_S)
    assert path.on_too_large(size, RAISE_INTERVAL_S)
    assert path.packet_bytes == BASE_PACKET_BYTES


def test_another_path_is_tried_at_once_with_the_base_size() -> None:
    path = PathMtu()
    climb(path, carries=1500)
    path.on_new_path(7.0)
    assert path.packet_bytes == BASE_PACKET_BYTES
    assert climb(path, 1500, 7.0) == [ETHERNET_PACKET_BYTES]
