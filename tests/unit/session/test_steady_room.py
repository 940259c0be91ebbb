"""A room that the server ended is entered again, unless it refuses for good."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from sleap_rtc_plugin.protocol.errors import (
    NoReply,
    PeerIdTaken,
    RoomGone,
    RtcError,
    SignalingUnreachable,
    WorkerNotFound,
)
from sleap_rtc_plugin.protocol.retries import Retries
from sleap_rtc_plugin.protocol.session_string import Session
from sleap_rtc_plugin.session import steady_room as module
from sleap_rtc_plugin.session.lab import Lab
from sleap_rtc_plugin.session.steady_room import SteadyRoom
from sleap_rtc_plugin.session.worker_info import WorkerInfo
from sleap_rtc_plugin.transport.transport_options import TransportOptions

SESSION = Session(
    url="http://gpu-1:8080",
    room_id="room-1",
    token="a.b.c",
    peer_id="worker-1",
    secret=b"s" * 32,
)
WORKER = WorkerInfo(
    peer_id="worker-1",
    name="gpu-box",
    status="available",
    device="cpu",
    gpu_model=None,
    gpu_memory_mb=None,
    gpu_free_mb=None,
    queue_length=0,
    running_jobs=0,
    sleap_nn_version=None,
)


class Stay:
    """A stay in the room that says what it is told to."""

    made: list["Stay"]
    refusals: list[RtcError]

    def __init__(self, session: Session, **options: Any) -> None:
        self.ended_with: RtcError | None = None
        self.answers: list[list[WorkerInfo] | RtcError] = []
        self.is_left = False
        self.transports: list[TransportOptions | None] = []

    async def __aenter__(self) -> "Stay":
        if Stay.refusals:
            raise Stay.refusals.pop(0)
        Stay.made.append(self)
        return self

    async def __aexit__(self, *error: object) -> None:
        self.is_left = True

    async def probe(self, worker: WorkerInfo) -> tuple[float, str]:
        return 0.001, ""

    async def connect(
        self, worker: WorkerInfo, transport: TransportOptions | None = None
    ) -> Any:
        self.transports.append(transport)
        link = SimpleNamespace(closed=asyncio.Event(), close=lambda reason: None)
        return SimpleNamespace(link=link)

    async def workers(self) -> list[WorkerInfo]:
        answer = self.answers.pop(0) if self.answers else [WORKER]
        if isinstance(answer, RtcError):
            raise answer
        return answer


@pytest.fixture(autouse=True)
def stays(monkeypatch: pytest.MonkeyPatch) -> list[Stay]:
    Stay.made, Stay.refusals = [], []
    monkeypatch.setattr(module, "RemoteSession", Stay)
    return Stay.made


async def test_a_stay_that_was_replaced_is_entered_anew(stays: list[Stay]) -> None:
    async with SteadyRoom(SESSION) as room:
        assert await room.workers() == [WORKER]
        stays[0].ended_with = PeerIdTaken(peer_id="client-1")
        assert await room.workers() == [WORKER]
        assert (len(stays), stays[0].is_left) == (2, True)
    assert stays[1].is_left


async def test_a_server_that_is_away_is_tried_at_the_next_question(
    stays: list[Stay],
) -> None:
    async with SteadyRoom(SESSION) as room:
        stays[0].ended_with = PeerIdTaken(peer_id="client-1")
        Stay.refusals.append(SignalingUnreachable(server="s", reason="r"))
        with pytest.raises(SignalingUnreachable):
            await room.workers()
        assert await room.workers() == [WORKER]


async def test_a_room_that_is_gone_is_gone(stays: list[Stay]) -> None:
    async with SteadyRoom(SESSION) as room:
        stays[0].ended_with = RoomGone(server="s")
        with pytest.raises(RoomGone):
            await room.workers()
        assert len(stays) == 1


async def test_a_room_that_was_left_cannot_be_asked() -> None:
    async with SteadyRoom(SESSION) as room:
        pass
    with pytest.raises(SignalingUnreachable):
        await room.workers()


async def test_a_worker_is_waited_for(
    stays: list[Stay], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def sleep(seconds: float) -> None:
        """Nobody waits in a unit test."""

    monkeypatch.setattr(module.asyncio, "sleep", sleep)
    async with SteadyRoom(SESSION) as room:
        stays[0].answers = [[], NoReply(peer="p", command="c"), [], [WORKER]]
        assert await room.wait_for("worker-1", Retries(90.0)) == WORKER
        stays[0].answers = [[]]
        assert await room.wait_for("worker-1", Retries(0.0)) is None
        with pytest.raises(WorkerNotFound, match="gpu-box"):
            await room.worker("worker-2")
        stays[0].answers = [RoomGone(server="s")]
        with pytest.raises(RoomGone):
            await room.wait_for("worker-1", Retries(90.0))


async def test_a_lab_asks_for_the_users_choice_with_every_link(
    stays: list[Stay],
) -> None:
    """What he ticks while he is in the room counts from the next link on."""
    choices = [TransportOptions(), TransportOptions(relay_only=True)]
    lab = Lab(
        SESSION,
        owner="ann",
        transport=lambda: choices[0],
        on_workers=lambda workers: None,
        on_offline=lambda error: None,
        on_online=lambda: None,
    )
    await lab.enter()
    try:
        link = await lab.link("worker-1")
        del choices[0]
        # The one that is open stays as it is.
        assert await lab.link("worker-1") is link
        link.link.closed.set()
        assert await lab.link("worker-1") is not link
    finally:
        await lab.leave()
    assert [chosen and chosen.relay_only for chosen in stays[0].transports] == [
        False,
        True,
    ]
