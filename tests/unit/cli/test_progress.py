"""What a terminal and a program read of a submission."""

import json
from pathlib import Path
from typing import Any

import pytest

from sleap_rtc_plugin.cli.bars import MIN_JSON_INTERVAL_S
from sleap_rtc_plugin.cli.progress import TerminalObserver
from sleap_rtc_plugin.protocol.errors import (
    AliasTaken,
    RegistryBusy,
    StepFailed,
)
from sleap_rtc_plugin.protocol.job_mirror import JobMirror
from sleap_rtc_plugin.protocol.messages import (
    JobEvent,
    JobSpec,
    ModelPublished,
    PredictStep,
    ProgressReport,
    StepEvent,
    TrainLog,
    TrainStep,
)
from sleap_rtc_plugin.protocol.queue_messages import JobQueue
from sleap_rtc_plugin.session.report import Report
from sleap_rtc_plugin.transport.transfer_pump import TransferTotals

JOB = "job-" + "0" * 20
SPEC = JobSpec(
    name="flies",
    steps=[
        TrainStep(
            config="c.yaml", labels="l.slp", run_name="r", head="single_instance"
        ),
        PredictStep(data="l.slp", models=["models/r"], output="p.slp"),
    ],
)
TO_THE_END: list[StepEvent] = [
    JobEvent(job_id=JOB, seq=1, at=0, state="staging"),
    JobEvent(job_id=JOB, seq=2, at=0, state="queued"),
    JobEvent(job_id=JOB, seq=3, at=0, state="starting", step=0),
    ProgressReport(job_id=JOB, seq=4, at=0, step=0, kind="epoch_begin", epoch=0),
    ProgressReport(
        job_id=JOB, seq=5, at=0, step=0, kind="batch_end", batch=0, losses={"loss": 0.5}
    ),
    ProgressReport(
        job_id=JOB, seq=6, at=0, step=0, kind="epoch_end", losses={"val/loss": 0.25}
    ),
    TrainLog(job_id=JOB, seq=7, at=0, step=0, lines=["[red]not markup[/red]"]),
    ProgressReport(
        job_id=JOB, seq=8, at=0, step=1, kind="predict", done=5, total=10, rate=2.5
    ),
]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def show(observer: TerminalObserver, events: list[StepEvent]) -> None:
    mirror = JobMirror(JOB, SPEC)
    with observer:
        for event in events:
            mirror.handle(event)
            observer.event(event, mirror)


def test_a_script_reads_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    observer = TerminalObserver(as_json=True, clock=Clock())
    show(observer, TO_THE_END)
    observer.finish(Report(state="succeeded", models=["/m"]))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["event"] for line in lines[:-1]] == [
        *("state", "state", "state"),
        *("progress", "progress", "progress", "log", "progress"),
    ]
    assert lines[4]["losses"] == {"loss": 0.5}
    assert set(lines[-1]) == {
        *("state", "job_id", "worker", "models", "predictions", "bytes_total"),
        *("bytes_sent", "bytes_reused", "seconds", "link", "error"),
    }
    assert set(lines[-1]["seconds"]) == {
        *("package", "transfer", "queue", "run", "results")
    }


def test_a_person_without_a_terminal_reads_epochs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    observer = TerminalObserver(as_json=False)
    show(observer, TO_THE_END)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Starting sleap-nn: Training single instance." in captured.err
    assert "epoch 1, batch loss 0.5, val loss 0.25" in captured.err


