"""Data channels between the fast path, aiortc, libwebrtc and Chromium."""

import asyncio
import hashlib
import logging
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio
from support.bad_link import BadLink
from support.interop_calls import NearEnd, seeded_messages
from support.interop_chromium import ChromiumPeer, chromium
from support.interop_peers import (
    AiortcEnd,
    AiortcPeer,
    FarPeer,
    LibwebrtcPeer,
    Message,
    connection,
)

# One event loop for all of them: the browser is started once.
pytestmark = [pytest.mark.timeout(60), pytest.mark.asyncio(loop_scope="module")]

logger = logging.getLogger(__name__)

PATIENCE_S = 30
# Around what a packet carries, which is 1160 bytes with aiortc and with libwebrtc, and
# around powers of two, up to the largest message that any of them takes.
SIZES = (
    *(0, 1, 2, 1159, 1160, 1161, 1162, 1200, 16_383, 16_384, 16_385),
    *(65_535, 65_536, 65_537, 262_143, 262_144),
)
PAIRS = ("fast-fast", "fast-stock", "stock-fast", "fast-libwebrtc", "fast-chromium")
CHANNELS = ("echo near ordered", "echo near", "echo far ordered", "echo far")
END = "the end"

MakeFar = Callable[[], Awaitable[FarPeer]]


@pytest.fixture(scope="module", params=PAIRS)
def pair(request: pytest.FixtureRequest) -> tuple[str, str]:
    near, far = request.param.split("-")
    return near, far


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def make_far() -> AsyncIterator[Callable[[str], Awaitable[FarPeer]]]:
    async with AsyncExitStack() as stack:
        browsers = []

        async def make(kind: str) -> FarPeer:
            match kind:
                case "libwebrtc":
                    return LibwebrtcPeer()
                case "chromium":
                    if not browsers:
                        browsers.append(await stack.enter_async_context(chromium()))
                    return await ChromiumPeer.in_browser(browsers[0])
                case _:
                    return AiortcPeer(connection(kind))

        yield make


@pytest_asyncio.fixture(loop_scope="module")
async def far(pair: tuple[str, str], make_far) -> AsyncIterator[FarPeer]:
    made = await make_far(pair[1])
    yield made
    await made.close()


@pytest_asyncio.fixture(loop_scope="module")
async def near(pair: tuple[str, str]) -> AsyncIterator[NearEnd]:
    made = NearEnd(connection(pair[0]))
    yield made
    await made.close()


