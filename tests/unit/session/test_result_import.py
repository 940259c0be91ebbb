"""Results come home whole, under names of their own, and nothing is overwritten."""

import os
import pickle
import time
from pathlib import Path

import pytest

from sleap_rtc_plugin.protocol.errors import (
    StorageFailed,
    UnsafeCheckpoint,
    UnsafeMember,
)
from sleap_rtc_plugin.session import result_import
from sleap_rtc_plugin.session.result_import import (
    PREDICTIONS_FOLDER,
    ImportPlan,
    import_results,
    place_models,
    plan_import,
)

RUN = "261122_074257.centroid.n=24"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "output"


def receive(tmp_path: Path, contents: str = "new", run: str = RUN) -> Path:
    """Write received results as the transfer leaves them."""
    received = tmp_path / "incoming"
    model = received / "models" / run
    model.mkdir(parents=True, exist_ok=True)
    for name in ("training_config.yaml", "initial_config.yaml", "training_log.csv"):
        (model / name).write_text(contents)
    (received / "fly.predictions.slp").write_text(contents)
    return received


def test_into_an_empty_folder(tmp_path: Path, output: Path) -> None:
    results = import_results(receive(tmp_path), output)
    assert results.models == [output / "models" / RUN]
    assert results.predictions == [output / "fly.predictions.slp"]
    assert {path.name for path in results.models[0].iterdir()} == {
        "training_config.yaml",
        "initial_config.yaml",
        "training_log.csv",
    }
    assert results.predictions[0].read_text() == "new"


def test_other_contents_of_the_same_name_stay(tmp_path: Path, output: Path) -> None:
    import_results(receive(tmp_path, "old"), output)
    results = import_results(receive(tmp_path, "new"), output)
    assert results.models == [output / "models" / f"{RUN} (2)"]
    assert results.predictions == [output / "fly.predictions (2).slp"]
    assert (output / "models" / RUN / "training_log.csv").read_text() == "old"
    assert (output / "fly.predictions.slp").read_text() == "old"
    third = import_results(receive(tmp_path, "third"), output)
    assert third.models == [output / "models" / f"{RUN} (3)"]


def test_the_same_again_changes_nothing(tmp_path: Path, output: Path) -> None:
    first = import_results(receive(tmp_path), output)
    assert import_results(receive(tmp_path), output) == first
    assert [path.name for path in (output / "models").iterdir()] == [RUN]


def test_one_file_more_is_another_model(tmp_path: Path, output: Path) -> None:
    import_results(receive(tmp_path), output)
    (receive(tmp_path) / "models" / RUN / "more.csv").touch()
    results = import_results(tmp_path / "incoming", output)
    assert results.models == [output / "models" / f"{RUN} (2)"]


def test_file_in_the_way_of_a_model(tmp_path: Path, output: Path) -> None:
    (output / "models").mkdir(parents=True)
    (output / "models" / RUN).write_text("mine")
    results = import_results(receive(tmp_path), output)
    assert results.models == [output / "models" / f"{RUN} (2)"]
    assert (output / "models" / RUN).read_text() == "mine"


@pytest.mark.skipif(os.name == "nt", reason="making links needs a privilege there")
def test_link_in_the_way_is_not_followed(tmp_path: Path, output: Path) -> None:
    (output / "models").mkdir(parents=True)
    (output / "models" / RUN).symlink_to(tmp_path / "elsewhere")
    (output / "fly.predictions.slp").symlink_to(tmp_path / "elsewhere.slp")
    results = import_results(receive(tmp_path), output)
    assert results.models[0].name == f"{RUN} (2)"
    assert results.predictions[0].name == "fly.predictions (2).slp"
    assert not (tmp_path / "elsewhere.slp").exists()


def test_training_config_is_the_newest(tmp_path: Path, output: Path) -> None:
    received = receive(tmp_path)
    future = time.time() + 1000
    os.utime(received / "models" / RUN / "initial_config.yaml", (future, future))
    (model,) = import_results(received, output).models
    times = {path.name: path.stat().st_mtime for path in model.iterdir()}
    newest = times.pop("training_config.yaml")
    assert newest >= max(times.values()) + 1.9


def test_model_without_a_configuration(tmp_path: Path, output: Path) -> None:
    received = receive(tmp_path)
    (received / "models" / RUN / "training_config.yaml").unlink()
    assert len(import_results(received, output).models) == 1


def test_nothing_received(tmp_path: Path, output: Path) -> None:
    (tmp_path / "incoming").mkdir()
    results = import_results(tmp_path / "incoming", output)
    assert (results.models, results.predictions) == ([], [])


def test_unsafe_checkpoint_moves_nothing(tmp_path: Path, output: Path) -> None:
    received = receive(tmp_path)
    path = received / "models" / RUN / "best.ckpt"
    path.write_bytes(pickle.dumps(print))
    with pytest.raises(UnsafeCheckpoint, match=r"models/.*/best\.ckpt is refused"):
        import_results(received, output)
    assert not output.exists()
    assert path.exists()


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("../x", "leads out of its folder"),
        ("models/../x/y", "leads out of its folder"),
        ("/x", "is an absolute path"),
        ("models/x", "does not lie where results belong"),
        ("other/x.slp", "does not lie where results belong"),
        ("Models/r/x", "does not lie where results belong"),
        ("models", "does not lie where results belong"),
        ("models/nul/x", "is a name that Windows reserves"),
    ],
)
def test_paths_that_are_refused(path: str, words: str) -> None:
    with pytest.raises(UnsafeMember, match=words):
        plan_import([path])


