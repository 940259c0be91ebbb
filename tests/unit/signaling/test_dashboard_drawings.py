"""Curves as SVG: inside their frames, and text as text."""

import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc_signaling.dashboard.drawings import (
    Series,
    loss_plot,
    number_words,
    sparkline,
)

FINITE = st.floats(allow_nan=False, allow_infinity=False)
SVG = "{http://www.w3.org/2000/svg}"


def spots(markup: str) -> list[tuple[float, float]]:
    return [
        (float(x), float(y))
        for line in re.findall(r'points="([^"]*)"', markup)
        for x, y in (pair.split(",") for pair in line.split())
    ]


@pytest.mark.parametrize("losses", [[], [1.0]])
def test_no_line_without_two_ends(losses: list[float]) -> None:
    assert sparkline(losses) == ""
    assert loss_plot([Series("val", "val", list(enumerate(losses)))], "x") == ""


def test_a_falling_loss_falls() -> None:
    heights = [y for _, y in spots(sparkline([1.0, 0.5, 0.2, 0.1]))]
    assert heights == sorted(heights)


def test_a_loss_over_decades_is_drawn_on_a_logarithmic_scale() -> None:
    heights = [y for _, y in spots(sparkline([1.0, 0.1, 0.01]))]
    assert heights[1] - heights[0] == pytest.approx(heights[2] - heights[1], abs=0.2)


@given(st.lists(FINITE, min_size=2, max_size=64))
def test_a_small_curve_stays_inside_its_frame(losses: list[float]) -> None:
    drawn = sparkline(losses)
    ET.fromstring(drawn)  # noqa: S314 - our own
    assert all(0 <= x <= 132 and 0 <= y <= 28 for x, y in spots(drawn))


@given(st.lists(st.tuples(st.integers(0, 10**6), FINITE), min_size=2, max_size=40))
def test_a_plot_is_whole_and_stays_inside_its_frame(
    points: list[tuple[int, float]],
) -> None:
    drawn = loss_plot([Series("validation", "val", sorted(points))], "Loss")
    ET.fromstring(drawn)  # noqa: S314 - our own
    assert all(0 <= x <= 720 and 0 <= y <= 260 for x, y in spots(drawn))
    assert len(re.findall("<text", drawn)) < 40


def test_a_name_is_text() -> None:
    drawn = loss_plot([Series("<b>", "val", [(0, 1.0), (1, 2.0)])], '"><script>')
    assert "<b>" not in drawn
    assert "<script" not in drawn


def test_no_style_is_written_into_a_drawing() -> None:
    drawn = sparkline([1, 2]) + loss_plot([Series("a", "val", [(0, 1), (1, 2)])], "x")
    assert "style=" not in drawn


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.0, "0.00"),
        (0.0123456, "0.0123"),
        (1.5, "1.50"),
        (1234.5, "1234"),
        (0.0000123, "1.23e-05"),
        (1e30, "1.00e+30"),
        (-0.5, "-0.500"),
    ],
)
def test_three_digits(value: float, words: str) -> None:
    assert number_words(value) == words
