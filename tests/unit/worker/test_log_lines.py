import pytest

from sleap_rtc_plugin.protocol.limits import MAX_LOG_LINE_CHARS
from sleap_rtc_worker.limits import MAX_PARTIAL_LINE_CHARS
from sleap_rtc_worker.log_lines import LineSplitter, clean_line


def split(*blocks: bytes) -> list[str]:
    splitter = LineSplitter()
    found = [line for block in blocks for line in splitter.feed(block)]
    return found + splitter.close()


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        ((b"one\ntwo\n",), ["one", "two"]),
        ((b"on", b"e\ntw", b"o"), ["one", "two"]),
        ((b"one\r\ntwo\r\n",), ["one", "two"]),
        ((b"one\r", b"\ntwo\n"), ["one", "two"]),
        ((b"10%\r50%\r100%\n",), ["100%"]),
        ((b"10%", b"\r50%", b"\r100%", b"\n"), ["100%"]),
        ((b"10%\r", b"50%\r", b"100%\r", b"\nnext"), ["100%", "next"]),
        ((b"\r10%\r20%",), ["20%"]),
        ((b"\xc3", b"\xa9\n"), ["é"]),
        ((b"\xff\n",), ["\ufffd"]),
        ((b"",), []),
        ((b"\n\n",), ["", ""]),
    ],
)
def test_lines(blocks: tuple[bytes, ...], expected: list[str]) -> None:
    assert split(*blocks) == expected


def test_a_line_without_an_end_stays_bounded() -> None:
    splitter = LineSplitter()
    for _ in range(100):
        assert splitter.feed(b"x" * 10_000) == []
    (line,) = splitter.feed(b"\n")
    assert len(line) == MAX_PARTIAL_LINE_CHARS
    assert splitter.feed(b"next\n") == ["next"]


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("a\x00b\x07", "a b"),
        ("\u202eevil", "evil"),
        ("  indented: 1  ", "  indented: 1"),
        ("\tx", "    x"),
        ("", ""),
        ("   ", ""),
    ],
)
def test_cleaning(raw: str, clean: str) -> None:
    assert clean_line(raw) == clean


def test_a_clean_line_is_bounded() -> None:
    assert len(clean_line("x" * 5000)) == MAX_LOG_LINE_CHARS
    assert len(clean_line(" " * 4000 + "x" * 5000)) == MAX_LOG_LINE_CHARS
