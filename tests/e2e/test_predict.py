"""`sleap-remote predict`: by alias on a worker that never saw the model, and from here.

Real programs; sleap-nn is the real one where its predictions matter.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sleap_io
from support.packages import rewrite, shorten
from support.programs import POSIX, Program, Programs, Worker
from support.trained_models import write_model

from sleap_rtc_plugin.session.demo_project import make_demo_package

REFUSED, USAGE, BAD_PACKAGE = 4, 2, 5
WAIT_S = 420.0
ROOM = "lab"


@pytest.fixture(scope="module")
def fish(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's folder: a project, its video, a package of very short trainings."""
    folder = tmp_path_factory.mktemp("fish")
    package = make_demo_package(folder)
    rewrite(package, folder / "short.zip", lambda m: shorten(m, epochs=1, steps=2))
    return folder


@pytest.fixture
def project(fish: Path) -> Path:
    (project,) = (path for path in fish.glob("*.slp") if ".pkg" not in path.name)
    return project


def predict(programs: Programs, session: str, output: Path, *words: object) -> Program:
    where = ("--session", session, "--output", output, "--json")
    return programs.client("predict", *words, *where)


def rows(path: Path) -> list[tuple[Any, ...]]:
    """Return every instance, to the last bit."""
    labels = sleap_io.load_slp(str(path), open_videos=False)
    return [
        (
            frame.frame_idx,
            float(instance.score).hex(),
            instance.points["xy"].tobytes(),
            instance.points["score"].tobytes(),
        )
        for frame in sorted(labels, key=lambda frame: frame.frame_idx)
        for instance in frame.instances
    ]


def at_home(
    folder: Path, data: Path, models: list[str], *words: str
) -> list[tuple[Any, ...]]:
    """Predict with sleap-nn itself, here."""
    output = folder / "local.slp"
    named = [word for model in models for word in ("--model_paths", model)]
    argv = [sys.executable, "-m", "sleap_nn.cli", "predict", "--data_path", str(data)]
    subprocess.run(
        [*argv, *named, "-o", str(output), *words], check=True, capture_output=True
    )
    return rows(output)


# -- published models ----------------------------------------------------------------


