"""Sizes on the command line, as people write them: `20GB`, `1.5 TiB`, `0`.

A type for click's options; knows nothing of what is measured.
"""

import re
from typing import Final

import click

__all__ = ["parse_size"]

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
