"""How the plugin gets into SLEAP, in an environment of its own, and what it adds."""

import os
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sleap")

from pytestqt.qtbot import QtBot
from qtpy.QtCore import Qt
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import QMainWindow, QMenu, QMessageBox

import sleap_rtc_plugin
from sleap_rtc_plugin.gui import sleap_compat, startup
from sleap_rtc_plugin.gui.autoload import PTH_LINE, PTH_NAME

ROOT = Path(sleap_rtc_plugin.__file__).parents[1]
ENTRIES = [
    "Train Remotely...",
    "Predict Remotely...",
    "Remote Jobs...",
    "Remote Models...",
]

# Starts SLEAP as the program of its first argument does, and where SLEAP would enter
# Qt's loop, says what is in the menu and which heavy modules are loaded.
PROBE = """
import sys
from qtpy.QtWidgets import QApplication, QMainWindow, QMenu

HEAVY = "aiortc httpx keyring msgspec qasync sleap_rtc_plugin.gui.plugin zmq".split()

def report(*ignored):
    (window,) = (w for w in QApplication.topLevelWidgets() if type(w) is MainWindow)
    menu = window.findChild(QMenu, "remoteTrainMenu")
    print("MENU", [entry.text() for entry in menu.actions()] if menu else None)
    print("HEAVY", [name for name in HEAVY if name in sys.modules])
    print("FILE", window.state["filename"])

QApplication.exec_ = report
program, *arguments = sys.argv[1:]
if program == "sleap-label":
    from sleap.gui.app import main
    start = lambda: main(arguments)
elif program == "sleap":
    from sleap.cli import cli
    start = lambda: cli(arguments, standalone_mode=False)
else:
    from sleap_rtc_plugin.cli.main import group
    start = lambda: group(arguments, standalone_mode=False)
if program != "sleap-label":
    # Imported later, by the program.
    QApplication.exec_ = lambda *ignored: (
        globals().update(MainWindow=sys.modules["sleap.gui.app"].MainWindow), report()
    )
else:
    from sleap.gui.app import MainWindow
start()
"""


