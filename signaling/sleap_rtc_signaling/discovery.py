"""PURE: what a peer may say about itself, and which peers a query matches.

Values are JSON. A query term compares only values of one kind: a number with a
number, a text with a text; everything else is simply no match, and a boolean is
not a number. Called by the hub.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from sleap_rtc_plugin.protocol.errors import BadRequest
from sleap_rtc_plugin.protocol.limits import (
    MAX_FILTER_TERMS,
    MAX_METADATA_BYTES,
    MAX_METADATA_DEPTH,
    MAX_METADATA_KEYS,
)
from sleap_rtc_plugin.protocol.signaling_messages import (
    DiscoverPeers,
    PeerMetadata,
    Role,
)
from sleap_rtc_signaling.limits import MAX_IN_OPERANDS

__all__ = ["Filter", "check_metadata", "compile_filter"]

_encoder: Final = msgspec.json.Encoder()


class _Missing:
    """Stands for a property that a peer does not have."""


_MISSING: Final = _Missing()
Test = Callable[[Any, Any], bool]


def check_metadata(metadata: PeerMetadata) -> None:
    """Check the size, the number of keys and the depth of a peer's metadata.

    Raises:
        BadRequest: a bound is passed.
    """
    if len(_encoder.encode(metadata)) > MAX_METADATA_BYTES:
        raise BadRequest(reason=f"metadata of more than {MAX_METADATA_BYTES} bytes")
    _check_value(metadata.properties, MAX_METADATA_DEPTH, "metadata")


def _check_value(value: Any, depth_left: int, what: str) -> None:
    if not isinstance(value, dict | list):
        return
    if depth_left == 0:
        raise BadRequest(reason=f"{what} nested deeper than {MAX_METADATA_DEPTH}")
    if isinstance(value, dict) and len(value) > MAX_METADATA_KEYS:
        raise BadRequest(reason=f"{what} with more than {MAX_METADATA_KEYS} keys")
    for item in value.values() if isinstance(value, dict) else value:
        _check_value(item, depth_left - 1, what)


def is_equal(value: Any, operand: Any) -> bool:
    """Compare two JSON values; 1 equals 1.0, and neither equals true."""
    kinds = _kind(value), _kind(operand)
    if kinds[0] != kinds[1]:
        return False
    if kinds[0] == "list":
        return len(value) == len(operand) and all(map(is_equal, value, operand))
    if kinds[0] == "object":
        return value.keys() == operand.keys() and all(
            is_equal(value[key], operand[key]) for key in value
        )
    return bool(value == operand)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    names: Mapping[type, str] = {str: "text", list: "list", dict: "object"}
    return names.get(type(value), "null" if value is None else "nothing")


def _ordered(compare: Callable[[Any, Any], bool]) -> Test:
    return lambda value, operand: (
        _kind(value) == _kind(operand) and compare(value, operand)
    )


_OPERATORS: Final[Mapping[str, Test]] = {
    "$eq": is_equal,
    "$ne": lambda value, operand: not is_equal(value, operand),
    "$gt": _ordered(lambda value, operand: value > operand),
    "$gte": _ordered(lambda value, operand: value >= operand),
    "$lt": _ordered(lambda value, operand: value < operand),
    "$lte": _ordered(lambda value, operand: value <= operand),
    "$in": lambda value, operands: any(is_equal(value, one) for one in operands),
}
_ORDERING: Final = frozenset({"$gt", "$gte", "$lt", "$lte"})


@dataclass(frozen=True)
class _Term:
    path: tuple[str, ...]
    test: Test
    operand: Any

    def matches(self, properties: Any) -> bool:
        value = properties
        for name in self.path:
            if not isinstance(value, dict) or name not in value:
                return self.test(_MISSING, self.operand)
            value = value[name]
        return self.test(value, self.operand)


@dataclass(frozen=True)
class Filter:
    """A checked query: every condition must hold."""

    role: Role | None = None
    tags: frozenset[str] = frozenset()
    terms: tuple[_Term, ...] = ()

    def matches(self, role: Role, metadata: PeerMetadata) -> bool:
        """Tell whether a peer is meant."""
        return (
            (self.role is None or self.role == role)
            and self.tags.issubset(metadata.tags)
            and all(term.matches(metadata.properties) for term in self.terms)
        )


def compile_filter(query: DiscoverPeers) -> Filter:
    """Check a query and make it ready to be asked of many peers.

    A property that a peer lacks matches `$ne` only.

    Raises:
        BadRequest: an unknown operator, an operand that cannot be compared, or a
            bound is passed.
    """
    terms = [
        term
        for name, condition in query.properties.items()
        for term in _compile_condition(name, condition)
    ]
    if len(terms) > MAX_FILTER_TERMS:
        raise BadRequest(reason=f"a filter with more than {MAX_FILTER_TERMS} terms")
    return Filter(role=query.role, tags=frozenset(query.tags), terms=tuple(terms))


def _compile_condition(name: str, condition: Any) -> Iterable[_Term]:
    path = tuple(name.split(".", MAX_METADATA_DEPTH))
    if len(path) > MAX_METADATA_DEPTH:
        raise BadRequest(reason="a property name with too many dots")
    is_operators = isinstance(condition, dict) and any(
        key.startswith("$") for key in condition
    )
    for operator, operand in (
        condition if is_operators else {"$eq": condition}
    ).items():
        _check_operand(operator, operand)
        yield _Term(path=path, test=_OPERATORS[operator], operand=operand)


def _check_operand(operator: str, operand: Any) -> None:
    if operator not in _OPERATORS:
        known = " ".join(_OPERATORS)
        raise BadRequest(reason=f"an unknown filter operator; there are {known}")
    if operator in _ORDERING and _kind(operand) not in ("number", "text"):
        raise BadRequest(reason=f"{operator} needs a number or a text")
    if operator == "$in":
        if not isinstance(operand, list):
            raise BadRequest(reason="$in needs a list")
        if len(operand) > MAX_IN_OPERANDS:
            raise BadRequest(reason=f"$in with more than {MAX_IN_OPERANDS} values")
    _check_value(operand, MAX_METADATA_DEPTH + 1, "a filter value")
