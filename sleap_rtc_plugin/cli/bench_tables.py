"""Figures of `sleap-remote bench` as tables, or as one JSON line.

Prints results and measures nothing. Used by `cli.bench`.
"""

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from rich.table import Table

    from sleap_rtc_plugin.bench.figures import BenchResult

__all__ = ["print_result"]

# The figures of an engine on a path, under words that leave room for all of them in
# 80 columns. What is not here is for JSON.
_HEADS: Final = {
    "mb_per_s": "MB/s",
    "tcp_mb_per_s": "TCP\nMB/s",
    "share_percent": "share\n%",
    "client_cpu_s_per_gb": "CPU s/GB\nclient",
    "worker_cpu_s_per_gb": "CPU s/GB\nworker",
    "client_peak_above_idle_mib": "MiB\nclient",
    "worker_peak_above_idle_mib": "MiB\nworker",
    "client_cpu_ms_per_s": "CPU ms/s\nclient",
    "worker_cpu_ms_per_s": "CPU ms/s\nworker",
    "control_unloaded_ms": "control\nms",
    "control_p50_ms": "loaded\np50",
    "control_p99_ms": "loaded\np99",
    "control_p99_goal_ms": "p99\ngoal",
    "path_lost_percent": "lost\n%",
    "path_overflowed_percent": "over\n%",
}
_LARGE: Final = 100


def print_result(result: "BenchResult", *, as_json: bool) -> None:
    """Print to stdout."""
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(result).decode())
        return
    from rich.console import Console

    console = Console()
    # Rows of the same figures stand together, and on paths also those of one path.
    for (names, path), group in itertools.groupby(result.rows, key=_kind):
        rows = list(group)
        if path is not None:
            runs = max(row["runs"] for row in rows)
            title = f"{path}, {runs} {'run' if runs == 1 else 'runs'}"
            console.print(title, style="bold", highlight=False)
            console.print(_block(rows), "")
        else:
            figures = [name for name in names if name not in ("case", "engine")]
            console.print(_table(figures, rows))
    for name, ratio in result.ratios.items():
        console.print(f"{name}: {ratio:.4g}", soft_wrap=True)
    console.print(", ".join(f"{k}: {v}" for k, v in result.machine.items()))


def _kind(row: dict[str, Any]) -> tuple[tuple[str, ...], str | None]:
    """Say which rows make one table: those of the same figures, and of one path."""
    return tuple(row), row["case"] if "ran" in row else None


def _cell(value: object) -> str:
    return "-" if value is None else str(value)


def _short(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= _LARGE else f"{value:.3g}"


def _name(row: dict[str, Any]) -> str:
    """Name an engine, and what ran in its place or did not run to the end."""
    fast = {"fast", "fast+rate"}
    expected = "fast" if row["engine"] in fast else row["ran"]
    instead = "" if row["ran"] in (None, expected) else f", {row['ran']} ran"
    failed = f", {row['failed_runs']} failed" if row["failed_runs"] else ""
    return f"{row['engine']}{instead}{failed}"


def _block(rows: Sequence[dict[str, Any]]) -> "Table":
    """Return a table of one path, an engine a line."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, collapse_padding=True)
    # Nothing that was lost, or no path that could lose anything, needs no column.
    names = [
        name for name in _HEADS if name in rows[0] and any(row[name] for row in rows)
    ]
    table.add_column("")
    for name in names:
        table.add_column(_HEADS[name], justify="right", no_wrap=True)
    for row in rows:
        table.add_row(_name(row), *(_short(row[name]) for name in names))
    return table


def _table(figures: Sequence[str], rows: Sequence[dict[str, Any]]) -> "Table":
    """Return a table with the fewer of both, rows or figures, side by side."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    names = [f"{row['case']}, {row['engine']}" for row in rows]
    cells = [[_cell(row[figure]) for figure in figures] for row in rows]
    if len(rows) > len(figures):
        first, columns, lines = "Case", figures, zip(names, cells, strict=True)
    else:
        turned = map(list, zip(*cells, strict=True))
        first, columns, lines = "Figure", names, zip(figures, turned, strict=True)
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")
    for name, values in lines:
        table.add_row(name, *values)
    return table
