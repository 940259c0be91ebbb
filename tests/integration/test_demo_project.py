"""The demo is a real project, the same every time, and its package opens."""

from pathlib import Path

import numpy as np
import pytest
import sleap_io

from sleap_rtc_plugin import resources
from sleap_rtc_plugin.protocol.messages import PredictStep
from sleap_rtc_plugin.resources import resource
from sleap_rtc_plugin.session.demo_project import NODES, _draw_frame, fish_nodes
from sleap_rtc_plugin.session.training_package import open_package


def test_project(demo_folder: Path) -> None:
    labels = sleap_io.load_slp(str(demo_folder / "demo.slp"))
    assert labels.video.shape == (100, 160, 160, 1)
    assert len(labels.user_labeled_frames) == 20
    assert len(labels.suggestions) == 8
    labeled = {frame.frame_idx for frame in labels.labeled_frames}
    assert not labeled & {suggestion.frame_idx for suggestion in labels.suggestions}
    assert tuple(labels.skeleton.node_names) == NODES
    drawn = _draw_frame(5).astype(float)
    decoded = labels.video[5][..., 0].astype(float)
    assert np.abs(drawn - decoded).mean() < 6
    labels.video.close()


def test_embedded_images(demo_folder: Path) -> None:
    labels = sleap_io.load_slp(str(demo_folder / "demo.pkg.slp"))
    assert labels.video[5].shape == (160, 160, 1)
    assert labels.video[7].shape == (160, 160, 1)
    labels.video.close()


def test_fish_stay_in_the_picture_and_apart() -> None:
    for frame in range(100):
        first, second = fish_nodes(0, frame), fish_nodes(1, frame)
        assert np.all((first > 5) & (first < 155) & (second > 5) & (second < 155))
        assert np.hypot(*(first[:, None] - second[None]).T).min() > 10


def test_heads_are_bright() -> None:
    for frame in (0, 33, 66):
        image = _draw_frame(frame)
        for fish in (0, 1):
            x, y = np.rint(fish_nodes(fish, frame)[0]).astype(int)
            assert image[y, x] > 230


def test_frames_are_the_same_every_time() -> None:
    assert np.array_equal(_draw_frame(3), _draw_frame(3))


def test_package(demo_folder: Path, tmp_path: Path) -> None:
    package = open_package(demo_folder / "demo.training_job.zip", tmp_path)
    *training, predict = package.spec.steps
    assert [step.head for step in training] == ["centroid", "centered_instance"]  # type: ignore[union-attr]
    assert isinstance(predict, PredictStep)
    assert predict.options["peak_threshold"] == "0.1"
    assert package.spec.name == "demo"


def test_resource_in_a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "centroid.yaml").touch()
    monkeypatch.setattr(resources, "_PLACES", (tmp_path, tmp_path / "none"))
    assert resource("demo/centroid.yaml") == tmp_path / "demo" / "centroid.yaml"
    with pytest.raises(FileNotFoundError, match="missing from this installation"):
        resource("demo/other.yaml")
