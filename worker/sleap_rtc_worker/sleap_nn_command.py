"""The command lines of sleap-nn for a job's steps, and what a good run leaves.

Pure: words in, words out. The commands run in the job's package folder with
relative paths, so the configuration that comes home is the one that `sleap train`
would have written beside the same package.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Final

from sleap_rtc_plugin.protocol.errors import (
    ConfigRefused,
    ResultsIncomplete,
    RtcError,
    StepFailed,
    TrainerMissing,
)
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.inference_options import to_argv
from sleap_rtc_plugin.protocol.messages import PredictStep, Step, TrainStep
from sleap_rtc_plugin.protocol.paths import check_component, check_path
from sleap_rtc_worker.step_records import StepOrder, StepOutcome

__all__ = [
    "CONTROLLER_TOKEN",
    "MODELS_FOLDER",
    "PUBLISH_TOKEN",
    "expected_files",
    "judge",
    "order_for",
    "predict_argv",
    "restore_settings",
    "resumed_from",
    "saves_last",
    "step_name",
    "train_argv",
    "trainer_command",
    "with_ports",
]

PUBLISH_TOKEN: Final = "@PUBLISH_PORT@"  # noqa: S105 - a place holder, no secret
CONTROLLER_TOKEN: Final = "@CONTROLLER_PORT@"  # noqa: S105 - the same
MODELS_FOLDER: Final = "models"
# Beside the package, where none can bring anything; from the folder that steps run in.
PUBLISHED_MODELS: Final = "../../published"
# What the runner's shell would call: command not found, and not executable.
_NOT_FOUND_CODES: Final = frozenset({126, 127})
_NO_MODULE: Final = re.compile(
    r"No module named '?sleap_nn\b|ModuleNotFoundError: .*sleap_nn\b"
)
# Written by a run that got past its first validation, however it was stopped.
_MODEL_FILES: Final = (
    "best.ckpt",
    "training_config.yaml",
    "initial_config.yaml",
    "training_log.csv",
    "labels_gt.train.0.slp",
    "labels_gt.val.0.slp",
)
# Settings that are the worker's: of `zmq` and `model_ckpt`, and of the trainer itself.
_OUR_LINE: Final = re.compile(
    r"^(?P<head>[ ]{4}(?P<key>controller_port|publish_port|controller_polling_timeout|"
    r"save_last): )(?P<value>\d+|null|true|false)$"
    r"|^(?P<resume>[ ]{2}resume_ckpt_path: )(?P<path>.*)$",
    re.MULTILINE,
)
_POLLING_TIMEOUT_MS: Final = 1
_RESUME: Final = "resume_ckpt_path"
_RESUME_WORD: Final = f"++trainer_config.{_RESUME}="


# -- command lines -------------------------------------------------------------


def trainer_command(python: str, *, is_module: bool = True) -> list[str]:
    """Return the words that start sleap-nn.

    As a module it is the interpreter's own sleap-nn, and its data-parallel children
    find their way back; the console script beside the interpreter is the fallback.
    """
    if is_module:
        # -P: nothing is imported from the folder that it is started in.
        return [python, "-P", "-m", "sleap_nn.cli"]
    script = "sleap-nn.exe" if python.lower().endswith(".exe") else "sleap-nn"
    return [str(PurePath(python).with_name(script))]


def train_argv(
    trainer: Sequence[str],
    step: TrainStep,
    *,
    config_dir: str,
    config_name: str,
    resume: str | None = None,
) -> list[str]:
    """Build `sleap-nn train` for a step.

    Args:
        trainer: from `trainer_command`.
        step: whose run name becomes the model's folder.
        config_dir: the folder of the guarded configuration, absolute or relative to
            the package folder; sleap-nn does not record it.
        config_name: its file name, chosen by the worker.
        resume: the worker's own checkpoint to go on from, relative to the package
            folder; None for what the configuration says.

    Raises:
        UnsafeMember: the run name is not one safe name.
        ConfigRefused: the run name cannot be quoted for Hydra.
    """
    run_name = _quoted(check_component(step.run_name), step.config)
    return [
        *trainer,
        "train",
        "--config-name",
        config_name,
        "--config-dir",
        config_dir,
        f'++trainer_config.ckpt_dir="{MODELS_FOLDER}"',
        f"++trainer_config.run_name={run_name}",
        f"++trainer_config.zmq.publish_port={PUBLISH_TOKEN}",
        f"++trainer_config.zmq.controller_port={CONTROLLER_TOKEN}",
        f"++trainer_config.zmq.controller_polling_timeout={_POLLING_TIMEOUT_MS}",
        # Without it only epochs that were better than all before leave a checkpoint.
        "++trainer_config.model_ckpt.save_last=true",
        *([f'{_RESUME_WORD}"{resume}"'] if resume is not None else []),
    ]


def resumed_from(argv: Sequence[str]) -> str | None:
    """Return the checkpoint that a command of `train_argv` goes on from, or None."""
    for word in argv:
        if word.startswith(_RESUME_WORD):
            return word.removeprefix(_RESUME_WORD).strip('"')
    return None


def predict_argv(
    trainer: Sequence[str], step: PredictStep, published: Sequence[str] = ()
) -> list[str]:
    """Build `sleap-nn predict` for a step.

    Every value is bound to its option with `=`, so none can become another option.

    Args:
        trainer: from `trainer_command`.
        step: the inference.
        published: the folders of its model of the registry, relative to where such
            models of the job lie, in the order in which they are used.

    Raises:
        UnsafeMember: a path is not safe.
        OptionRefused: an option is not allowed or its value is not.
    """
    return [
        *trainer,
        "predict",
        "--gui",
        f"--data_path={check_path(step.data)}",
        *(f"--model_paths={check_path(model)}" for model in step.models),
        *(f"--model_paths={PUBLISHED_MODELS}/{check_path(m)}" for m in published),
        f"--output_path={check_component(step.output)}",
        *to_argv(step.options),
    ]


def with_ports(argv: Sequence[str], *, publish: int, controller: int) -> list[str]:
    """Put the runner's own ports in; only whole values are tokens."""
    tokens: Mapping[str, str] = {
        f"={PUBLISH_TOKEN}": f"={publish}",
        f"={CONTROLLER_TOKEN}": f"={controller}",
    }
    placed = []
    for given in argv:
        word = given
        for token, value in tokens.items():
            word = word.removesuffix(token) + value if word.endswith(token) else word
        placed.append(word)
    return placed


