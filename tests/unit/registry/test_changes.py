"""Each change of a manifest: what it does, what it refuses, and that twice is once."""

import pytest
from msgspec import structs
from support.registry_samples import NOW, manifest, model_id, record

from sleap_rtc_plugin.protocol.errors import (
    AliasMoved,
    AliasTaken,
    BadRequest,
    LocalProtocolError,
    ModelHasAlias,
    ModelNotFound,
    RegistryFull,
    RtcError,
)
from sleap_rtc_plugin.protocol.limits import (
    MAX_ALIAS_MOVES,
    MAX_ALIASES_PER_MODEL,
    MAX_MODEL_HOLDERS,
    MAX_MODEL_TAGS,
    MAX_UNIX_TIME_S,
)
from sleap_rtc_plugin.protocol.model_messages import (
    CollectModels,
    DeleteModel,
    ModelEdit,
    PutAlias,
    RemoveAlias,
    SetNotes,
    SetTags,
)
from sleap_rtc_plugin.protocol.model_records import (
    ModelFile,
    ModelFilter,
    Publication,
    TrainingFacts,
)
from sleap_rtc_plugin.registry import changes
from sleap_rtc_plugin.registry.changes import (
    add_model,
    aliases_of,
    apply_edit,
    find,
    note_holder,
    rows,
)

ONE, TWO = model_id(1), model_id(2)
LATER = NOW + 60.0


def test_a_model_is_found_by_alias_or_id() -> None:
    full = manifest(1, 2, best=1)
    assert find(full, "best").id == ONE
    assert find(full, TWO).id == TWO
    for ref in ("worst", model_id(3), "", "\x1b[2J"):
        with pytest.raises(ModelNotFound):
            find(full, ref)


# -- lists ---------------------------------------------------------------------------


def ids(wanted: ModelFilter) -> list[str]:
    full = manifest(1, 2, best=1)
    full.models[TWO] = record(
        2, type="topdown", tags=["fly"], workers=["gpu-1"], notes="Dark MALES"
    )
    return [row.id for row in rows(full, wanted)[0]]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (ModelFilter(), [TWO, ONE]),
        (ModelFilter(type="topdown"), [TWO]),
        (ModelFilter(tag="fly"), [TWO]),
        (ModelFilter(alias="be"), [ONE]),
        (ModelFilter(worker="gpu-1"), [TWO]),
        (ModelFilter(text="males"), [TWO]),
        (ModelFilter(text="BEST"), [ONE]),
        (ModelFilter(text="FLY"), [TWO]),
        (ModelFilter(type="topdown", alias="be"), []),
    ],
)
def test_filters(wanted: ModelFilter, found: list[str]) -> None:
    assert ids(wanted) == found


def test_pages_follow_each_other() -> None:
    full = manifest(*range(7))
    seen, after, more = [], None, True
    while more:
        page, more = rows(full, after=after, limit=3)
        seen += [row.id for row in page]
        after = page[-1].id
    assert seen == [model_id(n) for n in reversed(range(7))]
    assert rows(full, after=model_id(9), limit=2)[0] == rows(full, limit=2)[0]


def test_a_page_fits_into_a_frame() -> None:
    full = manifest()
    for number in range(50):
        workers = [f"{n:03} {'w' * 116}" for n in range(MAX_MODEL_HOLDERS)]
        full.models[model_id(number)] = record(number, workers=workers)
    page, more = rows(full)
    assert 0 < len(page) < 10
    assert more


# -- publishing ------------------------------------------------------------------------


def test_a_model_gets_its_notes_tags_and_time() -> None:
    published = Publication(alias="best", notes="Good.\x07", tags=["b", "a"])
    full = add_model(manifest(), record(1), published, "ann\n", LATER)
    added = full.models[ONE]
    assert (added.notes, added.tags) == ("Good.", ["a", "b"])
    assert (added.published_by, added.published_at) == ("ann", LATER)
    assert full.updated_at == LATER
    assert full.aliases == {}
    assert add_model(full, record(1), published, "bob", LATER + 1) is full


def test_a_second_publication_completes_the_first() -> None:
    full = manifest(1)
    again = record(1, trained_by="ann", workers=["gpu-2"])
    again = structs.replace(again, training=TrainingFacts(epochs=9, duration_s=5.0))
    merged = add_model(full, again, Publication(tags=["x"]), "bob", LATER).models[ONE]
    assert merged.trained_by == "ann"
    assert merged.workers == ["gpu-2"]
    assert merged.tags == ["x"]
    assert merged.training.epochs == 3
    assert merged.training.duration_s == 5.0
    assert merged.published_at == record(1).published_at


