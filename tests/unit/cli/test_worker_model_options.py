"""What the owner of a worker says about the room's models."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sleap_rtc_plugin.cli.main import group

USAGE = 2


def start(data: Path, *words: str) -> Result:
    return CliRunner().invoke(group, ["worker", "--data", str(data), *words])


def test_store_room_and_cache_reach_the_worker(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    client = pytest.importorskip("sleap_rtc_worker.client")
    tools = pytest.importorskip("sleap_rtc_worker.model_tools")
    built: list[Any] = []

    def build(**kwargs: Any) -> None:
        built.append(kwargs["models"])
        raise SystemExit

    monkeypatch.setattr(client, "RTCWorkerClient", build)
    start(tmp_path)
    words = "--model-store s3://lab/m --model-room the-lab --model-cache 2GB"
    start(tmp_path, *words.split())
    monkeypatch.setenv("SLEAP_MODEL_STORE", "/mnt/lab")
    start(tmp_path)
    assert built == [
        tools.ModelOptions(),
        tools.ModelOptions("s3://lab/m", "the-lab", 2 * 10**9),
        tools.ModelOptions("/mnt/lab"),
    ]


@pytest.mark.parametrize("name", ["A lab", "../x", "-", "", "x" * 65])
def test_a_room_that_is_no_name_is_refused(tmp_path: Path, name: str) -> None:
    pytest.importorskip("sleap_rtc_worker.client")
    result = start(tmp_path, "--model-room", name)
    assert result.exit_code == USAGE
    assert "small letters" in result.stderr


def test_a_store_that_is_none_is_refused_in_one_sentence(tmp_path: Path) -> None:
    pytest.importorskip("sleap_rtc_worker.client")
    result = start(tmp_path, "--model-store", "http://lab/models", "--port", "0")
    assert result.exit_code == USAGE
    assert "neither a folder nor s3://" in result.stderr
