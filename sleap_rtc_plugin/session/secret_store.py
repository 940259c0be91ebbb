"""Keeps secrets of the user's: in the system keyring, or in private files of our own.

What a secret is, and which are kept, is said by its callers: `session.credentials` and
`session.accounts`. No secret is ever logged. A keyring may ask the user to unlock it
and take its time, so it is only ever asked in a thread, and given up on.
"""

import asyncio
import contextlib
import logging
import os
import stat
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from sleap_rtc_plugin.protocol.errors import StorageFailed
from sleap_rtc_plugin.session.settings import replace_file
from sleap_rtc_plugin.transport.effects import storage_error

__all__ = ["SERVICE", "SecretStore", "in_daemon_thread", "usable_backend"]

logger = logging.getLogger(__name__)

SERVICE: Final = "sleap-remote"
# As long as a person may take to find the password of a locked keyring.
KEYRING_TIMEOUT_S: Final = 60.0
# These keep nothing, keep it readable for everybody, or ask on a terminal.
_REFUSED_BACKENDS: Final = ("keyring.backends.fail", "keyring.backends.null")
_REFUSED_PACKAGE: Final = "keyrings.alt"
_CHAIN: Final = "keyring.backends.chainer"
_PRIVATE_FILE: Final = 0o600
_PRIVATE_FOLDER: Final = 0o700

T = TypeVar("T")
IsSound = Callable[[str, str], bool]
"""Tells of a name and a text whether the text can be the secret of that name."""


class SecretStore:
    """Secrets of one kind, each under a name.

    Args:
        folder: where the files go.
        what: what one is called before people.
        prefix: what the files' names begin with.
        in_keyring: what the keyring's names begin with; no name of another kind does.
        max_chars: no secret is longer.
        is_sound: what is found and is not so, is no secret.
        uses_keyring: whether the keyring is asked at all.
    """

    def __init__(
        self,
        folder: Path,
        *,
        what: str,
        prefix: str,
        in_keyring: str,
        max_chars: int,
        is_sound: IsSound,
        uses_keyring: bool,
    ) -> None:
        self.folder = folder
        self._what = what
        self._in_keyring = in_keyring
        self._is_sound = is_sound
        self._files = _SecretFiles(
            folder, what=what, prefix=prefix, max_chars=max_chars, is_sound=is_sound
        )
        self._keyring = _Keyring() if uses_keyring else None

    async def has_keyring(self) -> bool:
        """Tell whether there is a keyring that can be used."""
        return await self._ask_keyring(_Keyring.is_usable, otherwise=False)

    async def keep(self, name: str, secret: str) -> None:
        """Keep a secret, in place of an earlier one.

        Raises:
            StorageFailed, DiskFull: neither keyring nor file takes it.
        """
        is_kept = await self._ask_keyring(
            lambda keyring: keyring.keep(self._in_keyring + name, secret),
            otherwise=False,
        )
        if is_kept:
            await asyncio.to_thread(self._files.erase, name)
        else:
            await asyncio.to_thread(self._files.keep, name, secret)

    async def find(self, name: str) -> str | None:
        """Return a secret, or None where there is none."""
        # A file is there only where the keyring did not take the newest one.
        found = await asyncio.to_thread(self._files.find, name)
        if found is not None:
            return found
        found = await self._ask_keyring(
            lambda keyring: keyring.find(self._in_keyring + name), otherwise=None
        )
        return found if found is not None and self._is_sound(name, found) else None

    async def erase(self, name: str) -> None:
        """Remove a secret.

        Raises:
            StorageFailed: it is still there.
        """
        await asyncio.to_thread(self._files.erase, name)
        is_gone = await self._ask_keyring(
            lambda keyring: keyring.erase(self._in_keyring + name), otherwise=True
        )
        if not is_gone:
            raise StorageFailed(
                place="The keyring", reason=f"it did not remove the {self._what}"
            )

    async def _ask_keyring(
        self, question: "Callable[[_Keyring], T]", *, otherwise: T
    ) -> T:
        """Ask the keyring, or return `otherwise` where there is none that answers."""
        keyring = self._keyring
        if keyring is None:
            return otherwise
        try:
            return await in_daemon_thread(lambda: question(keyring))
        except TimeoutError:
            # It may wait for an answer that nobody gives; do not ask again.
            logger.warning("the system keyring does not answer and is not used")
            self._keyring = None
        except Exception as error:  # whatever a backend of somebody else's raises
            logger.warning("the system keyring failed: %s", type(error).__name__)
        return otherwise


