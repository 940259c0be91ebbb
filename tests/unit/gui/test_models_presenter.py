"""The browser's presenter: lists, changes, aliases that move, files that do."""

from support.models_world import ModelsWorld, describe, make_model, model_id
from support.scripted_host import make_worker

from sleap_rtc_plugin.companion.messages import (
    Done,
    RoomChanged,
    RoomRow,
    WorkersChanged,
)
from sleap_rtc_plugin.companion.model_messages import (
    ChangeModel,
    DescribeModel,
    ListLocalModels,
    ListModels,
    LocalModels,
    LocalModelSet,
    ModelAnnounced,
    ModelProgress,
    Models,
    ModelSaved,
    PublishModel,
    Pulled,
    PullModel,
)
from sleap_rtc_plugin.gui.models_presenter import tags_problem
from sleap_rtc_plugin.gui.models_snapshot import COLUMNS, AliasQuestion, parse_tags
from sleap_rtc_plugin.protocol.errors import (
    AliasMoved,
    AliasTaken,
    ModelHasAlias,
    NoStore,
    StoreFull,
    StoreUnreachable,
)
from sleap_rtc_plugin.protocol.limits import MAX_MODEL_NOTES_CHARS, MAX_MODEL_TAGS
from sleap_rtc_plugin.protocol.model_messages import (
    DeleteModel,
    PutAlias,
    RemoveAlias,
    SetNotes,
    SetTags,
)
from sleap_rtc_plugin.protocol.model_records import Publication

FLIES = make_model(1, "flies", "flies-v2", tags=["fly"], workers=["gpu-1"])
MICE = make_model(2, "mice", type="bottomup", name="mice", best_loss=None)
PLAIN = make_model(3, name="261120.n=3", trained_by="bob")
LOCAL = LocalModelSet(name="new", type="topdown", folders=["/m/a", "/m/b"])


def inside() -> ModelsWorld:
    return ModelsWorld(FLIES, MICE, PLAIN).enter()


def chosen(number: int = 1) -> ModelsWorld:
    world = inside()
    world.presenter.choose(model_id(number))
    assert world.now.details is not None
    return world


def shown(world: ModelsWorld) -> list[str]:
    return [row.name for row in world.now.shown]


# -- the list --------------------------------------------------------------------------


def test_nothing_is_asked_before_a_room_is_entered() -> None:
    world = ModelsWorld(FLIES)
    world.presenter.refresh()
    assert world.host.asked == []
    assert not world.now.is_online


def test_the_models_of_the_room_are_listed_and_narrowed() -> None:
    world = inside()
    assert shown(world) == ["flies 1", "mice", "261120.n=3"]
    for text, names in {
        "FLIES-v": ["flies 1"],
        "gpu-1": ["flies 1"],
        "fly ada": ["flies 1"],
        "bob": ["261120.n=3"],
        model_id(2): ["mice"],
        "no such": [],
        "  ": ["flies 1", "mice", "261120.n=3"],
    }.items():
        world.presenter.narrow(text)
        assert shown(world) == names, text
    world.presenter.narrow("")
    world.presenter.choose_type("bottomup")
    assert shown(world) == ["mice"]


def test_a_column_sorts_both_ways_and_then_not_at_all() -> None:
    world = inside()
    loss = [title for title, _ in COLUMNS].index("Best loss")
    orders = []
    for _ in range(3):
        world.presenter.sort(loss)
        orders.append(shown(world))
    assert orders[0] == ["flies 1", "261120.n=3", "mice"], "what is not known is last"
    assert orders[1] == list(reversed(orders[0]))
    assert orders[2] == ["flies 1", "mice", "261120.n=3"]
    world.presenter.sort(99)
    assert world.now.order is None


def test_every_column_sorts_what_lacks_everything() -> None:
    bare = make_model(4, trained_at=None, best_loss=float("nan"), epochs=None)
    world = ModelsWorld(FLIES, bare, MICE).enter()
    for column in range(len(COLUMNS)):
        world.presenter.sort(column)
        assert len(world.now.shown) == 3


def test_a_list_that_cannot_be_had_says_why_and_comes_back() -> None:
    world = ModelsWorld(FLIES)
    world.host.answer(ListModels, NoStore(reason="no worker is online"))
    world.enter()
    assert "no worker is online" in world.now.notice
    assert world.now.is_problem and not world.now.is_listed and not world.now.is_listing
    world.presenter.refresh()
    assert (world.now.notice, shown(world)) == ("", ["flies 1"])


def test_an_open_browser_asks_by_itself_once_there_is_somebody_to_ask() -> None:
    world = ModelsWorld(FLIES)
    world.presenter.watch(True)
    assert world.host.asked == []
    world.host.answer(ListModels, NoStore(reason="no worker is online"))
    room = RoomRow(room_id="room-1", server="http://x")
    world.presenter.handle(RoomChanged(state="online", room=room))
    assert world.now.is_problem
    for _ in range(2):
        world.presenter.handle(WorkersChanged(workers=[make_worker("w-1")]))
    assert shown(world) == ["flies 1"]
    assert len(world.host.asked_for(ListModels)) == 2
    world.presenter.watch(False)
    world.presenter.handle(RoomChanged(state="offline", room=room, reason="x"))
    world.presenter.handle(RoomChanged(state="online", room=room))
    assert len(world.host.asked_for(ListModels)) == 2


