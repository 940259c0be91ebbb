"""`sleap-remote label`, `enable` and `disable`: their words, without a SLEAP."""

import importlib.util
import sys
import sysconfig
import types
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sleap_rtc_plugin.cli.main import group
from sleap_rtc_plugin.gui import autoload
from sleap_rtc_plugin.gui.autoload import PTH_LINE, PTH_NAME


def run(*arguments: str) -> Result:
    return CliRunner().invoke(group, arguments)


@pytest.fixture
def sleap(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """A SLEAP that is there; the arguments it is started with."""
    started: list[list[str]] = []
    compat = types.ModuleType("sleap_rtc_plugin.gui.sleap_compat")
    compat.run_sleap = started.append  # type: ignore[attr-defined]
    loop = types.ModuleType("sleap_rtc_plugin.gui.event_loop")
    loop.refuse_bad_pair = lambda: None  # type: ignore[attr-defined]
    for module in (compat, loop):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(autoload, "install", lambda: started.append(["installed"]))
    return started


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(folder))
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["my project.slp"],
        ["--video-backend", "pyav", "a.slp", "--reset", "-v"],
        ["a.slp", "--no-usage-data", "--", "-x"],
    ],
)
def test_label_passes_everything_on(
    sleap: list[list[str]], arguments: list[str]
) -> None:
    result = run("label", *arguments)
    assert result.exit_code == 0, result.output
    expected = [argument for argument in arguments if argument != "--"]
    assert sleap == [["installed"], expected]


def test_help_is_ours_and_names_sleaps_options(sleap: list[list[str]]) -> None:
    result = run("label", "--help")
    assert result.exit_code == 0
    assert "[LABELS.slp] [SLEAP OPTIONS]" in result.output
    assert "--no-usage-data" in result.output
    assert sleap == []
    listed = run("--help").output
    assert all(f"  {name} " in listed for name in ("label", "enable", "disable"))


def test_the_pair_that_crashes_is_refused_before_sleap_starts(
    sleap: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = sys.modules["sleap_rtc_plugin.gui.event_loop"]
    monkeypatch.setattr(loop, "refuse_bad_pair", lambda: "Install another PySide6.")
    result = run("label")
    assert (result.exit_code, result.stderr) == (2, "Install another PySide6.\n")
    assert sleap == []


@pytest.mark.parametrize("command", ["label", "enable"])
def test_without_sleap_there_is_a_sentence(
    command: str, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    result = run(command)
    assert result.exit_code == 2
    assert f"SLEAP is not installed in {sys.prefix}" in result.stderr
    assert list(site.iterdir()) == []


def test_enable_and_disable(sleap: list[list[str]], site: Path) -> None:
    path = site / PTH_NAME
    for _ in range(2):
        result = run("enable")
        assert result.exit_code == 0
        assert sys.prefix in result.stdout
        assert "sleap-remote disable" in result.stdout
        assert [file.name for file in site.iterdir()] == [PTH_NAME]
        assert path.read_text(encoding="utf-8") == PTH_LINE
    assert run("disable").exit_code == 0
    assert list(site.iterdir()) == []
    result = run("disable")
    assert result.exit_code == 0
    assert "did not load" in result.stdout


def test_an_older_line_is_replaced(sleap: list[list[str]], site: Path) -> None:
    (site / PTH_NAME).write_text("import older\n", encoding="utf-8")
    assert run("enable").exit_code == 0
    assert (site / PTH_NAME).read_text(encoding="utf-8") == PTH_LINE


def test_a_folder_that_cannot_be_written_says_what_else_to_do(
    sleap: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    missing = tmp_path / "missing"
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(missing))
    result = run("enable")
    assert result.exit_code == 2
    assert f"{missing / PTH_NAME} cannot be written" in result.stderr
    assert "sleap-remote label" in result.stderr


def test_a_file_that_cannot_be_removed(sleap: list[list[str]], site: Path) -> None:
    (site / PTH_NAME).mkdir()
    result = run("disable")
    assert result.exit_code == 2
    assert "cannot be removed" in result.stderr


def test_the_line_is_one_line_that_python_runs() -> None:
    assert PTH_LINE.startswith("import ")
    assert PTH_LINE.count("\n") == 1
    assert PTH_LINE.endswith("\n")
    compile(PTH_LINE, PTH_NAME, "exec")
    # Editable installs are found through files whose names start with `_`.
    assert max("__editable__", "_editable") < PTH_NAME
