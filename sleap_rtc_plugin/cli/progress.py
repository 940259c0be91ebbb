"""What a training looks like in a terminal: bars, epochs, losses; or JSON lines.

Draws on stderr with rich, plain lines where that is no terminal. Knows nothing of how
the work is done; told by `session.submission`.
"""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.filesize import decimal
from rich.progress import TaskID
from rich.text import Text

from sleap_rtc_plugin.cli.bars import MIN_JSON_INTERVAL_S, MIN_RATE_WINDOW_S, Bars
from sleap_rtc_plugin.cli.interruption import Interruption
from sleap_rtc_plugin.cli.loss_curve import LossCurve
from sleap_rtc_plugin.protocol.errors import RtcError, from_wire
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.job import JobState
from sleap_rtc_plugin.protocol.job_mirror import JobMirror, JobNews, StepMirror
from sleap_rtc_plugin.protocol.messages import (
    JobEvent,
    ModelPublished,
    ProgressReport,
    Step,
    TrainLog,
    TrainStep,
)
from sleap_rtc_plugin.protocol.queue_messages import JobQueue
from sleap_rtc_plugin.session.job_course import JobCourse
from sleap_rtc_plugin.session.queue_words import place_words
from sleap_rtc_plugin.session.report import Report
from sleap_rtc_plugin.session.worker_files import FoundFiles
from sleap_rtc_plugin.session.worker_info import WorkerInfo, way_words
from sleap_rtc_plugin.transport.transfer_pump import TransferTotals

__all__ = ["TerminalObserver"]

_WORKER_SAYS = "[worker]"
LIVE_CURVE_CHARS = 20
_STATE_WORDS = {
    JobState.STAGING: "Checking the package",
    JobState.QUEUED: "Waiting in the worker's queue",
    JobState.STARTING: "Starting sleap-nn",
    JobState.STOPPING: "Stopping after this batch, keeping the model",
    JobState.CANCELLING: "Cancelling",
    JobState.COLLECTING: "Gathering the results",
}
_PURPOSE_WORDS = {
    "package": "Sending the package",
    "results": "Bringing the results home",
}
_MOVED_WORDS = {"package": "Sent", "results": "Fetched"}


