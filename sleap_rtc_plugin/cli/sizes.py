"""Sizes and durations on the command line, as people write them: `20GB`, `12h`, `0`.

Types for click's options; they know nothing of what is measured.
"""

import re
from typing import Final

import click

__all__ = ["parse_duration", "parse_size"]

_UNITS: Final = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}
# So bounded, the number of bytes always fits into 63 bits.
_SIZE: Final = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?) ?([A-Za-z]{0,3})")

_SECONDS: Final = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 24 * 3600, "w": 604800}
_PART: Final = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?) ?([A-Za-z]{1,3})")
_MAX_DURATION_S: Final = 100 * 366 * 24 * 3600.0


def parse_duration(text: str) -> float:
    """Return the number of seconds of `12h`, `1h30m` or `30d`; 0 needs no unit.

    Raises:
        click.BadParameter: it is no duration.
    """
    words = text.strip()
    if words == "0":
        return 0.0
    seconds, at = 0.0, 0
    while found := _PART.match(words, at):
        number, unit = found.groups()
        if unit.lower() not in _SECONDS:
            break
        seconds += float(number) * _SECONDS[unit.lower()]
        at = found.end()
        while words[at : at + 1] == " ":
            at += 1
    if not at or at < len(words) or seconds > _MAX_DURATION_S:
        raise click.BadParameter(
            f"{text} is not a duration; write a number and its unit (s, m, h, d or w), "
            "as in 12h, 30d or 1h30m"
        )
    return seconds


def parse_size(text: str) -> int:
    """Return the number of bytes; 0 needs no unit.

    Raises:
        click.BadParameter: it is no size.
    """
    found = _SIZE.fullmatch(text.strip())
    number, unit = found.groups() if found else ("", "")
    if found and not unit and not float(number):
        return 0
    if unit.upper() not in _UNITS:
        raise click.BadParameter(
            f"{text} is not a size; write a number and its unit, as in 20GB or 500MB, "
            "or 0 for nothing"
        )
    return int(float(number) * _UNITS[unit.upper()])
