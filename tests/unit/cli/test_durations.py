"""Durations as people write them on the command line."""

import click
import pytest

from sleap_rtc_plugin.cli.durations import parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("0.0", 0),
        ("0h", 0),
        ("90s", 90),
        ("2m", 120),
        ("2 min", 120),
        ("12h", 43_200),
        ("1.5H", 5400),
        (" 30d ", 30 * 86_400),
    ],
)
def test_a_duration(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "90", "s", "-1s", "1e3s", "9y", "1h30m"])
def test_no_duration(text: str) -> None:
    with pytest.raises(click.BadParameter, match="not a duration"):
        parse_duration(text)