def test_plan() -> None:
    paths = ["models/a/x", "p.slp", "models/b/sub/y", "models/a/z"]
    assert plan_import(paths) == ImportPlan(models=("a", "b"), predictions=("p.slp",))


@pytest.mark.skipif(os.name == "nt", reason="making links needs a privilege there")
def test_link_among_the_results(tmp_path: Path, output: Path) -> None:
    received = receive(tmp_path)
    (received / "models" / RUN / "extra").symlink_to("/etc/passwd")
    with pytest.raises(UnsafeMember, match="is a link"):
        import_results(received, output)
    assert not output.exists()


@pytest.mark.parametrize("crash_at", [0, 1])
def test_crash_leaves_whole_models_or_none(
    tmp_path: Path, output: Path, monkeypatch: pytest.MonkeyPatch, crash_at: int
) -> None:
    receive(tmp_path, run="a")
    received = receive(tmp_path, run="b")
    real = result_import._rename_folder
    calls: list[Path] = []

    def rename(source: Path, target: Path) -> bool:
        if len(calls) == crash_at:
            raise KeyboardInterrupt
        calls.append(target)
        return real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(result_import, "_rename_folder", rename)
        with pytest.raises(KeyboardInterrupt):
            import_results(received, output)
    there = list((output / "models").iterdir())
    assert len(there) == crash_at
    assert all(len(list(model.iterdir())) == 3 for model in there)
    import_results(received, output)
    assert {path.name for path in (output / "models").iterdir()} == {"a", "b"}
    assert (output / "fly.predictions.slp").exists()


def test_disk_without_hard_links(
    tmp_path: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", refuse)
    import_results(receive(tmp_path, "old"), output)
    results = import_results(receive(tmp_path, "new"), output)
    assert results.predictions == [output / "fly.predictions (2).slp"]


def test_name_taken_in_between(
    tmp_path: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    received = receive(tmp_path)
    (output / "models" / RUN).mkdir(parents=True)
    (output / "models" / RUN / "mine").touch()
    real = os.path.lexists
    monkeypatch.setattr(
        result_import.os.path, "lexists", lambda p: real(p) and Path(p).name != RUN
    )
    (model,) = import_results(received, output).models
    assert model.name == f"{RUN} (2)"
    assert (output / "models" / RUN / "mine").exists()


def test_output_that_is_a_file(tmp_path: Path, output: Path) -> None:
    output.touch()
    with pytest.raises(StorageFailed):
        import_results(receive(tmp_path), output)


def test_too_many_of_one_name(
    tmp_path: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(result_import, "MAX_SAME_NAMES", 1)
    import_results(receive(tmp_path, "old"), output)
    with pytest.raises(StorageFailed, match="of that name already"):
        import_results(receive(tmp_path, "new"), output)


def test_predictions_of_a_project_have_a_folder_of_their_own(tmp_path: Path) -> None:
    output = tmp_path / "project"
    results = import_results(
        receive(tmp_path), output, predictions_folder=PREDICTIONS_FOLDER
    )
    assert {path.parent for path in results.predictions} == {output / "predictions"}
    assert all(path.is_file() for path in results.predictions)
    assert {path.parent for path in results.models} == {output / "models"}
    again = import_results(
        receive(tmp_path), output, predictions_folder=PREDICTIONS_FOLDER
    )
    assert again == results


def test_a_folder_for_predictions_is_made_for_predictions_only(tmp_path: Path) -> None:
    output = tmp_path / "project"
    received = receive(tmp_path)
    for path in received.iterdir():
        if path.is_file():
            path.unlink()
    import_results(received, output, predictions_folder=PREDICTIONS_FOLDER)
    assert not (output / "predictions").exists()


# -- models that are pulled ----------------------------------------------------------


def pull(tmp_path: Path, folder: Path, contents: str = "new") -> list[Path]:
    received = receive(tmp_path, contents) / "models"
    return place_models(received, [RUN], folder)


def test_a_pulled_model_lies_where_sleap_lists_it(tmp_path: Path, output: Path) -> None:
    [model] = pull(tmp_path, output / "models")
    assert model == output / "models" / RUN
    config = (model / "training_config.yaml").stat().st_mtime
    others = [p for p in model.iterdir() if p.name != "training_config.yaml"]
    assert all(path.stat().st_mtime < config for path in others)
    assert [p.name for p in (output / "models").iterdir()] == [RUN]


def test_a_pulled_model_is_found_where_it_was_trained(
    tmp_path: Path, output: Path
) -> None:
    [model] = pull(tmp_path, output)
    (model / "labels_gt.val.0.slp").write_text("this is not published")
    assert pull(tmp_path, output) == [model]
    assert [path.name for path in output.iterdir()] == [RUN]


def test_a_pulled_model_takes_no_name_of_another(tmp_path: Path, output: Path) -> None:
    pull(tmp_path, output, "old")
    [model] = pull(tmp_path, output, "new")
    assert model == output / f"{RUN} (2)"
    assert (output / RUN / "training_log.csv").read_text() == "old"


def test_a_pulled_model_that_would_run_code(tmp_path: Path, output: Path) -> None:
    received = receive(tmp_path) / "models"
    (received / RUN / "best.ckpt").write_bytes(pickle.dumps(os.system))
    with pytest.raises(UnsafeCheckpoint):
        place_models(received, [RUN], output)
    assert not output.exists()