class TerminalObserver(Bars):
    """Shows a submission on stderr, and on stdout as JSON lines where asked.

    Use as a context manager around the submission; `finish` prints what came of it.
    """

    def __init__(
        self,
        *,
        as_json: bool,
        is_numbered: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Show progress; `as_json` prints a line per event on stdout as well.

        With `is_numbered` these lines carry the events' numbers and times.
        """
        self._as_json = as_json
        self._is_numbered = is_numbered
        self._number: dict[str, Any] = {}
        self._curves: dict[int, tuple[str, LossCurve]] = {}
        self._clock = clock
        self.interruption = Interruption(self)
        self._console = Console(stderr=True, highlight=False)
        self._is_live = self._console.is_terminal
        super().__init__(self._console, is_shown=self._is_live, has_spinner=True)
        self._tasks: dict[str, TaskID] = {}
        self._began: dict[str, float] = {}
        self._json_at: dict[str, float] = {}
        self._finals: set[str] = set()
        self._worker = "the worker"
        self._place = ""

    def say(self, text: str) -> None:
        """Print a line on stderr."""
        self._console.print(Text(text), soft_wrap=True)

    def pause(self) -> None:
        """Stop drawing, for a question."""
        self._progress.stop()

    def go_on(self) -> None:
        """Draw again."""
        self._progress.start()

    # -- what the submission tells ---------------------------------------------------

    def reading(self, done_bytes: int, total_bytes: int) -> None:
        """The package is being read."""
        detail = f"{decimal(done_bytes)} of {decimal(total_bytes)}"
        self._draw("reading", "Reading the package", done_bytes, total_bytes, detail)

    def embedding(self, done: int, total: int) -> None:
        """Frames are put into the labels that are sent."""
        self._draw("embedding", "Embedding frames", done, total, f"{done} of {total}")

    def noted(self, notes: Sequence[str]) -> None:
        """The package is ready, and this is to be known of it."""
        for note in notes:
            self.say(note)

    def chosen(self, worker: WorkerInfo, job_id: str, *, resumed: bool) -> None:
        """A worker was chosen."""
        where = worker.gpu_model or f"no GPU, {worker.device}"
        self._worker = worker.name
        verb = "Going on with" if resumed else "Submitting"
        way = f", {words}" if (words := way_words(worker.link_kind)) else ""
        self.say(f"{verb} {job_id} on {worker.name} ({where}{way}).")
        self._emit(
            {
                "event": "worker",
                "worker": worker.name,
                "job_id": job_id,
                "link": worker.link_kind,
            }
        )

    def attached(self, worker: WorkerInfo, job_id: str, *, name: str) -> None:
        """A job that is there already is followed."""
        self.say(f"Following {job_id} ({name}) on {worker.name}; Ctrl-C leaves it.")
        self._emit({"event": "worker", "worker": worker.name, "job_id": job_id})

    def transferring(self, purpose: str, totals: TransferTotals) -> None:
        """Bytes are moving."""
        done = totals.reused_bytes + totals.moved_bytes
        is_verified = totals.verified_bytes >= totals.total_bytes
        began = self._began.setdefault(purpose, self._clock())
        elapsed = self._clock() - began
        rate = totals.moved_bytes / elapsed if elapsed > MIN_RATE_WINDOW_S else 0.0
        left_s = max(0, totals.total_bytes - done) / rate if rate else None
        detail = f"{decimal(done)} of {decimal(totals.total_bytes)}"
        if totals.reused_bytes:
            detail += f", {decimal(totals.reused_bytes)} were there already"
        if rate:
            detail += f", {decimal(int(rate))}/s"
        if done < totals.total_bytes:
            detail += f", {left_s:.0f} s left" if left_s is not None else ""
        else:
            detail += ", verified" if is_verified else ", being verified"
        self._draw(purpose, _PURPOSE_WORDS[purpose], done, totals.total_bytes, detail)
        if is_verified:
            # The last file's checks report the same totals again and again.
            if purpose in self._finals:
                return
            self._finals.add(purpose)
            self._say_moved(purpose, totals, elapsed)
        self._emit(
            {
                "event": "transfer",
                "purpose": purpose,
                "bytes_total": totals.total_bytes,
                "bytes_sent": totals.moved_bytes,
                "bytes_reused": totals.reused_bytes,
                "bytes_verified": totals.verified_bytes,
                "bytes_per_s": round(rate),
                "seconds_left": None if left_s is None else round(left_s, 1),
            },
            thin=None if is_verified else "transfer",
        )

    def found_on_mounts(self, worker: str, found: FoundFiles) -> None:
        """The worker was asked which of the package's files it has already."""
        for one in found.files:
            place = f"{one.place.mount}/{one.place.path}"
            self.say(
                f"{worker} has {one.file.member} already, at {place} "
                f"({decimal(one.file.size_bytes)})."
            )
        if not found.is_complete:
            self.say(f"{worker} could not look through all of its mounts in time.")
        if found.files or not found.is_complete:
            self._emit(
                {
                    "event": "mounts",
                    "files": [
                        {
                            "path": one.file.member,
                            "mount": one.place.mount,
                            "place": one.place.path,
                            "bytes": one.file.size_bytes,
                        }
                        for one in found.files
                    ],
                    "is_complete": found.is_complete,
                }
            )

    def _say_moved(
        self, purpose: str, totals: TransferTotals, elapsed_s: float
    ) -> None:
        """Leave a line of what a transfer came to."""
        words = f"{_MOVED_WORDS[purpose]} {decimal(totals.moved_bytes)}"
        if totals.reused_bytes:
            words += (
                f" of {decimal(totals.total_bytes)}; "
                f"{decimal(totals.reused_bytes)} were there already"
            )
        self.say(f"{words}; all of it verified after {elapsed_s:.1f} s.")

    def event(self, event: JobNews, mirror: JobMirror) -> None:
        """Something happened to the job."""
        if isinstance(event, JobQueue):
            self._show_place(event)
            return
        self._number = {"seq": event.seq, "at": event.at} if self._is_numbered else {}
        match event:
            case JobEvent():
                self._show_state(event, mirror)
            case ProgressReport():
                self._show_progress(event, mirror)
            case ModelPublished():
                self._show_published(event)
            case TrainLog():
                lines = [clean_text(line, 500) for line in event.lines]
                self._emit({"event": "log", "step": event.step, "lines": lines})
                for line in lines:
                    # What the worker did is news, what sleap-nn prints is its log.
                    if line.startswith(_WORKER_SAYS):
                        self.say(line.removeprefix(_WORKER_SAYS).strip())
        self._number = {}

    def waiting_for(self, worker: str, job_id: str) -> None:
        """The worker that has the job is away, and waited for."""
        self.say(f"{job_id} is on {worker}, which is away; waiting for it.")
        self._emit({"event": "waiting", "worker": worker, "job_id": job_id})

    def left_behind(self, worker: str, job_id: str) -> None:
        """The user chose another worker; the job there goes on."""
        self.say(
            f"{job_id} stays on {worker} and goes on there; this is another job. "
            f"`sleap-remote jobs cancel {job_id}` ends that one."
        )

    def link_lost(self, error: RtcError) -> None:
        """The worker cannot be reached; it is tried again."""
        self.say(
            "The connection to the worker is lost; connecting again. A job that has "
            "begun goes on there meanwhile."
        )
        self._emit({"event": "link", "state": "lost", "reason": str(error)})

    def link_back(self) -> None:
        """The worker is there again."""
        self.say("Connected again; nothing was missed.")
        self._emit({"event": "link", "state": "back"})

    def interruptions(self, job: JobCourse) -> AbstractContextManager[None]:
        """Let Ctrl-C reach this job."""
        return self.interruption.of_job(job)

    # -- drawing ---------------------------------------------------------------------

    def _show_state(self, event: JobEvent, mirror: JobMirror) -> None:
        line: dict[str, Any] = {"event": "state", "state": mirror.state.value}
        if mirror.step is not None:
            line["step"] = mirror.step
        if mirror.error is not None:
            line["error"] = {"code": mirror.error.code, "message": str(mirror.error)}
        self._emit(line)
        if mirror.state is not JobState.QUEUED and _QUEUE in self._tasks:
            self._progress.remove_task(self._tasks.pop(_QUEUE))
        words = _STATE_WORDS.get(mirror.state)
        if words is None:
            return
        if mirror.state is JobState.STARTING and mirror.step is not None:
            words += f": {_name(mirror.spec.steps[mirror.step])}"
        self.say(f"{words}.")

    def _show_place(self, place: JobQueue) -> None:
        words = place_words(self._worker, place.position, place.starts_in_s)
        words = f"{words[:1].upper()}{words[1:]}"
        if words == self._place:
            return
        self._place = words
        line: dict[str, Any] = {"event": "queue", "position": place.position}
        line["waiting"] = place.waiting
        if place.starts_in_s is not None:
            line["starts_in_s"] = round(place.starts_in_s)
        self._emit(line)
        if self._is_live:
            self._draw(_QUEUE, words, None, None, "")
        else:
            self.say(f"{words}.")

    def _show_progress(self, event: ProgressReport, mirror: JobMirror) -> None:
        step, seen = mirror.spec.steps[event.step], mirror.steps[event.step]
        line = {"event": "progress", "step": event.step, "kind": event.kind}
        for name in ("epoch", "batch", "done", "total", "rate"):
            value = getattr(event, name)
            if value is not None:
                line[name] = value
        if event.losses:
            line["losses"] = event.losses
        if (left_s := _seconds_left(seen)) is not None:
            line["seconds_left"] = round(left_s, 1)
        self._emit(line, thin=event.kind if event.kind in _FREQUENT else None)
        key = f"step-{event.step}"
        if event.kind == "predict":
            self._draw(key, _name(step), seen.done, seen.total or 1, _frames(seen))
            is_done = 0 < seen.total <= seen.done
            if is_done and not self._is_live and key not in self._finals:
                self._finals.add(key)
                self.say(f"{_name(step)}: {_frames(seen)}")
            return
        _, curve = self._curves.setdefault(event.step, (_name(step), LossCurve()))
        if event.kind == "epoch_end":
            curve.add(event.epoch, event.losses)
        drawn = f"  {curve.draw(LIVE_CURVE_CHARS)}" if self._is_live else ""
        self._draw(key, _name(step), None, None, _losses(seen) + drawn)
        if event.kind == "epoch_end" and not self._is_live:
            self.say(f"{_name(step)}: {_losses(seen)}")
        if event.kind == "train_end":
            self._draw(key, _name(step), 1, 1, _losses(seen))

    def _show_published(self, event: ModelPublished) -> None:
        """Say as what the trained models are in the registry, or why they are not."""
        error = from_wire(event.error) if event.error is not None else None
        line: dict[str, Any] = {"event": "published"}
        line |= {"model": event.model, "alias": event.alias}
        if error is not None:
            line["error"] = {"code": error.code, "message": str(error)}
        self._emit(line)
        if event.model is not None:
            name = f"{event.alias} ({event.model})" if event.alias else event.model
            self.say(f"Published as {name}.")
        if error is not None:
            what = "The alias was not given" if event.model else "Not published"
            self.say(f"{what}: {error}")

    def say_curves(self) -> None:
        """Leave a line of how the loss of each training went."""
        for name, curve in self._curves.values():
            if summary := curve.summary():
                self.say(f"{name}: {summary}")

    def _draw(
        self,
        key: str,
        description: str,
        done: int | None,
        total: int | None,
        detail: str,
    ) -> None:
        task = self._tasks.get(key)
        if task is None:
            task = self._progress.add_task(description, total=total, detail=detail)
            self._tasks[key] = task
        self._progress.update(task, completed=done, total=total, detail=detail)

    # -- JSON lines --------------------------------------------------------------------

    def _emit(self, line: dict[str, Any], *, thin: str | None = None) -> None:
        if not self._as_json:
            return
        if thin is not None:
            if self._clock() - self._json_at.get(thin, -1e9) < MIN_JSON_INTERVAL_S:
                return
            self._json_at[thin] = self._clock()
        click.echo(json.dumps(line | self._number))

    def finish(self, report: Report) -> None:
        """Print what came of the submission."""
        if self._as_json:
            click.echo(msgspec.json.encode(report).decode())
            return
        for path in (*report.models, *report.predictions):
            click.echo(path)
        if report.state == JobState.SUCCEEDED.value and report.error is None:
            seconds = report.seconds
            files = f"{_count(len(report.predictions), 'file')} of predictions"
            came = _count(len(report.models), "model")
            if report.predictions:
                came = f"{came} and {files}" if report.models else files
            self.say(
                f"Done: {came} came home; running took {seconds.run:.0f} s, "
                f"sending {seconds.transfer:.1f} s."
            )


_QUEUE = "queue"
_FREQUENT = ("batch_end", "predict")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _name(step: Step) -> str:
    if isinstance(step, TrainStep):
        return f"Training {step.head.replace('_', ' ')}"
    return f"Predicting {clean_text(step.data)}"


def _seconds_left(seen: StepMirror) -> float | None:
    """Return how long a prediction will take at its rate, None where that is open."""
    if seen.rate <= 0 or seen.done >= seen.total:
        return None
    return (seen.total - seen.done) / seen.rate


def _frames(seen: StepMirror) -> str:
    words = f"{seen.done} of {seen.total} frames, {seen.rate:.1f} frames/s"
    left_s = _seconds_left(seen)
    return words if left_s is None else f"{words}, {left_s:.0f} s left"


def _losses(seen: StepMirror) -> str:
    parts = [] if seen.epoch is None else [f"epoch {seen.epoch + 1}"]
    if seen.batch is not None:
        parts.append(f"batch {seen.batch + 1}")
    for name, words in (
        ("loss", "batch loss"),
        ("train/loss", "train loss"),
        ("val/loss", "val loss"),
    ):
        if name in seen.losses:
            parts.append(f"{words} {seen.losses[name]:.3g}")
    return ", ".join(parts)
