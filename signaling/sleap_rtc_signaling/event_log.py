"""The server's log: one event a line, with ids and without secrets.

`note` writes an event with its ids; what it is given are ids, codes, numbers and fixed
words. As a last net below that, whatever looks like a token, a session string or a code
is blotted out of every line, those of other libraries too. Called by every module that
has something to say; set up by the command.
"""

import json
import logging
import re
import sys
import time
from collections.abc import Mapping
from typing import Any, Final, Literal, TextIO

__all__ = ["LogFormat", "note", "set_up", "without_secrets"]

LogFormat = Literal["text", "json"]

_EVENT: Final = "event_ids"
_BLOT: Final = "(left out)"
_SECRETS: Final = re.compile(
    # JSON Web Tokens, whole or as far as they go
    r"eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){0,2}"
    # session strings and invitations
    r"|sleap-[a-z]+:[A-Za-z0-9_-]{8,}"
    # headers, queries and passwords in addresses
    r"|(?<=[Bb]earer )\S+"
    r"|(?<=://)[^/@\s]*:[^/@\s]*(?=@)"
    r"|(?<=[?&]token=)[^&\s]+"
)
_LOGGERS: Final = ("sleap_rtc_plugin", "sleap_rtc_signaling")


def note(
    logger: logging.Logger, level: int, event: str, /, **ids: str | float | None
) -> None:
    """Write an event.

    Args:
        logger: the module's own.
        level: one of `logging`'s.
        event: a few fixed words, such as `peer registered`.
        **ids: room, peer, connection, code, milliseconds; what is None is left out.
    """
    if logger.isEnabledFor(level):
        known = {name: value for name, value in ids.items() if value is not None}
        logger.log(level, event, extra={_EVENT: known})


def set_up(
    log_format: LogFormat, level: int = logging.INFO, stream: TextIO | None = None
) -> None:
    """Send the log to stderr; may be called again to change it.

    Args:
        log_format: for a person, or for a program.
        level: what is written of ours; of other libraries, warnings are.
        stream: another place than stderr.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_Json() if log_format == "json" else _Text())
    root = logging.getLogger()
    for before in root.handlers[:]:
        root.removeHandler(before)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(level)


def without_secrets(text: str) -> str:
    """Return a text with what looks like a secret blotted out."""
    return _SECRETS.sub(_BLOT, text)


class _Text(logging.Formatter):
    """`2026-11-24 10:12:13 INFO peer registered room=room-1 peer=worker-1`."""

    def format(self, record: logging.LogRecord) -> str:
        ids = " ".join(f"{name}={value}" for name, value in _ids(record).items())
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        line = f"{at} {record.levelname} {_message(self, record)}"
        return f"{line} {without_secrets(ids)}" if ids else line


class _Json(logging.Formatter):
    """One object a line, with `time` in Unix seconds."""

    def format(self, record: logging.LogRecord) -> str:
        ids = {
            name: without_secrets(value) if isinstance(value, str) else value
            for name, value in _ids(record).items()
        }
        values: dict[str, Any] = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": _message(self, record),
        }
        return json.dumps(values | ids, ensure_ascii=False)


def _ids(record: logging.LogRecord) -> Mapping[str, Any]:
    ids: Mapping[str, Any] = getattr(record, _EVENT, {})
    return ids


def _message(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    text = record.getMessage()
    if record.exc_info:
        text = f"{text}\n{formatter.formatException(record.exc_info)}"
    return without_secrets(text)
