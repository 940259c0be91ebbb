"""The trainer's output as clean, bounded lines.

Takes bytes as they come from a pipe; gives lines without control characters, with a
progress bar's redrawing collapsed to its last state. Pure; called by the step
machine, which decides how many of the lines are passed on.
"""

import codecs
import re
from typing import Final

from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.limits import MAX_LOG_LINE_CHARS
from sleap_rtc_worker.limits import MAX_PARTIAL_LINE_CHARS

__all__ = ["LineSplitter", "clean_line"]

# ECMA-48: CSI sequences (colours, cursor), OSC strings (titles, links), other escapes.
_ESCAPES: Final = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-_]"
)

_MAX_INDENT: Final = 40


def clean_line(line: str) -> str:
    """Make one line fit to show: no escapes or controls, at most the line bound.

    Its indentation is kept, since sleap-nn prints its configuration as YAML.
    """
    plain = _ESCAPES.sub("", line).replace("\t", "    ")
    indent = min(len(plain) - len(plain.lstrip(" ")), _MAX_INDENT)
    text = clean_text(plain, MAX_LOG_LINE_CHARS - indent)
    return " " * indent + text if text else ""


class LineSplitter:
    """Cuts a stream of bytes into raw lines.

    A carriage return begins its line again, as on a terminal, so of a progress bar
    only the state before the newline is left. A line longer than
    `MAX_PARTIAL_LINE_CHARS` is cut there and its rest skipped.
    """

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._partial = ""
        self._pending_return = False

    def feed(self, data: bytes) -> list[str]:
        """Take the next bytes; return the lines that they complete, not cleaned."""
        text = self._decode(data)
        if self._pending_return:
            # Whether a return ends its line (CR LF) or redraws it, is decided by
            # what follows it.
            text, self._pending_return = "\r" + text, False
        if text.endswith("\r"):
            text, self._pending_return = text[:-1], True
        *whole, rest = text.replace("\r\n", "\n").split("\n")
        lines = []
        for part in whole:
            lines.append(self._join(part))
            self._partial = ""
        self._partial = self._join(rest)
        return lines

    def close(self) -> list[str]:
        """Return the last line, where the stream ended without a newline."""
        line, self._partial = self._partial, ""
        return [line] if line.strip() else []

    def _join(self, part: str) -> str:
        if "\r" in part:
            drawn = [piece for piece in part.split("\r") if piece.strip()]
            after = part.rsplit("\r", 1)[1]
            kept = after if after.strip() else (drawn[-1] if drawn else "")
            return kept[:MAX_PARTIAL_LINE_CHARS]
        return (self._partial + part)[:MAX_PARTIAL_LINE_CHARS]
