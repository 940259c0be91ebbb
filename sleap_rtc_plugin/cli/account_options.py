"""Which signaling server a command about accounts and rooms is meant for.

It is named, or the only one that is signed in to. Used by `cli.login` and `cli.rooms`.
"""

from typing import TYPE_CHECKING

import click

from sleap_rtc_plugin.protocol.session_string import is_signaling_url

if TYPE_CHECKING:
    from sleap_rtc_plugin.session.accounts import SignedInAccounts

__all__ = ["only_server", "parse_server"]


def parse_server(
    context: click.Context, option: click.Parameter, url: str | None
) -> str | None:
    """Read a server's address; a name alone means `https`."""
    if url is None:
        return None
    if "://" not in url:
        url = f"https://{url}"
    if not is_signaling_url(url):
        raise click.BadParameter(f"{url} is not a web address")
    return url.rstrip("/")


async def only_server(given: str | None, accounts: "SignedInAccounts") -> str:
    """Return the server that was named, or the only one that is signed in to.

    Raises:
        click.UsageError: none was named, and there is not exactly one.
    """
    if given is not None:
        return given
    servers = [account.server for account in await accounts.list()]
    if len(servers) == 1:
        return servers[0]
    if servers:
        raise click.UsageError(
            f"It is not said which server is meant; name one of {', '.join(servers)}."
        )
    raise click.UsageError(
        "Nobody is signed in on this computer; sign in with "
        "`sleap-remote login SERVER` first."
    )
