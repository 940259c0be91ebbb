import pytest

from sleap_rtc_plugin.protocol.errors import BadRequest
from sleap_rtc_plugin.protocol.limits import (
    MAX_FILTER_TERMS,
    MAX_METADATA_BYTES,
    MAX_METADATA_KEYS,
)
from sleap_rtc_plugin.protocol.signaling_messages import DiscoverPeers, PeerMetadata
from sleap_rtc_signaling.discovery import check_metadata, compile_filter, is_equal
from sleap_rtc_signaling.limits import MAX_IN_OPERANDS

WORKER = PeerMetadata(
    tags=["gpu", "lab-a"],
    properties={
        "gpu": {"memory_mb": 24_000, "model": "A5000", "cuda": "12.4"},
        "busy": False,
        "queue": 0,
        "models": ["a", "b"],
        "note": None,
    },
)


def matches(properties: dict, *, role: str | None = None, tags: tuple = ()) -> bool:
    query = DiscoverPeers(id="q", role=role, tags=list(tags), properties=properties)
    return compile_filter(query).matches("worker", WORKER)


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({}, True),
        ({"queue": 0}, True),
        ({"queue": 0.0}, True),
        ({"queue": False}, False),
        ({"busy": False}, True),
        ({"busy": 0}, False),
        ({"note": None}, True),
        ({"missing": None}, False),
        ({"gpu.model": "A5000"}, True),
        ({"gpu.model": {"$eq": "A5000"}}, True),
        ({"gpu.model": {"$ne": "A5000"}}, False),
        ({"gpu.model": {"$ne": 5}}, True),
        ({"missing": {"$ne": 5}}, True),
        ({"missing.deeper": {"$ne": 5}}, True),
        ({"gpu.memory_mb": {"$gte": 24_000}}, True),
        ({"gpu.memory_mb": {"$gt": 24_000}}, False),
        ({"gpu.memory_mb": {"$lt": 24_000.5}}, True),
        ({"gpu.memory_mb": {"$lte": 23_999}}, False),
        ({"gpu.memory_mb": {"$gte": 1, "$lt": 2}}, False),
        ({"gpu.memory_mb": {"$gte": "1"}}, False),
        ({"gpu.cuda": {"$gte": "12.0"}}, True),
        ({"gpu.cuda": {"$gte": 12}}, False),
        ({"busy": {"$lt": 1}}, False),
        ({"missing": {"$lt": 1}}, False),
        ({"note": {"$lt": 1}}, False),
        ({"gpu": {"$gt": 1}}, False),
        ({"gpu.model": {"$in": ["A100", "A5000"]}}, True),
        ({"gpu.model": {"$in": []}}, False),
        ({"busy": {"$in": [0]}}, False),
        ({"models": ["a", "b"]}, True),
        ({"models": ["b", "a"]}, False),
        ({"models": ["a"]}, False),
        ({"models.0": "a"}, False),
        ({"gpu": {"memory_mb": 24_000, "model": "A5000", "cuda": "12.4"}}, True),
        ({"gpu": {"memory_mb": 24_000}}, False),
        ({"gpu": {}}, False),
        ({"queue": 0, "busy": True}, False),
    ],
)
def test_a_filter_compares_values_of_one_kind(properties: dict, expected: bool) -> None:
    assert matches(properties) is expected


def test_role_and_every_tag_must_hold() -> None:
    assert matches({}, role="worker", tags=("gpu", "lab-a"))
    assert not matches({}, role="client")
    assert not matches({}, tags=("gpu", "lab-b"))


@pytest.mark.parametrize(
    "properties",
    [
        {"a": {"$regex": ".*"}},
        {"a": {"$gt": 1, "other": 2}},
        {"a": {"$gt": None}},
        {"a": {"$gt": True}},
        {"a": {"$lte": [1]}},
        {"a": {"$lt": {"b": 1}}},
        {"a": {"$in": 5}},
        {"a": {"$in": list(range(MAX_IN_OPERANDS + 1))}},
        {"a.b.c.d.e": 1},
        {"a": {"$eq": [[[[[[1]]]]]]}},
        {f"a{n}": {"$gt": 1, "$lt": 5} for n in range(MAX_FILTER_TERMS // 2 + 1)},
    ],
)
def test_a_senseless_filter_is_refused(properties: dict) -> None:
    with pytest.raises(BadRequest):
        matches(properties)


def test_equality_does_not_take_a_boolean_for_a_number() -> None:
    assert is_equal(1, 1.0)
    assert not is_equal(1, True)
    assert not is_equal([1], [True])
    assert is_equal({"a": [1, {"b": None}]}, {"a": [1.0, {"b": None}]})
    assert not is_equal({"a": 1}, {"b": 1})


@pytest.mark.parametrize(
    "properties",
    [
        {"a": "x" * MAX_METADATA_BYTES},
        {f"k{n}": 1 for n in range(MAX_METADATA_KEYS + 1)},
        {"a": {f"k{n}": 1 for n in range(MAX_METADATA_KEYS + 1)}},
        {"a": {"b": {"c": {"d": {}}}}},
        {"a": [[[[]]]]},
    ],
)
def test_metadata_past_a_bound_is_refused(properties: dict) -> None:
    with pytest.raises(BadRequest):
        check_metadata(PeerMetadata(properties=properties))


def test_metadata_within_the_bounds_is_accepted() -> None:
    check_metadata(WORKER)
    check_metadata(PeerMetadata(properties={"a": {"b": {"c": {}}}}))
    check_metadata(
        PeerMetadata(properties={f"k{n}": n for n in range(MAX_METADATA_KEYS)})
    )
