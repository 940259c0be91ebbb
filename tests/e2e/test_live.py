"""`sleap-remote live` as a user starts it: a video, a worker, poses in time."""

import asyncio
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.live_programs import live, start_worker
from support.programs import POSIX, Programs, Worker, wait_for
from support.trained_models import write_model

from sleap_rtc_plugin.protocol.errors import EXIT_BAD_PACKAGE, EXIT_REFUSED
from sleap_rtc_plugin.protocol.model_records import Publication
from sleap_rtc_plugin.registry.model_files import read_model
from sleap_rtc_plugin.registry.model_registry import ModelRegistry
from sleap_rtc_plugin.registry.store_address import open_store


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 frames of 48 x 64 pixels, 10 a second."""
    import sleap_io

    path = tmp_path_factory.mktemp("video") / "arena.mp4"
    frames = np.random.default_rng(7).integers(0, 255, (60, 48, 64, 1), dtype=np.uint8)
    sleap_io.save_video(frames, str(path), fps=10)
    return path


def test_a_video_live(programs: Programs, video: Path, tmp_path: Path) -> None:
    import sleap_io

    worker = start_worker(programs)
    output, plot = tmp_path / "live.slp", tmp_path / "latency.png"
    words = ("--json", "--output", output, "--plot", plot, "--fps", 20)
    client = live(programs, worker, video, *words, "--frames", 40)
    assert client.wait() == 0, client.story()
    started, *frames, summary = client.events
    assert started["event"] == "started"
    assert started["nodes"] == ["head", "tail"]
    assert started["edges"] == [[0, 1]]
    assert {line["event"] for line in frames} == {"frame"}
    assert frames[0]["instances"][0]["points"][1] == [None, None, 0.0]
    assert summary["event"] == "summary"
    assert summary["answered"] == len(frames) > 0
    assert summary["taken"] + summary["missed"] == 40
    assert summary["taken"] == summary["sent"] + summary["dropped"]
    unanswered = summary["lost"] + summary["superseded"]
    assert summary["sent"] == summary["answered"] + unanswered
    assert 0 < summary["latency_ms"]["min"] <= summary["latency_ms"]["max"]
    assert plot.read_bytes().startswith(b"\x89PNG")
    labels = sleap_io.load_slp(str(output))
    assert [frame.frame_idx for frame in labels] == [line["frame"] for line in frames]
    assert Path(labels.videos[0].filename) == video
    (skeleton,) = labels.skeletons
    assert skeleton.node_names == ["head", "tail"]
    points = labels[0].instances[0].numpy()
    assert points[0].tolist() == frames[0]["instances"][0]["points"][0][:2]
    assert np.isnan(points[1]).all()


@POSIX
def test_ctrl_c_keeps_what_was_found(
    programs: Programs, video: Path, tmp_path: Path
) -> None:
    import sleap_io

    worker = start_worker(programs)
    output = tmp_path / "live.slp"
    client = live(programs, worker, video, "--json", "--output", output, "--fps", 2)
    client.wait_event(event="frame")
    client.interrupt()
    assert client.wait() == 0, client.story()
    assert len(sleap_io.load_slp(str(output))) == client.report["answered"] >= 1


def test_in_a_terminals_words(programs: Programs, video: Path) -> None:
    worker = start_worker(programs)
    client = live(programs, worker, video, "--frames", 10, "--peak_threshold", "0.1")
    assert client.wait() == 0, client.story()
    assert client.out[0].startswith("10 frames, ")
    assert client.out[1].startswith("latency: ")
    assert client.out[-1].startswith("of it predicting: ")


def runners(programs: Programs) -> list[int]:
    return [
        process.pid
        for process in programs.processes()
        if "scripted_live_runner" in " ".join(process.cmdline())
    ]


@POSIX
def test_a_killed_worker_leaves_no_runner_and_no_lost_predictions(
    programs: Programs, video: Path, tmp_path: Path
) -> None:
    worker = start_worker(programs)
    output = tmp_path / "live.slp"
    client = live(programs, worker, video, "--json", "--output", output, "--fps", 2)
    client.wait_event(event="frame")
    assert len(runners(programs)) == 1
    worker.kill()
    wait_for(lambda: not runners(programs), "the runner ends with its worker")
    client.interrupt()
    assert client.wait() != 0
    assert output.is_file()


@POSIX
def test_a_killed_runner_is_told(
    programs: Programs, video: Path, tmp_path: Path
) -> None:
    worker = start_worker(programs, "dies=5")
    output = tmp_path / "live.slp"
    client = live(programs, worker, video, "--json", "--output", output)
    assert client.wait() == EXIT_REFUSED, client.story()
    assert "ended the live session" in client.err[-1]
    assert "ended the live session" in client.report["error"]
    assert client.report["answered"] == 5
    assert output.is_file()
    # The worker serves the next one.
    again = live(programs, worker, video, "--frames", 3)
    assert again.wait() == 0, again.story()


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("--video", "nowhere.mp4"), EXIT_BAD_PACKAGE, "there is no such file"),
        (("--video", __file__), EXIT_BAD_PACKAGE, "gives no frames"),
        (("--video", "87"), EXIT_BAD_PACKAGE, "camera 87 gives no frames"),
        (("--model", "bee"), EXIT_REFUSED, "There is no model bee"),
        (("--tracking",), 2, "--tracking is not accepted: it has no meaning"),
        (("--data_path", "/etc/passwd"), 2, "is said with --video"),
        (("--peak_threshold", "high"), 2, "--peak_threshold is not accepted"),
        (("--output", "live.mp4"), 2, "does not end in .slp"),
    ],
)
def test_what_cannot_be(
    module_programs: Programs,
    shared_worker: Worker,
    video: Path,
    words: tuple[str, ...],
    code: int | None,
    sentence: str,
) -> None:
    client = live(module_programs, shared_worker, video, *words)
    assert client.wait() != 0
    assert code is None or client.wait() == code, client.story()
    assert sentence in " ".join(client.err), client.story()


@pytest.fixture(scope="module")
def shared_worker(module_programs: Programs) -> Worker:
    return start_worker(module_programs)


def test_nothing_is_overwritten(
    module_programs: Programs, shared_worker: Worker, video: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.slp"
    mine.write_text("precious")
    client = live(module_programs, shared_worker, video, "--output", mine)
    assert client.wait() == 2
    assert "nothing overwrites it" in " ".join(client.err)
    assert mine.read_text() == "precious"


def publish(store: Path, room: str, scratch: Path) -> str:
    """Publish a model as `fly`, and return its id."""

    async def published() -> str:
        folder = write_model(scratch / "fly.single_instance")
        outcome = await ModelRegistry(open_store(str(store)), room).publish(
            read_model([folder]), publication=Publication(alias="fly"), by="ada"
        )
        return outcome.details.record.id

    return asyncio.run(published())


def test_a_published_model(programs: Programs, video: Path, tmp_path: Path) -> None:
    """By its alias, from the room's store, through the worker's cache."""
    store, room = tmp_path / "store", "the-lab"
    store.mkdir()
    model = publish(store, room, tmp_path)
    where = ("--model-store", store, "--model-room", room)
    worker = start_worker(programs, "checks", "published", *where)
    first = live(programs, worker, video, "--json", "--frames", 5)
    assert first.wait() == 0, first.story()
    assert first.report["answered"] > 0
    shutil.rmtree(store / room / "blobs")
    # What is at hand needs the store no more.
    again = live(programs, worker, video, "--json", "--frames", 5, "--model", model)
    assert again.wait() == 0, again.story()
    assert again.report["answered"] > 0
    nobody = live(programs, worker, video, "--model", "bee")
    assert nobody.wait() == EXIT_REFUSED, nobody.story()
    assert "There is no model bee" in nobody.err[-1]


def test_a_worker_that_has_the_model_is_asked(
    programs: Programs, video: Path, tmp_path: Path
) -> None:
    """Without a name, the one in whose store it is; by chance it would be the other."""
    store = tmp_path / "store"
    store.mkdir()
    publish(store, "the-lab", tmp_path)
    first = start_worker(programs, "checks", "published", "--name", "empty")
    where = ("--model-store", store, "--model-room", "the-lab", "--name", "warm")
    joins = ("--session", first.session, "--data", tmp_path / "second")
    start_worker(programs, "checks", "published", *where, *joins)
    client = live(programs, first, video, "--json", "--frames", 5)
    assert client.wait() == 0, client.story()
    assert client.events[0]["worker"] == "warm"
