"""What the facts about this computer mean.

Pure: facts in, findings out. `computer_probe` gathers them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from sleap_rtc_plugin.protocol.limits import GIB, MIB
from sleap_rtc_plugin.session.doctor.finding import (
    Finding,
    failed,
    note,
    ok,
    warning,
)
from sleap_rtc_plugin.session.doctor.limits import (
    DISK_FAILED_BYTES,
    DISK_WARNING_BYTES,
)
from sleap_rtc_plugin.session.qt_pair import bad_pair

__all__ = [
    "AutoloadState",
    "DiskFacts",
    "KeyringFacts",
    "PackageFacts",
    "SettingsFacts",
    "SleapFacts",
    "judge_disk",
    "judge_keyring",
    "judge_menu",
    "judge_packages",
    "judge_proxy",
    "judge_python",
    "judge_qt",
    "judge_settings",
    "judge_sleap",
    "judge_storage",
]

_OLDEST_PYTHON: Final = (3, 11)
_FIRST_UNTRIED_PYTHON: Final = (3, 14)

AutoloadState = Literal["enabled", "disabled", "broken"]


@dataclass(frozen=True)
class PackageFacts:
    """The packages that the client stands on.

    Attributes:
        versions: installed ones by name; None for one that is missing.
        fast_path_fault: why data channels go aiortc's own way, or None.
    """

    versions: dict[str, str | None]
    fast_path_fault: str | None


@dataclass(frozen=True)
class SleapFacts:
    """What a look at SLEAP, in a process of its own, gave.

    Attributes:
        version: None where SLEAP is not installed.
        unsupported: why this SLEAP does not do, as the menu would say; or None.
        failure: why there was no such answer, or None.
    """

    version: str | None
    unsupported: str | None = None
    failure: str | None = None


@dataclass(frozen=True)
class KeyringFacts:
    """The system's keyring, and the files that stand in for it.

    Attributes:
        backend: the usable one's name, or None.
        failure: what it did when it was tried, or None.
        is_forced_off: a settings folder is forced, so it is not asked.
        is_installed: whether there is the package.
        is_chosen: whether the environment names a backend.
        files: where session strings are kept in its place.
        open_files: of these, the ones that others may read.
    """

    backend: str | None
    failure: str | None
    is_forced_off: bool
    is_installed: bool
    is_chosen: bool
    files: str
    open_files: Sequence[str]


@dataclass(frozen=True)
class SettingsFacts:
    """The folder of the settings, and the file in it.

    Attributes:
        fault: why the folder cannot be written to, or None.
        is_broken: the file is no settings file.
        is_forced: the environment names the folder.
    """

    folder: str
    fault: str | None
    is_broken: bool
    is_forced: bool


@dataclass(frozen=True)
class DiskFacts:
    """The room where packages and results lie; `fault` is why it cannot be told."""

    place: str
    free_bytes: int
    fault: str | None = None


def judge_python(version: tuple[int, ...]) -> Finding:
    """Judge Python's version."""
    text = ".".join(map(str, version[:3]))
    if version[:2] < _OLDEST_PYTHON:
        return failed(
            "python",
            f"This is Python {text}, which is too old.",
            "Install Python 3.12, and sleap-rtc-plugin in it.",
        )
    if version[:2] >= _FIRST_UNTRIED_PYTHON:
        return warning(
            "python",
            f"This is Python {text}; 3.11 to 3.13 were tried.",
            "If something fails, use Python 3.12 or 3.13.",
        )
    return ok("python", f"This is Python {text}.")


def judge_packages(facts: PackageFacts) -> Finding:
    """Judge what is installed, and whether the fast data path can be used."""
    missing = [name for name, version in facts.versions.items() if version is None]
    if missing:
        return failed(
            "packages",
            f"Missing: {', '.join(missing)}.",
            "Install it again: python -m pip install sleap-rtc-plugin",
        )
    found = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
    if facts.fast_path_fault is not None:
        return warning(
            "packages",
            f"{found}. Files go the slow way: {facts.fast_path_fault}.",
            "Install the versions that were tried: "
            "python -m pip install 'aiortc==1.16.*' 'aioice==0.13.*'",
        )
    return ok("packages", f"{found}; the fast data path can be used.")


def judge_qt(pyside_version: str | None, python: tuple[int, ...]) -> Finding:
    """Judge the pair of PySide6 and Python."""
    if pyside_version is None:
        return note("qt", "PySide6 is not installed; only SLEAP's window needs it.")
    fault = bad_pair(pyside_version, python)
    if fault is not None:
        found, _, remedy = fault.partition("; ")
        return failed("qt", f"{found}.", remedy[:1].upper() + remedy[1:])
    return ok("qt", f"PySide6 {pyside_version} fits this Python.")


def judge_sleap(facts: SleapFacts) -> Finding:
    """Judge SLEAP and everything of it that the plugin relies on."""
    if facts.version is None:
        return note(
            "sleap",
            "SLEAP is not installed in this environment.",
            "For the menu in SLEAP, run the sleap-remote of SLEAP's own environment; "
            "the command line needs no SLEAP.",
        )
    if facts.unsupported is not None:
        found, separator, remedy = facts.unsupported.rpartition("; ")
        if not separator:
            found, remedy = remedy, "update sleap-rtc-plugin."
        return failed("sleap", f"{found}.", remedy[:1].upper() + remedy[1:])
    if facts.failure is not None:
        return warning(
            "sleap",
            f"SLEAP {facts.version} is there, but could not be looked at: "
            f"{facts.failure}.",
            "Start SLEAP with `sleap-remote label` and read what it prints.",
        )
    return ok("sleap", f"SLEAP {facts.version} has everything that the menu needs.")


