"""Hands a session string over by a short code: the worker's side and the claimer's.

The signaling server passes three messages on and learns nothing; what they hold is
said in `transport.pairing_cipher`. Neither side logs a code or a string. Called by
`sleap-remote worker --pair`, `sleap-remote pair` and the companion.
"""

import asyncio
import base64
import binascii
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable

from sleap_rtc_plugin.protocol.account_messages import PairingState
from sleap_rtc_plugin.protocol.errors import (
    PairingFailed,
    PairingRefused,
    RtcError,
)
from sleap_rtc_plugin.protocol.limits import (
    MAX_PAIRING_CODES,
    PAIRING_ANSWER_S,
    PAIRING_POLL_S,
)
from sleap_rtc_plugin.protocol.pairing_code import CODE_WORDS, PairingCode
from sleap_rtc_plugin.protocol.session_string import Session
from sleap_rtc_plugin.transport.account import AccountClient
from sleap_rtc_plugin.transport.pairing_cipher import PairingCipher

__all__ = ["claim_session", "hand_over", "hand_over_once"]


async def claim_session(server: str, code: PairingCode) -> Session:
    """Type a code: return the session that its worker hands over.

    Args:
        server: the signaling server that the worker uses.
        code: what was typed.

    Raises:
        PairingRefused: the code was used, has expired, or never was.
        PairingFailed: the worker showed other words. The code is spent.
        RtcError: the server cannot be reached, or refuses.
    """
    cipher = PairingCipher("claimer", code.words)
    async with AccountClient(server) as account:
        claimed = await account.claim_pairing(code.number)
        cipher.receive(_bytes(claimed.message))
        key = claimed.claim_key
        await account.answer_pairing(
            code.number, key, _text(cipher.message), _text(cipher.prove())
        )
        state = await _until(
            lambda: account.pairing_state(code.number, key),
            lambda state: state in ("done", "failed"),
        )
    if state.state == "failed":
        raise PairingFailed(reason="the worker shows other words")
    # The string itself says where the room is, and was made by who knew the words.
    return Session.parse(cipher.unseal(_bytes(state.sealed)))


async def hand_over(
    session: Session, show: Callable[[PairingCode, float], None]
) -> None:
    """Show a code and hand the session over to whoever types it.

    After a wrong guess a new code is shown, MAX_PAIRING_CODES in all.

    Args:
        session: what is handed over; its token admits to the server.
        show: called with each code and until when it is good, as Unix time.

    Raises:
        PairingFailed: every code was spent on a wrong guess.
        PairingRefused: nobody typed the code in time.
        RtcError: the server cannot be reached, or refuses.
    """
    for remaining in reversed(range(MAX_PAIRING_CODES)):
        try:
            await hand_over_once(session, show)
        except PairingFailed:
            if not remaining:
                raise
        else:
            return


async def hand_over_once(
    session: Session, show: Callable[[PairingCode, float], None]
) -> None:
    """Do so with one code.

    Raises:
        RtcError: as `hand_over`; PairingFailed after one wrong guess.
    """
    words = PairingCode.from_random(1, secrets.token_bytes(CODE_WORDS)).words
    cipher = PairingCipher("worker", words)
    async with AccountClient(session.url) as account:
        pairing = await account.open_pairing(session.token, _text(cipher.message))
        number, key = pairing.number, pairing.owner_key

        async def look() -> PairingState:
            return await account.pairing_state(number, key)

        async with _taken_back(account, number, key):
            show(PairingCode(number, words), pairing.expires_at)
            try:
                await _until(look, lambda state: state != "open", is_person=True)
            except PairingRefused:
                raise PairingRefused(reason="nobody typed it in time") from None
            said = await _until(look, lambda state: state == "answered")
        try:
            cipher.receive(_bytes(said.message))
            cipher.check(_bytes(said.sealed))
        except PairingFailed:
            # The claimer is told so, rather than left to wait.
            await account.finish_pairing(number, key, "")
            raise
        sealed = cipher.seal(session.encode())
        await account.finish_pairing(number, key, _text(sealed))


@contextlib.asynccontextmanager
async def _taken_back(
    account: AccountClient, number: int, key: str
) -> AsyncIterator[None]:
    """Take the pairing back where it does not come to its end."""
    try:
        yield
    except BaseException:
        # Its end is near anyway, and the reason to leave matters more.
        with contextlib.suppress(RtcError):
            await account.close_pairing(number, key)
        raise


async def _until(
    look: Callable[[], Awaitable[PairingState]],
    is_there: Callable[[str], bool],
    *,
    is_person: bool = False,
) -> PairingState:
    """Ask again and again until the other side is there.

    Args:
        look: asks.
        is_there: tells whether that is the state to wait for.
        is_person: what is waited for is a person; the pairing's own end is the bound.

    Raises:
        PairingFailed: a program said nothing for PAIRING_ANSWER_S.
    """
    wait_s = None if is_person else PAIRING_ANSWER_S
    try:
        async with asyncio.timeout(wait_s):
            while True:
                state = await look()
                if is_there(state.state):
                    return state
                await asyncio.sleep(PAIRING_POLL_S)
    except TimeoutError:
        raise PairingFailed(reason="the other side said no more") from None


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        raise PairingFailed(reason="what came is no message") from None
