"""What can go wrong with the work: its package, its files, the job itself."""

from dataclasses import dataclass

from sleap_rtc_plugin.protocol.errors.base import (
    EXIT_BAD_PACKAGE,
    EXIT_CANCELLED,
    EXIT_REFUSED,
    EXIT_UNREACHABLE,
    RtcError,
)

# -- packages ------------------------------------------------------------------


class PackageError(RtcError):
    """What was to be sent, or arrived, is not a training package that we run."""

    exit_code = EXIT_BAD_PACKAGE


@dataclass(eq=False)
class NotAPackage(PackageError):
    """The file is not a zip or folder with a training package."""

    path: str
    reason: str
    code = "not_a_package"
    sentence = (
        "{path} is not a training package ({reason}); export one in SLEAP with "
        "Predict > Run Training > Export training job package."
    )


@dataclass(eq=False)
class UnsafeMember(PackageError):
    """A member's name could write outside the job's folder."""

    member: str
    reason: str
    code = "unsafe_member"
    sentence = (
        "The package holds {member}, which {reason}; "
        "nothing was sent, export the package again."
    )


@dataclass(eq=False)
class PackageTooLarge(PackageError):
    """A bound on size or number was passed."""

    path: str
    reason: str
    code = "package_too_large"
    sentence = (
        "The package {path} {reason}; it is refused, since a real training package "
        "does not look like that."
    )


@dataclass(eq=False)
class LabelsUnreadable(PackageError):
    """The labels do not load."""

    path: str
    reason: str
    code = "labels_unreadable"
    sentence = (
        "The labels {path} do not load ({reason}); "
        "open them in SLEAP, save, and export the package again."
    )


@dataclass(eq=False)
class ConfigRefused(PackageError):
    """A training configuration is not accepted."""

    config: str
    reason: str
    code = "config_refused"
    sentence = (
        "The training configuration {config} is not accepted: {reason}; "
        "correct it in SLEAP's training dialog and export again."
    )


@dataclass(eq=False)
class OptionRefused(PackageError):
    """An inference option is not accepted."""

    option: str
    reason: str
    code = "option_refused"
    sentence = (
        "The inference option {option} is not accepted: {reason}; "
        "change it or leave it out, here or in the package's inference script."
    )


# -- transfers -----------------------------------------------------------------


class TransferError(RtcError):
    """Bytes could not be moved."""


@dataclass(eq=False)
class DiskFull(TransferError):
    """No room for what is to arrive."""

    place: str
    needed: str
    free: str
    code = "disk_full"
    sentence = (
        "There is not enough space on {place}: {needed} are needed and {free} are "
        "free; make room and run the same command again."
    )


@dataclass(eq=False)
class StorageFailed(TransferError):
    """A file could not be written or read."""

    place: str
    reason: str
    code = "storage_failed"
    sentence = (
        "{place} could not be read or written ({reason}); "
        "check the disk and run the same command again."
    )


@dataclass(eq=False)
class JournalDamaged(TransferError):
    """The worker's journal cannot be read."""

    place: str
    reason: str
    code = "journal_damaged"
    sentence = (
        "The journal {place} is damaged ({reason}) and was left as it is; put a backup "
        "in its place, or move it away to begin without its jobs, and start the worker "
        "again."
    )


@dataclass(eq=False)
class JournalTooNew(TransferError):
    """A newer version of this program wrote the worker's journal."""

    place: str
    version: str
    code = "journal_too_new"
    exit_code = EXIT_REFUSED
    sentence = (
        "The journal {place} was written by a newer version of this program (journal "
        "version {version}) and was left as it is; update this one with "
        "`pip install -U sleap-rtc-plugin`, or choose another folder with --data."
    )


@dataclass(eq=False)
class DigestMismatch(TransferError):
    """A file did not arrive as it was sent, after every repair."""

    path: str
    code = "digest_mismatch"
    sentence = (
        "{path} did not arrive as it was sent, also when sent again, and was "
        "discarded; check both machines' disks and memory, then run the command again."
    )


@dataclass(eq=False)
class UnsafeCheckpoint(TransferError):
    """A result would run code of the sender's choice when it is loaded."""

    path: str
    reason: str
    code = "unsafe_checkpoint"
    sentence = (
        "The result {path} is refused ({reason}), since loading it could run code on "
        "this machine; train again on a worker that you trust."
    )


@dataclass(eq=False)
class ImagesRefused(TransferError):
    """What a worker offers as a training's images are not such images."""

    worker: str
    reason: str
    code = "images_refused"
    sentence = (
        "The validation images of the worker {worker} are refused ({reason}); "
        "the job itself goes on."
    )


@dataclass(eq=False)
class SourceChanged(TransferError):
    """A file changed while it was being sent."""

    path: str
    code = "source_changed"
    sentence = (
        "{path} changed while it was being sent; "
        "wait until it is complete and run the same command again."
    )


@dataclass(eq=False)
class TransferStalled(TransferError):
    """Nothing moved for too long."""

    activity: str
    seconds: str
    code = "transfer_stalled"
    exit_code = EXIT_UNREACHABLE
    retryable = True
    sentence = (
        "Nothing arrived for {seconds} s while {activity}; "
        "run the same command again to go on where it stopped."
    )


@dataclass(eq=False)
class TransferTakenOver(TransferError):
    """Another connection goes on with the transfer."""

    job_id: str
    code = "transfer_taken_over"
    exit_code = EXIT_REFUSED
    sentence = (
        "Another command sends the package of {job_id} now; "
        "wait for that one, it goes on where this one stopped."
    )