def judge_menu(state: AutoloadState | None, path: str) -> Finding:
    """Judge the file that loads the menu; None where there is no SLEAP to load it."""
    match state:
        case None:
            return note("menu", "There is no SLEAP here that could have the menu.")
        case "enabled":
            return ok("menu", "Plain `sleap` has the menu Remote Train.")
        case "disabled":
            return note(
                "menu",
                "Plain `sleap` does not have the menu.",
                "Start SLEAP with `sleap-remote label`, or run `sleap-remote enable`.",
            )
        case "broken":
            return failed(
                "menu",
                f"{path} is not what this version writes, so plain `sleap` may lack "
                "the menu.",
                "Run `sleap-remote enable` to write it anew, or `sleap-remote "
                "disable` to remove it.",
            )


def judge_settings(facts: SettingsFacts) -> Finding:
    """Judge the settings' folder and file."""
    if facts.fault is not None:
        remedy = (
            "Let SLEAP_REMOTE_CONFIG_DIR name a folder that you may write to."
            if facts.is_forced
            else "Make it yours (`chown`), or let SLEAP_REMOTE_CONFIG_DIR name "
            "another folder."
        )
        return failed(
            "settings",
            f"Nothing can be written to {facts.folder} ({facts.fault}), so no choice "
            "and no lab is remembered.",
            remedy,
        )
    if facts.is_broken:
        return warning(
            "settings",
            f"settings.json in {facts.folder} cannot be read.",
            "Correct it or delete it; it is set aside, and begun anew, the next time "
            "it is used.",
        )
    return ok("settings", f"{facts.folder} can be written to.")


def judge_keyring(facts: KeyringFacts) -> Finding:
    """Judge where session strings are kept."""
    if facts.open_files:
        names = ", ".join(facts.open_files[:3])
        return failed(
            "keyring",
            f"Other users of this computer may read session strings in {facts.files}: "
            f"{names}.",
            "Close that folder to them (chmod -R go=). Whoever has read them can train "
            "on your worker: open a new session.",
        )
    instead = "Session strings are kept in files that only you can read"
    if facts.is_forced_off:
        return note(
            "keyring",
            f"{instead}, in {facts.files}, since SLEAP_REMOTE_CONFIG_DIR is set.",
        )
    if facts.failure is not None:
        remedy = (
            "Correct PYTHON_KEYRING_BACKEND, or unset it."
            if facts.is_chosen
            else "Unlock or repair the keyring if you want it used."
        )
        return warning(
            "keyring",
            f"The keyring does not work ({facts.failure}). {instead}.",
            remedy,
        )
    if not facts.is_installed:
        return note(
            "keyring",
            f"{instead}, since the package keyring is not installed.",
            "To use the system's keyring: python -m pip install keyring",
        )
    if facts.backend is None:
        return note(
            "keyring",
            f"{instead}, since this system offers no keyring.",
        )
    return ok("keyring", f"It keeps and returns what it is given ({facts.backend}).")


def judge_disk(places: Sequence[DiskFacts]) -> Finding:
    """Judge the room for packages and results, by the place that has least."""
    faults = [place for place in places if place.fault is not None]
    if faults:
        return failed(
            "disk",
            f"{faults[0].place} cannot be used ({faults[0].fault}).",
            "Make it a folder that you may write to.",
        )
    least = min(places, key=lambda place: place.free_bytes)
    found = f"{size_text(least.free_bytes)} are free for {least.place}."
    if least.free_bytes < DISK_FAILED_BYTES:
        return failed(
            "disk",
            f"Only {found}",
            "Make room there: packages and results would not fit.",
        )
    if least.free_bytes < DISK_WARNING_BYTES:
        return warning(
            "disk", f"Only {found}", "Make room there before you send a large project."
        )
    return ok("disk", found)


def judge_storage(root: str | None, fault: str | None) -> Finding:
    """Judge this side of the storage that workers may mount too."""
    if root is None:
        return note("storage", "None is named, so all files go over the connection.")
    if fault is not None:
        return warning(
            "storage",
            f"{root} is not used ({fault}); files go over the connection.",
            "Mount it, see that you may write to it, or take it out of "
            "SHARED_STORAGE_ROOT or of the settings.",
        )
    return ok("storage", f"{root} can be written to.")


def judge_proxy(names: Sequence[str], is_reachable: bool | None) -> Finding:
    """Judge proxies that the environment names; ours are the names, not the values.

    Args:
        names: the variables that name one.
        is_reachable: whether the server answers; None where none was asked.
    """
    if not names:
        return ok("proxy", "None is set.")
    found = f"{', '.join(names)} is set; remote training connects without it"
    if is_reachable is False:
        return warning(
            "proxy",
            f"{found}, and the signaling server cannot be reached that way.",
            "Ask who runs your network to allow the connection, or run the server "
            "where you can reach it without a proxy.",
        )
    return note("proxy", f"{found}.")


def size_text(size_bytes: float) -> str:
    """Say a size as a person would."""
    if size_bytes >= GIB:
        return f"{size_bytes / GIB:.1f} GiB"
    return f"{size_bytes / MIB:.0f} MiB"
