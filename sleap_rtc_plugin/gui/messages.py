"""What SLEAP's side says to the user: errors, situations, jobs and quantities in words.

Pure text, without Qt and without SLEAP; the windows show it as plain text and the
presenter puts it into its snapshot. An error keeps its own sentence unless that one
speaks of the command line; here it names the button to press instead.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final

from sleap_rtc_plugin.companion.messages import JobRow, WorkerRow
from sleap_rtc_plugin.protocol import errors
from sleap_rtc_plugin.protocol.errors import RtcError
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.job import ENDED, JobState
from sleap_rtc_plugin.session.queue_words import ordinal, start_words
from sleap_rtc_plugin.session.run_request import (
    ModelToTrain,
    PublishedModel,
    RunRequest,
)

__all__ = [
    "CLOSING_QUESTION",
    "COMPANION_DEAD",
    "COMPANION_RESTARTED",
    "CONFIGURE_FIRST",
    "PROJECT_CHANGED",
    "PROJECT_EMPTY",
    "PROJECT_NEVER_SAVED",
    "PROJECT_UNLABELED",
    "ClosingChoices",
    "closing_question",
    "error_words",
    "job_words",
    "plan_words",
    "project_file_gone",
    "project_moved",
    "project_replaced",
    "published_words",
    "results_without_project",
    "takes_jobs",
    "worker_back",
    "worker_gone",
    "worker_state",
]

MAX_WORDS_CHARS: Final = 600

# -- errors ----------------------------------------------------------------------------

_ERRORS: Final[Mapping[type[RtcError], str]] = {
    errors.LocalProtocolError: (
        "This is a fault in the Remote Train plugin itself: {detail}. Please report it."
    ),
    errors.RemoteProtocolError: (
        "The other side broke the protocol ({detail}). Check that both sides run the "
        "same version of sleap-rtc-plugin."
    ),
    errors.RemoteFailure: (
        "The worker reports {kind} ({detail}). A newer version of sleap-rtc-plugin on "
        "this computer may know what that means."
    ),
    errors.SessionStringInvalid: (
        "The session string cannot be read ({reason}). Copy the whole line that the "
        "worker printed and paste it again."
    ),
    errors.SessionStringTooNew: (
        "The session string has version {version}, which this plugin does not know. "
        "Update sleap-rtc-plugin on this computer."
    ),
    errors.TokenRefused: (
        "The sign-in for {server} has expired or is not accepted ({reason}). Paste a "
        "new session string, or sign in again."
    ),
    errors.SignInRequired: (
        "This lab is for its members. Sign in at {server} first, or ask the lab's "
        "owner for an invitation."
    ),
    errors.SignInRefused: (
        "Signing in at {server} did not succeed ({reason}). Sign in again."
    ),
    errors.AccountsUnavailable: (
        "{server} cannot check accounts at the moment ({reason}). Try again in a "
        "minute."
    ),
    errors.NotSignedIn: (
        "Nobody is signed in at {server} on this computer. Sign in there first."
    ),
    errors.InvitationCodeInvalid: (
        "The invitation code cannot be read ({reason}). Copy the whole line that you "
        "were sent and paste it again."
    ),
    errors.RoomNotKnown: (
        "The lab {room} cannot be opened ({reason}). Choose one of those in the list."
    ),
    errors.SessionNotKept: (
        "The secret of the lab {room} is not on this computer. Ask somebody in the lab "
        "for a session string and paste it once."
    ),
    errors.InvitationRefused: (
        "{server} does not accept the invitation ({reason}). Ask the lab's owner for a "
        "new one."
    ),
    errors.PairingRefused: (
        "The pairing code is not accepted ({reason}). Let the worker show a new one."
    ),
    errors.PairingFailed: (
        "The two sides of the pairing do not agree ({reason}). The code is used up: "
        "let the worker show a new one."
    ),
    errors.RoomGone: (
        "This lab no longer exists on {server}. Start the worker again and paste the "
        "session string that it prints."
    ),
    errors.CompanionGone: (
        "The program that works beside SLEAP has ended ({reason}). Jobs on workers go "
        "on; try again to go on with them."
    ),
    errors.NoWorker: (
        "No worker is online in this lab. Start one on the machine with the GPU; it "
        "appears here by itself."
    ),
    errors.WorkerNotFound: "No worker named {worker} is online; there is {online}.",
    errors.WorkerVanished: (
        "The worker {worker} went away while {activity}. Press Run remotely to go on "
        "where it stopped."
    ),
    errors.WorkerAway: (
        "The worker {worker} could not be reached for {seconds} s. The job {job_id} "
        "stays with it and goes on there; it is followed again once the worker is back."
    ),
    errors.PortInUse: (
        "The address {address} is already in use. Close the program that holds it and "
        "try again."
    ),
    errors.FolderInUse: (
        "The folder {place} is in use by another worker. Stop that one and try again."
    ),
    errors.VersionMismatch: (
        "This computer speaks protocol {ours}, the worker {theirs}. Update "
        "sleap-rtc-plugin on the older one."
    ),
    errors.WorkerTooOld: (
        "The worker {worker} runs a version that cannot do this yet ({activity}). "
        "Choose another one, or have sleap-rtc-plugin updated there."
    ),
    errors.PeerNotFound: (
        "The worker {peer_id} is no longer online in this lab. Choose another one, or "
        "wait until it is back."
    ),
    errors.NotRegistered: "The connection to the lab was lost. Press Connect again.",
    errors.NotAPackage: (
        "{path} cannot be sent ({reason}). Save the project in SLEAP and press Run "
        "remotely again."
    ),
    errors.UnsafeMember: (
        "The package holds {member}, which {reason}. Nothing was sent."
    ),
    errors.PackageTooLarge: (
        "The package {path} {reason}, so it is not accepted. Nothing was sent."
    ),
    errors.LabelsUnreadable: (
        "The labels {path} do not load ({reason}). Save the project in SLEAP and press "
        "Run remotely again."
    ),
    errors.ConfigRefused: (
        "The training configuration {config} is not accepted: {reason}. Correct it "
        "with Configure."
    ),
    errors.OptionRefused: (
        "The inference option {option} is not accepted: {reason}. Change it with "
        "Configure."
    ),
    errors.DiskFull: (
        "There is not enough space on {place}: {needed} are needed and {free} are "
        "free. Make room and press Run remotely to go on where it stopped."
    ),
    errors.StorageFailed: (
        "{place} could not be read or written ({reason}). Check the disk and press "
        "Run remotely to go on where it stopped."
    ),
    errors.JournalDamaged: (
        "The worker's journal {place} is damaged ({reason}). Ask who runs the worker "
        "to put a backup in its place, or to move it away."
    ),
    errors.JournalTooNew: (
        "The worker's journal {place} was written by a newer version of this program "
        "(journal version {version}). Ask who runs the worker to update it."
    ),
    errors.DigestMismatch: (
        "{path} did not arrive as it was sent, also when sent again, and was "
        "discarded. Check the disks and the memory of both machines, then press Run "
        "remotely again."
    ),
    errors.UnsafeCheckpoint: (
        "The result {path} is refused ({reason}), since loading it could run a "
        "stranger's program on this computer. Train again on a worker that you trust."
    ),
    errors.SourceChanged: (
        "{path} changed while it was being sent. Wait until it is complete and press "
        "Run remotely to go on where it stopped."
    ),
    errors.TransferStalled: (
        "Nothing arrived for {seconds} s while {activity}. Press Run remotely to go on "
        "where it stopped."
    ),
    errors.TransferTakenOver: (
        "Another SLEAP or command sends the package of {job_id} now, and goes on where "
        "this one stopped."
    ),
    errors.StepFailed: (
        "{step} failed: {reason}. The job's log in Remote Jobs says more."
    ),
    errors.TrainerMissing: (
        "The worker {worker} has no sleap-nn, so it cannot train. Choose another one, "
        "or have sleap-nn installed there."
    ),
    errors.ResultsIncomplete: (
        "{step} ended without an error but did not write {missing}. The job's log in "
        "Remote Jobs says more."
    ),
    errors.JobLost: "The job {job_id} was lost ({reason}). Press Run remotely again.",
    errors.RunnerNotStarted: (
        "The worker could not start the process that watches over sleap-nn ({reason}). "
        "Ask who runs the worker to look into its log, then press Run remotely again."
    ),
    errors.JobUnknown: (
        "The worker does not know the job {job_id}. See Remote Jobs for those it has."
    ),
    errors.JobNotFound: (
        "No job {job} was found; asked: {asked}. Look for it in the list of jobs."
    ),
    errors.JobAmbiguous: (
        "{job} may be any of several jobs: {candidates}. Choose one from the list."
    ),
    errors.JobNotEnded: (
        "The job {job_id} has not ended yet (it is {state}). Its results can be "
        "fetched once it has."
    ),
    errors.JobHasEnded: (
        "The job {job_id} has ended already ({state}). Fetch what it left."
    ),
    errors.RuntimeExceeded: (
        "The job was stopped after {limit}, the longest that its worker lets a job "
        "run. The models that it had trained by then are kept. Train for fewer epochs."
    ),
    errors.ResultsRemoved: (
        "The results of this job were removed from its worker on {date}, which keeps "
        "them for a limited time."
    ),
    errors.JobConflict: (
        "The job {job_id} was already sent with other contents. Press Run remotely to "
        "send this as a new one."
    ),
    errors.JobCancelled: "The job was cancelled; nothing of it was kept.",
    errors.ModelNotFound: (
        "There is no model {model} in this lab any more. Refresh the list of models."
    ),
    errors.ModelAmbiguous: (
        "{model} may be any of {candidates}. Choose it in the list of models instead."
    ),
    errors.NotAModel: (
        "{path} is not a trained model ({reason}). Choose the folder below models/ "
        "that holds best.ckpt and training_config.yaml."
    ),
    errors.AliasTaken: (
        "The alias {alias} belongs to {model}. Choose another one, or move it in "
        "the list of models."
    ),
    errors.AliasMoved: (
        "Somebody pointed the alias {alias} to {model} in the meantime. Refresh the "
        "list of models and decide again."
    ),
    errors.ModelHasAlias: (
        "The model {model} is used as {aliases}. Take its aliases away first if "
        "nobody needs it any more."
    ),
    errors.RegistryFull: (
        "The lab's list of models holds no more {what} than {limit}. Delete some "
        "that nobody needs."
    ),
    errors.StoreInvalid: (
        "The model store {store} cannot be used: {reason}. Correct it in the settings."
    ),
    errors.StoreFull: (
        "The model store {store} has no room left ({reason}). Nothing was "
        "published; delete models that nobody needs."
    ),
    errors.NoStore: (
        "The lab's models cannot be reached ({reason}). Start a worker, or name "
        "their store in the settings."
    ),
}


def error_words(error: RtcError) -> str:
    """Say an error to someone who sits before SLEAP: plain text, bounded."""
    sentence = _ERRORS.get(type(error))
    if sentence is None:
        return _bounded(str(error))
    values = {field.name: getattr(error, field.name) for field in fields(error)}
    return _bounded(sentence.format(**values))


def _bounded(text: str) -> str:
    lines = (clean_text(line, MAX_WORDS_CHARS) for line in text.split("\n"))
    words = "\n".join(line for line in lines if line)
    return (
        words if len(words) <= MAX_WORDS_CHARS else words[: MAX_WORDS_CHARS - 1] + "…"
    )


# -- situations ------------------------------------------------------------------------

PROJECT_EMPTY: Final = "This project has no videos; add a video first."
PROJECT_NEVER_SAVED: Final = (
    "This project was never saved; save it first, since the saved file is sent."
)
PROJECT_CHANGED: Final = (
    "This project has unsaved changes; save it first, since the saved file is sent."
)
PROJECT_UNLABELED: Final = (
    "This project has no labeled frames; label some frames to train on first."
)
CONFIGURE_FIRST: Final = "Nothing is configured yet. Press Configure to set up the run."
COMPANION_RESTARTED: Final = (
    "The program that works beside SLEAP ended unexpectedly and was started again. "
    "Jobs on workers were not affected."
)
COMPANION_DEAD: Final = (
    "The program that works beside SLEAP ended again. Your project and the jobs on "
    "workers are not affected. Press Start again to go on."
)


def project_file_gone(path: str) -> str:
    """Say that the open project is no longer on the disk."""
    return f"The project file {_path(path)} is gone; save the project again."


def worker_gone(worker: str) -> str:
    """Say that a monitored job's worker cannot be reached."""
    return (
        f"{_name(worker)} cannot be reached; trying again. The training goes on there, "
        "and nothing of its curve will be missing."
    )