def order_for(
    step: Step,
    *,
    trainer: Sequence[str],
    package_dir: str,
    config_dir: str,
    config_name: str = "config.yaml",
    environment: Mapping[str, str] | None = None,
    allow_wandb: bool = False,
    allow_downloads: bool = False,
    resume: str | None = None,
    kept_dir: str | None = None,
    published: Sequence[str] = (),
) -> StepOrder:
    """Build the whole order of a step, with the protocol's grace periods.

    Args:
        step: what the client asked for.
        trainer: from `trainer_command`.
        package_dir: the job's package folder, absolute.
        config_dir: the folder of the guarded configuration (trainings only).
        config_name: its file name there.
        environment: variables to set for sleap-nn.
        allow_wandb: whether the job may report to Weights & Biases.
        allow_downloads: whether weights may be fetched from the internet.
        resume: as for `train_argv`.
        kept_dir: what earlier tries of the step left, absolute, or None.
        published: as for `predict_argv`.

    Raises:
        UnsafeMember: a path is not safe.
        ConfigRefused: the run name cannot be used.
        OptionRefused: an inference option is not allowed.
    """
    if isinstance(step, TrainStep):
        argv = train_argv(
            trainer,
            step,
            config_dir=config_dir,
            config_name=config_name,
            resume=resume,
        )
        run_dir: str | None = f"{MODELS_FOLDER}/{step.run_name}"
    else:
        argv = predict_argv(trainer, step, published)
        run_dir = None
    return StepOrder(
        kind="train" if isinstance(step, TrainStep) else "predict",
        argv=argv,
        cwd=package_dir,
        expected=expected_files(step),
        run_dir=run_dir,
        kept_dir=kept_dir,
        environment=dict(environment or {}),
        allow_wandb=allow_wandb,
        allow_downloads=allow_downloads,
    )


