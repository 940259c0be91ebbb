"""Everything that can go wrong, as one tree, and its codes on the wire.

Each error has fields, one sentence that says what happened to which object and
what to do next, an exit code for the command line, and whether trying again may
help. `to_wire` and `from_wire` are inverse to each other for every leaf.

    RtcError
    ├── LocalProtocolError        our own mistake: a bug, never a peer's doing
    ├── RemoteProtocolError       the peer broke the protocol
    ├── SessionError              the session string or token is not accepted
    ├── ConnectionFailure         something cannot be reached
    ├── Refusal                   the other side said no
    ├── PackageError              what was to be sent is not a training package
    ├── TransferError             bytes did not arrive as they were sent
    └── JobError                  the job itself went wrong
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import ClassVar, Final

from msgspec import Struct

from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.limits import MAX_ERROR_TEXT_CHARS

EXIT_DONE: Final = 0
EXIT_JOB_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNREACHABLE: Final = 3
EXIT_REFUSED: Final = 4
EXIT_BAD_PACKAGE: Final = 5
EXIT_CANCELLED: Final = 130


class ErrorInfo(Struct, frozen=True):
    """An error on the wire: the leaf's code and its fields as text."""

    code: str
    fields: dict[str, str] = {}


@dataclass(eq=False)
class RtcError(Exception):
    """Base of every error that is expected and has words for the user."""

    code: ClassVar[str] = ""
    sentence: ClassVar[str] = ""
    exit_code: ClassVar[int] = EXIT_JOB_FAILED
    retryable: ClassVar[bool] = False

    def __str__(self) -> str:
        """Return the sentence that the user reads."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return self.sentence.format(**values)

    def to_wire(self) -> ErrorInfo:
        """Return the error as it crosses the wire."""
        values = {f.name: str(getattr(self, f.name)) for f in fields(self)}
        return ErrorInfo(code=self.code, fields=values)


@dataclass(eq=False)
class LocalProtocolError(RtcError):
    """We used a machine against its table; always a bug of this program."""

    detail: str
    code = "local_protocol"
    sentence = (
        "This is a fault in sleap-remote itself: {detail}; "
        "please report it with the output of `--verbose`."
    )


@dataclass(eq=False)
class RemoteProtocolError(RtcError):
    """The peer sent what the protocol does not allow there."""

    detail: str
    code = "protocol"
    exit_code = EXIT_REFUSED
    sentence = (
        "The other side broke the protocol ({detail}); "
        "check that both sides run the same version of sleap-rtc-plugin."
    )


# -- the session string --------------------------------------------------------


class SessionError(RtcError):
    """The session is not accepted."""

    exit_code = EXIT_REFUSED


@dataclass(eq=False)
class SessionStringInvalid(SessionError):
    """The session string cannot be read."""

    reason: str
    code = "session_string_invalid"
    sentence = (
        "The session string cannot be read ({reason}); "
        "copy the whole line that the worker printed and try again."
    )


@dataclass(eq=False)
class SessionStringTooNew(SessionError):
    """The session string was made by a newer version."""

    version: str
    code = "session_string_too_new"
    sentence = (
        "The session string has version {version}, which this sleap-remote does not "
        "know; update it with `pip install -U sleap-rtc-plugin`."
    )


@dataclass(eq=False)
class TokenRefused(SessionError):
    """The signaling server does not accept the token."""

    server: str
    reason: str
    code = "token_refused"
    sentence = (
        "The signaling server {server} does not accept this session ({reason}); "
        "ask for a new session string."
    )


@dataclass(eq=False)
class RoomGone(SessionError):
    """The room has ended or never was."""

    server: str
    code = "room_gone"
    sentence = (
        "The session's room no longer exists on {server}; start the worker again "
        "and use the session string that it prints."
    )


@dataclass(eq=False)
class PeerIdTaken(SessionError):
    """Another peer holds this peer id."""

    peer_id: str
    code = "peer_id_taken"
    sentence = (
        "Another program is registered as {peer_id}; close it, "
        "or wait ten minutes after it was cut off, and try again."
    )


# -- reaching the other side ---------------------------------------------------


class ConnectionFailure(RtcError):
    """Something cannot be reached now; it may be later."""

    exit_code = EXIT_UNREACHABLE
    retryable = True


@dataclass(eq=False)
class SignalingUnreachable(ConnectionFailure):
    """No signaling server answers."""

    server: str
    reason: str
    code = "signaling_unreachable"
    sentence = (
        "The signaling server {server} cannot be reached ({reason}); "
        "check the address and that the server is running."
    )


@dataclass(eq=False)
class NoWorker(ConnectionFailure):
    """The room holds no worker."""

    server: str
    code = "no_worker"
    sentence = (
        "No worker is online in this session on {server}; "
        "start one with `sleap-remote worker --session …` on the GPU machine."
    )


@dataclass(eq=False)
class WorkerNotFound(ConnectionFailure):
    """The room has workers, but none of that name."""

    worker: str
    online: str
    code = "worker_not_found"
    sentence = "No worker named {worker} is online; there is {online}."


@dataclass(eq=False)
class LinkFailed(ConnectionFailure):
    """No direct connection to the worker came about."""

    worker: str
    reason: str
    code = "link_failed"
    sentence = (
        "No connection to the worker {worker} came about ({reason}); "
        "check that both machines allow UDP between them."
    )


@dataclass(eq=False)
class WorkerVanished(ConnectionFailure):
    """The link to the worker was lost."""

    worker: str
    activity: str
    code = "worker_vanished"
    sentence = (
        "The worker {worker} went away while {activity}; "
        "run the same command again to go on where it stopped."
    )


@dataclass(eq=False)
class PortInUse(ConnectionFailure):
    """A server cannot listen on its port."""

    address: str
    option: str
    code = "port_in_use"
    sentence = (
        "The address {address} is already in use; "
        "stop the program that holds it or choose another port with {option}."
    )


@dataclass(eq=False)
class FolderInUse(ConnectionFailure):
    """Another worker holds the data folder."""

    place: str
    code = "folder_in_use"
    sentence = (
        "The folder {place} is in use by another worker; "
        "stop that one or choose another folder with --data."
    )


@dataclass(eq=False)
class NoReply(ConnectionFailure):
    """A command got no reply in time."""

    peer: str
    command: str
    code = "no_reply"
    sentence = "There was no reply from {peer} to {command}; try again in a moment."


# -- refusals ------------------------------------------------------------------


class Refusal(RtcError):
    """The other side understood and said no."""

    exit_code = EXIT_REFUSED


@dataclass(eq=False)
class PeerNotAuthenticated(Refusal):
    """The peer could not prove that it knows the session's secret on this link."""

    peer: str
    code = "peer_not_authenticated"
    sentence = (
        "{peer} could not prove that it belongs to this session, so nothing was "
        "sent; the session string is wrong, or somebody is in between."
    )