def test_files_that_are_lost_leave_the_list() -> None:
    extra = ModelFile(path="run-1/metrics.val.0.json", size_bytes=5, digest="ee" * 32)
    files = [*record(1).files, extra]
    full = manifest()
    full.models[ONE] = record(1, files=files, size_bytes=25)
    same = add_model(full, record(1), Publication(), "bob", LATER)
    assert same is full
    without = add_model(
        full, record(1), Publication(), "bob", LATER, frozenset({extra.digest})
    )
    assert without.models[ONE].files == record(1).files
    assert without.models[ONE].size_bytes == 20


def test_a_room_is_full_some_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "MAX_MODELS_PER_ROOM", 2)
    with pytest.raises(RegistryFull, match="no more models than 2"):
        add_model(manifest(1, 2), record(3), Publication(), "ann", LATER)
    add_model(manifest(1, 2), record(2), Publication(notes="x"), "ann", LATER)


# -- aliases -------------------------------------------------------------------------


def test_an_alias_moves_only_where_it_is_said() -> None:
    full = manifest(1, 2, best=1)
    with pytest.raises(AliasTaken) as taken:
        apply_edit(full, PutAlias(alias="best", model=TWO), "bob", LATER)
    assert taken.value.model == ONE
    moved = apply_edit(full, PutAlias(alias="best", model=TWO, moves=True), "b", LATER)
    assert moved.aliases["best"].model == TWO
    newest, first = moved.aliases["best"].moves
    assert (newest.model, newest.by, newest.at) == (TWO, "b", LATER)
    assert first.model == ONE
    edit = PutAlias(alias="best", model=TWO)
    assert apply_edit(moved, edit, "c", LATER + 1) is moved


@pytest.mark.parametrize(("expected", "has_it"), [(TWO, True), (ONE, False)])
def test_an_alias_is_where_it_was_expected(expected: str, has_it: bool) -> None:
    full = manifest(1, 2, 3, **({"best": 1} if has_it else {}))
    edit = PutAlias(alias="best", model=model_id(3), moves=True, expected=expected)
    with pytest.raises(AliasMoved) as moved:
        apply_edit(full, edit, "bob", LATER)
    assert moved.value.model == (ONE if has_it else "no model")


def test_an_expected_alias_moves() -> None:
    edit = PutAlias(alias="best", model=TWO, moves=True, expected=ONE)
    full = apply_edit(manifest(1, 2, best=1), edit, "bob", LATER)
    assert full.aliases["best"].model == TWO
    assert apply_edit(full, edit, "bob", LATER) is full


@pytest.mark.parametrize(
    "alias", ["", "A", "a b", "a/b", "..", "-a", "é", "x" * 65, ONE]
)
def test_odd_aliases_are_refused(alias: str) -> None:
    with pytest.raises(BadRequest):
        apply_edit(manifest(1), PutAlias(alias=alias, model=ONE), "ann", LATER)


def test_moves_and_aliases_have_bounds() -> None:
    full = manifest(1, 2, best=1)
    for turn in range(3 * MAX_ALIAS_MOVES):
        target = TWO if turn % 2 == 0 else ONE
        edit = PutAlias(alias="best", model=target, moves=True)
        full = apply_edit(full, edit, f"p{turn}", LATER + turn)
    assert len(full.aliases["best"].moves) == MAX_ALIAS_MOVES
    for number in range(MAX_ALIASES_PER_MODEL - 1):
        edit = PutAlias(alias=f"a{number}", model=ONE)
        full = apply_edit(full, edit, "ann", LATER)
    with pytest.raises(RegistryFull, match="aliases of one model"):
        apply_edit(full, PutAlias(alias="last", model=ONE), "ann", LATER)


def test_who_took_an_alias_away_is_not_forgotten() -> None:
    full = apply_edit(manifest(1, 2, best=1), RemoveAlias(alias="best"), "eve", LATER)
    assert full.aliases == {}
    with pytest.raises(ModelNotFound):
        apply_edit(full, RemoveAlias(alias="best"), "eve", LATER)
    back = apply_edit(full, PutAlias(alias="best", model=TWO), "bob", LATER + 1)
    assert [(m.model, m.by) for m in back.aliases["best"].moves] == [
        (TWO, "bob"),
        (None, "eve"),
        (ONE, "x"),
    ]
    assert back.former_aliases == {}


