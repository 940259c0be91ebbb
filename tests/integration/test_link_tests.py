"""A client measures its link to a worker, over real peers, and disturbs nobody."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.linked_workers import linked_worker
from support.shared_mounts import two_mounts

from sleap_rtc_plugin.protocol.errors import (
    NoReply,
    SharedStorageUnusable,
    WorkerBusy,
    WorkerTooOld,
    WorkerVanished,
)
from sleap_rtc_plugin.protocol.features import LINK_TEST
from sleap_rtc_plugin.protocol.fragments import Fragment, encode_fragment
from sleap_rtc_plugin.protocol.ids import new_command_id
from sleap_rtc_plugin.protocol.limits import KIB, LINK_TEST_STREAM
from sleap_rtc_plugin.protocol.link_test_messages import (
    LinkTest,
    LinkTestDirection,
    LinkTestStop,
    StorageTest,
    StorageTested,
)
from sleap_rtc_plugin.protocol.shared_storage import is_proof
from sleap_rtc_plugin.session.doctor.link_test import (
    measure_round_trip_s,
    measure_throughput,
)
from sleap_rtc_plugin.session.worker_link import WorkerLink
from sleap_rtc_plugin.transport.shared_storage import SharedStorage
from sleap_rtc_worker.link_tests import LinkTests

WAIT_S = 60.0
SHORT_S = 0.3
DIRECTIONS: list[LinkTestDirection] = ["to_worker", "to_client"]


@contextlib.asynccontextmanager
async def link_of(folder: Path, **service: object) -> AsyncIterator[WorkerLink]:
    async with asyncio.timeout(WAIT_S), linked_worker(folder, **service) as world:
        yield WorkerLink(world.client, "w")


@pytest.mark.parametrize("direction", DIRECTIONS)
async def test_a_link_is_measured(tmp_path: Path, direction: LinkTestDirection) -> None:
    async with link_of(tmp_path) as link:
        moved = await measure_throughput(link, direction, SHORT_S)
        assert moved.size_bytes > 100 * KIB
        assert 0 < moved.seconds < WAIT_S
        assert moved.bytes_per_s > 100 * KIB
        assert 0 < await measure_round_trip_s(link) < WAIT_S
        # Whatever was on its way belongs to nobody, and nothing is left of it.
        again = await measure_throughput(link, direction, SHORT_S)
        assert again.size_bytes > 0


@pytest.mark.parametrize("direction", DIRECTIONS)
async def test_files_on_their_way_come_first(
    tmp_path: Path, direction: LinkTestDirection
) -> None:
    tests = LinkTests("w")
    async with link_of(tmp_path, tests=tests) as link:
        (pump,) = tests._pumps
        pump._senders["a transfer"] = None  # type: ignore[assignment]
        with pytest.raises(WorkerBusy, match="files are on their way"):
            await measure_throughput(link, direction, SHORT_S)
        pump._senders.clear()
        assert (await measure_throughput(link, direction, SHORT_S)).size_bytes


@pytest.mark.parametrize("direction", DIRECTIONS)
async def test_a_test_ends_as_soon_as_files_begin_to_move(
    tmp_path: Path, direction: LinkTestDirection
) -> None:
    tests = LinkTests("w")
    async with link_of(tmp_path, tests=tests) as link:
        (pump,) = tests._pumps
        begun = asyncio.get_running_loop().time()
        measuring = asyncio.ensure_future(measure_throughput(link, direction, 5.0))
        # Commands are carried out in their order, so the test runs by now.
        await measure_round_trip_s(link)
        pump.on_begun()
        assert (await measuring).seconds < 5.0
        assert asyncio.get_running_loop().time() - begun < 4.5


async def test_one_test_at_a_time(tmp_path: Path) -> None:
    async with link_of(tmp_path) as link:
        first = asyncio.ensure_future(measure_throughput(link, "to_client", 5.0))
        command = LinkTest(
            command_id=new_command_id(),
            direction="to_client",
            duration_s=SHORT_S,
            max_bytes=1,
        )
        await measure_round_trip_s(link)
        with pytest.raises(WorkerBusy, match="another connection"):
            await link.ask(command)
        # Giving up ends it at the worker, too.
        first.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await first
        while True:
            with contextlib.suppress(WorkerBusy):
                await link.ask(command)
                return


async def test_a_test_is_bounded_in_bytes(tmp_path: Path) -> None:
    async with link_of(tmp_path) as link:
        got: list[int] = []
        command = LinkTest(
            command_id=new_command_id(),
            direction="to_client",
            duration_s=5.0,
            max_bytes=100 * KIB,
        )
        with (
            link.pump.listening(LINK_TEST_STREAM, lambda f: got.append(len(f.data))),
            link.reporting(command) as report,
        ):
            await link.ask(command)
            assert (await report).size_bytes == 100 * KIB
            await measure_round_trip_s(link)
        assert sum(got) <= 100 * KIB + 1


async def test_junk_that_nobody_asked_for_is_dropped(tmp_path: Path) -> None:
    async with link_of(tmp_path) as link:
        junk = Fragment(LINK_TEST_STREAM, 0, 0, b"junk", False)
        for _ in range(20):
            await link.link.send_fragment(encode_fragment(junk))
        link.link.send(LinkTestStop(command_id="c-1"))
        await measure_round_trip_s(link)
        assert not link.link.closed.is_set()


async def test_a_link_that_ends_in_a_test(tmp_path: Path) -> None:
    tests = LinkTests("w")
    async with link_of(tmp_path, tests=tests) as link:
        measuring = asyncio.ensure_future(measure_throughput(link, "to_client", 5.0))
        # Commands are carried out in their order, so the test runs by now.
        await measure_round_trip_s(link)
        link.link.close("gone")
        with pytest.raises((WorkerVanished, NoReply)):
            await measuring


async def test_an_older_worker_is_not_asked(tmp_path: Path) -> None:
    async with link_of(tmp_path) as link:
        link.link.features -= {LINK_TEST}
        with pytest.raises(WorkerTooOld):
            await measure_throughput(link, "to_client", SHORT_S)


async def test_shared_storage_is_tested_without_a_job(tmp_path: Path) -> None:
    here, there = two_mounts(tmp_path)
    storage, other = SharedStorage(here), SharedStorage(tmp_path)
    theirs = SharedStorage(there, place="The storage of w")
    async with link_of(tmp_path / "data", shared_storage=theirs) as link:
        probe = storage.lay_probe()
        command = StorageTest(command_id=new_command_id(), probe=probe.name)
        answer = await link.ask(command)
        assert isinstance(answer, StorageTested)
        assert is_proof(answer.proof, probe.nonce, command.command_id)
        elsewhere = other.lay_probe()
        with pytest.raises(SharedStorageUnusable, match="The storage of w"):
            await link.ask(
                StorageTest(command_id=new_command_id(), probe=elsewhere.name)
            )
