"""`sleap-remote live`: what it refuses before anything is contacted, and its words."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sleap_rtc_plugin.cli.live import _Screen, _summary
from sleap_rtc_plugin.cli.main import group
from sleap_rtc_plugin.protocol.errors import LiveEnded
from sleap_rtc_plugin.protocol.live_messages import LiveInstances, LiveReport
from sleap_rtc_plugin.session.live_figures import LiveFigures

USAGE = 2


def run(*arguments: str) -> Result:
    words = ["live", "--video", "a.mp4", "--model", "fly", *arguments]
    return CliRunner().invoke(group, words)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "No session is given"),
        (("--output", "live.mp4"), "does not end in .slp"),
        (("--fps", "0"), "--fps"),
        (("--frames", "0"), "--frames"),
        (("--encoding", "gif"), "--encoding"),
        (("--tracking",), "it has no meaning for live frames"),
        (("--frames=5", "--batch_size", "2"), "it has no meaning for live frames"),
        (("--peak_threshold", "high"), "must be a number"),
        (("--nonsense",), "it is not known"),
        (("stray",), "it is not an option"),
        (("--model_paths", "models/a"), "is said with --video"),
        (("-o", "out.slp"), "is said with --video"),
    ],
)
def test_what_is_refused(words: tuple[str, ...], sentence: str) -> None:
    result = run(*words)
    assert result.exit_code == USAGE
    assert sentence in result.stderr
    assert result.stdout == ""


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    mine = tmp_path / "mine.slp"
    mine.touch()
    result = run("--output", str(mine))
    assert result.exit_code == USAGE
    assert "nothing overwrites it" in result.stderr


def figures() -> LiveFigures:
    counted = LiveFigures()
    counted.taken, counted.sent, counted.dropped = 10, 8, 2
    for frame in range(6):
        counted.answer(LiveInstances(frame, 0, 1_000, 20_000, []), 0.1 * (frame + 1))
    counted.report = LiveReport(received=7, superseded=1, predicted=6)
    return counted


def test_the_figures_in_words() -> None:
    assert _summary(figures()) == [
        "10 frames, 6 answered (10.0 a second); 2 replaced before they were sent, 1 "
        "lost on the way, 1 replaced at the worker",
        "latency: 100 ms at least, median 400, 95 % below 600, 99 % below 600, at most "
        "600",
        "of it waiting at the worker: 1 ms at least, median 1, 95 % below 1, 99 % "
        "below 1, at most 1",
        "of it predicting: 20 ms at least, median 20, 95 % below 20, 99 % below 20, at "
        "most 20",
    ]
    assert _summary(LiveFigures()) == ["0 frames, 0 answered (0.0 a second)"]


def test_the_last_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    error = LiveEnded(worker="w", reason="it fell asleep")
    _Screen(as_json=True).end(figures(), error)
    line = json.loads(capsys.readouterr().out)
    assert line["event"] == "summary"
    assert line["error"] == str(error)
    assert (line["lost"], line["superseded"], line["answered"]) == (1, 1, 6)