@dataclass(eq=False)
class VersionMismatch(Refusal):
    """The version ranges do not overlap."""

    ours: str
    theirs: str
    code = "version_mismatch"
    sentence = (
        "This side speaks protocol {ours}, the other {theirs}; "
        "update the older one with `pip install -U sleap-rtc-plugin`."
    )


@dataclass(eq=False)
class RateLimited(Refusal):
    """Too many requests."""

    retry_after_s: str
    code = "rate_limited"
    retryable = True
    sentence = "Too many requests; wait {retry_after_s} s and try again."


@dataclass(eq=False)
class NotAllowed(Refusal):
    """The sender may not do this."""

    action: str
    code = "not_allowed"
    sentence = (
        "This session may not {action}; only the one who opened the room may do so."
    )


@dataclass(eq=False)
class TooMany(Refusal):
    """A bound on the number of things was reached."""

    what: str
    limit: str
    code = "too_many"
    sentence = "There are already {limit} {what}; remove some and try again."


@dataclass(eq=False)
class PeerNotFound(Refusal):
    """The addressed peer is not in the room."""

    peer_id: str
    code = "peer_not_found"
    retryable = True
    sentence = "The peer {peer_id} is not online in this room; list the peers again."


@dataclass(eq=False)
class BadRequest(Refusal):
    """A message that can be read but makes no sense."""

    reason: str
    code = "bad_request"
    sentence = "The request cannot be carried out: {reason}."


@dataclass(eq=False)
class NotRegistered(Refusal):
    """A socket must register before anything else."""

    code = "not_registered"
    sentence = "Register first; an unregistered connection can do nothing else."


@dataclass(eq=False)
class WorkerBusy(Refusal):
    """The worker's queue is full or it is closing."""

    worker: str
    reason: str
    code = "worker_busy"
    retryable = True
    sentence = (
        "The worker {worker} takes no new jobs ({reason}); "
        "try again later or choose another."
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
        "remove it from the package's inference script."
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
class JobUnknown(JobError):
    """The worker does not know the job."""

    job_id: str
    code = "job_unknown"
    sentence = "The worker knows no job {job_id}; list its jobs to find the right one."


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
class JobCancelled(JobError):
    """The user cancelled the job."""

    job_id: str
    code = "job_cancelled"
    exit_code = EXIT_CANCELLED
    sentence = "The job {job_id} was cancelled; nothing of it was kept."


@dataclass(eq=False)
class RemoteFailure(RtcError):
    """An error of a kind that this version does not know."""

    kind: str
    detail: str
    code = "remote_failure"
    sentence = (
        "The other side reports {kind} ({detail}); "
        "update sleap-rtc-plugin to learn what that means."
    )


def _leaves(base: type[RtcError]) -> Iterator[type[RtcError]]:
    for child in base.__subclasses__():
        if child.code:
            yield child
        yield from _leaves(child)


def error_types() -> Mapping[str, type[RtcError]]:
    """Return every leaf of the tree by its code on the wire."""
    return {leaf.code: leaf for leaf in _leaves(RtcError)}


def from_wire(info: ErrorInfo) -> RtcError:
    """Rebuild an error that a peer sent, its text cleaned and bounded.

    An unknown code, or fields that are not the leaf's own, gives `RemoteFailure`.
    """
    leaf = error_types().get(info.code)
    names = {f.name for f in fields(leaf)} if leaf else set()
    cleaned = {name: _clean_lines(text) for name, text in info.fields.items()}
    if leaf is None or names != set(cleaned):
        detail = ", ".join(f"{k}: {v}" for k, v in sorted(cleaned.items()))
        return RemoteFailure(
            kind=clean_text(info.code), detail=clean_text(detail or "no details")
        )
    return leaf(**cleaned)


def _clean_lines(text: str) -> str:
    return "\n".join(map(_clean_line, text[:MAX_ERROR_TEXT_CHARS].split("\n")))


def _clean_line(line: str) -> str:
    """Clean one line and keep its indentation, which a traceback is read by."""
    body = line.lstrip(" ")
    indentation = " " * (len(line) - len(body))
    return (indentation + clean_text(body, MAX_ERROR_TEXT_CHARS)).rstrip()
