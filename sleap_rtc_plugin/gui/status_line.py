"""What the dialog says of a snapshot: its one sentence, its progress, what is missing.

Pure, and apart from the widgets so that each state's words can be read and tested in
one place. Called by the dialog and its pages; all of it is plain text.
"""

from dataclasses import dataclass
from typing import Final

from sleap_rtc_plugin.companion.messages import PackageProgress, TransferProgress
from sleap_rtc_plugin.gui.messages import CONFIGURE_FIRST, takes_jobs
from sleap_rtc_plugin.gui.quantities import format_duration, format_rate, format_size
from sleap_rtc_plugin.gui.snapshot import Lab, Snapshot, Submission
from sleap_rtc_plugin.protocol.job import JobState
from sleap_rtc_plugin.session.queue_words import ordinal, start_words

__all__ = ["Progress", "StatusLine", "progress_of", "status_of", "workers_hint"]

PROGRESS_STEPS: Final = 1000
_PACKING: Final = {
    "loading": "Reading the project",
    "embedding": "Collecting the frames",
    "reading": "Checking the package",
}


@dataclass(frozen=True)
class StatusLine:
    """The sentence at the foot of the dialog; `is_problem` marks it as one."""

    text: str
    is_problem: bool = False


@dataclass(frozen=True)
class Progress:
    """What the progress bar shows.

    Attributes:
        value: of `PROGRESS_STEPS`, or None while it cannot be told.
        text: what is done, in short.
        details: bytes, rate and time left.
    """

    value: int | None
    text: str
    details: str = ""


def progress_of(submission: Submission | None) -> Progress | None:
    """Say how far a package is on its way; None where none is."""
    if submission is None or not submission.is_sending:
        return None
    if submission.is_cancelling:
        return Progress(None, "Cancelling…")
    if submission.transfer is not None:
        return _sending(submission.transfer)
    if submission.package is not None:
        return _packing(submission.package)
    return Progress(None, "Preparing the package…")


def _packing(event: PackageProgress) -> Progress:
    text = f"{_PACKING[event.phase]}…"
    if event.total <= 0:
        return Progress(None, text)
    if event.phase == "reading":
        details = f"{format_size(event.done)} of {format_size(event.total)}"
    else:
        details = f"{event.done:,} of {event.total:,}"
    return Progress(_share(event.done, event.total), text, details)


def _sending(event: TransferProgress) -> Progress:
    if event.total > 0 and event.done >= event.total:
        return Progress(PROGRESS_STEPS, "The worker checks the package…")
    parts = [f"{format_size(event.done)} of {format_size(event.total)}"]
    if event.rate > 0:
        parts.append(format_rate(event.rate))
    if event.seconds_left is not None:
        parts.append(f"{format_duration(event.seconds_left)} left")
    if event.reused:
        parts.append(f"{format_size(event.reused)} were there already")
    return Progress(_share(event.done, event.total), "Sending…", ", ".join(parts))


