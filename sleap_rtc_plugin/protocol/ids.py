"""Identifiers and the rules they obey.

Ids become file names, log fields and map keys, so they hold lower-case letters,
digits and single hyphens only. Called by everything that makes or checks an id.
"""

import re
import secrets
from typing import Final

from sleap_rtc_plugin.protocol.limits import MAX_DISPLAY_NAME_LENGTH, MAX_ID_LENGTH

__all__ = [
    "clean_text",
    "is_id",
    "is_job_id",
    "is_relay_id",
    "is_transfer_id",
    "new_account_id",
    "new_command_id",
    "new_job_id",
    "new_peer_id",
    "new_relay_id",
    "new_room_id",
    "new_transfer_id",
]

_ID: Final = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*\Z")
_PREFIXED: Final = re.compile(r"(job|transfer)-[0-9a-f]{20}\Z")
_RELAY_ID: Final = re.compile(r"relay-[0-9a-f]{32}\Z")
_CONTROL_CHARACTERS: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u2069"
    "\ud800-\udfff\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]+"
)


def is_id(text: str) -> bool:
    """Tell whether `text` may serve as any id: 1 to 64 of `a-z 0-9 -`."""
    return 0 < len(text) <= MAX_ID_LENGTH and _ID.match(text) is not None


def is_job_id(text: str) -> bool:
    """Tell whether `text` is a job id: `job-` and 20 hexadecimal digits."""
    return _PREFIXED.match(text) is not None and text.startswith("job-")


def is_transfer_id(text: str) -> bool:
    """Tell whether `text` is a transfer id: `transfer-` and 20 hexadecimal digits."""
    return _PREFIXED.match(text) is not None and text.startswith("transfer-")


def is_relay_id(text: str) -> bool:
    """Tell whether `text` is a relay's id: `relay-` and 32 hexadecimal digits."""
    return _RELAY_ID.match(text) is not None


def new_job_id() -> str:
    """Make the id of a new job (80 random bits)."""
    return f"job-{secrets.token_hex(10)}"


def new_transfer_id() -> str:
    """Make the id of a new transfer (80 random bits)."""
    return f"transfer-{secrets.token_hex(10)}"


def new_command_id() -> str:
    """Make the id of a command that expects one reply (64 random bits)."""
    return f"c-{secrets.token_hex(8)}"


def new_room_id() -> str:
    """Make the id of a new room (80 random bits: not to be guessed)."""
    return f"room-{secrets.token_hex(10)}"


def new_account_id() -> str:
    """Make the id of a new anonymous account (80 random bits)."""
    return f"anonymous-{secrets.token_hex(10)}"


def new_peer_id(role: str, name: str = "") -> str:
    """Make a peer id that a person can recognise: role, name, 32 random bits."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:32].strip("-")
    return "-".join(part for part in (role, slug, secrets.token_hex(4)) if part)


def new_relay_id() -> str:
    """Make the id on which two peers meet at a relay (128 random bits)."""
    return f"relay-{secrets.token_hex(16)}"


def clean_text(text: str, limit: int = MAX_DISPLAY_NAME_LENGTH) -> str:
    """Make a peer's text fit to show: one line, no control characters, bounded.

    Removes C0 and C1 controls, bidirectional controls, characters without a shape
    and halves of surrogate pairs, so that a name can neither move the cursor nor
    disguise itself, and can always be encoded.
    """
    cleaned = _CONTROL_CHARACTERS.sub(" ", text).strip()
    return cleaned if len(cleaned) <= limit else cleaned[: limit - 1] + "…"