@pytest.fixture(autouse=True)
def nothing_amiss(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nobody complains: no fault on the fast way, no task that fails unseen."""
    yield
    records = caplog.get_records("call")
    assert [each for each in records if each.levelno >= logging.WARNING] == []


@pytest_asyncio.fixture(loop_scope="module")
async def bad_link() -> AsyncIterator[BadLink]:
    made = BadLink("a seed")
    yield made
    made.close()


def check_engines(pair: tuple[str, str], near: NearEnd, far: FarPeer) -> None:
    """Data went the way it was meant to go, to the end."""
    engines = {"fast": "fast", "stock": "aiortc"}
    for kind, end in zip(pair, (near, far), strict=True):
        if isinstance(end, AiortcEnd):
            assert end.engine == engines[kind]


@pytest.mark.parametrize("caller", ["near", "far"])
async def test_messages_of_every_size_cross_both_ways(
    near: NearEnd, far: FarPeer, pair: tuple[str, str], caller: str
) -> None:
    """Four channels at once, each end having opened two of them."""
    for label in CHANNELS:
        ordered = "ordered" in label
        if "near" in label:
            near.open_channel(label, ordered=ordered)
        else:
            await far.open_channel(label, ordered=ordered)

    async def check(label: str) -> None:
        line = await near.line(label)
        sent = list(seeded_messages(label, SIZES))
        came = await line.echoed(sent)
        assert line.channel.ordered == ("ordered" in label)
        if line.channel.ordered:
            assert came == sent
        else:
            assert Counter(came) == Counter(sent)

    async with asyncio.timeout(PATIENCE_S):
        await (near.call(far) if caller == "near" else near.be_called(far))
        await asyncio.gather(*map(check, CHANNELS))
    check_engines(pair, near, far)


async def test_bulk_data_crosses_each_way(
    near: NearEnd, far: FarPeer, pair: tuple[str, str]
) -> None:
    message = random.Random(1).randbytes(64 << 10)  # noqa: S311 - no secret
    count = 64 if "stock" in pair else 200
    up, down = near.open_channel("sink"), near.open_channel(f"repeat-{count}")
    async with asyncio.timeout(PATIENCE_S):
        await near.call(far)
        await up.opened.wait()

        start = time.perf_counter()
        digest = hashlib.sha256()
        for number in range(count):
            part = number.to_bytes(4, "big") + message
            digest.update(part)
            await up.send(part)
        await up.send("digest")
        assert await up.receive() == digest.hexdigest()
        between = time.perf_counter()

        await down.send(message)
        for _ in range(count):
            assert await down.receive() == message
        end = time.perf_counter()
    check_engines(pair, near, far)
    megabytes = count * len(message) / 1e6
    logger.info(
        "%s to %s: %.0f MB/s there, %.0f MB/s back",
        *(*pair, megabytes / (between - start), megabytes / (end - between)),
    )


async def test_messages_cross_a_bad_link(
    near: NearEnd, far: FarPeer, pair: tuple[str, str], bad_link: BadLink
) -> None:
    """Datagrams are lost, repeated and overtaken, on their way there and back."""
    ordered = near.open_channel("echo ordered", ordered=True)
    unordered = near.open_channel("echo", ordered=False)
    sent = list(seeded_messages("bad link", SIZES))
    start = time.perf_counter()
    async with asyncio.timeout(PATIENCE_S):
        await near.call_through(bad_link, far)
        in_order, in_any = await asyncio.gather(
            ordered.echoed(sent), unordered.echoed(sent)
        )
    assert in_order == sent
    assert Counter(in_any) == Counter(sent)
    assert min(bad_link.faults) > 0
    check_engines(pair, near, far)
    logger.info(
        "%s to %s: %d and %d datagrams harmed, %.1f s",
        *(*pair, *bad_link.faults, time.perf_counter() - start),
    )


async def test_what_may_be_lost_is_whole_or_missing(
    near: NearEnd, far: FarPeer, pair: tuple[str, str], bad_link: BadLink
) -> None:
    """A channel without retransmission, in order (RFC 3758)."""
    line = near.open_channel("echo", ordered=True, maxRetransmits=0)
    reliable = near.open_channel("echo reliable")
    sent = list(seeded_messages("may be lost", (300, 1160, 3000, 16_384) * 30))
    came: list[Message] = []
    async with asyncio.timeout(PATIENCE_S):
        await near.call_through(bad_link, far)
        for message in sent:
            await line.send(message)
        while END not in came:
            await line.send(END)
            await reliable.echoed(["what came until now?"])
            came += line.take()
    arrived = [message for message in came if message != END]
    assert 0 < len(arrived) < len(sent)
    left = iter(sent)
    assert all(message in left for message in arrived)
    check_engines(pair, near, far)
    logger.info("%s to %s: %d of %d came back", *pair, len(arrived), len(sent))


async def test_a_closed_channel_can_be_opened_again(
    near: NearEnd, far: FarPeer
) -> None:
    kept = near.open_channel("echo kept")
    first = near.open_channel("echo")
    sent = list(seeded_messages("again", (1, 1161, 65_537)))
    async with asyncio.timeout(PATIENCE_S):
        await near.call(far)
        assert await first.echoed(sent) == sent
        first.channel.close()
        await far.channel_closed("echo")
        await first.closed.wait()

        second = near.open_channel("echo")
        assert await second.echoed(sent) == sent
        await far.close_channel("echo")
        await second.closed.wait()

        third = near.open_channel("echo")
        assert await third.echoed(sent) == sent
        assert await kept.echoed(sent) == sent


async def test_the_far_end_is_told_when_the_near_end_hangs_up(
    near: NearEnd, far: FarPeer
) -> None:
    line = near.open_channel("echo")
    async with asyncio.timeout(PATIENCE_S):
        await near.call(far)
        assert await line.echoed(["hello"]) == ["hello"]
        await near.close()
        await far.channel_closed("echo")


async def test_the_near_end_is_told_when_the_far_end_hangs_up(
    near: NearEnd, far: FarPeer
) -> None:
    line = near.open_channel("echo")
    async with asyncio.timeout(PATIENCE_S):
        await near.call(far)
        assert await line.echoed(["hello"]) == ["hello"]
        await far.close()
        await line.closed.wait()
