"""Guards a client's training configuration before sleap-nn reads it.

A configuration can name files to read, folders to write and delete, web services to
report to, weights to download and environment variables to reveal. Here each such
setting of sleap-nn's schema (0.3.5, `sleap_nn/config/`) has a rule; whatever else
looks like a place is refused; the rest passes unchanged, so that training gives
bit for bit what it gives at home. Pure: text in, text out. Reading a configuration
at the bounds takes seconds, so call it in a thread.
"""

import re
from collections.abc import Callable, Set
from dataclasses import dataclass
from typing import Any, Final

from sleap_rtc_plugin.protocol.errors import ConfigRefused
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.messages import TrainStep
from sleap_rtc_plugin.protocol.paths import path_fault
from sleap_rtc_worker.config_yaml import YamlFault, dump_config, load_config
from sleap_rtc_worker.limits import MAX_COUNT, MAX_DATA_WORKERS, MAX_TEST_FILES
from sleap_rtc_worker.sleap_nn_command import MODELS_FOLDER

__all__ = [
    "GuardedConfig",
    "epochs_of",
    "guard_model_config",
    "guard_training_config",
    "label_members",
]

_SECTIONS: Final = ("data_config", "model_config", "trainer_config")
# Texts about the configuration itself, which sleap-nn stores and never opens.
_NOTES: Final = ("name", "description", "sleap_nn_version", "filename")
_WANDB_TEXTS: Final = (
    "entity",
    "project",
    "name",
    "api_key",
    "wandb_mode",
    "prv_runid",
    "group",
    "current_run_id",
)
_SKELETONS: Final = "data_config.skeletons."
_INTERPOLATION: Final = "${"
# Hydra's and OmegaConf's own keys (`_target_`, `_partial_` ...) call what they name.
_MAGIC_KEY: Final = re.compile(r"_.*_\Z|.*\$.*|hydra\Z|defaults\Z", re.DOTALL)
_PLACE_KEY: Final = re.compile(
    r"path|dir(?:ectory|s|\b|_|$)|file|folder|url|uri\b|host|address|ckpt|checkpoint"
    r"|weights|cache|token|api_key|secret|module|class_path|callback|hook|plugin|script"
    r"|command",
    re.IGNORECASE,
)
_PLACE: Final = re.compile(
    r"[/\\~]|[A-Za-z]:[/\\]|.*://|(?:.*[/\\])?\.\.(?:[/\\]|\Z)", re.DOTALL
)
_HUB_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}\Z")
_TORCHVISION_NAME: Final = re.compile(r"[A-Za-z0-9_]{1,60}\Z")


@dataclass(frozen=True)
class GuardedConfig:
    """A configuration that sleap-nn may be given.

    Attributes:
        text: its YAML.
        weights: members that sleap-nn will unpickle; they must pass the weight
            check of `config_check` before anything is started.
        changes: settings that were replaced, by their dotted names, for the log.
    """

    text: str
    weights: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()


def guard_training_config(
    text: str,
    step: TrainStep,
    members: Set[str],
    *,
    allow_wandb: bool = False,
    allow_downloads: bool = False,
    max_workers: int = MAX_DATA_WORKERS,
) -> GuardedConfig:
    """Check a training configuration and tie it to its job.

    Args:
        text: the client's YAML.
        step: whose labels it shall train on and whose run name it gets.
        members: the package's files by their relative paths.
        allow_wandb: the user chose to report to Weights & Biases.
        allow_downloads: the worker's owner lets sleap-nn download weights.
        max_workers: most data loader processes.

    Raises:
        ConfigRefused: it asks for something that a worker does not do.
    """
    return _Guard(
        step=step,
        members=members,
        allow_wandb=allow_wandb,
        allow_downloads=allow_downloads,
        max_workers=max_workers,
    ).guard(text)


def label_members(text: str, members: Set[str]) -> set[str]:
    """Return the label files of the package that a guarded configuration names."""
    named: set[str] = set()

    def look(dotted: str, key: str, value: Any) -> None:
        if isinstance(value, str) and value in members and value.endswith(".slp"):
            named.add(value)

    _walk(load_config(text), "", look)
    return named


def epochs_of(text: str) -> int:
    """Return for how many epochs a guarded configuration trains at most; 0: unknown."""
    trainer = load_config(text).get("trainer_config")
    epochs = trainer.get("max_epochs") if isinstance(trainer, dict) else None
    if not isinstance(epochs, int) or isinstance(epochs, bool):
        return 0
    return epochs if 0 < epochs <= MAX_COUNT else 0


