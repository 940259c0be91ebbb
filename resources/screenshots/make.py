"""Makes the README's pictures, from the real SLEAP with a real lab on this machine.

Run as `python resources/screenshots/make.py --output DIR [--dark]` in an environment
with the extras gui, worker and signaling. It needs no display, takes a few minutes,
and touches nothing but DIR: project, settings and workers live in a temporary folder.
"""

import argparse
import asyncio
import contextlib
import json
import math
import os
import pickle
import random
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any, Final

import psutil
import yaml

from sleap_rtc_plugin.local_lab import local_lab
from sleap_rtc_plugin.protocol.session_string import Session
from sleap_rtc_plugin.resources import resource
from sleap_rtc_plugin.session.demo_project import NODES, make_demo_package

HERE: Final = Path(__file__).parent
TIMEOUT_S: Final = 600
WORKER_READY_S: Final = 120

# The demo's project, enlarged until its package takes a second to send.
ENLARGED: Final = 4
NOISE_STD: Final = 2.0
EPOCHS: Final = 40
STEPS_PER_EPOCH: Final = 10
# sleap-nn ends a training whose loss no longer falls by as much as this.
MIN_DELTA: Final = 1e-6

SCENARIOS: Final = ("pictures", "models")
# Each with its head and for how many epochs it was trained.
MODELS: Final = (
    ("fish.centroid.n=12", "centroid", 34),
    ("fish.centered_instance.n=12", "centered_instance", 48),
    ("fish.centroid.n=20", "centroid", 52),
    ("fish.centered_instance.n=20", "centered_instance", 76),
)

WEIGHT_BYTES: Final = 2_000_000

# A screen that a window of SLEAP fits on; Qt's own offscreen one is 800 x 800.
SCREEN: Final = {"name": "screen", "x": 0, "y": 0, "width": 1600, "height": 1000}


def make_project(folder: Path) -> Path:
    """Write the fish, their labels, and two configurations; return the project."""
    import numpy as np
    import sleap_io
    from PIL import Image

    with tempfile.TemporaryDirectory() as demo_folder:
        make_demo_package(Path(demo_folder))
        demo = sleap_io.load_slp(str(Path(demo_folder) / "demo.slp"))
        small = demo.videos[0][:]
    # SLEAP looks for configurations beside the models.
    (folder / "models").mkdir(parents=True)
    rng = np.random.default_rng(0)
    with sleap_io.VideoWriter(folder / "fish.mp4", fps=25, crf=18) as writer:
        for frame in small:
            size = (frame.shape[1] * ENLARGED, frame.shape[0] * ENLARGED)
            smooth = Image.fromarray(frame[..., 0]).resize(
                size, Image.Resampling.BICUBIC
            )
            grainy = np.asarray(smooth) + rng.normal(0.0, NOISE_STD, size[::-1])
            image = np.clip(np.rint(grainy), 0, 255).astype(np.uint8)
            writer(image[..., None].repeat(3, axis=2))
    video = sleap_io.Video.from_filename(str(folder / "fish.mp4"), grayscale=True)
    labels = sleap_io.Labels(
        labeled_frames=[
            sleap_io.LabeledFrame(
                video=video,
                frame_idx=labeled.frame_idx,
                instances=[
                    sleap_io.Instance.from_numpy(
                        instance.numpy() * ENLARGED, skeleton=demo.skeletons[0]
                    )
                    for instance in labeled.instances
                ],
            )
            for labeled in demo.labeled_frames
        ],
        videos=[video],
        skeletons=demo.skeletons,
        suggestions=[
            sleap_io.SuggestionFrame(video=video, frame_idx=suggestion.frame_idx)
            for suggestion in demo.suggestions
        ],
    )
    project = folder / "fish.slp"
    sleap_io.save_file(labels, str(project), verbose=False)
    for head in ("centroid", "centered_instance"):
        config = yaml.safe_load(resource(f"demo/{head}.yaml").read_text())
        path = folder / "models" / f"fish.{head}.yaml"
        path.write_text(yaml.safe_dump(_enlarged(config), sort_keys=False))
    return project


def _enlarged(config: dict[str, Any]) -> dict[str, Any]:
    """Have the larger images reduced again, and the training watched for longer."""
    preprocessing = config["data_config"]["preprocessing"]
    preprocessing["scale"] = preprocessing["scale"] / ENLARGED
    if "crop_size" in preprocessing:
        preprocessing["crop_size"] *= ENLARGED
        # SLEAP warns of crops that are smaller than 100 pixels when they are reduced.
        preprocessing["scale"] *= 2
    trainer = config["trainer_config"]
    trainer |= {
        "max_epochs": EPOCHS,
        "min_train_steps_per_epoch": STEPS_PER_EPOCH,
        "train_steps_per_epoch": STEPS_PER_EPOCH,
        "run_name": None,
        "visualize_preds_during_training": True,
        "early_stopping": {
            "stop_training_on_plateau": True,
            "patience": 10,
            "min_delta": MIN_DELTA,
        },
    }
    return config


