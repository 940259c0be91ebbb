"""What can go wrong before two programs work together.

The session is not accepted, something cannot be reached, or the other side says no.
"""

from dataclasses import dataclass

from sleap_rtc_plugin.protocol.errors.base import (
    EXIT_REFUSED,
    EXIT_UNREACHABLE,
    RtcError,
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
class NoWayToWorker(ConnectionFailure):
    """Every way to the worker was tried, and none came about."""

    worker: str
    tried: str
    remedy: str
    code = "no_way_to_worker"
    sentence = "No connection to the worker {worker}: {tried}; {remedy}."


@dataclass(eq=False)
class RelayRefused(ConnectionFailure):
    """The relay of last resort cannot be used."""

    server: str
    reason: str
    code = "relay_refused"
    sentence = (
        "The relay of the signaling server {server} cannot be used ({reason}); "
        "try again in a moment, or ask whoever runs the server."
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
class WorkerAway(ConnectionFailure):
    """The worker that has the job cannot be reached for longer than one waits."""

    worker: str
    job_id: str
    seconds: str
    code = "worker_away"
    sentence = (
        "The worker {worker} could not be reached for {seconds} s, but the job goes on "
        "there; come back with `sleap-remote jobs attach {job_id}`, or run the same "
        "command again."
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


@dataclass(eq=False)
class CompanionGone(ConnectionFailure):
    """The process beside SLEAP that does the work has ended."""

    reason: str
    code = "companion_gone"
    sentence = (
        "The program that works beside SLEAP has ended ({reason}); jobs on workers go "
        "on, open Remote Train again to go on with them."
    )


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
class WorkerTooOld(Refusal):
    """The worker's version lacks what was asked for."""

    worker: str
    activity: str
    code = "worker_too_old"
    sentence = (
        "The worker {worker} runs a version that cannot do this yet ({activity}); "
        "update it with `pip install -U sleap-rtc-plugin`."
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
        "This session may not {action}; sign in as an owner of the room, or ask one."
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


@dataclass(eq=False)
class QueueShareUsed(Refusal):
    """The places that are left in a worker's queue are kept for other people."""

    worker: str
    own: str
    free: str
    code = "queue_share_used"
    retryable = True
    sentence = (
        "The worker {worker} keeps the rest of its queue for other people (jobs of "
        "yours that wait there: {own}, places left: {free}); wait until one of yours "
        "begins, cancel one, or choose another worker."
    )


@dataclass(eq=False)
class QuotaExceeded(Refusal):
    """The jobs of a worker may take no more of its disk."""

    worker: str
    needed: str
    free: str
    code = "quota_exceeded"
    retryable = True
    sentence = (
        "The jobs of the worker {worker} may not take more of its disk ({needed} are "
        "needed and {free} are left); fetch results that wait there, or choose another."
    )
