"""What the end-to-end tests share: programs that always end, and small packages."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.packages import keep_one_training, rewrite
from support.programs import Programs

from sleap_rtc_plugin.protocol import manifest
from sleap_rtc_plugin.session.demo_project import make_demo_package
from sleap_rtc_plugin.transport import file_source

SHARED_DATA = Path(__file__).parents[3] / "shared" / "data"


# Files that take minutes begin first, so that no process ends up waiting for another;
# of those that train and those that mostly wait, in turn.
LONG_FILES = (
    *("test_reconnection", "test_training", "test_sleap_gui", "test_chaos"),
    *("test_sleap_training", "test_companion", "test_predict_only", "test_turn_kills"),
    *("test_predict", "test_jobs", "test_nat", "test_doctor", "test_worker_videos"),
    *("test_bad_input", "test_live_sleap_nn", "test_restart_series"),
    *("test_kill_series", "test_resume"),
)


def _turn(item: pytest.Item) -> int:
    if Path(__file__).parent not in item.path.parents:
        return -1
    name = item.path.stem
    return LONG_FILES.index(name) if name in LONG_FILES else len(LONG_FILES)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_turn)
    for item in items:
        if Path(__file__).parent not in item.path.parents:
            continue
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(180))


@pytest.fixture(scope="session")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("caches")


@pytest.fixture
def programs(tmp_path: Path, caches: Path) -> Iterator[Programs]:
    found = Programs(tmp_path, caches)
    try:
        yield found
    finally:
        found.close()


@pytest.fixture(scope="module")
def module_programs(
    tmp_path_factory: pytest.TempPathFactory, caches: Path
) -> Iterator[Programs]:
    """Programs that outlive a test, and end with the last of their file."""
    found = Programs(tmp_path_factory.mktemp("room"), caches)
    try:
        yield found
    finally:
        found.close()


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def careless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process offer any path at all."""
    for module in (manifest, file_source):
        monkeypatch.setattr(module, "check_paths", lambda paths: None)


@pytest.fixture(scope="session")
def demo_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's package: two fish, two models, an inference."""
    return make_demo_package(tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="session")
def small_package(demo_package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One training, for a scripted trainer."""
    target = tmp_path_factory.mktemp("small") / "small.training_job.zip"
    return rewrite(demo_package, target, keep_one_training)


@pytest.fixture
def shared_data() -> Path:
    if not SHARED_DATA.is_dir():
        pytest.skip(f"there are no real packages in {SHARED_DATA}")
    return SHARED_DATA
