"""Lets sleap-nn itself say whether it accepts a configuration, its weights and data.

The program `python -m sleap_rtc_worker.config_check [--weights FILE]... CONFIG...`
imports sleap-nn and torch and prints one line of JSON; the worker runs it as a child
with a timeout, since those imports are heavy and what they read is a stranger's.
"""

import argparse
import asyncio
import contextlib
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from sleap_rtc_plugin.protocol.errors import (
    ConfigRefused,
    LabelsUnreadable,
    RtcError,
    TrainerMissing,
    VideoUnreadable,
)
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.mounts import (
    VIDEO_HEAD_BYTES,
    VIDEO_SUFFIXES,
    is_video_container,
)
from sleap_rtc_worker.limits import CONFIG_CHECK_TIMEOUT_S, MAX_CHECK_OUTPUT_BYTES
from sleap_rtc_worker.trainer_environment import trainer_environment

__all__ = ["check_configs", "main", "read_verdict"]

_MODULE: Final = "sleap_rtc_worker.config_check"
_MISSING: Final = "sleap-nn is not installed"
_REASON_CHARS: Final = 400
# What sleap-io or FFmpeg would take for a protocol; one letter is a Windows drive.
_ADDRESS: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:|subfile,")


async def check_configs(
    configs: Mapping[str, Path],
    *,
    weights: Mapping[str, Path] | None = None,
    labels: Mapping[str, Path] | None = None,
    mounts: Sequence[Path] = (),
    python: str = sys.executable,
    timeout_s: float = CONFIG_CHECK_TIMEOUT_S,
    worker: str = "",
) -> None:
    """Have a child process verify guarded configurations and brought weights.

    Args:
        configs: configurations, already guarded by `training_config`, by the names
            that the client knows them by.
        weights: checkpoints that sleap-nn would unpickle, the same.
        labels: label files and videos that sleap-nn would read, the same.
        mounts: folders in which the labels' videos may lie.
        python: the interpreter that has sleap-nn.
        timeout_s: for all of them together.
        worker: this worker's name, for the error's sentence.

    Raises:
        ConfigRefused: sleap-nn refuses one, or the check took too long.
        TrainerMissing: there is no sleap-nn.
    """
    files = {**configs, **(weights or {}), **(labels or {})}
    if not files:
        return
    argv = [python, "-P", "-m", _MODULE]
    for path in (weights or {}).values():
        argv += ["--weights", str(path)]
    for path in (labels or {}).values():
        argv += ["--labels", str(path)]
    for path in mounts:
        argv += ["--mount", str(path)]
    argv += ["--", *(str(path) for path in configs.values())]
    environment = trainer_environment(
        os.environ, {}, allow_wandb=False, allow_downloads=False
    )
    try:
        child = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=environment,
        )
    except OSError:
        raise TrainerMissing(worker=worker or "on this machine") from None
    try:
        async with asyncio.timeout(timeout_s):
            output = await _read(child)
            await child.wait()
    except TimeoutError:
        raise ConfigRefused(
            next(iter(files)), f"checking it took longer than {timeout_s:.0f} s"
        ) from None
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()
    names = {str(path): name for name, path in files.items()}
    error = read_verdict(output, names, worker)
    if error is not None:
        raise error


async def _read(child: asyncio.subprocess.Process) -> bytes:
    if child.stdout is None:
        return b""
    output = b""
    while block := await child.stdout.read(MAX_CHECK_OUTPUT_BYTES):
        output = (output + block)[-MAX_CHECK_OUTPUT_BYTES:]
    return output


def read_verdict(
    output: bytes, names: Mapping[str, str], worker: str = ""
) -> RtcError | None:
    """Read the child's last line; anything but a clear yes is an error.

    Args:
        output: what the child printed.
        names: the client's names of the files by the paths that were checked.
        worker: this worker's name.
    """
    lines = output.strip().splitlines()
    try:
        verdict: Any = json.loads(lines[-1]) if lines else None
    except ValueError:
        verdict = None
    if not isinstance(verdict, dict):
        return ConfigRefused("package", "sleap-nn crashed while checking it")
    if verdict.get("ok") is True:
        return None
    if verdict.get("missing") is True:
        return TrainerMissing(worker=worker or "on this machine")
    name = clean_text(names.get(str(verdict.get("config")), "package"))
    reason = clean_text(str(verdict.get("error") or "no reason"), _REASON_CHARS)
    if verdict.get("labels") is True:
        if Path(str(verdict.get("config"))).suffix.lower() in VIDEO_SUFFIXES:
            return VideoUnreadable(video=name, reason=reason)
        return LabelsUnreadable(path=name, reason=reason)
    return ConfigRefused(config=name, reason=reason)


# -- the child ---------------------------------------------------------------------


def _verify_config(path: Path) -> None:
    from omegaconf import OmegaConf
    from sleap_nn.config.training_job_config import verify_training_cfg

    verify_training_cfg(OmegaConf.load(path))


def _verify_weights(path: Path) -> None:
    """Load weights as weights only.

    sleap-nn unpickles them, which runs whatever code they name; what passes here
    names nothing but tensors and plain values.
    """
    import torch

    if path.suffix.lower() == ".h5":
        return
    torch.load(path, map_location="cpu", weights_only=True)


