"""`sleap-remote login`, `logout` and `whoami`: be somebody at a signaling server.

No password is typed here: where a server has named accounts, the user enters a code on
the provider's page. What is asked of the user is on stderr; stdout has the result.
"""

import asyncio
import json
import sys
import time
from typing import TYPE_CHECKING

import click

from sleap_rtc_plugin.cli.account_options import only_server, parse_server
from sleap_rtc_plugin.cli.options import run_async, set_up_logging, verbose_option
from sleap_rtc_plugin.protocol.errors import EXIT_CANCELLED, RtcError
from sleap_rtc_plugin.protocol.ids import clean_text

if TYPE_CHECKING:
    from rich.status import Status

    from sleap_rtc_plugin.protocol.account_messages import AccountInfo, DeviceFlow

__all__ = ["login", "logout", "whoami"]

_PROGRESS_S = 1.0


@click.command()
@click.argument(
    "server",
    required=False,
    envvar="SLEAP_SERVER",
    callback=parse_server,
    metavar="[SERVER]",
)
@click.option(
    "--method",
    metavar="NAME",
    help="Which way to sign in, where the server has several.  [default: the one that "
    "it prefers]",
)
@click.option(
    "--browser", is_flag=True, help="Open the page in this computer's web browser."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
@verbose_option
def login(
    server: str | None, method: str | None, browser: bool, as_json: bool, verbose: bool
) -> None:
    """Sign in at a signaling server.

    SERVER is its address; without one, the server that is signed in to already. Where
    accounts have names, a code is shown, which you enter on the page beside it, on any
    computer or telephone.
    """
    set_up_logging(verbose)
    try:
        run_async(_login(server, method, browser, as_json), verbose=verbose)
    except KeyboardInterrupt:
        click.echo("Interrupted; nobody was signed in.", err=True)
        sys.exit(EXIT_CANCELLED)


async def _login(
    given: str | None, wanted: str | None, opens_browser: bool, as_json: bool
) -> None:
    from sleap_rtc_plugin.session.accounts import SignedInAccounts
    from sleap_rtc_plugin.session.sign_in import choose_method, sign_in
    from sleap_rtc_plugin.transport.account import AccountClient

    accounts = SignedInAccounts()
    server = await only_server(given, accounts)
    async with AccountClient(server) as client:
        methods = await client.sign_in_methods()
    method = choose_method(methods, wanted, server)
    with _Waiting(as_json=as_json, opens_browser=opens_browser) as waiting:
        account = await sign_in(server, method, accounts, waiting.show)
    if as_json:
        line = {
            "state": "signed-in",
            "server": server,
            "account_id": account.account_id,
            "name": account.name,
            "method": account.method,
        }
        click.echo(json.dumps(line))
        return
    who = clean_text(account.name) or "without a name"
    click.echo(f"Signed in at {server}: {who}.", err=True)


class _Waiting:
    """Shows a code, and how long it is still good."""

    def __init__(self, *, as_json: bool, opens_browser: bool) -> None:
        self._as_json = as_json
        self._opens_browser = opens_browser
        self._status: Status | None = None
        self._ticking: asyncio.Task[None] | None = None

    def __enter__(self) -> "_Waiting":
        return self

    def __exit__(self, *_: object) -> None:
        if self._ticking is not None:
            self._ticking.cancel()
        if self._status is not None:
            self._status.stop()

    def show(self, flow: "DeviceFlow") -> None:
        code = clean_text(flow.user_code)
        page = flow.verification_uri
        if self._as_json:
            line = {
                "state": "waiting",
                "verification_uri": page,
                "verification_uri_complete": flow.verification_uri_complete,
                "user_code": code,
                "expires_at": flow.expires_at,
            }
            click.echo(json.dumps(line))
        until = time.strftime("%H:%M", time.localtime(flow.expires_at))
        click.echo(
            f"Open this page in a web browser, and enter the code, until {until}:\n\n"
            f"    {page}\n\n    {code}\n",
            err=True,
        )
        if self._opens_browser:
            click.launch(flow.verification_uri_complete or page)
        if not self._as_json:
            self._begin(flow.expires_at)

    def _begin(self, expires_at: float) -> None:
        from rich.console import Console

        console = Console(stderr=True)
        if console.is_terminal:
            self._status = console.status("")
            self._status.start()
            self._ticking = asyncio.ensure_future(self._tick(expires_at))

    async def _tick(self, expires_at: float) -> None:
        while self._status is not None:
            left_s = max(0, round(expires_at - time.time()))
            minutes, seconds = divmod(left_s, 60)
            self._status.update(
                f"Waiting for you to enter the code ({minutes}:{seconds:02} left; "
                "Ctrl-C gives up)"
            )
            await asyncio.sleep(_PROGRESS_S)


@click.command()
@click.argument("server", required=False, callback=parse_server, metavar="[SERVER]")
@verbose_option
def logout(server: str | None, verbose: bool) -> None:
    """Sign out, here and at the server.

    SERVER may be left out where only one is signed in to. Session strings that are
    remembered stay.
    """
    set_up_logging(verbose)
    run_async(_logout(server), verbose=verbose)


async def _logout(given: str | None) -> None:
    from sleap_rtc_plugin.session.accounts import SignedInAccounts

    accounts = SignedInAccounts()
    server = await only_server(given, accounts)
    was_known = await accounts.find(server) is not None
    if was_known:
        await accounts.sign_out(server)
    said = "Signed out" if was_known else "Nobody was signed in"
    click.echo(f"{said} at {server}.", err=True)


@click.command()
@click.argument("server", required=False, callback=parse_server, metavar="[SERVER]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
@verbose_option
def whoami(server: str | None, as_json: bool, verbose: bool) -> None:
    """Ask the servers who is signed in from this computer."""
    set_up_logging(verbose)
    run_async(_whoami(server, as_json), verbose=verbose)


async def _whoami(given: str | None, as_json: bool) -> None:
    from sleap_rtc_plugin.session.accounts import SignedInAccounts

    accounts = SignedInAccounts()
    if given is None:
        servers = [account.server for account in await accounts.list()]
    else:
        servers = [given]
    servers = servers or [await only_server(None, accounts)]
    faults: list[RtcError] = []
    for server in servers:
        try:
            info = await accounts.call(
                server, lambda client, token: client.account(token)
            )
        except RtcError as error:
            faults.append(error)
            continue
        _tell(server, info, as_json)
    for fault in faults[1:]:
        click.echo(str(fault), err=True)
    if faults:
        raise faults[0]


def _tell(server: str, info: "AccountInfo", as_json: bool) -> None:
    name = clean_text(info.name)
    if as_json:
        line = {
            "server": server,
            "account_id": info.account_id,
            "name": name,
            "method": info.method,
        }
        click.echo(json.dumps(line))
        return
    account_id, method = clean_text(info.account_id), clean_text(info.method)
    who = f"{name}, {account_id}" if name else account_id
    click.echo(f"{server}: {who} (signed in by {method})")
