"""The invitation code: there and back, and every way in which it may be spoiled."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc_plugin.protocol.errors import InvitationCodeInvalid
from sleap_rtc_plugin.protocol.invitation_code import INVITATION_SCHEME, InvitationCode
from sleap_rtc_plugin.protocol.limits import MAX_INVITATION_CHARS

CODE = InvitationCode(
    url="https://lab.example:8080", invitation_id="invite-1", secret="c2VjcmV0"
)


def encoded(body: bytes) -> str:
    import binascii

    check = binascii.crc32(body).to_bytes(4, "big")
    text = base64.urlsafe_b64encode(body + check).rstrip(b"=").decode()
    return INVITATION_SCHEME + text


def test_there_and_back() -> None:
    assert InvitationCode.parse(CODE.encode()) == CODE


def test_white_space_of_a_paste_does_not_matter() -> None:
    text = CODE.encode()
    assert InvitationCode.parse(f"  {text[:30]}\n{text[30:]} ") == CODE


def test_it_is_short_enough_for_the_routes() -> None:
    longest = InvitationCode(
        url="https://" + "a" * 150, invitation_id="i" * 64, secret="s" * 22
    )
    assert len(longest.encode()) <= MAX_INVITATION_CHARS


def test_it_is_not_shown() -> None:
    assert CODE.secret not in repr(CODE)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sleap-session:abc",
        INVITATION_SCHEME,
        INVITATION_SCHEME + "ä",
        INVITATION_SCHEME + "a" * MAX_INVITATION_CHARS,
        encoded(b""),
        encoded(b"\xff"),
        encoded(b"{}"),
        encoded(b'{"v":2,"url":"http://h","id":"i","secret":"s"}'),
        encoded(b'{"v":1,"url":"ftp://h","id":"i","secret":"s"}'),
        encoded(b'{"v":1,"url":"http://u@h","id":"i","secret":"s"}'),
        encoded(b'{"v":1,"url":"http://h","id":"I","secret":"s"}'),
        encoded(b'{"v":1,"url":"http://h","id":"i","secret":""}'),
        encoded(b'{"v":1,"url":"http://h","id":"i","secret":"s s"}'),
    ],
)
def test_what_is_no_code_is_refused(text: str) -> None:
    with pytest.raises(InvitationCodeInvalid):
        InvitationCode.parse(text)


@given(st.integers(0), st.sampled_from("abcXYZ019-_"))
def test_a_changed_character_is_noticed(place: int, other: str) -> None:
    text = CODE.encode()
    at = len(INVITATION_SCHEME) + place % (len(text) - len(INVITATION_SCHEME))
    changed = text[:at] + other + text[at + 1 :]
    if changed != text:
        with pytest.raises(InvitationCodeInvalid):
            InvitationCode.parse(changed)


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    with pytest.raises(InvitationCodeInvalid):
        InvitationCode.parse(text)
