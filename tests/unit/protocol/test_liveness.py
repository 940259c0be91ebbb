"""A peer is lost when it is silent, or when this computer slept."""

import pytest

from sleap_rtc_plugin.protocol.limits import KEEP_ALIVE_TIMEOUT_S
from sleap_rtc_plugin.protocol.liveness import Liveness

HOUR_S = 3600.0


def test_a_peer_that_is_heard_lives() -> None:
    liveness = Liveness(wall=1e9, now=5.0)
    for second in range(5, 500, 5):
        liveness.heard(second - 1.0)
        assert liveness.loss(wall=1e9 + second, now=float(second)) is None


def test_a_silent_peer_is_lost() -> None:
    liveness = Liveness(wall=0.0, now=0.0)
    late = KEEP_ALIVE_TIMEOUT_S
    assert liveness.loss(wall=late, now=late) is None
    assert liveness.loss(wall=late + 1, now=late + 1) == "it stopped answering"


def test_after_an_hour_of_sleep_it_is_lost_at_once() -> None:
    liveness = Liveness(wall=0.0, now=0.0)
    liveness.heard(5.0)
    # The monotonic clock stood still meanwhile.
    assert liveness.loss(wall=HOUR_S, now=6.0) == "this computer slept"


def test_sleep_is_noticed_once() -> None:
    liveness = Liveness(wall=0.0, now=0.0)
    assert liveness.loss(wall=HOUR_S, now=1.0) is not None
    liveness.heard(2.0)
    assert liveness.loss(wall=HOUR_S + 5, now=6.0) is None


@pytest.mark.parametrize("jump_s", [-HOUR_S, -1.0, 1.0, KEEP_ALIVE_TIMEOUT_S - 6])
def test_a_wall_clock_that_is_put_right_loses_nobody(jump_s: float) -> None:
    liveness = Liveness(wall=1e9, now=0.0)
    liveness.heard(4.0)
    assert liveness.loss(wall=1e9 + 5 + jump_s, now=5.0) is None


def test_a_program_that_was_stopped_has_lost_its_peers() -> None:
    # Both clocks went on; nothing was heard.
    liveness = Liveness(wall=0.0, now=0.0)
    assert liveness.loss(wall=120.0, now=120.0) is not None