class _Keyring:
    """The system keyring; every method may block, and raise anything."""

    def __init__(self) -> None:
        self._has_looked = False
        self._backend: Any = None

    def _find_backend(self) -> Any:
        if not self._has_looked:
            import keyring

            self._backend = usable_backend(keyring.get_keyring())
            self._has_looked = True
        return self._backend

    def is_usable(self) -> bool:
        return self._find_backend() is not None

    def keep(self, name: str, secret: str) -> bool:
        """Return whether it is kept: a keyring may have no room for it."""
        backend = self._find_backend()
        if backend is None:
            return False
        try:
            backend.set_password(SERVICE, name, secret)
            is_kept = bool(backend.get_password(SERVICE, name) == secret)
        except Exception:
            with contextlib.suppress(Exception):
                backend.delete_password(SERVICE, name)
            raise
        return is_kept

    def find(self, name: str) -> str | None:
        backend = self._find_backend()
        found = backend and backend.get_password(SERVICE, name)
        return found if isinstance(found, str) else None

    def erase(self, name: str) -> bool:
        """Return whether there is no secret of this name now."""
        backend = self._find_backend()
        if backend is None or backend.get_password(SERVICE, name) is None:
            return True
        backend.delete_password(SERVICE, name)
        return backend.get_password(SERVICE, name) is None


def usable_backend(backend: Any) -> Any:
    """Return the backend, or the one of a chain, that keeps secrets; None if none."""
    is_chain = type(backend).__module__ == _CHAIN
    for one in backend.backends if is_chain else [backend]:
        module = type(one).__module__
        if module in _REFUSED_BACKENDS or module.startswith(_REFUSED_PACKAGE):
            continue
        return one
    return None


class _SecretFiles:
    """One file per secret, for its owner only; every method may block."""

    def __init__(
        self, folder: Path, *, what: str, prefix: str, max_chars: int, is_sound: IsSound
    ) -> None:
        self._folder = folder
        self._what = what
        self._prefix = prefix
        self._max_chars = max_chars
        self._is_sound = is_sound

    def _path(self, name: str) -> Path:
        # With a prefix, since a bare id may be a name that Windows reserves.
        return self._folder / f"{self._prefix}{name}.txt"

    def keep(self, name: str, secret: str) -> None:
        path = self._path(name)
        try:
            self._folder.mkdir(mode=_PRIVATE_FOLDER, parents=True, exist_ok=True)
            if os.name == "posix":  # on Windows the profile's own rights are private
                self._folder.chmod(_PRIVATE_FOLDER)
            replace_file(path, secret.encode(), is_synced=True)
        except OSError as error:
            raise storage_error(error, path) from error

    def find(self, name: str) -> str | None:
        path = self._path(name)
        try:
            secret = _read_private(path, self._max_chars)
        except FileNotFoundError:
            return None
        except OSError as error:
            logger.warning("the %s in %s cannot be read: %s", self._what, path, error)
            return None
        if self._is_sound(name, secret):
            return secret
        aside = path.with_suffix(".broken")
        logger.warning("%s holds no %s and is kept as %s", path, self._what, aside)
        with contextlib.suppress(OSError):
            path.replace(aside)
        return None

    def erase(self, name: str) -> None:
        path = self._path(name)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(error, path) from error


def _read_private(path: Path, max_chars: int) -> str:
    """Read a file that nobody else could have written, and that nobody else reads.

    Raises:
        OSError: it cannot be read, or is another user's, or not a plain file.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with os.fdopen(os.open(path, flags), "rb") as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise OSError("it is not a plain file")
        if os.name == "posix":
            if facts.st_uid != os.geteuid():
                raise PermissionError("it belongs to another user")
            if stat.S_IMODE(facts.st_mode) & ~_PRIVATE_FILE:
                logger.warning("%s was open to others and is closed to them", path)
                os.fchmod(file.fileno(), _PRIVATE_FILE)
        return file.read(max_chars + 1).decode("ascii", "replace")


async def in_daemon_thread(
    function: Callable[[], T], timeout_s: float | None = None
) -> T:
    """Run what may never return, without keeping the program from ending.

    Raises:
        TimeoutError: it has not returned after `timeout_s`, or `KEYRING_TIMEOUT_S`.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(outcome: Callable[[], None]) -> None:
        if not future.done():
            outcome()

    def run() -> None:
        outcome: Callable[[], None]
        try:
            outcome = partial(future.set_result, function())
        except Exception as error:
            outcome = partial(future.set_exception, error)
        with contextlib.suppress(RuntimeError):  # the loop may be closed by now
            loop.call_soon_threadsafe(settle, outcome)

    threading.Thread(target=run, name="keyring", daemon=True).start()
    return await asyncio.wait_for(future, timeout_s or KEYRING_TIMEOUT_S)
