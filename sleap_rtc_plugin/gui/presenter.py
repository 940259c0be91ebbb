"""What the remote training dialog does: intentions in, commands out, snapshots back.

Knows neither widgets nor SLEAP. It owns the conversation with the companion's host:
views and windows subscribe to its snapshot and to the companion's events, and send
their commands through it, so that it can take everything up again with a new companion.
"""

import dataclasses
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final, Protocol

from sleap_rtc_plugin.companion.messages import (
    AttachJob,
    CancelJob,
    Command,
    Connect,
    Connected,
    ConnectRemembered,
    Disconnect,
    Event,
    ForgetRoom,
    JobChanged,
    ListRooms,
    Pair,
    Paired,
    Result,
    ResultsHome,
    RoomRow,
    Rooms,
    SignedIn,
    SignIn,
    SubmitRun,
)
from sleap_rtc_plugin.gui.account_choices import (
    AccountChoices,
    Way,
    is_invitation,
    server_address,
)
from sleap_rtc_plugin.gui.messages import (
    COMPANION_DEAD,
    COMPANION_RESTARTED,
    error_words,
)
from sleap_rtc_plugin.gui.run_choices import RunChoices
from sleap_rtc_plugin.gui.snapshot import (
    Lab,
    Snapshot,
    Submission,
    after_event,
    clean_rooms,
    entering,
    inside,
    left,
    preselected,
)
from sleap_rtc_plugin.protocol.errors import (
    CompanionGone,
    RtcError,
    SessionError,
)
from sleap_rtc_plugin.protocol.ids import new_job_id
from sleap_rtc_plugin.protocol.job import JobState
from sleap_rtc_plugin.protocol.pairing_code import is_like_a_code
from sleap_rtc_plugin.protocol.session_string import Session, is_signaling_url
from sleap_rtc_plugin.session.run_request import RunRequest

__all__ = ["Choices", "Host", "RemotePresenter", "Spawn"]

MAX_FOLLOWED_JOBS: Final = 64
_WITHOUT_RESULTS: Final = (JobState.CANCELLED, JobState.REJECTED)

logger = logging.getLogger(__name__)

Spawn = Callable[[Coroutine[Any, Any, Any], str], Any]


class Host(Protocol):
    """Who runs the companion, in a process of its own or in this one."""

    on_event: Callable[[Event], None]
    on_restarted: Callable[[], None]
    on_dead: Callable[[str], None]

    async def ask(self, command: Command) -> Result:
        """Have a command carried out; raises the `RtcError` that says why not."""
        ...


class Choices(Protocol):
    """The choices that outlive the program."""

    last_server: str
    last_room_id: str
    last_worker: str
    remember: bool
    use_worker_videos: bool
    relay_only: bool

    @property
    def forced_relay_only(self) -> bool | None:
        """What the environment says in place of `relay_only`, or None."""

    def save(self) -> None:
        """Write them down."""


