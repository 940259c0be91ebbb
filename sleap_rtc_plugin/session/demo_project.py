"""Makes a small SLEAP project to try the whole path with: two swimming fish.

The video is drawn, not recorded, so the labels are exact and every run gives the same
project. The package is laid out as SLEAP's "Export training job package..." does it.
Called by `sleap-remote demo` and by tests; trains nothing itself.
"""

import shlex
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from sleap_rtc_plugin.resources import resource

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Points = NDArray[np.float64]
    Image = NDArray[np.uint8]

__all__ = ["NODES", "fish_nodes", "make_demo_package"]

FRAME_COUNT: Final = 100
FRAME_SIZE_PX: Final = 160
FRAMES_PER_S: Final = 25
LABELED_COUNT: Final = 20
SUGGESTED_COUNT: Final = 8
FISH_COUNT: Final = 2
NODES: Final = ("head", "body", "tail")
# Lower than sleap-nn's default of 0.2: so short a training gives low peaks.
PEAK_THRESHOLD: Final = 0.1

_BODY_LENGTH_PX: Final = 15.0
_BODY_WIDTH_PX: Final = 5.0
_HEAD_RADIUS_PX: Final = 4.0
_TAIL_RADIUS_PX: Final = 2.5
_BACKGROUND: Final = 45.0
_NOISE_STD: Final = 3.0
_SEED: Final = 7
_CONFIGS: Final = ("centroid", "centered_instance")


@dataclass(frozen=True)
class _Orbit:
    """The ellipse a fish swims along: centre and radii in pixels, laps per video."""

    x: float
    y: float
    radius_x: float
    radius_y: float
    laps: float
    phase: float


_ORBITS: Final = (
    _Orbit(x=48, y=82, radius_x=24, radius_y=48, laps=1.0, phase=0.0),
    _Orbit(x=114, y=78, radius_x=22, radius_y=46, laps=-1.0, phase=2.0),
)


def fish_nodes(fish: int, frame: int) -> "Points":
    """Return where a fish's nodes are: `(3, 2)`, x and y in pixels, as in `NODES`."""
    import numpy as np

    orbit = _ORBITS[fish]
    angle = orbit.phase + orbit.laps * 2 * np.pi * frame / FRAME_COUNT
    body = np.array(
        [
            orbit.x + orbit.radius_x * np.cos(angle),
            orbit.y + orbit.radius_y * np.sin(angle),
        ]
    )
    ahead = np.sign(orbit.laps) * np.array(
        [-orbit.radius_x * np.sin(angle), orbit.radius_y * np.cos(angle)]
    )
    ahead /= np.hypot(*ahead)
    aside = np.array([-ahead[1], ahead[0]])
    beat = 3.0 * np.sin(2 * np.pi * frame / 8)
    return np.stack(
        [
            body + _BODY_LENGTH_PX * ahead,
            body,
            body - 1.2 * _BODY_LENGTH_PX * ahead + beat * aside,
        ]
    )


def _disc(xs: "Points", ys: "Points", centre: "Points", radius: float) -> "Points":
    """Return how much of each pixel a disc covers, its edge one pixel soft."""
    import numpy as np

    distance = np.hypot(xs - centre[0], ys - centre[1])
    cover: Points = np.clip(radius + 0.5 - distance, 0.0, 1.0)
    return cover


def _capsule(
    xs: "Points", ys: "Points", start: "Points", end: "Points", radius: float
) -> "Points":
    """Return how much of each pixel a thick line covers, its edge one pixel soft."""
    import numpy as np

    along = end - start
    t = ((xs - start[0]) * along[0] + (ys - start[1]) * along[1]) / (along @ along)
    t = np.clip(t, 0.0, 1.0)
    distance = np.hypot(xs - start[0] - t * along[0], ys - start[1] - t * along[1])
    cover: Points = np.clip(radius + 0.5 - distance, 0.0, 1.0)
    return cover


def _draw_frame(frame: int) -> "Image":
    """Draw one frame: gray, `(160, 160)`."""
    import numpy as np

    ys, xs = np.mgrid[0:FRAME_SIZE_PX, 0:FRAME_SIZE_PX].astype(np.float64)
    rng = np.random.default_rng((_SEED, frame))
    ripples = 6.0 * np.sin(xs / 11.0 + 0.05 * frame) * np.cos(ys / 17.0)
    image = _BACKGROUND + ripples + rng.normal(0.0, _NOISE_STD, xs.shape)
    for fish in range(FISH_COUNT):
        head, body, tail = fish_nodes(fish, frame)
        shapes = (
            (_capsule(xs, ys, body, tail, _TAIL_RADIUS_PX), 130.0),
            (_capsule(xs, ys, head, body, _BODY_WIDTH_PX), 190.0),
            (_disc(xs, ys, head, _HEAD_RADIUS_PX), 250.0),
            (_disc(xs, ys, tail, _TAIL_RADIUS_PX + 1.0), 90.0),
        )
        for cover, brightness in shapes:
            image = image * (1.0 - cover) + brightness * cover
    drawn: Image = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return drawn


