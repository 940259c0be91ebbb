"""From what SLEAP's dialog was set to, to the texts of a package, without files."""

from pathlib import PurePosixPath
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc_plugin.protocol.errors import NotAPackage, OptionRefused
from sleap_rtc_plugin.protocol.inference_options import frame_numbers, parse_argv
from sleap_rtc_plugin.protocol.messages import PredictStep, TrainStep
from sleap_rtc_plugin.protocol.paths import path_fault
from sleap_rtc_plugin.session.package_steps import PackageContents, plan_steps
from sleap_rtc_plugin.session.run_plan import (
    Inference,
    Selection,
    TrainingFile,
    edit_config,
    inference_script,
    jobs_file,
    labels_name,
    plan_inference,
    predictions_name,
    project_stem,
    run_name_of,
    train_script,
)
from sleap_rtc_plugin.transport.package_configs import read_training_config

PROJECT = "/home/me/project/fly.slp"


def item(*words: str) -> list[str]:
    """Return an argument list as SLEAP's `InferenceTask` makes it."""
    return ["sleap", "predict", "--gui", "--data_path", PROJECT, *words, "-o", "/p.slp"]


def only(*words: str) -> Inference:
    (planned,) = plan_inference([item(*words)])
    return planned


# -- which frames ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "selection"),
    [
        (["--only_suggested_frames"], Selection(only="suggested")),
        (["--only_labeled_frames"], Selection(only="labeled")),
        (["--only_predicted_frames"], Selection(only="predicted")),
        ([], Selection()),
        (["--video_index", "3"], Selection(video=3)),
        (
            ["--video_index", "0", "--frames", "4,0,9"],
            Selection(video=0, frames=[4, 0, 9]),
        ),
        (
            ["--video_index", "0", "--frames", "10,-99"],
            Selection(video=0, frames=range(10, 100)),
        ),
        (
            ["--video_index", "1", "--exclude_user_labeled"],
            Selection(video=1, skips_user_labeled=True),
        ),
        (
            [
                *("--video_index", "0", "--video_dataset", "video0/video"),
                *("--video_input_format", "channels_last"),
            ],
            Selection(video=0),
        ),
    ],
)
def test_every_target_of_sleap(words: list[str], selection: Selection) -> None:
    planned = only(*words)
    assert planned.selections == (selection,)
    gone = {"frames", "video_index", "video_dataset", "video_input_format"}
    assert not gone & planned.options.keys()


def test_sleap_nn_finds_suggestions_and_user_labels_by_itself() -> None:
    assert "only_suggested_frames" in only("--only_suggested_frames").options
    assert "only_labeled_frames" in only("--only_labeled_frames").options
    # These labels hold the wanted frames and no others.
    assert "only_predicted_frames" not in only("--only_predicted_frames").options


def test_every_other_option_arrives() -> None:
    planned = only(
        *("--only_suggested_frames", "--model_paths", "/m", "--batch_size", "8"),
        *("--peak_threshold", "0.15", "--max_instances", "2", "--tracking"),
        *("--track_matching_method", "hungarian", "--tracking_window_size", "5"),
        *("--candidates_method", "local_queues", "--max_tracks", "2", "--use_flow"),
        *("--post_connect_single_breaks", "--tracking_target_instance_count", "2"),
        *("--scoring_reduction", "robust_quantile", "--robust_best_instance", "0.95"),
        *("--features", "bboxes", "--scoring_method", "iou", "--filter_overlapping"),
        *("--filter_overlapping_method", "iou"),
        *("--filter_overlapping_threshold", "0.8", "--exclude_user_labeled"),
        *("--device", "mps"),
    )
    assert planned.options == {
        "only_suggested_frames": "",
        "batch_size": "8",
        "peak_threshold": "0.15",
        "max_instances": "2",
        "tracking": "",
        "track_matching_method": "hungarian",
        "tracking_window_size": "5",
        "candidates_method": "local_queues",
        "max_tracks": "2",
        "use_flow": "",
        "post_connect_single_breaks": "",
        "tracking_target_instance_count": "2",
        "scoring_reduction": "robust_quantile",
        "robust_best_instance": "0.95",
        "features": "bboxes",
        "scoring_method": "iou",
        "filter_overlapping": "",
        "filter_overlapping_method": "iou",
        "filter_overlapping_threshold": "0.8",
        "exclude_user_labeled": "",
        "restore_source_videos": "",
    }


def test_a_list_of_frames_may_be_long() -> None:
    frames = [*range(0, 100_000, 7)]
    planned = only("--video_index", "0", "--frames", ",".join(map(str, frames)))
    assert planned.selections[0].frames == frames
    with pytest.raises(OptionRefused, match="longer than 4096 characters"):
        parse_argv(["--frames", ",".join(map(str, frames))])


