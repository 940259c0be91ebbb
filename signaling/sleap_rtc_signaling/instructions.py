"""PURE: what the hub is told about a registration, and what it wants to be done.

Plain values between the hub that decides and the switchboard that carries out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from sleap_rtc_plugin.protocol.close_codes import CloseCode
from sleap_rtc_plugin.protocol.limits import (
    PEER_ID_RESERVED_S,
    REGISTER_DEADLINE_S,
    ROOM_LIFETIME_S,
)
from sleap_rtc_plugin.protocol.signaling_messages import (
    DiscoverPeers,
    PeerMetadata,
    RelayedMessage,
    Role,
)
from sleap_rtc_plugin.protocol.signaling_messages import Reply as ReplyMessage

__all__ = [
    "ANY_ROLE",
    "Admission",
    "CheckRoom",
    "Counts",
    "Deliver",
    "Disconnect",
    "DropPeerId",
    "Elsewhere",
    "FindPeers",
    "ForStore",
    "Forward",
    "Held",
    "HubLimits",
    "Instruction",
    "KeepPeerId",
    "Presence",
    "RenewRoom",
    "Reply",
    "RoomEnded",
    "ShowMetadata",
]

# -- instructions ---------------------------------------------------------------


@dataclass(frozen=True)
class Reply:
    """Send the answer to a command to the one who gave it."""

    connection: int
    message: ReplyMessage


@dataclass(frozen=True)
class Deliver:
    """Send what another peer said."""

    connection: int
    message: RelayedMessage


@dataclass(frozen=True)
class Disconnect:
    """Send what is queued, then close; the hub has forgotten the connection."""

    connection: int
    code: CloseCode


@dataclass(frozen=True)
class RenewRoom:
    """Write down that the room lives until `expires_at`, or `close_room` it."""

    room_id: str
    expires_at: float


@dataclass(frozen=True)
class RoomEnded:
    """The room has ended; what else hangs on it ends with it."""

    room_id: str


@dataclass(frozen=True)
class KeepPeerId:
    """Write down who holds a worker's id, so that a restart gives it to nobody else."""

    room_id: str
    peer_id: str
    resume_digest: bytes


@dataclass(frozen=True)
class DropPeerId:
    """Forget who held it: the id is free."""

    room_id: str
    peer_id: str


@dataclass(frozen=True)
class CheckRoom:
    """Find out whether the room has been renewed elsewhere: `extend` or `end_room`."""

    room_id: str


# -- what only other instances know -------------------------------------------------


@dataclass(frozen=True)
class Held:
    """A message whose target is not here: whose command it is, and for whom.

    `until` is when it has waited long enough, as Unix time; 0 before it waits.
    """

    sender: int
    command_id: str
    room_id: str
    to: str
    message: RelayedMessage
    until: float = 0.0


@dataclass(frozen=True)
class Forward:
    """Find the peer at another instance, or let the hub hold what was said to it."""

    held: Held


@dataclass(frozen=True)
class FindPeers:
    """Answer with the peers of all instances that are meant."""

    connection: int
    room_id: str
    query: DiscoverPeers


@dataclass(frozen=True)
class ShowMetadata:
    """Show the peer's new metadata to the other instances, then send the reply."""

    connection: int
    metadata: PeerMetadata
    reply: Reply


ANY_ROLE: Final[frozenset[Role]] = frozenset({"worker", "client"})

# Where a peer is: registered, lost a moment ago and likely to come back, or neither.
Presence = Literal["here", "away", "gone"]

ForStore = RenewRoom | KeepPeerId | DropPeerId | CheckRoom
Elsewhere = Forward | FindPeers | ShowMetadata
Instruction = Reply | Deliver | Disconnect | RoomEnded | ForStore | Elsewhere


# -- what comes in ----------------------------------------------------------------


@dataclass(frozen=True)
class Admission:
    """A token was verified and admits to this room.

    Attributes:
        room_id: the room.
        expires_at: until when the room exists.
        roles: what the peer may be there.
        credential_id: the room token's; empty for one that cannot be taken back.
        account_id: the member's; empty where nobody has signed in.
        until: when the admission itself ends; None where it does not.
    """

    room_id: str
    expires_at: float
    roles: frozenset[Role] = ANY_ROLE
    credential_id: str = ""
    account_id: str = ""
    until: float | None = None


@dataclass(frozen=True)
class HubLimits:
    """The times that tests and administrators set; units are seconds."""

    register_deadline_s: float = REGISTER_DEADLINE_S
    reserved_s: float = PEER_ID_RESERVED_S
    room_lifetime_s: float = ROOM_LIFETIME_S


@dataclass(frozen=True)
class Counts:
    """How many there are, for the metrics."""

    rooms: int
    peers: Mapping[str, int]
    unregistered: int