def test_what_was_wanted_meanwhile_is_asked_once_more() -> None:
    world = ModelsWorld(FLIES)
    world.host.hold(ListModels)
    world.enter()
    world.presenter.refresh()
    world.presenter.refresh()
    assert len(world.host.asked_for(ListModels)) == 1
    world.host.release(ListModels)
    assert len(world.host.asked_for(ListModels)) == 2


def test_models_of_another_room_are_not_shown_there() -> None:
    world = chosen()
    world.host.hold(ListModels)
    world.presenter.refresh()
    world.host.models = [MICE]
    room = RoomRow(room_id="room-2", server="http://x")
    world.presenter.handle(RoomChanged(state="online", room=room))
    assert (world.now.rows, world.now.chosen) == ((), None)
    world.host.release(ListModels, Models(models=[FLIES]))
    assert world.now.rows == (), "an answer of yesterday"
    world.presenter.refresh()
    assert shown(world) == ["mice"]


def test_workers_that_could_not_be_asked_are_named() -> None:
    world = ModelsWorld(FLIES)
    world.host.answer(ListModels, Models(models=[FLIES], silent=["gpu-2 is away."]))
    world.enter()
    assert "gpu-2 is away" in world.now.notice
    assert shown(world) == ["flies 1"]


def test_news_of_a_model_are_said_and_fetched() -> None:
    world = inside()
    world.host.models.insert(0, make_model(7, "wasps"))
    world.presenter.handle(ModelAnnounced(model=model_id(7), alias="wasps"))
    assert world.news == ["The model wasps was published in this lab."]
    assert shown(world)[0] == "flies 7"


# -- one model -------------------------------------------------------------------------


def test_a_model_that_is_gone_is_no_longer_chosen() -> None:
    world = chosen()
    world.host.models = [MICE]
    world.presenter.refresh()
    assert (world.now.chosen, world.now.details) == (None, None)


def test_the_answer_about_a_model_that_is_no_longer_chosen_is_late() -> None:
    world = inside()
    world.host.hold(DescribeModel)
    world.presenter.choose(FLIES.id)
    world.presenter.choose(MICE.id)
    world.host.release(DescribeModel, describe(FLIES))
    assert world.now.chosen == MICE.id
    assert world.now.details is None


def test_notes_and_tags_are_saved() -> None:
    world = chosen()
    world.host.answer(ChangeModel, describe(FLIES, notes="Good."))
    world.presenter.save_notes("Good.")
    assert world.now.details is not None
    assert world.now.details.record.notes == "Good."
    assert world.now.notice == "The notes are saved."
    world.host.answer(ChangeModel, describe(FLIES, tags=["new", "wing"]))
    world.presenter.save_tags("wing, NEW")
    edits = [command.edit for command in world.host.asked_for(ChangeModel)]
    assert edits == [
        SetNotes(model=FLIES.id, notes="Good."),
        SetTags(model=FLIES.id, add=["new", "wing"], remove=["fly"]),
    ]


def test_what_cannot_be_saved_is_not_sent() -> None:
    world = chosen()
    world.presenter.save_notes("x" * (MAX_MODEL_NOTES_CHARS + 1))
    assert world.now.is_problem
    world.presenter.save_tags("fl/y")
    assert "A tag is made of" in world.now.notice
    world.presenter.put_alias("Flies 3")
    assert "An alias must be" in world.now.notice
    world.presenter.save_tags("fly")  # as before
    assert world.host.asked_for(ChangeModel) == []


def test_tags_as_they_are_typed() -> None:
    assert parse_tags(" b, a\ta,,B ") == ["a", "b"]
    assert tags_problem(["a", "b.c"]) == ""
    assert tags_problem(["-a"])
    assert tags_problem([f"t{n}" for n in range(MAX_MODEL_TAGS + 1)])


def test_a_failed_change_says_why() -> None:
    world = chosen()
    world.host.answer(ChangeModel, StoreUnreachable(store="/lab", reason="timeout"))
    world.presenter.save_notes("x")
    assert world.now.is_problem and "/lab" in world.now.notice
    assert world.now.working == ""


# -- aliases ---------------------------------------------------------------------------


def test_a_free_alias_is_given_without_a_question() -> None:
    world = chosen()
    world.host.answer(ChangeModel, describe(FLIES))
    world.presenter.put_alias(" best ")
    (command,) = world.host.asked_for(ChangeModel)
    assert command.edit == PutAlias(alias="best", model=FLIES.id)
    assert world.now.question is None


