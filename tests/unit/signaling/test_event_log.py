import io
import json
import logging
from collections.abc import Iterator

import pytest

from sleap_rtc_signaling.event_log import LogFormat, note, set_up, without_secrets

LOGGER = logging.getLogger("sleap_rtc_signaling.a_test")
TOKEN = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJyb29tLTEifQ.c2lnbmF0dXJl"


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    ours = (
        logging.getLogger("sleap_rtc_signaling"),
        logging.getLogger("sleap_rtc_plugin"),
    )
    levels = [logger.level for logger in ours]
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for logger, before in zip(ours, levels, strict=True):
        logger.setLevel(before)


def written(log_format: LogFormat, level: int = logging.INFO) -> io.StringIO:
    stream = io.StringIO()
    set_up(log_format, level, stream)
    return stream


def test_json_is_an_event_a_line_with_its_ids() -> None:
    stream = written("json")
    note(LOGGER, logging.INFO, "peer registered", room="room-1", peer=None, ms=1.5)
    (line,) = stream.getvalue().splitlines()
    said = json.loads(line)
    assert said.pop("time") > 0
    assert said == {
        "level": "info",
        "logger": "sleap_rtc_signaling.a_test",
        "event": "peer registered",
        "room": "room-1",
        "ms": 1.5,
    }


def test_text_is_for_a_person() -> None:
    stream = written("text")
    note(LOGGER, logging.WARNING, "request", route="/ready", status=503)
    assert stream.getvalue().endswith("WARNING request route=/ready status=503\n")


def test_a_line_break_in_an_error_does_not_make_a_second_json_line() -> None:
    stream = written("json")
    try:
        raise ValueError("one\ntwo")
    except ValueError:
        LOGGER.exception("it failed")
    (line,) = stream.getvalue().splitlines()
    assert "two" in json.loads(line)["event"]


def test_levels_are_kept_and_others_only_warn() -> None:
    stream = written("text", logging.WARNING)
    note(LOGGER, logging.INFO, "request")
    logging.getLogger("uvicorn.error").info("a frame")
    assert stream.getvalue() == ""
    set_up("text", logging.DEBUG, stream)
    note(LOGGER, logging.DEBUG, "request")
    assert "request" in stream.getvalue()


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"token {TOKEN} was shown", "token (left out) was shown"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer (left out)"),
        ("sleap-session:eyJ2IjoxfQabc", "(left out)"),
        ("sleap-invite:AAAAAAAAAAAA", "(left out)"),
        ("redis://lab:hidden@redis:6379/0", "redis://(left out)@redis:6379/0"),
        ("/ws?token=hidden&x=1", "/ws?token=(left out)&x=1"),
        ("room room-6c2fd8cbb17a6afda3ab is there", None),
    ],
)
def test_what_looks_like_a_secret_is_blotted_out(text: str, left: str | None) -> None:
    assert without_secrets(text) == (text if left is None else left)


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_secrets_are_blotted_out_of_messages_ids_and_tracebacks(
    log_format: LogFormat,
) -> None:
    stream = written(log_format)
    note(LOGGER, logging.ERROR, "request", room=TOKEN)
    LOGGER.error("the token %s", TOKEN)
    try:
        raise ValueError(TOKEN)
    except ValueError:
        LOGGER.exception("it failed")
    assert TOKEN not in stream.getvalue()
    assert TOKEN.split(".")[1] not in stream.getvalue()
    assert stream.getvalue().count("(left out)") >= 3
