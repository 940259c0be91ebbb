"""A manifest is right as a whole or damaged; nothing of it is believed unchecked."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from support.registry_samples import NOW, ROOM, manifest, model_id, record

from sleap_rtc_plugin.protocol.errors import (
    RegistryDamaged,
    RegistryFull,
    RegistryTooNew,
)
from sleap_rtc_plugin.protocol.limits import MAX_ALIASES_PER_MODEL, MAX_REGISTRY_BYTES
from sleap_rtc_plugin.protocol.model_records import ModelFile, ModelPart
from sleap_rtc_plugin.registry import room_manifest
from sleap_rtc_plugin.registry.room_manifest import (
    decode_manifest,
    empty_manifest,
    encode_manifest,
    record_fault,
)

FIELDS = {
    "id",
    "alias",
    "type",
    "name",
    "parts",
    "checkpoint_path",
    "files",
    "size_bytes",
    "trained_at",
    "trained_by",
    "trained_on",
    "published_at",
    "published_by",
    "workers",
    "notes",
    "tags",
    "training",
}


def plain(*numbers: int, **aliases: int) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(encode_manifest(manifest(*numbers, **aliases)))
    return value


def damage(value: dict[str, Any]) -> str:
    with pytest.raises(RegistryDamaged) as caught:
        decode_manifest(json.dumps(value).encode(), "lab")
    assert "nothing was changed" in str(caught.value)
    return caught.value.reason


def test_there_and_back() -> None:
    full = manifest(1, 2, best=1, latest=2)
    assert decode_manifest(encode_manifest(full), "lab") == full
    assert decode_manifest(encode_manifest(empty_manifest(ROOM)), "lab").models == {}


def test_every_field_stands_in_the_file() -> None:
    value = plain(1, 2, second=1, first=1)
    assert set(value) == {
        "version",
        "room_id",
        "updated_at",
        "models",
        "aliases",
        "former_aliases",
    }
    assert set(value["models"][model_id(1)]) == FIELDS
    assert value["models"][model_id(1)]["alias"] == "first"
    assert value["models"][model_id(2)]["alias"] is None
    assert "dataset_digest" in value["models"][model_id(1)]["training"]


def test_what_a_later_program_added_is_carried_along() -> None:
    value = plain(1, 2)
    value["licence"] = {"name": "CC0"}
    value["models"][model_id(1)]["colour"] = ["red"]
    again = json.loads(
        encode_manifest(decode_manifest(json.dumps(value).encode(), "lab"))
    )
    assert again == value


def test_a_later_version_is_not_touched() -> None:
    value = plain(1)
    value["version"] = 2
    with pytest.raises(RegistryTooNew, match="has version 2, which"):
        decode_manifest(json.dumps(value).encode(), "lab")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is not JSON from line 1 on"),
        (b'{\n"version": 1,\n', "it is not JSON from line 3 on"),
        (b"\xff\xfe", "it is not UTF-8 text"),
        (b"[]", "it is not a table of fields"),
        (b"{}", "it has no version"),
        (b'{"version": true}', "it has no version"),
        (b'{"version": "1"}', "it has no version"),
        (b'{"version": 1, "version": 1}', "'version' stands there twice"),
        (b'{"version": NaN}', "it holds the number NaN"),
        (b"[" * 100_000, "it is not JSON of any real size"),
        (b'{"version": ' + b"9" * 5_000 + b"}", "it is not JSON of any real size"),
    ],
)
def test_what_is_no_manifest(data: bytes, reason: str) -> None:
    with pytest.raises(RegistryDamaged) as caught:
        decode_manifest(data, "lab")
    assert caught.value.reason == reason


def test_an_absurdly_large_one_is_not_parsed() -> None:
    with pytest.raises(RegistryDamaged, match="larger than 64 MiB"):
        decode_manifest(b" " * (MAX_REGISTRY_BYTES + 1), "lab")


def test_one_alias_twice_is_a_fault_since_one_would_be_lost() -> None:
    text = encode_manifest(manifest(1, 2, best=1)).decode()
    entry = json.dumps({"model": model_id(2), "moves": []})
    edited = text.replace('"aliases": {', f'"aliases": {{ "best": {entry},', 1)
    with pytest.raises(RegistryDamaged, match="'best' stands there twice"):
        decode_manifest(edited.encode(), "lab")


def set_in(*path: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(manifest: dict[str, Any]) -> None:
        inner = manifest
        for step in path[:-1]:
            inner = inner[step]
        inner[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (set_in("room_id", value="../x"), "it names no room"),
        (set_in("room_id", value=None), "it names no room"),
        (set_in("updated_at", value=-1), "it does not say when it was changed"),
        (set_in("updated_at", value=1e300), "it does not say when it was changed"),
        (set_in("models", value=[]), "its models are no table"),
        (set_in("models", "x", value={}), "'x' is not the id of a model"),
        (set_in("models", model_id(2), value=7), f"{model_id(2)}: Expected `object`"),
        (
            set_in("models", model_id(1), "id", value=model_id(3)),
            f"{model_id(1)} says that it is {model_id(3)}",
        ),
        (set_in("models", model_id(1), "size_bytes", value=-1), "Expected `int` >= 0"),
        (set_in("models", model_id(1), "size_bytes", value=2**60), "Expected `int` <="),
        (set_in("models", model_id(1), "size_bytes", value=21), "has another size"),
        (set_in("models", model_id(1), "files", value=[]), "Expected `array`"),
        (set_in("models", model_id(1), "tags", value=["<b>"]), "Expected `str`"),
        (set_in("models", model_id(1), "notes", value="n" * 5_000), "Expected `str`"),
        (set_in("aliases", "Best One", value={}), "must be 1 to 64 small letters"),
        (set_in("aliases", "a/b", value={}), "must be 1 to 64 small letters"),
        (set_in("aliases", model_id(1), value={}), "looks like the id of a model"),
        (set_in("aliases", "best", "model", value=model_id(9)), "that is not listed"),
        (set_in("aliases", "best", "moves", value="no"), "the alias best: Expected"),
    ],
)
def test_what_a_hand_may_write_wrongly(
    change: Callable[[dict[str, Any]], None], reason: str
) -> None:
    value = plain(1, best=1)
    change(value)
    assert reason in damage(value)


def test_too_many_aliases_of_one_model() -> None:
    value = plain(1)
    names = [f"alias-{n}" for n in range(MAX_ALIASES_PER_MODEL + 1)]
    value["aliases"] = {name: {"model": model_id(1), "moves": []} for name in names}
    assert "more than 32 aliases" in damage(value)


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({}, None),
        ({"checkpoint_path": "run-1/other.ckpt"}, "names other weights"),
        ({"parts": [ModelPart(folder="..", head="centroid")]}, "lists .., which leads"),
        ({"parts": [ModelPart(folder="a/b", head="centroid")]}, "more than one name"),
        ({"parts": [ModelPart(folder="con", head="centroid")]}, "Windows reserves"),
        (
            {"parts": [ModelPart(folder=f, head="centroid") for f in ("a", "A")]},
            "two parts in one folder",
        ),
        (
            {"parts": [ModelPart(folder="other", head="centroid")]},
            "a file outside of its parts",
        ),
    ],
)
def test_records_that_could_not_be_laid_into_a_folder(
    fields: dict[str, object], fault: str | None
) -> None:
    found = record_fault(record(1, **fields))
    assert found is None if fault is None else found is not None and fault in found


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "run-1/../../x", "run-1/a\\b", "run-1/nul", "run-1/best.ckpt"],
)
def test_paths_that_nobody_may_write_to(path: str) -> None:
    files = [*record(1).files, ModelFile(path=path, size_bytes=0, digest="ab" * 32)]
    fault = record_fault(record(1, files=files))
    assert fault is not None
    assert "which" in fault


def test_a_part_needs_its_configuration_and_weights() -> None:
    for kept, missing in ((0, "training_config.yaml"), (1, "best.ckpt")):
        files = [record(1).files[kept]]
        assert record_fault(record(1, files=files, size_bytes=10)) == (
            f"lists no {missing} of run-1"
        )


def test_text_of_others_is_made_fit_to_show() -> None:
    value = plain(1, best=1)
    value["models"][model_id(1)]["name"] = "fly\u202e\x1b[31m"
    value["models"][model_id(1)]["notes"] = "one\x07\ntwo"
    value["aliases"]["best"]["moves"][0]["by"] = "ann\nbob"
    read = decode_manifest(json.dumps(value).encode(), "lab")
    assert read.models[model_id(1)].name == "fly [31m"
    assert read.models[model_id(1)].notes == "one\ntwo"
    assert read.aliases["best"].moves[0].by == "ann bob"


def test_more_than_any_reader_takes_is_not_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room_manifest, "MAX_REGISTRY_BYTES", 500)
    with pytest.raises(RegistryFull):
        encode_manifest(manifest(1, 2))


def test_times_are_numbers_that_come_back() -> None:
    assert decode_manifest(encode_manifest(manifest(1)), "lab").updated_at == NOW
