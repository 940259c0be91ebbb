"""Durations on the command line, as people write them: `90s`, `12h`, `1.5 d`, `0`.

A type for click's options; knows nothing of what is waited for.
"""

import re
from typing import Final

import click

__all__ = ["parse_duration"]

_UNITS: Final = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION: Final = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?) ?([A-Za-z]{0,3})")


def parse_duration(text: str) -> float:
    """Return the number of seconds; 0 needs no unit.

    Raises:
        click.BadParameter: it is no duration.
    """
    found = _DURATION.fullmatch(text.strip())
    number, unit = found.groups() if found else ("", "")
    if found and not unit and not float(number):
        return 0.0
    if unit.lower() not in _UNITS:
        raise click.BadParameter(
            f"{text} is not a duration; write a number and its unit, as in 90s, 30m, "
            "12h or 30d, or 0 for none"
        )
    return float(number) * _UNITS[unit.lower()]
