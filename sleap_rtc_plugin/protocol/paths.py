"""Which relative paths a peer may name, decided without touching a disk.

A path that passes can be joined to a folder on Linux, macOS and Windows alike and
stays below it, provided the folder itself holds no links. Called by both ends for
every path that crosses the wire or stands in a package.
"""

import re
import unicodedata
from collections.abc import Iterable
from typing import Final

from sleap_rtc_plugin.protocol.errors import UnsafeMember
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.limits import (
    MAX_PATH_CHARS,
    MAX_PATH_COMPONENT_BYTES,
    MAX_PATH_DEPTH,
)

__all__ = ["check_component", "check_path", "check_paths", "path_fault"]

# Device names that Windows reserves in every folder, with any extension and with
# spaces before it (Microsoft, "Naming Files, Paths, and Namespaces").
_DEVICE: Final = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|clock\$|com[0-9¹²³]|lpt[0-9¹²³]) *(\..*)?\Z",
    re.IGNORECASE,
)
_FORBIDDEN: Final = re.compile(r'[<>:"|?*\\]')


def path_fault(path: str) -> str | None:
    """Say what is wrong with a relative path, or None where nothing is.

    The words complete the sentence "The package holds {path}, which …".
    """
    if not path or len(path) > MAX_PATH_CHARS:
        return f"is empty or longer than {MAX_PATH_CHARS} characters"
    if path.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", path):
        return "is an absolute path"
    components = path.split("/")
    if len(components) > MAX_PATH_DEPTH:
        return f"is nested deeper than {MAX_PATH_DEPTH} folders"
    for component in components:
        fault = _component_fault(component)
        if fault:
            return fault
    return None


def _component_fault(component: str) -> str | None:
    if component in ("", ".", "..") or component.strip(". ") == "":
        return "leads out of its folder"
    try:
        size = len(component.encode())
    except UnicodeEncodeError:
        return "is not text"
    if size > MAX_PATH_COMPONENT_BYTES:
        return f"has a name longer than {MAX_PATH_COMPONENT_BYTES} bytes"
    if (
        _FORBIDDEN.search(component)
        or clean_text(component, len(component)) != component
    ):
        return "has a character that not every system can store"
    if component.endswith((".", " ")) or _DEVICE.match(component):
        return "is a name that Windows reserves"
    return None


def check_path(path: str) -> str:
    """Return `path` if it is safe.

    Raises:
        UnsafeMember: it is not.
    """
    fault = path_fault(path)
    if fault:
        raise UnsafeMember(
            member=clean_text(path) or "a member without a name", reason=fault
        )
    return path


def check_component(name: str) -> str:
    """Return `name` if it is one safe path component (no `/`).

    Raises:
        UnsafeMember: it is not.
    """
    if "/" in name:
        raise UnsafeMember(member=clean_text(name), reason="is more than one name")
    return check_path(name)


def check_paths(paths: Iterable[str]) -> None:
    """Check that paths are safe one by one and as a set.

    No two may be the same file on a system that folds case or Unicode forms, and no
    file may stand where another needs a folder.

    Raises:
        UnsafeMember: a path is not safe or collides with another.
    """
    files: set[str] = set()
    folders: set[str] = set()
    for path in paths:
        key = unicodedata.normalize("NFC", check_path(path)).casefold()
        parents = {key[:i] for i, char in enumerate(key) if char == "/"}
        if key in files or key in folders or parents & files:
            raise UnsafeMember(
                member=clean_text(path), reason="has the same name as another"
            )
        files.add(key)
        folders |= parents