def test_an_alias_of_another_model_moves_after_a_question_only() -> None:
    world = chosen()
    world.presenter.put_alias("mice")
    question = world.now.question
    assert question == AliasQuestion("mice", FLIES.id, MICE.id, "mice")
    assert world.host.asked_for(ChangeModel) == []
    world.presenter.dismiss_question()
    assert world.now.question is None
    world.presenter.put_alias("mice")
    world.host.answer(ChangeModel, describe(FLIES))
    world.presenter.move_alias(question)
    (command,) = world.host.asked_for(ChangeModel)
    assert command.edit == PutAlias(
        alias="mice", model=FLIES.id, moves=True, expected=MICE.id
    )
    assert world.now.question is None


def test_an_alias_that_was_taken_meanwhile_is_asked_about() -> None:
    world = chosen()
    world.host.answer(ChangeModel, AliasTaken(alias="new", model=PLAIN.id))
    world.presenter.put_alias("new")
    assert world.now.question == AliasQuestion("new", FLIES.id, PLAIN.id, "261120.n=3")


def test_an_alias_that_moved_under_the_question_does_not_move() -> None:
    world = chosen()
    world.presenter.put_alias("mice")
    question = world.now.question
    assert question is not None
    world.host.answer(ChangeModel, AliasMoved(alias="mice", model=PLAIN.id))
    world.presenter.move_alias(question)
    assert "in the meantime" in world.now.notice
    assert len(world.host.asked_for(ListModels)) == 2


def test_an_alias_is_taken_away_and_a_model_deleted() -> None:
    world = chosen()
    world.host.answer(ChangeModel, Done(), Done())
    world.presenter.remove_alias("flies")
    world.host.models = [MICE, PLAIN]
    world.presenter.delete()
    edits = [command.edit for command in world.host.asked_for(ChangeModel)]
    assert edits == [
        RemoveAlias(alias="flies"),
        DeleteModel(model=FLIES.id, force=True),
    ]
    assert world.now.chosen is None
    assert shown(world) == ["mice", "261120.n=3"]


def test_a_model_without_alias_is_not_deleted_by_force() -> None:
    world = chosen(3)
    world.host.answer(ChangeModel, ModelHasAlias(model=PLAIN.id, aliases="new"))
    world.presenter.delete()
    (command,) = world.host.asked_for(ChangeModel)
    assert not command.edit.force
    assert "used as new" in world.now.notice
    assert world.now.chosen == PLAIN.id


# -- files -----------------------------------------------------------------------------


def test_a_model_is_pulled_with_its_progress() -> None:
    world = chosen()
    world.host.hold(PullModel)
    world.presenter.pull("/project/models")
    (command,) = world.host.asked_for(PullModel)
    assert (command.model, command.folder) == (FLIES.id, "/project/models")
    progress = ModelProgress(operation=command.operation, done=5, total=10)
    world.presenter.handle(progress)
    world.presenter.handle(ModelProgress(operation="another", done=9, total=9))
    assert world.now.progress == (5, 10)
    assert world.now.working
    world.presenter.pull("/elsewhere")
    assert len(world.host.asked_for(PullModel)) == 1, "one after the other"
    folders = ["/project/models/flies.centroid", "/project/models/flies.instance"]
    world.host.release(PullModel, Pulled(folders=folders))
    assert world.pulled == [folders]
    assert (world.now.working, world.now.progress) == ("", None)
    assert "flies.centroid, flies.instance" in world.now.notice


def test_a_pull_that_fails_says_why() -> None:
    world = chosen()
    world.host.answer(PullModel, StoreUnreachable(store="/lab", reason="gone"))
    world.presenter.pull("/project/models")
    assert world.now.is_problem and world.now.working == ""
    assert world.pulled == []


def test_a_local_model_is_found_and_published() -> None:
    world = inside()
    world.host.answer(ListLocalModels, LocalModels(models=[LOCAL]))
    world.presenter.find_local("/project/models")
    assert world.now.local == (LOCAL,)
    new = make_model(9, "new-v1", name="new")
    world.host.models.insert(0, new)
    world.host.answer(PublishModel, ModelSaved(model=describe(new)))
    world.presenter.publish(LOCAL, Publication(alias="new-v1", tags=["a"]))
    (command,) = world.host.asked_for(PublishModel)
    assert command.folders == ["/m/a", "/m/b"]
    assert command.publication == Publication(alias="new-v1", tags=["a"])
    assert world.now.notice == f"Published as new-v1 ({new.id})."
    assert world.now.chosen == new.id


def test_a_model_whose_alias_is_taken_is_published_and_asked_about() -> None:
    world = inside()
    new = make_model(9, name="new")
    taken = AliasTaken(alias="mice", model=MICE.id)
    saved = ModelSaved(model=describe(new), alias_error=taken.to_wire())
    world.host.models.insert(0, new)
    world.host.answer(PublishModel, saved)
    world.presenter.publish(LOCAL, Publication(alias="mice"))
    assert world.now.notice.startswith(f"Published as {new.id}.")
    assert world.now.question == AliasQuestion("mice", new.id, MICE.id, "mice")


def test_a_publishing_that_fails_says_why() -> None:
    world = inside()
    world.host.answer(PublishModel, StoreFull(store="/lab", reason="no space"))
    world.presenter.publish(LOCAL, Publication())
    assert world.now.is_problem and "no room left" in world.now.notice
    assert world.now.chosen is None
