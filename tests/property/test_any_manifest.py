"""Any bytes give a manifest or words; any changes leave one that can be read again."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from support.registry_samples import NOW, manifest, model_id, record

from sleap_rtc_plugin.protocol.errors import (
    ModelError,
    RegistryDamaged,
    RegistryTooNew,
    RtcError,
)
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.model_messages import (
    DeleteModel,
    ModelEdit,
    PutAlias,
    RemoveAlias,
    SetNotes,
    SetTags,
)
from sleap_rtc_plugin.protocol.model_records import Publication
from sleap_rtc_plugin.protocol.paths import path_fault
from sleap_rtc_plugin.registry.changes import add_model, apply_edit, note_holder
from sleap_rtc_plugin.registry.loss_log import curve_of, facts_of
from sleap_rtc_plugin.registry.room_manifest import (
    RoomManifest,
    decode_manifest,
    encode_manifest,
    record_fault,
)

texts = st.text(max_size=30)
plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)
    ),
    max_leaves=8,
)
numbers = st.integers(min_value=0, max_value=5)
aliases = st.sampled_from(["a1", "best", "latest"])
refs = numbers.map(model_id) | aliases
notes = st.text(max_size=50)
tags = st.lists(st.sampled_from(["x", "y", "z"]), max_size=3)
edits: st.SearchStrategy[ModelEdit] = st.one_of(
    st.builds(PutAlias, alias=aliases, model=refs, moves=st.booleans()),
    st.builds(RemoveAlias, alias=aliases),
    st.builds(SetTags, model=refs, add=tags, remove=tags),
    st.builds(SetNotes, model=refs, notes=notes),
    st.builds(DeleteModel, model=refs, force=st.booleans()),
)


def read(data: bytes) -> RoomManifest | None:
    try:
        return decode_manifest(data, "lab")
    except (RegistryDamaged, RegistryTooNew) as error:
        assert clean_text(str(error), 10_000) == str(error)
        return None


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    read(data)
    curve_of(data)
    facts_of(data, None)


@given(st.data())
def test_any_value_in_any_place(data: st.DataObject) -> None:
    value: Any = json.loads(encode_manifest(manifest(1, 2, best=1)))
    inner = value
    while True:
        keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        key = data.draw(st.sampled_from(keys))
        deeper = inner[key]
        if (
            not deeper
            or not isinstance(deeper, dict | list)
            or data.draw(st.booleans())
        ):
            break
        inner = deeper
    inner[key] = data.draw(plain_values)
    found = read(json.dumps(value).encode())
    if found is not None:
        for listed in found.models.values():
            assert record_fault(listed) is None
            assert all(path_fault(file.path) is None for file in listed.files)
        assert all(alias.model in found.models for alias in found.aliases.values())
        assert decode_manifest(encode_manifest(found), "lab") == found


@given(st.lists(st.tuples(edits, st.floats(0, 2 * NOW)), max_size=8))
def test_any_changes_leave_what_can_be_read(
    steps: list[tuple[ModelEdit, float]],
) -> None:
    current = manifest()
    for number in range(4):
        current = add_model(current, record(number), Publication(), "ann", NOW)
    for edit, now in steps:
        try:
            changed = apply_edit(current, edit, "bob", now)
        except RtcError as error:
            assert isinstance(error, ModelError)
            continue
        assert changed.updated_at >= current.updated_at
        for alias in changed.aliases.values():
            times = [move.at for move in alias.moves]
            assert times == sorted(times, reverse=True)
            assert alias.moves[0].model == alias.model
        if not isinstance(edit, RemoveAlias | DeleteModel):
            assert apply_edit(changed, edit, "bob", now) is changed
        current = note_holder(changed, model_id(1), "gpu", now > NOW, now)
        assert decode_manifest(encode_manifest(current), "lab") == current
