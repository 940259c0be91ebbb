"""Gathers the facts about this computer; `computer` says what they mean.

Nothing is changed but a few bytes written and removed again. What may hang (a mount, a
keyring, SLEAP's import) runs in a thread that nobody waits for at the end, or in a
child process.
"""

import asyncio
import contextlib
import errno
import json
import os
import secrets
import shutil
import stat
import sys
import tempfile
from importlib import metadata, util
from pathlib import Path
from typing import Any, Final

import msgspec
import platformdirs

from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.session.doctor.computer import (
    AutoloadState,
    DiskFacts,
    KeyringFacts,
    PackageFacts,
    SettingsFacts,
    SleapFacts,
)
from sleap_rtc_plugin.session.doctor.limits import (
    KEYRING_S,
    MAX_CHILD_OUTPUT_BYTES,
    MAX_SETTINGS_BYTES,
    SLEAP_CHECK_S,
)
from sleap_rtc_plugin.session.secret_store import (
    SERVICE,
    in_daemon_thread,
    usable_backend,
)
from sleap_rtc_plugin.session.settings import CONFIG_DIR_VARIABLE, config_folder
from sleap_rtc_plugin.transport.sctp.self_check import fault_of_installation

__all__ = [
    "PROXY_VARIABLES",
    "look_at_autoload",
    "look_at_disks",
    "look_at_keyring",
    "look_at_packages",
    "look_at_settings",
    "look_at_sleap",
    "proxies_set",
    "storage_fault",
    "version_of",
]

_PACKAGES: Final = ("sleap-rtc-plugin", "aiortc", "aioice", "httpx", "websockets")
PROXY_VARIABLES: Final = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_KEYRING_VARIABLE: Final = "PYTHON_KEYRING_BACKEND"
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
# What a child has no business with.
_NOT_INHERITED: Final = ("SLEAP_SESSION",)

# Qt, and all of SLEAP's GUI, are imported there and not here.
_SLEAP_PROGRAM: Final = """
import json
from sleap_rtc_plugin.gui.sleap_compat import unsupported_reason
print(json.dumps({"unsupported": unsupported_reason(load=True)}))
"""


def version_of(package: str) -> str | None:
    """Return the installed version of a distribution, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def look_at_packages() -> PackageFacts:
    """Look at the packages that the client stands on."""
    return PackageFacts(
        versions={name: version_of(name) for name in _PACKAGES},
        fast_path_fault=fault_of_installation(),
    )


async def look_at_sleap() -> SleapFacts:
    """Let a child process import SLEAP's GUI and say whether it is as we need it."""
    version = version_of("sleap")
    if version is None or util.find_spec("sleap") is None:
        return SleapFacts(version=None)
    environment = {k: v for k, v in os.environ.items() if k not in _NOT_INHERITED}
    environment |= {"QT_QPA_PLATFORM": "offscreen", "SLEAP_SKIP_QT_FIX": "1"}
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-c", _SLEAP_PROGRAM),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=environment,
        limit=MAX_CHILD_OUTPUT_BYTES,
    )
    try:
        async with asyncio.timeout(SLEAP_CHECK_S):
            output, _ = await child.communicate()
    except TimeoutError:
        return SleapFacts(version, failure=f"no answer within {SLEAP_CHECK_S:.0f} s")
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()
    answer = _last_json_line(output)
    if answer is None:
        return SleapFacts(
            version, failure=f"importing it ended with code {child.returncode}"
        )
    unsupported = answer.get("unsupported")
    reason = clean_text(unsupported, 300) if isinstance(unsupported, str) else None
    return SleapFacts(version, unsupported=reason)


def _last_json_line(output: bytes) -> dict[str, Any] | None:
    lines = output[-MAX_CHILD_OUTPUT_BYTES:].strip().splitlines()
    try:
        answer = json.loads(lines[-1]) if lines else None
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def look_at_autoload(path: Path, expected: str) -> AutoloadState | None:
    """Look at the file that loads the menu; None where there is no SLEAP."""
    if util.find_spec("sleap") is None:
        return None
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return "disabled"
    except (OSError, UnicodeDecodeError):
        return "broken"
    return "enabled" if text == expected else "broken"