def _quoted(name: str, config: str) -> str:
    # Hydra's quoted values know only \" and \\ (which no safe name holds) and
    # OmegaConf resolves ${...} even inside the quotes.
    if "$" in name or '"' in name or "\\" in name:
        raise ConfigRefused(
            config=clean_text(config),
            reason=f"its run name {clean_text(name)} has a character that sleap-nn "
            "would not take literally",
        )
    return f'"{name}"'


# -- what a good run leaves ----------------------------------------------------


def expected_files(step: Step) -> list[str]:
    """Return the files that a good run leaves, relative to the package folder.

    Metrics and `labels_pr` are not among them: sleap-nn writes metrics only where
    the model predicts something.
    """
    if isinstance(step, PredictStep):
        return [step.output]
    return [f"{MODELS_FOLDER}/{step.run_name}/{name}" for name in _MODEL_FILES]


def step_name(step: Step) -> str:
    """Name a step as a sentence begins with it."""
    if isinstance(step, PredictStep):
        return f"Predicting on {clean_text(step.data)}"
    return f"Training {clean_text(step.head)} ({clean_text(step.run_name)})"


def judge(step: Step, outcome: StepOutcome, *, worker: str = "") -> RtcError | None:
    """Say what is wrong with how a step ended, or None for a success.

    Success is exit 0 and, for a training, `train_end` and the model's files; a
    stopped training is one as well, and a stopped prediction is no failure though
    it leaves nothing. A cancelled step is never a success: ask `outcome.cancelled`
    first to tell it from a failure.
    """
    name, last = step_name(step), "\n".join(outcome.last_lines)
    if (
        outcome.exit_code not in (0, None)
        and not outcome.train_begin
        and (
            outcome.exit_code in _NOT_FOUND_CODES
            or any(_NO_MODULE.search(line) for line in outcome.last_lines)
        )
    ):
        return TrainerMissing(worker=worker or "on this machine")
    if outcome.not_started:
        reason = outcome.error or "no reason is known"
        return StepFailed(name, f"it could not be started ({reason})", last)
    if outcome.lost:
        return StepFailed(name, "the step runner on the worker died", last)
    if outcome.cancelled:
        return StepFailed(name, "it was cancelled", "")
    if isinstance(step, PredictStep) and outcome.stopped:
        return None
    if outcome.stopped and outcome.forced:
        return StepFailed(
            name, "it did not react to the stop and had to be ended", last
        )
    if outcome.signal is not None:
        return StepFailed(name, f"signal {outcome.signal} ended sleap-nn", last)
    if outcome.exit_code != 0:
        reason = outcome.error or f"sleap-nn ended with exit code {outcome.exit_code}"
        return StepFailed(name, reason, last)
    if isinstance(step, TrainStep) and not outcome.train_end:
        return StepFailed(name, "sleap-nn ended before the training was over", last)
    if outcome.missing:
        return ResultsIncomplete(name, ", ".join(outcome.missing))
    return None


def restore_settings(saved: str, original: str, resume: str | None = None) -> str:
    """Take the worker's own settings out of a configuration that sleap-nn saved.

    Args:
        saved: `training_config.yaml` or `initial_config.yaml` as sleap-nn wrote it.
        original: the guarded configuration that it was given.
        resume: the checkpoint that the worker had it go on from, or None.

    Returns:
        The text with the values of the original, as a local training has them.
    """
    before: dict[str, str] = {}
    for match in _OUR_LINE.finditer(original):
        before[match["key"] or _RESUME] = match["value"] or match["path"]
    defaults = {"controller_polling_timeout": "10"}

    def put_back(match: re.Match[str]) -> str:
        if match["resume"]:
            is_ours = match["path"].strip("'\"") == resume
            path = before.get(_RESUME, "null") if is_ours else match["path"]
            return match["resume"] + path
        key = match["key"]
        return match["head"] + before.get(key, defaults.get(key, "null"))

    return _OUR_LINE.sub(put_back, saved)


def saves_last(original: str) -> bool:
    """Tell whether a configuration itself asks for a `last.ckpt`.

    Args:
        original: the guarded configuration that sleap-nn was given.
    """
    return any(
        match["key"] == "save_last" and match["value"] == "true"
        for match in _OUR_LINE.finditer(original)
    )
