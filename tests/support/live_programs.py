"""A worker with models for live frames, and the command that streams to it."""

import sys

from support.programs import SUPPORT, Program, Programs, Worker

LIVE_WORKER = SUPPORT / "live_worker.py"


def start_worker(
    programs: Programs,
    behaviour: str = "quick",
    model: str = "fly=/",
    *options: object,
) -> Worker:
    """Start a worker whose model `fly` is predicted with as `live_worker` says."""
    path = ":".join([str(SUPPORT.parent), *sys.path])
    words = (str(LIVE_WORKER), model, behaviour)
    return programs._worker(words, options, {"PYTHONPATH": path}).wait_ready()


def live(programs: Programs, worker: Worker, video: object, *words: object) -> Program:
    """Stream a video to the model `fly`."""
    where = ("--video", video, "--model", "fly", "--session", worker.session)
    return programs.client("live", *where, *words)
