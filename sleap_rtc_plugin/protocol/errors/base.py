"""The root of the error tree, and the errors that are about the protocol itself.

Used by the other modules of this package; everybody else imports the package.
"""

from dataclasses import dataclass, fields
from typing import ClassVar, Final

from msgspec import Struct

EXIT_DONE: Final = 0
EXIT_JOB_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNREACHABLE: Final = 3
EXIT_REFUSED: Final = 4
EXIT_BAD_PACKAGE: Final = 5
EXIT_CANCELLED: Final = 130


class ErrorInfo(Struct, frozen=True):
    """An error on the wire: the leaf's code and its fields as text."""

    code: str
    fields: dict[str, str] = {}


@dataclass(eq=False)
class RtcError(Exception):
    """Base of every error that is expected and has words for the user."""

    code: ClassVar[str] = ""
    sentence: ClassVar[str] = ""
    exit_code: ClassVar[int] = EXIT_JOB_FAILED
    retryable: ClassVar[bool] = False

    def __str__(self) -> str:
        """Return the sentence that the user reads."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return self.sentence.format(**values)

    def to_wire(self) -> ErrorInfo:
        """Return the error as it crosses the wire."""
        values = {f.name: str(getattr(self, f.name)) for f in fields(self)}
        return ErrorInfo(code=self.code, fields=values)


@dataclass(eq=False)
class LocalProtocolError(RtcError):
    """We used a machine against its table; always a bug of this program."""

    detail: str
    code = "local_protocol"
    sentence = (
        "This is a fault in sleap-remote itself: {detail}; "
        "please report it with the output of `--verbose`."
    )


@dataclass(eq=False)
class RemoteProtocolError(RtcError):
    """The peer sent what the protocol does not allow there."""

    detail: str
    code = "protocol"
    exit_code = EXIT_REFUSED
    sentence = (
        "The other side broke the protocol ({detail}); "
        "check that both sides run the same version of sleap-rtc-plugin."
    )