def make_models(folder: Path) -> None:
    """Write models as a training leaves them, but for weights that mean something."""
    for seed, (name, head, epochs) in enumerate(MODELS):
        model = folder / name
        model.mkdir()
        config = yaml.safe_load(resource(f"demo/{head}.yaml").read_text())
        nodes = [{"name": node} for node in NODES]
        config["data_config"]["skeletons"] = [{"name": "fish", "nodes": nodes}]
        config["sleap_nn_version"] = "0.3.5"
        (model / "training_config.yaml").write_text(yaml.safe_dump(config))
        noise = random.Random(seed)  # noqa: S311 - no secret, the same each time
        with zipfile.ZipFile(model / "best.ckpt", "w") as archive:
            archive.writestr("best/data.pkl", pickle.dumps({}, protocol=2))
            archive.writestr("best/data/0", noise.randbytes(WEIGHT_BYTES))
        lines = ["epoch,train/loss,val/loss,learning_rate,train/time,val/time"]
        for epoch in range(epochs):
            fall = math.exp(-epoch / 12)
            train, val = 0.02 * fall + 0.0008, 0.024 * fall + 0.0014
            val *= 1 + noise.uniform(-0.12, 0.12)
            lines.append(f"{epoch},{train:.6f},{val:.6f},0.0001,3.2,0.6")
        (model / "training_log.csv").write_text("\n".join(lines) + "\n")


async def second_worker(session: Session, folder: Path) -> asyncio.subprocess.Process:
    """Start another worker in the same lab and wait until it is ready."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sleap_rtc_plugin.cli", "worker"),
        *("--name", "workstation-2", "--data", str(folder)),
        env=os.environ | {"SLEAP_SESSION": session.encode()},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    if process.stderr is not None:
        async with asyncio.timeout(WORKER_READY_S):
            while b" is ready" not in await process.stderr.readline():
                if process.returncode is not None:
                    raise SystemExit("the second worker did not start")
    return process


def environment(folder: Path) -> dict[str, str]:
    """Return what SLEAP runs with: a home of its own, a screen, no user's name."""
    home = folder / "home" / "ada"
    screens = folder / "screens.json"
    screens.write_text(json.dumps({"screens": [SCREEN]}))
    return os.environ | {
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "XDG_DATA_HOME": str(home / ".local" / "share"),
        "XDG_STATE_HOME": str(home / ".local" / "state"),
        "LOGNAME": "ada",
        "USER": "ada",
        "LC_ALL": "C.UTF-8",
        "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring",
        "QT_QPA_PLATFORM": f"offscreen:configfile={screens}",
        "SLEAP_SKIP_QT_FIX": "1",
    }


def end_trainers(folder: Path) -> None:
    """End what trains below `folder`: a job outlives its worker, on purpose."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if any(word.startswith(f"{folder}{os.sep}lab{os.sep}") for word in words):
            with contextlib.suppress(psutil.Error):
                process.kill()


async def take_pictures(output: Path, scenario: str, *, is_dark: bool) -> int:
    """Run SLEAP before a lab of two workers; return its exit code."""
    with tempfile.TemporaryDirectory(prefix="pictures-") as name:
        folder = Path(name)
        project = make_project(folder / "home" / "ada" / "fish")
        if scenario == "models":
            make_models(project.parent / "models")
        async with local_lab(folder / "lab", worker_name="workstation-1") as lab:
            second = await second_worker(lab.session, folder / "second")
            try:
                user = await asyncio.create_subprocess_exec(
                    *(sys.executable, str(HERE / "pictures.py"), scenario),
                    f"session={lab.session.encode()}",
                    f"output={output}",
                    f"is_dark={is_dark:d}",
                    *("--", str(project)),
                    env=environment(folder),
                    cwd=project.parent,
                )
                async with asyncio.timeout(TIMEOUT_S):
                    return await user.wait()
            finally:
                second.terminate()
                await second.wait()
                end_trainers(folder)


def main() -> None:
    """Be the program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="where to")
    parser.add_argument(
        "--only", choices=SCENARIOS, help="of these windows; all if not given"
    )
    parser.add_argument("--dark", action="store_true", help="on a dark desktop")
    options = parser.parse_args()
    output = options.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    for scenario in [options.only] if options.only else SCENARIOS:
        code = asyncio.run(take_pictures(output, scenario, is_dark=options.dark))
        if code:
            sys.exit(code)


if __name__ == "__main__":
    main()
