"""The shape of a benchmark's result, and the machine it came from.

Every figure has its unit in its name. Shared by all benchmarks; prints nothing.
"""

import os
import platform
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from sleap_rtc_plugin import __version__

__all__ = ["BenchResult", "describe_machine", "joined"]


class BenchResult(Struct, kw_only=True):
    """The last line of `sleap-remote bench NAME --json`."""

    bench: str
    machine: dict[str, Any]
    rows: list[dict[str, Any]]
    ratios: dict[str, float]


def describe_machine() -> dict[str, Any]:
    """Say what was measured on, without naming the machine."""
    return {
        "cores": os.cpu_count(),
        "system": platform.system(),
        "processor": platform.machine(),
        "python": platform.python_version(),
        "version": __version__,
    }


def joined(results: Sequence[BenchResult]) -> BenchResult:
    """Return one result of several parts of one benchmark, at least one."""
    first = results[0]
    return BenchResult(
        bench=first.bench,
        machine=first.machine,
        rows=[row for result in results for row in result.rows],
        ratios={k: v for result in results for k, v in result.ratios.items()},
    )
