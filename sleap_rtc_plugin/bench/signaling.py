"""`bench signaling`: a signaling server under load, beside a bare relay.

Cases: connections that only stay open, pairs of peers that talk as fast as they can,
and how long one message takes. Servers and load are processes of their own and take
turns. A relayed message is one `peer_message` delivered, its `delivered` reply
included.
"""

import asyncio
import contextlib
import statistics
import tempfile
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import psutil

from sleap_rtc_plugin.bench.child import Child, child
from sleap_rtc_plugin.bench.figures import BenchResult, describe_machine
from sleap_rtc_plugin.bench.signaling_load import (
    GO,
    READY,
    LoadFigures,
    LoadRoom,
    LoadTask,
)
from sleap_rtc_plugin.bench.signaling_server import (
    ServerEngine,
    ServerReady,
    ServerTask,
)
from sleap_rtc_plugin.bench.transfer import Say
from sleap_rtc_plugin.protocol.errors import NoReply
from sleap_rtc_plugin.protocol.limits import KIB, MAX_PEERS_PER_ROOM
from sleap_rtc_plugin.transport.account import AccountClient

__all__ = ["CASES", "SignalingPlan", "bench_signaling"]

CaseKind = Literal["idle", "relay", "latency"]
CASES: Final[tuple[CaseKind, ...]] = get_args(CaseKind)

_LOAD: Final = "sleap_rtc_plugin.bench.signaling_load"
_SERVER: Final = "sleap_rtc_plugin.bench.signaling_server"
# What a server allocates for its first connections is not what one more costs.
_WARM_UP_SOCKETS: Final = 100
_ROOMS_PER_ACCOUNT: Final = 20
# A server settles before it is measured: what a handshake left is freed.
_SETTLE_S: Final = 1.0
_LATENCY_PAIRS: Final = 4
_LATENCY_INTERVAL_S: Final = 0.02
_WARM_UP_S: Final = 0.5


@dataclass(frozen=True)
class SignalingPlan:
    """How much to measure.

    Attributes:
        cases: which.
        sockets: how many connections stay open.
        pairs: how many pairs talk.
        window: how many messages of one peer are on their way.
        message_bytes: how large a message is.
        seconds: how long a turn takes.
        runs: how often each has its turn.
    """

    cases: Collection[CaseKind] = CASES
    sockets: int = 5_000
    pairs: int = 16
    window: int = 8
    message_bytes: int = 360
    seconds: float = 5.0
    runs: int = 3


async def bench_signaling(plan: SignalingPlan, say: Say) -> BenchResult:
    """Measure what is planned; figures are medians.

    Raises:
        NoReply: a process of the benchmark failed.
    """
    runs: dict[tuple[str, str], list[dict[str, float]]] = {}
    for number in range(1, plan.runs + 1):
        for case in plan.cases:
            for engine in get_args(ServerEngine):
                say(f"{case}, {engine}, run {number} of {plan.runs}.")
                async with _server(engine) as server:
                    figures = await _TURNS[case](plan, server)
                runs.setdefault((_name(case, plan), engine), []).append(figures)
    return BenchResult(
        bench="signaling",
        machine=describe_machine(),
        rows=[_row(case, engine, taken) for (case, engine), taken in runs.items()],
        ratios=_ratios(runs),
    )


def _name(case: CaseKind, plan: SignalingPlan) -> str:
    match case:
        case "idle":
            return f"{plan.sockets} idle connections"
        case "relay":
            return f"{plan.pairs} pairs, {plan.window} messages on their way"
        case "latency":
            return "one message now and then"


def _row(case: str, engine: str, runs: Sequence[dict[str, float]]) -> dict[str, Any]:
    row: dict[str, Any] = {"case": case, "engine": engine, "runs": len(runs)}
    for figure in runs[0]:
        row[figure] = round(statistics.median(run[figure] for run in runs), 3)
    return row


def _ratios(
    runs: dict[tuple[str, str], list[dict[str, float]]],
) -> dict[str, float]:
    """Return ours by the bare relay's: the median over the runs, pair by pair."""
    compared = {
        "kib_per_connection": "memory per connection",
        "messages_per_cpu_s": "messages per CPU second",
        "p50_ms": "time of a message",
    }
    ours, bare = get_args(ServerEngine)
    return {
        f"{case}, {words}, {ours} / {bare}": statistics.median(
            one[figure] / other[figure]
            for one, other in zip(taken, runs[case, bare], strict=True)
        )
        for (case, engine), taken in runs.items()
        if engine == ours
        for figure, words in compared.items()
        if figure in taken[0]
    }


# -- turns --------------------------------------------------------------------------


