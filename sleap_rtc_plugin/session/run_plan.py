"""Turns a run that was set up in SLEAP into the texts and names of a package.

Which frames each inference needs, what the configurations say on a worker, and
`jobs.yaml` with its scripts, as SLEAP's "Export training job package..." writes them.
Pure: it knows no files. Called by `package_builder`.
"""

import copy
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Final, Literal

import yaml

from sleap_rtc_plugin.protocol.errors import ConfigRefused, OptionRefused
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.inference_options import (
    MAX_FRAMES_CHARS,
    frame_numbers,
    parse_argv,
    to_argv,
)
from sleap_rtc_plugin.protocol.paths import path_fault
from sleap_rtc_plugin.session.package_steps import MODELS_FOLDER, PUBLISHED_MODEL

__all__ = [
    "Filter",
    "Inference",
    "Selection",
    "TrainingFile",
    "edit_config",
    "inference_script",
    "jobs_file",
    "labels_name",
    "plan_inference",
    "predictions_name",
    "project_stem",
    "read_selection",
    "run_name_of",
    "train_script",
]

Filter = Literal["", "labeled", "suggested", "predicted"]

_FILTERS: Final[Mapping[str, Filter]] = {
    "only_labeled_frames": "labeled",
    "only_suggested_frames": "suggested",
    "only_predicted_frames": "predicted",
}
# How the project's own video is stored; in the package it is embedded.
_OF_THE_VIDEO: Final = ("video_dataset", "video_input_format")
_MAX_STEM_BYTES: Final = 100
_STEM: Final = "labels"


# -- inference -----------------------------------------------------------------------


@dataclass(frozen=True)
class Selection:
    """The frames that one inference item of SLEAP names.

    Attributes:
        only: the kind of frames it is limited to, or "" for any.
        video: the video's index in the project; None for all videos, of which then
            the frames with labels or suggestions count.
        frames: the frames of the video, or None for all of them.
        skips_user_labeled: user-labeled frames are left out.
    """

    only: Filter = ""
    video: int | None = None
    frames: Sequence[int] | None = None
    skips_user_labeled: bool = False

    @property
    def is_by_flag(self) -> bool:
        """Whether sleap-nn finds these frames in the labels by its own option."""
        return self.video is None and self.only in ("labeled", "suggested")


@dataclass(frozen=True)
class Inference:
    """One inference on a worker: several items of SLEAP where they are alike.

    Attributes:
        selections: the frames it is made on.
        options: sleap-nn's options by name, checked.
    """

    selections: tuple[Selection, ...]
    options: Mapping[str, str]


def plan_inference(predictions: Sequence[Sequence[str]]) -> list[Inference]:
    """Read SLEAP's argument lists, one an item, and join those that differ in video.

    SLEAP runs sleap-nn once a video; where nothing else differs, one run does them
    all, and tracks each video by itself.

    Raises:
        OptionRefused: an option is unknown, or means nothing on a worker.
    """
    planned: list[Inference] = []
    for words in predictions:
        selection, options = _read_item(words)
        for index, known in enumerate(planned):
            if known.options == options and _can_join(known.selections, selection):
                joined = (*known.selections, selection)
                planned[index] = Inference(joined, options)
                break
        else:
            planned.append(Inference((selection,), options))
    return planned


def _can_join(known: Sequence[Selection], selection: Selection) -> bool:
    videos = {one.video for one in known}
    return None not in videos | {selection.video} and selection.video not in videos


def _read_item(words: Sequence[str]) -> tuple[Selection, dict[str, str]]:
    parsed = parse_argv(words, max_frames_chars=MAX_FRAMES_CHARS)
    if parsed.data_path and not parsed.data_path.lower().endswith(".slp"):
        raise OptionRefused(
            option="--data_path",
            reason="it names no project, and only frames of the project are sent",
        )
    return read_selection(parsed.options)


def read_selection(options: Mapping[str, str]) -> tuple[Selection, dict[str, str]]:
    """Take the choice of frames out of options for a project's labels.

    Returns:
        The frames, and the options for labels that hold these frames and no others.

    Raises:
        OptionRefused: two of them contradict each other.
    """
    options = dict(options)
    given = [name for name in _FILTERS if name in options]
    if len(given) > 1:
        raise OptionRefused(
            option=f"--{given[1]}", reason=f"it contradicts --{given[0]}"
        )
    only: Filter = _FILTERS[given[0]] if given else ""
    skips_user_labeled = "exclude_user_labeled" in options
    if only == "labeled" and skips_user_labeled:
        raise OptionRefused(
            option="--exclude_user_labeled",
            reason="nothing is left of the user-labeled frames",
        )
    frames = options.pop("frames", "")
    video = options.pop("video_index", "")
    if frames and not video:
        raise OptionRefused(option="--frames", reason="it does not say of which video")
    for name in _OF_THE_VIDEO:
        options.pop(name, None)
    selection = Selection(
        only=only,
        video=int(video) if video else None,
        frames=frame_numbers(frames) if frames else None,
        skips_user_labeled=skips_user_labeled,
    )
    if given and not selection.is_by_flag:
        del options[given[0]]  # the labels will hold these frames and no others
    if "no-restore_source_videos" not in options:
        # Predictions name the project's video, not the package that stays behind.
        options.setdefault("restore_source_videos", "")
    return selection, options


# -- configurations --------------------------------------------------------------------


@dataclass(frozen=True)
class TrainingFile:
    """A configuration of the package.

    Attributes:
        name: its file name.
        run_name: the folder of the model that it makes.
    """

    name: str
    run_name: str