def worker_back(worker: str) -> str:
    """Say that a monitored job's worker is there again."""
    return f"{_name(worker)} is back; the curve is complete."


def project_moved(path: str) -> str:
    """Say why results wait: their project's file is not where it was."""
    return (
        f"The project {_path(path)} was moved or deleted while the job ran, so its "
        "predictions were not merged. They wait in Remote Jobs."
    )


def project_replaced(path: str) -> str:
    """Say why results wait: another project lies where theirs was."""
    return (
        f"The project {_path(path)} is no longer the one that the job was sent from: "
        "its skeleton or its videos are different. The predictions wait in Remote Jobs."
    )


def results_without_project(path: str, kept: str) -> str:
    """Say where results went whose project's folder is gone."""
    return (
        f"The folder of the project {_path(path)} no longer exists. The models and "
        f"predictions of the job were kept in {_path(kept)}."
    )


@dataclass(frozen=True)
class ClosingChoices:
    """The ways out of the question at closing, besides staying; button labels."""

    finish: str
    stop: str


CLOSING_QUESTION: Final = ClosingChoices(
    finish="&Finish sending in the background", stop="&Stop sending"
)


def closing_question(worker: str) -> str:
    """Ask what becomes of a package that is on its way when SLEAP is closed."""
    return (
        f"A training package is still being sent to {_name(worker)}.\n\n"
        "Sending can go on in the background after SLEAP is closed. The results wait "
        "on the worker until you open SLEAP again."
    )


