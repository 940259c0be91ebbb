"""Who asks for a room's models and what for, before anyone is asked.

What `StoreModels` and `LinkedModels` have in common: the person's name, a name to ask
for, and the model in folders of this disk.
"""

import getpass
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from sleap_rtc_plugin.protocol.errors import ModelNotFound
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.limits import MAX_ALIAS_CHARS
from sleap_rtc_plugin.protocol.model_records import Publication, check_alias
from sleap_rtc_plugin.registry.model_files import LocalModel, read_model
from sleap_rtc_plugin.transport.effects import in_thread

__all__ = ["OnBytes", "asked_name", "ignore_bytes", "person_name", "read_folders"]

# Hears how many bytes of how many are done.
OnBytes = Callable[[int, int], None]


def ignore_bytes(done: int, total: int) -> None:
    """Tell nobody about progress."""


def person_name() -> str:
    """Return who changes a registry, as others read it: `ann@laptop`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):
        user = ""
    host = socket.gethostname().partition(".")[0]
    return clean_text(f"{user}@{host}".strip("@"))


def asked_name(ref: str) -> str:
    """Return a name that can be asked for.

    Raises:
        ModelNotFound: nothing can be called so.
    """
    if not 0 < len(ref) <= MAX_ALIAS_CHARS or clean_text(ref) != ref:
        raise ModelNotFound(model=clean_text(ref) or "without a name")
    return ref


async def read_folders(
    folders: Sequence[Path], name: str, publication: Publication
) -> LocalModel:
    """Read the model that lies in these folders, to be published so.

    Raises:
        BadRequest: its alias cannot be one.
        NotAModel: it is no model, or two that are not used together.
        UnsafeCheckpoint: it would run code when loaded.
        StorageFailed: it cannot be read.
    """
    if publication.alias is not None:
        check_alias(publication.alias)
    return await in_thread(None, read_model, folders, name)
