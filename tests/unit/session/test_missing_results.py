"""A worker that says it succeeded must have sent what was asked for."""

from pathlib import Path

import pytest

from sleap_rtc_plugin.protocol.job import JobState
from sleap_rtc_plugin.protocol.job_mirror import JobMirror
from sleap_rtc_plugin.protocol.messages import JobSpec, PredictStep, TrainStep
from sleap_rtc_plugin.session.result_import import ImportedResults
from sleap_rtc_plugin.session.submission import missing_results

SPEC = JobSpec(
    name="flies",
    steps=[
        TrainStep(config="a", labels="l", run_name="1.centroid", head="centroid"),
        TrainStep(config="b", labels="l", run_name="2.bottomup", head="bottomup"),
        PredictStep(data="l", models=["models/1.centroid"], output="p.predictions.slp"),
    ],
)


def mirror(state: JobState = JobState.SUCCEEDED) -> JobMirror:
    made = JobMirror("job-" + "0" * 20, SPEC)
    made.state = state
    return made


def home(*names: str) -> ImportedResults:
    models = [Path("models") / name for name in names if not name.endswith(".slp")]
    files = [Path(name) for name in names if name.endswith(".slp")]
    return ImportedResults(models=models, predictions=files)


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (("1.centroid", "2.bottomup", "p.predictions.slp"), []),
        (("1.centroid (2)", "2.bottomup", "p.predictions (2).slp"), []),
        (("1.centroid", "p.predictions.slp"), ["models/2.bottomup"]),
        (("1.centroid", "2.bottomup"), ["p.predictions.slp"]),
        ((), ["models/1.centroid", "models/2.bottomup", "p.predictions.slp"]),
    ],
)
def test_what_is_missing_is_named(names: tuple[str, ...], missing: list[str]) -> None:
    assert missing_results(mirror(), home(*names)) == missing


def test_of_a_stopped_or_failed_job_less_is_expected() -> None:
    stopped = mirror()
    stopped.was_stopped = True
    assert missing_results(stopped, home("1.centroid")) == []
    assert missing_results(mirror(JobState.FAILED), home()) == []


def test_each_of_several_predictions_on_the_same_data_is_expected() -> None:
    names = ("fly.a.predictions.slp", "fly.b.predictions.slp")
    steps = [PredictStep(data="fly.mp4", models=["m"], output=name) for name in names]
    made = JobMirror("job-" + "0" * 20, JobSpec(name="fly", steps=steps))
    made.state = JobState.SUCCEEDED
    assert missing_results(made, home(*names)) == []
    assert missing_results(made, home(names[0])) == [names[1]]