# -- workers and jobs ------------------------------------------------------------------

_WORKER_STATES: Final[Mapping[str, str]] = {
    "starting": "Starting",
    "available": "Available",
    "busy": "Busy",
    "closing": "Closing",
}
_JOB_STATES: Final[Mapping[str, str]] = {
    "packaging": "Packaging",
    "unsent": "Not sent",
    JobState.SUBMITTED: "Announced",
    JobState.STAGING: "Package is on its way",
    JobState.QUEUED: "Waiting in the queue",
    JobState.STARTING: "Starting",
    JobState.RUNNING: "Running",
    JobState.STOPPING: "Stopping, keeping the model",
    JobState.CANCELLING: "Cancelling",
    JobState.COLLECTING: "Gathering the results",
    JobState.SUCCEEDED: "Done",
    JobState.FAILED: "Failed",
    JobState.CANCELLED: "Cancelled",
    JobState.REJECTED: "Not accepted",
    JobState.LOST: "Lost",
}


def takes_jobs(worker: WorkerRow) -> bool:
    """Tell whether a run can be sent to this worker now."""
    return worker.status in ("available", "busy") and not worker.refusal


def worker_state(worker: WorkerRow) -> str:
    """Say a worker's state in one or two words."""
    if worker.status in ("available", "busy") and worker.refusal:
        return "Takes no jobs"
    return _WORKER_STATES.get(worker.status, "Unknown")