def guard_model_config(text: str, name: str) -> None:
    """Check the `training_config.yaml` of a model that a package brings along.

    Inference reads a few of its values and opens none of its paths, which are those
    of the machine that trained it; but it would resolve interpolations.

    Raises:
        ConfigRefused: it cannot be read or would reveal something.
    """
    try:
        _walk(load_config(text), "", _refuse_interpolation)
    except YamlFault as fault:
        raise _refused(name, f"it {fault}") from None
    except _Fault as fault:
        raise _refused(name, str(fault)) from None


class _Fault(Exception):
    """Why a setting is refused; the words complete "is not accepted: …"."""


@dataclass
class _Guard:
    step: TrainStep
    members: Set[str]
    allow_wandb: bool
    allow_downloads: bool
    max_workers: int

    def __post_init__(self) -> None:
        self.weights: list[str] = []
        self.changes: list[str] = []
        self.judged: set[str] = set()
        self.config: dict[str, Any] = {}

    def guard(self, text: str) -> GuardedConfig:
        try:
            self.config = load_config(text)
            self._check_sections()
            _walk(self.config, "", _refuse_interpolation)
            for dotted, rule in _RULES.items():
                self._apply(dotted, rule)
            _walk(self.config, "", self._refuse_places)
            checked = dump_config(self.config)
            # sleap-nn must read the very values that were judged here.
            if repr(load_config(checked)) != repr(self.config):
                raise _Fault("it holds a text that cannot be written as YAML")
        except YamlFault as fault:
            raise _refused(self.step.config, f"it {fault}") from None
        except _Fault as fault:
            raise _refused(self.step.config, str(fault)) from None
        return GuardedConfig(checked, tuple(self.weights), tuple(self.changes))

    def _check_sections(self) -> None:
        for name in self.config:
            if name not in _SECTIONS and name not in _NOTES:
                raise _Fault(f"sleap-nn has no section {clean_text(name, 60)}")
        for name in _SECTIONS:
            if not isinstance(self.config.get(name), dict):
                raise _Fault(f"it has no section {name}")

    def _apply(self, dotted: str, rule: "Rule") -> None:
        *parents, key = dotted.split(".")
        section: Any = self.config
        for parent in parents:
            section = section.get(parent) if isinstance(section, dict) else None
        if not isinstance(section, dict):
            if section is not None:
                raise _Fault(f"{'.'.join(parents)} does not hold settings")
            if rule not in _ALWAYS:
                return
            section = self.config
            for parent in parents:
                section = section.setdefault(parent, {})
        if key not in section and rule not in _ALWAYS:
            return
        self.judged.add(dotted)
        before = section.get(key)
        after = rule(self, dotted, before)
        if key not in section or before != after or type(before) is not type(after):
            section[key] = after
            self.changes.append(dotted)

    def _refuse_places(self, dotted: str, key: str, value: Any) -> None:
        if not isinstance(value, str) or not value:
            return
        if dotted in _NOTES or dotted in self.judged:
            return
        if _PLACE_KEY.search(key) and key not in _HARMLESS_KEYS:
            raise _Fault(
                f"{dotted} names {_show(value)}, which is no setting of a worker's"
            )
        if _PLACE.match(value):
            raise _Fault(f"{dotted} names a place outside the package")

    def member(self, dotted: str, value: Any, suffixes: tuple[str, ...]) -> str:
        """Return `value` if it is a file of the package."""
        if not isinstance(value, str):
            raise _Fault(f"{dotted} does not name a file")
        fault = path_fault(value)
        if fault:
            raise _Fault(f"{dotted} names {_show(value)}, which {fault}")
        if value not in self.members:
            raise _Fault(
                f"{dotted} names {_show(value)}, which is not a file of the package"
            )
        if suffixes and not value.lower().endswith(suffixes):
            raise _Fault(f"{dotted} must end in {' or '.join(suffixes)}")
        return value


def _show(text: str) -> str:
    return clean_text(text, 80) or "nothing"


def _refused(config: str, reason: str) -> ConfigRefused:
    return ConfigRefused(config=clean_text(config), reason=clean_text(reason, 400))


