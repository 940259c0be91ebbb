"""The presenter against a scripted host: every intention, every turn of events."""

from collections.abc import Callable

import pytest
from support.scripted_host import (
    SERVER,
    ScriptedChoices,
    ScriptedHost,
    drive,
    make_run,
    make_session,
    make_worker,
)

from sleap_rtc_plugin.companion.messages import (
    AttachJob,
    CancelJob,
    Connect,
    ConnectRemembered,
    Disconnect,
    Event,
    ForgetRoom,
    ListRooms,
    PackageProgress,
    ResultsHome,
    RoomRow,
    SignIn,
    SubmitRun,
    WorkersChanged,
)
from sleap_rtc_plugin.gui.messages import COMPANION_DEAD, COMPANION_RESTARTED
from sleap_rtc_plugin.gui.presenter import MAX_FOLLOWED_JOBS, RemotePresenter
from sleap_rtc_plugin.gui.snapshot import Lab, Submission
from sleap_rtc_plugin.protocol.errors import (
    CompanionGone,
    LinkFailed,
    RoomGone,
    TooMany,
    TransferStalled,
    WorkerBusy,
)

STALLED = TransferStalled(activity="sending", seconds="60").to_wire()
ROOM = RoomRow(room_id="room-0", server=SERVER)


class World:
    """A presenter and its host."""

    def __init__(self, **choices: object) -> None:
        self.host = ScriptedHost()
        self.choices = ScriptedChoices(**choices)  # type: ignore[arg-type]
        self.presenter = RemotePresenter(self.host, drive, self.choices)

    @property
    def now(self):  # type: ignore[no-untyped-def]
        return self.presenter.snapshot

    @property
    def sent(self) -> Submission:
        submission = self.presenter.snapshot.submission
        assert submission is not None
        return submission

    def ready(self) -> "World":
        self.presenter.connect(make_session())
        self.host.tell_workers(make_worker("w-1", name="gpu-1"), make_worker("w-2"))
        self.presenter.choose_worker("w-1")
        self.presenter.configure(make_run())
        assert self.now.can_run
        return self

    def sending(self) -> "World":
        self.ready()
        self.presenter.submit()
        assert self.now.is_sending
        return self

    def training(self) -> "World":
        self.sending()
        self.host.tell_job(self.sent.job_id, "running")
        assert self.sent.was_queued
        return self


@pytest.fixture
def world() -> World:
    return World()


# -- the lab ---------------------------------------------------------------------------


def test_a_session_string_leads_into_its_room(world: World) -> None:
    world.presenter.connect(f"  {make_session()}\n")
    (command,) = world.host.asked_for(Connect)
    assert command == Connect(session=make_session(), remember=True)
    assert world.now.lab is Lab.INSIDE
    assert world.now.room.server == SERVER
    assert world.choices.last_room_id == "room-1"
    assert world.now.rooms[0].room_id == "room-1"
    assert world.choices.saves > 0


def test_what_is_no_session_string_asks_nobody(world: World) -> None:
    for text in ("", "hello", make_session()[:-5], "sleap-session:<b>"):
        world.presenter.connect(text)
        assert "session string cannot be read" in world.now.problem
    assert world.host.asked == []


def test_a_refused_session_says_why_and_leaves_the_form(world: World) -> None:
    world.host.answer(Connect, RoomGone(server=SERVER))
    world.presenter.connect(make_session())
    assert world.now.lab is Lab.OUTSIDE
    assert "no longer exists" in world.now.problem
    world.presenter.connect(make_session())
    assert (world.now.lab, world.now.problem) == (Lab.INSIDE, "")


def test_remembering_is_asked_for_and_kept(world: World) -> None:
    world.presenter.set_remembers(False)
    world.presenter.connect(make_session())
    assert world.host.asked_for(Connect)[0].remember is False
    assert world.choices.remember is False
    assert World(remember=False).now.remembers is False


def test_relays_alone_are_kept_as_a_choice(world: World) -> None:
    saves = world.choices.saves
    world.presenter.set_relay_only(True)
    assert world.now.is_relay_only
    assert (world.choices.relay_only, world.choices.saves) == (True, saves + 1)
    assert World(relay_only=True).now.is_relay_only


def test_the_environment_decides_about_relays(world: World) -> None:
    forced = World(relay_only=True, forced_relay_only=False)
    forced.presenter.set_relay_only(True)
    assert not forced.now.is_relay_only
    assert forced.now.is_relay_only_forced
    assert forced.choices.saves == 0