def _share(done: int, total: int) -> int | None:
    if total <= 0:
        return None
    return min(PROGRESS_STEPS, max(0, done * PROGRESS_STEPS // total))


def workers_hint(snapshot: Snapshot) -> str:
    """Say why the table of workers is empty and what to do; empty where it is not."""
    if snapshot.workers:
        return ""
    if snapshot.lab is Lab.OUTSIDE:
        return "Connect to a lab to see its workers."
    if snapshot.lab is Lab.ENTERING or snapshot.workers is None:
        return "Looking for workers…"
    return (
        "No worker is online in this lab. On the machine with the GPU, start one with\n"
        "sleap-remote worker --session …"
    )


def status_of(snapshot: Snapshot) -> StatusLine:
    """Say the one thing that the user needs to know or do now."""
    if snapshot.dead:
        return StatusLine(snapshot.dead, is_problem=True)
    if snapshot.problem:
        return StatusLine(snapshot.problem, is_problem=True)
    submission = snapshot.submission
    if submission is not None and submission.problem:
        return StatusLine(submission.problem, is_problem=True)
    if snapshot.lab is Lab.CUT_OFF:
        reason = f" {snapshot.note}" if snapshot.note else ""
        return StatusLine(
            f"The connection to the lab was lost; trying again.{reason}",
            is_problem=True,
        )
    if submission is not None and not snapshot.note:
        return StatusLine(_of_submission(submission))
    words = _of_choices(snapshot)
    return StatusLine(f"{snapshot.note} {words}".strip())


def _of_submission(sent: Submission) -> str:
    if sent.is_cut_off:
        return (
            f"The connection to {sent.worker} was lost; trying again. Nothing that "
            "arrived there is sent twice."
        )
    if sent.is_cancelling:
        return f"The job on {sent.worker} is being cancelled."
    if sent.is_sending:
        return (
            f"{_of_videos(sent)}The package is on its way to {sent.worker}. You can "
            "close this window; sending goes on as long as SLEAP is open."
        )
    if sent.was_cancelled:
        return "The job was cancelled; nothing of it was kept."
    if sent.are_results_home:
        return f"The results of {sent.worker} are home. {sent.published}".strip()
    state = sent.job.state if sent.job is not None else ""
    place = _place(sent)
    match state:
        case JobState.QUEUED if sent.trains:
            return (
                f"The job {place}; the monitor opens by "
                "itself when the training begins. You can close this window."
            )
        case JobState.QUEUED:
            return f"The job {place}. You can close this window."
        case JobState.SUCCEEDED | JobState.COLLECTING:
            return f"{sent.worker} has finished; the results come home by themselves."
        case JobState.STOPPING:
            return f"{sent.worker} stops the training and keeps the model."
        case JobState.CANCELLING:
            return f"{sent.worker} is cancelling the job."
        case JobState.FAILED | JobState.LOST | JobState.REJECTED:
            return f"The job on {sent.worker} failed. Remote Jobs says more."
    if sent.trains:
        return (
            f"{sent.worker} is training; the monitor opens by itself. You can close "
            "this window."
        )
    return (
        f"{sent.worker} is predicting; the predictions come home by themselves. You "
        "can close this window."
    )


def _place(sent: Submission) -> str:
    """Say where a job waits, after "The job"."""
    job = sent.job
    if job is None or job.position is None:
        return f"waits in the queue of {sent.worker}"
    words = f"is {ordinal(job.position)} in the queue of {sent.worker}"
    start = start_words(job.starts_in_s)
    return f"{words} and {start}" if start else words


def _of_videos(sent: Submission) -> str:
    """Say which videos need not be sent, in a sentence before others, or nothing."""
    seen = sent.videos
    if seen is None or (seen.found == 0 and seen.is_complete):
        return ""
    if seen.found == 0:
        return f"{sent.worker} could not look everywhere for the videos in time. "
    verb = "is" if seen.found == 1 else "are"
    videos = "video" if seen.total == 1 else "videos"
    words = f"{seen.found} of {seen.total} {videos} {verb} on {sent.worker} already"
    rest = seen.total - seen.found
    return f"{words}; images of {rest} are sent. " if rest > 0 else f"{words}. "


def _of_choices(snapshot: Snapshot) -> str:
    """Say what is still to be chosen before a run can be sent."""
    match snapshot.lab:
        case Lab.OUTSIDE:
            return "Connect to a lab first: the place where your workers meet."
        case Lab.ENTERING:
            return "Connecting…"
    if not snapshot.workers:
        return "Waiting for a worker."
    worker = snapshot.worker
    if worker is None and snapshot.worker_id is not None:
        return (
            f"{snapshot.worker_name} is not online now. Wait for it or choose another."
        )
    if worker is None:
        return "Choose a worker."
    if not takes_jobs(worker):
        if worker.refusal:
            return worker.refusal
        return f"{worker.name} takes no jobs now. Choose another worker, or wait."
    if snapshot.run is None:
        return CONFIGURE_FIRST
    if snapshot.choice_problem:
        return snapshot.choice_problem
    return f"Ready to be sent to {worker.name}."
