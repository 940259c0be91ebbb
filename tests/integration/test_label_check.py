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

from sleap_rtc_plugin.protocol.errors import LabelsUnreadable, VideoUnreadable
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
    with pytest.raises(VideoUnreadable, match="no video"):
        await check_configs({}, labels={"p": path})


async def test_a_video_may_be_predicted_on(tmp_path: Path) -> None:
    import imageio.v3

    path = tmp_path / "fly.mp4"
    imageio.v3.imwrite(path, np.zeros((5, 64, 64, 3), np.uint8), fps=5)
    await check_configs({}, labels={"fly.mp4": path})


@pytest.mark.parametrize(
    "content",
    [
        b"#EXTM3U\n#EXTINF:1,\nhttp://169.254.169.254/latest\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"",
        b"\0\0\0\x18ftypmp42" + bytes(100),
    ],
)
async def test_what_is_no_video_of_its_own_is_not_predicted_on(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "fly.mp4"
    path.write_bytes(content)
    with pytest.raises(VideoUnreadable, match=r"fly\.mp4"):
        await check_configs({}, labels={"fly.mp4": path})


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


# -- videos on mounts --------------------------------------------------------------


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "lab"
    folder.mkdir(parents=True)
    shutil.copy(SHARED_DATA / "small_robot.mp4", folder / "robot.mp4")
    return folder


def referring(labels: Path, folder: Path, *videos: dict[str, Any]) -> Path:
    """Return labels whose first video lies in them, and the others elsewhere."""
    path = copy(labels, folder)
    set_videos(path, EMBEDDED, *videos)
    return path


async def verdict(path: Path, *mounts: Path) -> str:
    """Return why labels are refused, or an empty text."""
    try:
        await check_configs({}, labels={"p": path}, mounts=mounts)
    except LabelsUnreadable as error:
        return error.reason
    return ""


@pytest.mark.needs_shared_data
async def test_a_video_on_a_mount_passes(
    labels: Path, lab: Path, tmp_path: Path
) -> None:
    (lab / "link.mp4").symlink_to(lab / "robot.mp4")
    names = [str(lab / "robot.mp4"), str(lab / "link.mp4")]
    path = referring(labels, tmp_path, *map(video_of, names))
    assert await verdict(path, tmp_path / "nothing", lab) == ""
    # Without the mount it is a video like any other.
    assert "robot.mp4 lies outside the file" in await verdict(path)


@pytest.mark.needs_shared_data
async def test_what_is_not_a_video_on_the_mount_is_refused_by_name(
    labels: Path, lab: Path, tmp_path: Path
) -> None:
    outside = lab.parent / "secret.mp4"
    shutil.copy(lab / "robot.mp4", outside)
    (lab / "out.mp4").symlink_to(outside)
    (lab / "loop.mp4").symlink_to("loop.mp4")
    (lab / "list.mp4").write_text(f"#EXTM3U\n{outside}\n")
    (lab / "concat.mp4").write_text(f"ffconcat version 1.0\nfile {outside}\n")
    (lab / "broken.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(100))
    (lab / "data.h5").write_bytes((lab / "robot.mp4").read_bytes())
    (lab / "folder.mp4").mkdir()
    refused = {
        str(outside): "secret.mp4 lies outside",
        str(lab / "out.mp4"): "out.mp4 lies outside",
        str(lab / "loop.mp4"): "loop.mp4",
        f"{lab}/../secret.mp4": "secret.mp4 lies outside",
        "robot.mp4": "robot.mp4 lies outside",
        "../lab/robot.mp4": "robot.mp4 lies outside",
        f"file://{lab}/robot.mp4": "robot.mp4 lies outside",
        f"concat:{lab}/robot.mp4": "robot.mp4 lies outside",
        "http://127.0.0.1:9/robot.mp4": "robot.mp4 lies outside",
        str(lab / "gone.mp4"): "gone.mp4 is not on the worker's mount any more",
        str(lab / "folder.mp4"): "folder.mp4 is not on the worker's mount any more",
        str(lab): "lab is not on the worker's mount any more",
        str(lab / "list.mp4"): "list.mp4 is of a kind that has to be sent",
        str(lab / "concat.mp4"): "concat.mp4 is of a kind that has to be sent",
        str(lab / "data.h5"): "data.h5 is of a kind that has to be sent",
        str(lab / "broken.mp4"): "broken.mp4 cannot be opened on the worker",
    }
    reasons = {}
    for number, name in enumerate(refused):
        folder = tmp_path / str(number)
        folder.mkdir()
        reasons[name] = await verdict(referring(labels, folder, video_of(name)), lab)
    for name, words in refused.items():
        assert words in reasons[name], name


@pytest.mark.needs_shared_data
async def test_images_on_a_mount_are_refused(
    labels: Path, lab: Path, tmp_path: Path
) -> None:
    shutil.copy(labels.with_name("image.png"), lab / "0.png")
    image = str(lab / "0.png")
    path = referring(labels, tmp_path, video_of(image, filenames=[image]))
    assert "0.png lies outside the file" in await verdict(path, lab)