def test_signing_in_opens_a_room_and_shows_its_session_once(world: World) -> None:
    world.presenter.sign_in(" lab.example:8080/ ")
    assert world.host.asked_for(SignIn)[0].server == SERVER
    assert world.presenter.new_session == make_session("room-new")
    assert world.choices.last_server == SERVER
    assert make_session("room-new") not in repr(world.now)
    world.presenter.hide_new_session()
    assert world.presenter.new_session == ""


@pytest.mark.parametrize("address", ["", "http://", "ftp://x", "http://a b", "://"])
def test_what_is_no_address_asks_nobody(world: World, address: str) -> None:
    world.presenter.sign_in(address)
    assert "address of a server" in world.now.problem
    assert world.host.asked == []


def test_the_last_lab_is_entered_at_the_first_showing_only() -> None:
    world = World(last_room_id="room-0")
    world.host.rooms = [ROOM]
    world.presenter.begin()
    assert world.host.asked_for(ConnectRemembered)[0].room_id == "room-0"
    world.presenter.leave()
    world.presenter.begin()
    assert world.now.lab is Lab.OUTSIDE
    assert len(world.host.asked_for(ConnectRemembered)) == 1


def test_a_lab_that_is_not_remembered_any_more_is_not_entered() -> None:
    world = World(last_room_id="room-9")
    world.host.rooms = [ROOM]
    world.presenter.begin()
    assert world.now.rooms == (ROOM,)
    assert world.host.asked_for(ConnectRemembered) == []


def test_going_to_another_lab_leaves_the_first(world: World) -> None:
    world.ready()
    world.presenter.choose_lab()
    assert world.now.is_choosing
    world.presenter.connect(make_session("room-2"))
    assert len(world.host.asked_for(Disconnect)) == 1
    assert world.now.room.room_id == "room-2"
    assert (world.now.worker_id, world.now.workers) == (None, None)
    assert world.now.run is not None


def test_only_one_room_is_entered_at_a_time(world: World) -> None:
    world.host.hold(Connect)
    world.presenter.connect(make_session())
    world.presenter.connect(make_session("room-2"))
    world.presenter.sign_in(SERVER)
    world.presenter.leave()
    assert world.now.lab is Lab.ENTERING
    world.host.release(Connect)
    assert world.now.room.room_id == "room-1"
    assert world.host.asked_for(SignIn) == []


def test_a_forgotten_lab_is_not_entered_again(world: World) -> None:
    world.ready()
    world.presenter.forget_room("room-1")
    assert world.host.asked_for(ForgetRoom)[0].room_id == "room-1"
    assert world.choices.last_room_id == ""
    assert world.now.rooms == ()


# -- worker and run --------------------------------------------------------------------


def test_the_worker_of_last_time_is_chosen() -> None:
    world = World(last_worker="w-2")
    world.presenter.connect(make_session())
    world.host.tell_workers(make_worker("w-1"), make_worker("w-2"))
    assert world.now.worker_id == "w-2"


def test_nobody_is_chosen_in_place_of_one_who_left(world: World) -> None:
    world.ready()
    world.host.tell_workers(make_worker("w-2"))
    assert world.now.worker_id == "w-1"
    world.presenter.submit()
    assert world.host.asked_for(SubmitRun) == []


def test_a_worker_that_is_not_there_cannot_be_chosen(world: World) -> None:
    world.ready()
    world.presenter.choose_worker("w-9")
    assert world.now.worker_id == "w-1"


def test_a_run_is_sent_once(world: World) -> None:
    world.sending()
    world.presenter.submit()
    (command,) = world.host.asked_for(SubmitRun)
    assert (command.worker_id, command.run) == ("w-1", make_run())
    assert world.choices.last_worker == "w-1"
    assert not world.now.can_enter


def test_the_next_run_is_another_job(world: World) -> None:
    world.training()
    world.presenter.configure(make_run())
    world.presenter.submit()
    first, second = world.host.asked_for(SubmitRun)
    assert first.job_id != second.job_id


def test_a_run_that_was_not_taken_keeps_its_job(world: World) -> None:
    world.sending()
    world.host.tell_job(world.sent.job_id, "staging", error_info=STALLED)
    assert "Press Run remotely" in world.sent.problem
    world.presenter.configure(make_run())  # the same once more
    world.presenter.submit()
    first, second = world.host.asked_for(SubmitRun)
    assert first == second


