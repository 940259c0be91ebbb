"""What Run remotely offers beside SLEAP's dialog: models that fit, an alias."""

import dataclasses

import pytest
from support.models_world import make_model
from support.scripted_host import (
    ScriptedChoices,
    ScriptedHost,
    drive,
    job_row,
    make_run,
    make_session,
    make_worker,
)

from sleap_rtc_plugin.companion.messages import JobChanged, ResultsHome, SubmitRun
from sleap_rtc_plugin.companion.model_messages import ListModels, ModelAnnounced
from sleap_rtc_plugin.gui.messages import plan_words
from sleap_rtc_plugin.gui.model_choice import MAX_CHOICES, choices_of, misfit
from sleap_rtc_plugin.gui.presenter import RemotePresenter
from sleap_rtc_plugin.gui.run_choices import NO_MODEL, publish_problem
from sleap_rtc_plugin.gui.status_line import status_of
from sleap_rtc_plugin.protocol.errors import AliasTaken, NoStore
from sleap_rtc_plugin.protocol.model_records import Publication
from sleap_rtc_plugin.session.run_request import (
    ModelToTrain,
    PublishedModel,
    TrainedModel,
)

NODES = ["head", "thorax"]
FLIES = make_model(1, "flies")
MICE = make_model(2, "mice", type="bottomup")
HALF = make_model(3, "half", type="centroid")
MODEL = PublishedModel(id=FLIES.id, head="topdown", name="flies")
TRAINED = TrainedModel(head="bottomup", path="/m/b")


class World:
    """A presenter in a lab with models."""

    def __init__(self) -> None:
        skeletons = {FLIES.id: NODES, MICE.id: ["nose", "tail"]}
        self.host = ScriptedHost(models=[MICE, FLIES, HALF], skeletons=skeletons)
        self.presenter = RemotePresenter(self.host, drive, ScriptedChoices())
        self.presenter.connect(make_session())
        self.host.tell_workers(make_worker("w-1"))
        self.choices = self.presenter.run_choices

    @property
    def now(self):  # type: ignore[no-untyped-def]
        return self.presenter.snapshot

    def inference(self, **changes: object) -> "World":
        self.choices.set_mode("inference")
        self.choices.offer(NODES)
        self.presenter.configure(make_run(**{"models": [TRAINED], **changes}))
        return self

    def sent(self) -> SubmitRun:
        self.presenter.submit()
        (command,) = self.host.asked_for(SubmitRun)
        assert isinstance(command, SubmitRun)
        return command


@pytest.fixture
def world() -> World:
    return World()


# -- models to predict with ------------------------------------------------------------


def test_models_that_fit_come_first_and_the_others_say_why_not(world: World) -> None:
    world.inference()
    offered = world.now.offered
    assert [choice.model.name for choice in offered] == ["flies", "mice", "half"]
    assert offered[0].misfit == ""
    assert "does not know head, thorax" in offered[1].misfit
    assert "one half of a top-down pair" in offered[2].misfit


def test_a_chosen_model_takes_the_place_of_sleaps(world: World) -> None:
    world.inference()
    world.choices.choose_model(MICE.id)
    assert world.now.model is None, "it does not fit"
    world.choices.choose_model(FLIES.id)
    assert plan_words(world.now.planned) == "Predict on the suggested frames with flies"
    assert world.sent().run.models == [MODEL]


def test_sleaps_own_models_can_be_taken_again(world: World) -> None:
    world.inference()
    world.choices.choose_model(FLIES.id)
    world.choices.choose_model(None)
    assert world.sent().run.models == [TRAINED]


def test_a_run_without_any_model_cannot_be_sent(world: World) -> None:
    world.inference(models=[])
    assert not world.now.can_run
    assert status_of(world.now).text == NO_MODEL
    world.choices.use_model(MODEL)
    assert world.now.can_run


def test_a_model_that_turns_out_not_to_fit_is_refused(world: World) -> None:
    world.choices.use_model(PublishedModel(id=MICE.id, head="bottomup", name="mice"))
    world.inference()
    assert not world.now.can_run
    assert "another skeleton" in status_of(world.now).text


def test_news_of_a_model_are_offered(world: World) -> None:
    world.inference()
    new = make_model(9, "new")
    world.host.models.append(new)
    world.host.skeletons[new.id] = NODES
    world.host.on_event(ModelAnnounced(model=new.id, alias="new"))
    assert [c.model.name for c in world.now.offered][:2] == ["flies", "new"]