class RemotePresenter:
    """Holds the newest snapshot and carries out what the user wants.

    Every method is called on the Qt thread and returns at once; what takes time runs
    in coroutines that `spawn` starts.
    """

    def __init__(self, host: Host, spawn: Spawn, choices: Choices) -> None:
        """Take the host's events from now on.

        Args:
            host: where commands go.
            spawn: starts a coroutine under a name and keeps it.
            choices: the remembered choices.
        """
        self._spawn = spawn
        self._choices = choices
        forced = choices.forced_relay_only
        self._snapshot = Snapshot(
            remembers=choices.remember,
            uses_worker_videos=choices.use_worker_videos,
            is_relay_only=choices.relay_only if forced is None else forced,
            is_relay_only_forced=forced is not None,
        )
        self.run_choices = RunChoices(
            self._ask, spawn, self._change, lambda: self._snapshot
        )
        """The model to predict with, and what to publish a trained one as."""
        self.accounts = AccountChoices(
            self._ask,
            spawn,
            self._change,
            lambda: self._snapshot,
            self._begin_to_enter,
        )
        """Who the user is at a server, and the rooms there."""
        self._watchers: list[Callable[[Snapshot], None]] = []
        self._listeners: list[Callable[[Event], None]] = []
        self._resumers: list[Callable[[], None]] = []
        self._way: Connect | ConnectRemembered | None = None
        self._followed: dict[str, AttachJob] = {}
        self._lives = 1
        self._has_begun = False
        self._take(host)

    # -- for views and windows ---------------------------------------------------------

    @property
    def snapshot(self) -> Snapshot:
        """What is to be shown now."""
        return self._snapshot

    @property
    def last_server(self) -> str:
        """The server that the user signed in to last."""
        return self._choices.last_server

    @property
    def new_session(self) -> str:
        """The session string of the room that was just opened, or empty; a secret."""
        if self._snapshot.has_new_session and isinstance(self._way, Connect):
            return self._way.session
        return ""

    def subscribe(self, watcher: Callable[[Snapshot], None]) -> Callable[[], None]:
        """Call `watcher` with every new snapshot; returns what ends that."""
        return _add(self._watchers, watcher)

    def listen(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Call `listener` with every event of the companion; returns what ends that."""
        return _add(self._listeners, listener)

    def when_resumed(self, resumer: Callable[[], None]) -> Callable[[], None]:
        """Call `resumer` when a new companion follows all jobs again.

        It knows nothing of monitors and log views that the one before it fed.
        """
        return _add(self._resumers, resumer)

    async def ask(self, command: Command) -> Result:
        """Have a command carried out, for the other windows.

        Raises:
            RtcError: why it could not be; `gui.messages.error_words` says it.
        """
        result = await self._host.ask(command)
        if isinstance(command, AttachJob):
            self._follow(command)
        return result

    # -- the lab -----------------------------------------------------------------------

    def begin(self) -> None:
        """A window is shown: list the known labs; the first time, enter the last one.

        Only the first time, so that a user who disconnected stays disconnected.
        """
        if self._snapshot.dead or self._snapshot.lab is not Lab.OUTSIDE:
            return
        is_first, self._has_begun = not self._has_begun, True
        begin = self._begin() if is_first else self._list_rooms()
        self._spawn(begin, "list the known labs")

    def connect(self, session: str, address: str = "") -> None:
        """Enter the room of a session string, or take an invitation or a code.

        Args:
            session: what was typed or pasted.
            address: the server that a code belongs to.
        """
        if is_invitation(session):
            self.accounts.accept(session)
            return
        if is_like_a_code(session):
            self.accounts.pair(session, address)
            return
        try:
            Session.parse(session)
        except SessionError as error:
            self.say_problem(error_words(error))
            return
        way = Connect(session=session.strip(), remember=self._snapshot.remembers)
        self._begin_to_enter(way)

    def connect_remembered(self, room_id: str) -> None:
        """Enter a room that this computer remembers."""
        self._begin_to_enter(ConnectRemembered(room_id=room_id))

    def sign_in(self, address: str) -> None:
        """Sign in to a server, and choose one of its rooms or open a new one."""
        server = server_address(address)
        if not is_signaling_url(server):
            self.say_problem(
                "This is not the address of a server. It looks like "
                "http://gpu-server:8080, and the lab's administrator knows it."
            )
            return
        self.accounts.open(server)

    def choose_lab(self, is_choosing: bool = True) -> None:
        """Show or hide the form for another lab; the present one stays meanwhile."""
        self.accounts.close()
        self._change(is_choosing=is_choosing, problem="")

    def leave(self) -> None:
        """Leave the room; its jobs go on unwatched."""
        if self._snapshot.lab is Lab.OUTSIDE or not self._snapshot.can_enter:
            return
        self._forget_way()
        self._set(left(self._snapshot))
        self._spawn(self._ask_quietly(Disconnect()), "leave the lab")

    def forget_room(self, room_id: str) -> None:
        """Remove a room from what this computer remembers."""
        self._spawn(self._forget_room(room_id), "forget a lab")

    def set_remembers(self, remembers: bool) -> None:
        """Choose whether the next room is remembered."""
        self._choices.remember = remembers
        self._choices.save()
        self._change(remembers=remembers)

    def set_uses_worker_videos(self, uses: bool) -> None:
        """Choose whether a worker may use its own copies of the project's videos."""
        self._choices.use_worker_videos = uses
        self._choices.save()
        self._change(uses_worker_videos=uses)

    def set_relay_only(self, is_wanted: bool) -> None:
        """Choose whether links opened from now on go over relays alone."""
        if self._snapshot.is_relay_only_forced:
            return
        self._choices.relay_only = is_wanted
        self._choices.save()
        self._change(is_relay_only=is_wanted)

    def hide_new_session(self) -> None:
        """The user has copied the session string."""
        self._change(has_new_session=False)

    # -- the run -----------------------------------------------------------------------

    def choose_worker(self, worker_id: str) -> None:
        """Choose who is to run it."""
        for worker in self._snapshot.workers or ():
            if worker.worker_id == worker_id != self._snapshot.worker_id:
                self._change(worker_id=worker_id, worker_name=worker.name, problem="")

    def configure(self, run: RunRequest) -> None:
        """Take what the user set up in SLEAP's own dialog."""
        sent = self._snapshot.submission
        planned = dataclasses.replace(self._snapshot, run=run).planned
        if sent is not None and not sent.is_sending and sent.run != planned:
            sent = None
        self._change(run=run, submission=sent, problem="", note="")

    def say_problem(self, sentence: str) -> None:
        """Show why something could not be done, until the user acts."""
        self._change(problem=sentence)

    def submit(self) -> None:
        """Send the configured run to the chosen worker."""
        now = self._snapshot
        run = now.planned
        if not now.can_run or now.worker is None or run is None:
            return
        worker = now.worker
        job_id = new_job_id()
        if now.submission and now.submission.can_resume(worker.worker_id, run):
            job_id = now.submission.job_id
        submission = Submission(
            job_id=job_id, worker_id=worker.worker_id, worker=worker.name, run=run
        )
        self._choices.last_worker = worker.worker_id
        self._choices.save()
        self._follow(_attach(submission))
        self._change(submission=submission, problem="", note="")
        self._spawn(self._submit(submission), f"send {job_id}")

    def cancel(self) -> None:
        """Call back the run that is on its way."""
        now = self._snapshot
        if not now.can_cancel or now.submission is None:
            return
        submission = dataclasses.replace(now.submission, is_cancelling=True)
        self._change(submission=submission, problem="")
        self._spawn(self._cancel(submission), f"cancel {submission.job_id}")

    # -- the companion -----------------------------------------------------------------

    def replace_host(self, host: Host) -> None:
        """Go on with another host, after the one before was given up."""
        self._take(host)
        self._change(dead="", problem="", note="")
        self._resume()

    def _take(self, host: Host) -> None:
        self._host = host
        host.on_event = self._on_event
        host.on_restarted = self._on_restarted
        host.on_dead = self._on_dead

    def _on_event(self, event: Event) -> None:
        match event:
            case ResultsHome():
                self._followed.pop(event.job_id, None)
            case JobChanged() if event.job.state in _WITHOUT_RESULTS:
                self._followed.pop(event.job.job_id, None)
        self._set(after_event(self._snapshot, event))
        self._preselect()
        self.run_choices.handle(event)
        self.accounts.handle(event)
        for listener in tuple(self._listeners):
            _call(listener, event)

    def _on_restarted(self) -> None:
        self._lives += 1
        self._change(note=COMPANION_RESTARTED, problem="")
        self._resume()

    def _on_dead(self, sentence: str) -> None:
        logger.warning("%s", sentence)
        self._lives += 1
        self._change(dead=COMPANION_DEAD, problem="", note="")

    def _resume(self) -> None:
        """Bring a companion that knows nothing to where the one before it was."""
        if self._way is None:
            self._set(left(self._snapshot, self._snapshot.problem))
            self._spawn(self._list_rooms(), "list the known labs")
            return
        self._change(lab=Lab.ENTERING, is_choosing=False)
        self._spawn(self._go_on(self._way), "go on with a new companion")

    async def _go_on(self, way: Connect | ConnectRemembered) -> None:
        life = self._lives
        if not await self._enter(way):
            return
        sent = self._snapshot.submission
        on_its_way = sent if sent is not None and sent.is_sending else None
        if on_its_way is not None:
            again = self._cancel if on_its_way.is_cancelling else self._submit
            await again(on_its_way)
        for job_id, command in tuple(self._followed.items()):
            if on_its_way is None or on_its_way.job_id != job_id:
                await self._ask_quietly(command)
            if life != self._lives:
                return  # the next companion is told everything anew
        for resumer in tuple(self._resumers):
            _call(resumer)

    # -- coroutines --------------------------------------------------------------------

    async def _begin(self) -> None:
        await self._list_rooms()
        now, last = self._snapshot, self._choices.last_room_id
        if now.lab is Lab.OUTSIDE and any(room.room_id == last for room in now.rooms):
            self.connect_remembered(last)

    async def _list_rooms(self) -> None:
        result = await self._ask_quietly(ListRooms())
        if isinstance(result, Rooms):
            self._change(rooms=clean_rooms(result.rooms))

    def _begin_to_enter(self, way: Way) -> None:
        now = self._snapshot
        if not now.can_enter:
            return
        must_leave = now.lab is not Lab.OUTSIDE
        self._forget_way()
        self._set(entering(now, self._expected_room(way)))
        self._spawn(self._enter_anew(way, must_leave), "enter a lab")

    async def _enter_anew(self, way: Way, must_leave: bool) -> None:
        if must_leave:
            await self._ask_quietly(Disconnect())
        if await self._enter(way):
            await self._list_rooms()

    async def _enter(self, way: Way) -> bool:
        """Enter a room; tells whether it came about.

        The way is kept for a companion that comes after this one. Signing in is not,
        since it would open one room more; nor is a code, which is good once.
        """
        self._way = None if isinstance(way, SignIn | Pair) else way
        try:
            result = await self._ask(way)
        except RtcError as error:
            self._way = None
            self._set(left(self._snapshot, error_words(error)))
            return False
        if result is None:
            return False
        self._entered(result)
        return True

    def _entered(self, result: Result) -> None:
        match result:
            case SignedIn(room=room, session=session):
                self._way = Connect(session=session, remember=self._snapshot.remembers)
                self._choices.last_server = room.server
                self._set(inside(self._snapshot, room, is_new=True))
            case Paired(room=room, session=session):
                self._way = Connect(session=session, remember=self._snapshot.remembers)
                self._choices.last_server = room.server
                self._set(inside(self._snapshot, room))
            case Connected(room=room):
                self._set(inside(self._snapshot, room))
            case _:
                raise TypeError(f"{type(result).__name__} is no answer to entering")
        self._choices.last_room_id = room.room_id
        self._choices.save()
        self._preselect()

    def _expected_room(self, way: Way) -> RoomRow | None:
        match way:
            case SignIn(server=server) | Pair(server=server):
                return RoomRow(room_id="", server=server)
            case Connect(session=session):
                parsed = Session.parse(session)
                return RoomRow(room_id=parsed.room_id, server=parsed.url)
            case ConnectRemembered(room_id=room_id):
                for room in self._snapshot.rooms:
                    if room.room_id == room_id:
                        return room
        return None

    async def _forget_room(self, room_id: str) -> None:
        await self._ask_quietly(ForgetRoom(room_id=room_id))
        if self._choices.last_room_id == room_id:
            self._choices.last_room_id = ""
            self._choices.save()
        await self._list_rooms()

    async def _submit(self, sent: Submission) -> None:
        command = SubmitRun(job_id=sent.job_id, worker_id=sent.worker_id, run=sent.run)
        try:
            await self._ask(command)
        except RtcError as error:
            self._followed.pop(sent.job_id, None)
            self._end_submission(sent.job_id, problem=error_words(error))

    async def _cancel(self, sent: Submission) -> None:
        command = CancelJob(worker_id=sent.worker_id, job_id=sent.job_id)
        try:
            result = await self._ask(command)
        except RtcError as error:
            self._change_submission(sent.job_id, is_cancelling=False)
            self.say_problem(error_words(error))
            return
        if result is not None:
            self._followed.pop(sent.job_id, None)
            self._end_submission(sent.job_id, was_cancelled=True, is_cancelling=False)

    async def _ask(self, command: Command) -> Result | None:
        """Have a command carried out; None where the companion ended meanwhile.

        The one that comes after it is told by `_resume` what still matters.
        """
        life = self._lives
        try:
            return await self._host.ask(command)
        except CompanionGone:
            if life == self._lives:
                raise
            return None

    async def _ask_quietly(self, command: Command) -> Result | None:
        """Ask for something whose failure is only worth a sentence."""
        try:
            return await self._ask(command)
        except RtcError as error:
            self.say_problem(error_words(error))
            return None

    # -- state -------------------------------------------------------------------------

    def _set(self, snapshot: Snapshot) -> None:
        if snapshot == self._snapshot:
            return
        self._snapshot = snapshot
        for watcher in tuple(self._watchers):
            _call(watcher, snapshot)

    def _change(self, **changes: Any) -> None:
        self._set(dataclasses.replace(self._snapshot, **changes))

    def _change_submission(self, job_id: str, **changes: Any) -> None:
        submission = self._snapshot.submission
        if submission is not None and submission.job_id == job_id:
            self._change(submission=dataclasses.replace(submission, **changes))

    def _end_submission(self, job_id: str, **changes: Any) -> None:
        self._change_submission(job_id, is_over=True, **changes)

    def _preselect(self) -> None:
        now = self._snapshot
        if now.worker_id is None and now.lab is Lab.INSIDE:
            worker_id = preselected(now, self._choices.last_worker)
            if worker_id is not None:
                self.choose_worker(worker_id)

    def _forget_way(self) -> None:
        self._way = None
        self._followed.clear()

    def _follow(self, command: AttachJob) -> None:
        self._followed.pop(command.job_id, None)
        self._followed[command.job_id] = command
        while len(self._followed) > MAX_FOLLOWED_JOBS:
            del self._followed[next(iter(self._followed))]


def _attach(submission: Submission) -> AttachJob:
    """Return what takes up a job again that was sent from a project."""
    folder = Path(submission.run.project.path).parent
    return AttachJob(
        worker_id=submission.worker_id, job_id=submission.job_id, output=str(folder)
    )


def _add(callbacks: list[Any], callback: Any) -> Callable[[], None]:
    callbacks.append(callback)

    def remove() -> None:
        if callback in callbacks:
            callbacks.remove(callback)

    return remove


def _call(callback: Callable[..., None], *arguments: Any) -> None:
    """Call one of several; its failure does not keep the others from hearing."""
    try:
        callback(*arguments)
    except Exception:
        logger.exception("a window failed to take what it was told")
