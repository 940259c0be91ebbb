"""A companion's host that answers from a script, and a driver for coroutines.

`ScriptedHost` is the real `Host` interface: it notes every command, answers at once,
or holds the answer until the test releases it. `drive` runs the presenter's coroutines
without any event loop, each step when its answer is there: nothing waits, nothing
races.
"""

from collections import deque
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass, field
from typing import Any

from sleap_rtc_plugin.companion.account_messages import (
    CancelSignIn,
    OpenServer,
    ServerOpened,
    SignInWay,
    SignOut,
)
from sleap_rtc_plugin.companion.messages import (
    Attached,
    AttachJob,
    CancelJob,
    Command,
    Connect,
    Connected,
    ConnectRemembered,
    Disconnect,
    Done,
    Event,
    ForgetRoom,
    JobChanged,
    JobRow,
    ListRooms,
    Pair,
    Paired,
    Result,
    RoomRow,
    Rooms,
    SignedIn,
    SignIn,
    SubmitRun,
    Submitted,
    WorkerRow,
    WorkersChanged,
)
from sleap_rtc_plugin.companion.model_messages import (
    DescribeModel,
    ListModels,
    ModelDescription,
    Models,
)
from sleap_rtc_plugin.protocol.errors import CompanionGone, ModelNotFound, RtcError
from sleap_rtc_plugin.protocol.model_messages import ModelRow
from sleap_rtc_plugin.protocol.session_string import Session
from sleap_rtc_plugin.session.run_request import (
    MergeChoice,
    ModelToTrain,
    ProjectFacts,
    RunRequest,
)

__all__ = [
    "ScriptedChoices",
    "ScriptedHost",
    "drive",
    "job_row",
    "make_run",
    "make_session",
    "make_worker",
]

SERVER = "http://lab.example:8080"
ANONYMOUS = SignInWay(name="anonymous", label="Without a name")
Answer = Result | RtcError


class Gate:
    """What a held command waits for."""

    def __init__(self) -> None:
        self.answer: Answer | None = None
        self.wake: Callable[[], None] | None = None

    def __await__(self) -> Generator["Gate", None, Answer]:
        while self.answer is None:
            yield self
        return self.answer

    def open(self, answer: Answer) -> None:
        self.answer = answer
        if self.wake is not None:
            self.wake()


def drive(coroutine: Coroutine[Any, Any, Any], name: str) -> None:
    """Run a coroutine until it ends or stands before a gate; go on when that opens."""
    assert name

    def step() -> None:
        try:
            gate = coroutine.send(None)
        except StopIteration:
            return
        gate.wake = step

    step()


def make_session(room_id: str = "room-1") -> str:
    """A session string that parses."""
    session = Session(
        url=SERVER, room_id=room_id, token="t", peer_id="worker-1", secret=bytes(32)
    )
    return session.encode()


def make_worker(worker_id: str, **changes: Any) -> WorkerRow:
    values = {"name": worker_id, "status": "available", "device": "cuda", **changes}
    return WorkerRow(worker_id=worker_id, **values)


def make_run(**changes: Any) -> RunRequest:
    """A top-down training with predictions on the suggestions."""
    models = [
        ModelToTrain(head="centroid", config="{}"),
        ModelToTrain(head="centered_instance", config="{}"),
    ]
    values: dict[str, Any] = {
        "project": ProjectFacts(path="/projects/flies/flies.slp"),
        "models": models,
        "predictions": [["--data_path", "flies.slp", "--only_suggested_frames"]],
        "merge": MergeChoice(target="suggestions"),
        **changes,
    }
    return RunRequest(**values)


def job_row(job_id: str, state: str, **changes: Any) -> JobRow:
    values = {"worker_id": "w-1", "worker": "gpu-1", "name": "flies", "owner": "me"}
    return JobRow(job_id=job_id, state=state, **{**values, **changes})


@dataclass
class ScriptedChoices:
    """Remembered choices in memory."""

    last_server: str = ""
    last_room_id: str = ""
    last_worker: str = ""
    remember: bool = True
    use_worker_videos: bool = True
    relay_only: bool = False
    forced_relay_only: bool | None = None
    saves: int = 0

    def save(self) -> None:
        self.saves += 1


