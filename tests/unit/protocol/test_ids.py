"""Ids are plain and unguessable; a peer's text cannot disguise itself."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc_plugin.protocol import ids
from sleap_rtc_plugin.protocol.limits import MAX_DISPLAY_NAME_LENGTH, MAX_ID_LENGTH

MAKERS = [
    ids.new_account_id,
    ids.new_command_id,
    ids.new_job_id,
    ids.new_room_id,
    ids.new_transfer_id,
    lambda: ids.new_peer_id("worker"),
]


@pytest.mark.parametrize("make", MAKERS)
def test_every_new_id_is_an_id_and_new(make) -> None:
    made = {make() for _ in range(50)}
    assert len(made) == 50
    assert all(map(ids.is_id, made))


def test_prefixed_ids_know_their_kind() -> None:
    job, transfer = ids.new_job_id(), ids.new_transfer_id()
    assert ids.is_job_id(job)
    assert not ids.is_job_id(transfer)
    assert ids.is_transfer_id(transfer)
    assert not ids.is_transfer_id(job)


@pytest.mark.parametrize(
    "text",
    ["", "-a", "a-", "a--b", "A", "a b", "a\n", "é", "a/b", "..", "a_b", "a" * 65],
)
def test_what_is_not_an_id(text: str) -> None:
    assert not ids.is_id(text)


def test_the_longest_id() -> None:
    assert ids.is_id("a" * MAX_ID_LENGTH)


@pytest.mark.parametrize("tail", ["", "0" * 19, "0" * 21, "G" * 20, "0" * 20 + "\n"])
def test_what_is_not_a_job_id(tail: str) -> None:
    assert not ids.is_job_id(f"job-{tail}")


@given(st.text(max_size=200))
def test_a_peer_id_of_any_name_is_an_id(name: str) -> None:
    assert ids.is_id(ids.new_peer_id("worker", name))


def test_a_peer_id_keeps_what_a_person_recognises() -> None:
    made = ids.new_peer_id("worker", "Ann's GPU_Box.local")
    assert made.startswith("worker-ann-s-gpu-box-local-")


HIDDEN = {
    "C0": "\x00\x07\x08\t\n\r\x1b\x1f\x7f",
    "C1": "\x80\x85\x9b\x9f",
    "zero width": "\u200b\u200c\u200d\u2060\ufeff",
    "marks": "\u200e\u200f\u061c",
    "embeddings": "\u202a\u202b\u202c\u202d\u202e",
    "isolates": "\u2066\u2067\u2068\u2069",
    "separators": "\u2028\u2029",
    "annotations": "\ufff9\ufffa\ufffb",
    "soft hyphen": "\xad",
    "Mongolian vowel separator": "\u180e",
    "tags": "\U000e0001\U000e0041\U000e007f",
    "half a surrogate pair": "\ud800\udfff",
}


@pytest.mark.parametrize("characters", HIDDEN.values(), ids=HIDDEN)
def test_characters_that_hide_or_move_are_removed(characters: str) -> None:
    for character in characters:
        assert ids.clean_text(f"a{character}b") == "a b"
        assert ids.clean_text(character) == ""


@given(st.text(alphabet=st.characters(exclude_categories=()), max_size=300))
def test_clean_text_is_shown_as_it_is(text: str) -> None:
    cleaned = ids.clean_text(text)
    assert len(cleaned) <= MAX_DISPLAY_NAME_LENGTH
    assert ids.clean_text(cleaned) == cleaned
    cleaned.encode()
    bad = {"Cc", "Cs", "Zl", "Zp"}
    assert not bad & {unicodedata.category(c) for c in cleaned}
    assert not any(unicodedata.bidirectional(c) in BIDI_CONTROLS for c in cleaned)


BIDI_CONTROLS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def test_long_text_is_cut_with_a_mark() -> None:
    assert ids.clean_text("x" * 500, 10) == "x" * 9 + "…"
    assert ids.clean_text("x" * 10, 10) == "x" * 10


def test_harmless_text_stays() -> None:
    name = "Labor Müller: 実験 3 🐭"
    assert ids.clean_text(name) == name
