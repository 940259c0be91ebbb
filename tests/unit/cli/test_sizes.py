"""Sizes as people write them on the command line."""

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from sleap_rtc_plugin.cli.main import group
from sleap_rtc_plugin.cli.sizes import parse_size

USAGE = 2


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        ("0.0", 0),
        ("0GB", 0),
        ("20GB", 20 * 10**9),
        ("500MB", 500 * 10**6),
        ("500mb", 500 * 10**6),
        ("512 B", 512),
        ("1.5 TiB", 3 * 2**39),
        (" 2kB ", 2000),
        ("999999TiB", 999_999 * 2**40),
    ],
)
def test_a_size(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


def test_the_largest_fits_into_an_index() -> None:
    assert parse_size("999999.999TiB") < 2**63


@pytest.mark.parametrize(
    "text",
    ["", "20", "1.5", "-1GB", "GB", "20 GBs", "20XB", "nan", "1e9B", "٢GB", "2\nGB"],
)
def test_no_size(text: str) -> None:
    with pytest.raises(click.BadParameter) as raised:
        parse_size(text)
    assert "as in 20GB" in raised.value.message


class _Built(Exception):
    """The worker would be built now."""


def start(monkeypatch: pytest.MonkeyPatch, data: Path, *words: str) -> Result:
    client = pytest.importorskip("sleap_rtc_worker.client")

    def build(**kwargs: Any) -> None:
        raise _Built(kwargs)

    monkeypatch.setattr(client, "RTCWorkerClient", build)
    return CliRunner().invoke(group, ["worker", "--data", str(data), *words])


@pytest.mark.parametrize(
    ("words", "limit_bytes"),
    [([], None), (["--store-limit", "0"], 0), (["--store-limit", "2GB"], 2 * 10**9)],
    ids=str,
)
def test_a_workers_limit(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    words: list[str],
    limit_bytes: int | None,
) -> None:
    result = start(monkeypatch, tmp_path, *words)
    assert isinstance(result.exception, _Built)
    [built] = result.exception.args
    assert built["store_limit_bytes"] == limit_bytes


def test_a_worker_refuses_what_is_no_size(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    result = start(monkeypatch, tmp_path, "--store-limit", "much")
    assert result.exit_code == USAGE
    assert "much is not a size" in result.stderr


HOUR = 3600.0


def test_what_the_owner_of_a_worker_allows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    retention = pytest.importorskip("sleap_rtc_worker.retention")
    words = "--max-jobs 3 --max-runtime 12h --disk-quota 500GB --keep-results 2d"
    gpus = "--gpu-id 1 --gpu-id 3 --slots 2"
    result = start(monkeypatch, tmp_path, *words.split(), *gpus.split())
    assert isinstance(result.exception, _Built), result.output
    [built] = result.exception.args
    assert built["limits"] == retention.JobLimits(3, 12 * HOUR, 500 * 10**9, 48 * HOUR)
    assert (built["gpu_id"], built["slots"]) == ((1, 3), 2)
    result = start(monkeypatch, tmp_path)
    assert isinstance(result.exception, _Built)
    assert result.exception.args[0]["limits"] == retention.JobLimits()


@pytest.mark.parametrize(
    "words",
    [
        "--max-jobs 0",
        "--max-jobs 101",
        "--max-runtime 0",
        "--disk-quota 0",
        "--slots 0",
    ],
)
def test_a_limit_that_lets_nothing_run_is_a_mistake(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: str
) -> None:
    assert start(monkeypatch, tmp_path, *words.split()).exit_code == USAGE