def _verify_labels(path: Path, mounts: Sequence[Path] = ()) -> None:
    """Refuse data that would make sleap-nn read anything but itself and mounts.

    Every video must lie in the file or on a mount, whether or not a frame names it,
    since inference may ask for any of them. The videos that the images came from are
    opened too, though not read: the client's files are not here, but an address would
    be called.
    """
    import h5py
    import sleap_io

    if path.suffix.lower() in VIDEO_SUFFIXES:
        _verify_sent_video(path)
        return
    if path.suffix != ".slp":
        raise ValueError("its name does not end in .slp or as a video's does")
    with h5py.File(path, "r") as file:
        _refuse_foreign_data(file)
    for video in sleap_io.load_slp(str(path), open_videos=False).videos:
        if not (isinstance(video.filename, str) and Path(video.filename) == path):
            _verify_video(video.filename, mounts)
        source = video.source_video
        while source is not None:
            if any(_ADDRESS.match(name) for name in _names_of(source.filename)):
                raise ValueError("one of its videos has a network address")
            source = source.source_video


def _verify_video(name: str | list[str], mounts: Sequence[Path]) -> None:
    """Refuse a video that is not one whole file on a mount, or does not open."""
    import sleap_io

    shown = clean_text(Path(_names_of(name)[0]).name) if _names_of(name) else "of none"
    path = Path(name) if isinstance(name, str) and not _ADDRESS.match(name) else None
    if path is None or not any(_is_inside(path, mount) for mount in mounts):
        raise ValueError(
            f"its video {shown} lies outside the file and outside the worker's mounts"
        )
    if not path.is_file():
        raise ValueError(f"its video {shown} is not on the worker's mount any more")
    with path.open("rb") as file:
        is_container = is_video_container(file.read(VIDEO_HEAD_BYTES))
    if path.suffix.lower() not in VIDEO_SUFFIXES or not is_container:
        raise ValueError(f"its video {shown} is of a kind that has to be sent")
    try:
        sleap_io.Video.from_filename(str(path), keep_open=False)[0]
    except Exception as error:
        raise ValueError(
            f"its video {shown} cannot be opened on the worker ({error})"
        ) from error


def _verify_sent_video(path: Path) -> None:
    """Refuse a video of the package that is not one whole file, or does not open."""
    import sleap_io

    with path.open("rb") as file:
        if not is_video_container(file.read(VIDEO_HEAD_BYTES)):
            raise ValueError("it is no video, whatever its name says")
    try:
        sleap_io.Video.from_filename(str(path), keep_open=False)[0]
    except Exception as error:
        raise ValueError(f"it cannot be opened on the worker ({error})") from error


def _is_inside(path: Path, mount: Path) -> bool:
    """Tell whether a path, all links followed, lies on a mount."""
    try:
        return path.is_absolute() and path.resolve().is_relative_to(mount.resolve())
    except (OSError, RuntimeError, ValueError):
        # A link to itself, before Python 3.13, or a name that no file has.
        return False


def _names_of(filename: str | list[str]) -> list[str]:
    return [filename] if isinstance(filename, str) else filename


def _refuse_foreign_data(file: Any) -> None:
    """Look at every link and data set; HDF5 can point to other files in three ways."""
    import h5py

    def fault_of_link(name: str, link: Any) -> str | None:
        is_external = isinstance(link, h5py.ExternalLink)
        return "it links to another file" if is_external else None

    def fault_of_member(name: str, member: Any) -> str | None:
        is_foreign = isinstance(member, h5py.Dataset) and (
            member.is_virtual or member.external is not None
        )
        return "it takes data from another file" if is_foreign else None

    # Returned, not raised: HDF5 calls these from C.
    fault = file.visititems_links(fault_of_link) or file.visititems(fault_of_member)
    if fault:
        raise ValueError(fault)


def main(argv: Sequence[str] | None = None) -> int:
    """Check the files on the command line and print the verdict."""
    parser = argparse.ArgumentParser(prog=_MODULE)
    parser.add_argument("--weights", type=Path, action="append", default=[])
    parser.add_argument("--labels", type=Path, action="append", default=[])
    parser.add_argument("--mount", type=Path, action="append", default=[])
    parser.add_argument("configs", type=Path, nargs="*")
    words = parser.parse_args(argv)
    verdict: dict[str, Any] = {"ok": True, "error": None}
    # What sleap-nn prints must not be taken for the verdict.
    real_stdout, sys.stdout = sys.stdout, sys.stderr
    try:

        def verify_labels(path: Path) -> None:
            _verify_labels(path, words.mount)

        for check, paths in (
            (_verify_config, words.configs),
            (_verify_weights, words.weights),
            (verify_labels, words.labels),
        ):
            for path in paths:
                try:
                    check(path)
                except ImportError:
                    verdict = {"ok": False, "error": _MISSING, "missing": True}
                except Exception as error:
                    reason = str(error).strip().partition("\n")[0]
                    verdict = {
                        "ok": False,
                        "config": str(path),
                        "labels": check is verify_labels,
                        "error": reason[:_REASON_CHARS] or type(error).__name__,
                    }
                if not verdict["ok"]:
                    return 1
        return 0
    finally:
        sys.stdout = real_stdout
        sys.stdout.write(json.dumps(verdict) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
