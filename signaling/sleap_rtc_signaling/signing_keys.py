"""The private keys with which a server signs: a few files in its data directory.

The first is made on the first start; `rotate` adds another, which signs after a
while, and removes those that no living token needs. All are readable by their owner
only. Called when a server starts or reloads, and by the command that rotates.
"""

import contextlib
import hashlib
import logging
import math
import os
import re
import secrets
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from sleap_rtc_plugin.protocol.errors import StorageFailed, TooMany
from sleap_rtc_signaling.limits import (
    KEY_SETTLE_S,
    MAX_SIGNING_KEYS,
    ROOM_TOKEN_LIFETIME_S,
)

__all__ = ["KEY_FILE", "SigningKey", "load_or_make_key", "load_or_make_keys", "rotate"]

_log = logging.getLogger(__name__)

KEY_FILE: Final = "signing-key.pem"
_LATER_KEY: Final = re.compile(r"signing-key-([0-9]{1,12})\.pem\Z")
_PRIVATE_MODE: Final = stat.S_IRUSR | stat.S_IWUSR


class SigningKey:
    """One key of the server.

    Args:
        private: what signs.
        signs_from: from when it signs, as Unix time; it verifies at once.
        path: where it is kept; None for one that is kept nowhere.
    """

    def __init__(
        self,
        private: Ed25519PrivateKey,
        signs_from: float = 0.0,
        path: Path | None = None,
    ) -> None:
        self.private: Final = private
        self.public: Final[Ed25519PublicKey] = private.public_key()
        self.signs_from: Final = signs_from
        self.path: Final = path
        digest = hashlib.sha256(self.public.public_bytes_raw())
        self.key_id: Final = digest.hexdigest()[:16]

    def __repr__(self) -> str:
        """Name the key, not what it is."""
        return f"SigningKey({self.key_id!r})"


def load_or_make_keys(directory: Path) -> list[SigningKey]:
    """Read the signing keys, oldest first, and make one on the first start.

    Two servers that start at the same moment get the same key.

    Raises:
        StorageFailed: one cannot be read or written, or is not such a key.
    """
    keys = _load_keys(directory)
    if not keys:
        with _storage(directory / KEY_FILE):
            _make_key(directory / KEY_FILE)
        keys = _load_keys(directory)
    return keys


def load_or_make_key(directory: Path) -> Ed25519PrivateKey:
    """Read the newest signing key, and make it on the first start.

    Raises:
        StorageFailed: as `load_or_make_keys`.
    """
    return load_or_make_keys(directory)[-1].private


def rotate(
    directory: Path,
    now: float,
    *,
    longest_token_s: float = ROOM_TOKEN_LIFETIME_S,
    delay_s: float = KEY_SETTLE_S,
) -> list[SigningKey]:
    """Make a new key, and remove those whose last token has ended.

    Args:
        directory: where the keys are.
        now: Unix time in seconds.
        longest_token_s: for how long the servers sign at most, as configured.
        delay_s: after how long the new key signs; until then every server on these
            keys has to have read it, or it refuses what the others sign.

    Returns:
        What is left, oldest first.

    Raises:
        StorageFailed: they cannot be read or written.
        TooMany: there are as many keys as there may be.
    """
    keys = load_or_make_keys(directory)
    kept = _still_needed(keys, now, longest_token_s)
    if len(kept) >= MAX_SIGNING_KEYS:
        raise TooMany(what="signing keys of this server", limit=str(MAX_SIGNING_KEYS))
    # One is never called older than what signs now.
    # Whole seconds, upwards: the file's name carries no fraction, and never too early.
    signs_from = float(math.ceil(max(now + delay_s, keys[-1].signs_from + 1)))
    path = directory / f"signing-key-{int(signs_from)}.pem"
    with _storage(path):
        _make_key(path)
    # The new one is on the disk before an old one goes.
    for key in keys:
        if key not in kept and key.path is not None:
            with _storage(key.path):
                key.path.unlink(missing_ok=True)
    return load_or_make_keys(directory)


def _still_needed(
    keys: Sequence[SigningKey], now: float, longest_token_s: float
) -> list[SigningKey]:
    """Leave out keys of which every token has ended; the last is always needed."""
    # A server that was slow to read the next key has signed with its own until then.
    spare_s = longest_token_s + KEY_SETTLE_S
    return [
        key
        for key, after in zip(keys, [*keys[1:], None], strict=True)
        if after is None or after.signs_from + spare_s > now
    ]


def _load_keys(directory: Path) -> list[SigningKey]:
    found: list[tuple[int, Path]] = []
    with _storage(directory):
        for path in directory.iterdir():
            later = _LATER_KEY.match(path.name)
            if later is not None or path.name == KEY_FILE:
                found.append((int(later.group(1)) if later else 0, path))
    if len(found) > MAX_SIGNING_KEYS:
        reason = f"it holds more than {MAX_SIGNING_KEYS} signing keys"
        raise StorageFailed(place=str(directory), reason=reason)
    keys = []
    for signs_from, path in sorted(found):
        key = _load_key(path)
        if key is not None:
            keys.append(SigningKey(key, signs_from, path))
    return keys


def _load_key(path: Path) -> Ed25519PrivateKey | None:
    with _storage(path):
        try:
            _keep_private(path)
            data = path.read_bytes()
        except FileNotFoundError:
            # Another process has removed it, since nobody needs it any more.
            return None
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise StorageFailed(place=str(path), reason="it is not a key") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise StorageFailed(place=str(path), reason="it is not an Ed25519 key")
    return key


@contextlib.contextmanager
def _storage(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StorageFailed(place=str(path), reason=reason) from error


def _make_key(path: Path) -> None:
    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _PRIVATE_MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        # A link fails where the name exists, so the first of two servers wins.
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(draft)
    finally:
        draft.unlink()


def _keep_private(path: Path) -> None:
    if os.name != "posix":  # the mode bits mean nothing there
        return
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & ~_PRIVATE_MODE:
        _log.warning("%s was open to other users; it is private now", path)
        path.chmod(_PRIVATE_MODE)
