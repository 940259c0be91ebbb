"""Decides what a training package asks for: which steps, in which order.

`jobs.yaml` leads; the inference script adds the options that it drops; a package
without `jobs.yaml` is accepted where only one reading is possible. Pure: names and
parsed files in, a job out. Called by `training_package`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sleap_rtc_plugin.protocol.errors import ConfigRefused, NotAPackage
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.inference_options import check_options, parse_argv
from sleap_rtc_plugin.protocol.limits import MAX_STEPS
from sleap_rtc_plugin.protocol.messages import PredictStep, TrainStep
from sleap_rtc_plugin.protocol.model_records import is_model_id
from sleap_rtc_plugin.protocol.paths import path_fault
from sleap_rtc_plugin.session.package_scripts import predict_commands, train_commands
from sleap_rtc_plugin.transport.package_configs import TrainingConfig

__all__ = [
    "INFERENCE_SCRIPT",
    "JOBS_FILE",
    "MODELS_FOLDER",
    "PUBLISHED_MODEL",
    "TRAIN_SCRIPT",
    "PackageContents",
    "plan_steps",
]

JOBS_FILE: Final = "jobs.yaml"
TRAIN_SCRIPT: Final = "train-script.sh"
INFERENCE_SCRIPT: Final = "inference-script.sh"
MODELS_FOLDER: Final = "models"
# Of an inference in jobs.yaml, ours alone: the id of a model that the worker has.
PUBLISHED_MODEL: Final = "published_model"
_MAX_MODELS: Final = 8
# The head that has to be trained first, where nothing says the order.
_FIRST_HEAD: Final = "centroid"


@dataclass(frozen=True)
class PackageContents:
    """What stands in a package, read but not yet understood.

    Attributes:
        source: the package's name for errors.
        members: the path of every file.
        configs: the training configurations by path.
        jobs: `jobs.yaml`, parsed, or None where there is none.
        train_script: the text of `train-script.sh`, or None.
        inference_script: the text of `inference-script.sh`, or None.
        labels: the paths of the `.slp` files outside `models/`, sorted.
    """

    source: str
    members: frozenset[str]
    configs: Mapping[str, TrainingConfig]
    jobs: Any = None
    train_script: str | None = None
    inference_script: str | None = None
    labels: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Find the labels: every `.slp` outside the models' own folder."""
        labels = sorted(
            path
            for path in self.members
            if path.lower().endswith(".slp") and not _is_in_models(path)
        )
        object.__setattr__(self, "labels", tuple(labels))


def plan_steps(contents: PackageContents) -> list[TrainStep | PredictStep]:
    """Return the steps of a package in the order they have to run.

    Raises:
        NotAPackage: no configuration, no labels, or more than one way to read it.
        ConfigRefused: a configuration names files that are missing, or an unsafe run.
        OptionRefused: the inference uses an option that is not accepted.
    """
    predicts_only = not contents.configs and _asks_for_inference(contents)
    if not contents.configs and not predicts_only:
        raise NotAPackage(path=contents.source, reason=_why_no_configs(contents))
    if not contents.labels:
        raise NotAPackage(
            path=contents.source, reason="it holds no labels (no .slp file)"
        )
    training = [] if predicts_only else _plan_training(contents)
    steps: list[TrainStep | PredictStep] = [*training]
    steps += _plan_inference(contents, training)
    if len(steps) > MAX_STEPS:
        raise NotAPackage(
            path=contents.source, reason=f"it asks for more than {MAX_STEPS} steps"
        )
    return steps


def _asks_for_inference(contents: PackageContents) -> bool:
    """Tell whether there is work for a package that trains nothing."""
    if _entries(contents, "training"):
        return False
    script = predict_commands(contents.inference_script or "")
    return bool(_entries(contents, "inference") or script)


def _why_no_configs(contents: PackageContents) -> str:
    if any(path.endswith(".json") for path in contents.members):
        return (
            "its training configurations are .json files of SLEAP 1.4 or older, "
            "not .yaml"
        )
    return "it holds no training configuration (no .yaml with head_configs)"


def _is_in_models(path: str) -> bool:
    return path.startswith(f"{MODELS_FOLDER}/")


def _entries(contents: PackageContents, key: str) -> list[Mapping[str, Any]]:
    """Return the entries of one list of `jobs.yaml`, or refuse the file."""
    if contents.jobs is None:
        return []
    value = contents.jobs.get(key) if isinstance(contents.jobs, dict) else ()
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(v, dict) for v in value):
        raise ConfigRefused(
            config=JOBS_FILE, reason=f"its {key} is not a list of entries"
        )
    return value


