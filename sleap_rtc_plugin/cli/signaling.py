"""`sleap-remote signaling`: run a signaling server until it is interrupted.

The server itself is in `sleap_rtc_signaling` and comes with the extra `signaling`;
it is imported only when the command runs.
"""

import asyncio
import contextlib
import ipaddress
import logging
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sleap_rtc_plugin.cli.options import on_interrupt
from sleap_rtc_plugin.protocol.errors import (
    EXIT_DONE,
    EXIT_JOB_FAILED,
    EXIT_USAGE,
    RtcError,
)

if TYPE_CHECKING:
    from sleap_rtc_signaling.config import SignalingConfig
    from sleap_rtc_signaling.server import SignalingServer

__all__ = ["signaling"]

_NO_PORT = "none"
_MAX_PORT = 65535
_MISSING = (
    "The signaling server is not installed; install it with "
    "`pip install 'sleap-rtc-plugin[signaling]'`."
)


def _port_or_none(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> int | str | None:
    """Read a port number, or `none` for no port."""
    if value is None or value == _NO_PORT:
        return value
    if value.isascii() and value.isdigit() and int(value) <= _MAX_PORT:
        return int(value)
    raise click.BadParameter(f"{value!r} is neither a port nor `none`")


_config_option = click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Settings in TOML; options and SLEAP_SIGNALING_* variables go before them.",
)
_data_option = click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the signing keys and the rooms.",
)


@click.group(invoke_without_command=True)
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option(
    "--port",
    type=click.IntRange(0, _MAX_PORT),
    help="Port of REST and the WebSocket; 0 picks a free one.  [default: 8080]",
)
@click.option(
    "--rest-port",
    callback=_port_or_none,
    metavar="PORT|none",
    help="Port of REST alone; 0 picks a free one, `none` opens none.  [default: 8001]",
)
@_data_option
@click.option(
    "--relay/--no-relay",
    default=None,
    help="Relay between peers that reach each other in no other way.  [default: off]",
)
@click.option(
    "--tls-cert",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Certificate in PEM, with those above it; the server then speaks https.",
)
@click.option(
    "--tls-key",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Its private key in PEM, where the certificate's file does not hold it.",
)
@click.option(
    "--public-url",
    metavar="URL",
    help="Address under which people reach the server, behind a proxy say.",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    help="Lines for a person, or JSON lines for a program.  [default: text]",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    help="From which level on; `info` has a line for each request and peer.  "
    "[default: warning]",
)
@_config_option
@click.pass_context
def signaling(
    context: click.Context,
    host: str | None,
    port: int | None,
    rest_port: int | str | None,
    data: Path | None,
    relay: bool | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    public_url: str | None,
    log_format: str | None,
    log_level: str | None,
    config: Path | None,
) -> None:
    """Run the server at which workers and clients find each other.

    SIGHUP reads keys and certificate again; nobody is disconnected.
    """
    if context.invoked_subcommand is not None:
        return
    given = {
        "host": host,
        "port": port,
        "rest_port": rest_port,
        "data_dir": data,
        "relay": None if relay is None else {"enabled": relay},
        "tls": _given(cert=tls_cert, key=tls_key),
        "public_url": public_url,
        "log": _given(format=log_format, level=log_level),
    }
    with _errors_told():
        from sleap_rtc_signaling import event_log
        from sleap_rtc_signaling.server import SignalingServer

        settings = _load(config, given)
        level = logging.getLevelNamesMapping()[settings.log.level.upper()]
        event_log.set_up(settings.log.format, level)
        asyncio.run(_serve(SignalingServer(settings), settings))


@signaling.command("rotate-keys")
@_data_option
@_config_option
def rotate_keys(data: Path | None, config: Path | None) -> None:
    """Make a new signing key, and remove those that no living token needs.

    Running servers on the folder take it up by themselves; it signs a minute later.
    """
    with _errors_told():
        import time

        from sleap_rtc_signaling.signing_keys import rotate

        settings = _load(config, {"data_dir": data})
        longest_s = max(
            settings.room_token_lifetime_s,
            settings.room_lifetime_s,
            settings.account_token_lifetime_s,
        )
        now = time.time()
        keys = rotate(settings.data_dir, now, longest_token_s=longest_s)
        newest = keys[-1]
        wait_s = max(0.0, newest.signs_from - now)
        click.echo(
            f"The key {newest.key_id} signs in {wait_s:.0f} s; {len(keys) - 1} older "
            f"stay until their last token has ended. Keys are in {settings.data_dir}.",
            err=True,
        )