def look_at_settings() -> SettingsFacts:
    """Look at the settings without changing them."""
    folder = config_folder()
    return SettingsFacts(
        folder=str(folder),
        fault=_write_fault(folder),
        is_broken=_is_broken(folder / "settings.json"),
        is_forced=bool(os.environ.get(CONFIG_DIR_VARIABLE)),
    )


def _is_broken(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SETTINGS_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    try:
        msgspec.json.decode(data, type=dict[str, Any])
    except (ValueError, RecursionError):
        return True
    return len(data) > MAX_SETTINGS_BYTES


def _write_fault(folder: Path) -> str | None:
    """Say why a folder cannot be written to, or be made; None where it can."""
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        if not there.is_dir():
            return f"{there} is not a folder"
        # Tried, since a right to write says nothing of a mount that is read only.
        with tempfile.TemporaryFile(dir=there):
            return None
    except OSError as error:
        # A full disk is said of the disk.
        if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
            return None
        return error.strerror or type(error).__name__


def storage_fault(root: Path) -> str | None:
    """Say why a folder that workers may mount too cannot be used, or None."""
    if not root.exists():
        return "it is not there"
    return _write_fault(root)


async def look_at_keyring() -> KeyringFacts:
    """Put something into the keyring, take it out again, and look at the files."""
    files = config_folder() / "sessions"
    is_forced_off = bool(os.environ.get(CONFIG_DIR_VARIABLE))
    backend, failure, is_installed = None, None, util.find_spec("keyring") is not None
    if is_installed and not is_forced_off:
        try:
            backend = await in_daemon_thread(_try_keyring, KEYRING_S)
        except TimeoutError:
            failure = "it does not answer; it may wait for a password"
        except Exception as error:  # whatever a backend of somebody else's raises
            failure = clean_text(str(error)) or type(error).__name__
    return KeyringFacts(
        backend=backend,
        failure=failure,
        is_forced_off=is_forced_off,
        is_installed=is_installed,
        is_chosen=bool(os.environ.get(_KEYRING_VARIABLE)),
        files=str(files),
        open_files=await asyncio.to_thread(_open_to_others, files),
    )


def _try_keyring() -> str | None:
    """Return the name of the backend that kept a probe; None where there is none.

    Raises:
        Exception: whatever it raises; or RuntimeError, where it lost the probe.
    """
    import keyring

    backend = usable_backend(keyring.get_keyring())
    if backend is None:
        return None
    name, kept = f"probe-{secrets.token_hex(4)}", secrets.token_hex(8)
    backend.set_password(SERVICE, name, kept)
    try:
        if backend.get_password(SERVICE, name) != kept:
            raise RuntimeError("it lost what it was given")
    finally:
        backend.delete_password(SERVICE, name)
    return clean_text(type(backend).__module__)


def _open_to_others(folder: Path) -> list[str]:
    """Return the session files that other users may read."""
    if os.name != "posix":  # the mode bits mean nothing there
        return []
    found = []
    with contextlib.suppress(OSError):
        # Others get no further than a private folder.
        if not folder.stat().st_mode & _OTHERS:
            return []
        for path in sorted(folder.glob("room-*.txt")):
            if path.stat().st_mode & _OTHERS:
                found.append(path.name)
    return found


def look_at_disks() -> list[DiskFacts]:
    """Look where packages are built, and where parts of results arrive."""
    places = {
        "packages and results": platformdirs.user_cache_path("sleap-remote"),
        "the list of runs": platformdirs.user_state_path("sleap-remote"),
        "temporary files": Path(tempfile.gettempdir()),
    }
    return [_look_at_disk(name, folder) for name, folder in places.items()]


def _look_at_disk(name: str, folder: Path) -> DiskFacts:
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    place = f"{name} ({folder})"
    try:
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{there} is not a folder")
        return DiskFacts(place, shutil.disk_usage(there).free)
    except OSError as error:
        return DiskFacts(place, 0, error.strerror or type(error).__name__)


def proxies_set() -> list[str]:
    """Return the names of the variables that name a proxy; never their values."""
    return [
        name
        for name in PROXY_VARIABLES
        if os.environ.get(name) or os.environ.get(name.lower())
    ]
