"""YAML as OmegaConf reads it, but bounded, and written so that it reads the same.

sleap-nn loads its configurations with OmegaConf, whose YAML differs from PyYAML's in
floats and dates. Here both directions follow OmegaConf, and aliases, tags, deep
nesting and several documents are refused before anything is built. Pure.
"""

import re
from typing import Any, Final

import yaml

from sleap_rtc_plugin.protocol.limits import (
    MAX_CONFIG_BYTES,
    MAX_CONFIG_DEPTH,
    MAX_CONFIG_NODES,
)
from sleap_rtc_worker.limits import MAX_CONFIG_STRING_CHARS

__all__ = ["ConfigValue", "YamlFault", "dump_config", "load_config"]

ConfigValue = None | bool | int | float | str | list[Any] | dict[str, Any]

# omegaconf/_utils.py, get_yaml_loader: also `1e-4`, which YAML 1.1 takes for text.
_FLOAT: Final = re.compile(
    r"""^(?:
     [-+]?[0-9]+(?:_[0-9]+)*\.[0-9_]*(?:[eE][-+]?[0-9]+)?
    |[-+]?[0-9]+(?:_[0-9]+)*(?:[eE][-+]?[0-9]+)
    |\.[0-9]+(?:_[0-9]+)*(?:[eE][-+][0-9]+)?
    |[-+]?[0-9]+(?:_[0-9]+)*(?::[0-5]?[0-9])+\.[0-9_]*
    |[-+]?\.(?:inf|Inf|INF)
    |\.(?:nan|NaN|NAN))$""",
    re.VERBOSE,
)
# YAML folds Unicode's own line breaks, so they would not be read back as written.
_UNPRINTABLE: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff]")
_TIMESTAMP: Final = "tag:yaml.org,2002:timestamp"
_LARGEST_INTEGER: Final = 2**63
_WIDTH: Final = 10**6


class YamlFault(Exception):
    """The text is not a configuration; the message completes "because it …"."""


class _Loader(yaml.SafeLoader):
    """Builds plain values; a key said twice is a fault, as for OmegaConf."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """Build a mapping after looking for repeated keys."""
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise YamlFault(f"says {str(key.value)[:60]!r} twice")
            seen.add(key.value if isinstance(key.value, str) else id(key))
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):
    """Quotes whatever `_Loader` would not read back as the same text."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write every value out; OmegaConf keeps no shared ones either."""
        return True


for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(
        "tag:yaml.org,2002:float", _FLOAT, list("-+0123456789.")
    )
    _class.yaml_implicit_resolvers = {
        first: [entry for entry in resolvers if entry[0] != _TIMESTAMP]
        for first, resolvers in _class.yaml_implicit_resolvers.items()
    }


def load_config(text: str) -> dict[str, Any]:
    """Read one bounded mapping of plain values.

    Raises:
        YamlFault: it is not one.
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise YamlFault("is not text") from None
    if size > MAX_CONFIG_BYTES:
        raise YamlFault(f"is larger than {MAX_CONFIG_BYTES} bytes")
    try:
        _check_shape(text)
        loaded = yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader's child
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise YamlFault(f"is not YAML{where}") from None
    except (ValueError, OverflowError, TypeError):
        raise YamlFault("holds a number that cannot be read") from None
    if not isinstance(loaded, dict):
        raise YamlFault("does not hold settings")
    _check_values(loaded)
    return loaded


def dump_config(config: dict[str, Any]) -> str:
    """Write a configuration so that OmegaConf reads the same values back.

    Raises:
        YamlFault: it holds what `load_config` would refuse.
    """
    _check_values(config)
    text = yaml.dump(
        config,
        Dumper=_Dumper,
        default_flow_style=False,
        allow_unicode=True,
        sort_keys=False,
        width=_WIDTH,
    )
    return str(text)


def _check_shape(text: str) -> None:
    """Walk the parser's events, which takes no recursion, and count."""
    depth = nodes = documents = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        match event:
            case yaml.AliasEvent():
                raise YamlFault("repeats a part by reference (a YAML alias)")
            case yaml.DocumentStartEvent():
                documents += 1
            case yaml.NodeEvent():
                nodes += 1
                if getattr(event, "tag", None) not in (None, "!"):
                    raise YamlFault("names a data type (a YAML tag)")
                if not isinstance(event, yaml.ScalarEvent):
                    depth += 1
            case yaml.CollectionEndEvent():
                depth -= 1
            case _:
                pass
        if documents > 1:
            raise YamlFault("holds more than one document")
        if depth > MAX_CONFIG_DEPTH:
            raise YamlFault(f"is nested deeper than {MAX_CONFIG_DEPTH} levels")
        if nodes > MAX_CONFIG_NODES:
            raise YamlFault(f"has more than {MAX_CONFIG_NODES} entries")


def _check_values(value: Any) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise YamlFault("has a setting whose name is not text")
            _check_text(key)
            _check_values(inner)
    elif isinstance(value, list):
        for inner in value:
            _check_values(inner)
    elif isinstance(value, str):
        _check_text(value)
    elif isinstance(value, bool | float) or value is None:
        return
    elif not isinstance(value, int) or abs(value) >= _LARGEST_INTEGER:
        raise YamlFault("holds a value that is neither text, number nor list")


def _check_text(text: str) -> None:
    if len(text) > MAX_CONFIG_STRING_CHARS:
        raise YamlFault(f"has a text longer than {MAX_CONFIG_STRING_CHARS} characters")
    if _UNPRINTABLE.search(text):
        raise YamlFault("has a text with control characters")