def job_words(job: JobRow) -> str:
    """Say where a job stands, such as "Training, step 1 of 2, epoch 12"."""
    if job.state == JobState.QUEUED and job.position is not None:
        return queue_words(job)
    if job.state in ENDED and job.are_results_removed:
        return f"{_JOB_STATES.get(job.state, 'Ended')}, results removed"
    if job.state != JobState.RUNNING:
        return _JOB_STATES.get(job.state, "Unknown")
    if job.total > 0:
        return f"Predicting {job.done:,} of {job.total:,} frames"
    words = "Training"
    if job.step is not None and job.steps > 1:
        words += f", step {job.step + 1} of {job.steps}"
    if job.epoch is not None:
        words += f", epoch {job.epoch + 1}"
    return words


def published_words(model: str, alias: str) -> str:
    """Say that a model is in the registry: "Published as flies-v1 (model-...)."."""
    model, alias = clean_text(model), clean_text(alias)
    return f"Published as {alias} ({model})." if alias else f"Published as {model}."


def queue_words(job: JobRow) -> str:
    """Say a place in a worker's queue: "Third in the queue, starts in about 2 h"."""
    words = f"{ordinal(job.position or 1).capitalize()} in the queue"
    start = start_words(job.starts_in_s)
    return f"{words}, {start}" if start else words


