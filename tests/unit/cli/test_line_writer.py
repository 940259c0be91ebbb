"""Lines go out from a thread; a slow or absent reader holds nobody up."""

import io
import sys
import threading
from typing import Any

import pytest

from sleap_rtc_plugin.cli.line_writer import MAX_LINES_WAITING, LineWriter


def test_lines_in_their_order(capsys: pytest.CaptureFixture[str]) -> None:
    lines = LineWriter()
    for number in range(5):
        lines.write(str(number))
    lines.close("last")
    assert capsys.readouterr().out == "0\n1\n2\n3\n4\nlast\n"


def test_a_reader_that_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, may_go_on = threading.Event(), threading.Event()

    class Slow(io.StringIO):
        def flush(self) -> None:
            begun.set()
            may_go_on.wait()

    out = Slow()
    monkeypatch.setattr(sys, "stdout", out)
    lines = LineWriter()
    lines.write("first")
    begun.wait()
    for number in range(MAX_LINES_WAITING + 10):
        lines.write(str(number))
    assert lines.dropped == 10
    may_go_on.set()
    lines.close("last")
    printed = out.getvalue().splitlines()
    assert len(printed) == 1 + MAX_LINES_WAITING + 1
    assert printed[-1] == "last"


def test_a_reader_that_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> Any:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Gone())
    gone = threading.Event()
    lines = LineWriter(gone.set)
    lines.write("to nobody")
    assert gone.wait(10)
    lines.write("to nobody")
    lines.close("last")