def run_name_of(given: str, now: str, head: str, user_frames: int) -> str:
    """Name a run the way SLEAP does: `261122_074257.centroid.n=24`."""
    return f"{given or now}.{head}.n={user_frames}"


def edit_config(
    config: Mapping[str, Any],
    *,
    labels: str,
    run_name: str,
    weights: Mapping[str, str],
    keep_wandb_key: bool,
) -> dict[str, Any]:
    """Return a training configuration as it is sent to a worker.

    Args:
        config: parsed YAML, with the sections of sleap-nn.
        labels: the member to train on.
        run_name: the folder below `models/` that the model is written to.
        weights: members by the local paths of weights to start from.
        keep_wandb_key: leave the key for Weights & Biases in it.
    """
    edited = copy.deepcopy(dict(config))
    data, model, trainer = (
        _section(edited, name)
        for name in ("data_config", "model_config", "trainer_config")
    )
    data["train_labels_path"] = [labels]
    data["val_labels_path"] = data["test_file_path"] = None
    if data.get("use_existing_imgs"):  # a cache on this machine
        data["use_existing_imgs"] = False
    trainer |= {"save_ckpt": True, "ckpt_dir": MODELS_FOLDER, "run_name": run_name}
    for section, key in (
        (model, "pretrained_backbone_weights"),
        (model, "pretrained_head_weights"),
        (trainer, "resume_ckpt_path"),
    ):
        if section.get(key):
            section[key] = weights[section[key]]
    if trainer.get("trainer_accelerator") == "mps":  # this Mac's, not the worker's
        trainer["trainer_accelerator"] = "auto"
    if isinstance(trainer.get("zmq"), dict):
        trainer["zmq"] |= {"controller_port": None, "publish_port": None}
    if isinstance(trainer.get("wandb"), dict) and not keep_wandb_key:
        trainer["wandb"]["api_key"] = None
    return edited


def _section(config: dict[str, Any], name: str) -> dict[str, Any]:
    section = config.get(name)
    if section is None:
        section = config[name] = {}
    if not isinstance(section, dict):
        raise ConfigRefused(config=name, reason="it is not a mapping")
    return section


# -- names -----------------------------------------------------------------------------


def project_stem(project: PurePath) -> str:
    """Return a project's name without its endings, safe as a file name everywhere."""
    stem = project.name
    for suffix in (".slp", ".pkg"):
        if stem.lower().endswith(suffix):
            stem = stem[: -len(suffix)]
    stem = clean_text(stem)
    for character in '<>:"|?*\\/':
        stem = stem.replace(character, "_")
    stem = stem.encode()[:_MAX_STEM_BYTES].decode(errors="ignore").strip(". ")
    return _STEM if not stem or path_fault(f"{stem}.pkg.slp") else stem


def labels_name(stem: str, number: int) -> str:
    """Name the labels file of this number, which counts from 1."""
    return f"{stem}{_nth(number)}.pkg.slp"


def predictions_name(stem: str, now: str, number: int) -> str:
    """Name the predictions of the inference of this number, which counts from 1."""
    return f"{stem}.{now}{_nth(number)}.predictions.slp"


def _nth(number: int) -> str:
    return "" if number == 1 else f".{number}"


# -- jobs.yaml and the scripts -------------------------------------------------------


def jobs_file(
    training: Sequence[TrainingFile],
    labels: str,
    inference: Sequence[tuple[Inference, str, str]],
    models: Sequence[str],
    published: str | None = None,
) -> str:
    """Return `jobs.yaml`.

    Args:
        training: the configurations in the order of training.
        labels: the member that is trained on.
        inference: each with the member it reads and the file it writes.
        models: the folders of all models, trained here or brought along.
        published: the id of a model of the room's registry; `models` is empty then.
    """
    used = {PUBLISHED_MODEL: published} if published is not None else {}
    jobs = {
        "training": [
            {
                "cfg": file.name,
                "run_path": f"{MODELS_FOLDER}/{file.run_name}",
                "train_labels": labels,
            }
            for file in training
        ],
        "inference": [
            {
                "data_path": data,
                **used,
                "models": list(models),
                "output_path": output,
                "type": "labels",
                "only_suggested_frames": "only_suggested_frames" in one.options,
                "tracking": {},
            }
            for one, data, output in inference
        ],
    }
    return str(yaml.safe_dump(jobs, sort_keys=False, allow_unicode=True))


def train_script(training: Sequence[TrainingFile]) -> str:
    """Return the script that trains the models one after the other."""
    commands = [
        [
            *("sleap", "train", "--config-name", file.name, "--config-dir", "."),
            f'trainer_config.ckpt_dir="{MODELS_FOLDER}"',
            # Hydra takes the `=` in a run name literally in quotes only.
            f'trainer_config.run_name="{file.run_name}"',
        ]
        for file in training
    ]
    return _script(commands)


def inference_script(
    inference: Sequence[tuple[Inference, str, str]], models: Sequence[str]
) -> str:
    """Return the script that predicts; the arguments are those of `jobs_file`."""
    commands = []
    for one, data, output in inference:
        words = ["sleap", "predict", "--gui", "--data_path", data]
        for model in models:
            words += ["--model_paths", model]
        commands.append([*words, "-o", output, *to_argv(one.options)])
    return _script(commands)


def _script(commands: Sequence[Sequence[str]]) -> str:
    return "\n".join(["#!/bin/bash", *map(shlex.join, commands)]) + "\n"
