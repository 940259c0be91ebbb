"""A training of 24 hours, told as fast as its time can be made to pass.

Goes through the step machine, the reporter and the journal, as in the runner and the
worker; only the clock is not real. Started by hand, with `-m slow -s`: it prints what
ARCHITECTURE.md says.
"""

import json
import sys
import time
from pathlib import Path

import msgspec
import psutil
import pytest

from sleap_rtc_plugin.protocol.job import JobState
from sleap_rtc_plugin.protocol.job_mirror import EventApplied, JobMirror
from sleap_rtc_plugin.protocol.messages import JobSpec, TrainStep
from sleap_rtc_worker.journal import JobRecord, Journal
from sleap_rtc_worker.progress_reporter import to_message
from sleap_rtc_worker.step_machine import Emit, Message, Output, Started, StepMachine
from sleap_rtc_worker.step_records import StepOrder, StepProgress, encode_event
from sleap_rtc_worker.step_restart import reached_by

DAY_S = 24 * 3600
BATCHES_PER_S = 20
EPOCH_S = 60
LINES_PER_S = 5
MIB = 1024 * 1024
JOB = "job-" + "0" * 20
SPEC = JobSpec(
    name="flies",
    steps=[TrainStep(config="c.yaml", labels="l.slp", run_name="r", head="centroid")],
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(0)]


def happenings(second: int) -> list[Message | Output]:
    """Return what sleap-nn says in one second of its training."""
    epoch, at = divmod(second, EPOCH_S)
    said: list[Message | Output] = []
    if at == 0:
        said.append(message("epoch_begin", epoch=epoch))
    for number in range(BATCHES_PER_S):
        batch = at * BATCHES_PER_S + number
        said.append(message("batch_end", {"loss": 0.0123456789}, epoch, batch))
    for _ in range(LINES_PER_S):
        said.append(
            Output("err", b"2026-11-23 15:27:45 | INFO | some words " * 2 + b"\n")
        )
    if at == EPOCH_S - 1:
        logs = {"loss": 0.01, "train/loss": 0.0123456789, "val/loss": 0.0123456789}
        said.append(message("epoch_end", logs, epoch))
    return said


def message(
    event: str, logs: object = None, epoch: int = 0, batch: int | None = None
) -> Message:
    told = {"what": "", "event": event, "logs": logs, "epoch": epoch, "batch": batch}
    return Message(json.dumps(told).encode())


def test_a_day_of_training(tmp_path: Path) -> None:
    machine = StepMachine(StepOrder(kind="train", argv=["x"], cwd="/"))
    journal = Journal(tmp_path)
    record = JobRecord(
        job_id=JOB,
        spec=SPEC,
        package_digest="0" * 64,
        package_bytes=1,
        submitter="client",
        created_at=1.0,
        state=JobState.RUNNING,
        step=0,
    )
    process = psutil.Process()
    before_bytes = process.memory_info().rss
    runner_bytes = seq = 0
    writing_s = 0.0
    machine.handle(Started(1, 1.0), 0.0)
    for second in range(DAY_S):
        said = happenings(second)
        for number, happening in enumerate(said):
            now = second + number / len(said)
            for instruction in machine.handle(happening, now):
                assert isinstance(instruction, Emit)
                event = instruction.event
                runner_bytes += len(encode_event(event))
                seq += 1
                wire = to_message(JOB, 0, seq, event)
                assert wire is not None
                if isinstance(event, StepProgress):
                    reached = reached_by(record.reached, event)
                    record = msgspec.structs.replace(record, reached=reached)
                begun = time.perf_counter()
                journal.write(record, [wire])
                writing_s += time.perf_counter() - begun
    grown_bytes = process.memory_info().rss - before_bytes
    # A client that comes back after the day is told all of it.
    mirror, since, begun = JobMirror(JOB, SPEC), 0, time.perf_counter()
    while page := journal.events(JOB, since):
        for event in page:
            assert isinstance(mirror.handle(event), EventApplied)
        since = page[-1].seq
    replay_s = time.perf_counter() - begun
    assert mirror.steps[0].epoch == DAY_S // EPOCH_S - 1
    journal.close()
    begun = time.perf_counter()
    Journal(tmp_path).close()
    opening_s = time.perf_counter() - begun
    journal_bytes = (tmp_path / "journal.sqlite3").stat().st_size
    sys.stderr.write(
        f"{seq} events of {DAY_S * (BATCHES_PER_S + LINES_PER_S)} batches and lines; "
        f"journal {journal_bytes / MIB:.1f} MiB, runner's file "
        f"{runner_bytes / MIB:.1f} MiB, memory grown by {grown_bytes / MIB:.1f} MiB; "
        f"{writing_s / seq * 1e6:.0f} us a write; read again in {replay_s:.1f} s, "
        f"opened in {opening_s:.2f} s\n"
    )
    assert seq < 120_000
    assert journal_bytes < 64 * MIB
    assert grown_bytes < 64 * MIB