@signaling.command("check-config")
@_config_option
def check_config(config: Path | None) -> None:
    """Print what the server would run with, as JSON without secrets."""
    with _errors_told():
        import json

        from sleap_rtc_signaling.config import shown

        click.echo(json.dumps(shown(_load(config, {})), indent=2))


@signaling.command("health")
@click.option(
    "--ready", is_flag=True, help="Ask whether it takes connections, too: /ready."
)
@_config_option
def health(ready: bool, config: Path | None) -> None:
    """Ask the server on this machine how it is; end with code 0 if it is well, else 1.

    It is found by the same file and SLEAP_SIGNALING_* variables that it was started
    with.
    """
    with _errors_told():
        from sleap_rtc_signaling.self_probe import probe

        is_well, sentence = probe(_load(config, {}), "/ready" if ready else "/health")
    click.echo(sentence, err=True)
    sys.exit(EXIT_DONE if is_well else EXIT_JOB_FAILED)


def _given(**options: object) -> dict[str, object] | None:
    """Return a table of the options that were given, or None without any."""
    named = {name: value for name, value in options.items() if value is not None}
    return named or None


def _load(path: Path | None, given: Mapping[str, object]) -> "SignalingConfig":
    """Gather the settings; what is None was not given."""
    from sleap_rtc_signaling.config import load

    return load(path, _given(**given))


@contextlib.contextmanager
def _errors_told() -> Iterator[None]:
    """End the command with one sentence where the server cannot run."""
    try:
        from sleap_rtc_signaling.config import ConfigError
    except ImportError as error:
        if (error.name or "").partition(".")[0].startswith("sleap_rtc"):
            raise
        click.echo(_MISSING, err=True)
        sys.exit(EXIT_USAGE)
    try:
        yield
    except (RtcError, ConfigError) as error:
        click.echo(str(error), err=True)
        sys.exit(error.exit_code)


async def _serve(server: "SignalingServer", settings: "SignalingConfig") -> None:
    interrupted = asyncio.Event()
    on_interrupt(interrupted.set)
    async with server:
        _on_hangup(server)
        for line in _announcement(server, settings):
            click.echo(line, err=True)
        await interrupted.wait()
        interrupted.clear()
        if settings.bus.url:
            click.echo("Handing the peers over; again to stop at once.", err=True)
            await _drain(server, interrupted)
        click.echo("Stopping.", err=True)


async def _drain(server: "SignalingServer", interrupted: asyncio.Event) -> None:
    """Hand the peers over to other instances, unless told to stop at once."""
    tasks = [
        asyncio.create_task(server.drain()),
        asyncio.create_task(interrupted.wait()),
    ]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _on_hangup(server: "SignalingServer") -> None:
    """Read keys and certificate again on SIGHUP, where there is such a signal."""
    from sleap_rtc_signaling.config import ConfigError

    def reload() -> None:
        try:
            server.reload()
        except (RtcError, ConfigError) as error:
            click.echo(f"{error} What is in use stays.", err=True)
        else:
            click.echo("Keys and certificate were read again.", err=True)

    with contextlib.suppress(NotImplementedError, AttributeError):
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)


def _announcement(server: "SignalingServer", settings: "SignalingConfig") -> list[str]:
    host = f"[{server.host}]" if ":" in server.host else server.host
    scheme = "http" if settings.tls is None else "https"
    where = f"Signaling server listens on {scheme}://{host}:{server.port}"
    if server.rest_port is not None:
        where += f" (REST alone on port {server.rest_port})"
    lines = [f"{where}; data in {settings.data_dir}."]
    if settings.public_url is not None:
        lines.append(f"People reach it at {settings.public_url}.")
    relay = settings.relay
    if relay.enabled:
        lines.append(
            f"It relays for those who reach each other in no other way: up to "
            f"{relay.max_mbit:g} Mbit/s each, {relay.total_gib_per_day:g} GiB a day."
        )
    if _is_loopback(server.host):
        lines.append(
            "Only this machine can reach it; to let the lab in, "
            "start it with `--host 0.0.0.0`."
        )
    return lines


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
