"""Every leaf of the error tree: its code, its words, its way over the wire."""

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc_plugin.protocol import errors
from sleap_rtc_plugin.protocol.errors import (
    ErrorInfo,
    RemoteFailure,
    RtcError,
    StepFailed,
    error_types,
    from_wire,
)
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.limits import MAX_ERROR_TEXT_CHARS

# Only the project's own: other tests may make leaves of theirs.
LEAVES = [leaf for leaf in error_types().values() if errors.__name__ in leaf.__module__]


def names_of(leaf: type[RtcError]) -> list[str]:
    return [field.name for field in fields(leaf)]


def filled(leaf: type[RtcError]) -> RtcError:
    return leaf(**{name: f"<{name}>" for name in names_of(leaf)})


every_leaf = pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: leaf.code)


def test_every_code_is_used_once() -> None:
    codes = [leaf.code for leaf in LEAVES]
    assert len(codes) == len(set(codes)) > 35
    classes = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    with_code = {k for k in classes if issubclass(k, RtcError) and k.code}
    assert with_code == set(LEAVES)


@every_leaf
def test_a_code_is_lower_case_with_underscores(leaf: type[RtcError]) -> None:
    assert leaf.code.replace("_", "").isalpha()
    assert leaf.code.islower()


@every_leaf
def test_the_wire_and_back(leaf: type[RtcError]) -> None:
    error = filled(leaf)
    back = from_wire(error.to_wire())
    assert type(back) is leaf
    assert back.to_wire() == error.to_wire()
    assert str(back) == str(error)


@every_leaf
def test_one_sentence_that_names_every_field(leaf: type[RtcError]) -> None:
    sentence = str(filled(leaf))
    for name in names_of(leaf):
        assert f"<{name}>" in sentence
    assert sentence[0].isupper() or sentence[0] == "<"
    assert "  " not in sentence
    assert "{" not in sentence
    if leaf is not StepFailed:
        assert sentence.endswith(".")
        assert "\n" not in sentence
        assert ". " not in sentence.replace("<reason>. ", "")


@every_leaf
def test_braces_and_percents_in_fields_are_only_text(leaf: type[RtcError]) -> None:
    error = leaf(**dict.fromkeys(names_of(leaf), "{0} {x} %s {"))
    assert str(error).count("{0} {x} %s {") == len(names_of(leaf))


@every_leaf
def test_exit_codes_are_those_of_the_design(leaf: type[RtcError]) -> None:
    assert leaf.exit_code in {1, 2, 3, 4, 5, 130}


def test_a_step_that_failed_shows_the_last_lines_if_there_are_any() -> None:
    silent = StepFailed(step="Training", reason="it ended with code 1", last_lines="")
    assert str(silent).endswith("; see the job's log for more.")
    loud = StepFailed(step="Training", reason="it crashed", last_lines="a\n  b")
    assert str(loud).endswith("its last lines were:\na\n  b")
    assert str(from_wire(loud.to_wire())) == str(loud)


def test_an_unknown_code_is_still_told() -> None:
    error = from_wire(ErrorInfo(code="from_the_future", fields={"b": "2", "a": "1"}))
    assert isinstance(error, RemoteFailure)
    assert error.kind == "from_the_future"
    assert error.detail == "a: 1, b: 2"
    assert from_wire(ErrorInfo(code="x")).to_wire().fields["detail"] == "no details"


@every_leaf
def test_fields_that_are_not_the_leafs_own(leaf: type[RtcError]) -> None:
    own = dict.fromkeys(names_of(leaf), "x")
    more = from_wire(ErrorInfo(code=leaf.code, fields={**own, "__class__": "y"}))
    assert isinstance(more, RemoteFailure)
    if own:
        fewer = from_wire(ErrorInfo(code=leaf.code, fields={}))
        assert isinstance(fewer, RemoteFailure)


any_text = st.text(alphabet=st.characters(exclude_categories=()), max_size=80)


@given(
    st.sampled_from([leaf.code for leaf in LEAVES]) | any_text,
    st.dictionaries(any_text | st.sampled_from(["path", "reason"]), any_text),
)
def test_a_hostile_error_gives_clean_words(code: str, said: dict[str, str]) -> None:
    error = from_wire(ErrorInfo(code=code, fields=said))
    assert isinstance(error, RtcError)
    for line in str(error).split("\n"):
        assert clean_text(line.strip(), 10**6) == line.strip()


@every_leaf
def test_hostile_fields_are_cleaned_and_bounded(leaf: type[RtcError]) -> None:
    hostile = "\x1b]0;owned\x07" + "\u202e" + "x" * 100_000
    error = from_wire(
        ErrorInfo(code=leaf.code, fields=dict.fromkeys(names_of(leaf), hostile))
    )
    assert type(error) is leaf
    assert "\x1b" not in str(error)
    assert "\u202e" not in str(error)
    for value in error.to_wire().fields.values():
        assert len(value) <= MAX_ERROR_TEXT_CHARS