def _walk(
    value: Any, dotted: str, visit: Callable[[str, str, Any], None], key: str = ""
) -> None:
    """Visit every setting and every value in lists; the loader bounds the depth."""
    if isinstance(value, dict):
        for name, inner in value.items():
            below = f"{dotted}.{name}" if dotted else name
            visit(below, name, None)
            _walk(inner, below, visit, name)
    elif isinstance(value, list):
        for inner in value:
            _walk(inner, dotted, visit, key)
    else:
        visit(dotted, key, value)


def _refuse_interpolation(dotted: str, key: str, value: Any) -> None:
    if _MAGIC_KEY.match(key):
        raise _Fault(f"it has a setting {_show(key)}, which could run code")
    if "." in key and not dotted.startswith(_SKELETONS):
        raise _Fault(f"it has a setting {_show(key)}, whose name holds a dot")
    if isinstance(value, str) and _INTERPOLATION in value:
        raise _Fault(
            f"{_show(dotted)} holds a reference (${{...}}), which could reveal "
            "what is on the worker"
        )


# -- the rules ---------------------------------------------------------------------

Rule = Callable[[_Guard, str, Any], Any]


def _the_labels(guard: _Guard, dotted: str, value: Any) -> Any:
    if isinstance(value, list) and len(value) > 1:
        raise _Fault(f"{dotted} names {len(value)} files, and a step trains on one")
    return [guard.member(dotted, guard.step.labels, (".slp",))]


def _labels_or_null(guard: _Guard, dotted: str, value: Any) -> Any:
    if value is None or value == []:
        return value
    if not isinstance(value, list) or len(value) > MAX_TEST_FILES:
        raise _Fault(f"{dotted} is not a short list of files")
    return [guard.member(dotted, item, (".slp",)) for item in value]


def _files_or_null(guard: _Guard, dotted: str, value: Any) -> Any:
    if isinstance(value, str):
        return guard.member(dotted, value, ())
    if value is None or value == []:
        return value
    if not isinstance(value, list) or len(value) > MAX_TEST_FILES:
        raise _Fault(f"{dotted} is not a short list of files")
    return [guard.member(dotted, item, ()) for item in value]


def _weights_or_null(guard: _Guard, dotted: str, value: Any) -> Any:
    if value is None:
        return None
    name = guard.member(dotted, value, (".ckpt", ".h5"))
    if name not in guard.weights:
        guard.weights.append(name)
    return name


def _checkpoint_or_null(guard: _Guard, dotted: str, value: Any) -> Any:
    if value is None:
        return None
    guard.member(dotted, value, (".ckpt",))
    return _weights_or_null(guard, dotted, value)


def _null(guard: _Guard, dotted: str, value: Any) -> Any:
    """Set aside what only means something on the client's machine."""
    return None


def _the_models_folder(guard: _Guard, dotted: str, value: Any) -> Any:
    if value not in (None, "", MODELS_FOLDER):
        raise _Fault(
            f"{dotted} is {_show(str(value))}, and a worker writes to "
            f"{MODELS_FOLDER} only"
        )
    return MODELS_FOLDER


def _the_run_name(guard: _Guard, dotted: str, value: Any) -> Any:
    return guard.step.run_name


def _must_save(guard: _Guard, dotted: str, value: Any) -> Any:
    if value is not True:
        raise _Fault(f"{dotted} is off, so that no model would come back")
    return True


def _no_existing_images(guard: _Guard, dotted: str, value: Any) -> Any:
    if value:
        raise _Fault(f"{dotted} needs images that are not on the worker")
    return value


def _wandb_switch(guard: _Guard, dotted: str, value: Any) -> Any:
    if guard.allow_wandb and isinstance(value, bool):
        return value
    return False


def _wandb_text(guard: _Guard, dotted: str, value: Any) -> Any:
    if not guard.allow_wandb or value is None:
        return None
    if not isinstance(value, str) or len(value) > 256 or _PLACE.match(value):
        raise _Fault(f"{dotted} is not a name")
    return value


def _wandb_mode(guard: _Guard, dotted: str, value: Any) -> Any:
    value = _wandb_text(guard, dotted, value)
    if value not in (None, "", "online", "offline"):
        raise _Fault(f"{dotted} must be online or offline")
    return value


def _workers(guard: _Guard, dotted: str, value: Any) -> Any:
    if value is None or value == "auto":
        return value
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise _Fault(f"{dotted} is not a number of processes")
    return min(value, guard.max_workers)


