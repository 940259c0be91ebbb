"""Signed-in accounts: kept, refreshed in time and once, and forgotten."""

import asyncio
import logging
import os
import stat
from pathlib import Path

import pytest
from support.account_server import TOKEN_LIFETIME_S, AccountServer, Clock

from sleap_rtc_plugin.protocol.errors import (
    AccountsUnavailable,
    NotSignedIn,
    SignalingUnreachable,
    TokenRefused,
)
from sleap_rtc_plugin.session import accounts as module
from sleap_rtc_plugin.session.accounts import REFRESH_AHEAD_S, SignedInAccounts
from sleap_rtc_plugin.session.settings import MAX_ACCOUNTS, Settings

SERVER = "https://lab.example:8080"
AWAY = SignalingUnreachable(server=SERVER, reason="connection refused")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> AccountServer:
    made = AccountServer(clock)
    monkeypatch.setattr(module, "AccountClient", made.client)
    return made


@pytest.fixture
def accounts(server: AccountServer, tmp_path: Path) -> SignedInAccounts:
    return another_program(server, tmp_path)


def another_program(server: AccountServer, folder: Path) -> SignedInAccounts:
    return SignedInAccounts(folder, clock=server.clock)


def secret_files(folder: Path) -> list[Path]:
    return list((folder / "accounts").glob("*.txt"))


async def test_nobody_is_signed_in(accounts: SignedInAccounts, tmp_path: Path) -> None:
    assert await accounts.list() == []
    assert await accounts.token(SERVER) == ""
    with pytest.raises(NotSignedIn):
        await accounts.account(SERVER)
    # Nothing is asked and nothing is written for those who never sign in.
    assert list(tmp_path.iterdir()) == []


async def test_an_account_is_kept(
    accounts: SignedInAccounts, server: AccountServer, tmp_path: Path
) -> None:
    await accounts.keep(SERVER + "/", server.account())
    [known] = await another_program(server, tmp_path).list()
    assert (known.server, known.account_id) == (SERVER, "github-ada")
    assert (known.name, known.method) == ("Ada Łovelace", "github")
    assert await another_program(server, tmp_path).token(SERVER) == "token-0"
    found = await another_program(server, tmp_path).account(SERVER)
    assert found == server.account()
    assert server.refreshes == 0


async def test_tokens_are_in_private_files_alone(
    accounts: SignedInAccounts, server: AccountServer, tmp_path: Path
) -> None:
    await accounts.keep(SERVER, server.account())
    [path] = secret_files(tmp_path)
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert "token" not in (tmp_path / "settings.json").read_text()


async def test_the_next_token_is_fetched_before_the_last_one_ends(
    accounts: SignedInAccounts, server: AccountServer, tmp_path: Path
) -> None:
    await accounts.keep(SERVER, server.account())
    server.clock.now += TOKEN_LIFETIME_S - REFRESH_AHEAD_S - 1
    assert await accounts.token(SERVER) == "token-0"
    server.clock.now += 1
    assert await accounts.token(SERVER) == "token-1"
    assert await accounts.token(SERVER) == "token-1"
    assert await another_program(server, tmp_path).token(SERVER) == "token-1"
    assert server.refreshes == 1


async def test_two_programs_do_not_spend_one_refresh_token_twice(
    accounts: SignedInAccounts, server: AccountServer, tmp_path: Path
) -> None:
    await accounts.keep(SERVER, server.account())
    server.clock.now += TOKEN_LIFETIME_S
    programs = [another_program(server, tmp_path) for _ in range(5)]
    tokens = await asyncio.gather(
        *(program.token(SERVER) for program in programs for _ in range(3))
    )
    assert set(tokens) == {"token-1"}
    assert server.refreshes == 1
    assert not server.has_ended


async def test_an_interrupt_does_not_lose_the_next_refresh_token(
    accounts: SignedInAccounts, server: AccountServer, tmp_path: Path
) -> None:
    await accounts.keep(SERVER, server.account())
    server.clock.now += TOKEN_LIFETIME_S
    server.gate = asyncio.Event()
    asking = asyncio.create_task(accounts.token(SERVER))
    for _ in range(3):
        await asyncio.sleep(0)
    asking.cancel()
    server.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await asking
    if server.refreshes:
        assert await another_program(server, tmp_path).token(SERVER) == "token-1"
    assert not server.has_ended


async def test_a_refused_token_is_exchanged_once(
    accounts: SignedInAccounts, server: AccountServer
) -> None:
    await accounts.keep(SERVER, server.account())
    server.refused.add("token-0")
    info = await accounts.call(SERVER, lambda client, token: client.account(token))
    assert info.name == "token-1"
    server.refused.add("token-1")
    server.refused.add("token-2")
    with pytest.raises(TokenRefused):
        await accounts.call(SERVER, lambda client, token: client.account(token))
    assert server.refreshes == 2