def test_a_person_reads_what_the_worker_did_and_not_the_whole_log(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = ["Epoch 3 of 9", "[worker] the training was cut off (restart 1 of 5)"]
    log = TrainLog(job_id=JOB, seq=8, at=0, step=0, lines=lines)
    show(TerminalObserver(as_json=False), [*TO_THE_END[:7], log])
    said = capsys.readouterr().err
    assert "the training was cut off (restart 1 of 5)" in said
    assert "Epoch 3 of 9" not in said


def test_batches_are_thinned_and_epochs_are_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = Clock()
    observer = TerminalObserver(as_json=True, clock=clock)
    batches: list[StepEvent] = [
        ProgressReport(job_id=JOB, seq=n, at=0, step=0, kind="batch_end", batch=n)
        for n in range(1, 101)
    ]
    epochs: list[StepEvent] = [
        ProgressReport(job_id=JOB, seq=n, at=0, step=0, kind="epoch_end", epoch=n)
        for n in range(101, 111)
    ]
    mirror = JobMirror(JOB, SPEC)
    for event in [*batches, *epochs]:
        mirror.handle(event)
        observer.event(event, mirror)
        clock.now += MIN_JSON_INTERVAL_S / 50
    kinds = [json.loads(x)["kind"] for x in capsys.readouterr().out.splitlines()]
    assert kinds.count("batch_end") == 2
    assert kinds.count("epoch_end") == 10


def totals(reused: int, moved: int, verified: int) -> TransferTotals:
    return TransferTotals(
        total_bytes=100_000_000,
        reused_bytes=reused * 1_000_000,
        moved_bytes=moved * 1_000_000,
        verified_bytes=verified * 1_000_000,
    )


def test_a_transfer_tells_its_end_once(capsys: pytest.CaptureFixture[str]) -> None:
    observer = TerminalObserver(as_json=True, clock=Clock())
    observer.transferring("package", totals(60, 40, 100))
    observer.transferring("package", totals(60, 40, 100))
    captured = capsys.readouterr()
    (line,) = [json.loads(x) for x in captured.out.splitlines()]
    assert (line["bytes_sent"], line["bytes_reused"]) == (40_000_000, 60_000_000)
    assert captured.err.splitlines() == [
        "Sent 40.0 MB of 100.0 MB; 60.0 MB were there already; all of it verified "
        "after 0.0 s."
    ]


def test_a_transfer_says_total_reused_sent_verified_rate_and_time_left(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = Clock()
    observer = TerminalObserver(as_json=True, clock=clock)
    for now, step in (
        (0.0, totals(60, 0, 0)),
        (2.0, totals(60, 20, 0)),
        (4.0, totals(60, 40, 0)),
        (5.0, totals(60, 40, 100)),
    ):
        clock.now = now
        observer.transferring("package", step)
    captured = capsys.readouterr()
    lines = [json.loads(line) for line in captured.out.splitlines()]
    assert [line["bytes_verified"] for line in lines] == [0, 0, 0, 100_000_000]
    assert [line["bytes_per_s"] for line in lines] == [0, *[10_000_000] * 2, 8_000_000]
    assert [line["seconds_left"] for line in lines] == [None, 2.0, 0.0, 0.0]
    assert captured.err.endswith("; all of it verified after 5.0 s.\n")


def test_what_was_not_there_is_not_spoken_of(
    capsys: pytest.CaptureFixture[str],
) -> None:
    observer = TerminalObserver(as_json=False, clock=Clock())
    observer.transferring("results", totals(0, 100, 100))
    err = capsys.readouterr().err
    assert err == "Fetched 100.0 MB; all of it verified after 0.0 s.\n"


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (totals(0, 0, 0), "0 bytes of 100.0 MB"),
        (totals(0, 20, 0), "20.0 MB of 100.0 MB, 10.0 MB/s, 8 s left"),
        (
            totals(60, 20, 0),
            "80.0 MB of 100.0 MB, 60.0 MB were there already, 10.0 MB/s, 2 s left",
        ),
        (
            totals(60, 40, 0),
            "100.0 MB of 100.0 MB, 60.0 MB were there already, 20.0 MB/s, being "
            "verified",
        ),
        (
            totals(100, 0, 100),
            "100.0 MB of 100.0 MB, 100.0 MB were there already, verified",
        ),
    ],
    ids=["begun", "sent", "reused", "all sent", "nothing new"],
)
def test_what_stands_beside_the_bar(
    monkeypatch: pytest.MonkeyPatch, step: TransferTotals, words: str
) -> None:
    clock = Clock()
    observer = TerminalObserver(as_json=False, clock=clock)
    drawn: list[str] = []
    monkeypatch.setattr(observer, "_draw", lambda *args: drawn.append(args[-1]))
    observer.transferring("package", totals(0, 0, 0))
    clock.now = 2.0
    observer.transferring("package", step)
    assert drawn[-1] == words


