"""The messages between a peer and the signaling server, over its WebSocket.

Every command carries an `id` and gets exactly one reply with the same id: `ok` of
the matching kind or `error`. The server stamps `from_` on what it relays; a sender
never says who it is. The tag travels as the JSON field `type`.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Raw, Struct

from sleap_rtc_plugin.protocol.errors import ErrorInfo
from sleap_rtc_plugin.protocol.limits import (
    MAX_CANDIDATE_CHARS,
    MAX_FILTER_TERMS,
    MAX_ID_LENGTH,
    MAX_SDP_CHARS,
    MAX_STEPS,
    MAX_TAG_LENGTH,
    MAX_TAGS,
    MAX_TOKEN_CHARS,
)

__all__ = [
    "Answer",
    "Candidate",
    "ClientMessage",
    "Delivered",
    "DiscoverPeers",
    "IceServer",
    "JobComplete",
    "JobRequest",
    "JobResponse",
    "MetadataUpdated",
    "Offer",
    "PeerInfo",
    "PeerList",
    "PeerMessage",
    "PeerMetadata",
    "PeerPayload",
    "Ping",
    "Pong",
    "Register",
    "Registered",
    "RegistryQuery",
    "RegistryResponse",
    "RelayRequest",
    "RelayResponse",
    "RelayedAnswer",
    "RelayedCandidate",
    "RelayedMessage",
    "RelayedOffer",
    "RelayedPeerMessage",
    "Reply",
    "Role",
    "ServerError",
    "ServerMessage",
    "UpdateMetadata",
]

Role = Literal["worker", "client"]
Id = Annotated[
    str, Meta(max_length=MAX_ID_LENGTH, pattern=r"^[a-z0-9]+(-[a-z0-9]+)*\Z")
]
Tag = Annotated[str, Meta(max_length=MAX_TAG_LENGTH)]
Sdp = Annotated[str, Meta(max_length=MAX_SDP_CHARS)]
RelayId = Annotated[
    str, Meta(max_length=MAX_ID_LENGTH, pattern=r"^relay-[0-9a-f]{32}\Z")
]
ResumeKey = Annotated[str, Meta(min_length=32, max_length=128)]


class _Message(Struct, frozen=True, kw_only=True, tag_field="type"):
    """A signaling message; `type` on the wire names its class."""


class PeerMetadata(Struct, frozen=True, kw_only=True):
    """What a peer tells the room about itself; everything here is public in the room.

    Attributes:
        tags: short labels, compared exactly.
        properties: JSON values by name; nested objects are reached with dots.
    """

    tags: Annotated[list[Tag], Meta(max_length=MAX_TAGS)] = []
    properties: dict[str, Any] = {}


class PeerInfo(Struct, frozen=True, kw_only=True):
    """One peer as `discover_peers` shows it."""

    peer_id: str
    role: Role
    metadata: PeerMetadata
    connected_at: float


class IceServer(Struct, frozen=True, kw_only=True):
    """A STUN or TURN server, as `GET /ice-servers` lists it (W3C RTCIceServer)."""

    urls: list[str]
    username: str | None = None
    credential: str | None = None


# -- from a peer to the server -------------------------------------------------


class Register(_Message, frozen=True, tag="register"):
    """The first message on a socket: enter `room_id` as `peer_id`.

    `resume_key` is the peer's own random text. Whoever registers the same `peer_id`
    again must show the same key, so nobody else in the room can push a peer out.

    `token` is the session string's, or a worker's credential; it may be empty where
    `account`, the token of a signed-in account, is a member's of the room. A room that
    is for its members wants `account` from every client.
    """

    id: Id
    room_id: Id
    token: Annotated[str, Meta(max_length=MAX_TOKEN_CHARS)]
    peer_id: Id
    role: Role
    resume_key: ResumeKey
    metadata: PeerMetadata = PeerMetadata()
    account: Annotated[str, Meta(max_length=MAX_TOKEN_CHARS)] = ""


class DiscoverPeers(_Message, frozen=True, tag="discover_peers"):
    """List the room's peers that match every given condition.

    `properties` maps a property name to a value or to an operator object such as
    `{"$gte": 8192}`; the operators are `$eq $ne $gt $gte $lt $lte $in`.
    """

    id: Id
    role: Role | None = None
    tags: Annotated[list[Tag], Meta(max_length=MAX_TAGS)] = []
    properties: Annotated[dict[str, Any], Meta(max_length=MAX_FILTER_TERMS)] = {}


class UpdateMetadata(_Message, frozen=True, tag="update_metadata"):
    """Replace this peer's metadata."""

    id: Id
    metadata: PeerMetadata


class PeerMessage(_Message, frozen=True, tag="peer_message"):
    """Relay `payload` (one `PeerPayload` in JSON) to another peer of the room.

    The server bounds the payload and never reads it, so peers may learn new kinds
    without a new server.
    """

    id: Id
    to: Id
    payload: Raw


class Offer(_Message, frozen=True, tag="offer"):
    """Relay an SDP offer (RFC 8866) that holds all candidates."""

    id: Id
    to: Id
    sdp: Sdp


class Answer(_Message, frozen=True, tag="answer"):
    """Relay the SDP answer to the offer that came with `offer_id`."""

    id: Id
    to: Id
    sdp: Sdp
    offer_id: Id


