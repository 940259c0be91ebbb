"""Options of sleap-nn among those of `sleap-remote predict`."""

import pytest
from click.testing import CliRunner

from sleap_rtc_plugin.cli.inference_words import option_rows, split_words
from sleap_rtc_plugin.cli.predict import predict
from sleap_rtc_plugin.protocol.inference_options import OPTIONS, parse_argv

OWN = {"--model": True, "-m": True, "--json": False, "--worker": True}


@pytest.mark.parametrize(
    ("line", "own", "inference"),
    [
        ("a.mp4 --model x", "a.mp4 --model x", ""),
        ("--peak_threshold 0.1 a.mp4", "a.mp4", "--peak_threshold 0.1"),
        ("--peak-threshold=0.1 a.mp4", "a.mp4", "--peak-threshold=0.1"),
        ("-n 2 a.mp4 -b4 b.mp4", "a.mp4 b.mp4", "-n 2 -b4"),
        ("--tracking a.mp4", "a.mp4", "--tracking"),
        ("--no-ensure-rgb a.mp4", "a.mp4", "--no-ensure-rgb"),
        ("--min_line_scores -0.5 a.mp4", "a.mp4", "--min_line_scores -0.5"),
        ("--worker --tracking a.mp4", "--worker --tracking a.mp4", ""),
        ("--model=x --json a.mp4", "--model=x --json a.mp4", ""),
        ("--device cuda a.mp4", "a.mp4", "--device cuda"),
        ("--headers {} a.mp4", "a.mp4", "--headers {}"),
        ("--peak_treshold 0.1", "--peak_treshold 0.1", ""),
        ("--tracking -- --frames 1", "-- --frames 1", "--tracking"),
        ("--frames", "", "--frames"),
    ],
)
def test_words_are_told_apart(line: str, own: str, inference: str) -> None:
    found = split_words(line.split(), OWN.get)
    assert found == (own.split(), inference.split())


def test_both_spellings_are_the_same() -> None:
    for name, value in (("peak_threshold", "0.1"), ("tracking", "")):
        words = [value] if value else []
        for spelled in (name, name.replace("_", "-")):
            _, inference = split_words([f"--{spelled}", *words], OWN.get)
            assert parse_argv(inference).options == {name: value}


def test_help_lists_every_option_once() -> None:
    rows = [name for _, group in option_rows() for name, _ in group]
    assert rows == [f"--{name}" for name in OPTIONS]
    shown = CliRunner().invoke(predict, ["--help"]).output
    assert "Tracking (options of sleap-nn)" in shown
    assert all(f"--{name}" in shown for name in OPTIONS)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("", "No DATA is given"),
        ("a.mp4", "No model is given"),
        ("a.mp4 -m x --frames x", "--frames is not accepted: it must be a range"),
        ("a.mp4 -m x --peak-threshold", "--peak_threshold is not accepted"),
        ("a.mp4 -m x --tracker best", "--tracker is not accepted: it must be one of"),
        ("a.mp4 -m x --headers {}", "no web addresses"),
        ("a.mp4 -m x --peak_treshold 1", "No such option"),
        ("a.mp4 -m x -o y.slp", "--output names the folder"),
        ("a.mp4 -m x --random-frames 0", "--random-frames"),
        ("nothing.mp4 -m x", "nothing.mp4 does not exist"),
    ],
)
def test_a_bad_command_line_is_one_sentence(words: str, sentence: str) -> None:
    outcome = CliRunner().invoke(predict, words.split())
    assert outcome.exit_code == 2
    assert sentence in outcome.output
