"""Labels that would make the worker's sleap-nn read other files are refused."""

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import sleap_io

from sleap_rtc_plugin.protocol.errors import LabelsUnreadable
from sleap_rtc_worker.config_check import check_configs

pytestmark = pytest.mark.needs_sleap_nn


def add_external_link(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["video0/other"] = h5py.ExternalLink("elsewhere.h5", "/secret")


def add_external_data(path: Path) -> None:
    raw = path.with_name("raw.bin")
    raw.write_bytes(bytes(100))
    with h5py.File(path, "a") as file:
        file.create_dataset("raw", (100,), "int8", external=[(str(raw), 0, 100)])


def add_virtual_data(path: Path) -> None:
    source = h5py.VirtualSource("elsewhere.h5", "secret", shape=(10,), dtype="int8")
    layout = h5py.VirtualLayout(shape=(10,), dtype="int8")
    layout[:] = source
    with h5py.File(path, "a") as file:
        file.create_virtual_dataset("virtual", layout)


def add_cycle(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["video0/again"] = file["/"]


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labels")
    skeleton = sleap_io.Skeleton(["a"])
    image = folder / "image.png"
    import imageio.v3

    imageio.v3.imwrite(image, np.zeros((16, 16), np.uint8))
    video = sleap_io.Video.from_filename([str(image)])
    instance = sleap_io.Instance.from_numpy(np.array([[3.0, 4.0]]), skeleton)
    frame = sleap_io.LabeledFrame(video=video, frame_idx=0, instances=[instance])
    project = sleap_io.Labels([frame])
    path = folder / "good.pkg.slp"
    sleap_io.save_file(project, str(path), embed="user", verbose=False)
    plain = folder / "plain.slp"
    sleap_io.save_file(project, str(plain), verbose=False)
    return path


def copy(labels: Path, folder: Path) -> Path:
    return Path(shutil.copy(labels, folder))


async def test_embedded_labels_pass_even_with_a_cycle(
    labels: Path, tmp_path: Path
) -> None:
    path = copy(labels, tmp_path)
    add_cycle(path)
    await check_configs({}, labels={"good.pkg.slp": path})


@pytest.mark.parametrize(
    "spoil", [add_external_link, add_external_data, add_virtual_data]
)
async def test_labels_that_point_elsewhere_are_refused(
    labels: Path, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    path = copy(labels, tmp_path)
    spoil(path)
    with pytest.raises(LabelsUnreadable) as refused:
        await check_configs({}, labels={"my.pkg.slp": path})
    assert refused.value.path == "my.pkg.slp"
    assert "another file" in refused.value.reason


async def test_labels_with_a_video_elsewhere_are_refused(labels: Path) -> None:
    with pytest.raises(LabelsUnreadable, match="outside the file"):
        await check_configs({}, labels={"p": labels.with_name("plain.slp")})


async def test_labels_that_are_not_labels_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "noise.slp"
    path.write_bytes(b"noise")
    with pytest.raises(LabelsUnreadable):
        await check_configs({}, labels={"noise.slp": path})
