"""Who is signed in where: accounts of signaling servers, and their tokens.

Tokens are kept as session strings are (`session.secret_store`), refreshed before they
end, and never logged. A refresh token is good once, so of several programs that need
the next token at once, one asks and the others take what it was given. Called by
`RemoteSession` and the worker for each registration, by the commands, and by the
companion.
"""

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar

import msgspec
from msgspec import Struct

from sleap_rtc_plugin.protocol.account_messages import Account
from sleap_rtc_plugin.protocol.errors import (
    AccountsUnavailable,
    NotSignedIn,
    RtcError,
    TokenRefused,
)
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.limits import MAX_NAME_CHARS, MAX_TOKEN_CHARS
from sleap_rtc_plugin.session.secret_store import SecretStore
from sleap_rtc_plugin.session.settings import (
    CONFIG_DIR_VARIABLE,
    MAX_ACCOUNTS,
    RememberedAccount,
    Settings,
    change_accounts,
    config_folder,
)
from sleap_rtc_plugin.transport.account import AccountClient
from sleap_rtc_plugin.transport.effects import monotonic, storage_error
from sleap_rtc_plugin.transport.file_lock import try_lock

__all__ = ["REFRESH_AHEAD_S", "SignedInAccounts"]

logger = logging.getLogger(__name__)

# A token that ends sooner is exchanged for the next before it is used.
REFRESH_AHEAD_S: Final = 120.0
# The lock is held while a server is asked, and while a keyring is.
_LOCK_TIMEOUT_S: Final = 75.0
_LOCK_RETRY_S: Final = 0.05
_MAX_KEPT_CHARS: Final = 4 * MAX_TOKEN_CHARS
_DIGITS: Final = 20

T = TypeVar("T")


class _Kept(Struct, frozen=True):
    """What is kept of an account, as JSON."""

    server: str
    account: Account