def _write_video(path: Path) -> None:
    import sleap_io

    with sleap_io.VideoWriter(path, fps=FRAMES_PER_S, crf=18) as writer:
        for frame in range(FRAME_COUNT):
            writer(_draw_frame(frame)[..., None].repeat(3, axis=2))


def _label(video_path: Path) -> Any:
    """Return the project: every fifth frame labeled, some others suggested."""
    import sleap_io

    skeleton = sleap_io.Skeleton(
        nodes=list(NODES), edges=[("head", "body"), ("body", "tail")], name="fish"
    )
    video = sleap_io.Video.from_filename(str(video_path), grayscale=True)
    labeled = range(0, FRAME_COUNT, FRAME_COUNT // LABELED_COUNT)
    frames = [
        sleap_io.LabeledFrame(
            video=video,
            frame_idx=frame,
            instances=[
                sleap_io.Instance.from_numpy(fish_nodes(fish, frame), skeleton=skeleton)
                for fish in range(FISH_COUNT)
            ],
        )
        for frame in labeled
    ]
    # Every tenth from 7 on: never one of the labeled ones.
    suggested = [7 + 10 * i for i in range(SUGGESTED_COUNT)]
    return sleap_io.Labels(
        labeled_frames=frames,
        videos=[video],
        skeletons=[skeleton],
        suggestions=[
            sleap_io.SuggestionFrame(video=video, frame_idx=frame)
            for frame in suggested
        ],
    )


def _run_path(config: str) -> str:
    return f"models/demo.{config}.n={LABELED_COUNT}"


def _jobs_yaml() -> str:
    jobs = {
        "inference": [
            {
                "data_path": "demo.pkg.slp",
                "models": [_run_path(config) for config in _CONFIGS],
                "only_suggested_frames": True,
                "output_path": "demo.pkg.slp.predictions.slp",
                "tracking": {},
                "type": "labels",
            }
        ],
        "training": [
            {
                "cfg": f"{config}.yaml",
                "run_path": _run_path(config),
                "train_labels": "demo.pkg.slp",
            }
            for config in _CONFIGS
        ],
    }
    text: str = yaml.safe_dump(jobs, sort_keys=False)
    return text


def _train_script() -> str:
    lines = ["#!/bin/bash"]
    for config in _CONFIGS:
        folder, run_name = _run_path(config).split("/")
        words = [
            *("sleap", "train", "--config-name", f"{config}.yaml"),
            *("--config-dir", "."),
            f'trainer_config.ckpt_dir="{folder}"',
            f'trainer_config.run_name="{run_name}"',
        ]
        lines.append(shlex.join(words))
    return "\n".join(lines) + "\n"


def _inference_script(project: Path) -> str:
    words = ["sleap", "predict", "--gui", "--data_path", project.as_posix()]
    words.append("--only_suggested_frames")
    for config in _CONFIGS:
        words += ["--model_paths", _run_path(config)]
    words += ["-o", "demo.pkg.slp.predictions.slp", "--exclude_user_labeled"]
    words += ["--peak_threshold", str(PEAK_THRESHOLD)]
    return f"#!/bin/bash\n{shlex.join(words)}\n"


def make_demo_package(folder: Path) -> Path:
    """Make the demo project in `folder` and return its training job package.

    Writes `demo.mp4`, `demo.slp` (20 labeled frames, 8 suggestions), the same with
    embedded images as `demo.pkg.slp`, and `demo.training_job.zip`.

    Args:
        folder: where to; made if it is missing. Files of the same names are replaced.

    Raises:
        OSError: the folder cannot be written.
    """
    import sleap_io

    folder.mkdir(parents=True, exist_ok=True)
    video = folder / "demo.mp4"
    project = folder / "demo.slp"
    embedded = folder / "demo.pkg.slp"
    _write_video(video)
    labels = _label(video)
    sleap_io.save_file(labels, str(project), verbose=False)
    sleap_io.save_file(labels, str(embedded), embed="user+suggestions", verbose=False)

    package = folder / "demo.training_job.zip"
    with zipfile.ZipFile(package, "w", zipfile.ZIP_DEFLATED) as archive:
        for config in _CONFIGS:
            archive.write(resource(f"demo/{config}.yaml"), f"{config}.yaml")
        archive.writestr("jobs.yaml", _jobs_yaml())
        archive.write(embedded, embedded.name)
        archive.writestr("train-script.sh", _train_script())
        archive.writestr("inference-script.sh", _inference_script(project))
    return package
