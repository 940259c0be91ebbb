"""Signing in: at once, or by a code that the user enters elsewhere."""

import asyncio
from pathlib import Path

import pytest
from support.account_server import AccountServer, Clock

from sleap_rtc_plugin.protocol.account_messages import (
    DeviceFlow,
    DevicePending,
    SignInMethod,
)
from sleap_rtc_plugin.protocol.errors import (
    AccountsUnavailable,
    SignalingUnreachable,
    SignInRefused,
)
from sleap_rtc_plugin.session import accounts as accounts_module
from sleap_rtc_plugin.session import sign_in as module
from sleap_rtc_plugin.session.accounts import SignedInAccounts
from sleap_rtc_plugin.session.sign_in import MAX_POLL_S, choose_method, sign_in

SERVER = "https://lab.example:8080"
ANONYMOUS = SignInMethod(name="anonymous", kind="direct", label="Without a name")
GITHUB = SignInMethod(name="github", kind="device", label="GitHub", is_named=True)


class Turns:
    """Sleeping that takes no time, and moves the clock."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.clock.now += seconds


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> AccountServer:
    made = AccountServer(Clock())
    made.methods = [GITHUB, ANONYMOUS]
    made.flow = DeviceFlow(
        flow_id="flow",
        user_code="ABCD-EFGH",
        verification_uri="https://provider.example/device",
        expires_at=made.clock.now + 900.0,
        interval_s=5.0,
    )
    monkeypatch.setattr(accounts_module, "AccountClient", made.client)
    monkeypatch.setattr(module, "AccountClient", made.client)
    return made


@pytest.fixture
def turns(server: AccountServer, monkeypatch: pytest.MonkeyPatch) -> Turns:
    made = Turns(server.clock)
    monkeypatch.setattr(module.asyncio, "sleep", made.sleep)
    return made


@pytest.fixture
def accounts(server: AccountServer, tmp_path: Path) -> SignedInAccounts:
    return SignedInAccounts(tmp_path, clock=server.clock)


def test_which_way() -> None:
    assert choose_method([GITHUB, ANONYMOUS], None, SERVER) is GITHUB
    assert choose_method([GITHUB, ANONYMOUS], "anonymous", SERVER) is ANONYMOUS
    with pytest.raises(SignInRefused, match="github, anonymous"):
        choose_method([GITHUB, ANONYMOUS], "gitlab", SERVER)
    with pytest.raises(SignInRefused):
        choose_method([], None, SERVER)


async def test_at_once(accounts: SignedInAccounts, server: AccountServer) -> None:
    shown: list[DeviceFlow] = []
    await sign_in(SERVER, ANONYMOUS, accounts, shown.append, clock=server.clock)
    assert shown == []
    assert await accounts.token(SERVER) == "token-0"


async def test_by_a_code(
    accounts: SignedInAccounts, server: AccountServer, turns: Turns
) -> None:
    away = SignalingUnreachable(server=SERVER, reason="refused")
    server.polls = [
        DevicePending(interval_s=5.0),
        away,
        AccountsUnavailable(server=SERVER, reason="no answer"),
        DevicePending(interval_s=10.0),  # slow_down
        DevicePending(interval_s=5.0),
        server.account(3),
    ]
    shown: list[DeviceFlow] = []
    account = await sign_in(SERVER, GITHUB, accounts, shown.append, clock=server.clock)
    assert [flow.user_code for flow in shown] == ["ABCD-EFGH"]
    assert turns.slept == [5.0, 5.0, 5.0, 5.0, 10.0, 10.0]
    assert account.token == await accounts.token(SERVER) == "token-3"


async def test_the_user_says_no(
    accounts: SignedInAccounts, server: AccountServer, turns: Turns
) -> None:
    server.polls = [SignInRefused(server=SERVER, reason="it was refused")]
    with pytest.raises(SignInRefused):
        await sign_in(SERVER, GITHUB, accounts, lambda _: None, clock=server.clock)
    assert await accounts.list() == []


async def test_nobody_enters_the_code(
    accounts: SignedInAccounts, server: AccountServer, turns: Turns
) -> None:
    server.polls = [DevicePending(interval_s=1e9)] * 1000
    with pytest.raises(SignInRefused, match="in time"):
        await sign_in(SERVER, GITHUB, accounts, lambda _: None, clock=server.clock)
    assert sum(turns.slept) < 900
    assert max(turns.slept) == MAX_POLL_S


async def test_giving_up_leaves_nothing(
    accounts: SignedInAccounts, server: AccountServer
) -> None:
    waiting = asyncio.Event()
    task = asyncio.create_task(
        sign_in(SERVER, GITHUB, accounts, lambda _: waiting.set(), clock=server.clock)
    )
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await accounts.list() == []
