"""Frames and times of a live session, counted."""

from itertools import pairwise

import pytest

from sleap_rtc_plugin.protocol.live_messages import LiveInstances, LiveReport
from sleap_rtc_plugin.session.live_figures import LatencySamples, LiveFigures, quantile


def test_quantiles() -> None:
    values = list(range(100))
    assert [quantile(values, part) for part in (0.0, 0.5, 0.95, 0.99, 1.0)] == [
        0,
        50,
        95,
        99,
        99,
    ]
    assert quantile([7.0], 0.99) == 7.0


def test_of_a_long_session_evenly_thinned_samples_are_kept() -> None:
    samples = LatencySamples(most=100)
    assert samples.spread() is None
    for number in range(10_000):
        samples.add(float(number))
    kept = samples.values_ms
    assert 50 <= len(kept) <= 100
    steps = {b - a for a, b in pairwise(kept)}
    assert steps == {128.0}
    spread = samples.spread()
    assert spread is not None
    assert (spread.min, spread.max) == (0.0, 9_999.0)
    assert abs(spread.median - 5_000) < 200
    assert abs(spread.p95 - 9_500) < 200


def answer(figures: LiveFigures, frame: int, now: float) -> float:
    found = LiveInstances(frame, frame * 100_000, 2_000, 30_000, [])
    return figures.answer(found, now)


def test_what_became_of_the_frames() -> None:
    figures = LiveFigures()
    assert figures.drop_rate == 0
    assert figures.answered_per_s == 0
    figures.taken, figures.missed, figures.dropped, figures.sent = 9, 1, 2, 7
    assert answer(figures, 0, 0.05) == pytest.approx(50)
    assert answer(figures, 1, 0.17) == pytest.approx(70)
    assert answer(figures, 4, 0.45) == pytest.approx(50)
    assert figures.answered_per_s == pytest.approx(5.0)
    assert figures.lost is None
    assert figures.superseded is None
    figures.report = LiveReport(received=6, incomplete=1, superseded=2, predicted=4)
    # One was lost on the way there, one answer on the way back.
    assert figures.lost == 2
    assert figures.superseded == 2
    assert figures.drop_rate == pytest.approx(0.7)
    line = figures.as_json()
    assert line["latency_ms"]["max"] == 70.0
    assert line["waited_ms"]["median"] == 2.0
    assert line["predicted_ms"]["p99"] == 30.0
    assert line["drop_rate"] == 0.7


def test_a_worker_that_counts_nonsense() -> None:
    figures = LiveFigures()
    figures.report = LiveReport(received=100, predicted=0)
    assert figures.lost == 0
    assert figures.as_json()["latency_ms"] is None


def test_a_clock_never_runs_backwards_in_the_figures() -> None:
    figures = LiveFigures()
    assert figures.answer(LiveInstances(0, 10**9, 0, 0, []), 1.0) == 0.0
