"""Jobs as rows and as JSON lines."""

import json

import pytest

from sleap_rtc_plugin.cli.job_log import shown_line
from sleap_rtc_plugin.cli.job_words import COLUMNS, job_line, job_row, span
from sleap_rtc_plugin.protocol.errors import JobCancelled
from sleap_rtc_plugin.protocol.messages import JobSummary
from sleap_rtc_plugin.session.job_search import FoundJob
from sleap_rtc_plugin.session.worker_info import WorkerInfo

WORKER = WorkerInfo(
    peer_id="worker-1",
    name="gpu-box",
    status="busy",
    device="cuda",
    gpu_model=None,
    gpu_memory_mb=None,
    gpu_free_mb=None,
    queue_length=0,
    running_jobs=1,
    sleap_nn_version=None,
)
ID = "job-" + "a" * 20


def found(**fields: object) -> FoundJob:
    row = {"job_id": ID, "name": "flies", "state": "running", "steps": 2}
    return FoundJob(WORKER, JobSummary(**(row | {"created_at": 1000.0} | fields)))


def cells(now: float = 1000.0, **fields: object) -> dict[str, str]:
    return dict(zip(COLUMNS, job_row(found(**fields), now), strict=True))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-5, "0 s"), (0, "0 s"), (59, "59 s"), (61, "1 min"), (7200, "2 h"), (2e5, "2 d")],
)
def test_spans(seconds: float, words: str) -> None:
    assert span(seconds) == words


def test_a_job_that_runs() -> None:
    row = cells(now=4600.0, owner="ann", step=0, epoch=11)
    assert row["State"] == "running, step 1 of 2, epoch 12"
    assert (row["Owner"], row["Worker"], row["Age"]) == ("ann", "gpu-box", "1 h")
    assert row["Queue"] == row["Kept for"] == ""
    assert cells(step=1, done=5, total=10)["State"].endswith("5 of 10 frames")


def test_a_job_that_waits_and_one_that_is_kept() -> None:
    assert cells(state="queued", position=3)["Queue"] == "3."
    waiting = cells(state="queued", position=1, starts_in_s=720.0)
    assert waiting["Queue"] == "1. in about 12 min"
    kept = cells(state="succeeded", expires_at=1000.0 + 86_400 * 3)
    assert (kept["State"], kept["Kept for"]) == ("succeeded", "3 d")
    assert cells(state="succeeded", results_removed=True)["Kept for"] == "removed"


def test_a_json_line_has_every_field() -> None:
    line = job_line(found(error=JobCancelled(job_id=ID).to_wire()))
    assert line["worker"] == "gpu-box"
    assert line["worker_id"] == "worker-1"
    assert set(JobSummary.__struct_fields__) <= line.keys()
    assert line["position"] is None
    assert line["error"]["code"] == "job_cancelled"
    assert ID in line["error"]["message"]
    json.dumps(line)


def test_a_line_of_a_log_keeps_its_indentation_and_nothing_else() -> None:
    assert shown_line("    lr: 0.1") == "    lr: 0.1"
    assert shown_line("\x1b[2Jx") == "[2Jx"
    assert shown_line("") == ""
