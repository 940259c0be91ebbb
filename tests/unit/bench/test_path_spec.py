"""The names of paths: what they mean, and which are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc_plugin.bench.path_spec import LOOPBACK, PathSpec, parse_path


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("loopback", LOOPBACK),
        ("20ms", PathSpec("20ms", 20)),
        (" 80ms-0.5% ", PathSpec("80ms-0.5%", 80, 0.5)),
        ("20ms-2%@100", PathSpec("20ms-2%@100", 20, 2, 100)),
        ("7.5ms@2.5", PathSpec("7.5ms@2.5", 7.5, 0, 2.5)),
    ],
)
def test_names(text: str, spec: PathSpec) -> None:
    assert parse_path(text) == spec


@pytest.mark.parametrize(
    "text",
    ["", "80", "ms", "80ms-", "80ms-0.5", "80ms@", "-1ms", "80ms-0.5%@400@1", "80 ms"],
)
def test_what_is_no_path(text: str) -> None:
    with pytest.raises(ValueError, match="is no path; write loopback"):
        parse_path(text)


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("2001ms", "to 2000 ms"),
        ("80ms-51%", "to 50 % of loss"),
        ("80ms@501", "to 500 Mbit/s"),
        ("80ms@0", "from 0.1"),
    ],
)
def test_limits(text: str, limit: str) -> None:
    with pytest.raises(ValueError, match=limit):
        parse_path(text)


@given(st.text(max_size=60))
def test_any_text_is_a_path_or_refused(text: str) -> None:
    try:
        spec = parse_path(text)
    except ValueError as error:
        assert len(str(error)) < 400
    else:
        assert spec.name == text.strip()
