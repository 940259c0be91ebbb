"""Errors as they come in from a peer: looked up by code, their text cleaned.

An unknown code or other fields than the leaf's own become `RemoteFailure`, so that an
older program can still show what a newer one says.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields

from sleap_rtc_plugin.protocol.errors.base import ErrorInfo, RtcError
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.limits import MAX_ERROR_TEXT_CHARS


@dataclass(eq=False)
class RemoteFailure(RtcError):
    """An error of a kind that this version does not know."""

    kind: str
    detail: str
    code = "remote_failure"
    sentence = (
        "The other side reports {kind} ({detail}); "
        "update sleap-rtc-plugin to learn what that means."
    )


def _leaves(base: type[RtcError]) -> Iterator[type[RtcError]]:
    for child in base.__subclasses__():
        if child.code:
            yield child
        yield from _leaves(child)


def error_types() -> Mapping[str, type[RtcError]]:
    """Return every leaf of the tree by its code on the wire."""
    return {leaf.code: leaf for leaf in _leaves(RtcError)}


def from_wire(info: ErrorInfo) -> RtcError:
    """Rebuild an error that a peer sent, its text cleaned and bounded.

    An unknown code, or fields that are not the leaf's own, gives `RemoteFailure`.
    """
    leaf = error_types().get(info.code)
    names = {f.name for f in fields(leaf)} if leaf else set()
    cleaned = {name: _clean_lines(text) for name, text in info.fields.items()}
    if leaf is None or names != set(cleaned):
        detail = ", ".join(f"{k}: {v}" for k, v in sorted(cleaned.items()))
        return RemoteFailure(
            kind=clean_text(info.code), detail=clean_text(detail or "no details")
        )
    return leaf(**cleaned)


def _clean_lines(text: str) -> str:
    return "\n".join(map(_clean_line, text[:MAX_ERROR_TEXT_CHARS].split("\n")))


def _clean_line(line: str) -> str:
    """Clean one line and keep its indentation, which a traceback is read by."""
    body = line.lstrip(" ")
    indentation = " " * (len(line) - len(body))
    return (indentation + clean_text(body, MAX_ERROR_TEXT_CHARS)).rstrip()
