"""A model on its way, in a terminal: a bar, or JSON lines.

Draws on stderr with rich, and nothing where that is no terminal. Told by
`session.room_models` how many bytes of how many are done.
"""

import json
import time
from collections.abc import Callable

import click
from rich.console import Console
from rich.filesize import decimal

from sleap_rtc_plugin.cli.bars import MIN_JSON_INTERVAL_S, MIN_RATE_WINDOW_S, Bars

__all__ = ["BytesBar"]


class BytesBar(Bars):
    """Shows how many bytes are done. Use as a context manager."""

    def __init__(
        self,
        title: str,
        *,
        as_json: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Show progress under `title`; `as_json` prints lines on stdout instead."""
        self._as_json = as_json
        self._clock = clock
        self._began = clock()
        self._said_at: float | None = None
        self._said: tuple[int, int] | None = None
        console = Console(stderr=True, highlight=False)
        super().__init__(console, is_shown=console.is_terminal and not as_json)
        self._task = self._progress.add_task(title, total=None, detail="")

    def update(self, done: int, total: int) -> None:
        """Show that so many bytes of so many are done."""
        now = self._clock()
        elapsed = now - self._began
        rate = done / elapsed if elapsed > MIN_RATE_WINDOW_S else 0.0
        detail = f"{decimal(done)} of {decimal(total)}"
        if rate:
            detail += f", {decimal(int(rate))}/s"
        self._progress.update(self._task, completed=done, total=total, detail=detail)
        if not self._as_json or (done, total) == self._said:
            return
        if (
            done < total
            and self._said_at is not None
            and now - self._said_at < MIN_JSON_INTERVAL_S
        ):
            return
        self._said_at, self._said = now, (done, total)
        line = {
            "event": "transfer",
            "purpose": "model",
            "bytes_done": done,
            "bytes_total": total,
        }
        click.echo(json.dumps(line))