def _text(entry: Mapping[str, Any], key: str) -> str:
    value = entry.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ConfigRefused(config=JOBS_FILE, reason=f"its {key} is not text")
    return value.replace("\\", "/")  # exported on Windows


# -- training ----------------------------------------------------------------------


def _plan_training(contents: PackageContents) -> list[TrainStep]:
    scripted = train_commands(contents.train_script or "") or []
    run_names = {_named(contents, config): name for config, name in scripted}
    entries = _entries(contents, "training")
    steps: list[TrainStep] = []
    if entries:
        for entry in entries:
            name = _text(entry, "cfg")
            config = contents.configs.get(name)
            if config is None:
                raise NotAPackage(
                    path=contents.source,
                    reason=f"{JOBS_FILE} names {clean_text(name) or 'no configuration'}"
                    ", which is not a training configuration in the package",
                )
            run_name = _run_name_of_path(_text(entry, "run_path"), name)
            run_name = run_name or config.run_name or run_names.get(name, "")
            labels = _text(entry, "train_labels")
            steps.append(_train_step(contents, config, run_name, labels))
    else:
        for config in _ordered_configs(contents, [name for name in run_names if name]):
            run_name = run_names.get(config.path, "") or config.run_name
            steps.append(_train_step(contents, config, run_name, ""))
    _refuse_double_runs(steps)
    return steps


def _named(contents: PackageContents, config: str) -> str:
    """Return the member that a training command means: `.yaml` may be left out."""
    for name in (config, f"{config}.yaml"):
        if name in contents.configs:
            return name
    return ""


def _run_name_of_path(run_path: str, config: str) -> str:
    """Return the run's name of `models/<run name>`, or "" where there is no path.

    Raises:
        ConfigRefused: the path leads anywhere else.
    """
    if not run_path:
        return ""
    folder, _, name = run_path.rpartition("/")
    if folder not in ("", MODELS_FOLDER):
        raise ConfigRefused(
            config=config,
            reason=f"its run folder {clean_text(run_path)} is not {MODELS_FOLDER}/ "
            "and one name",
        )
    return name


def _train_step(
    contents: PackageContents, config: TrainingConfig, run_name: str, labels: str
) -> TrainStep:
    run_name = run_name or config.path.rpartition("/")[2].removesuffix(".yaml")
    fault = "is more than one name" if "/" in run_name else path_fault(run_name)
    if fault:
        raise ConfigRefused(
            config=config.path, reason=f"its run name {clean_text(run_name)} {fault}"
        )
    for name in (*config.labels, *config.other_labels, labels):
        if name and name not in contents.members:
            raise ConfigRefused(
                config=config.path,
                reason=f"it names the labels {clean_text(name)}, "
                "which are not in the package",
            )
    for name in config.weights:
        if name not in contents.members:
            raise ConfigRefused(
                config=config.path,
                reason=f"it starts from the weights {clean_text(name)}, "
                "which are not in the package",
            )
    if labels and config.labels and labels not in config.labels:
        raise ConfigRefused(
            config=config.path,
            reason=f"it trains on {config.labels[0]}, but {JOBS_FILE} says {labels}",
        )
    if not labels:
        labels = config.labels[0] if config.labels else _only_labels(contents)
    return TrainStep(
        config=config.path, labels=labels, run_name=run_name, head=config.head
    )


def _only_labels(contents: PackageContents) -> str:
    if len(contents.labels) != 1:
        raise NotAPackage(
            path=contents.source,
            reason=f"it holds {len(contents.labels)} labels files and does not say "
            "which one to use",
        )
    return contents.labels[0]


def _ordered_configs(
    contents: PackageContents, scripted: Sequence[str]
) -> list[TrainingConfig]:
    """Return the configurations to train where `jobs.yaml` does not say.

    The train script's order counts; without it, one configuration, or a centroid and
    one other, can only be meant in one way.
    """
    if scripted:
        return [contents.configs[name] for name in scripted]
    configs = sorted(
        contents.configs.values(), key=lambda config: config.head != _FIRST_HEAD
    )
    heads = [config.head for config in configs]
    is_pair = len(heads) == 2 and heads[0] == _FIRST_HEAD and heads[1] != _FIRST_HEAD
    if len(configs) != 1 and not is_pair:
        raise NotAPackage(
            path=contents.source,
            reason=f"it has no {JOBS_FILE} and {len(configs)} configurations, "
            "so the order of training is unknown",
        )
    return configs


def _refuse_double_runs(steps: Sequence[TrainStep]) -> None:
    seen: set[str] = set()
    for step in steps:
        key = step.run_name.casefold()
        if key in seen:
            raise ConfigRefused(
                config=step.config,
                reason=f"its run name {step.run_name} is also another model's",
            )
        seen.add(key)


# -- inference -----------------------------------------------------------------------


