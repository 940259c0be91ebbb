"""What is said of a job that waits for its turn: "Third in the queue of gpu-box".

Pure; read by the command line and by SLEAP's windows.
"""

from typing import Final

__all__ = ["about", "ordinal", "place_words", "start_words"]

_ORDINALS: Final = (
    "first",
    "second",
    "third",
    "fourth",
    "fifth",
    "sixth",
    "seventh",
    "eighth",
    "ninth",
    "tenth",
)
_MINUTE_S: Final = 60.0
_HOUR_S: Final = 3600.0
_DAY_S: Final = 24 * 3600.0


def ordinal(number: int) -> str:
    """Say a place in a queue, counted from 1: "third", "11th", "22nd"."""
    if 1 <= number <= len(_ORDINALS):
        return _ORDINALS[number - 1]
    teen = 10 < number % 100 < 20
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{'th' if teen else ending}"


def about(seconds: float) -> str:
    """Say an estimated time as roughly as it is known: "12 min", "3 h", "2 d"."""
    if seconds < _MINUTE_S:
        return "a minute"
    if seconds < 1.5 * _HOUR_S:
        return f"{round(seconds / _MINUTE_S)} min"
    if seconds < 1.5 * _DAY_S:
        return f"{round(seconds / _HOUR_S)} h"
    return f"{round(seconds / _DAY_S)} d"


def start_words(starts_in_s: float | None) -> str:
    """Say when a job will begin, or nothing where that cannot be told."""
    return "" if starts_in_s is None else f"starts in about {about(starts_in_s)}"


def place_words(worker: str, position: int, starts_in_s: float | None) -> str:
    """Say where a job stands: "third in the queue of gpu-box; starts in about 2 h"."""
    words = f"{ordinal(position)} in the queue of {worker}"
    start = start_words(starts_in_s)
    return f"{words}; {start}" if start else words