def test_the_frames_that_a_value_means() -> None:
    # sleap_nn.legacy_predict.frame_list
    assert frame_numbers("7") == [7]
    assert frame_numbers("1,2,5") == [1, 2, 5]
    assert frame_numbers("3-5") == range(3, 6)
    assert frame_numbers("0,-999999999") == range(10**9)
    for bad in ("", "a", "-5", "1,2-3", "1--3", "1;2"):
        with pytest.raises(OptionRefused):
            frame_numbers(bad)


def test_videos_that_are_treated_alike_are_one_inference() -> None:
    planned = plan_inference(
        [
            item("--video_index", "0", "--frames", "1,2", "--tracking"),
            item("--video_index", "1", "--frames", "3", "--tracking"),
            item("--video_index", "2", "--frames", "3"),
            item("--video_index", "1", "--frames", "9", "--tracking"),
        ]
    )
    assert [[one.video for one in p.selections] for p in planned] == [[0, 1], [2], [1]]


def test_whole_projects_are_not_joined() -> None:
    planned = plan_inference([item("--only_predicted_frames"), item()])
    assert len(planned) == 2


def test_no_restoring_is_respected() -> None:
    options = only("--no-restore_source_videos").options
    assert options == {"no-restore_source_videos": ""}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--headers", "a: b"], "no web addresses"),
        (["--explode"], "not known"),
        (["--frames", "1,2"], "does not say of which video"),
        (["--only_labeled_frames", "--exclude_user_labeled"], "nothing is left"),
        (["--only_labeled_frames", "--only_suggested_frames"], "contradicts"),
        (["--video_index", "-1"], "whole number from 0"),
        (["--peak_threshold", "nan"], "must be a number"),
    ],
)
def test_what_means_nothing_on_a_worker(words: list[str], sentence: str) -> None:
    with pytest.raises(OptionRefused, match=sentence):
        plan_inference([item(*words)])


def test_frames_of_a_video_without_a_project() -> None:
    with pytest.raises(OptionRefused, match="names no project"):
        plan_inference([["sleap", "predict", "--data_path", "/videos/fly.mp4"]])


# -- configurations ----------------------------------------------------------------


def config() -> dict[str, Any]:
    return {
        "data_config": {
            "train_labels_path": ["/home/me/fly.slp"],
            "val_labels_path": ["/home/me/val.slp"],
            "test_file_path": "/home/me/test.slp",
            "use_existing_imgs": True,
            "preprocessing": {"scale": 0.5},
        },
        "model_config": {
            "head_configs": {"centroid": {"confmaps": {"sigma": 2.5}}},
            "pretrained_backbone_weights": "/home/me/models/a/best.ckpt",
            "pretrained_head_weights": "/home/me/models/a/best.ckpt",
        },
        "trainer_config": {
            "ckpt_dir": "/home/me/models",
            "run_name": "old",
            "save_ckpt": False,
            "trainer_accelerator": "mps",
            "trainer_devices": 1,
            "visualize_preds_during_training": True,
            "keep_viz": True,
            "max_epochs": 3,
            "zmq": {"controller_port": 9000, "publish_port": 9001},
            "wandb": {"api_key": "secret", "project": "flies"},
        },
    }


def edited(**changes: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "labels": "fly.pkg.slp",
        "run_name": "a.centroid.n=24",
        "weights": {"/home/me/models/a/best.ckpt": "weights.1.ckpt"},
        "keep_wandb_key": False,
    }
    return edit_config(config(), **(settings | changes))


def test_a_configuration_for_a_worker() -> None:
    expected = config()
    expected["data_config"] |= {
        "train_labels_path": ["fly.pkg.slp"],
        "val_labels_path": None,
        "test_file_path": None,
        "use_existing_imgs": False,
    }
    expected["model_config"] |= {
        "pretrained_backbone_weights": "weights.1.ckpt",
        "pretrained_head_weights": "weights.1.ckpt",
    }
    expected["trainer_config"] |= {
        "ckpt_dir": "models",
        "run_name": "a.centroid.n=24",
        "save_ckpt": True,
        "trainer_accelerator": "auto",
        "zmq": {"controller_port": None, "publish_port": None},
        "wandb": {"api_key": None, "project": "flies"},
    }
    assert edited() == expected


def test_a_key_is_sent_where_the_user_wants_it() -> None:
    kept = edited(keep_wandb_key=True)
    assert kept["trainer_config"]["wandb"]["api_key"] == "secret"


def test_missing_sections_are_made() -> None:
    made = edit_config(
        {"model_config": {"head_configs": {"centroid": {}}}, "data_config": None},
        labels="fly.pkg.slp",
        run_name="r",
        weights={},
        keep_wandb_key=False,
    )
    assert made["data_config"]["train_labels_path"] == ["fly.pkg.slp"]
    assert made["trainer_config"] == {
        "save_ckpt": True,
        "ckpt_dir": "models",
        "run_name": "r",
    }


# -- names -------------------------------------------------------------------------


