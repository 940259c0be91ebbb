"""Progress bars on stderr: drawn in a terminal, nothing elsewhere.

The base of what the commands show; each says in words and JSON what it is about.
"""

from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

__all__ = ["MIN_JSON_INTERVAL_S", "MIN_RATE_WINDOW_S", "Bars"]

# A line of JSON says how far something is no more often than this.
MIN_JSON_INTERVAL_S: Final = 0.5
# A rate over less than this would be a guess.
MIN_RATE_WINDOW_S: Final = 0.05


class Bars:
    """Draws bars of which each has a title and a `detail`. Use as a context manager."""

    def __init__(
        self, console: Console, *, is_shown: bool, has_spinner: bool = False
    ) -> None:
        """Prepare; with `is_shown` false nothing is ever drawn."""
        spinner: tuple[ProgressColumn, ...] = (SpinnerColumn(),) if has_spinner else ()
        self._progress = Progress(
            *spinner,
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[detail]}", markup=False),
            TimeElapsedColumn(),
            console=console,
            disable=not is_shown,
        )

    def __enter__(self) -> Self:
        """Begin to draw."""
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the last state on the screen."""
        self._progress.stop()
