"""Live frames over real peers, to a worker's service and a process of its own."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.linked_workers import LinkedWorker, linked_worker
from support.live_worlds import FolderModels, MadeUpFrames, runner
from support.peers import introduce, linked, outcomes, peer

from sleap_rtc_plugin.protocol.errors import (
    BadRequest,
    LiveEnded,
    LiveRefused,
    ModelNotFound,
    OptionRefused,
    RemoteProtocolError,
)
from sleap_rtc_plugin.protocol.features import LIVE
from sleap_rtc_plugin.protocol.ids import new_command_id
from sleap_rtc_plugin.protocol.limits import MAX_LIVE_SESSIONS
from sleap_rtc_plugin.protocol.live_messages import (
    LiveInstances,
    LiveStop,
    encode_part,
    split_frame,
)
from sleap_rtc_plugin.session.live import LiveStream, start_live
from sleap_rtc_plugin.session.worker_link import WorkerLink
from sleap_rtc_plugin.transport.link import LinkClosed
from sleap_rtc_plugin.transport.transport_options import TransportOptions
from sleap_rtc_worker.live_service import LiveSessions

WAIT_S = 90.0


@contextlib.asynccontextmanager
async def world(
    folder: Path, *behaviour: str, **changes: Any
) -> AsyncIterator[tuple[WorkerLink, LinkedWorker, LiveSessions]]:
    sessions = LiveSessions(
        **{
            "worker_name": "w",
            "models": FolderModels({"fly": [folder]}),
            "environment": os.environ,
            "runner": runner(*behaviour),
            **changes,
        }
    )
    async with (
        asyncio.timeout(WAIT_S),
        linked_worker(folder / "data", live=sessions) as both,
    ):
        yield WorkerLink(both.client, "w"), both, sessions


async def begin(link: WorkerLink, source: Any, **options: Any) -> LiveStream:
    return await start_live(link, "fly", source, **{"options": {}, **options})


def runners() -> list[psutil.Process]:
    children = psutil.Process().children(recursive=True)
    return [child for child in children if child.status() != psutil.STATUS_ZOMBIE]


async def streamed(
    link: WorkerLink, source: Any, **words: Any
) -> tuple[LiveStream, list[tuple[LiveInstances, float]]]:
    stream = await begin(link, source)
    found: list[tuple[LiveInstances, float]] = []
    await stream.run(on_found=lambda *one: found.append(one), **words)
    return stream, found


@pytest.mark.parametrize("encoding", ["png", "jpeg"])
async def test_frames_there_and_instances_back(tmp_path: Path, encoding: Any) -> None:
    async with world(tmp_path) as (link, _, sessions):
        stream = await begin(link, MadeUpFrames(12), encoding=encoding)
        assert (stream.nodes, stream.edges) == (["head", "tail"], [(0, 1)])
        found: list[LiveInstances] = []
        await stream.run(fps=20, on_found=lambda one, _: found.append(one))
        assert stream.error is None
        assert found
        for one in found:
            (instance,) = one.instances
            (x, y, score), missing = instance.points
            assert (y, score, missing) == (1.0, 0.75, (None, None, 0.0))
            if encoding == "png":
                # Not a bit was lost.
                assert x == one.frame
        figures = stream.figures
        report = figures.report
        assert report is not None
        assert report.predicted == len(found) == figures.answered
        assert figures.taken + figures.missed == 12
        assert figures.taken == figures.sent + figures.dropped
        assert report.received == figures.sent
        assert report.received == report.predicted + report.superseded
        spread = figures.latency.spread()
        assert spread is not None
        assert 0 < spread.min <= spread.median <= spread.max < WAIT_S * 1_000
        assert runners() == []
        assert sessions.models is not None
        assert sessions.models.in_use == 0  # type: ignore[attr-defined]


async def test_one_session_after_another(tmp_path: Path) -> None:
    async with world(tmp_path) as (link, _, _sessions):
        for _ in range(2):
            stream, found = await streamed(link, MadeUpFrames(3, fps=20))
            assert stream.error is None
            assert found


async def test_frames_of_many_messages(tmp_path: Path) -> None:
    async with world(tmp_path) as (link, _, _sessions):
        stream, found = await streamed(link, MadeUpFrames(5, size=(600, 800)), fps=5)
        assert stream.error is None
        assert stream.figures.sent_bytes > stream.figures.sent * 400_000
        assert [one.instances[0].points[0][0] for one, _ in found] == [
            one.frame for one, _ in found
        ]
        assert found


async def test_a_slow_model_gets_the_newest_frame(tmp_path: Path) -> None:
    """A camera of 30 frames a second, and a model that takes 0.3 s for each."""
    async with world(tmp_path, "delay=0.3") as (link, linked, _sessions):
        held: list[int] = []
        stream = await begin(link, MadeUpFrames(None, size=(384, 384)))
        found: list[tuple[LiveInstances, float]] = []

        def on_found(one: LiveInstances, latency_ms: float) -> None:
            found.append((one, latency_ms))
            if linked.worker.live is not None:
                held.append(linked.worker.live._channel.bufferedAmount)

        clock = asyncio.get_running_loop().time
        began = clock()
        await stream.run(fps=30, frames=150, on_found=on_found)
        lasted_s = clock() - began
        assert stream.error is None
        figures, report = stream.figures, stream.figures.report
        assert report is not None
        # 0.3 s each, on a machine that may be busy with other things.
        assert 3 <= figures.answered <= lasted_s / 0.3 + 1
        assert report.superseded > figures.answered
        assert report.received == report.superseded + report.predicted
        # What waits is never older than a frame that was being predicted: the
        # latency does not grow with the length of the session.
        first, last = found[0][1], found[-1][1]
        assert last < first + 2_000
        numbers = [one.frame for one, _ in found]
        assert numbers == sorted(numbers)
        # The instances are of the frame that they say.
        assert all(one.instances[0].points[0][0] == one.frame % 256 for one, _ in found)
        assert max(held) == 0


async def test_memory_stays_flat_when_nobody_keeps_up(tmp_path: Path) -> None:
    async with world(tmp_path, "delay=0.3") as (link, _, _sessions):
        process = psutil.Process()
        stream = await begin(link, MadeUpFrames(None, size=(512, 512)))
        sizes: list[int] = []
        await stream.run(
            fps=60,
            frames=360,
            on_found=lambda *_: sizes.append(process.memory_info().rss),
        )
        assert stream.error is None
        # 360 frames are 90 MiB: none of them is kept.
        later = sizes[len(sizes) // 2 :]
        assert max(later) - min(later) < 24 * 1024 * 1024


async def test_the_runner_is_killed(tmp_path: Path) -> None:
    async with world(tmp_path, "dies=3") as (link, _, _sessions):
        stream, found = await streamed(link, MadeUpFrames(None), fps=20, frames=2000)
        assert isinstance(stream.error, LiveEnded)
        assert "ended while predicting" in str(stream.error)
        assert len(found) == 3
        assert stream.figures.report is not None
        assert stream.figures.report.predicted == 3
        # And the link goes on.
        assert not link.link.closed.is_set()
        with pytest.raises(BadRequest):
            await link.ask(LiveStop(command_id=new_command_id()))


async def test_a_model_that_cannot_be_loaded(tmp_path: Path) -> None:
    async with world(tmp_path, "refuses") as (link, _, sessions):
        with pytest.raises(LiveRefused, match="does not like this model"):
            await begin(link, MadeUpFrames())
        assert runners() == []
        assert sessions.models.in_use == 0  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "words", [["/nowhere/python"], [sys.executable, "-c", "pass"]], ids=["none", "mute"]
)
async def test_a_runner_that_does_not_run(tmp_path: Path, words: Sequence[str]) -> None:
    async with world(tmp_path, runner=words) as (link, _, _sessions):
        with pytest.raises(LiveRefused):
            await begin(link, MadeUpFrames())


async def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    async with world(tmp_path) as (link, _, _sessions):
        with pytest.raises(ModelNotFound):
            await start_live(link, "bee", MadeUpFrames(), options={})


async def test_options_are_checked_by_the_worker(tmp_path: Path) -> None:
    async with world(tmp_path) as (link, _, _sessions):
        with pytest.raises(OptionRefused):
            await begin(link, MadeUpFrames(), options={"frames": "0-9"})


async def test_a_worker_without_models(tmp_path: Path) -> None:
    async with world(tmp_path, models=None) as (link, _, _sessions):
        with pytest.raises(LiveRefused, match="no store of models"):
            await begin(link, MadeUpFrames())


async def test_a_worker_that_knows_no_live_frames(tmp_path: Path) -> None:
    async with world(tmp_path) as (link, _, _sessions):
        link.link.features -= {LIVE}
        with pytest.raises(LiveRefused, match="does not know them"):
            await begin(link, MadeUpFrames())


async def test_no_live_frames_over_the_relay(tmp_path: Path) -> None:
    async with world(tmp_path) as (link, _, _sessions):
        link.link.kind = "relay"
        with pytest.raises(LiveRefused, match="direct connection"):
            await begin(link, MadeUpFrames())


async def test_one_session_for_each_client(tmp_path: Path) -> None:
    async with world(tmp_path) as (link, _, _sessions):
        await begin(link, MadeUpFrames())
        with pytest.raises(LiveRefused, match="a live session already"):
            await begin(link, MadeUpFrames())


async def test_sessions_are_bounded(tmp_path: Path) -> None:
    async with world(tmp_path) as (link, _, sessions), contextlib.AsyncExitStack() as s:
        for _ in range(MAX_LIVE_SESSIONS):
            s.enter_context(sessions.one())
        with pytest.raises(LiveRefused, match="2 live sessions already"):
            await begin(link, MadeUpFrames())


async def test_a_session_without_frames_ends(tmp_path: Path) -> None:
    async with world(tmp_path, idle_timeout_s=0.2) as (link, _, _sessions):
        stream = await begin(link, MadeUpFrames(None))
        await stream.run(fps=0.05)
        assert isinstance(stream.error, LiveEnded)
        assert "no frame came" in str(stream.error)
        assert runners() == []


async def test_stopping_keeps_what_was_found(tmp_path: Path) -> None:
    async with world(tmp_path) as (link, _, _sessions):
        stream = await begin(link, MadeUpFrames(None))
        await stream.run(fps=20, on_found=lambda *_: stream.stop())
        assert stream.error is None
        assert stream.figures.answered >= 1
        assert stream.figures.report is not None


async def test_a_link_that_ends_leaves_no_runner(tmp_path: Path) -> None:
    async with world(tmp_path, "delay=5") as (link, linked, sessions):
        stream = await begin(link, MadeUpFrames(None))
        running = asyncio.ensure_future(stream.run(fps=20))
        assert len(runners()) == 1
        linked.worker.close("gone")
        await running
        assert stream.error is not None
        await linked.served()
        assert runners() == []
        assert sessions.models.in_use == 0  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "image",
    [b"\x89PNG\r\n\x1a\n" + bytes(100), b"GIF89a" + bytes(50), bytes(1)],
)
async def test_a_frame_that_is_no_image_ends_the_session(
    tmp_path: Path, image: bytes
) -> None:
    async with world(tmp_path) as (link, _, _sessions):
        await begin(link, MadeUpFrames())
        ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        link.on_live_ended = ended.set_result
        channel = await link.link.open_live()
        (part,) = split_frame(0, 0, image, "png")
        channel.send(encode_part(part))
        assert "no png image" in (await ended).reason
        assert not link.link.closed.is_set()


async def test_junk_on_the_channel_is_dropped(tmp_path: Path) -> None:
    async with world(tmp_path) as (link, _, _sessions):
        stream = await begin(link, MadeUpFrames(5))
        channel = await link.link.open_live()
        for junk in (b"x", bytes(60_000), b"\x02junk", os.urandom(2_000)):
            channel.send(junk)
        await stream.run(fps=20)
        assert stream.error is None
        assert stream.figures.answered


@pytest.mark.parametrize("before_session", [True, False])
async def test_frames_without_a_session_are_dropped(
    tmp_path: Path, before_session: bool
) -> None:
    async with world(tmp_path) as (link, _, _sessions):
        if not before_session:
            await streamed(link, MadeUpFrames(2), fps=20)
        channel = await link.link.open_live()
        (part,) = split_frame(0, 0, b"early", "png")
        channel.send(encode_part(part))
        stream, found = await streamed(link, MadeUpFrames(3), fps=20)
        assert stream.error is None
        assert found


async def test_lies_of_the_worker_are_dropped(tmp_path: Path) -> None:
    async with world(tmp_path) as (link, linked, _sessions):
        from sleap_rtc_plugin.protocol.live_messages import (
            LiveInstance,
            encode_instances,
        )

        stream = await begin(link, MadeUpFrames(5))
        found: list[int] = []

        def on_found(one: LiveInstances, _: float) -> None:
            found.append(one.frame)
            lies = [
                LiveInstances(10_000, 0, 0, 0, []),
                LiveInstances(
                    one.frame + 1, 0, 0, 0, [LiveInstance(0.5, "", [(1.0, 1.0, 1.0)])]
                ),
                one,
            ]
            assert linked.worker.live is not None
            for lie in lies:
                linked.worker.live.send(encode_instances(lie))

        await stream.run(fps=20, on_found=on_found)
        assert stream.error is None
        assert len(found) == len(set(found)) <= 5
        assert max(found) < 5


@pytest.mark.parametrize(
    "words",
    [
        {"ordered": True, "maxRetransmits": 0},
        {"ordered": False},
        {"ordered": False, "maxRetransmits": 3},
    ],
)
async def test_another_kind_of_channel_ends_the_link(
    tmp_path: Path, words: dict[str, Any]
) -> None:
    async with world(tmp_path) as (link, linked, _sessions):
        connection = link.link._open_live.__self__  # type: ignore[union-attr]
        connection._pc.createDataChannel("live", **words)
        await linked.worker.closed.wait()
        assert "nobody asked for" in linked.worker.close_reason


@pytest.mark.parametrize("client", ["fast", "stock"])
@pytest.mark.parametrize("worker", ["fast", "stock"])
async def test_the_channel_goes_either_way(client: Any, worker: Any) -> None:
    ends = (TransportOptions(engine=client), TransportOptions(engine=worker))
    async with asyncio.timeout(WAIT_S), linked(*ends) as (ours, theirs):
        for link in (ours, theirs):
            assert LIVE in link.features
        # A worker opens no channel.
        with pytest.raises(LinkClosed):
            await theirs.open_live()
        channel = await ours.open_live()
        assert await ours.open_live() is channel
        heard: asyncio.Queue[bytes] = asyncio.Queue()
        theirs.on_live = ours.on_live = heard.put_nowait
        for size in (1, 1_200, 60_000):
            channel.send(bytes(size))
            assert len(await heard.get()) == size
        assert theirs.live is not None
        theirs.live.send(b"back")
        assert await heard.get() == b"back"
        ours.close("done")
        assert channel.closed.is_set()
        with pytest.raises(LinkClosed):
            await ours.open_live()


async def test_no_channel_for_frames_before_the_proofs() -> None:
    client, worker = peer("client"), peer("worker")
    client._pc.createDataChannel("live", ordered=False, maxRetransmits=0)
    try:
        async with asyncio.timeout(WAIT_S):
            await introduce(client, worker)
            _, theirs = await outcomes(client, worker)
        assert isinstance(theirs, RemoteProtocolError)
        assert "nobody asked for" in str(theirs)
    finally:
        await client.close()
        await worker.close()
