import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc_plugin.protocol.errors import PairingRefused
from sleap_rtc_plugin.protocol.limits import MAX_PAIRING_NUMBER
from sleap_rtc_plugin.protocol.pairing_code import PairingCode, is_like_a_code
from sleap_rtc_plugin.protocol.pairing_words import PAIRING_WORDS

CODE = PairingCode(7, ("copper", "otter", "lagoon"))


def test_the_words_are_a_byte_each_and_told_apart_by_their_beginnings() -> None:
    assert len(PAIRING_WORDS) == 256
    assert list(PAIRING_WORDS) == sorted(set(PAIRING_WORDS))
    assert len({word[:4] for word in PAIRING_WORDS}) == 256
    assert all(word.isascii() and word.isalpha() for word in PAIRING_WORDS)
    assert all(4 <= len(word) <= 9 for word in PAIRING_WORDS)
    # Their places are part of the protocol.
    assert (PAIRING_WORDS[0], PAIRING_WORDS[128], PAIRING_WORDS[255]) == (
        "abacus",
        "kitchen",
        "zigzag",
    )


@given(st.integers(1, MAX_PAIRING_NUMBER), st.binary(min_size=3, max_size=3))
def test_what_is_shown_is_read(number: int, random: bytes) -> None:
    code = PairingCode.from_random(number, random)
    assert PairingCode.parse(str(code)) == code
    assert is_like_a_code(str(code))


@pytest.mark.parametrize(
    "typed",
    [
        "7-copper-otter-lagoon",
        " 7 Copper OTTER lagoon\n",
        "7-copp-otte-lago",
        "7, copper, otter, lagoon",
        "7_copper_otter_lagoo",
    ],
)
def test_reading_is_lenient(typed: str) -> None:
    assert PairingCode.parse(typed) == CODE


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("", "begins with a number"),
        ("copper-otter-lagoon", "begins with a number"),
        ("\u0667-copper-otter-lagoon", "begins with a number"),
        ("0-copper-otter-lagoon", "no such number"),
        ("99999-copper-otter-lagoon", "no such number"),
        ("7-copper-otter", "3 words, not 2"),
        ("7-copper-otter-lagoon-lagoon", "3 words, not 4"),
        ("7-coper-otter-lagoon", "coper is none of its words; copper is"),
        ("7-co-otter-lagoon", "co is none of its words; cobalt is"),
        ("7-copper-otter-qqqqqq", "qqqqqq is none of its words"),
        ("7-copper-otter-<b>", "one word is none of its words"),
        ("7-" + "a" * 500, "too long"),
    ],
)
def test_what_is_no_code_is_refused_with_a_reason(typed: str, words: str) -> None:
    with pytest.raises(PairingRefused, match=words):
        PairingCode.parse(typed)


@given(st.text(max_size=300))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        code = PairingCode.parse(text)
    except PairingRefused:
        return
    assert PairingCode.parse(str(code)) == code


def test_a_session_string_is_not_like_a_code() -> None:
    assert not is_like_a_code("sleap-session:eyJ2IjoxfQ")
    assert is_like_a_code("12 wrong")


def test_the_words_are_not_shown_by_accident() -> None:
    assert "copper" not in repr(CODE)


def test_a_code_takes_three_bytes() -> None:
    with pytest.raises(ValueError, match="3 bytes"):
        PairingCode.from_random(1, b"12")
