"""`sleap-remote doctor`: what is wrong, and what to do about it.

Prints a table, or JSON lines with `--json`; progress goes to stderr. What it prints
holds no secret and no address of the user's, so that it can be pasted into an issue.
"""

import json
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import click

from sleap_rtc_plugin.cli.options import (
    run_async,
    set_up_logging,
    verbose_option,
)
from sleap_rtc_plugin.cli.session_choice import SessionChoice, session_option
from sleap_rtc_plugin.session.doctor.finding import (
    AREAS,
    CHECKS,
    NOTHING_TO_DO,
    Finding,
    Status,
)

if TYPE_CHECKING:
    from rich.table import Table

    from sleap_rtc_plugin.session.doctor.checkup import Plan

__all__ = ["doctor", "table_of"]

_SYMBOLS: Final = {
    Status.OK: ("✓", "ok", "green"),
    Status.NOTE: ("·", "--", "dim"),
    Status.SKIPPED: ("-", "--", "dim"),
    Status.WARNING: ("!", "!!", "yellow"),
    Status.FAILED: ("✗", "XX", "red"),
}


@click.command()
@session_option
@click.option("--worker", metavar="NAME", help="The worker to look at.")
@click.option(
    "--only",
    multiple=True,
    type=click.Choice([*AREAS, *CHECKS]),
    metavar="CHECK",
    help="Make this check alone; may be given several times. One of "
    f"{', '.join(AREAS)} (all that belongs to it), or {', '.join(CHECKS)}.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
@verbose_option
def doctor(
    session: SessionChoice,
    worker: str | None,
    only: tuple[str, ...],
    as_json: bool,
    verbose: bool,
) -> None:
    """Find out what keeps remote training from working.

    Looks at this computer, and with a session at its server, at the ways through
    networks and at a worker; connects to it and measures for 5 seconds how fast files
    would go. Asks nobody whom the session does not name. Takes up to 30 seconds; ends
    with 1 where something failed, else with 0.
    """
    from sleap_rtc_plugin.session.doctor.checkup import exit_status

    set_up_logging(verbose)
    begun_at = time.monotonic()
    findings = run_async(_look(session, worker, only, as_json=as_json), verbose=verbose)
    seconds = time.monotonic() - begun_at
    counts = {
        status: sum(finding.status is status for finding in findings)
        for status in (Status.FAILED, Status.WARNING)
    }
    failures, warnings = counts[Status.FAILED], counts[Status.WARNING]
    if as_json:
        summary = {
            "state": "failed" if failures else "ok",
            "failed": failures,
            "warnings": warnings,
            "seconds": round(seconds, 1),
        }
        click.echo(json.dumps(summary))
    else:
        _print_table(findings)
        click.echo(summary_of(failures, warnings, seconds))
    sys.exit(exit_status(findings))


async def _look(
    session: SessionChoice, worker: str | None, only: Sequence[str], *, as_json: bool
) -> list[Finding]:
    # A string that was given is looked at as it is, since it may be what is wrong.
    text = session.text
    if session.room is not None:
        text = (await session.find()).encode()
    return await _check(_plan(text, worker, only), as_json=as_json)


def _plan(session: str | None, worker: str | None, only: Sequence[str]) -> "Plan":
    from sleap_rtc_plugin.cli.label import pth_path
    from sleap_rtc_plugin.gui.autoload import PTH_LINE
    from sleap_rtc_plugin.session.doctor.checkup import Plan
    from sleap_rtc_plugin.transport.transport_options import TransportOptions

    areas = {check for check, (area, _) in CHECKS.items() if area in only}
    return Plan(
        session=session,
        worker=worker,
        only=areas | {check for check in only if check in CHECKS},
        autoload=(pth_path(), PTH_LINE),
        transport=TransportOptions.from_environment(),
    )


async def _check(plan: "Plan", *, as_json: bool) -> list[Finding]:
    from rich.console import Console

    from sleap_rtc_plugin.session.doctor.checkup import Checkup

    console = Console(stderr=True)
    with console.status("Looking at this computer") as status:

        def show(finding: Finding) -> None:
            if as_json:
                click.echo(json.dumps(_as_json(finding)))
            under_way = checkup.under_way
            if under_way:
                status.update(f"Looking at: {', '.join(under_way[:4])}")

        checkup = Checkup(plan, show)
        return await checkup.run()


def _as_json(finding: Finding) -> dict[str, str]:
    return {
        "check": finding.check,
        "area": finding.area,
        "what": finding.title,
        "status": finding.status.value,
        "found": finding.found,
        "remedy": finding.remedy,
    }


def summary_of(failures: int, warnings: int, seconds: float) -> str:
    """Say in a line how it went."""
    took = f"(looked for {seconds:.0f} s)"
    if not failures and not warnings:
        return f"All is well {took}."
    parts = [
        f"{count} {word}{'' if count == 1 else 's'}"
        for count, word in ((failures, "fault"), (warnings, "warning"))
        if count
    ]
    return f"{' and '.join(parts)} {took}. What to do stands behind each arrow."


def _print_table(findings: Sequence[Finding]) -> None:
    from rich.console import Console

    console = Console()
    is_unicode = "utf" in (console.encoding or "").lower()
    for area, heading in AREAS.items():
        of_area = [finding for finding in findings if finding.area == area]
        if of_area:
            console.print(heading, style="bold")
            console.print(table_of(of_area, is_unicode=is_unicode))
            console.print()


def table_of(findings: Sequence[Finding], *, is_unicode: bool = True) -> "Table":
    """Return the findings of one area as a table.

    Args:
        findings: in their order.
        is_unicode: whether the terminal can show more than ASCII.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    # The areas' tables stand below each other.
    width = max(len(title) for _, title in CHECKS.values())
    table.add_column(no_wrap=True, min_width=width)
    table.add_column(overflow="fold")
    arrow = "→" if is_unicode else "->"
    skips = [finding for finding in findings if finding.status is Status.SKIPPED]
    for finding in findings:
        if finding in skips[1:]:
            # The first says that nothing after it was looked at.
            continue
        symbol, word, style = _SYMBOLS[finding.status]
        # A Text is never read as markup, whatever a peer called itself.
        said = Text(finding.found)
        if finding.remedy != NOTHING_TO_DO:
            said.append(f"\n{arrow} {finding.remedy}", style="bold")
        mark = Text(symbol if is_unicode else word, style=style)
        table.add_row(mark, Text(finding.title), said)
    return table