# -- runs ------------------------------------------------------------------------------

_PIPELINES: Final[Mapping[frozenset[str], str]] = {
    frozenset({"centroid", "centered_instance"}): "Top-down",
    frozenset({"centroid", "multi_class_topdown"}): "Top-down with identities",
    frozenset({"bottomup"}): "Bottom-up",
    frozenset({"multi_class_bottomup"}): "Bottom-up with identities",
    frozenset({"single_instance"}): "Single animal",
}
_TARGETS: Final[Mapping[str, str]] = {
    "frame": "the current frame",
    "clip": "the selected clip",
    "video": "the current video",
    "all_videos": "all videos",
    "random_video": "random frames of the current video",
    "random": "random frames of all videos",
    "suggestions": "the suggested frames",
    "user_labeled": "the frames labeled by hand",
    "predicted": "the frames with predictions",
}


def plan_words(run: RunRequest) -> str:
    """Say what a run does, such as "Top-down: train 2 models, then predict on …"."""
    to_train = sum(isinstance(model, ModelToTrain) for model in run.models)
    trained = len(run.models) - to_train
    where = _where(run) if run.predictions else ""
    heads = set()
    for model in run.models:
        if isinstance(model, PublishedModel):
            return f"Predict on {where or 'nothing'} with {clean_text(model.name)}"
        heads.add(model.head)
    pipeline = _PIPELINES.get(frozenset(heads), "")
    if not to_train:
        words = (
            f"predict on {where or 'nothing'} with {_count(trained, 'trained model')}"
        )
    else:
        words = f"train {_count(to_train, 'model')}"
        if trained:
            words += f", use {_count(trained, 'trained model')}"
        if where:
            words += f", then predict on {where}"
    return f"{pipeline}: {words}" if pipeline else words[0].upper() + words[1:]


def _where(run: RunRequest) -> str:
    words = _TARGETS.get(run.merge.target, "the chosen frames")
    counts = [_frames_named(argv) for argv in run.predictions]
    known = [count for count in counts if count is not None]
    if len(known) < len(counts) or sum(known) < 2:
        return words
    return f"{words} ({sum(known):,} frames)"


def _frames_named(argv: list[str]) -> int | None:
    """Count the frames that `--frames` lists; None where it lists none."""
    if "--frames" not in argv[:-1]:
        return None
    parts = argv[argv.index("--frames") + 1].split(",")
    if not all(part.lstrip("-").isdecimal() for part in parts):
        return None
    if len(parts) == 2 and parts[1].startswith("-"):  # SLEAP's "first,-last"
        return max(0, int(parts[1][1:]) - int(parts[0]) + 1)
    return len(parts)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


# -- parts -----------------------------------------------------------------------------


def _name(worker: str) -> str:
    return clean_text(worker) or "The worker"


def _path(path: str) -> str:
    return clean_text(path, MAX_WORDS_CHARS // 2)
