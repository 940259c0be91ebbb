"""A job's log on stdout, and an observer that shows nothing. Used by `cli.jobs`."""

import json
from typing import Final

import click

from sleap_rtc_plugin.protocol.errors import RtcError
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.job_mirror import JobMirror, JobNews
from sleap_rtc_plugin.protocol.limits import MAX_LOG_LINE_CHARS
from sleap_rtc_plugin.protocol.messages import TrainLog

__all__ = ["LogPrinter", "SilentObserver", "shown_line"]

_MAX_INDENT: Final = 40


def shown_line(line: str) -> str:
    """Make a line of a worker's log fit to show; its indentation is kept."""
    indent = min(len(line) - len(line.lstrip(" ")), _MAX_INDENT)
    text = clean_text(line, MAX_LOG_LINE_CHARS)
    return " " * indent + text if text else ""


class SilentObserver:
    """An observer of a job that shows nothing."""

    def event(self, event: JobNews, mirror: JobMirror) -> None:
        """Ignore."""

    def link_lost(self, error: RtcError) -> None:
        """Say so: what is waited for is of interest even to the silent."""
        click.echo("The connection to the worker is lost; connecting again.", err=True)

    def link_back(self) -> None:
        """Ignore."""


class LogPrinter(SilentObserver):
    """Prints lines of a log as they come."""

    def __init__(self, *, as_json: bool) -> None:
        """Print plain lines, or a JSON object per event."""
        self._as_json = as_json
        self._step: int | None = None

    def event(self, event: JobNews, mirror: JobMirror) -> None:
        """Print it if it is of the log."""
        if not isinstance(event, TrainLog):
            return
        lines = [shown_line(line) for line in event.lines]
        if self._as_json:
            click.echo(
                json.dumps(
                    {
                        "seq": event.seq,
                        "at": event.at,
                        "step": event.step,
                        "lines": lines,
                        "dropped": event.dropped,
                    }
                )
            )
            return
        if self._step not in (None, event.step):
            click.echo(
                f"-- step {event.step + 1} of {len(mirror.spec.steps)}", err=True
            )
        self._step = event.step
        for line in lines:
            click.echo(line)
        if event.dropped:
            click.echo(f"-- {event.dropped} lines were left out", err=True)
