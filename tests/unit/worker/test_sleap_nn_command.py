import pytest

from sleap_rtc_plugin.protocol.errors import (
    ConfigRefused,
    OptionRefused,
    ResultsIncomplete,
    RtcError,
    StepFailed,
    TrainerMissing,
    UnsafeMember,
)
from sleap_rtc_plugin.protocol.messages import PredictStep, TrainStep
from sleap_rtc_worker.sleap_nn_command import (
    expected_files,
    judge,
    order_for,
    predict_argv,
    restore_settings,
    resumed_from,
    train_argv,
    trainer_command,
    with_ports,
)
from sleap_rtc_worker.step_records import StepOutcome

TRAIN = TrainStep(
    config="centroid.yaml",
    labels="flies.pkg.slp",
    run_name="261122_074257.centroid.n=24",
    head="centroid",
)
PREDICT = PredictStep(
    data="flies.pkg.slp",
    models=["models/261122_074257.centroid.n=24"],
    output="flies.predictions.slp",
    options={"only_suggested_frames": "", "min_line_scores": "-1"},
)
TRAINER = ["python", "-P", "-m", "sleap_nn.cli"]


def trained(**fields: object) -> StepOutcome:
    good = {"exit_code": 0, "train_begin": True, "train_end": True}
    return StepOutcome(**{**good, **fields})  # type: ignore[arg-type]


def test_sleap_nn_is_a_module_or_the_script_beside_the_interpreter() -> None:
    assert trainer_command("/env/bin/python") == [
        "/env/bin/python",
        "-P",
        "-m",
        "sleap_nn.cli",
    ]
    script = trainer_command("/env/bin/python3", is_module=False)
    assert script == ["/env/bin/sleap-nn"]


def test_the_training_command() -> None:
    argv = train_argv(TRAINER, TRAIN, config_dir="/jobs/1", config_name="config.yaml")
    assert argv == [
        *TRAINER,
        "train",
        "--config-name",
        "config.yaml",
        "--config-dir",
        "/jobs/1",
        '++trainer_config.ckpt_dir="models"',
        '++trainer_config.run_name="261122_074257.centroid.n=24"',
        "++trainer_config.zmq.publish_port=@PUBLISH_PORT@",
        "++trainer_config.zmq.controller_port=@CONTROLLER_PORT@",
        "++trainer_config.zmq.controller_polling_timeout=1",
        "++trainer_config.model_ckpt.save_last=true",
    ]
    again = train_argv(
        TRAINER, TRAIN, config_dir="d", config_name="c", resume="../../kept/0/last.ckpt"
    )
    assert again[-1] == '++trainer_config.resume_ckpt_path="../../kept/0/last.ckpt"'
    assert resumed_from(again) == "../../kept/0/last.ckpt"
    assert resumed_from(argv) is None
    placed = with_ports(argv, publish=1234, controller=5678)
    assert placed[-4:-2] == [
        "++trainer_config.zmq.publish_port=1234",
        "++trainer_config.zmq.controller_port=5678",
    ]


def test_a_run_name_cannot_ask_for_a_port() -> None:
    step = TrainStep(config="c", labels="l", run_name="a=@PUBLISH_PORT@", head="h")
    argv = train_argv(TRAINER, step, config_dir="d", config_name="c")
    assert '++trainer_config.run_name="a=@PUBLISH_PORT@"' in with_ports(
        argv, publish=1, controller=2
    )


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "", "..", "a\nb", 'a"b', "con", "a\\b"]
)
def test_a_run_name_is_one_safe_name(name: str) -> None:
    step = TrainStep(config="c", labels="l", run_name=name, head="h")
    with pytest.raises(UnsafeMember):
        train_argv(TRAINER, step, config_dir="d", config_name="c")


@pytest.mark.parametrize("name", ["${oc.env:HOME}", "$x"])
def test_a_run_name_is_taken_literally(name: str) -> None:
    step = TrainStep(config="c", labels="l", run_name=name, head="h")
    with pytest.raises((ConfigRefused, UnsafeMember)):
        train_argv(TRAINER, step, config_dir="d", config_name="c")