def test_an_error_is_in_the_state_line_and_the_report(
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = StepFailed(step="Training", reason="it broke", last_lines="boom")
    failed = JobEvent(job_id=JOB, seq=1, at=0, state="failed", error=error.to_wire())
    observer = TerminalObserver(as_json=True, clock=Clock())
    show(observer, [failed])
    report = Report(state="failed")
    report.set_error(error)
    observer.finish(report)
    state, last = [json.loads(x) for x in capsys.readouterr().out.splitlines()]
    assert state["error"] == last["error"]
    assert last["error"]["code"] == "step_failed"
    assert "boom" in last["error"]["message"]


def test_results_are_listed_on_stdout(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    observer = TerminalObserver(as_json=False)
    observer.finish(Report(state="succeeded", models=["/a"], predictions=["/p"]))
    captured = capsys.readouterr()
    assert captured.out.splitlines() == ["/a", "/p"]
    assert "1 model and 1 file of predictions came home" in captured.err


def test_a_place_in_the_queue_is_told_when_its_words_change(
    capsys: pytest.CaptureFixture[str],
) -> None:
    observer = TerminalObserver(as_json=True)
    mirror = JobMirror(JOB, SPEC)
    news = [
        *TO_THE_END[:2],
        JobQueue(job_id=JOB, position=3, waiting=4, starts_in_s=715.0),
        JobQueue(job_id=JOB, position=3, waiting=4, starts_in_s=721.0),
        JobQueue(job_id=JOB, position=1, waiting=2),
        TO_THE_END[2],
    ]
    with observer:
        for one in news:
            if isinstance(one, JobQueue):
                assert mirror.take_place(one)
            else:
                mirror.handle(one)
            observer.event(one, mirror)
    assert not mirror.take_place(JobQueue(job_id=JOB, position=1, waiting=1))
    said = capsys.readouterr()
    assert "Third in the queue of the worker; starts in about 12 min.\n" in said.err
    assert "First in the queue of the worker.\n" in said.err
    lines = [json.loads(line) for line in said.out.splitlines()]
    assert [line for line in lines if line["event"] == "queue"] == [
        {"event": "queue", "position": 3, "waiting": 4, "starts_in_s": 715},
        {"event": "queue", "position": 1, "waiting": 2},
    ]


def test_a_prediction_says_how_fast_it_is_and_how_long_it_takes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    last = ProgressReport(
        job_id=JOB, seq=9, at=0, step=1, kind="predict", done=10, total=10, rate=2.5
    )
    clock = Clock()
    observer = TerminalObserver(as_json=True, clock=clock)
    show(observer, TO_THE_END)
    captured = capsys.readouterr()
    line = json.loads(captured.out.splitlines()[-1])
    assert (line["done"], line["total"], line["rate"]) == (5, 10, 2.5)
    assert line["seconds_left"] == 2.0
    show(TerminalObserver(as_json=False), [*TO_THE_END, last])
    captured = capsys.readouterr()
    assert "Predicting l.slp: 10 of 10 frames, 2.5 frames/s" in captured.err


MODEL = "model-0123456789abcdef0123"


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ({"model": MODEL, "alias": "fly"}, [f"Published as fly ({MODEL})."]),
        ({"model": MODEL}, [f"Published as {MODEL}."]),
        (
            {
                "model": MODEL,
                "error": AliasTaken(alias="fly", model="model-x").to_wire(),
            },
            [f"Published as {MODEL}.", "The alias was not given: The alias fly"],
        ),
        (
            {"error": RegistryBusy(store="/lab").to_wire()},
            ["Not published: Too many others"],
        ),
    ],
)
def test_what_was_published_is_said(
    capsys: pytest.CaptureFixture[str], event: dict[str, Any], words: list[str]
) -> None:
    published = ModelPublished(job_id=JOB, seq=9, at=0, **event)
    show(TerminalObserver(as_json=True), [*TO_THE_END, published])
    captured = capsys.readouterr()
    line = json.loads(captured.out.splitlines()[-1])
    assert line["event"] == "published"
    assert line["model"] == event.get("model")
    assert ("error" in line) == ("error" in event)
    assert all(word in captured.err for word in words)
