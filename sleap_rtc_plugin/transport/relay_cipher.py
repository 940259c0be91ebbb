"""The encryption of what goes through the signaling server's relay.

The relay sees both peers' public keys and could put its own in their place; it does not
know the session's secret. So the keys come from both: an ephemeral X25519 exchange
(RFC 7748) and the secret, through HKDF-SHA256 (RFC 5869). Frames are sealed with
ChaCha20-Poly1305 (RFC 8439), a key for each direction and a counter as the nonce.
Pure; driven by `transport.relay_link`.
"""

import hashlib
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import (
    X25519PrivateKey,
    X25519PublicKey,
)
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sleap_rtc_plugin.protocol.errors import (
    LocalProtocolError,
    PeerNotAuthenticated,
    RemoteProtocolError,
)
from sleap_rtc_plugin.protocol.limits import MAX_RELAY_FRAME_BYTES, SECRET_BYTES

__all__ = ["HELLO_BYTES", "KEY_BYTES", "Record", "RecordKind", "RelayCipher"]

KEY_BYTES: Final = 32
_LABEL: Final = b"sleap-rtc relay 1"
_HELLO: Final = b"SRR1"
_ROLES: Final = {"client": b"c", "worker": b"w"}
HELLO_BYTES: Final = len(_HELLO) + 1 + KEY_BYTES
_NONCE_BYTES: Final = 12
# Far more frames than can ever be sent; a nonce is never used twice.
_MAX_FRAMES: Final = 2**48


class RecordKind(IntEnum):
    """What a sealed frame holds; the values are the first byte of what is sealed."""

    CONFIRM = 0
    """Nothing: it shows that its sender has the keys."""
    CONTROL = 1
    """The last or only piece of a control frame."""
    CONTROL_PIECE = 2
    """A piece of a control frame that goes on."""
    TRANSFER = 3
    """The last or only piece of a transfer frame."""
    TRANSFER_PIECE = 4
    """A piece of a transfer frame that goes on."""
    TAKEN = 5
    """How many bytes of the peer's pieces have arrived in all, 8 bytes big-endian."""
    END = 6
    """The sender closes; a connection that ends without it was cut off."""


@dataclass(frozen=True)
class Record:
    """What was in a sealed frame."""

    kind: RecordKind
    payload: bytes = b""


