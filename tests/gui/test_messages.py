"""The words for the user: every error, every situation, every quantity."""

import re
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.scripted_host import job_row, make_run, make_worker

from sleap_rtc_plugin.companion.messages import WorkerRow
from sleap_rtc_plugin.gui import messages
from sleap_rtc_plugin.gui.messages import (
    CLOSING_QUESTION,
    MAX_WORDS_CHARS,
    closing_question,
    error_words,
    job_words,
    plan_words,
    project_file_gone,
    project_moved,
    project_replaced,
    results_without_project,
    takes_jobs,
    worker_back,
    worker_gone,
    worker_state,
)
from sleap_rtc_plugin.gui.quantities import (
    format_duration,
    format_memory,
    format_rate,
    format_round_trip,
    format_size,
)
from sleap_rtc_plugin.protocol import errors
from sleap_rtc_plugin.protocol.errors import RtcError, error_types
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.job import JobState
from sleap_rtc_plugin.session.run_request import MergeChoice, TrainedModel

# Only the project's own: other tests may make leaves of theirs.
LEAVES = [leaf for leaf in error_types().values() if errors.__name__ in leaf.__module__]
HOSTILE = "<b>\x1b[31m\u202e</b>\n" + "x" * 10_000
COMMAND_LINE = re.compile(r"`| --\w|sleap-remote|the same command|list its jobs")
SITUATIONS = {
    name: value
    for name, value in vars(messages).items()
    if name in messages.__all__ and isinstance(value, str)
}

every_leaf = pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: leaf.code)


def filled(leaf: type[RtcError], value: str | None = None) -> RtcError:
    names = [field.name for field in fields(leaf)]
    return leaf(**{name: f"<{name}>" if value is None else value for name in names})


def is_clean(text: str) -> bool:
    lines = text.split("\n")
    return all(clean_text(line, 10**6) == line.strip() for line in lines)


@every_leaf
def test_every_error_has_words_for_someone_without_a_terminal(
    leaf: type[RtcError],
) -> None:
    words = error_words(filled(leaf))
    assert words.endswith((".", ":", ">"))
    assert not COMMAND_LINE.search(words)
    assert "{" not in words


@every_leaf
def test_a_hostile_field_neither_breaks_nor_floods_the_words(
    leaf: type[RtcError],
) -> None:
    words = error_words(filled(leaf, HOSTILE + "{0}{reason}"))
    assert 0 < len(words) <= MAX_WORDS_CHARS
    assert is_clean(words)


def test_the_table_names_no_error_that_does_not_exist() -> None:
    assert set(messages._ERRORS) <= set(LEAVES)


def test_an_expired_sign_in_says_what_to_do() -> None:
    error = errors.TokenRefused(server="http://lab:8080", reason="it has expired")
    assert "expired" in error_words(error)
    assert "sign in again" in error_words(error)


@pytest.mark.parametrize("name", SITUATIONS)
def test_every_situation_is_a_sentence(name: str) -> None:
    assert SITUATIONS[name].endswith(".")
    assert is_clean(SITUATIONS[name])


@pytest.mark.parametrize(
    "say",
    [
        project_file_gone,
        worker_gone,
        worker_back,
        project_moved,
        project_replaced,
        closing_question,
        lambda name: results_without_project(name, name),
    ],
)
def test_situations_with_a_name_survive_any_name(say: object) -> None:
    assert callable(say)
    words = say(HOSTILE)
    assert is_clean(words)
    assert len(words) < 1000
    assert "gpu-1" in say("gpu-1")


def test_the_question_at_closing_has_two_ways_out() -> None:
    labels = {CLOSING_QUESTION.finish, CLOSING_QUESTION.stop}
    mnemonics = {label[label.index("&") + 1].lower() for label in labels}
    assert len(mnemonics) == 2


# -- jobs and workers ------------------------------------------------------------------


@pytest.mark.parametrize("state", [*JobState, "packaging", "unsent"])
def test_every_state_of_a_job_has_words(state: str) -> None:
    assert job_words(job_row("job-1", state)) != "Unknown"