class _Served:
    """A server that runs, and the figures of its process."""

    def __init__(self, engine: ServerEngine, ready: ServerReady, pid: int) -> None:
        self.engine = engine
        self.url = ready.websocket_url
        self._http_url = ready.http_url
        self._process = psutil.Process(pid)

    def cpu_s(self) -> float:
        """Return the CPU seconds so far."""
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def memory_bytes(self) -> int:
        """Return what it holds, its part of what it shares included."""
        info = self._process.memory_full_info()
        return int(getattr(info, "pss", 0) or info.uss)

    async def rooms(self, count: int) -> list[LoadRoom]:
        """Open rooms."""
        if not self._http_url:
            return [LoadRoom(f"room-{number}", "") for number in range(count)]
        opened: list[LoadRoom] = []
        async with AccountClient(self._http_url) as client:
            while len(opened) < count:
                account = await client.sign_in_anonymously()
                for _ in range(min(_ROOMS_PER_ACCOUNT, count - len(opened))):
                    room = await client.create_room(account.token)
                    opened.append(LoadRoom(room.room_id, room.token))
        return opened


@contextlib.asynccontextmanager
async def _server(engine: ServerEngine) -> AsyncIterator[_Served]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        task = ServerTask(engine, str(Path(folder) / "data"))
        async with child(_SERVER, task, "the server") as process:
            ready = await process.hear(ServerReady)
            yield _Served(engine, ready, process.pid)


@contextlib.asynccontextmanager
async def _load(task: LoadTask) -> AsyncIterator[Child]:
    async with child(_LOAD, task, "the load") as process:
        line = await process.hear_line()
        if READY.encode() not in line:
            raise NoReply(peer="the load", command=line.decode().strip())
        yield process


async def _figures(load: Child) -> LoadFigures:
    load.tell(GO)
    figures = await load.hear(LoadFigures)
    if figures.failure:
        raise NoReply(peer="the load", command=figures.failure)
    return figures


async def _idle(plan: SignalingPlan, server: _Served) -> dict[str, float]:
    """Hold many connections."""
    warm_up = await _held(server, _WARM_UP_SOCKETS, 0.0)
    held = await _held(server, plan.sockets, plan.seconds)
    async with _load(warm_up):
        await asyncio.sleep(_SETTLE_S)
        before = server.memory_bytes()
        began_cpu_s = server.cpu_s()
        async with _load(held) as load:
            opened_cpu_s = server.cpu_s() - began_cpu_s
            await asyncio.sleep(_SETTLE_S)
            cpu_s = server.cpu_s()
            figures = await _figures(load)
            return {
                "kib_per_connection": (server.memory_bytes() - before)
                / KIB
                / plan.sockets,
                "cpu_ms_per_s": (server.cpu_s() - cpu_s) / figures.seconds * 1000,
                "cpu_ms_per_handshake": opened_cpu_s / plan.sockets * 1000,
            }


async def _held(server: _Served, sockets: int, seconds: float) -> LoadTask:
    per_room = min(MAX_PEERS_PER_ROOM, sockets)
    return LoadTask(
        kind="hold",
        url=server.url,
        partner_url=server.url,
        rooms=await server.rooms(-(-sockets // per_room)),
        sockets_per_room=per_room,
        seconds=seconds,
    )


async def _relay(plan: SignalingPlan, server: _Served) -> dict[str, float]:
    """Let pairs talk as fast as they can."""
    for seconds in (_WARM_UP_S, plan.seconds):
        task = LoadTask(
            kind="talk",
            url=server.url,
            partner_url=server.url,
            rooms=await server.rooms(plan.pairs),
            sockets_per_room=2,
            window=plan.window,
            message_bytes=plan.message_bytes,
            seconds=seconds,
        )
        async with _load(task) as load:
            began_cpu_s = server.cpu_s()
            figures = await _figures(load)
            cpu_s = server.cpu_s() - began_cpu_s
    return {
        "messages_per_cpu_s": figures.messages / cpu_s,
        "messages_per_s": figures.messages / figures.seconds,
        "cpu_us_per_message": cpu_s / figures.messages * 1e6,
    }


async def _latency(plan: SignalingPlan, server: _Served) -> dict[str, float]:
    """Time single messages."""
    task = LoadTask(
        kind="measure",
        url=server.url,
        partner_url=server.url,
        rooms=await server.rooms(_LATENCY_PAIRS),
        sockets_per_room=2,
        message_bytes=plan.message_bytes,
        seconds=plan.seconds,
        interval_s=_LATENCY_INTERVAL_S,
    )
    async with _load(task) as load:
        return latency_figures((await _figures(load)).arrived_s)


def latency_figures(arrived_s: Sequence[float]) -> dict[str, float]:
    """Return what matters of many latencies, at least two."""
    hundredths = statistics.quantiles(arrived_s, n=100, method="inclusive")
    return {
        "p50_ms": hundredths[49] * 1000,
        "p99_ms": hundredths[98] * 1000,
        "max_ms": max(arrived_s) * 1000,
    }


_TURNS: Final = {"idle": _idle, "relay": _relay, "latency": _latency}