def test_a_run_for_another_worker_is_another_job(world: World) -> None:
    world.sending()
    world.host.tell_job(world.sent.job_id, "unsent", error_info=STALLED)
    world.presenter.choose_worker("w-2")
    world.presenter.submit()
    first, second = world.host.asked_for(SubmitRun)
    assert first.job_id != second.job_id


def test_a_refused_run_says_why_and_may_be_sent_again(world: World) -> None:
    world.host.answer(SubmitRun, WorkerBusy(worker="gpu-1", reason="it is closing"))
    world.ready()
    world.presenter.submit()
    assert "it is closing" in world.sent.problem
    assert world.now.can_run


def test_cancelling_takes_back_what_is_being_sent(world: World) -> None:
    world.sending()
    world.host.hold(CancelJob)
    world.presenter.cancel()
    world.presenter.cancel()
    assert world.sent.is_cancelling
    assert not world.now.can_cancel
    (command,) = world.host.asked_for(CancelJob)
    assert command.job_id == world.sent.job_id
    world.host.release(CancelJob)
    assert world.sent.was_cancelled
    assert world.now.can_run
    world.host.tell_job(world.sent.job_id, "queued")
    assert world.sent.was_cancelled


def test_a_cancel_that_fails_can_be_tried_again(world: World) -> None:
    world.host.answer(CancelJob, LinkFailed(worker="gpu-1", reason="no route"))
    world.sending()
    world.presenter.cancel()
    assert "no route" in world.now.problem
    assert world.now.can_cancel


def test_nothing_is_cancelled_when_nothing_is_sent(world: World) -> None:
    world.training()
    world.presenter.cancel()
    assert world.host.asked_for(CancelJob) == []


# -- the companion dies ----------------------------------------------------------------


def test_a_new_companion_is_told_what_the_old_one_did(world: World) -> None:
    world.training()
    first = world.sent.job_id
    world.presenter.configure(make_run(predictions=[]))
    world.presenter.submit()
    resumed: list[bool] = []
    world.presenter.when_resumed(lambda: resumed.append(True))
    world.host.asked.clear()
    world.host.die()
    kinds = [type(command) for command in world.host.asked]
    assert kinds == [Connect, SubmitRun, AttachJob]
    assert world.host.asked_for(SubmitRun)[0].job_id == world.sent.job_id
    (attach,) = world.host.asked_for(AttachJob)
    assert (attach.job_id, attach.output) == (first, "/projects/flies")
    assert world.now.note == COMPANION_RESTARTED
    assert world.now.lab is Lab.INSIDE
    assert resumed == [True]


@pytest.mark.parametrize("command", [Connect, SubmitRun])
def test_what_was_being_asked_is_asked_again(world: World, command: type) -> None:
    world.host.hold(command)
    world.presenter.connect(make_session())
    world.host.tell_workers(make_worker("w-1"))
    world.presenter.configure(make_run())
    world.presenter.submit()
    world.host.die()
    first, second = world.host.asked_for(command)
    assert first == second
    assert world.now.lab is Lab.INSIDE
    assert world.now.problem == ""


def test_a_cancel_is_not_lost_with_the_companion(world: World) -> None:
    world.sending()
    world.host.hold(CancelJob)
    world.presenter.cancel()
    world.host.die()
    assert len(world.host.asked_for(CancelJob)) == 2
    assert len(world.host.asked_for(SubmitRun)) == 1
    assert world.sent.was_cancelled


def test_a_sign_in_is_not_repeated_behind_the_users_back(world: World) -> None:
    world.host.hold(SignIn)
    world.presenter.sign_in(SERVER)
    world.host.die()
    assert len(world.host.asked_for(SignIn)) == 1
    assert world.now.lab is Lab.OUTSIDE
    assert world.now.note == COMPANION_RESTARTED


def test_a_room_that_was_opened_is_entered_again_by_its_string(world: World) -> None:
    world.presenter.sign_in(SERVER)
    world.host.die()
    assert world.host.asked_for(Connect)[0].session == make_session("room-new")
    assert len(world.host.asked_for(SignIn)) == 1


def test_a_remembered_room_is_entered_again_by_its_id(world: World) -> None:
    world.host.rooms = [ROOM]
    world.presenter.connect_remembered("room-0")
    world.host.die()
    assert len(world.host.asked_for(ConnectRemembered)) == 2