def test_a_running_job_says_how_far_it_is() -> None:
    training = job_row("j", "running", step=1, steps=3, epoch=11)
    assert job_words(training) == "Training, step 2 of 3, epoch 12"
    predicting = job_row("j", "running", step=2, steps=3, done=1200, total=4000)
    assert job_words(predicting) == "Predicting 1,200 of 4,000 frames"
    assert job_words(job_row("j", "running")) == "Training"
    queued = job_row("j", "queued")
    assert job_words(queued) == "Waiting in the queue"
    third = job_row("j", "queued", position=3)
    assert job_words(third) == "Third in the queue"
    soon = job_row("j", "queued", position=1, starts_in_s=7300.0)
    assert job_words(soon) == "First in the queue, starts in about 2 h"
    old = job_row("j", "failed", are_results_removed=True)
    assert job_words(old) == "Failed, results removed"
    assert job_words(job_row("j", "from the future")) == "Unknown"


@pytest.mark.parametrize(
    ("worker", "able", "words"),
    [
        (make_worker("w"), True, "Available"),
        (make_worker("w", status="busy"), True, "Busy"),
        (make_worker("w", refusal="No."), False, "Takes no jobs"),
        (make_worker("w", status="closing", refusal="No."), False, "Closing"),
        (make_worker("w", status="starting"), False, "Starting"),
        (make_worker("w", status="<b>"), False, "Unknown"),
    ],
)
def test_who_takes_jobs(worker: WorkerRow, able: bool, words: str) -> None:
    assert takes_jobs(worker) is able
    assert worker_state(worker) == words


# -- runs ------------------------------------------------------------------------------

CENTROID = TrainedModel(head="centroid", path="/m/c")
INSTANCE = TrainedModel(head="centered_instance", path="/m/i")
ON_FRAMES = ["--data_path", "a.slp", "--video_index", "0", "--frames"]


def test_what_a_run_does() -> None:
    run = make_run()
    assert plan_words(run) == (
        "Top-down: train 2 models, then predict on the suggested frames"
    )
    assert plan_words(make_run(predictions=[])) == "Top-down: train 2 models"
    partly = make_run(models=[CENTROID, run.models[1]], predictions=[])
    assert plan_words(partly) == "Top-down: train 1 model, use 1 trained model"
    mixed = make_run(models=[run.models[0]], predictions=[])
    assert plan_words(mixed) == "Train 1 model"


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ([["1,2,9"]], "random frames of all videos (3 frames)"),
        ([["1,2,9"], ["4,5"]], "random frames of all videos (5 frames)"),
        ([["10,-29"]], "random frames of all videos (20 frames)"),
        ([["29,-10"]], "random frames of all videos"),
        ([["4"]], "random frames of all videos"),
        ([["1,2"], None], "random frames of all videos"),
        ([["x,y"]], "random frames of all videos"),
        ([[]], "random frames of all videos"),
    ],
)
def test_frames_are_counted_where_they_are_named(
    frames: list[list[str] | None], words: str
) -> None:
    argv = [[*ON_FRAMES, *f] if f is not None else ["--data_path", "a"] for f in frames]
    run = make_run(
        models=[CENTROID, INSTANCE],
        predictions=argv,
        merge=MergeChoice(target="random"),
    )
    assert plan_words(run) == f"Top-down: predict on {words} with 2 trained models"


# -- quantities ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size_bytes", "words"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (8_140_000, "8.1 MB"),
        (120_000_000, "120 MB"),
        (999_600_000, "1.0 GB"),
        (1.5e12, "1.5 TB"),
        (5e15, "5,000 TB"),
        (-1, "–"),  # noqa: RUF001
        (float("nan"), "–"),  # noqa: RUF001
        (float("inf"), "–"),  # noqa: RUF001
    ],
)
def test_sizes(size_bytes: float, words: str) -> None:
    assert format_size(size_bytes) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "0 s"),
        (44.6, "45 s"),
        (59.7, "1 min"),
        (200, "3 min 20 s"),
        (7500, "2 h 5 min"),
        (90_000, "1 d 1 h"),
        (float("inf"), "–"),  # noqa: RUF001
    ],
)
def test_durations(seconds: float, words: str) -> None:
    assert format_duration(seconds) == words


def test_other_quantities() -> None:
    assert format_rate(8_140_000) == "8.1 MB/s"
    assert format_rate(float("nan")) == format_size(-1)
    assert format_memory(18_637, 24_564) == "18.2 / 24.0 GiB"
    assert format_memory(None, 24_564) == "24.0 GiB"
    assert format_memory(5, None) == format_round_trip(None)
    assert format_round_trip(12.4) == "12 ms"
    assert format_round_trip(0.2) == "< 1 ms"


@given(st.floats() | st.integers(-(10**30), 10**30))
def test_no_number_breaks_a_quantity(number: float) -> None:
    for say in (format_size, format_rate, format_duration, format_round_trip):
        assert 0 < len(say(number)) < 60