def test_the_oldest_of_former_aliases_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "MAX_FORMER_ALIASES", 2)
    full = manifest(1, a1=1, a2=1, a3=1)
    for name in ("a1", "a2", "a3"):
        full = apply_edit(full, RemoveAlias(alias=name), "ann", LATER)
    assert list(full.former_aliases) == ["a3", "a2"]


# -- the rest ------------------------------------------------------------------------


def test_deleting_what_is_used_by_name_needs_force() -> None:
    full = manifest(1, 2, best=1, also=1)
    full.unknown_of_models[ONE] = {"colour": "red"}
    with pytest.raises(ModelHasAlias, match="is used as also, best"):
        apply_edit(full, DeleteModel(model="best"), "ann", LATER)
    gone = apply_edit(full, DeleteModel(model="best", force=True), "ann", LATER)
    assert list(gone.models) == [TWO]
    assert gone.aliases == {}
    assert gone.unknown_of_models == {}
    assert set(gone.former_aliases) == {"best", "also"}
    assert apply_edit(full, DeleteModel(model=TWO), "ann", LATER).models.keys() == {ONE}


def test_tags_and_notes() -> None:
    full = apply_edit(manifest(1), SetTags(model=ONE, add=["b", "a"]), "ann", LATER)
    full = apply_edit(full, SetTags(model=ONE, add=["c"], remove=["a"]), "ann", LATER)
    assert full.models[ONE].tags == ["b", "c"]
    assert apply_edit(full, SetTags(model=ONE, remove=["z"]), "ann", LATER) is full
    many = [f"t{n}" for n in range(MAX_MODEL_TAGS)]
    with pytest.raises(RegistryFull, match="tags of one model"):
        apply_edit(full, SetTags(model=ONE, add=many), "ann", LATER)
    noted = apply_edit(full, SetNotes(model=ONE, notes="x\r\ny\x1b"), "ann", LATER)
    assert noted.models[ONE].notes == "x\ny"


def test_holders_are_noted_newest_first_and_bounded() -> None:
    full = manifest(1)
    for number in range(MAX_MODEL_HOLDERS + 5):
        full = note_holder(full, ONE, f"gpu-{number}", True, LATER)
    workers = full.models[ONE].workers
    assert len(workers) == MAX_MODEL_HOLDERS
    assert workers[0] == f"gpu-{MAX_MODEL_HOLDERS + 4}"
    assert note_holder(full, ONE, workers[0], True, LATER) is full
    gone = note_holder(full, ONE, workers[0], False, LATER)
    assert workers[0] not in gone.models[ONE].workers
    assert note_holder(full, TWO, "gpu-1", True, LATER) is full


def test_the_store_itself_is_not_in_the_list() -> None:
    with pytest.raises(LocalProtocolError):
        apply_edit(manifest(), CollectModels(), "ann", LATER)


def test_a_clock_that_is_behind_turns_nothing_back() -> None:
    full = manifest(1, 2, best=1)
    edits: list[ModelEdit] = [
        PutAlias(alias="best", model=TWO, moves=True),
        SetNotes(model=ONE, notes="x"),
        RemoveAlias(alias="best"),
        DeleteModel(model=ONE),
    ]
    for edit in edits:
        full = apply_edit(full, edit, "ann", 5.0)
        assert full.updated_at == NOW
    assert full.former_aliases["best"][0].at == NOW
    added = add_model(full, record(5), Publication(), "ann", 5.0)
    assert added.models[model_id(5)].published_at == NOW
    ahead = add_model(full, record(5), Publication(), "ann", 1e18)
    assert ahead.updated_at == MAX_UNIX_TIME_S


def test_every_error_says_what_to_do() -> None:
    edits: list[ModelEdit] = [
        PutAlias(alias="best", model=TWO),
        DeleteModel(model="best"),
        SetTags(model="nobody"),
    ]
    for edit in edits:
        with pytest.raises(RtcError) as caught:
            apply_edit(manifest(1, 2, best=1), edit, "ann", LATER)
        assert "; " in str(caught.value)


def test_aliases_in_order() -> None:
    assert aliases_of(manifest(1, 2, b=1, a=1, c=2), ONE) == ["a", "b"]
