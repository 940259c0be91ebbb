"""Who this worker is in its room, the same after every restart.

A client that was cut off looks for the worker that has its job; the id and the key
that proves it to the signaling server are therefore kept in the data folder.
"""

import secrets
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from sleap_rtc_plugin.protocol.errors import StorageFailed
from sleap_rtc_plugin.protocol.ids import is_id, new_peer_id
from sleap_rtc_worker.step_files import read_bounded, replace_file

__all__ = ["Identity", "load_or_make_identity"]

MAX_IDENTITY_BYTES: Final = 4096
_FILE: Final = "identity.json"


class Identity(Struct, frozen=True):
    """A worker's peer id, and the key it registers that id with."""

    peer_id: str
    resume_key: str

    def __repr__(self) -> str:
        """Show the id without the key."""
        return f"Identity({self.peer_id!r})"


def load_or_make_identity(data_dir: Path, name: str) -> Identity:
    """Return the identity kept in `data_dir`, made on the first start.

    Raises:
        StorageFailed: it cannot be written.
    """
    path = data_dir / _FILE
    data = read_bounded(path, MAX_IDENTITY_BYTES)
    if data:
        try:
            kept = msgspec.json.decode(data, type=Identity)
        except msgspec.MsgspecError:
            kept = Identity("", "")
        if is_id(kept.peer_id) and len(kept.resume_key) >= 32:
            return kept
    made = Identity(new_peer_id("worker", name), secrets.token_urlsafe(32))
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(path, msgspec.json.encode(made))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StorageFailed(place=str(path), reason=reason) from None
    return made
