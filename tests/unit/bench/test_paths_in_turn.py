"""The order of turns on paths and what is said of them, with turns made by hand."""

import pytest

from sleap_rtc_plugin.bench import paths
from sleap_rtc_plugin.bench.path_end import PathEndFigures, TurnFailed
from sleap_rtc_plugin.bench.path_spec import LOOPBACK, PathSpec, parse_path
from sleap_rtc_plugin.bench.paths import PathsPlan, bench_paths
from sleap_rtc_plugin.bench.turns import Turn, Work

Took = list[tuple[str, str, str]]
WAN = parse_path("20ms")


def turn(mb_per_s: float, others_share: float = 0.0) -> Turn:
    client = PathEndFigures(engine="fast", seconds=1, cpu_s=1, unloaded_s=[0.02])
    worker = PathEndFigures(seconds=1, cpu_s=1, size_bytes=round(mb_per_s * 1e6))
    return Turn(client, worker, others_share=others_share)


@pytest.fixture
def took(monkeypatch: pytest.MonkeyPatch) -> Took:
    """What took a turn; the rate-based engine always fails."""
    turns: Took = []

    async def take_turn(spec: PathSpec, work: Work, seed: int) -> Turn:
        turns.append((spec.name, work.engine, work.load))
        if work.engine == "fast+rate":
            raise TurnFailed("the connection ended")
        return turn(2.0 if work.engine == "stock" else 50.0)

    async def beside(spec: PathSpec, work: Work, seed: int) -> tuple[Turn, Turn]:
        turns.append((spec.name, work.engine, "shared"))
        return turn(4.0), turn(2.0, others_share=0.4)

    async def allowed() -> None:
        return None

    monkeypatch.setattr(paths, "take_turn", take_turn)
    monkeypatch.setattr(paths, "take_turn_beside_tcp", beside)
    monkeypatch.setattr(paths, "refusal", allowed)
    return turns


async def test_engines_take_turns_on_every_path(took: Took) -> None:
    said: list[str] = []
    plan = PathsPlan((LOOPBACK, WAN), False, runs=2, seconds=3)
    result = await bench_paths(plan, said.append)
    assert took == 2 * [
        ("loopback", "stock", "full"),
        ("loopback", "fast", "full"),
        ("loopback", "fast+rate", "full"),
        ("loopback", "TCP+TLS", "full"),
        ("20ms", "stock", "full"),
        ("20ms", "fast", "full"),
        ("20ms", "fast+rate", "full"),
        ("20ms", "TCP+TLS", "full"),
        ("loopback", "stock", "idle"),
        ("loopback", "fast", "idle"),
    ]
    assert [(row["case"], row["engine"]) for row in result.rows] == [
        (spec, engine)
        for spec in ("loopback", "20ms")
        for engine in ("stock", "fast", "fast+rate", "TCP+TLS")
    ] + [("idle connection", "stock"), ("idle connection", "fast")]
    assert result.ratios["20ms, speed, fast / stock"] == 25.0
    assert result.ratios["idle connection, CPU, fast / stock"] == 1.0
    assert said[0] == "This takes about 2 min."
    assert said[1] == "loopback, stock, run 1 of 2: 2 MB/s."


async def test_a_turn_that_fails_is_said_and_counted(took: Took) -> None:
    said: list[str] = []
    result = await bench_paths(PathsPlan((WAN,), False, 3, 10), said.append)
    assert said.count("20ms, fast+rate, run 2 of 3: it failed, the connection ended.")
    [row] = [row for row in result.rows if row["engine"] == "fast+rate"]
    assert (row["runs"], row["failed_runs"], row["mb_per_s"]) == (0, 3, None)
    assert not any("fast+rate" in name for name in result.ratios)


async def test_fairness_alone_shares_bottlenecks(took: Took) -> None:
    said: list[str] = []
    result = await bench_paths(PathsPlan((), True, 1, 10), said.append)
    engines = ("fast", "fast+rate", "TCP+TLS")
    assert took == [
        (spec, engine, "shared")
        for spec in ("20ms@50", "80ms@100")
        for engine in engines
    ]
    assert {row["share_percent"] for row in result.rows} == {66.67}
    assert result.ratios["80ms@100 beside TCP, speed, fast+rate / TCP"] == 2.0
    assert said[1] == "20ms@50 beside TCP, fast, run 1 of 1: 4 and 2 MB/s."


async def test_a_busy_machine_is_no_place_to_measure(
    took: Took, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def busy(spec: PathSpec, work: Work, seed: int) -> Turn:
        return turn(1.0, others_share=0.335)

    monkeypatch.setattr(paths, "take_turn", busy)
    said: list[str] = []
    await bench_paths(PathsPlan((LOOPBACK,), False, 1, 10), said.append)
    assert said[-1].startswith("Other programs took up to 34 % of this machine's CPU")


async def test_without_emulation_loopback_is_left(
    took: Took, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused() -> str:
        return "network namespaces cannot be made: Operation not permitted"

    monkeypatch.setattr(paths, "refusal", refused)
    said: list[str] = []
    plan = PathsPlan((WAN, LOOPBACK), True, 1, 10)
    result = await bench_paths(plan, said.append)
    assert {spec for spec, _, _ in took} == {"loopback"}
    assert {row["case"] for row in result.rows} == {"loopback", "idle connection"}
    assert said[0] == (
        "Only loopback can be measured here: network namespaces cannot be made: "
        "Operation not permitted."
    )


async def test_loopback_asks_for_no_namespaces(
    took: Took, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse() -> None:
        raise AssertionError("namespaces were made for loopback")

    monkeypatch.setattr(paths, "refusal", refuse)
    await bench_paths(PathsPlan((LOOPBACK,), False, 1, 10), lambda text: None)
    assert took
