"""What a job publishes of what it trained, and how it tells it. No store."""

import pytest

from sleap_rtc_plugin.protocol.errors import AliasTaken, BadRequest, StoreUnreachable
from sleap_rtc_plugin.protocol.job_mirror import EventApplied, JobMirror
from sleap_rtc_plugin.protocol.messages import (
    JobSpec,
    ModelPublished,
    PredictStep,
    Step,
    TrainLog,
    TrainStep,
)
from sleap_rtc_plugin.protocol.model_records import Publication
from sleap_rtc_worker.journal import JobRecord
from sleap_rtc_worker.model_publishing import publications_of, refusal, sets_of
from sleap_rtc_worker.publish_outcome import Outcome, for_older_client, told

MODEL = "model-" + "1" * 20
OTHER = "model-" + "2" * 20


def train(head: str, name: str = "") -> TrainStep:
    return TrainStep(config="c.yaml", labels="l.slp", run_name=name or head, head=head)


PREDICT = PredictStep(data="l.slp", models=["models/x"], output="p.slp")


def spec(*steps: Step) -> JobSpec:
    return JobSpec(name="flies", steps=list(steps), publish=Publication(alias="f"))


@pytest.mark.parametrize(
    ("heads", "sets"),
    [
        (["centroid"], [["centroid"]]),
        (["bottomup"], [["bottomup"]]),
        (
            ["centroid", "centered_instance"],
            [["centroid", "centered_instance"]],
        ),
        (
            ["centered_instance", "centroid"],
            [["centroid", "centered_instance"]],
        ),
        (["centroid", "multi_class_topdown"], [["centroid", "multi_class_topdown"]]),
        # No set: one by one, the first training's last.
        (["centroid", "centroid"], [["centroid"], ["centroid"]]),
        (["single_instance", "bottomup"], [["bottomup"], ["single_instance"]]),
        (
            ["centroid", "centered_instance", "bottomup"],
            [["bottomup"], ["centered_instance"], ["centroid"]],
        ),
    ],
)
def test_a_top_down_pair_is_one_model(heads: list[str], sets: list[list[str]]) -> None:
    steps = [train(head, f"{head}-{n}") for n, head in enumerate(heads)]
    found = sets_of(spec(*steps, PREDICT))
    assert [[step.head for step in steps] for steps in found] == sets


def test_only_the_last_one_has_the_alias() -> None:
    wanted = Publication(alias="f", moves_alias=True, notes="n", tags=["t"])
    one = publications_of(wanted, 1)
    assert one == [wanted]
    first, second = publications_of(wanted, 2)
    assert (first.alias, first.moves_alias) == (None, False)
    assert (first.notes, first.tags) == ("n", ["t"])
    assert second == wanted


def test_all_trainings_must_have_ended_well() -> None:
    job = spec(train("centroid"), train("centered_instance"), PREDICT)
    assert isinstance(refusal(job, [0]), BadRequest)
    assert isinstance(refusal(job, []), BadRequest)
    # An inference that failed takes nothing away from the models.
    assert refusal(job, [0, 1]) is None
    assert refusal(job, [0, 1, 2]) is None


def record() -> JobRecord:
    return JobRecord(
        job_id="job-" + "0" * 20,
        spec=spec(train("centroid")),
        package_digest="0" * 64,
        package_bytes=1,
        submitter="c",
        created_at=1.0,
        step=0,
    )


def test_what_became_of_it_is_told_in_events_and_words() -> None:
    taken = AliasTaken(alias="f", model=OTHER)
    after, events = told(
        record(),
        [Outcome(model=OTHER), Outcome(model=MODEL, alias="f")],
        seq=7,
        now=2.0,
    )
    assert (after.model, after.alias) == (MODEL, "f")
    assert [event.seq for event in events] == [8, 9, 10, 11]
    lines = [line for e in events if isinstance(e, TrainLog) for line in e.lines]
    assert lines == [
        f"Published as {OTHER}, without an alias.",
        f"Published as f ({MODEL}).",
    ]
    after, events = told(record(), [Outcome(model=MODEL, error=taken)], 0, 2.0)
    assert (after.model, after.alias) == (MODEL, None)
    published = events[1]
    assert isinstance(published, ModelPublished)
    assert published.model == MODEL
    assert published.error == taken.to_wire()
    assert "belongs to" in events[0].lines[0]  # type: ignore[union-attr]


def test_an_older_client_sees_no_gap_in_the_events() -> None:
    _, events = told(record(), [Outcome(model=MODEL, alias="f")], 0, 2.0)
    shown = [for_older_client(event) for event in events]
    assert [type(event) for event in shown] == [TrainLog, TrainLog]
    assert [event.seq for event in shown] == [1, 2]
    mirror = JobMirror("job-" + "0" * 20, record().spec)
    assert all(isinstance(mirror.handle(event), EventApplied) for event in shown)


def test_one_that_is_not_there_leaves_the_job_without_a_model() -> None:
    away = StoreUnreachable(store="s3://lab", reason="it timed out")
    after, events = told(record(), [Outcome(error=away)], 0, 2.0)
    assert after.model is None
    assert len(events) == 2
    assert "not published" in events[0].lines[0]  # type: ignore[union-attr]
    assert told(record(), [], 0, 2.0) == (record(), [])
