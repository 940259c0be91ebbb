"""Packages that predict with a model of the room's registry, which is not in them."""

from pathlib import Path

import pytest
import yaml
from support.saved_projects import build, item, to_train, trained, write_project

from sleap_rtc_plugin.protocol.errors import ConfigRefused
from sleap_rtc_plugin.protocol.messages import PredictStep
from sleap_rtc_plugin.session.package_steps import PackageContents, plan_steps
from sleap_rtc_plugin.session.run_request import PublishedModel
from sleap_rtc_plugin.transport.package_configs import TrainingConfig

MODEL = PublishedModel(id=f"model-{7:020x}", head="topdown", name="flies")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write_project(tmp_path / "my project")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "job"


def test_a_published_model_is_named_and_not_sent(project: Path, folder: Path) -> None:
    package = build(project, folder, item("--only_labeled_frames"), models=[MODEL])
    (step,) = package.spec.steps
    assert isinstance(step, PredictStep)
    assert (step.published, step.models) == (MODEL.id, [])
    assert not [name for name in package.members if name.endswith(".ckpt")]


@pytest.mark.parametrize("training", [False, True])
def test_it_is_used_with_no_others(project: Path, folder: Path, training: bool) -> None:
    others = [to_train()] if training else trained(project)
    with pytest.raises(ConfigRefused, match="used with no other"):
        build(project, folder, item("--only_labeled_frames"), models=[*others, MODEL])
    assert not folder.exists()


def contents(*configs: TrainingConfig, **entry: object) -> PackageContents:
    jobs = {"inference": [{"data_path": "a.pkg.slp", "models": [], **entry}]}
    return PackageContents(
        source="x",
        members=frozenset({"a.pkg.slp", *(config.path for config in configs)}),
        configs={config.path: config for config in configs},
        jobs=yaml.safe_load(yaml.safe_dump(jobs)),
    )


@pytest.mark.parametrize("model", ["flies", "../x", "model-1", 7, ["a"]])
def test_what_is_no_id_is_refused(model: object) -> None:
    with pytest.raises(ConfigRefused):
        plan_steps(contents(published_model=model))


def test_a_package_that_brings_models_as_well_is_refused() -> None:
    both = contents(published_model=MODEL.id, models=["models/a"])
    with pytest.raises(ConfigRefused, match="together with others"):
        plan_steps(both)