@pytest.mark.needs_sleap_nn
@pytest.mark.timeout(900)
def test_a_published_model_predicts_the_same_everywhere(
    programs: Programs, fish: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    store.mkdir()
    words = ("--model-store", store)
    first = programs.worker("--name", "first", *words).wait_ready()
    client = programs.train(
        fish / "short.zip",
        first.session,
        tmp_path / "one",
        *("--publish", "fish-v1", "--publish-tag", "demo"),
    )
    assert client.wait(WAIT_S) == 0, client.story()
    published = client.report["published"]
    assert published["alias"] == "fish-v1"
    assert any(f"Published as fish-v1 ({published['id']})." in e for e in client.err)
    models = client.report["models"]

    where = ("--session", first.session, "--data", tmp_path / "second-data")
    second = programs.worker("--name", "second", *where, *words).wait_ready()
    video = fish / "demo.mp4"
    client = predict(
        programs,
        second.session,
        tmp_path / "two",
        *(video, "-m", "fish-v1", "--worker", "second"),
        *("--frames", "0-3", "--peak-threshold", "0.0001", "-n", "2"),
    )
    assert client.wait(WAIT_S) == 0, client.story()
    (home,) = map(Path, client.report["predictions"])
    assert home.name == "demo.fish-v1.predictions.slp"
    assert client.report["bytes_total"] == video.stat().st_size
    progress = [e for e in client.events if e.get("kind") == "predict"]
    assert progress[-1]["done"] == progress[-1]["total"] == 4
    options = ("--peak_threshold", "0.0001", "--max_instances", "2")
    local = at_home(tmp_path, video, models, "--frames", "0-3", *options)
    assert rows(home) == local
    assert local, "nothing was predicted"
    labels = sleap_io.load_slp(str(home))
    assert [Path(one.filename) for one in labels.videos] == [video]
    assert labels.videos[0].exists()


def publish(programs: Programs, folder: Path, alias: str) -> None:
    """Put a model into the store of the workers of this test."""
    words = ("--store", folder, "--room", ROOM, "--alias", alias)
    client = programs.client(
        "models", "push", folder.parent / "trained" / alias, *words
    )
    assert client.wait() == 0, client.story()


@pytest.fixture
def store(tmp_path: Path, programs: Programs) -> Path:
    """A store with one model, `fly`."""
    folder = tmp_path / "store"
    folder.mkdir()
    write_model(tmp_path / "trained" / "fly", head="single_instance")
    publish(programs, folder, "fly")
    return folder


@pytest.fixture
def warm(programs: Programs, store: Path) -> Worker:
    """A worker with a scripted trainer that reaches the store."""
    words = ("--model-store", store, "--model-room", ROOM, "--name", "gpu-box")
    return programs.scripted_worker("train", *words).wait_ready()


def test_the_worker_says_what_a_name_means(
    programs: Programs, warm: Worker, fish: Path, output: Path
) -> None:
    video = fish / "demo.mp4"
    client = predict(programs, warm.session, output, video, "-m", "fly")
    assert client.wait() == 0, client.story()
    (home,) = map(Path, client.report["predictions"])
    assert home.name == "demo.fly.predictions.slp"
    # The scripted trainer gives back what it was given: the very video.
    assert home.read_bytes() == video.read_bytes()
    assert not (output / "models").exists()


def test_a_model_that_nobody_knows_is_refused_before_anything_is_sent(
    programs: Programs, warm: Worker, store: Path, fish: Path, output: Path
) -> None:
    for where in ((), ("--store", store, "--room", ROOM)):
        words = (fish / "demo.mp4", "-m", "flies-v9", *where)
        client = predict(programs, warm.session, output, *words)
        assert client.wait() == REFUSED, client.story()
        assert client.err[-1].startswith("There is no model flies-v9 in this room")
        assert client.report["bytes_sent"] == client.report["bytes_total"] == 0
        assert client.report["error"]["code"] == "model_not_found"


def test_a_model_that_is_too_new_is_refused_before_anything_is_sent(
    programs: Programs, store: Path, fish: Path, tmp_path: Path, output: Path
) -> None:
    newer = write_model(tmp_path / "trained" / "newer", head="single_instance", seed=1)
    for path in newer.glob("*.yaml"):
        path.write_text(path.read_text().replace("0.3.5", "0.9.0"))
    publish(programs, store, "newer")
    words = ("--model-store", store, "--model-room", ROOM, "--name", "gpu-box")
    worker = programs.scripted_worker("train", *words).wait_ready()
    client = predict(programs, worker.session, output, fish / "demo.mp4", "-m", "newer")
    assert client.wait() == REFUSED, client.story()
    assert "sleap-nn 0.9.0, and the worker gpu-box has 0.3.5" in client.err[-1]
    assert client.report["bytes_sent"] == 0


def test_a_worker_that_has_the_model_is_chosen(
    programs: Programs, warm: Worker, store: Path, fish: Path, output: Path
) -> None:
    used = predict(programs, warm.session, output, fish / "demo.mp4", "-m", "fly")
    assert used.wait() == 0, used.story()
    words = ("--model-store", store, "--model-room", ROOM, "--name", "other")
    where = ("--session", warm.session, "--data", programs.folder / "other-data")
    programs.scripted_worker("train", *words, *where).wait_ready()
    words = (fish / "demo.mp4", "-m", "fly", "--frames", "0-3")
    again = predict(programs, warm.session, output, *words)
    assert again.wait() == 0, again.story()
    assert again.report["worker"] == "gpu-box"


# -- models from here ------------------------------------------------------------------


@pytest.fixture
def plain(programs: Programs) -> Worker:
    return programs.scripted_worker("train", "--name", "gpu-box").wait_ready()


def test_labels_videos_and_packages_with_models_from_here(
    programs: Programs, plain: Worker, fish: Path, project: Path, output: Path
) -> None:
    models = [
        write_model(output.parent / "models" / name, head=head)
        for name, head in (("b.i", "centered_instance"), ("a.c", "centroid"))
    ]
    words = [word for model in models for word in ("--model", model)]
    data = (project, fish / "demo.mp4", fish / "short.zip")
    client = predict(programs, plain.session, output, *data, *words)
    assert client.wait() == 0, client.story()
    names = [Path(path).name for path in client.report["predictions"]]
    assert sorted(names) == [
        "demo.2.a.c.predictions.slp",
        "demo.a.c.predictions.slp",
        "short.a.c.predictions.slp",
    ]
    labels = sleap_io.load_slp(str(output / "demo.a.c.predictions.slp"))
    assert len(labels.labeled_frames) > 0


@POSIX
def test_the_same_command_goes_on_where_one_was_killed(
    programs: Programs, fish: Path, project: Path, output: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    worker = programs.scripted_worker(f"train,predict_gate={gate}").wait_ready()
    model = write_model(tmp_path / "models" / "m", head="single_instance")
    words = (project, fish / "demo.mp4", "--model", model)
    client = predict(programs, worker.session, output, *words)
    client.wait_event(event="state", state="starting")
    client.kill()
    client = predict(programs, worker.session, output, *words)
    resumed = client.wait_event(event="worker")
    gate.touch()
    assert client.wait() == 0, client.story()
    assert client.report["job_id"] == resumed["job_id"]
    assert len(list((tmp_path / "worker-data" / "jobs").iterdir())) == 1
    assert len(client.report["predictions"]) == 2


def test_bad_words_and_data_are_refused_in_a_sentence(
    programs: Programs, plain: Worker, fish: Path, output: Path, tmp_path: Path
) -> None:
    model = write_model(tmp_path / "models" / "m", head="single_instance")
    no_video = tmp_path / "no.mp4"
    no_video.write_text("a text")
    video = fish / "demo.mp4"
    for words, code, sentence in (
        ((video, "-m", "Flies V1"), USAGE, "no folder here, and an alias must be"),
        ((video, "-m", "not/here"), BAD_PACKAGE, "no such file or folder"),
        ((no_video, "-m", model), BAD_PACKAGE, "no.mp4 gives no frames"),
        ((video, "-m", model, "--frames", "9999"), USAGE, "has the frames 0 to"),
        ((video, "-m", model, "--video-index", "0"), USAGE, "the data is a video"),
        ((video, "-m", model, "--device", "x", "--tracker", "y"), USAGE, "--tracker"),
    ):
        client = predict(programs, plain.session, output, *words)
        assert client.wait() == code, client.story()
        assert sentence in client.err[-1], client.story()


def test_a_video_on_a_mount_is_not_sent(
    programs: Programs, fish: Path, tmp_path: Path, output: Path
) -> None:
    # Boxes that players skip: large enough to be looked for.
    data = (fish / "demo.mp4").read_bytes() + b"\0\0\0\x08free" * 200_000
    video, there = tmp_path / "ann" / "fish.mp4", tmp_path / "lab" / "2026" / "fish.mp4"
    for path in (video, there):
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
    words = ("--mount", f"lab={tmp_path / 'lab'}", "--name", "gpu-box")
    worker = programs.scripted_worker("train", *words).wait_ready()
    model = write_model(tmp_path / "models" / "m", head="single_instance")
    client = predict(programs, worker.session, output, video, "--model", model)
    assert client.wait() == 0, client.story()
    assert client.report["bytes_sent"] < 0.05 * len(data)
    (found,) = [e for e in client.events if e.get("event") == "mounts"]
    assert [file["place"] for file in found["files"]] == ["2026/fish.mp4"]
    (home,) = map(Path, client.report["predictions"])
    assert home.read_bytes() == data