def test_a_companion_that_dies_while_it_is_told_is_told_anew(world: World) -> None:
    world.training()
    world.host.hold(AttachJob)
    world.host.die()
    world.host.hold(AttachJob)
    world.host.die()
    assert len(world.host.asked_for(Connect)) == 3
    assert len(world.host.asked_for(AttachJob)) == 2
    assert world.now.problem == ""


def test_jobs_whose_results_came_home_are_not_followed_any_more(world: World) -> None:
    world.training()
    home = ResultsHome(
        job_id=world.sent.job_id, worker="gpu-1", models=[], predictions=[]
    )
    world.host.on_event(home)
    assert world.sent.are_results_home
    world.host.die()
    assert world.host.asked_for(AttachJob) == []


async def test_jobs_of_the_other_windows_are_followed_too(world: World) -> None:
    world.ready()
    command = AttachJob(worker_id="w-1", job_id="job-x", output=None)
    await world.presenter.ask(command)
    world.host.die()
    assert world.host.asked_for(AttachJob) == [command, command]
    for number in range(2 * MAX_FOLLOWED_JOBS):
        await world.presenter.ask(AttachJob(worker_id="w-1", job_id=f"job-{number}"))
    world.host.asked.clear()
    world.host.die()
    assert len(world.host.asked_for(AttachJob)) == MAX_FOLLOWED_JOBS


def test_a_dead_companion_leaves_everything_readable(world: World) -> None:
    world.sending()
    world.host.hold(CancelJob)
    world.presenter.cancel()
    world.host.die_for_good("exit code 1")
    now = world.now
    assert now.dead == COMPANION_DEAD
    assert not (now.can_run or now.can_enter or now.can_cancel)
    assert now.workers
    assert now.run is not None
    world.presenter.begin()
    world.presenter.submit()
    assert len(world.host.asked_for(SubmitRun)) == 1


def test_starting_again_goes_on_with_another_host(world: World) -> None:
    world.sending()
    world.host.die_for_good()
    host = ScriptedHost()
    world.presenter.replace_host(host)
    assert world.now.dead == ""
    assert [type(command) for command in host.asked] == [Connect, SubmitRun]
    host.tell_workers(make_worker("w-7"))
    assert [w.worker_id for w in world.now.workers] == ["w-7"]


def test_a_companion_that_cannot_be_started_is_said(world: World) -> None:
    gone = CompanionGone(reason="it could not be started")
    world.host.answer(ListRooms, gone)
    world.presenter.begin()
    assert "it could not be started" in world.now.problem
    world.host.answer(Connect, gone)
    world.presenter.connect(make_session())
    assert world.now.lab is Lab.OUTSIDE
    assert "it could not be started" in world.now.problem
    world.ready()
    world.host.answer(SubmitRun, gone)
    world.presenter.submit()
    assert not world.now.is_sending
    assert "it could not be started" in world.sent.problem


# -- others ----------------------------------------------------------------------------


def test_every_event_is_passed_on_whatever_a_listener_does(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[Event] = []

    def broken(event: Event) -> None:
        raise RuntimeError("a window is broken")

    world.presenter.listen(broken)
    stop = world.presenter.listen(heard.append)
    events = [
        WorkersChanged(workers=[]),
        PackageProgress(job_id="job-x", phase="reading"),
    ]
    for event in events:
        world.host.on_event(event)
    assert heard == events
    assert "a window failed" in caplog.text
    stop()
    stop()
    world.host.on_event(events[0])
    assert heard == events


def test_watchers_hear_of_changes_only(world: World) -> None:
    seen: list[object] = []
    stop = world.presenter.subscribe(seen.append)
    world.presenter.say_problem("Oh.")
    world.presenter.say_problem("Oh.")
    assert seen == [world.now]
    stop()
    world.presenter.say_problem("Ah.")
    assert len(seen) == 1


async def test_an_error_of_another_windows_question_is_its_own(world: World) -> None:
    world.host.answer(ListRooms, TooMany(what="rooms", limit="3"))
    with pytest.raises(TooMany):
        await world.presenter.ask(ListRooms())
    assert world.now.problem == ""


@pytest.mark.parametrize(
    "act",
    [
        lambda p: p.submit(),
        lambda p: p.cancel(),
        lambda p: p.leave(),
        lambda p: p.choose_worker("w-1"),
        lambda p: p.hide_new_session(),
    ],
)
def test_nothing_is_done_where_nothing_can_be(
    world: World, act: Callable[[RemotePresenter], None]
) -> None:
    act(world.presenter)
    assert world.host.asked == []
    assert world.now.problem == ""
