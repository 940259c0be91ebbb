"""The session string of a worker from a file, as containers are given secrets."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sleap_rtc_plugin.cli.main import group

SECRET = "sleap-session:not-one-but-a-secret"


def start(data: Path, *words: str) -> Result:
    return CliRunner().invoke(group, ["worker", "--data", str(data), *words])


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is parsed as a session string."""
    pytest.importorskip("sleap_rtc_worker.client")
    from sleap_rtc_plugin.cli import worker as command

    parsed: list[str] = []

    class Recorded:
        @staticmethod
        def parse(text: str) -> None:
            parsed.append(text)
            raise SystemExit

    monkeypatch.setattr(command, "Session", Recorded)
    return parsed


def test_the_file_is_read_and_the_string_itself_goes_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sessions: list[str]
) -> None:
    secret = tmp_path / "session"
    secret.write_text(f"{SECRET}\n")
    start(tmp_path / "a", "--session-file", str(secret))
    monkeypatch.setenv("SLEAP_SESSION_FILE", str(secret))
    start(tmp_path / "b")
    start(tmp_path / "c", "--session", "sleap-session:other")
    # Compose files hand on variables that are not set as empty ones.
    monkeypatch.setenv("SLEAP_SESSION", "")
    start(tmp_path / "d")
    assert sessions == [SECRET, SECRET, "sleap-session:other", SECRET]


@pytest.mark.parametrize("content", [b"", b"  \n", b"\xff\xfe" + SECRET.encode()])
def test_a_file_without_a_session_is_refused_and_not_shown(
    tmp_path: Path, content: bytes
) -> None:
    secret = tmp_path / "session"
    secret.write_bytes(content)
    result = start(tmp_path, "--session-file", str(secret))
    assert result.exit_code == 2
    assert "holds no session string" in result.output
    assert SECRET not in result.output


def test_a_file_is_read_up_to_a_bound(tmp_path: Path, sessions: list[Any]) -> None:
    secret = tmp_path / "session"
    secret.write_bytes(b"x" * 10_000_000)
    start(tmp_path, "--session-file", str(secret))
    assert len(sessions[0]) < 10_000