def _torchvision_weights(guard: _Guard, dotted: str, value: Any) -> Any:
    if value in (None, ""):
        return value
    if not isinstance(value, str) or not _TORCHVISION_NAME.match(value):
        raise _Fault(f"{dotted} is not the name of published weights")
    if not guard.allow_downloads:
        raise _Fault(
            f"{dotted} asks for {_show(value)} from the internet, which this worker "
            "does not allow"
        )
    return value


def _published_backbone(guard: _Guard, dotted: str, value: Any) -> Any:
    if value is None:
        return None
    if not guard.allow_downloads:
        raise _Fault(
            f"{dotted} asks for a network from the internet, which this worker does "
            "not allow"
        )
    if not isinstance(value, dict):
        raise _Fault(f"{dotted} does not hold settings")
    name = value.get("model_name")
    if name is not None:
        if not isinstance(name, str) or not _HUB_NAME.match(name):
            raise _Fault(f"{dotted}.model_name is not the name of a published network")
        # A folder of that name would be loaded in place of the published network.
        if any(m == name or m.startswith(f"{name}/") for m in guard.members):
            raise _Fault(f"{dotted}.model_name is also a folder of the package")
    return value


def _one_of(*allowed: str | None) -> Rule:
    def check(guard: _Guard, dotted: str, value: Any) -> Any:
        if value not in allowed:
            words = ", ".join(word for word in allowed if word)
            raise _Fault(f"{dotted} must be one of {words} on a worker")
        return value

    return check


_DATA: Final = "data_config"
_MODEL: Final = "model_config"
_BACKBONE: Final = "model_config.backbone_config"
_TRAINER: Final = "trainer_config"

# Every setting of the schema that is opened, written, deleted, sent or started.
_RULES: Final[dict[str, Rule]] = {
    f"{_DATA}.train_labels_path": _the_labels,
    f"{_DATA}.val_labels_path": _labels_or_null,
    f"{_DATA}.test_file_path": _files_or_null,
    # Images are cached in the run's own folder; elsewhere sleap-nn would delete the
    # folders `train_imgs` and `val_imgs` of any place.
    f"{_DATA}.cache_img_path": _null,
    f"{_DATA}.use_existing_imgs": _no_existing_images,
    f"{_DATA}.cache_workers": _workers,
    f"{_MODEL}.pretrained_backbone_weights": _weights_or_null,
    f"{_MODEL}.pretrained_head_weights": _weights_or_null,
    f"{_MODEL}.init_weights": _one_of("default", "xavier", None),
    f"{_BACKBONE}.convnext.pre_trained_weights": _torchvision_weights,
    f"{_BACKBONE}.swint.pre_trained_weights": _torchvision_weights,
    f"{_BACKBONE}.pretrained": _published_backbone,
    f"{_TRAINER}.ckpt_dir": _the_models_folder,
    f"{_TRAINER}.run_name": _the_run_name,
    f"{_TRAINER}.save_ckpt": _must_save,
    f"{_TRAINER}.resume_ckpt_path": _checkpoint_or_null,
    f"{_TRAINER}.use_wandb": _wandb_switch,
    **{f"{_TRAINER}.wandb.{key}": _wandb_text for key in _WANDB_TEXTS},
    f"{_TRAINER}.wandb.wandb_mode": _wandb_mode,
    f"{_TRAINER}.zmq.controller_port": _null,
    f"{_TRAINER}.zmq.publish_port": _null,
    # Which of its GPUs a job gets is the worker's choice.
    f"{_TRAINER}.trainer_device_indices": _null,
    f"{_TRAINER}.trainer_accelerator": _one_of("auto", "cpu", "gpu", "cuda", "mps"),
    # PyTorch's profiler writes traces of its own; the others print.
    f"{_TRAINER}.profiler": _one_of(None, "simple", "advanced", "passthrough"),
    f"{_TRAINER}.trainer_strategy": _one_of(
        "auto",
        "ddp",
        "ddp_find_unused_parameters_false",
        "ddp_find_unused_parameters_true",
        "fsdp",
    ),
    f"{_TRAINER}.viz_img_format": _one_of("png", "jpg"),
    f"{_TRAINER}.train_data_loader.num_workers": _workers,
    f"{_TRAINER}.val_data_loader.num_workers": _workers,
}
# Set also where the client left them out.
_ALWAYS: Final[frozenset[Rule]] = frozenset(
    {_the_labels, _the_models_folder, _the_run_name, _must_save, _wandb_switch}
)
# Look like places by their names and are words of a fixed meaning.
_HARMLESS_KEYS: Final = frozenset({"class_output"})
