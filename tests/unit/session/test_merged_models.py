"""Several registries are one list, and one name means one model or says why not."""

from typing import Any

import pytest

from sleap_rtc_plugin.protocol.errors import ModelAmbiguous, ModelNotFound
from sleap_rtc_plugin.protocol.limits import MAX_MODEL_HOLDERS
from sleap_rtc_plugin.protocol.model_messages import ModelRow
from sleap_rtc_plugin.session.merged_models import (
    RegistryRows,
    disputed_aliases,
    expand_id,
    merge_rows,
    the_one_meant,
)

A = "model-aaaa" + "0" * 16
B = "model-aabb" + "0" * 16


def row(model_id: str, at: float = 1.0, **fields: Any) -> ModelRow:
    return ModelRow(
        id=model_id,
        type="centroid",
        name="flies",
        size_bytes=1,
        published_at=at,
        **fields,
    )


def merged(*registries: RegistryRows, worker: str = "") -> list[tuple[str, list[str]]]:
    return [(row.id, row.workers) for row in merge_rows(registries, worker)]


def test_one_registry_is_as_it_is() -> None:
    rows = [row(A, 2.0, workers=["w9"]), row(B, 1.0)]
    assert list(merge_rows([RegistryRows(["w1"], rows)])) == rows


def test_two_registries_say_who_has_what_the_newest_first() -> None:
    one = RegistryRows(["w1"], [row(A, 1.0)])
    two = RegistryRows(["w2"], [row(B, 2.0, workers=["w3"])])
    assert merged(one, two) == [(B, ["w3", "w2"]), (A, ["w1"])]


def test_the_same_model_in_two_registries_is_one() -> None:
    first = row(A, 5.0, aliases=["b"], tags=["fly"], trained_by="ann")
    second = row(A, 3.0, aliases=["a"], tags=["top"], trained_on="w2")
    [found] = merge_rows(
        [RegistryRows(["w1"], [first]), RegistryRows(["w2"], [second])]
    )
    assert found.aliases == ["a", "b"]
    assert found.tags == ["fly", "top"]
    assert found.workers == ["w1", "w2"]
    assert (found.published_at, found.trained_by, found.trained_on) == (
        3.0,
        "ann",
        "w2",
    )


def test_a_shared_store_does_not_mean_that_its_workers_hold_its_models() -> None:
    shared = RegistryRows(["w1", "w2"], [row(A, workers=["w2"])])
    own = RegistryRows(["w3"], [])
    assert merged(shared, own) == [(A, ["w2"])]
    assert merged(shared, own, worker="w2") == [(A, ["w2"])]
    assert merged(shared, own, worker="w1") == []


def test_a_worker_has_what_is_in_its_own_registry() -> None:
    assert merged(RegistryRows(["w1"], [row(A)]), worker="w1") == [(A, [])]
    assert merged(RegistryRows(["w1"], [row(A)]), worker="w2") == []


def test_holders_stay_bounded() -> None:
    many = [f"w{number}" for number in range(MAX_MODEL_HOLDERS)]
    one = RegistryRows(["x"], [row(A, workers=many)])
    [(_, workers)] = merged(one, RegistryRows(["y"], [row(A)]))
    assert len(workers) == MAX_MODEL_HOLDERS


def test_aliases_that_mean_two_models() -> None:
    rows = [row(A, aliases=["flies", "a"]), row(B, aliases=["flies", "b"])]
    assert disputed_aliases(rows) == ["flies"]
    assert disputed_aliases(rows[:1]) == []


@pytest.mark.parametrize("ref", ["aaaa", "model-aaaa", A, A.removeprefix("model-")])
def test_the_beginning_of_an_id(ref: str) -> None:
    assert expand_id(ref, [row(A), row(B)]) == A


@pytest.mark.parametrize("ref", ["", "aa", "aaa", "model-", "flies", "aaaag", "bbbb"])
def test_what_begins_no_id(ref: str) -> None:
    with pytest.raises(ModelNotFound):
        expand_id(ref, [row(A), row(B)])


def test_the_beginning_of_two_ids() -> None:
    other = "model-aaaa" + "1" * 16
    with pytest.raises(ModelAmbiguous) as caught:
        expand_id("aaaa", [row(A), row(other)])
    assert caught.value.candidates == f"{A}, {other}"


def test_one_name_for_one_model() -> None:
    assert the_one_meant("flies", [("w1", A, 1), ("w2", A, 2)]) == [1, 2]
    assert the_one_meant("flies", []) == []


def test_one_name_for_two_models() -> None:
    with pytest.raises(ModelAmbiguous) as caught:
        the_one_meant("flies", [("w1", A, 1), ("w2", B, 2)])
    assert str(caught.value).startswith(f"flies may be any of {A} on w1, {B} on w2;")
