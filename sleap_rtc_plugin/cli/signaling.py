"""`sleap-remote signaling`: run a signaling server until it is interrupted.

The server itself is in `sleap_rtc_signaling` and comes with the extra `signaling`;
it is imported only when the command runs.
"""

import asyncio
import ipaddress
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sleap_rtc_plugin.cli.options import on_interrupt
from sleap_rtc_plugin.protocol.errors import EXIT_USAGE, RtcError

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


@click.command()
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="Port of REST and the WebSocket; 0 picks a free one.  [default: 8080]",
)
@click.option(
    "--rest-port",
    callback=_port_or_none,
    metavar="PORT|none",
    help="Port of REST alone; 0 picks a free one, `none` opens none.  [default: 8001]",
)
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the signing key and the rooms.",
)
@click.option(
    "--relay/--no-relay",
    default=None,
    help="Relay between peers that reach each other in no other way.  [default: off]",
)
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Settings in TOML; the options here go before them.",
)
def signaling(
    host: str | None,
    port: int | None,
    rest_port: int | str | None,
    data: Path | None,
    relay: bool | None,
    config: Path | None,
) -> None:
    """Run the server at which workers and clients find each other."""
    try:
        from sleap_rtc_signaling.config import ConfigError, load
        from sleap_rtc_signaling.server import SignalingServer
    except ImportError as error:
        if (error.name or "").partition(".")[0].startswith("sleap_rtc"):
            raise
        click.echo(_MISSING, err=True)
        sys.exit(EXIT_USAGE)

    given = {"host": host, "port": port, "data_dir": data}
    changes: dict[str, object] = {
        name: value for name, value in given.items() if value is not None
    }
    if rest_port is not None:
        changes["rest_port"] = rest_port
    if relay is not None:
        changes["relay"] = {"enabled": relay}
    try:
        settings = load(config, changes)
        asyncio.run(_serve(SignalingServer(settings), settings))
    except (RtcError, ConfigError) as error:
        click.echo(str(error), err=True)
        sys.exit(error.exit_code)


async def _serve(server: "SignalingServer", settings: "SignalingConfig") -> None:
    interrupted = asyncio.Event()
    on_interrupt(interrupted.set)
    async with server:
        for line in _announcement(server, settings):
            click.echo(line, err=True)
        await interrupted.wait()
        click.echo("Stopping.", err=True)


def _announcement(server: "SignalingServer", settings: "SignalingConfig") -> list[str]:
    host = f"[{server.host}]" if ":" in server.host else server.host
    where = f"Signaling server listens on http://{host}:{server.port}"
    if server.rest_port is not None:
        where += f" (REST alone on port {server.rest_port})"
    lines = [f"{where}; data in {settings.data_dir}."]
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
