"""The session string: whatever happened to it on its way, one clear error."""

import base64
import binascii
import json
import string
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc_plugin.protocol.errors import (
    EXIT_REFUSED,
    SessionStringInvalid,
    SessionStringTooNew,
)
from sleap_rtc_plugin.protocol.limits import MAX_SESSION_STRING_CHARS
from sleap_rtc_plugin.protocol.session_string import (
    SCHEME,
    Session,
    is_signaling_url,
)

SECRET = bytes(range(32))
FIELDS: dict[str, Any] = {
    "v": 1,
    "url": "http://gpu-1:8080",
    "room_id": "room-1",
    "token": "header.body.signature",
    "peer_id": "worker-gpu-1",
    "secret": base64.urlsafe_b64encode(SECRET).rstrip(b"=").decode(),
}
SESSION = Session(
    url="http://gpu-1:8080",
    room_id="room-1",
    token="header.body.signature",
    peer_id="worker-gpu-1",
    secret=SECRET,
)
LINE = SESSION.encode()


def forge(**changes: Any) -> str:
    """Make a well-copied string of any contents."""
    body = json.dumps({**FIELDS, **changes}).encode()
    raw = body + binascii.crc32(body).to_bytes(4, "big")
    return SCHEME + base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def test_there_and_back() -> None:
    assert Session.parse(LINE) == SESSION
    assert Session.parse(forge()) == SESSION
    assert LINE.startswith("sleap-session:")
    assert len(LINE.splitlines()) == 1


# One for each number of bits that base64 leaves over in the last character.
LINES = [msgspec.structs.replace(SESSION, token="t" * n).encode() for n in (10, 11, 12)]


@pytest.mark.parametrize("line", LINES)
def test_truncated_anywhere(line: str) -> None:
    for length in range(len(line)):
        with pytest.raises(SessionStringInvalid):
            Session.parse(line[:length])


@pytest.mark.parametrize("line", LINES)
def test_one_character_altered_anywhere(line: str) -> None:
    for position in range(len(line)):
        for other in "AbZ9-_=:+/.é":
            altered = line[:position] + other + line[position + 1 :]
            if altered != line:
                with pytest.raises(SessionStringInvalid):
                    Session.parse(altered)


@pytest.mark.parametrize("line", LINES)
def test_any_other_last_character(line: str) -> None:
    for last in set(string.ascii_letters + string.digits + "-_") - {line[-1]}:
        with pytest.raises(SessionStringInvalid):
            Session.parse(line[:-1] + last)


def test_two_characters_swapped_anywhere() -> None:
    for i in range(len(LINE) - 1):
        swapped = LINE[:i] + LINE[i + 1] + LINE[i] + LINE[i + 2 :]
        if swapped == LINE:
            continue
        with pytest.raises(SessionStringInvalid):
            Session.parse(swapped)


def test_characters_added() -> None:
    for addition in ("A", "AA", "AAA", "AAAA", "=", "==", "."):
        with pytest.raises(SessionStringInvalid):
            Session.parse(LINE + addition)


def test_white_space_of_a_paste_is_tolerated() -> None:
    wrapped = "\n".join(LINE[i : i + 40] for i in range(0, len(LINE), 40))
    assert Session.parse(f"  {wrapped}\r\n\t ") == SESSION


def test_a_newer_version_says_so() -> None:
    with pytest.raises(SessionStringTooNew) as refused:
        Session.parse(forge(v=2, url=17))
    assert refused.value.version == "2"
    assert "pip install -U" in str(refused.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"v": 0},
        {"v": -1},
        {"v": "1"},
        {"v": None},
        {"url": "gpu-1:8080"},
        {"url": "ftp://gpu-1"},
        {"url": "http://"},
        {"url": "http://user@gpu-1"},
        {"url": "http://:password@gpu-1"},
        {"url": "http://gpu-1?token=x"},
        {"url": "http://gpu-1#x"},
        {"url": "http://gpu-1:99999"},
        {"url": "http://gpu-1:port"},
        {"url": "http://gpu 1"},
        {"url": "http://[::1"},
        {"url": "http://gpu-1/\x1b[2J"},
        {"url": "http://" + "x" * 3000},
        {"room_id": "../x"},
        {"room_id": ""},
        {"peer_id": "Worker"},
        {"token": ""},
        {"token": "x" * 5000},
        {"secret": ""},
        {"secret": "AAAA"},
        {"secret": "!!!!"},
        {"secret": None},
    ],
    ids=str,
)
def test_fields_that_make_no_sense(changes: dict[str, Any]) -> None:
    with pytest.raises(SessionStringInvalid) as refused:
        Session.parse(forge(**changes))
    assert refused.value.exit_code == EXIT_REFUSED


@pytest.mark.parametrize(
    "text", ["", " ", "sleap-session", SCHEME, SCHEME + "====", "http://gpu-1:8080"]
)
def test_what_is_no_session_string(text: str) -> None:
    with pytest.raises(SessionStringInvalid):
        Session.parse(text)


def test_too_long() -> None:
    with pytest.raises(SessionStringInvalid, match="too long"):
        Session.parse(SCHEME + "A" * MAX_SESSION_STRING_CHARS)


def test_nothing_that_opens_the_room_is_shown() -> None:
    for shown in (repr(SESSION), str(SESSION), f"{[SESSION]}"):
        assert "gpu-1" in shown
        assert "signature" not in shown
        assert repr(SECRET) not in shown


def test_errors_do_not_repeat_what_was_pasted() -> None:
    with pytest.raises(SessionStringInvalid) as refused:
        Session.parse(forge(secret="hunter2hunter2"))
    assert "hunter2" not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    "url",
    ["http://a", "https://a.b:1", "http://127.0.0.1:8080", "http://[::1]:8080"],
)
def test_signaling_urls(url: str) -> None:
    assert is_signaling_url(url)


def test_a_slash_at_the_end_of_the_address_does_not_matter() -> None:
    assert Session.parse(forge(url="http://gpu-1:8080/")) == SESSION


@given(st.text(max_size=200) | st.binary(max_size=200).map(base64.b64encode).map(str))
def test_any_text_gives_a_session_error(text: str) -> None:
    for candidate in (text, SCHEME + text):
        with pytest.raises((SessionStringInvalid, SessionStringTooNew)):
            Session.parse(candidate)
