"""`sleap-remote pair CODE`: type a worker's code instead of copying its string."""

import click

from sleap_rtc_plugin.cli.options import run_async, set_up_logging, verbose_option
from sleap_rtc_plugin.protocol.session_string import is_signaling_url

__all__ = ["pair"]


def _parse_server(context: click.Context, option: click.Parameter, url: str) -> str:
    if not is_signaling_url(url):
        raise click.BadParameter(f"{url} is not a web address")
    return url.rstrip("/")


@click.command()
@click.argument("code", nargs=-1, required=True)
@click.option(
    "--server",
    envvar="SLEAP_SERVER",
    required=True,
    metavar="URL",
    callback=_parse_server,
    help="The signaling server that the worker uses.  [env: SLEAP_SERVER]",
)
@click.option(
    "--print",
    "prints",
    is_flag=True,
    help="Print the session string; whoever reads it can enter the room.",
)
@verbose_option
def pair(code: tuple[str, ...], server: str, prints: bool, verbose: bool) -> None:
    """Enter a room by the code that `sleap-remote worker --pair` shows.

    CODE is a number and three words, as 7-copper-otter-lagoon. It is good once, for
    five minutes. The session string that it gives is remembered; `sleap-remote label`
    lists the room.
    """
    set_up_logging(verbose)
    run_async(_pair(" ".join(code), server, prints=prints), verbose=verbose)


async def _pair(text: str, server: str, *, prints: bool) -> None:
    import time

    from sleap_rtc_plugin.protocol.pairing_code import PairingCode
    from sleap_rtc_plugin.session.credentials import CredentialStore
    from sleap_rtc_plugin.session.pairing import claim_session
    from sleap_rtc_plugin.session.settings import RememberedRoom

    session = await claim_session(server, PairingCode.parse(text))
    store = CredentialStore()
    room = RememberedRoom(
        room_id=session.room_id, server=session.url, last_used=time.time()
    )
    await store.remember(room, session.encode())
    click.echo(
        f"Paired: the room {session.room_id} at {session.url} is open to you. "
        f"{await store.place()}",
        err=True,
    )
    if prints:
        click.echo(session.encode())
