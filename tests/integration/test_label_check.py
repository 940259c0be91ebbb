"""Labels that would make the worker's sleap-nn read other files are refused."""

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import sleap_io

from sleap_rtc_plugin.protocol.errors import LabelsUnreadable
from sleap_rtc_worker.config_check import check_configs

pytestmark = pytest.mark.needs_sleap_nn

SHARED_DATA = Path(__file__).parents[3] / "shared/data"


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


def set_videos(path: Path, *videos: dict[str, Any]) -> None:
    """Replace the list of videos; the frames go on naming the first."""
    with h5py.File(path, "a") as file:
        del file["videos_json"]
        file["videos_json"] = [json.dumps(video) for video in videos]


def video_of(filename: str, **more: Any) -> dict[str, Any]:
    return {"filename": filename, "backend": {"filename": filename, **more}}


EMBEDDED = video_of(".", dataset="video0/video", has_embedded_images=True)


def name_source(path: Path, source: dict[str, Any]) -> None:
    """Say that the embedded images come from this video, as packages do."""
    with h5py.File(path, "a") as file:
        group = file.require_group("video0/source_video")
        if "json" in group:
            del group["json"]
        group.attrs["json"] = json.dumps(source)


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


async def test_a_video_that_no_frame_names_must_be_inside_too(
    labels: Path, tmp_path: Path
) -> None:
    """Inference on `--video_index 1` would read it, frame by frame."""
    path = copy(labels, tmp_path)
    set_videos(path, EMBEDDED, video_of("/home/someone/video.mp4"))
    with pytest.raises(LabelsUnreadable, match="outside the file"):
        await check_configs({}, labels={"p": path})


@pytest.mark.parametrize(
    "outside",
    [
        {"filename": "/elsewhere/good.pkg.slp", "dataset": "video0/video"},
        {"filename": ".", "dataset": "video0/video", "filenames": ["/home/me/a.png"]},
        {"filename": "https://example.org/good.pkg.slp", "dataset": "video0/video"},
    ],
    ids=["a file of the same name", "images", "an address"],
)
async def test_a_video_is_not_believed_to_be_embedded(
    labels: Path, tmp_path: Path, outside: dict[str, Any]
) -> None:
    path = copy(labels, tmp_path)
    set_videos(path, {"backend": {**outside, "has_embedded_images": True}})
    with pytest.raises(LabelsUnreadable, match="outside the file"):
        await check_configs({}, labels={"p": path})


async def test_labels_of_the_first_kind_of_package_pass(
    labels: Path, tmp_path: Path
) -> None:
    """Older versions of SLEAP did not say that the images are embedded."""
    path = copy(labels, tmp_path)
    set_videos(path, {"backend": {"filename": ".", "dataset": "video0/video"}})
    await check_configs({}, labels={"p": path})


async def test_the_video_that_images_came_from_may_be_a_file_of_the_client(
    labels: Path, tmp_path: Path
) -> None:
    path = copy(labels, tmp_path)
    for filename in ("/data/mouse:1.mp4", "C:/data/mouse.mp4", "mouse.mp4"):
        name_source(path, video_of(filename))
        await check_configs({}, labels={"p": path})


@pytest.mark.parametrize(
    "address",
    [
        "http://169.254.169.254/latest.mp4",
        "s3://bucket/video.h5",
        "tcp:intranet:80/video.mp4",
        "subfile,,start,0,end,9,,:/etc/passwd.mp4",
    ],
)
async def test_the_video_that_images_came_from_is_not_fetched(
    labels: Path, tmp_path: Path, address: str
) -> None:
    """sleap-io opens it, and so would send requests for a stranger."""
    path = copy(labels, tmp_path)
    name_source(path, {**video_of("a.mp4"), "source_video": video_of(address)})
    with pytest.raises(LabelsUnreadable, match="network"):
        await check_configs({}, labels={"p": path})


async def test_labels_that_name_themselves_a_video_are_refused(
    labels: Path, tmp_path: Path
) -> None:
    """sleap-nn goes by the name, and a file can be labels and a playlist at once."""
    path = Path(shutil.copy(labels, tmp_path / "good.mp4"))
    with pytest.raises(LabelsUnreadable, match=r"\.slp"):
        await check_configs({}, labels={"p": path})


@pytest.mark.needs_shared_data
@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="the shared data is missing")
async def test_packages_that_sleap_wrote_pass(tmp_path: Path) -> None:
    labels = {path.name: path for path in SHARED_DATA.glob("*.pkg.slp")}
    for package in SHARED_DATA.glob("*.training_job.zip"):
        with zipfile.ZipFile(package) as archive:
            for name in archive.namelist():
                if name.endswith(".slp"):
                    folder = tmp_path / package.stem
                    labels[package.stem] = Path(archive.extract(name, folder))
    await check_configs({}, labels=labels)
    assert len(labels) > 1


async def test_labels_that_are_not_labels_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "noise.slp"
    path.write_bytes(b"noise")
    with pytest.raises(LabelsUnreadable):
        await check_configs({}, labels={"noise.slp": path})