def test_the_prediction_command() -> None:
    assert predict_argv(TRAINER, PREDICT) == [
        *TRAINER,
        "predict",
        "--gui",
        "--data_path=flies.pkg.slp",
        "--model_paths=models/261122_074257.centroid.n=24",
        "--output_path=flies.predictions.slp",
        "--only_suggested_frames",
        "--min_line_scores=-1",
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"data": "/etc/passwd"},
        {"data": "https://example.org/x.slp"},
        {"data": "s3://bucket/x.slp"},
        {"data": "../x.slp"},
        {"models": ["/models"]},
        {"output": "../x.slp"},
        {"output": "folder/x.slp"},
    ],
)
def test_a_prediction_names_places_in_the_package(changes: dict[str, object]) -> None:
    fields = {"data": "d.slp", "models": ["m"], "output": "o.slp"} | changes
    with pytest.raises(UnsafeMember):
        predict_argv(TRAINER, PredictStep(**fields))  # type: ignore[arg-type]


def test_a_prediction_cannot_choose_a_device() -> None:
    step = PredictStep(data="d", models=["m"], output="o", options={"device": "cuda:1"})
    with pytest.raises(OptionRefused):
        predict_argv(TRAINER, step)


def test_the_order_of_a_step() -> None:
    order = order_for(
        TRAIN, trainer=TRAINER, package_dir="/job/package", config_dir="/job/c"
    )
    assert (order.kind, order.cwd) == ("train", "/job/package")
    assert order.run_dir == "models/261122_074257.centroid.n=24"
    assert order.expected == expected_files(TRAIN)
    assert "models/261122_074257.centroid.n=24/best.ckpt" in order.expected
    predicting = order_for(
        PREDICT, trainer=TRAINER, package_dir="/job/package", config_dir="/job/c"
    )
    assert (predicting.kind, predicting.run_dir) == ("predict", None)
    assert predicting.expected == ["flies.predictions.slp"]


@pytest.mark.parametrize(
    "outcome",
    [
        trained(),
        trained(stopped=True),
    ],
)
def test_a_good_training(outcome: StepOutcome) -> None:
    assert judge(TRAIN, outcome) is None


@pytest.mark.parametrize(
    ("outcome", "kind", "words"),
    [
        (trained(exit_code=1), StepFailed, "exit code 1"),
        (trained(exit_code=None, signal=9), StepFailed, "signal 9"),
        (trained(train_end=False), StepFailed, "before the training was over"),
        (trained(missing=["a/best.ckpt"]), ResultsIncomplete, "a/best.ckpt"),
        (trained(cancelled=True), StepFailed, "cancelled"),
        (trained(lost=True, exit_code=None), StepFailed, "step runner"),
        (
            trained(stopped=True, forced="interrupt", exit_code=1),
            StepFailed,
            "did not react",
        ),
        (StepOutcome(not_started=True, error="no folder"), StepFailed, "no folder"),
        (StepOutcome(exit_code=127), TrainerMissing, "gpu-7"),
        (
            StepOutcome(
                exit_code=1, last_lines=["/usr/bin/python: No module named sleap_nn"]
            ),
            TrainerMissing,
            "gpu-7",
        ),
        (
            trained(exit_code=1, last_lines=["RuntimeError: out of memory"]),
            StepFailed,
            "RuntimeError: out of memory",
        ),
    ],
)
def test_a_training_that_went_wrong(
    outcome: StepOutcome, kind: type[RtcError], words: str
) -> None:
    error = judge(TRAIN, outcome, worker="gpu-7")
    assert type(error) is kind
    assert words in str(error)


def test_predictions_are_judged_by_their_file() -> None:
    assert judge(PREDICT, StepOutcome(exit_code=0)) is None
    assert judge(PREDICT, StepOutcome(stopped=True, signal=2, missing=["x"])) is None
    missing = judge(PREDICT, StepOutcome(exit_code=0, missing=["o.slp"]))
    assert isinstance(missing, ResultsIncomplete)
    failed = judge(PREDICT, StepOutcome(exit_code=1, error="ValueError: bad"))
    assert "ValueError: bad" in str(failed)


def test_private_ports_do_not_go_home() -> None:
    original = (
        "trainer_config:\n  zmq:\n    controller_port: null\n"
        "    controller_polling_timeout: 20\n    publish_port: null\n"
    )
    saved = original.replace("port: null", "port: 40123").replace("20", "1")
    assert saved != original
    assert restore_settings(saved, original) == original
    assert restore_settings(saved, "trainer_config: {}\n") == original.replace(
        "20", "10"
    )


def test_other_settings_of_those_names_are_left_alone() -> None:
    text = "other:\n  publish_port: 5\nname: '    publish_port: 5'\n"
    assert restore_settings(text, "") == text