class Candidate(_Message, frozen=True, tag="candidate"):
    """Relay one more ICE candidate (RFC 8839) for the offer `offer_id`."""

    id: Id
    to: Id
    candidate: Annotated[str, Meta(max_length=MAX_CANDIDATE_CHARS)]
    offer_id: Id


class Ping(_Message, frozen=True, tag="ping"):
    """Ask the server whether it is there."""

    id: Id


# -- from the server to a peer -------------------------------------------------


class Registered(_Message, frozen=True, tag="registered"):
    """The peer is in the room; `expires_at` is when the room ends (Unix seconds)."""

    id: str
    peer_id: str
    room_id: str
    expires_at: float


class PeerList(_Message, frozen=True, tag="peer_list"):
    """The answer to `discover_peers`, newest connection last."""

    id: str
    peers: list[PeerInfo]


class MetadataUpdated(_Message, frozen=True, tag="metadata_updated"):
    """The new metadata is in force."""

    id: str


class Delivered(_Message, frozen=True, tag="delivered"):
    """What was to be relayed was handed to the other peer's socket."""

    id: str


class Pong(_Message, frozen=True, tag="pong"):
    """The answer to `ping`; `time` is the server's clock (Unix seconds)."""

    id: str
    time: float


class ServerError(_Message, frozen=True, tag="error"):
    """A command failed. `id` is empty where the command could not be read.

    `code` and `fields` are those of `errors.ErrorInfo`; `message` is the sentence.
    """

    id: str
    code: str
    message: str
    fields: dict[str, str] = {}


class RelayedOffer(_Message, frozen=True, rename={"from_": "from"}, tag="offer"):
    """An offer from another peer; `from` is the server's stamp."""

    id: Id
    from_: Id
    sdp: Sdp


class RelayedAnswer(_Message, frozen=True, rename={"from_": "from"}, tag="answer"):
    """An answer from another peer."""

    id: Id
    from_: Id
    sdp: Sdp
    offer_id: Id


class RelayedCandidate(
    _Message, frozen=True, rename={"from_": "from"}, tag="candidate"
):
    """A candidate from another peer."""

    id: Id
    from_: Id
    candidate: Annotated[str, Meta(max_length=MAX_CANDIDATE_CHARS)]
    offer_id: Id


class RelayedPeerMessage(
    _Message, frozen=True, rename={"from_": "from"}, tag="peer_message"
):
    """A payload from another peer; decode it with `codec.decode_peer_payload`."""

    id: Id
    from_: Id
    payload: Raw


# -- what peers tell each other through the server -----------------------------


class JobRequest(_Message, frozen=True, tag="job_request"):
    """A client asks whether this worker would take a job, before it connects."""

    request_id: Id
    package_bytes: Annotated[int, Meta(ge=0)]
    steps: Annotated[int, Meta(ge=1, le=MAX_STEPS)]


class JobResponse(_Message, frozen=True, tag="job_response"):
    """The worker's answer; `error` says why where it is no."""

    request_id: Id
    accepts: bool
    queue_length: Annotated[int, Meta(ge=0)] = 0
    error: ErrorInfo | None = None


class JobComplete(_Message, frozen=True, tag="job_complete"):
    """A job reached an end; told to the peer that submitted it.

    Where a model of it was published, all clients in the room are told.

    Attributes:
        job_id: the job.
        state: its end.
        model: the id of what was published, or empty.
        alias: its alias, or empty.
    """

    job_id: str
    state: str
    model: Annotated[str, Meta(max_length=MAX_ID_LENGTH)] = ""
    alias: Annotated[str, Meta(max_length=MAX_ID_LENGTH)] = ""


class RegistryQuery(_Message, frozen=True, tag="registry_query"):
    """A peer asks whether a worker holds a model, by its alias or id."""

    request_id: Id
    model: Annotated[str, Meta(max_length=MAX_ID_LENGTH)]


class RegistryResponse(_Message, frozen=True, tag="registry_response"):
    """The worker's answer to `registry_query`.

    Attributes:
        request_id: of the question.
        held: whether a verified copy is at hand, so that it need not be fetched.
        model: the id that the alias means here, or empty where it is not known.
        loads: whether this worker's sleap-nn can load the model.
        sleap_nn_version: of the sleap-nn that trained the model, where that is known.
    """

    request_id: Id
    held: bool
    model: Annotated[str, Meta(max_length=MAX_ID_LENGTH)] = ""
    loads: bool = True
    sleap_nn_version: Annotated[str, Meta(max_length=MAX_ID_LENGTH)] = ""


class RelayRequest(_Message, frozen=True, tag="relay_request"):
    """A client asks a worker to meet it on the server's relay, as a last resort."""

    request_id: Id
    relay_id: RelayId


class RelayResponse(_Message, frozen=True, tag="relay_response"):
    """The worker's answer; it joins the relay at once, or `error` says why not."""

    request_id: Id
    accepts: bool
    error: ErrorInfo | None = None


PeerPayload = (
    JobRequest
    | JobResponse
    | JobComplete
    | RegistryQuery
    | RegistryResponse
    | RelayRequest
    | RelayResponse
)

ClientMessage = (
    Register
    | DiscoverPeers
    | UpdateMetadata
    | PeerMessage
    | Offer
    | Answer
    | Candidate
    | Ping
)

RelayedMessage = RelayedOffer | RelayedAnswer | RelayedCandidate | RelayedPeerMessage
Reply = Registered | PeerList | MetadataUpdated | Delivered | Pong | ServerError
ServerMessage = Reply | RelayedMessage