@dataclass(eq=False)
class SharedStorageUnusable(TransferError):
    """A folder that both sides should see is not used."""

    place: str
    reason: str
    code = "shared_storage_unusable"
    sentence = (
        "{place} is not used ({reason}) and the files go over the connection; "
        "check that both machines mount the same folder and may write to it."
    )


@dataclass(eq=False)
class MountUnusable(TransferError):
    """A folder of the worker's own disks cannot be looked into."""

    mount: str
    reason: str
    code = "mount_unusable"
    exit_code = EXIT_REFUSED
    sentence = (
        "The worker's mount {mount} cannot be looked into ({reason}); look at the list "
        "of its mounts, or ask who runs the worker."
    )


# -- jobs ----------------------------------------------------------------------


class JobError(RtcError):
    """The job ended other than well."""


@dataclass(eq=False)
class StepFailed(JobError):
    """sleap-nn ended with an error."""

    step: str
    reason: str
    last_lines: str
    code = "step_failed"
    sentence = "{step} failed: {reason}.\n{last_lines}"

    def __str__(self) -> str:
        """Return the sentence, with the trainer's last lines where there are any."""
        head = f"{self.step} failed: {self.reason}"
        if not self.last_lines:
            return f"{head}; see the job's log for more."
        return f"{head}; its last lines were:\n{self.last_lines}"


@dataclass(eq=False)
class TrainerMissing(JobError):
    """The worker has no sleap-nn."""

    worker: str
    code = "trainer_missing"
    sentence = (
        "The worker {worker} has no sleap-nn; install it there with "
        "`pip install 'sleap-rtc-plugin[worker]'`."
    )


@dataclass(eq=False)
class ResultsIncomplete(JobError):
    """The trainer ended well but files are missing."""

    step: str
    missing: str
    code = "results_incomplete"
    sentence = (
        "{step} ended without an error but did not write {missing}; "
        "see the job's log for the reason."
    )


@dataclass(eq=False)
class JobLost(JobError):
    """The worker lost sight of the job."""

    job_id: str
    reason: str
    code = "job_lost"
    sentence = "The job {job_id} was lost ({reason}); run the same command again."


@dataclass(eq=False)
class RunnerNotStarted(JobError):
    """The worker could not start the process that watches over sleap-nn."""

    reason: str
    code = "runner_not_started"
    retryable = True
    sentence = (
        "The worker could not start the process that watches over sleap-nn "
        "({reason}); ask who runs the worker to look into its log, then run the same "
        "command again."
    )


@dataclass(eq=False)
class JobUnknown(JobError):
    """The worker does not know the job."""

    job_id: str
    code = "job_unknown"
    sentence = "The worker knows no job {job_id}; list its jobs to find the right one."


@dataclass(eq=False)
class JobNotFound(JobError):
    """No worker that could be asked has a job of that id or name."""

    job: str
    asked: str
    code = "job_not_found"
    exit_code = EXIT_REFUSED
    sentence = (
        "No job {job} was found on {asked}; `sleap-remote jobs list` shows the jobs "
        "there are."
    )


@dataclass(eq=False)
class JobAmbiguous(JobError):
    """Several jobs go by that name or beginning of an id."""

    job: str
    candidates: str
    code = "job_ambiguous"
    exit_code = EXIT_REFUSED
    sentence = (
        "{job} may be one of several jobs ({candidates}); name it by its whole id, or "
        "its worker with --worker."
    )


@dataclass(eq=False)
class JobNotEnded(JobError):
    """What was asked for is there once the job has ended."""

    job_id: str
    state: str
    code = "job_not_ended"
    exit_code = EXIT_REFUSED
    sentence = (
        "The job {job_id} has not ended yet (it is {state}); wait for it with "
        "`sleap-remote jobs attach`, or end it with `sleap-remote jobs stop`."
    )


@dataclass(eq=False)
class JobHasEnded(JobError):
    """Only a job that goes on can be stopped or cancelled."""

    job_id: str
    state: str
    code = "job_has_ended"
    exit_code = EXIT_REFUSED
    sentence = (
        "The job {job_id} has ended already ({state}); `sleap-remote jobs fetch` "
        "brings home what it left."
    )


@dataclass(eq=False)
class RuntimeExceeded(JobError):
    """The job ran for as long as its worker lets one run."""

    job_id: str
    limit: str
    code = "runtime_exceeded"
    sentence = (
        "The job {job_id} was stopped after {limit}, the longest that its worker lets "
        "a job run; models that it had trained by then are kept, so fetch those, and "
        "train for fewer epochs."
    )


@dataclass(eq=False)
class ResultsRemoved(JobError):
    """The results are not there any more."""

    job_id: str
    date: str
    code = "results_removed"
    sentence = (
        "The results of the job {job_id} were removed on {date}, since its worker "
        "keeps them for a limited time; look where they were fetched to, or train "
        "again."
    )


@dataclass(eq=False)
class JobConflict(JobError):
    """The same job id came with another package."""

    job_id: str
    code = "job_conflict"
    exit_code = EXIT_REFUSED
    sentence = (
        "The job {job_id} was already submitted with other contents; "
        "submit it under a new id."
    )


@dataclass(eq=False)
class JobFollowedElsewhere(JobError):
    """Another SLEAP on this computer brings the job's results home."""

    job_id: str
    code = "job_followed_elsewhere"
    exit_code = EXIT_REFUSED
    sentence = (
        "Another SLEAP on this computer brings the results of the job {job_id} home; "
        "look there, or close it and fetch them again."
    )


@dataclass(eq=False)
class JobCancelled(JobError):
    """The user cancelled the job."""

    job_id: str
    code = "job_cancelled"
    exit_code = EXIT_CANCELLED
    sentence = "The job {job_id} was cancelled; nothing of it was kept."
