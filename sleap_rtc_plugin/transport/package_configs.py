"""Reads the YAML of a package: bounded, without aliases, never building objects.

Also takes a Weights & Biases key out of a configuration while leaving every other
byte alone. Pure: text in, values out. Called for what is sent, and for shared models.
"""

import re
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

from sleap_rtc_plugin.protocol.errors import ConfigRefused
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.limits import (
    MAX_CONFIG_BYTES,
    MAX_CONFIG_DEPTH,
    MAX_CONFIG_NODES,
    MAX_ERROR_TEXT_CHARS,
)

__all__ = [
    "TrainingConfig",
    "is_training_config",
    "parse_yaml",
    "read_training_config",
    "without_wandb_key",
]

_BOM: Final = "\ufeff"
_HEAD: Final = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")
_SECRET_KEYS: Final = frozenset({"api_key", "wandb_api_key"})
# Values of data_config and below that name files; all must be in the package.
_LABEL_KEYS: Final = ("train_labels_path", "val_labels_path", "test_file_path")
_WEIGHT_KEYS: Final = (
    ("model_config", "pretrained_backbone_weights"),
    ("model_config", "pretrained_head_weights"),
    ("trainer_config", "resume_ckpt_path"),
)


def parse_yaml(data: bytes, name: str) -> Any:
    """Parse one YAML document of plain values.

    Args:
        data: the file's bytes.
        name: what to call it in an error.

    Returns:
        Dicts, lists, strings, numbers, booleans, dates and None.

    Raises:
        ConfigRefused: it is too large or deep, has aliases, twice the same key or
            several documents, or is not YAML at all.
    """
    return _parse_text(_decode(data, name), name)


def _decode(data: bytes, name: str) -> str:
    if len(data) > MAX_CONFIG_BYTES:
        raise ConfigRefused(config=name, reason="it is larger than 1 MiB")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ConfigRefused(config=name, reason="it is not UTF-8 text") from None


def _parse_text(text: str, name: str) -> Any:
    text = text.removeprefix(_BOM)
    try:
        _check_events(text, name)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is None:
            return None
        deque(_pairs(node, name), maxlen=0)  # refuses a key that stands twice
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigRefused(config=name, reason=_yaml_fault(error)) from None
    except (ValueError, OverflowError, RecursionError, TypeError) as error:
        reason = clean_text(f"it is not YAML ({error})", MAX_ERROR_TEXT_CHARS)
        raise ConfigRefused(config=name, reason=reason) from None


def _yaml_fault(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f", line {mark.line + 1}" if mark else ""
    problem = getattr(error, "problem", None) or "not readable"
    return clean_text(f"it is not YAML ({problem}{where})", MAX_ERROR_TEXT_CHARS)


def _check_events(text: str, name: str) -> None:
    """Hold the bounds before anything is built; the parser itself does not recurse."""
    depth = nodes = 0
    documents = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ConfigRefused(config=name, reason="it uses YAML aliases")
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
        if isinstance(event, yaml.NodeEvent):
            nodes += 1
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        if isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_CONFIG_DEPTH or nodes > MAX_CONFIG_NODES or documents > 1:
            raise ConfigRefused(
                config=name, reason="it is nested deeper or longer than any real one"
            )


def _pairs(node: yaml.Node, name: str) -> Iterator[tuple[str, yaml.Node]]:
    """Yield every key and value node below `node`, refusing a key that stands twice.

    Two parsers may differ on which of the two counts.
    """
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            text = key.value if isinstance(key, yaml.ScalarNode) else ""
            if text in seen:
                raise ConfigRefused(
                    config=name, reason=f"it has the key {clean_text(text)} twice"
                )
            seen.add(text)
            yield text, value
            yield from _pairs(value, name)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _pairs(value, name)


# -- a Weights & Biases key ------------------------------------------------------


def without_wandb_key(data: bytes, name: str) -> bytes | None:
    """Return a configuration without its Weights & Biases key.

    Only the value is replaced, by `null`; every other byte stays.

    Returns:
        The new bytes, or None where there is no key.

    Raises:
        ConfigRefused: it is not acceptable YAML.
    """
    text = _decode(data, name)
    before = _parse_text(text, name)
    bom = _BOM if text.startswith(_BOM) else ""
    body = text.removeprefix(_BOM)
    node = yaml.compose(body, Loader=yaml.SafeLoader)
    if node is None:
        return None
    secrets = [
        value
        for key, value in _pairs(node, name)
        if key.lower() in _SECRET_KEYS and not _is_null(value)
    ]
    if not secrets:
        return None
    edited = body
    for value in sorted(secrets, key=lambda v: v.start_mark.index, reverse=True):
        start, end = value.start_mark.index, value.end_mark.index
        # A block scalar ends behind its line break, which has to stay.
        gap = "\n" if body[start:end].endswith("\n") else ""
        edited = f"{edited[:start]}null{gap}{edited[end:]}"
    wanted = _blank_secrets(before)
    if _parse_or_none(edited, name) != wanted:
        # An exotic way to write the value: keep the meaning, if not the bytes.
        edited = yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True)
    return (bom + edited).encode()


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and (
        node.tag == "tag:yaml.org,2002:null" or node.value == ""
    )


