"""The engine around the real sleap-nn: few and tiny trainings, on the CPU."""

import asyncio
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from sleap_rtc_plugin.protocol.errors import ConfigRefused, TrainerMissing
from sleap_rtc_plugin.protocol.inference_options import OPTIONS, Flag
from sleap_rtc_plugin.protocol.messages import PredictStep, TrainStep
from sleap_rtc_worker.capabilities import detect
from sleap_rtc_worker.config_check import check_configs
from sleap_rtc_worker.job_executor import JobExecutor, RunningStep
from sleap_rtc_worker.sleap_nn_command import judge, order_for, trainer_command
from sleap_rtc_worker.step_records import StepProgress
from sleap_rtc_worker.training_config import guard_training_config

pytestmark = [pytest.mark.needs_sleap_nn, pytest.mark.timeout(400)]

PACKAGE = (
    Path(__file__).parents[3]
    / "shared"
    / "data"
    / "robot.single.quick.training_job.zip"
)
CONFIG = "single_instance.yaml"
WAIT_S = 300.0
RUN_NAME = "261122_074304.single_instance.n=2"
STEP = TrainStep(
    config=CONFIG, labels="robot.pkg.slp", run_name=RUN_NAME, head="single_instance"
)


@pytest.fixture(autouse=True)
def with_sleap_nn() -> None:
    pytest.importorskip("sleap_nn", reason="sleap-nn is not installed")


def unpack(folder: Path) -> Path:
    if not PACKAGE.exists():
        pytest.skip(f"{PACKAGE.name} is not beside the checkout")
    with zipfile.ZipFile(PACKAGE) as package:
        package.extractall(folder)
    return folder


def guard(package: Path, config_dir: Path) -> Path:
    members = {path.name for path in package.iterdir()}
    text = (package / CONFIG).read_text()
    guarded = guard_training_config(text, STEP, members)
    assert guarded.text == text
    config_dir.mkdir(parents=True)
    path = config_dir / "config.yaml"
    path.write_text(guarded.text)
    return path


async def start(
    package: Path, tmp_path: Path, step: TrainStep | PredictStep, n: int
) -> RunningStep:
    order = order_for(
        step,
        trainer=trainer_command(sys.executable),
        package_dir=str(package),
        config_dir=str(tmp_path / "config"),
    )
    return await JobExecutor().start(order, tmp_path / f"step{n}")


async def follow(step: RunningStep) -> list[str]:
    async with asyncio.timeout(WAIT_S):
        return [
            event.event
            async for _, event in step.events()
            if isinstance(event, StepProgress)
        ]


@pytest.mark.needs_shared_data
async def test_a_real_package_trains_and_predicts(tmp_path: Path) -> None:
    package = await asyncio.to_thread(unpack, tmp_path / "package")
    config = await asyncio.to_thread(guard, package, tmp_path / "config")
    await check_configs({CONFIG: config})
    training = await start(package, tmp_path, STEP, 0)
    said = await follow(training)
    assert judge(STEP, await training.outcome()) is None
    assert said[0] == "train_begin"
    assert said[-1] == "train_end"
    assert said.count("epoch_end") == 3

    predicting = PredictStep(
        data="robot.pkg.slp",
        models=[f"models/{RUN_NAME}"],
        output="robot.predictions.slp",
        options={"peak_threshold": "0.0001"},
    )
    inference = await start(package, tmp_path, predicting, 1)
    assert "predict" in await follow(inference)
    assert judge(predicting, await inference.outcome()) is None
    assert (package / "robot.predictions.slp").is_file()


@pytest.mark.needs_shared_data
async def test_a_stopped_training_keeps_its_model(tmp_path: Path) -> None:
    package = await asyncio.to_thread(unpack, tmp_path / "package")
    path = await asyncio.to_thread(guard, package, tmp_path / "config")
    config = yaml.safe_load(path.read_text())
    config["trainer_config"]["max_epochs"] = 1000
    path.write_text(yaml.safe_dump(config))
    step = await start(package, tmp_path, STEP, 0)
    async with asyncio.timeout(WAIT_S):
        async for _, event in step.events():
            if isinstance(event, StepProgress) and event.event == "batch_end":
                step.stop()
                break
    outcome = await step.outcome()
    assert outcome.stopped
    assert outcome.forced is None
    assert outcome.epochs >= 1
    assert judge(STEP, outcome) is None


async def test_sleap_nn_refuses_a_configuration(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("data_config: {}\nmodel_config: {}\ntrainer_config: {}\n")
    with pytest.raises(ConfigRefused, match=r"mine\.yaml.*BackboneConfig"):
        await check_configs({"mine.yaml": path})


async def test_weights_that_would_run_code_are_refused(tmp_path: Path) -> None:
    # A pickle that names os.system, as a checkpoint from a stranger may.
    harmful = tmp_path / "harmful.ckpt"
    harmful.write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(ConfigRefused, match=r"weights/best\.ckpt"):
        await check_configs({}, weights={"weights/best.ckpt": harmful})


async def test_a_check_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("{}")
    with pytest.raises(ConfigRefused, match="longer than"):
        await check_configs({"mine.yaml": path}, timeout_s=0.05)


async def test_no_interpreter_is_no_trainer(tmp_path: Path) -> None:
    with pytest.raises(TrainerMissing):
        await check_configs({"a": tmp_path}, python=str(tmp_path / "python"))


def test_this_machine_is_described() -> None:
    found = detect()
    assert found.sleap_nn_version
    assert found.device in ("cpu", "cuda", "mps")
    assert (found.gpu_model is None) == (found.device == "cpu")


def test_sleap_nn_knows_every_option_of_the_table() -> None:
    from sleap_nn.cli import cli

    parameters = cli.get_command(None, "predict").params
    known, flags = (
        {
            option
            for parameter in parameters
            if parameter.is_flag or not only_flags
            for option in (*parameter.opts, *parameter.secondary_opts)
        }
        for only_flags in (False, True)
    )
    assert {f"--{name}" for name in OPTIONS} <= known
    for name, kind in OPTIONS.items():
        assert isinstance(kind, Flag) == (f"--{name}" in flags), name
