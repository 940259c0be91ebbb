"""PURE: who is in which room, and what is relayed to whom.

The hub knows connections as numbers and answers every message with instructions;
it has no clock, socket, key or database. The switchboard tells it what a token
admits to, carries out its instructions, and wakes it at `deadline()`.
"""

import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from sleap_rtc_plugin.protocol.close_codes import CloseCode
from sleap_rtc_plugin.protocol.errors import (
    BadRequest,
    NotAllowed,
    NotRegistered,
    PeerIdTaken,
    PeerNotFound,
    RoomGone,
    RtcError,
    TokenRefused,
    TooMany,
)
from sleap_rtc_plugin.protocol.limits import (
    MAX_PEERS_LISTED,
    MAX_PEERS_PER_ROOM,
)
from sleap_rtc_plugin.protocol.signaling_messages import (
    Answer,
    Candidate,
    ClientMessage,
    Delivered,
    DiscoverPeers,
    MetadataUpdated,
    Offer,
    PeerInfo,
    PeerList,
    PeerMessage,
    PeerMetadata,
    Ping,
    Pong,
    Register,
    Registered,
    RelayedMessage,
    Role,
    ServerError,
    UpdateMetadata,
)
from sleap_rtc_signaling.discovery import check_metadata, compile_filter
from sleap_rtc_signaling.held_messages import HeldMessages
from sleap_rtc_signaling.instructions import (
    Admission,
    CheckRoom,
    Counts,
    Deliver,
    Disconnect,
    DropPeerId,
    FindPeers,
    Forward,
    Held,
    HubLimits,
    Instruction,
    KeepPeerId,
    Presence,
    RenewRoom,
    Reply,
    RoomEnded,
    ShowMetadata,
)
from sleap_rtc_signaling.limits import (
    CLOSED_ROOM_REMEMBERED_S,
    HELD_AFTER_LOSS_S,
    MAX_MALFORMED_MESSAGES,
    MAX_RESERVED_IDS_PER_ROOM,
    ROOM_CHECK_S,
    ROOM_RENEW_FRACTION,
)
from sleap_rtc_signaling.relay import fit_into_list, relayed

__all__ = ["Hub", "resume_digest"]


# -- state --------------------------------------------------------------------------


@dataclass
class _Peer:
    connection: int
    room_id: str
    peer_id: str
    role: Role
    resume_digest: bytes
    metadata: PeerMetadata
    connected_at: float
    credential_id: str
    account_id: str
    until: float | None


@dataclass
class _Reservation:
    resume_digest: bytes
    role: Role
    until: float
    # Until when messages wait for it: not at all for one that said good-bye.
    held_until: float


@dataclass
class _Room:
    expires_at: float
    peers: dict[str, _Peer] = field(default_factory=dict)
    # Peer id -> who may come back to it, oldest first.
    reserved: dict[str, _Reservation] = field(default_factory=dict)

    def has_worker(self) -> bool:
        return any(peer.role == "worker" for peer in self.peers.values())


