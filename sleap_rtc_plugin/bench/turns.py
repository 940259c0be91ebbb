"""One turn of `bench transfer --paths`: two processes, and the path between them.

Starts everything, carries the descriptions, lets all begin together and brings the
figures home. What the figures mean is `bench.path_figures`' affair, and the order of
turns `bench.paths`'.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import psutil

from sleap_rtc_plugin.bench.child import Child, child
from sleap_rtc_plugin.bench.namespaces import Namespace, NotPermitted
from sleap_rtc_plugin.bench.path_end import (
    GO,
    PathEndFigures,
    PathEndTask,
    TurnFailed,
)
from sleap_rtc_plugin.bench.path_spec import PathSpec
from sleap_rtc_plugin.bench.pipes import TCP_TLS, Engine, Role
from sleap_rtc_plugin.bench.wan import WanFigures, WanReady, WanTask
from sleap_rtc_plugin.protocol.errors import NoReply

__all__ = ["Turn", "Work", "refusal", "take_turn", "take_turn_beside_tcp"]

_END: Final = "sleap_rtc_plugin.bench.path_end"
_WAN: Final = "sleap_rtc_plugin.bench.wan"
_LOCAL: Final = "127.0.0.1"
# CPU times as psutil names them: no core works, and times that are in another one too.
_AT_REST: Final = ("idle", "iowait")
_COUNTED_TWICE: Final = ("guest", "guest_nice")


@dataclass(frozen=True)
class Turn:
    """What was measured.

    Attributes:
        client: at the sending end.
        worker: at the receiving end.
        wan: what the path did, where it was emulated.
        others_share: of the CPU of this machine, what other programs took meanwhile.
    """

    client: PathEndFigures
    worker: PathEndFigures
    wan: WanFigures | None = None
    others_share: float = 0.0


@dataclass(frozen=True)
class Work:
    """What the two ends do.

    Attributes:
        engine: what moves the messages.
        seconds: how long at most.
        size_bytes: how much at most.
        load: messages all the time, or none.
    """

    engine: Engine
    seconds: float
    size_bytes: int = sys.maxsize
    load: Literal["full", "idle"] = "full"


async def refusal() -> str | None:
    """Say why no path can be emulated here; None where one can."""
    try:
        async with _wan(PathSpec("a try"), seed=0):
            return None
    except NotPermitted as error:
        return str(error)
    except NoReply:
        return "the emulator of a path does not start"


async def take_turn(spec: PathSpec, work: Work, seed: int) -> Turn:
    """Measure one engine on one path.

    Raises:
        TurnFailed: it did not get to the end.
    """
    async with contextlib.AsyncExitStack() as stack:
        path = await stack.enter_async_context(_path(spec, seed))
        pair = await stack.enter_async_context(_pair(work, path.ends))
        machine = _Machine()
        pair.go()
        ends = await pair.figures()
        seconds, busy_s = machine.since()
        wan = await path.figures()
        return Turn(*ends, wan, _others(seconds, busy_s, ends, wan))


async def take_turn_beside_tcp(
    spec: PathSpec, work: Work, seed: int
) -> tuple[Turn, Turn]:
    """Measure an engine and TCP together on one emulated path.

    Raises:
        TurnFailed: one did not get to the end.
    """
    tcp = Work(TCP_TLS, work.seconds)
    async with contextlib.AsyncExitStack() as stack:
        path = await stack.enter_async_context(_path(spec, seed))
        pairs = [
            await stack.enter_async_context(_pair(each, path.ends))
            for each in (work, tcp)
        ]
        machine = _Machine()
        for pair in pairs:
            pair.go()
        ours, theirs = await asyncio.gather(*(pair.figures() for pair in pairs))
        seconds, busy_s = machine.since()
        wan = await path.figures()
        others = _others(seconds, busy_s, ours + theirs, wan)
        return Turn(*ours, wan, others), Turn(*theirs, wan, others)


# -- the machine -----------------------------------------------------------------------


class _Machine:
    """How busy all cores are from now on."""

    def __init__(self) -> None:
        self._before = psutil.cpu_times()

    def since(self) -> tuple[float, float]:
        """Return all CPU seconds that there were, and those in which a core worked."""
        now = psutil.cpu_times()
        spent = {
            name: getattr(now, name) - getattr(self._before, name)
            for name in now._fields
            if name not in _COUNTED_TWICE
        }
        all_s = sum(spent.values())
        return all_s, all_s - sum(spent.get(name, 0.0) for name in _AT_REST)


def _others(
    seconds: float,
    busy_s: float,
    ends: Sequence[PathEndFigures],
    wan: WanFigures | None,
) -> float:
    """Return the share of all CPU seconds that nobody here took."""
    own_s = sum(end.cpu_s for end in ends) + (wan.cpu_s if wan is not None else 0.0)
    return max(0.0, busy_s - own_s) / max(seconds, 1e-3)


# -- the path --------------------------------------------------------------------------


class _Path:
    """Where both ends live."""

    def __init__(
        self, ends: tuple[Namespace | None, Namespace | None], wan: Child | None
    ) -> None:
        self.ends = ends
        self._wan = wan

    async def figures(self) -> WanFigures | None:
        """Take the path down and return what it did."""
        if self._wan is None:
            return None
        self._wan.hang_up()
        return await self._wan.hear(WanFigures)


@contextlib.asynccontextmanager
async def _path(spec: PathSpec, seed: int) -> AsyncIterator[_Path]:
    if not spec.is_emulated:
        yield _Path((None, None), None)
        return
    async with _wan(spec, seed) as (wan, ends):
        yield _Path(ends, wan)


@contextlib.asynccontextmanager
async def _wan(
    spec: PathSpec, seed: int
) -> AsyncIterator[tuple[Child, tuple[Namespace, Namespace]]]:
    if sys.platform != "linux":
        raise NotPermitted("only Linux has network namespaces")
    async with child(_WAN, WanTask(spec, seed), "the path's emulator") as wan:
        ready = await wan.hear(WanReady)
        if ready.ends is None:
            raise NotPermitted(ready.reason)
        yield wan, ready.ends


# -- the ends --------------------------------------------------------------------------


class _Pair:
    """Two ends that are connected and wait for the word."""

    def __init__(self, client: Child, worker: Child) -> None:
        self._client = client
        self._worker = worker

    async def connect(self, engine: Engine) -> None:
        """Carry the descriptions until both ends are ready."""
        if engine != TCP_TLS:
            self._worker.tell(await _hear(self._client))
        self._client.tell(await _hear(self._worker))
        await asyncio.gather(_hear(self._client), _hear(self._worker))

    def go(self) -> None:
        """Let both begin."""
        self._worker.tell(GO)
        self._client.tell(GO)

    async def figures(self) -> tuple[PathEndFigures, PathEndFigures]:
        """Wait for the end."""
        client, worker = await asyncio.gather(
            _figures(self._client), _figures(self._worker)
        )
        for end in (worker, client):
            if end.failure:
                raise TurnFailed(end.failure)
        return client, worker


@contextlib.asynccontextmanager
async def _pair(
    work: Work, ends: tuple[Namespace | None, Namespace | None]
) -> AsyncIterator[_Pair]:
    def task(role: Role, end: Namespace | None) -> PathEndTask:
        return PathEndTask(
            role=role,
            engine=work.engine,
            load=work.load,
            seconds=work.seconds,
            size_bytes=work.size_bytes,
            address=_LOCAL if end is None else end.address,
            namespace=end,
        )

    async with (
        child(_END, task("client", ends[0]), "the sending end") as client,
        child(_END, task("worker", ends[1]), "the receiving end") as worker,
    ):
        pair = _Pair(client, worker)
        try:
            await pair.connect(work.engine)
            yield pair
        except NoReply as error:
            raise TurnFailed(str(error)) from None


async def _hear(end: Child) -> str:
    """Return what an end says before it has figures."""
    said = await end.hear(str | PathEndFigures)  # type: ignore[arg-type]
    if isinstance(said, PathEndFigures):
        raise TurnFailed(said.failure)
    return str(said)


async def _figures(end: Child) -> PathEndFigures:
    return await end.hear(PathEndFigures)
