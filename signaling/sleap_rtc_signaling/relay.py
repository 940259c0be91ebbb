"""PURE: the messages that the hub makes out of others: relayed ones and peer lists.

Both are bounded by what a peer accepts in one message.
"""

from typing import Final

import msgspec

from sleap_rtc_plugin.protocol.errors import BadRequest
from sleap_rtc_plugin.protocol.limits import (
    MAX_PEER_MESSAGE_BYTES,
    MAX_SIGNALING_MESSAGE_BYTES,
)
from sleap_rtc_plugin.protocol.signaling_messages import (
    Answer,
    Candidate,
    Offer,
    PeerInfo,
    PeerMessage,
    PeerMetadata,
    RelayedAnswer,
    RelayedCandidate,
    RelayedMessage,
    RelayedOffer,
    RelayedPeerMessage,
)
from sleap_rtc_signaling.limits import PEER_LIST_ENVELOPE_BYTES

__all__ = ["fit_into_list", "relayed"]

_encoder: Final = msgspec.json.Encoder()
_NO_METADATA: Final = PeerMetadata()


def relayed(
    sender: str, message: Offer | Answer | Candidate | PeerMessage
) -> RelayedMessage:
    """Put the sender's registered id on what it said.

    Raises:
        BadRequest: it would be larger than a peer accepts.
    """
    stamped = _stamped(sender, message)
    # The stamp may be longer than the address that it replaces.
    if len(_encoder.encode(stamped)) > MAX_SIGNALING_MESSAGE_BYTES:
        limit = MAX_SIGNALING_MESSAGE_BYTES
        raise BadRequest(reason=f"a message of more than {limit} bytes")
    return stamped


def _stamped(
    sender: str, message: Offer | Answer | Candidate | PeerMessage
) -> RelayedMessage:
    match message:
        case Offer():
            return RelayedOffer(id=message.id, from_=sender, sdp=message.sdp)
        case Answer():
            return RelayedAnswer(
                id=message.id,
                from_=sender,
                sdp=message.sdp,
                offer_id=message.offer_id,
            )
        case Candidate():
            return RelayedCandidate(
                id=message.id,
                from_=sender,
                candidate=message.candidate,
                offer_id=message.offer_id,
            )
        case PeerMessage():
            if len(bytes(message.payload)) > MAX_PEER_MESSAGE_BYTES:
                limit = MAX_PEER_MESSAGE_BYTES
                raise BadRequest(reason=f"a payload of more than {limit} bytes")
            return RelayedPeerMessage(
                id=message.id, from_=sender, payload=message.payload
            )


def fit_into_list(found: list[PeerInfo]) -> list[PeerInfo]:
    """Make a list that fits into one message.

    Nobody is left out, or peers with large metadata could hide the others: where
    not all metadata fits, the peers that connected last are listed without theirs.
    """
    bare = [
        PeerInfo(
            peer_id=info.peer_id,
            role=info.role,
            metadata=_NO_METADATA,
            connected_at=info.connected_at,
        )
        for info in found
    ]
    sizes = [len(_encoder.encode(info)) + 1 for info in found]
    bare_sizes = [len(_encoder.encode(info)) + 1 for info in bare]
    room = MAX_SIGNALING_MESSAGE_BYTES - PEER_LIST_ENVELOPE_BYTES - sum(bare_sizes)
    listed = []
    for info, short, size, short_size in zip(
        found, bare, sizes, bare_sizes, strict=True
    ):
        room -= size - short_size
        listed.append(info if room >= 0 else short)
    return listed
