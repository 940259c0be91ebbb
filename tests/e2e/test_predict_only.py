"""Images while the real sleap-nn trains, then an inference with the models it made."""

import asyncio
import shutil
from pathlib import Path

import pytest
from support.attackers import member
from support.packages import (
    CONFIGS,
    LABELS,
    Members,
    edit_config,
    extract,
    rewrite,
    shorten,
)
from support.programs import Programs, Worker

from sleap_rtc_plugin.protocol.errors import ConfigRefused
from sleap_rtc_plugin.protocol.ids import new_job_id
from sleap_rtc_plugin.protocol.images import image_fault
from sleap_rtc_plugin.protocol.job import JobState
from sleap_rtc_plugin.protocol.messages import JobSpec, PredictStep, ProgressReport
from sleap_rtc_plugin.session.job_images import fetch_images
from sleap_rtc_plugin.session.remote_job import RemoteJob, describe_job, list_jobs
from sleap_rtc_plugin.session.worker_link import WorkerLink
from sleap_rtc_plugin.transport.file_source import FileSource

WAIT_S = 420.0
OUTPUT = "again.predictions.slp"

pytestmark = [pytest.mark.needs_sleap_nn, pytest.mark.timeout(600)]


def draws_and_keeps(members: Members) -> None:
    """As short as can be, with the images that SLEAP's window shows."""
    shorten(members, epochs=2, steps=6)
    for name in CONFIGS:
        values = {
            "trainer_config.visualize_preds_during_training": True,
            "trainer_config.keep_viz": True,
        }
        edit_config(members, name, values)


async def follow_images(link: WorkerLink, folder: Path) -> list[Path]:
    """Attach to the one job there is and fetch after every epoch of its first step."""
    (row,) = await list_jobs(link)
    told, spec = await describe_job(link, row.job_id)
    assert told.steps == len(spec.steps) == 3
    job = RemoteJob(link, row.job_id, spec)
    epochs: asyncio.Queue[None] = asyncio.Queue()
    await job.attach(
        lambda event, mirror: (
            epochs.put_nowait(None)
            if isinstance(event, ProgressReport) and event.kind == "epoch_end"
            else None
        )
    )
    images: list[Path] = []
    for _ in range(2):
        await epochs.get()
        images += await fetch_images(job, 0, folder)
    await job.wait_until(lambda mirror: mirror.has_ended)
    images += await fetch_images(job, 0, folder)
    assert job.mirror.state is JobState.SUCCEEDED, job.mirror.error
    return images


async def predict(link: WorkerLink, source: FileSource, step: PredictStep) -> RemoteJob:
    """Submit a job that trains nothing, and wait for its end."""
    job = RemoteJob(link, new_job_id(), JobSpec(name="predict", steps=[step]))
    await job.submit(source)
    await job.attach(lambda event, mirror: None)
    await job.send_package(source, lambda totals: None)
    await job.wait_until(lambda mirror: mirror.has_ended)
    return job


def package_of(labels: Path, models: list[Path], folder: Path) -> FileSource:
    """Lay a package out by hand: labels, and models as SLEAP keeps them."""
    extract(labels, folder)
    for path in folder.iterdir():
        if path.name != LABELS:
            path.unlink()
    for model in models:
        leave_out = shutil.ignore_patterns("viz", "labels_*", "metrics*")
        target = folder / "models" / model.name
        shutil.copytree(model, target, ignore=leave_out)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return FileSource.scan(folder, [p.relative_to(folder).as_posix() for p in files])


def frames(path: Path) -> list[int]:
    import sleap_io

    labels = sleap_io.load_slp(str(path), open_videos=False)
    return sorted(frame.frame_idx for frame in labels)


def known_frames(path: Path) -> tuple[list[int], list[int]]:
    """Return the frames that are suggested, and those that are labeled."""
    import sleap_io

    labels = sleap_io.load_slp(str(path), open_videos=False)
    suggestions = {suggestion.frame_idx for suggestion in labels.suggestions}
    return sorted(suggestions), sorted(frame.frame_idx for frame in labels)


async def test_images_and_an_inference_alone(
    programs: Programs, demo_package: Path, tmp_path: Path
) -> None:
    worker: Worker = programs.worker("--name", "gpu-box").wait_ready()
    package = rewrite(demo_package, tmp_path / "demo.zip", draws_and_keeps)
    home = tmp_path / "home"
    client = programs.train(package, worker.session, home)
    await asyncio.to_thread(
        client.wait_event, WAIT_S, event="progress", kind="train_begin"
    )
    async with asyncio.timeout(WAIT_S), member(worker.session) as link:
        images = await follow_images(link, tmp_path / "run")
        names = {path.name for path in images}
        assert names >= {
            f"{kind}.{epoch:04d}.png"
            for kind in ("train", "validation")
            for epoch in (0, 1)
        }
        assert all(image_fault(path.read_bytes()) is None for path in images)
        assert await asyncio.to_thread(client.wait, WAIT_S) == 0, client.story()

        models = [Path(model) for model in client.report["models"]]
        source = package_of(demo_package, models, tmp_path / "alone")
        suggestions, labeled = known_frames(tmp_path / "alone" / LABELS)
        some = labeled[2]
        for options, wanted in (
            ({"only_suggested_frames": "", "exclude_user_labeled": ""}, suggestions),
            (
                {"video_index": "0", "frames": f"0-{some}"},
                sorted(n for n in {*suggestions, *labeled} if n <= some),
            ),
        ):
            step = PredictStep(
                data=LABELS,
                models=[f"models/{model.name}" for model in models],
                output=OUTPUT,
                options={"peak_threshold": "0.0001", "max_instances": "2", **options},
            )
            job = await predict(link, source, step)
            assert job.mirror.state is JobState.SUCCEEDED, job.mirror.error
            output = tmp_path / next(iter(options))
            imported, _ = await job.fetch(output, lambda totals: None)
            assert imported.models == []
            assert imported.predictions == [output / OUTPUT]
            assert frames(output / OUTPUT) == wanted, options

        missing = PredictStep(data=LABELS, models=["models/other"], output=OUTPUT)
        job = await predict(link, source, missing)
        assert isinstance(job.mirror.error, ConfigRefused)
        rows = await list_jobs(link)
        assert [row.state for row in rows] == ["rejected", *["succeeded"] * 3]
        assert all(row.ended_at for row in rows)
        assert rows[1].started_at is not None
