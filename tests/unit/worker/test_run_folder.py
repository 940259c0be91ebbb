"""The folder that a training writes to is its own."""

import pytest

from sleap_rtc_plugin.protocol.errors import ConfigRefused
from sleap_rtc_plugin.protocol.messages import TrainStep
from sleap_rtc_worker.package_check import refuse_run_folder

STEP = TrainStep(config="c.yaml", labels="l.slp", run_name="run=1", head="centroid")


@pytest.mark.parametrize(
    "member", ["models/run=1/last.ckpt", "models/RUN=1/a/b", "Models/run=1/best.ckpt"]
)
def test_a_package_brings_nothing_into_it(member: str) -> None:
    with pytest.raises(ConfigRefused, match=r"c\.yaml.*run=1"):
        refuse_run_folder(STEP, frozenset({"l.slp", member}))


def test_other_models_are_welcome() -> None:
    refuse_run_folder(STEP, frozenset({"models/run=10/best.ckpt", "run=1/best.ckpt"}))