class SignedInAccounts:
    """The accounts that are signed in on this computer, one for each server.

    Args:
        folder: keep everything there, and nothing in the keyring; by default the
            user's own folder, and the keyring where there is one.
        clock: Unix time in seconds.
    """

    def __init__(
        self, folder: Path | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._folder = folder or config_folder()
        self._clock = clock
        self._secrets = SecretStore(
            self._folder / "accounts",
            what="account",
            prefix="account-",
            in_keyring="account:",
            max_chars=_MAX_KEPT_CHARS,
            is_sound=_is_account_of,
            uses_keyring=folder is None and not os.environ.get(CONFIG_DIR_VARIABLE),
        )
        self._using: dict[str, Account] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def list(self) -> "list[RememberedAccount]":
        """Return who is signed in where, without a token; the newest first."""
        return (await asyncio.to_thread(Settings.load, self._folder)).accounts

    async def find(self, server: str) -> RememberedAccount | None:
        """Return who is signed in at a server."""
        server = server.rstrip("/")
        known = await self.list()
        return next((one for one in known if one.server == server), None)

    async def keep(self, server: str, account: Account) -> None:
        """Remember an account that was signed in just now.

        Raises:
            StorageFailed, DiskFull: neither keyring nor file takes it.
        """
        server = server.rstrip("/")
        async with self._exclusive(server):
            await self._store(server, account)
        entry = RememberedAccount(
            server=server,
            account_id=clean_text(account.account_id, MAX_NAME_CHARS),
            name=clean_text(account.name, MAX_NAME_CHARS),
            method=clean_text(account.method, MAX_NAME_CHARS),
        )
        forgotten: list[RememberedAccount] = []

        def change(known: "list[RememberedAccount]") -> "list[RememberedAccount]":
            others = [one for one in known if one.server != server]
            forgotten.extend(others[MAX_ACCOUNTS - 1 :])
            return [entry, *others[: MAX_ACCOUNTS - 1]]

        await asyncio.to_thread(change_accounts, self._folder, change)
        for one in forgotten:
            await self._secrets.erase(_name_of(one.server))

    async def forget(self, server: str) -> None:
        """Sign out on this computer; the server is not asked.

        Raises:
            StorageFailed: the tokens are still there.
        """
        server = server.rstrip("/")
        self._using.pop(server, None)
        await self._secrets.erase(_name_of(server))
        await asyncio.to_thread(
            change_accounts,
            self._folder,
            lambda known: [one for one in known if one.server != server],
        )

    async def sign_out(self, server: str) -> None:
        """Let the server take the tokens back, as far as it can be asked; forget them.

        Raises:
            StorageFailed: the tokens are still there.
        """
        server = server.rstrip("/")
        try:
            account = await self.account(server)
            async with AccountClient(server) as client:
                await client.sign_out(account)
        except RtcError as error:
            logger.info("%s was not asked to sign out: %s", server, error)
        await self.forget(server)

    # -- tokens ----------------------------------------------------------------------

    async def token(self, server: str) -> str:
        """Return a good token of who is signed in; empty where nobody is.

        Raises:
            RtcError: somebody is, and the next token cannot be had now.
        """
        server = server.rstrip("/")
        if server not in self._using and await self.find(server) is None:
            return ""
        try:
            return (await self.account(server)).token
        except NotSignedIn:
            return ""

    async def account(self, server: str, *, refused: str = "") -> Account:
        """Return who is signed in, with a token that is good for a while.

        Args:
            server: where.
            refused: a token that the server did not take, though its time is not over.

        Raises:
            NotSignedIn: nobody is, or the sign-in has ended.
            RtcError: the next token cannot be had now.
        """
        server = server.rstrip("/")
        known = self._using.get(server)
        if known is None or not self._is_good(known, refused):
            known = await self._load(server)
        if known is None:
            raise NotSignedIn(server=server)
        if self._is_good(known, refused):
            self._using[server] = known
            return known
        # An answer on its way holds the next refresh token, and the last one is spent.
        refreshing = asyncio.ensure_future(self._refreshed(server, refused))
        try:
            return await asyncio.shield(refreshing)
        except asyncio.CancelledError:
            with contextlib.suppress(RtcError):
                await refreshing
            raise

    async def call(
        self, server: str, ask: Callable[[AccountClient, str], Awaitable[T]]
    ) -> T:
        """Ask a server something as who is signed in there; once more after a refusal.

        Args:
            server: whom.
            ask: is given the client and the token.

        Raises:
            NotSignedIn: nobody is, or the sign-in has ended.
            RtcError: what the server says.
        """
        token = (await self.account(server)).token
        async with AccountClient(server) as client:
            try:
                return await ask(client, token)
            except TokenRefused:
                token = (await self.account(server, refused=token)).token
                return await ask(client, token)

    # -- the next token --------------------------------------------------------------

    def _is_good(self, account: Account, refused: str) -> bool:
        lasts_s = account.expires_at - self._clock()
        return account.token != refused and lasts_s > REFRESH_AHEAD_S

    async def _refreshed(self, server: str, refused: str) -> Account:
        async with self._exclusive(server):
            # Another program may have been faster.
            known = await self._load(server)
            if known is None:
                raise NotSignedIn(server=server)
            if self._is_good(known, refused):
                self._using[server] = known
                return known
            is_over = known.expires_at <= self._clock() or known.token == refused
            if known.refresh_token:
                try:
                    return await self._ask_for_next(server, known)
                except TokenRefused:
                    logger.warning("the sign-in at %s has ended", server)
                    is_over = True
                except RtcError:
                    if is_over:
                        raise
            if is_over:
                await self.forget(server)
                raise NotSignedIn(server=server)
            return known

    async def _ask_for_next(self, server: str, known: Account) -> Account:
        async with AccountClient(server) as client:
            account = await client.refresh(known.refresh_token)
        if not account.refresh_token:
            # Some providers keep theirs for as long as it is good.
            account = msgspec.structs.replace(
                account, refresh_token=known.refresh_token
            )
        await self._store(server, account)
        return account

    # -- what is kept ----------------------------------------------------------------

    async def _load(self, server: str) -> Account | None:
        text = await self._secrets.find(_name_of(server))
        return None if text is None else _read(text).account

    async def _store(self, server: str, account: Account) -> None:
        kept = msgspec.to_builtins(_Kept(server=server, account=account))
        # In plain letters, whatever the person is called.
        await self._secrets.keep(_name_of(server), json.dumps(kept))
        self._using[server] = account

    @contextlib.asynccontextmanager
    async def _exclusive(self, server: str) -> AsyncIterator[None]:
        """Keep other tasks and programs from the tokens of a server.

        Raises:
            AccountsUnavailable: another program does not let go of them.
            StorageFailed, DiskFull: there is no place for the lock.
        """
        path = self._folder / "accounts" / f"{_name_of(server)}.lock"
        async with self._locks.setdefault(server, asyncio.Lock()):
            try:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                file = path.open("ab")
            except OSError as error:
                raise storage_error(error, path) from error
            # Closing the file lets go of the lock, as does the end of the program.
            with file:
                ends_at = monotonic() + _LOCK_TIMEOUT_S
                while not try_lock(file.fileno()):
                    if monotonic() > ends_at:
                        reason = "another program on this computer is asking"
                        raise AccountsUnavailable(server=server, reason=reason)
                    await asyncio.sleep(_LOCK_RETRY_S)
                yield


def _name_of(server: str) -> str:
    """Return a name for a server that any file system takes."""
    return hashlib.sha256(server.encode()).hexdigest()[:_DIGITS]


def _read(text: str) -> _Kept:
    return msgspec.json.decode(text, type=_Kept)


def _is_account_of(name: str, text: str) -> bool:
    try:
        return _name_of(_read(text).server) == name
    except (msgspec.MsgspecError, RecursionError):
        return False
