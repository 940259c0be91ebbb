"""Signs somebody in at a signaling server, by whatever way it offers.

A way either gives an account at once, or shows a code that the user enters on a page of
the provider's while this waits (RFC 8628). Called by `sleap-remote login` and by the
companion; the account is kept by `session.accounts`.
"""

import asyncio
import time
from collections.abc import Callable, Sequence

from sleap_rtc_plugin.protocol.account_messages import (
    Account,
    DeviceFlow,
    DevicePending,
    SignInMethod,
)
from sleap_rtc_plugin.protocol.errors import (
    RtcError,
    SignInRefused,
)
from sleap_rtc_plugin.protocol.retries import is_passing
from sleap_rtc_plugin.session.accounts import SignedInAccounts
from sleap_rtc_plugin.transport.account import AccountClient

__all__ = ["choose_method", "sign_in"]

# A server that wants to be asked more or less often than this is not heeded.
MIN_POLL_S = 1.0
MAX_POLL_S = 60.0


def choose_method(
    methods: Sequence[SignInMethod], wanted: str | None, server: str
) -> SignInMethod:
    """Return the way that was asked for, or the one that the server prefers.

    Raises:
        SignInRefused: the server has none of that name, or none at all.
    """
    for method in methods:
        if wanted is None or method.name == wanted:
            return method
    names = ", ".join(method.name for method in methods) or "no way at all"
    raise SignInRefused(server=server, reason=f"it offers {names}")


async def sign_in(
    server: str,
    method: SignInMethod,
    accounts: SignedInAccounts,
    show: Callable[[DeviceFlow], None],
    *,
    clock: Callable[[], float] = time.time,
) -> Account:
    """Sign in and keep the account.

    Args:
        server: the signaling server.
        method: one of its ways.
        accounts: keeps it.
        show: is given what the user must see, where the way has a code.
        clock: Unix time in seconds.

    Raises:
        SignInRefused: the user said no, or took too long.
        RtcError: the server cannot be asked.
    """
    async with AccountClient(server) as client:
        if method.kind == "direct":
            account = await client.sign_in(method.name)
        else:
            flow = await client.start_device_flow(method.name)
            show(flow)
            account = await _wait(client, server, method, flow, clock)
    await accounts.keep(server, account)
    return account


async def _wait(
    client: AccountClient,
    server: str,
    method: SignInMethod,
    flow: DeviceFlow,
    clock: Callable[[], float],
) -> Account:
    interval_s = flow.interval_s
    while True:
        wait_s = min(max(interval_s, MIN_POLL_S), MAX_POLL_S)
        if clock() + wait_s >= flow.expires_at:
            # The page takes no code any more.
            reason = "nobody entered the code in time"
            raise SignInRefused(server=server, reason=reason)
        await asyncio.sleep(wait_s)
        try:
            answer = await client.poll_device_flow(method.name, flow)
        except RtcError as error:
            if not is_passing(error):
                raise
            # What is away for a moment does not spoil what the user does elsewhere.
            continue
        if not isinstance(answer, DevicePending):
            return answer
        interval_s = max(interval_s, answer.interval_s)