def test_a_lab_whose_models_are_not_known_still_runs(world: World) -> None:
    world.host.answer(ListModels, NoStore(reason="no worker"))
    world.inference()
    assert "no worker" in world.now.offer_problem
    assert world.now.can_run


def test_leaving_the_lab_forgets_its_models(world: World) -> None:
    world.inference()
    world.choices.choose_model(FLIES.id)
    world.presenter.leave()
    assert (world.now.model, world.now.offered) == (None, None)


def test_the_other_kind_of_run_is_forgotten(world: World) -> None:
    world.inference()
    world.choices.set_mode("training")
    assert world.now.run is None
    world.presenter.configure(make_run())
    world.choices.set_mode("training")
    assert world.now.run is not None


def test_what_fits() -> None:
    assert misfit("bottomup", [], NODES) == misfit("bottomup", NODES, []) == ""
    assert misfit("bottomup", ["thorax", "head"], NODES) == ""
    more = misfit("bottomup", [*NODES, *"abcd"], NODES)
    assert "the project has no a, b, c and 1 more" in more
    rows = [make_model(number + 1) for number in range(MAX_CHOICES + 9)]
    assert len(choices_of(rows, {}, NODES)) == MAX_CHOICES


# -- publishing what was trained -------------------------------------------------------


def test_a_training_is_published_under_its_alias(world: World) -> None:
    world.presenter.configure(make_run())
    assert world.now.planned.publish is None
    world.choices.set_publishes(True)
    assert not world.now.can_run
    assert "Type an alias" in world.now.publish_hint
    world.choices.set_alias(" flies-v2 ")
    assert world.now.can_run
    assert world.sent().run.publish == Publication(alias="flies-v2")


def test_an_alias_is_judged_as_it_is_typed(world: World) -> None:
    world.presenter.configure(make_run())
    world.choices.offer(NODES)
    world.choices.set_publishes(True)
    world.choices.set_alias("Flies V2")
    assert "An alias must be" in world.now.publish_hint
    assert not world.now.can_run
    world.choices.set_alias("mice")
    assert "another model's" in world.now.publish_hint
    assert world.now.can_run, "it is published all the same"


def test_half_a_pair_is_not_published() -> None:
    centroid = ModelToTrain(head="centroid", config="{}")
    bottomup = ModelToTrain(head="bottomup", config="{}")
    half = TrainedModel(head="centered_instance", path="/m")
    assert publish_problem(make_run(models=[centroid]), "a")
    assert publish_problem(make_run(models=[centroid, half]), "a")
    assert publish_problem(make_run(models=[bottomup, centroid]), "a")
    assert publish_problem(make_run(models=[bottomup]), "a") == ""
    assert publish_problem(make_run(), "a") == ""


def test_what_was_sent_is_not_published_again_with_the_next(world: World) -> None:
    world.presenter.configure(make_run())
    world.choices.set_publishes(True)
    world.choices.set_alias("flies-v2")
    job_id = world.sent().job_id
    world.host.tell_job(job_id, "running")
    assert world.now.run is None
    assert (world.now.publishes, world.now.alias) == (False, "")


@pytest.mark.parametrize("is_taken", [False, True])
def test_the_end_says_what_was_published(world: World, is_taken: bool) -> None:
    world.presenter.configure(make_run())
    world.choices.set_publishes(True)
    world.choices.set_alias("flies-v2")
    job_id = world.sent().job_id
    world.host.tell_job(job_id, "running")
    error = AliasTaken(alias="flies-v2", model=MICE.id).to_wire() if is_taken else None
    alias = "" if is_taken else "flies-v2"
    row = job_row(job_id, "succeeded", model=FLIES.id, alias=alias)
    world.host.on_event(JobChanged(job=row, publish_error=error))
    world.host.on_event(
        ResultsHome(job_id=job_id, worker="gpu", models=["/m/a"], predictions=[])
    )
    text = status_of(world.now).text
    if is_taken:
        assert f"Published as {FLIES.id}." in text
        assert "belongs to" in text
    else:
        assert f"Published as flies-v2 ({FLIES.id})." in text


def test_trying_again_is_the_same_job_only_with_the_same_choices(world: World) -> None:
    world.presenter.configure(make_run())
    job_id = world.sent().job_id
    world.host.tell_job(job_id, "unsent", error_info=NoStore(reason="x").to_wire())
    sent = world.now.submission
    same = world.now.planned
    assert sent.can_resume("w-1", same)
    other = dataclasses.replace(world.now, publishes=True, alias="new").planned
    assert not sent.can_resume("w-1", other)
