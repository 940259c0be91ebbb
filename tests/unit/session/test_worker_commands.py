"""Which feature a command needs, so that an older worker is told nothing new."""

import msgspec
import pytest

from sleap_rtc_plugin.protocol.features import JOB_IMAGES, MODELS
from sleap_rtc_plugin.protocol.messages import (
    JobFetch,
    JobSpec,
    JobSubmit,
    PredictStep,
    TrainStep,
)
from sleap_rtc_plugin.protocol.model_messages import ModelList
from sleap_rtc_plugin.protocol.model_records import Publication
from sleap_rtc_plugin.session.worker_commands import Command, feature_of

MODEL = "model-" + "0" * 20
TRAIN = TrainStep(config="c.yaml", labels="t.slp", run_name="r", head="centroid")
PREDICT = PredictStep(data="l.slp", output="p.slp", models=["models/r"])
BORROWED = PredictStep(data="l.slp", output="p.slp", published=MODEL)
SPEC = JobSpec(name="n", steps=[TRAIN, PREDICT])


def submit(spec: JobSpec) -> JobSubmit:
    return JobSubmit(
        command_id="c-1",
        job_id="job-1",
        package_digest="0" * 64,
        package_bytes=1,
        spec=spec,
    )


@pytest.mark.parametrize(
    ("command", "feature"),
    [
        (submit(SPEC), None),
        (submit(msgspec.structs.replace(SPEC, publish=Publication())), MODELS),
        (submit(msgspec.structs.replace(SPEC, steps=[PREDICT, BORROWED])), MODELS),
        (JobFetch(command_id="c-1", job_id="job-1"), None),
        (JobFetch(command_id="c-1", job_id="job-1", part="images"), JOB_IMAGES),
        (ModelList(command_id="c-1"), MODELS),
    ],
)
def test_what_a_command_needs(command: Command, feature: str | None) -> None:
    needed = feature_of(command)
    assert (needed and needed[0]) == feature