def test_names() -> None:
    assert run_name_of("", "261122_074257", "centroid", 24) == (
        "261122_074257.centroid.n=24"
    )
    assert run_name_of("mine", "261122_074257", "bottomup", 2) == "mine.bottomup.n=2"
    assert [labels_name("fly", n) for n in (1, 2)] == ["fly.pkg.slp", "fly.2.pkg.slp"]
    assert [predictions_name("fly", "261122_074257", n) for n in (1, 2)] == [
        "fly.261122_074257.predictions.slp",
        "fly.261122_074257.2.predictions.slp",
    ]


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("flies.slp", "flies"),
        ("flies.pkg.slp", "flies"),
        ("FLIES.PKG.SLP", "FLIES"),
        ("day 1: cage?.slp", "day 1_ cage_"),
        ("süße Fliegen.slp", "süße Fliegen"),
        ("con.slp", "labels"),
        (".slp", "labels"),
        ("é" * 80 + ".slp", "é" * 50),
    ],
)
def test_a_package_is_named_after_its_project(name: str, stem: str) -> None:
    assert project_stem(PurePosixPath("/home/me") / name) == stem


@given(st.text(min_size=1, max_size=300))
def test_a_stem_is_always_safe(name: str) -> None:
    stem = project_stem(PurePosixPath(name))
    assert path_fault(labels_name(stem, 32)) is None
    assert path_fault(predictions_name(stem, "261122_074257", 32)) is None


# -- jobs.yaml and scripts -----------------------------------------------------------


def planned_steps(
    training: list[TrainingFile], inference: list[Inference], models: list[str]
) -> list[Any]:
    """Write the texts, and let the reader of packages make steps of them again."""
    items = [
        (one, labels_name("fly", n), predictions_name("fly", "now", n))
        for n, one in enumerate(inference, 1)
    ]
    head: dict[str, Any] = {"model_config": {"head_configs": {"centroid": {}}}}
    brought = {f"{model}/best.ckpt" for model in models if "trained/" in model}
    return plan_steps(
        PackageContents(
            source="fly.slp",
            members=frozenset({name for _, name, _ in items} | {"fly.pkg.slp"})
            | brought,
            configs={f.name: read_training_config(head, f.name) for f in training},
            jobs=yaml.safe_load(jobs_file(training, "fly.pkg.slp", items, models)),
            train_script=train_script(training) if training else None,
            inference_script=inference_script(items, models) if items else None,
        )
    )


def test_steps_are_read_back_as_they_were_meant() -> None:
    run_name = 'my "best" run\'s.centroid.n=2'.replace('"', "")
    first = only("--only_suggested_frames", "--peak_threshold", "0.1")
    second = only("--video_index", "0", "--mot_param", "a=1", "--mot_param", "b=2")
    models = [f"models/{run_name}", "trained/2.b c.n=1"]
    train, *predict = planned_steps(
        [TrainingFile("centroid.yaml", run_name)], [first, second], models
    )
    assert train == TrainStep(
        config="centroid.yaml",
        labels="fly.pkg.slp",
        run_name=run_name,
        head="centroid",
    )
    assert predict == [
        PredictStep(
            data="fly.pkg.slp",
            models=models,
            output="fly.now.predictions.slp",
            options=dict(first.options),
        ),
        PredictStep(
            data="fly.2.pkg.slp",
            models=models,
            output="fly.now.2.predictions.slp",
            options={"mot_param": "a=1,b=2", "restore_source_videos": ""},
        ),
    ]


def test_a_package_may_only_predict() -> None:
    inference = only("--only_labeled_frames")
    (step,) = planned_steps([], [inference], ["trained/1.a"])
    assert step.models == ["trained/1.a"]
    assert step.data == "fly.pkg.slp"


def predict_only(**changes: Any) -> PackageContents:
    contents: dict[str, Any] = {
        "source": "fly.zip",
        "members": frozenset({"fly.pkg.slp", "m/best.ckpt"}),
        "configs": {},
        "inference_script": "sleap predict --data_path /x.slp --model_paths m -o p.slp",
    }
    return PackageContents(**(contents | changes))


def test_a_script_alone_is_enough_to_predict() -> None:
    assert plan_steps(predict_only()) == [
        PredictStep(data="fly.pkg.slp", models=["m"], output="p.slp", options={})
    ]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"inference_script": None}, "no training configuration"),
        ({"jobs": {"training": [{"cfg": "a.yaml"}]}}, "no training configuration"),
        ({"inference_script": "sleap predict -o p.slp"}, "does not name its models"),
        ({"inference_script": "sleap predict -m n -o p.slp"}, "neither trained here"),
        ({"members": frozenset({"a.slp", "b.slp", "m/best.ckpt"})}, "which one to use"),
        ({"members": frozenset({"m/best.ckpt"})}, "no labels"),
    ],
)
def test_predicting_without_what_it_takes(
    changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(NotAPackage, match=sentence):
        plan_steps(predict_only(**changes))