class Environment:
    """A Python environment over the packages of the one that runs the tests."""

    def __init__(self, folder: Path) -> None:
        subprocess.run(
            [sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True
        )
        self.folder = folder
        self.python = folder / ("Scripts/python" if os.name == "nt" else "bin/python")
        self.site = Path(
            self.run("-c", "import site; print(site.getsitepackages()[0])")
        )

    def share_packages(self) -> None:
        """Let it find SLEAP and the plugin."""
        shared = [path for path in sys.path if "site-packages" in path]
        lines = "\n".join([*shared, str(ROOT)])
        (self.site / "packages.pth").write_text(lines, encoding="utf-8")

    def run(self, *arguments: str, code: int = 0, **environment: str) -> str:
        """Run its Python; return what it said."""
        done = subprocess.run(
            [str(self.python), *arguments],
            capture_output=True,
            text=True,
            timeout=110,
            env={**os.environ, **environment},
        )
        assert done.returncode == code, done.stderr
        return (done.stdout + done.stderr).strip()


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    made = Environment(tmp_path_factory.mktemp("environment") / "it")
    made.share_packages()
    return made


# -- enabling and disabling ----------------------------------------------------------


def test_disable_leaves_nothing_of_enable(environment: Environment) -> None:
    command = ("-m", "sleap_rtc_plugin.cli")
    before = sorted(environment.site.iterdir())
    said = environment.run(*command, "enable")
    assert str(environment.folder) in said
    assert "sleap-remote disable" in said
    path = environment.site / PTH_NAME
    assert path.read_text(encoding="utf-8") == PTH_LINE
    written = path.stat().st_mtime_ns
    environment.run(*command, "enable")
    assert path.stat().st_mtime_ns == written
    assert "as it was before" in environment.run(*command, "disable")
    assert sorted(environment.site.iterdir()) == before
    assert "did not load" in environment.run(*command, "disable")


def test_the_line_says_nothing_when_the_plugin_is_gone(tmp_path: Path) -> None:
    bare = Environment(tmp_path / "bare")
    (bare.site / PTH_NAME).write_text(PTH_LINE, encoding="utf-8")
    assert bare.run("-c", "pass") == ""


def test_the_line_costs_no_imports(environment: Environment) -> None:
    program = "import sys; print(sorted(sys.modules))"
    without = environment.run("-c", program)
    path = environment.site / PTH_NAME
    path.write_text(PTH_LINE, encoding="utf-8")
    try:
        with_it = environment.run("-c", program)
    finally:
        path.unlink()
    new = set(eval(with_it)) - set(eval(without))  # noqa: S307 - our own list
    assert new == set()


# -- getting in ----------------------------------------------------------------------


@pytest.fixture
def enabled(environment: Environment) -> Iterator[Environment]:
    path = environment.site / PTH_NAME
    path.write_text(PTH_LINE, encoding="utf-8")
    yield environment
    path.unlink()


def start(environment: Environment, folder: Path, *arguments: str) -> dict[str, str]:
    probe = folder / "probe.py"
    probe.write_text(PROBE, encoding="utf-8")
    # Empty: SLEAP starts itself again with Qt's library path, as for a user.
    said = environment.run(str(probe), *arguments, SLEAP_SKIP_QT_FIX="")
    lines = (line.partition(" ") for line in said.splitlines())
    return {word: rest for word, _, rest in lines if word in ("MENU", "HEAVY", "FILE")}


@pytest.mark.parametrize("program", [["sleap", "label"], ["sleap-label"]], ids=" ".join)
def test_plain_sleap_has_the_menu_and_nothing_heavy(
    enabled: Environment, tmp_path: Path, program: list[str]
) -> None:
    said = start(enabled, tmp_path, *program, "--no-usage-data")
    assert said == {"MENU": str(ENTRIES), "HEAVY": "[]", "FILE": "None"}


def test_label_has_the_menu_and_passes_everything_on(
    enabled: Environment, tmp_path: Path, demo_folder: Path
) -> None:
    project = str(demo_folder / "demo.slp")
    said = start(
        enabled,
        tmp_path,
        "sleap-remote",
        *("label", "--no-usage-data", "--video-backend", "opencv", project),
    )
    assert said["MENU"] == str(ENTRIES)
    assert said["FILE"] == project


FAKE_APP = """
class Bar:
    def actions(self): return []
class MainWindow:
    def _create_menus(self): return "stock"
def main(arguments): print(arguments)
"""


@pytest.fixture
def fake_sleap(tmp_path: Path) -> Path:
    """A package that looks like SLEAP from afar, for what needs no real one."""
    (tmp_path / "sleap" / "gui").mkdir(parents=True)
    for folder in (tmp_path / "sleap", tmp_path / "sleap" / "gui"):
        (folder / "__init__.py").touch()
    (tmp_path / "sleap" / "gui" / "app.py").write_text(FAKE_APP, encoding="utf-8")
    return tmp_path


def test_the_finder_leaves_after_its_work(
    enabled: Environment, fake_sleap: Path
) -> None:
    program = """
import importlib.util, sys

def ours():
    return [
        finder
        for finder in sys.meta_path
        if type(finder).__name__ in ("SleapRemoteWatch", "_AppFinder")
    ]

(watch,) = ours()
import json.tool
assert ours() == [watch]
assert importlib.util.find_spec("sleap.gui.app")
(finder,) = ours()
assert finder is not watch
from sleap_rtc_plugin.gui import autoload
assert autoload.install() is finder
import sleap.gui.app as app
assert ours() == []
assert "exec_module" not in vars(app.__spec__.loader)
stock = app.MainWindow._create_menus.__wrapped__
assert not hasattr(stock, "__wrapped__")
assert app.MainWindow()._create_menus() == "stock"
"""
    said = enabled.run("-c", program, PYTHONPATH=str(fake_sleap))
    # The menu cannot be made in what is no window: one line, and SLEAP goes on.
    assert len(said.splitlines()) == 1
    assert said.startswith("Remote training is not available")


def test_a_sleap_that_cannot_be_hooked_into_starts_all_the_same(
    enabled: Environment, fake_sleap: Path
) -> None:
    app = fake_sleap / "sleap" / "gui" / "app.py"
    app.write_text("def main(arguments): print('started')", encoding="utf-8")
    said = enabled.run(
        "-c", "from sleap.gui.app import main; main([])", PYTHONPATH=str(fake_sleap)
    ).splitlines()
    assert "started" in said
    assert len(said) == 2
    app.write_text("raise RuntimeError('a SLEAP that is broken')", encoding="utf-8")
    said = enabled.run(
        "-c", "import sleap.gui.app", code=1, PYTHONPATH=str(fake_sleap)
    ).splitlines()
    assert said[-1] == "RuntimeError: a SLEAP that is broken"


# -- the menu ------------------------------------------------------------------------


class FakePlugin:
    """Writes down what it is asked for."""

    made: list["FakePlugin"]

    def __init__(self, window: QMainWindow) -> None:
        self.window = window
        self.calls: list[Any] = []
        self.made.append(self)

    def show_training(self) -> None:
        self.calls.append("training")

    def show_inference(self) -> None:
        self.calls.append("inference")

    def show_jobs(self) -> None:
        self.calls.append("jobs")

    def learning_dialog_shown(self, dialog: Any, mode: str) -> None:
        self.calls.append((dialog, mode))


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> list[FakePlugin]:
    FakePlugin.made = []
    module = types.ModuleType("sleap_rtc_plugin.gui.plugin")
    module.RemotePlugin = FakePlugin  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(sleap_rtc_plugin.gui, "plugin", module, raising=False)
    return FakePlugin.made


@pytest.fixture
def hooked(monkeypatch: pytest.MonkeyPatch) -> None:
    """SLEAP as it is with the plugin, for one test."""
    from sleap.gui.app import MainWindow

    monkeypatch.setattr(MainWindow, "_create_menus", MainWindow._create_menus)
    monkeypatch.setattr(startup, "_is_hooked", False)
    for _ in range(2):
        startup.hook_into_sleap()


@pytest.fixture
def window(hooked: None, qtbot: QtBot) -> Iterator[Any]:
    yield from main_window()


def main_window(project: str | None = None) -> Iterator[Any]:
    from sleap.gui.app import MainWindow

    window = MainWindow(project, no_usage_data=True)
    yield window
    window.close()


def entries(window: QMainWindow) -> dict[str, Any]:
    menu = window.findChild(QMenu, "remoteTrainMenu")
    return {entry.objectName(): entry for entry in menu.actions()}


def test_the_menu_stands_before_help(window: Any, plugins: list[FakePlugin]) -> None:
    titles = [entry.text() for entry in window.menuBar().actions()]
    assert titles[-3:] == ["Predict", "Remote Train", "Help"]
    assert titles.count("Remote Train") == 1
    assert [entry.text() for entry in entries(window).values()] == ENTRIES
    assert all(entry.isEnabled() for entry in entries(window).values())
    assert {entry.shortcut() for entry in entries(window).values()} == {QKeySequence()}
    assert plugins == []


def test_entries_do_what_they_say(window: Any, plugins: list[FakePlugin]) -> None:
    for name in ("remoteJobsAction", "remoteTrainAction", "remoteInferenceAction"):
        entries(window)[name].trigger()
    (plugin,) = plugins
    assert plugin.window is window
    assert plugin.calls == ["jobs", "training", "inference"]


def test_each_window_has_a_menu_and_a_plugin(
    window: Any, plugins: list[FakePlugin]
) -> None:
    for other in main_window():
        entries(other)["remoteJobsAction"].trigger()
        entries(window)["remoteTrainAction"].trigger()
        assert [plugin.window for plugin in plugins] == [other, window]


def test_the_plugin_is_told_of_sleaps_own_dialog(
    hooked: None, plugins: list[FakePlugin], demo_folder: Path, qtbot: QtBot
) -> None:
    for window in main_window(str(demo_folder / "demo.slp")):
        dialog = sleap_compat.show_learning_dialog(window, "training")
        assert dialog is not None
        dialog.reject()
        assert plugins[0].calls == [(dialog, "training")]


def problem(window: Any) -> QMessageBox:
    box = window.findChild(QMessageBox, "remoteTrainProblem")
    assert isinstance(box, QMessageBox)
    assert box.textFormat() == Qt.TextFormat.PlainText
    return box


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ModuleNotFoundError("No module named 'qasync'"), "sleap-rtc-plugin[gui]"),
        (ValueError("<b>bad</b>"), "ValueError('<b>bad</b>')"),
    ],
)
def test_a_plugin_that_fails_says_so_and_breaks_nothing(
    window: Any,
    plugins: list[FakePlugin],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    words: str,
) -> None:
    def fail(plugin: FakePlugin, window: QMainWindow) -> None:
        raise error

    monkeypatch.setattr(FakePlugin, "__init__", fail)
    caplog.clear()
    entries(window)["remoteTrainAction"].trigger()
    box = problem(window)
    assert box.isVisible()
    assert words in box.text()
    assert [record.message for record in caplog.records] == [box.text()]
    box.close()


def test_an_unsupported_sleap_has_an_entry_that_says_so(
    hooked: None, monkeypatch: pytest.MonkeyPatch, qtbot: QtBot
) -> None:
    monkeypatch.setattr(sleap_compat, "SUPPORTED_SLEAP", "9.9")
    for window in main_window():
        (entry,) = entries(window).values()
        assert not entry.isEnabled()
        assert "made for SLEAP 9.9" in entry.text()


def test_a_pair_that_crashes_has_an_entry_that_says_so(
    hooked: None, monkeypatch: pytest.MonkeyPatch, qtbot: QtBot
) -> None:
    monkeypatch.setattr(startup, "refuse_bad_pair", lambda: "install another one")
    for window in main_window():
        (entry,) = entries(window).values()
        assert not entry.isEnabled()
        assert entry.text() == "install another one"


def test_a_monitor_that_lacks_a_name_is_found_before_it_is_needed(
    window: Any, plugins: list[FakePlugin], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sleap.gui.widgets.monitor import LossViewer

    monkeypatch.delattr(LossViewer, "reset")
    entries(window)["remoteTrainAction"].trigger()
    assert plugins == []
    assert "LossViewer.reset" in problem(window).text()
    problem(window).close()