@dataclass
class ScriptedHost:
    """Answers as a companion whose lab has every room that it is asked for."""

    rooms: list[RoomRow] = field(default_factory=list)
    asked: list[Command] = field(default_factory=list)
    models: list[ModelRow] = field(default_factory=list)
    skeletons: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.on_event: Callable[[Event], None] = lambda event: None
        self.on_restarted: Callable[[], None] = lambda: None
        self.on_dead: Callable[[str], None] = lambda sentence: None
        self.describes: Callable[[ModelRow], ModelDescription]
        self._scripted: dict[type, deque[Answer]] = {}
        self._held: set[type] = set()
        self.gates: list[tuple[Command, Gate]] = []

    # -- what the test decides ---------------------------------------------------------

    def answer(self, command: type, *answers: Answer) -> None:
        """Answer the next commands of a kind like this."""
        self._scripted.setdefault(command, deque()).extend(answers)

    def hold(self, *commands: type) -> None:
        """Leave commands of these kinds unanswered until `release`."""
        self._held.update(commands)

    def release(self, command: type, answer: Answer | None = None) -> None:
        """Answer the oldest held command of a kind."""
        self._held.discard(command)
        for index, (held, gate) in enumerate(self.gates):
            if isinstance(held, command):
                del self.gates[index]
                gate.open(answer or self._answer(held))
                return
        raise AssertionError(f"no {command.__name__} is held")

    def asked_for(self, kind: type) -> list[Any]:
        """Return the commands of a kind that were asked so far."""
        return [command for command in self.asked if isinstance(command, kind)]

    def tell_workers(self, *workers: WorkerRow) -> None:
        """Say who is in the room."""
        self.on_event(WorkersChanged(workers=list(workers)))

    def tell_job(self, job_id: str, state: str, **changes: Any) -> None:
        """Say that a job changed."""
        error = changes.pop("error_info", None)
        job = job_row(job_id, state, **changes)
        self.on_event(JobChanged(job=job, error=error))

    def die(self) -> None:
        """Die and be started again: what was asked fails, then the news come."""
        gates, self.gates = self.gates, []
        self._held.clear()
        self._fail_later(gates, self.on_restarted)

    def die_for_good(self, sentence: str = "it is gone") -> None:
        """Die a second time."""
        gates, self.gates = self.gates, []
        self._fail_later(gates, lambda: self.on_dead(sentence))

    def _fail_later(
        self, gates: list[tuple[Command, Gate]], tell: Callable[[], None]
    ) -> None:
        # As in the real host: the news come first, then the waiting coroutines run.
        tell()
        for _, gate in gates:
            gate.open(CompanionGone(reason="exit code 1"))

    # -- Host --------------------------------------------------------------------------

    async def ask(self, command: Command) -> Result:
        self.asked.append(command)
        if type(command) in self._held:
            gate = Gate()
            self.gates.append((command, gate))
            answer = await gate
        else:
            answer = self._answer(command)
        if isinstance(answer, RtcError):
            raise answer
        return answer

    async def close(self, *, finish_sending: bool = False) -> None:
        """Nothing runs."""

    def _answer(self, command: Command) -> Answer:
        scripted = self._scripted.get(type(command))
        if scripted:
            return scripted.popleft()
        match command:
            case ListRooms():
                return Rooms(rooms=list(self.rooms))
            case Connect(session=text):
                return Connected(room=self._enter(Session.parse(text).room_id))
            case ConnectRemembered(room_id=room_id):
                return Connected(room=self._enter(room_id))
            case Pair():
                room = self._enter("room-paired")
                return Paired(room=room, session=make_session("room-paired"))
            case SignIn():
                room = self._enter("room-new")
                return SignedIn(room=room, session=make_session("room-new"))
            case OpenServer(server=server):
                return ServerOpened(server=server, ways=[ANONYMOUS])
            case CancelSignIn() | SignOut():
                return Done()
            case SubmitRun(job_id=job_id):
                return Submitted(job_id=job_id)
            case AttachJob(job_id=job_id):
                return Attached(job=job_row(job_id, "running"))
            case ForgetRoom(room_id=room_id):
                self.rooms = [room for room in self.rooms if room.room_id != room_id]
                return Done()
            case CancelJob() | Disconnect():
                return Done()
            case ListModels():
                return Models(models=list(self.models), skeletons=dict(self.skeletons))
            case DescribeModel(model=ref):
                for row in self.models:
                    if ref == row.id or ref in row.aliases:
                        return self.describes(row)
                return ModelNotFound(model=ref)
        raise AssertionError(f"{type(command).__name__} is not in the script")

    def _enter(self, room_id: str) -> RoomRow:
        room = RoomRow(room_id=room_id, server=SERVER, last_used=1.7e9)
        others = [known for known in self.rooms if known.room_id != room_id]
        self.rooms = [room, *others]
        return room
