"""The picture of speeds on paths."""

from pathlib import Path
from typing import Any

import pytest

from sleap_rtc_plugin.bench.path_plot import draw_paths

pytest.importorskip("matplotlib")


def row(
    case: str, engine: str, mb_per_s: float | None, **rest: float
) -> dict[str, Any]:
    return {
        **{"case": case, "engine": engine, "mb_per_s": mb_per_s},
        **{"control_p99_ms": 30.0, **rest},
    }


ROWS = [
    row("loopback", "stock", 15.0),
    row("loopback", "fast", 138.0),
    row("80ms-0.5%", "stock", None),
    row("80ms-0.5%", "fast", 0.45),
    row("20ms@50 beside TCP", "fast", 3.0, tcp_mb_per_s=3.1),
    {"case": "idle connection", "engine": "fast", "client_cpu_ms_per_s": 1.0},
    {"case": "1 MiB file", "engine": "ours", "mib_per_s": 11.0},
]


def test_a_picture_of_what_was_measured_on_paths(tmp_path: Path) -> None:
    file = tmp_path / "speeds.svg"
    assert draw_paths(ROWS, file)
    text = file.read_text()
    for word in ("loopback", "80ms-0.5%", "stock", "fast", "138", "0.45"):
        assert f"<!-- {word} -->" in text
    assert "beside TCP" not in text
    assert "TCP+TLS" not in text


def test_pixels(tmp_path: Path) -> None:
    file = tmp_path / "speeds.png"
    assert draw_paths(ROWS[:1], file)
    assert file.read_bytes().startswith(b"\x89PNG")


def test_nothing_to_draw(tmp_path: Path) -> None:
    assert not draw_paths(ROWS[4:], tmp_path / "speeds.png")
    assert list(tmp_path.iterdir()) == []
