"""Options and habits that the commands share.

How an error ends a command, how asyncio is started; which session is meant is in
`session_choice`. Imports nothing heavy.
"""

import asyncio
import functools
import logging
import signal
import sys
import traceback
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn, TypeVar, cast, get_args

import click

from sleap_rtc_plugin.cli.durations import parse_duration
from sleap_rtc_plugin.protocol.errors import RtcError
from sleap_rtc_plugin.protocol.limits import RECONNECT_BUDGET_S
from sleap_rtc_plugin.transport.sctp.congestion import CongestionName
from sleap_rtc_plugin.transport.transport_options import (
    CONGESTION_VARIABLE,
    ENGINE_VARIABLE,
    MAX_MBIT,
    MIN_MBIT,
    RATE_VARIABLE,
    RELAY_ONLY_VARIABLE,
    DataChannelEngine,
    TransportOptions,
    bytes_per_s,
)

__all__ = [
    "fail",
    "on_interrupt",
    "reconnect_option",
    "run_async",
    "set_up_logging",
    "transport_options",
    "verbose_option",
]

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def verbose_option(function: F) -> F:
    """Add `--verbose`."""
    return click.option(
        "--verbose", "-v", is_flag=True, help="Log more, and show tracebacks."
    )(function)


def reconnect_option(function: F) -> F:
    """Add `--reconnect-for`; the command is given it as `reconnect_for_s`."""
    return click.option(
        "--reconnect-for",
        "reconnect_for_s",
        metavar="TIME",
        default=f"{RECONNECT_BUDGET_S:.0f}s",
        show_default=True,
        callback=lambda context, option, text: parse_duration(text),
        help="How long to go on trying when the worker cannot be reached, as in 90s, "
        "30m or 12h. The job goes on there either way.",
    )(function)


def _read_rate(
    context: click.Context, parameter: click.Parameter, mbit: float | None
) -> int | None:
    """Return bytes per second."""
    rate = None if mbit is None else bytes_per_s(mbit)
    if mbit is not None and rate is None:
        raise click.BadParameter(f"{mbit} is no number of Mbit/s.")
    return rate


def transport_options(function: F) -> F:
    """Add what says how data channels go; the command is given it as `transport`."""

    @click.option(
        "--data-channels",
        type=click.Choice(get_args(DataChannelEngine)),
        envvar=ENGINE_VARIABLE,
        default="fast",
        help="Which way data goes: `fast` where that is possible, or `stock`, that of "
        f"aiortc alone.  [default: fast; env: {ENGINE_VARIABLE}]",
    )
    @click.option(
        "--congestion",
        type=click.Choice(get_args(CongestionName)),
        envvar=CONGESTION_VARIABLE,
        default="loss",
        help="What sets the pace of sending: `loss` shares the path with others as TCP "
        "does, `rate` keeps its pace where packets are lost at random.  [default: "
        f"loss; env: {CONGESTION_VARIABLE}]",
    )
    @click.option(
        "--max-mbit",
        type=click.FloatRange(MIN_MBIT, MAX_MBIT),
        callback=_read_rate,
        envvar=RATE_VARIABLE,
        help=f"Send at most that many Mbit/s.  [env: {RATE_VARIABLE}]",
    )
    @click.option(
        "--relay-only",
        is_flag=True,
        envvar=RELAY_ONLY_VARIABLE,
        help="Tell the other side no address of this machine: go over a TURN server or "
        "the signaling server's relay, or not at all.  [env: "
        f"{RELAY_ONLY_VARIABLE}]",
    )
    @functools.wraps(function)
    def command(
        *args: Any,
        data_channels: DataChannelEngine,
        congestion: CongestionName,
        max_mbit: int | None,
        relay_only: bool,
        **others: Any,
    ) -> Any:
        transport = TransportOptions(
            data_channels, congestion, max_mbit, relay_only=relay_only
        )
        return function(*args, transport=transport, **others)

    return cast(F, command)


def set_up_logging(verbose: bool) -> None:
    """Log to stderr: warnings, or everything of ours."""
    logging.basicConfig(
        level=logging.WARNING,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    level = logging.DEBUG if verbose else logging.WARNING
    for name in ("sleap_rtc_plugin", "sleap_rtc_worker", "sleap_rtc_signaling"):
        logging.getLogger(name).setLevel(level)


def run_async(main: Coroutine[Any, Any, T], *, verbose: bool = False) -> T:
    """Run a coroutine; an expected error ends the command with its exit code."""
    try:
        return asyncio.run(main)
    except RtcError as error:
        fail(error, verbose=verbose)


def fail(error: RtcError, *, verbose: bool = False) -> NoReturn:
    """End the command: one sentence on stderr, the error's exit code."""
    if verbose:
        traceback.print_exception(error)
    click.echo(str(error), err=True)
    sys.exit(error.exit_code)


def on_interrupt(stop: Callable[[], None]) -> None:
    """Call `stop` on the event loop when the program is interrupted or terminated."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, stop)
        except NotImplementedError:  # on Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop))
