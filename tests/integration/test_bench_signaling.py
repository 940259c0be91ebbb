"""`bench signaling` with real processes, small."""

import pytest

from sleap_rtc_plugin.bench.signaling import SignalingPlan, bench_signaling

pytest.importorskip("psutil")


async def test_each_case_is_measured_beside_the_bare_relay() -> None:
    said: list[str] = []
    plan = SignalingPlan(sockets=20, pairs=2, window=2, seconds=0.5, runs=1)
    result = await bench_signaling(plan, said.append)
    assert result.bench == "signaling"
    engines = ["ours", "bare websockets"]
    assert [row["engine"] for row in result.rows] == engines * 3
    idle, relay, latency = result.rows[::2]
    assert idle["case"] == "20 idle connections"
    assert (
        0
        < relay["cpu_us_per_message"]
        == pytest.approx(1e6 / relay["messages_per_cpu_s"], rel=0.01)
    )
    assert 0 < latency["p50_ms"] <= latency["p99_ms"] <= latency["max_ms"]
    # So few sockets may fit into memory that the server has already.
    assert all(
        ratio > 0 or (ratio == 0 and "idle" in name)
        for name, ratio in result.ratios.items()
    )
    assert said[0] == "idle, ours, run 1 of 1."