async def test_a_sign_in_that_has_ended_is_forgotten(
    accounts: SignedInAccounts, server: AccountServer, tmp_path: Path
) -> None:
    await accounts.keep(SERVER, server.account())
    server.clock.now += TOKEN_LIFETIME_S
    server.has_ended = True
    with pytest.raises(NotSignedIn):
        await accounts.account(SERVER)
    assert await accounts.list() == []
    assert secret_files(tmp_path) == []
    assert await accounts.token(SERVER) == ""


async def test_an_account_without_a_refresh_token_ends_with_its_token(
    accounts: SignedInAccounts, server: AccountServer
) -> None:
    await accounts.keep(SERVER, server.account(refresh_token=""))
    server.clock.now += TOKEN_LIFETIME_S - 1
    assert await accounts.token(SERVER) == "token-0"
    server.clock.now += 1
    assert await accounts.token(SERVER) == ""
    assert server.refreshes == 0


async def test_while_the_server_is_away_the_last_token_serves(
    accounts: SignedInAccounts, server: AccountServer
) -> None:
    await accounts.keep(SERVER, server.account())
    server.fault = AWAY
    server.clock.now += TOKEN_LIFETIME_S - 1
    assert await accounts.token(SERVER) == "token-0"
    server.clock.now += 1
    with pytest.raises(SignalingUnreachable):
        await accounts.token(SERVER)
    server.fault = None
    assert await accounts.token(SERVER) == "token-1"


async def test_a_refresh_token_that_stays_good_is_kept(
    accounts: SignedInAccounts,
    server: AccountServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await accounts.keep(SERVER, server.account())
    monkeypatch.setattr(
        server,
        "account",
        lambda number=0: AccountServer(server.clock).account(number, refresh_token=""),
    )
    server.clock.now += TOKEN_LIFETIME_S
    assert (await accounts.account(SERVER)).refresh_token == "refresh-0"


async def test_a_program_that_holds_the_lock_is_not_waited_for_for_ever(
    accounts: SignedInAccounts,
    server: AccountServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await accounts.keep(SERVER, server.account())
    server.clock.now += TOKEN_LIFETIME_S
    monkeypatch.setattr(module, "_LOCK_TIMEOUT_S", 0.0)
    other = another_program(server, tmp_path)
    async with other._exclusive(SERVER):
        with pytest.raises(AccountsUnavailable):
            await accounts.token(SERVER)
    assert await accounts.token(SERVER) == "token-1"


async def test_signing_out(
    accounts: SignedInAccounts, server: AccountServer, tmp_path: Path
) -> None:
    await accounts.keep(SERVER, server.account())
    await accounts.sign_out(SERVER)
    assert server.signed_out == ["token-0"]
    assert await accounts.list() == []
    assert secret_files(tmp_path) == []
    await accounts.keep(SERVER, server.account())
    server.fault = AWAY
    await accounts.sign_out(SERVER)  # here, even if the server does not hear of it
    assert secret_files(tmp_path) == []


async def test_there_are_not_more_accounts_than_there_may_be(
    accounts: SignedInAccounts, server: AccountServer, tmp_path: Path
) -> None:
    for number in range(MAX_ACCOUNTS + 3):
        await accounts.keep(f"https://lab-{number}.example", server.account())
    known = await accounts.list()
    assert len(known) == len(secret_files(tmp_path)) == MAX_ACCOUNTS
    assert known[0].server == f"https://lab-{MAX_ACCOUNTS + 2}.example"


@pytest.mark.parametrize("rubbish", ["", "{}", '{"server":"https://evil.example"}'])
async def test_a_broken_file_is_put_aside(
    accounts: SignedInAccounts, server: AccountServer, tmp_path: Path, rubbish: str
) -> None:
    await accounts.keep(SERVER, server.account())
    [path] = secret_files(tmp_path)
    path.write_text(rubbish)
    assert await another_program(server, tmp_path).token(SERVER) == ""
    assert [one.name for one in path.parent.glob("*.broken")]


async def test_other_settings_survive(
    accounts: SignedInAccounts, server: AccountServer, tmp_path: Path
) -> None:
    settings = Settings.load(tmp_path)
    await accounts.keep(SERVER, server.account())
    settings.last_server = SERVER
    settings.save()
    again = Settings.load(tmp_path)
    assert again.last_server == SERVER
    assert [one.server for one in again.accounts] == [SERVER]


async def test_no_token_is_logged(
    accounts: SignedInAccounts,
    server: AccountServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    await accounts.keep(SERVER, server.account())
    server.clock.now += TOKEN_LIFETIME_S
    await accounts.token(SERVER)
    server.clock.now += TOKEN_LIFETIME_S
    server.has_ended = True
    await accounts.token(SERVER)
    assert "has ended" in caplog.text
    assert "token-" not in caplog.text
    assert "refresh-" not in caplog.text
