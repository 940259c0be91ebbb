"""Sizes, rates, durations and memory as people read them; pure, never failing.

Numbers that cannot be (negative, infinite, not known) give a dash. Called by the
windows and by the words that the presenter's snapshot is said with.
"""

from typing import Final

__all__ = [
    "UNKNOWN",
    "format_duration",
    "format_memory",
    "format_rate",
    "format_round_trip",
    "format_size",
]

UNKNOWN: Final = "\N{EN DASH}"
MAX_SAID: Final = 1e18
"""Bytes, seconds or milliseconds beyond this are not believed."""
_SIZES: Final = ("kB", "MB", "GB", "TB")
_MIB_PER_GIB: Final = 1024


def format_size(size_bytes: float) -> str:
    """Say a number of bytes in decimal units: "512 bytes", "8.1 MB", "120 MB"."""
    if not 0 <= size_bytes <= MAX_SAID:
        return UNKNOWN
    if size_bytes < 1000:
        return "1 byte" if int(size_bytes) == 1 else f"{int(size_bytes)} bytes"
    value, step = size_bytes / 1000, 0
    while value >= 999.5 and step < len(_SIZES) - 1:
        value, step = value / 1000, step + 1
    digits = 1 if value < 99.95 else 0
    return f"{value:,.{digits}f} {_SIZES[step]}"


def format_rate(bytes_per_s: float) -> str:
    """Say a rate: "8.1 MB/s"."""
    size = format_size(bytes_per_s)
    return size if size == UNKNOWN else f"{size}/s"


def format_duration(seconds: float) -> str:
    """Say a time span in its two largest units: "45 s", "3 min 20 s", "2 h 5 min"."""
    if not 0 <= seconds <= MAX_SAID:
        return UNKNOWN
    whole = round(seconds)
    minutes, s = divmod(whole, 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    if days:
        return _two(days, "d", h, "h")
    if hours:
        return _two(h, "h", m, "min")
    return _two(m, "min", s, "s") if m else f"{s} s"


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    words = f"{large} {large_unit}"
    return f"{words} {small} {small_unit}" if small else words


def format_memory(free_mb: int | None, total_mb: int | None) -> str:
    """Say a GPU's memory, given in MiB, as "18.2 / 24.0 GiB"."""
    if total_mb is None:
        return UNKNOWN
    total = f"{total_mb / _MIB_PER_GIB:.1f} GiB"
    return total if free_mb is None else f"{free_mb / _MIB_PER_GIB:.1f} / {total}"


def format_round_trip(milliseconds: float | None) -> str:
    """Say a round-trip time: "12 ms"; a dash while it is not known."""
    if milliseconds is None or not 0 <= milliseconds <= MAX_SAID:
        return UNKNOWN
    return f"{milliseconds:.0f} ms" if milliseconds >= 1 else "< 1 ms"