class RelayCipher:
    """One end's keys for one meeting on a relay.

    Send `hello` first; give the peer's to `take_hello`, and what it returns is the
    next to send. Then `seal` and `open` frames, each in the order of its direction.
    Any error ends the meeting.
    """

    def __init__(
        self,
        *,
        role: Literal["client", "worker"],
        secret: bytes,
        relay_id: str,
        private_key: bytes,
    ) -> None:
        """Prepare a meeting.

        Args:
            role: our own.
            secret: the session's, 32 bytes.
            relay_id: the meeting's.
            private_key: 32 fresh random bytes, never used before.

        Raises:
            LocalProtocolError: a secret or key of the wrong length.
        """
        if len(secret) != SECRET_BYTES or len(private_key) != KEY_BYTES:
            raise LocalProtocolError(detail="a secret or key of the wrong length")
        self._role = role
        self._peer_role: Literal["client", "worker"] = (
            "worker" if role == "client" else "client"
        )
        self._secret = secret
        self._relay_id = relay_id
        self._private = X25519PrivateKey.from_private_bytes(private_key)
        public = self._private.public_key().public_bytes_raw()
        self.hello = _HELLO + _ROLES[role] + public
        self._sealing: ChaCha20Poly1305 | None = None
        self._opening: ChaCha20Poly1305 | None = None
        self._sealed = 0
        self._opened = 0
        self._has_ended = False
        self.is_confirmed = False
        self._bindings: dict[str, bytes] = {}

    def take_hello(self, frame: bytes) -> bytes:
        """Take the peer's first frame and return our next.

        Raises:
            RemoteProtocolError: it is not the first frame of the other role.
        """
        expected = _HELLO + _ROLES[self._peer_role]
        if len(frame) != HELLO_BYTES or not frame.startswith(expected):
            raise RemoteProtocolError(detail="a first frame that the relay cannot use")
        if self._opening is not None:
            raise RemoteProtocolError(detail="a second first frame")
        try:
            public = X25519PublicKey.from_public_bytes(frame[len(expected) :])
            shared = self._private.exchange(public)
        except ValueError:
            # All zeros: a point of small order (RFC 7748 section 6.1).
            raise RemoteProtocolError(detail="a public key of no use") from None
        hellos = {self._role: self.hello, self._peer_role: frame}
        transcript = hashlib.sha256(_LABEL)
        for part in (self._relay_id.encode(), hellos["client"], hellos["worker"]):
            transcript.update(hashlib.sha256(part).digest())
        keys = HKDF(
            algorithm=hashes.SHA256(),
            length=4 * KEY_BYTES,
            salt=transcript.digest(),
            info=_LABEL,
        ).derive(shared + self._secret)
        parts = [keys[i : i + KEY_BYTES] for i in range(0, len(keys), KEY_BYTES)]
        sending = dict(zip(("client", "worker"), parts[:2], strict=True))
        self._bindings = dict(zip(("client", "worker"), parts[2:], strict=True))
        self._sealing = ChaCha20Poly1305(sending[self._role])
        self._opening = ChaCha20Poly1305(sending[self._peer_role])
        return self.seal(Record(RecordKind.CONFIRM))

    @property
    def local_fingerprint(self) -> str:
        """What stands for our certificate in the proofs of AUTH: `AB:CD:…`.

        It depends on both public keys and the secret, so it is another one on any
        other connection, and with anybody in between.
        """
        return self._bindings[self._role].hex(":").upper()

    @property
    def remote_fingerprint(self) -> str:
        """The same for the peer."""
        return self._bindings[self._peer_role].hex(":").upper()

    def seal(self, record: Record) -> bytes:
        """Return the frame for a record.

        Raises:
            LocalProtocolError: there are no keys yet, or no nonces any more.
        """
        if self._sealing is None or self._sealed >= _MAX_FRAMES:
            raise LocalProtocolError(detail="a relayed frame without a key")
        nonce = self._sealed.to_bytes(_NONCE_BYTES, "big")
        self._sealed += 1
        plain = bytes((record.kind,)) + record.payload
        return self._sealing.encrypt(nonce, plain, None)

    def open(self, frame: bytes) -> Record:
        """Return what is in the peer's next frame.

        Raises:
            PeerNotAuthenticated: its first is not sealed with the session's secret.
            RemoteProtocolError: a later one was changed, left out, repeated or put in
                another place, or is none of the protocol's.
        """
        if self._opening is None or len(frame) > MAX_RELAY_FRAME_BYTES:
            raise RemoteProtocolError(detail="a relayed frame out of place")
        if self._has_ended:
            raise RemoteProtocolError(detail="a relayed frame after the last one")
        nonce = self._opened.to_bytes(_NONCE_BYTES, "big")
        try:
            plain = self._opening.decrypt(nonce, frame, None)
        except InvalidTag:
            if not self.is_confirmed:
                raise PeerNotAuthenticated(peer=f"The {self._peer_role}") from None
            detail = "a relayed frame that is not the one that was sent"
            raise RemoteProtocolError(detail=detail) from None
        self._opened += 1
        try:
            record = Record(RecordKind(plain[0]), plain[1:])
        except (ValueError, IndexError):
            raise RemoteProtocolError(detail="an unknown relayed record") from None
        if (record.kind is RecordKind.CONFIRM) is self.is_confirmed:
            raise RemoteProtocolError(detail="a relayed record out of place")
        self.is_confirmed = True
        self._has_ended = record.kind is RecordKind.END
        return record