class Hub:
    """The live peers of every room.

    Args:
        server: how the server is named in errors.
        limits: the times that may be set.
        is_alone: no other instance serves the same rooms. One that is not alone knows
            its own sockets only, and says with `Elsewhere` what it cannot answer.
    """

    def __init__(
        self, server: str, limits: HubLimits | None = None, *, is_alone: bool = True
    ) -> None:
        self._server = server
        self._is_alone = is_alone
        self._limits = limits or HubLimits()
        self._rooms: dict[str, _Room] = {}
        self._peers: dict[int, _Peer] = {}
        # Connection -> register by when; in the order of coming, so oldest first.
        self._unregistered: dict[int, float] = {}
        self._malformed: dict[int, int] = {}
        # Those whose admission ends before the room does: few, so a search is cheap.
        self._ending: dict[int, _Peer] = {}
        self._held = HeldMessages()
        # Room -> until when. A registration that was verified while the room was
        # being closed must not bring the room back.
        self._closed_rooms: dict[str, float] = {}
        self._handlers: Final[
            Mapping[type, Callable[[_Peer, ClientMessage, float], list[Instruction]]]
        ] = {
            Register: self._register_again,
            DiscoverPeers: self._discover,
            UpdateMetadata: self._update_metadata,
            PeerMessage: self._relay,
            Offer: self._relay,
            Answer: self._relay,
            Candidate: self._relay,
            Ping: self._ping,
        }

    # -- connections ------------------------------------------------------------

    def connected(self, connection: int, now: float) -> None:
        """Take note of a new socket, which must register in time."""
        self._unregistered[connection] = now + self._limits.register_deadline_s

    def disconnected(
        self, connection: int, now: float, *, is_lost: bool = False
    ) -> None:
        """Take note that a socket is gone; its peer id stays reserved for a while.

        Args:
            connection: which one.
            now: Unix time in seconds.
            is_lost: it broke; a peer that closes it does not come back at once.
        """
        self._forget(connection, now, is_lost=is_lost)

    def is_registered(self, connection: int) -> bool:
        """Tell whether the connection has entered a room."""
        return connection in self._peers

    def knows(self, connection: int) -> bool:
        """Tell whether the connection may still speak."""
        return connection in self._peers or connection in self._unregistered

    def handle(
        self,
        connection: int,
        message: ClientMessage,
        now: float,
        admission: Admission | RtcError | None = None,
    ) -> list[Instruction]:
        """Carry out one message.

        Args:
            connection: on which socket it came.
            message: what came.
            now: Unix time in seconds.
            admission: for `Register`, what its token admits to, or why it does not.

        Returns:
            One reply to the command's sender and what else is to be done; nothing
            at all for a connection that was told to close before. What is said to a
            peer that was lost a moment ago has its reply later, from a call that
            brings the peer back or from `expire`.
        """
        peer = self._peers.get(connection)
        if peer is not None:
            try:
                return self._handlers[type(message)](peer, message, now)
            except RtcError as error:
                return [self._refusal(connection, message.id, error)]
        if connection not in self._unregistered:
            return []
        if not isinstance(message, Register):
            return self._refuse_and_close(
                connection, message.id, NotRegistered(), CloseCode.NOT_REGISTERED, now
            )
        try:
            return self._register(connection, message, now, admission)
        except RtcError as error:
            return self._refuse_and_close(
                connection, message.id, error, CloseCode.REGISTRATION_REFUSED, now
            )

    def malformed(
        self, connection: int, error: RtcError, now: float
    ) -> list[Instruction]:
        """Answer what could not be read.

        After a few of these, or one before registering, the socket is closed.
        """
        if not self.knows(connection):
            return []
        self._malformed[connection] = self._malformed.get(connection, 0) + 1
        if (
            connection in self._unregistered
            or self._malformed[connection] >= MAX_MALFORMED_MESSAGES
        ):
            return self._refuse_and_close(
                connection, "", error, CloseCode.PROTOCOL_BROKEN, now
            )
        return [self._refusal(connection, "", error)]

    def refuse(
        self, connection: int, command_id: str, error: RtcError
    ) -> list[Instruction]:
        """Answer a command that the switchboard does not let through."""
        if not self.knows(connection):
            return []
        return [self._refusal(connection, command_id, error)]

    def drop(self, connection: int, code: CloseCode, now: float) -> list[Instruction]:
        """Close a connection for the switchboard's own reasons."""
        if not self.knows(connection):
            return []
        self._forget(connection, now)
        return [Disconnect(connection, code)]

    # -- rooms ------------------------------------------------------------------

    def close_room(self, room_id: str, now: float) -> list[Instruction]:
        """Send everybody out of a room that was deleted."""
        self._closed_rooms.pop(room_id, None)
        self._closed_rooms[room_id] = now + CLOSED_ROOM_REMEMBERED_S
        return self._empty(room_id)

    def end_room(self, room_id: str) -> list[Instruction]:
        """Send everybody out of a room whose time is over."""
        return self._empty(room_id)

    def extend(self, room_id: str, expires_at: float) -> None:
        """Take note that a room lives longer: a worker is in it elsewhere."""
        room = self._rooms.get(room_id)
        if room is not None:
            room.expires_at = expires_at

    def revoke(
        self, room_id: str, now: float, *, credential_id: str = "", account_id: str = ""
    ) -> list[Instruction]:
        """Send those out of a room whom a credential or an account let in."""
        room = self._rooms.get(room_id)
        gone = [
            peer
            for peer in ([] if room is None else room.peers.values())
            if (credential_id and peer.credential_id == credential_id)
            or (account_id and peer.account_id == account_id)
        ]
        for peer in gone:
            self._forget(peer.connection, now)
        return [Disconnect(peer.connection, CloseCode.REVOKED) for peer in gone]

    def peers(self, room_id: str) -> list[PeerInfo]:
        """Return who is registered in a room, in the order of connecting."""
        room = self._rooms.get(room_id)
        return [] if room is None else [_shown(peer) for peer in room.peers.values()]

    def restore(self, kept: KeepPeerId, expires_at: float, now: float) -> None:
        """Reserve an id that a worker held before the server was started again.

        Args:
            kept: as it was written down.
            expires_at: when its room ends.
            now: Unix time in seconds.
        """
        room = self._rooms.setdefault(kept.room_id, _Room(expires_at))
        room.reserved[kept.peer_id] = _Reservation(
            kept.resume_digest,
            "worker",
            until=now + self._limits.reserved_s,
            held_until=now + HELD_AFTER_LOSS_S,
        )

    def room_ends(self, room_id: str) -> float | None:
        """Return when a room with peers in it ends, as Unix time."""
        room = self._rooms.get(room_id)
        return room.expires_at if room is not None and room.peers else None

    def has_room(self, room_id: str) -> bool:
        """Tell whether peers are in the room, or may come back to their ids."""
        return room_id in self._rooms

    def has_peer(self, room_id: str, peer_id: str) -> bool:
        """Tell whether the peer is registered in the room at this moment."""
        room = self._rooms.get(room_id)
        return room is not None and peer_id in room.peers

    # -- what other instances say ------------------------------------------------------

    def arrived(
        self, room_id: str, peer_id: str, message: RelayedMessage
    ) -> list[Instruction]:
        """Deliver what a peer of another instance says; nothing if nobody is here."""
        room = self._rooms.get(room_id)
        peer = None if room is None else room.peers.get(peer_id)
        return [] if peer is None else [Deliver(peer.connection, message)]

    def moved(self, room_id: str, peer_id: str) -> list[Instruction]:
        """Let go of a peer that has registered at another instance."""
        room = self._rooms.get(room_id)
        if room is None:
            return []
        room.reserved.pop(peer_id, None)
        peer = room.peers.pop(peer_id, None)
        if peer is None:
            return []
        self._unseat(peer)
        return [Disconnect(peer.connection, CloseCode.REPLACED)]

    def presence(self, room_id: str, peer_id: str, now: float) -> Presence:
        """Tell where a peer is, as far as this instance knows."""
        room = self._rooms.get(room_id)
        if room is None:
            return "gone"
        if peer_id in room.peers:
            return "here"
        kept = room.reserved.get(peer_id)
        return "away" if kept is not None and now < kept.held_until else "gone"

    def hold(self, held: Held, now: float) -> list[Instruction]:
        """Let a message wait for a peer that is coming back, to whichever instance."""
        if held.sender not in self._peers or self._held.hold(held, now):
            return []
        return [self._not_found(held)]

    def not_found(self, held: Held) -> list[Instruction]:
        """Answer a message whose target is nowhere."""
        return [self._not_found(held)] if held.sender in self._peers else []

    def waits(self, room_id: str, peer_id: str) -> bool:
        """Tell whether anything waits for this peer."""
        return self._held.waits(room_id, peer_id)

    def waiting(self) -> set[tuple[str, str]]:
        """Return for whom messages wait: rooms and peer ids."""
        return self._held.targets()

    def take_held(self, room_id: str, peer_id: str) -> list[Held]:
        """Take what waits for a peer that is back at another instance."""
        return self._held.release(room_id, peer_id)

    def found(self, wanted: FindPeers, peers: list[PeerInfo]) -> list[Instruction]:
        """Answer a query from the peers of all instances."""
        if wanted.connection not in self._peers:
            return []
        return [self._listed(wanted.connection, wanted.query, peers)]

    def deadline(self) -> float | None:
        """Return when `expire` wants to be called, as Unix time, or None."""
        # The first of a dict that is in the order of time is the earliest.
        times = [*islice(self._unregistered.values(), 1)]
        times += islice(self._closed_rooms.values(), 1)
        times += (peer.until for peer in self._ending.values() if peer.until)
        held_until = self._held.deadline()
        if held_until is not None:
            times.append(held_until)
        for room in self._rooms.values():
            times.append(self._room_deadline(room))
            times += (kept.until for kept in islice(room.reserved.values(), 1))
        return min(times, default=None)

    def expire(self, now: float) -> list[Instruction]:
        """Do what is due: late registrations, reservations, rooms."""
        instructions: list[Instruction] = []
        for connection, until in list(self._unregistered.items()):
            if until <= now:
                self._forget(connection, now)
                instructions.append(Disconnect(connection, CloseCode.REGISTER_DEADLINE))
        for connection, peer in list(self._ending.items()):
            if peer.until is not None and peer.until <= now:
                self._forget(connection, now)
                instructions.append(Disconnect(connection, CloseCode.REVOKED))
        for held in self._held.expire(now):
            instructions.append(self._not_found(held))
        for room_id, until in list(self._closed_rooms.items()):
            if until <= now:
                del self._closed_rooms[room_id]
        for room_id, room in list(self._rooms.items()):
            for peer_id, kept in list(room.reserved.items()):
                if kept.until <= now:
                    del room.reserved[peer_id]
                    if kept.role == "worker":
                        instructions.append(DropPeerId(room_id, peer_id))
            if self._room_deadline(room) <= now:
                instructions += self._room_due(room_id, room, now)
            elif not room.peers and not room.reserved:
                del self._rooms[room_id]
        return instructions

    def counts(self) -> Counts:
        """Return how many rooms and peers there are."""
        peers = {"worker": 0, "client": 0}
        for peer in self._peers.values():
            peers[peer.role] += 1
        rooms = sum(1 for room in self._rooms.values() if room.peers)
        return Counts(rooms=rooms, peers=peers, unregistered=len(self._unregistered))

    def _room_deadline(self, room: _Room) -> float:
        if not room.has_worker():
            return room.expires_at
        return room.expires_at - ROOM_RENEW_FRACTION * self._limits.room_lifetime_s

    def _room_due(self, room_id: str, room: _Room, now: float) -> list[Instruction]:
        if not room.has_worker():
            if self._is_alone:
                return self._empty(room_id)
            # Workers at other instances may have renewed it; until that is known, it
            # is as it was.
            room.expires_at = now + ROOM_CHECK_S
            return [CheckRoom(room_id)]
        room.expires_at = now + self._limits.room_lifetime_s
        return [RenewRoom(room_id, room.expires_at)]

    def _empty(self, room_id: str) -> list[Instruction]:
        room = self._rooms.pop(room_id, None)
        peers = [] if room is None else list(room.peers.values())
        self._held.drop_room(room_id)
        for peer in peers:
            del self._peers[peer.connection]
            self._malformed.pop(peer.connection, None)
            self._ending.pop(peer.connection, None)
        ended = [Disconnect(peer.connection, CloseCode.ROOM_ENDED) for peer in peers]
        return [*ended, RoomEnded(room_id)]

    def _unseat(self, peer: _Peer) -> None:
        """Forget the socket of a peer that goes on with another one."""
        del self._peers[peer.connection]
        self._malformed.pop(peer.connection, None)
        self._ending.pop(peer.connection, None)
        self._held.drop_sender(peer.connection)

    def _forget(self, connection: int, now: float, *, is_lost: bool = False) -> None:
        self._unregistered.pop(connection, None)
        self._malformed.pop(connection, None)
        self._ending.pop(connection, None)
        peer = self._peers.pop(connection, None)
        if peer is None:
            return
        self._held.drop_sender(connection)
        room = self._rooms[peer.room_id]
        del room.peers[peer.peer_id]
        room.reserved[peer.peer_id] = _Reservation(
            peer.resume_digest,
            peer.role,
            until=now + self._limits.reserved_s,
            held_until=now + HELD_AFTER_LOSS_S if is_lost else now,
        )

    # -- registering --------------------------------------------------------------

    def check(
        self, message: Register, now: float, admission: Admission | RtcError | None
    ) -> Admission:
        """Check a registration but for its peer id, without a change.

        Raises:
            RtcError: why it is refused.
        """
        if isinstance(admission, RtcError):
            raise admission
        if admission is None or admission.room_id != message.room_id:
            raise TokenRefused(server=self._server, reason="it is for another room")
        if admission.expires_at <= now or message.room_id in self._closed_rooms:
            raise RoomGone(server=self._server)
        if message.role not in admission.roles:
            raise NotAllowed(action=f"enter this room as a {message.role}")
        check_metadata(message.metadata)
        return admission

    def _register(
        self,
        connection: int,
        message: Register,
        now: float,
        admission: Admission | RtcError | None,
    ) -> list[Instruction]:
        admission = self.check(message, now, admission)
        room = self._rooms.get(message.room_id) or _Room(admission.expires_at)
        digest = resume_digest(message)
        instructions = self._claim(room, message.peer_id, digest)
        # Only now, when nothing can be refused any more, does anything change.
        self._rooms[message.room_id] = room
        room.expires_at = max(room.expires_at, admission.expires_at)
        before = room.reserved.pop(message.peer_id, None)
        replaced = room.peers.pop(message.peer_id, None)
        if replaced is not None:
            self._unseat(replaced)
        peer = _Peer(
            connection=connection,
            room_id=message.room_id,
            peer_id=message.peer_id,
            role=message.role,
            resume_digest=digest,
            metadata=message.metadata,
            connected_at=now,
            credential_id=admission.credential_id,
            account_id=admission.account_id,
            until=admission.until,
        )
        known = replaced or before
        was_worker = known is not None and known.role == "worker"
        if message.role == "worker" and not was_worker:
            instructions.append(KeepPeerId(peer.room_id, peer.peer_id, digest))
        elif was_worker and message.role != "worker":
            instructions.append(DropPeerId(peer.room_id, peer.peer_id))
        del self._unregistered[connection]
        self._peers[connection] = peer
        if peer.until is not None:
            self._ending[connection] = peer
        room.peers[peer.peer_id] = peer
        registered = Registered(
            id=message.id,
            peer_id=peer.peer_id,
            room_id=peer.room_id,
            expires_at=room.expires_at,
        )
        return [
            *instructions,
            Reply(connection, registered),
            *self._release(peer),
        ]

    def _release(self, peer: _Peer) -> list[Instruction]:
        """Deliver what was said while the peer was on its way back."""
        released: list[Instruction] = []
        for held in self._held.release(peer.room_id, peer.peer_id):
            released.append(Deliver(peer.connection, held.message))
            released.append(Reply(held.sender, Delivered(id=held.command_id)))
        return released

    def _claim(self, room: _Room, peer_id: str, digest: bytes) -> list[Instruction]:
        """Check that the id is free or its holder's own, without a change yet."""
        holder = room.peers.get(peer_id)
        if holder is not None:
            if not hmac.compare_digest(holder.resume_digest, digest):
                raise PeerIdTaken(peer_id=peer_id)
            return [Disconnect(holder.connection, CloseCode.REPLACED)]
        if len(room.peers) >= MAX_PEERS_PER_ROOM:
            raise TooMany(what="peers in this room", limit=str(MAX_PEERS_PER_ROOM))
        reservation = room.reserved.get(peer_id)
        if reservation is not None:
            if not hmac.compare_digest(reservation.resume_digest, digest):
                raise PeerIdTaken(peer_id=peer_id)
            return []
        # A reservation is never pushed out by newer ones: whoever could do that
        # could take a worker's id while it reconnects.
        if len(room.peers) + len(room.reserved) >= MAX_RESERVED_IDS_PER_ROOM:
            limit = str(MAX_RESERVED_IDS_PER_ROOM)
            raise TooMany(what="peer ids in use in this room", limit=limit)
        return []

    def _register_again(
        self, peer: _Peer, message: ClientMessage, now: float
    ) -> list[Instruction]:
        raise BadRequest(reason="this connection is registered already")

    # -- commands of a registered peer ----------------------------------------------

    def _discover(
        self, peer: _Peer, message: ClientMessage, now: float
    ) -> list[Instruction]:
        assert isinstance(message, DiscoverPeers)  # noqa: S101 -- for the type checker
        if not self._is_alone:
            compile_filter(message)
            return [FindPeers(peer.connection, peer.room_id, message)]
        return [self._listed(peer.connection, message, self.peers(peer.room_id))]

    def _listed(
        self, connection: int, query: DiscoverPeers, peers: list[PeerInfo]
    ) -> Reply:
        wanted = compile_filter(query)
        found = [info for info in peers if wanted.matches(info.role, info.metadata)]
        listed = fit_into_list(found[:MAX_PEERS_LISTED])
        return Reply(connection, PeerList(id=query.id, peers=listed))

    def _update_metadata(
        self, peer: _Peer, message: ClientMessage, now: float
    ) -> list[Instruction]:
        assert isinstance(message, UpdateMetadata)  # noqa: S101 -- for the type checker
        check_metadata(message.metadata)
        peer.metadata = message.metadata
        reply = Reply(peer.connection, MetadataUpdated(id=message.id))
        if self._is_alone:
            return [reply]
        return [ShowMetadata(peer.connection, message.metadata, reply)]

    def _relay(
        self, peer: _Peer, message: ClientMessage, now: float
    ) -> list[Instruction]:
        assert isinstance(message, Offer | Answer | Candidate | PeerMessage)  # noqa: S101 -- for the type checker
        stamped = relayed(peer.peer_id, message)
        room = self._rooms[peer.room_id]
        target = room.peers.get(message.to)
        if target is None:
            held = Held(peer.connection, message.id, peer.room_id, message.to, stamped)
            if not self._is_alone:
                return [Forward(held)]
            if self.presence(peer.room_id, message.to, now) == "gone":
                return [self._not_found(held)]
            return self.hold(held, now)
        return [
            Deliver(target.connection, stamped),
            Reply(peer.connection, Delivered(id=message.id)),
        ]

    def _ping(
        self, peer: _Peer, message: ClientMessage, now: float
    ) -> list[Instruction]:
        return [Reply(peer.connection, Pong(id=message.id, time=now))]

    # -- refusals -----------------------------------------------------------------

    def _not_found(self, held: Held) -> Reply:
        error = PeerNotFound(peer_id=held.to)
        return self._refusal(held.sender, held.command_id, error)

    def _refusal(self, connection: int, command_id: str, error: RtcError) -> Reply:
        info = error.to_wire()
        refusal = ServerError(
            id=command_id, code=info.code, message=str(error), fields=info.fields
        )
        return Reply(connection, refusal)

    def _refuse_and_close(
        self,
        connection: int,
        command_id: str,
        error: RtcError,
        code: CloseCode,
        now: float,
    ) -> list[Instruction]:
        self._forget(connection, now)
        refusal = self._refusal(connection, command_id, error)
        return [refusal, Disconnect(connection, code)]


def resume_digest(message: Register) -> bytes:
    """Return SHA-256 of a resume key: all that is kept of it."""
    return hashlib.sha256(message.resume_key.encode()).digest()


def _shown(peer: _Peer) -> PeerInfo:
    return PeerInfo(
        peer_id=peer.peer_id,
        role=peer.role,
        metadata=peer.metadata,
        connected_at=peer.connected_at,
    )
