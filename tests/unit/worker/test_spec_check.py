"""What a job may name: checked before its package is asked for."""

import pytest

from sleap_rtc_plugin.protocol.errors import BadRequest, OptionRefused
from sleap_rtc_plugin.protocol.messages import JobSpec, PredictStep, Step, TrainStep
from sleap_rtc_plugin.protocol.model_records import Publication
from sleap_rtc_worker.package_check import check_spec
from sleap_rtc_worker.sleap_nn_command import order_for, predict_argv

MODEL = "model-" + "1" * 20
TRAIN = TrainStep(config="c.yaml", labels="l.slp", run_name="r", head="centroid")


def spec(*steps: Step, publish: Publication | None = None) -> JobSpec:
    return JobSpec(name="flies", steps=list(steps), publish=publish)


def predict(data: str = "fly.mp4", **more: object) -> PredictStep:
    values = {"data": data, "published": MODEL, "output": "p.slp", **more}
    return PredictStep(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize("data", ["fly.mp4", "a/FLY.AVI", "x.mkv", "l.pkg.slp"])
def test_videos_and_labels_are_predicted_on(data: str) -> None:
    check_spec(spec(predict(data, options={"frames": "0-59", "tracking": ""})))


@pytest.mark.parametrize(
    "option",
    [
        "only_labeled_frames",
        "only_suggested_frames",
        "only_predicted_frames",
        "exclude_user_labeled",
        "video_index",
    ],
)
def test_a_video_has_no_labels_to_choose_from(option: str) -> None:
    options = {option: "0" if option == "video_index" else ""}
    with pytest.raises(OptionRefused, match=f"--{option}.*the data is a video"):
        check_spec(spec(predict(options=options)))
    check_spec(spec(predict("l.slp", options=options)))


def test_an_inference_has_models_of_one_kind() -> None:
    check_spec(spec(predict(published=None, models=["models/r"])))
    for step in (predict(published=None), predict(models=["models/r"])):
        with pytest.raises(BadRequest, match="models"):
            check_spec(spec(step))


def test_what_is_published_must_be_trained() -> None:
    check_spec(spec(TRAIN, publish=Publication(alias="flies-v1")))
    check_spec(spec(TRAIN, publish=Publication()))
    with pytest.raises(BadRequest, match="trains nothing"):
        check_spec(spec(predict(), publish=Publication(alias="flies-v1")))


@pytest.mark.parametrize("alias", [MODEL, "UP", "../x", "a b", "-", "x" * 65, ""])
def test_odd_aliases_are_refused(alias: str) -> None:
    with pytest.raises(BadRequest, match="alias"):
        check_spec(spec(TRAIN, publish=Publication(alias=alias)))


def test_a_video_is_nothing_to_train_on() -> None:
    step = TrainStep(config="c.yaml", labels="fly.mp4", run_name="r", head="centroid")
    with pytest.raises(BadRequest, match=r"fly\.mp4"):
        check_spec(spec(step))


def test_a_published_model_is_named_by_its_folders_in_order() -> None:
    folders = [f"{MODEL}/c", f"{MODEL}/i"]
    argv = predict_argv(["sleap-nn"], predict(), folders)
    assert argv == [
        "sleap-nn",
        "predict",
        "--gui",
        "--data_path=fly.mp4",
        f"--model_paths=../../published/{MODEL}/c",
        f"--model_paths=../../published/{MODEL}/i",
        "--output_path=p.slp",
    ]
    order = order_for(
        predict(),
        trainer=["sleap-nn"],
        package_dir="/p",
        config_dir="/c",
        published=folders,
    )
    assert order.argv == argv