def _plan_inference(
    contents: PackageContents, training: Sequence[TrainStep]
) -> list[PredictStep]:
    entries = _entries(contents, "inference")
    commands = predict_commands(contents.inference_script or "")
    if commands is None:
        return [_step_of_entry(contents, training, entry) for entry in entries]
    # jobs.yaml has one entry a command; it knows the data, the command the options.
    paired = entries if len(entries) == len(commands) else [{}] * len(commands)
    return [
        _step_of_command(contents, training, words, entry)
        for words, entry in zip(commands, paired, strict=True)
    ]


def _step_of_command(
    contents: PackageContents,
    training: Sequence[TrainStep],
    words: Sequence[str],
    entry: Mapping[str, Any],
) -> PredictStep:
    parsed = parse_argv(words)
    models = [path.replace("\\", "/") for path in parsed.model_paths]
    known = [_find_model(contents, training, path) for path in models]
    if (not known or None in known) and entry:
        models = _entry_models(entry)  # a path of the exporter's own system
    output = (parsed.output_path or _text(entry, "output_path")).replace("\\", "/")
    return _predict_step(contents, training, entry, models, output, parsed.options)


def _step_of_entry(
    contents: PackageContents, training: Sequence[TrainStep], entry: Mapping[str, Any]
) -> PredictStep:
    options: dict[str, str] = {}
    if entry.get("only_suggested_frames") is True:
        options["only_suggested_frames"] = ""
    tracking = entry.get("tracking")
    if isinstance(tracking, dict) and tracking:
        options["tracking"] = ""
        for key, value in tracking.items():
            if value is None or value is False:
                continue
            options[str(key)] = "" if value is True else str(value)
    return _predict_step(
        contents,
        training,
        entry,
        _entry_models(entry),
        _text(entry, "output_path"),
        options,
    )


def _entry_models(entry: Mapping[str, Any]) -> list[str]:
    models = entry.get("models")
    if not isinstance(models, list) or not all(isinstance(m, str) for m in models):
        raise ConfigRefused(
            config=JOBS_FILE, reason="its inference does not name its models"
        )
    return [model.replace("\\", "/") for model in models]


def _predict_step(
    contents: PackageContents,
    training: Sequence[TrainStep],
    entry: Mapping[str, Any],
    models: Sequence[str],
    output: str,
    options: Mapping[str, str],
) -> PredictStep:
    found: list[str] = []
    published = _published(entry)
    if published and (models or training):
        raise ConfigRefused(
            config=JOBS_FILE,
            reason="its inference uses a published model together with others",
        )
    if not models and not training and not published:
        raise NotAPackage(
            path=contents.source, reason="its inference does not name its models"
        )
    for path in models or [f"{MODELS_FOLDER}/{step.run_name}" for step in training]:
        model = _find_model(contents, training, path)
        if model is None:
            raise NotAPackage(
                path=contents.source,
                reason=f"its inference uses the model {clean_text(path)}, which is "
                "neither trained here nor in the package",
            )
        found.append(model)
    if len(found) > _MAX_MODELS:
        raise NotAPackage(
            path=contents.source,
            reason=f"its inference uses more than {_MAX_MODELS} models",
        )
    # A data path outside the package is one on the machine that exported it: what
    # is meant is the copy of those labels that the package holds.
    data = _text(entry, "data_path")
    if data not in contents.labels:
        data = training[0].labels if training else _only_labels(contents)
    name = output.rpartition("/")[2] or f"{data.rpartition('/')[2]}.predictions.slp"
    fault = path_fault(name)
    if fault:
        raise ConfigRefused(
            config=JOBS_FILE, reason=f"the predictions' name {clean_text(name)} {fault}"
        )
    accepted = check_options(options)
    return PredictStep(
        data=data,
        models=found,
        published=published or None,
        output=name,
        options=accepted,
    )


def _published(entry: Mapping[str, Any]) -> str:
    """Return the id of the published model that an inference uses, or ""."""
    model = _text(entry, PUBLISHED_MODEL)
    if model and not is_model_id(model):
        raise ConfigRefused(
            config=JOBS_FILE,
            reason=f"its published model {clean_text(model)} is not the id of one",
        )
    return model


def _find_model(
    contents: PackageContents, training: Sequence[TrainStep], path: str
) -> str | None:
    """Return a model's folder, trained by this job or lying in the package."""
    for suffix in ("/best.ckpt", "/training_config.yaml"):
        path = path.removesuffix(suffix)
    path = path.rstrip("/")
    if path in {f"{MODELS_FOLDER}/{step.run_name}" for step in training}:
        return path
    if path and any(member.startswith(f"{path}/") for member in contents.members):
        return path
    return None