def _parse_or_none(text: str, name: str) -> Any:
    try:
        return _parse_text(text, name)
    except ConfigRefused:
        return None


def _blank_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: None
            if str(key).lower() in _SECRET_KEYS and item != ""
            else _blank_secrets(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_blank_secrets(item) for item in value]
    return value


# -- what a training configuration says --------------------------------------------


@dataclass(frozen=True)
class TrainingConfig:
    """What the program needs to know of a training configuration.

    Attributes:
        path: the member's path.
        head: the model type, as sleap-nn names its heads.
        labels: training labels by the names that stand in the configuration.
        other_labels: validation and test labels, likewise.
        weights: checkpoints to start from, likewise.
        run_name: the run's name, or "" where the configuration has none.
    """

    path: str
    head: str
    labels: tuple[str, ...]
    other_labels: tuple[str, ...]
    weights: tuple[str, ...]
    run_name: str


def is_training_config(value: Any) -> bool:
    """Tell whether parsed YAML is a training configuration of sleap-nn."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("model_config"), dict)
        and isinstance(value["model_config"].get("head_configs"), dict)
    )


def read_training_config(value: Any, path: str) -> TrainingConfig:
    """Read parsed YAML as a training configuration.

    Raises:
        ConfigRefused: it is none, has no or several heads, or names files in a way
            that cannot be understood.
    """
    if not is_training_config(value):
        raise ConfigRefused(
            config=path, reason="it has no model_config.head_configs of sleap-nn"
        )
    heads = value["model_config"]["head_configs"]
    chosen = [str(head) for head, config in heads.items() if config is not None]
    if len(chosen) != 1 or not _HEAD.match(chosen[0]):
        given = clean_text(", ".join(chosen)) or "none"
        raise ConfigRefused(
            config=path, reason=f"it must choose one head and chooses {given}"
        )
    data = _section(value, "data_config", path)
    trainer = _section(value, "trainer_config", path)
    named = {key: _names(data.get(key), key, path) for key in _LABEL_KEYS}
    weights = [
        name
        for section, key in _WEIGHT_KEYS
        for name in _names(_section(value, section, path).get(key), key, path)
    ]
    run_name = trainer.get("run_name")
    return TrainingConfig(
        path=path,
        head=chosen[0],
        labels=named["train_labels_path"],
        other_labels=named["val_labels_path"] + named["test_file_path"],
        weights=tuple(weights),
        run_name=run_name if isinstance(run_name, str) else "",
    )


def _section(value: Mapping[str, Any], key: str, path: str) -> Mapping[str, Any]:
    section = value.get(key)
    if section is None:
        return {}
    if not isinstance(section, dict):
        raise ConfigRefused(config=path, reason=f"its {key} is not a mapping")
    return section


def _names(value: Any, key: str, path: str) -> tuple[str, ...]:
    """Return the file names of a value that is null, a name, or a list of names."""
    if value is None or value == "":
        return ()
    names = value if isinstance(value, list) else [value]
    if not all(isinstance(name, str) and name for name in names):
        raise ConfigRefused(config=path, reason=f"its {key} does not name files")
    return tuple(names)
