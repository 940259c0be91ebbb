"""What a check says: which one it is, how it went, what was found, what to do.

Pure. The table of all checks stands here, in the order in which they are shown. What
is said may be pasted into a public issue, so whatever is secret is taken out of it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Literal

from sleap_rtc_plugin.protocol.errors import RtcError
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.session.doctor.limits import MAX_FOUND_CHARS

__all__ = [
    "AREAS",
    "CHECKS",
    "NOTHING_TO_DO",
    "Area",
    "Finding",
    "Status",
    "failed",
    "from_error",
    "note",
    "ok",
    "skipped",
    "warning",
    "without_secrets",
]

Area = Literal["computer", "server", "worker"]

AREAS: Final[dict[Area, str]] = {
    "computer": "This computer",
    "server": "The signaling server, and ways through networks",
    "worker": "The worker",
}

CHECKS: Final[dict[str, tuple[Area, str]]] = {
    "python": ("computer", "Python"),
    "packages": ("computer", "Packages"),
    "qt": ("computer", "Qt"),
    "sleap": ("computer", "SLEAP"),
    "menu": ("computer", "Menu in SLEAP"),
    "settings": ("computer", "Settings"),
    "keyring": ("computer", "Keyring"),
    "disk": ("computer", "Disk space"),
    "storage": ("computer", "Shared storage"),
    "proxy": ("computer", "Proxies"),
    "session": ("server", "Session string"),
    "name": ("server", "Server name"),
    "port": ("server", "Server port"),
    "certificate": ("server", "Certificate"),
    "server": ("server", "Server"),
    "clock": ("server", "Clocks"),
    "room": ("server", "Room"),
    "stun": ("server", "STUN"),
    "nat": ("server", "Address translation"),
    "turn": ("server", "TURN"),
    "relay": ("server", "Relay"),
    "worker": ("worker", "In the room"),
    "trainer": ("worker", "sleap-nn"),
    "gpu": ("worker", "GPU"),
    "jobs": ("worker", "Taking jobs"),
    "worker-disk": ("worker", "Disk space"),
    "last-error": ("worker", "Last job"),
    "link": ("worker", "Connection"),
    "round-trip": ("worker", "Round trip"),
    "throughput": ("worker", "Throughput"),
    "worker-storage": ("worker", "Shared storage"),
}

NOTHING_TO_DO: Final = "Nothing to do."
_REDACTED: Final = "(secret)"
# Shorter ones would be taken out of the middle of words.
_MIN_SECRET_CHARS: Final = 4


class Status(StrEnum):
    """How a check went; only FAILED makes the command fail."""

    OK = "ok"
    NOTE = "note"
    SKIPPED = "skipped"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True)
class Finding:
    """What one check says.

    Attributes:
        check: which one, of `CHECKS`.
        found: what is so, in a sentence.
        remedy: what to do, in a sentence; `NOTHING_TO_DO` where nothing is.
    """

    check: str
    status: Status
    found: str
    remedy: str = NOTHING_TO_DO

    @property
    def area(self) -> Area:
        """Where it belongs."""
        return CHECKS[self.check][0]

    @property
    def title(self) -> str:
        """What it is about, in a word or two."""
        return CHECKS[self.check][1]


def ok(check: str, found: str) -> Finding:
    """Say that all is well."""
    return Finding(check, Status.OK, found)


def note(check: str, found: str, remedy: str = NOTHING_TO_DO) -> Finding:
    """Say what is so and is no fault."""
    return Finding(check, Status.NOTE, found, remedy)


def skipped(check: str, found: str, remedy: str) -> Finding:
    """Say why something was not looked at."""
    return Finding(check, Status.SKIPPED, found, remedy)


def warning(check: str, found: str, remedy: str) -> Finding:
    """Say what may become a problem, or is a small one."""
    return Finding(check, Status.WARNING, found, remedy)


def failed(check: str, found: str, remedy: str) -> Finding:
    """Say what keeps remote training from working."""
    return Finding(check, Status.FAILED, found, remedy)


def from_error(check: str, error: RtcError, status: Status = Status.FAILED) -> Finding:
    """Say what an error says: its sentence ends in what to do."""
    found, separator, remedy = str(error).rpartition("; ")
    if not separator:
        return Finding(check, status, remedy, "Run this again in a moment.")
    return Finding(check, status, f"{found}.", remedy[:1].upper() + remedy[1:])


def without_secrets(finding: Finding, secrets: Iterable[str], home: str) -> Finding:
    """Return the finding with every secret taken out, and the user's home named `~`."""

    def cleaned(text: str) -> str:
        for secret in sorted(secrets, key=len, reverse=True):
            if len(secret) >= _MIN_SECRET_CHARS:
                text = text.replace(secret, _REDACTED)
        if len(home) > 1:
            text = text.replace(home, "~")
        return clean_text(text, MAX_FOUND_CHARS)

    return replace(
        finding, found=cleaned(finding.found), remedy=cleaned(finding.remedy)
    )
