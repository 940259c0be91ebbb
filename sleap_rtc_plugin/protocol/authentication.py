"""HELLO and AUTH: two peers prove to each other that they know the secret.

The proof is an HMAC-SHA256 (RFC 2104) under the session's secret over the sender's
role, both HELLO frames with their nonces, and both DTLS certificate fingerprints
(RFC 8122). A relay at the signaling server has certificates of its own, so its
proofs cannot match. Pure; driven by `transport.peer`, on each side of a link.
"""

import hashlib
import hmac
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

from sleap_rtc_plugin.protocol.codec import encode_control
from sleap_rtc_plugin.protocol.errors import (
    LocalProtocolError,
    PeerNotAuthenticated,
    RemoteProtocolError,
    VersionMismatch,
)
from sleap_rtc_plugin.protocol.limits import (
    HANDSHAKE_TIMEOUT_S,
    NONCE_BYTES,
    PROTOCOL_VERSION_MAX,
    PROTOCOL_VERSION_MIN,
    SECRET_BYTES,
)
from sleap_rtc_plugin.protocol.messages import Auth, ControlMessage, Hello

__all__ = [
    "Authenticated",
    "Handshake",
    "HandshakeState",
    "Instruction",
    "SendFrame",
    "sdp_fingerprint",
]

PeerRole = Literal["client", "worker"]

_LABEL: Final = b"sleap-rtc peer authentication 1"
_FINGERPRINT: Final = re.compile(
    r"^a=fingerprint:(\S+) ([0-9A-Fa-f:]+)\s*$", re.MULTILINE
)
_SHA256_HEX: Final = re.compile(r"(?:[0-9A-F]{2}:){31}[0-9A-F]{2}\Z")


class HandshakeState(StrEnum):
    """Where a handshake stands."""

    IDLE = "idle"
    AWAIT_HELLO = "await_hello"
    AWAIT_AUTH = "await_auth"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class SendFrame:
    """Send this text frame on the control channel."""

    frame: str


@dataclass(frozen=True)
class Authenticated:
    """Both proofs hold; the link may now be used.

    Attributes:
        version: the protocol version both sides speak.
        features: the optional features that both sides named.
        software: what the peer says it runs.
        engine: what the peer says moves its data channels.
    """

    version: int
    features: frozenset[str]
    software: str
    engine: str = ""


Instruction = SendFrame | Authenticated


class Handshake:
    """One side's view of one handshake on one link.

    Call `start` when the control channel is open, then `handle` with each frame as
    it came and as it was decoded. Close the link on any error it raises, and when
    `deadline` passes.
    """

    def __init__(
        self,
        *,
        role: PeerRole,
        secret: bytes,
        nonce: bytes,
        local_fingerprint: str,
        remote_fingerprint: str,
        software: str = "",
        features: frozenset[str] = frozenset(),
        engine: str = "",
    ) -> None:
        """Prepare a handshake.

        Args:
            role: our own role.
            secret: the session's secret, 32 bytes.
            nonce: 32 fresh random bytes, never used before.
            local_fingerprint: SHA-256 of our certificate, `AB:CD:…`.
            remote_fingerprint: SHA-256 of the certificate DTLS verified.
            software: our name and version, for logs.
            features: the optional features that we offer.
            engine: what moves our data channels, for logs.

        Raises:
            LocalProtocolError: a secret or nonce of the wrong length.
        """
        if len(secret) != SECRET_BYTES or len(nonce) != NONCE_BYTES:
            raise LocalProtocolError(detail="a secret or nonce of the wrong length")
        self._role = role
        self._peer_role: PeerRole = "worker" if role == "client" else "client"
        self._secret = secret
        self._fingerprints = {
            role: _fingerprint_bytes(local_fingerprint),
            self._peer_role: _fingerprint_bytes(remote_fingerprint),
        }
        self._features = features
        self._hello = Hello(
            role=role,
            protocol_min=PROTOCOL_VERSION_MIN,
            protocol_max=PROTOCOL_VERSION_MAX,
            nonce=nonce.hex(),
            software=software,
            engine=engine,
            features=sorted(features),
        )
        self._hello_frames: dict[str, str] = {role: encode_control(self._hello)}
        self._peer_hello: Hello | None = None
        self._version = 0
        self._deadline: float | None = None
        self.state = HandshakeState.IDLE

    def deadline(self) -> float | None:
        """When to give the handshake up, on the clock that `start` was given."""
        return self._deadline

    def start(self, now: float) -> list[Instruction]:
        """Begin: the control channel is open at `now` (seconds)."""
        if self.state is not HandshakeState.IDLE:
            raise LocalProtocolError(detail="a handshake was started twice")
        self.state = HandshakeState.AWAIT_HELLO
        self._deadline = now + HANDSHAKE_TIMEOUT_S
        return [SendFrame(self._hello_frames[self._role])]

    def handle(self, frame: str, message: ControlMessage) -> list[Instruction]:
        """Take the peer's next frame.

        Args:
            frame: the frame exactly as received; the proof covers its bytes.
            message: the same frame, decoded.

        Raises:
            RemoteProtocolError: a frame that does not belong here.
            VersionMismatch: no common version.
            PeerNotAuthenticated: the proof is wrong.
        """
        try:
            if self.state is HandshakeState.AWAIT_HELLO and isinstance(message, Hello):
                return self._on_hello(frame, message)
            if self.state is HandshakeState.AWAIT_AUTH and isinstance(message, Auth):
                return self._on_auth(message)
            raise RemoteProtocolError(detail=f"a {message.NAME} frame before AUTH")
        except Exception:
            self.state = HandshakeState.FAILED
            raise

    def _on_hello(self, frame: str, hello: Hello) -> list[Instruction]:
        if hello.role != self._peer_role:
            raise RemoteProtocolError(detail=f"a HELLO from another {hello.role}")
        if hello.nonce == self._hello.nonce:
            raise PeerNotAuthenticated(peer=f"The {self._peer_role}")
        low = max(hello.protocol_min, PROTOCOL_VERSION_MIN)
        high = min(hello.protocol_max, PROTOCOL_VERSION_MAX)
        if low > high:
            raise VersionMismatch(
                ours=f"{PROTOCOL_VERSION_MIN} to {PROTOCOL_VERSION_MAX}",
                theirs=f"{hello.protocol_min} to {hello.protocol_max}",
            )
        self._version = high
        self._peer_hello = hello
        self._hello_frames[self._peer_role] = frame
        self.state = HandshakeState.AWAIT_AUTH
        return [SendFrame(encode_control(Auth(mac=self._mac(self._role).hex())))]

    def _on_auth(self, auth: Auth) -> list[Instruction]:
        expected = self._mac(self._peer_role)
        if not hmac.compare_digest(expected, bytes.fromhex(auth.mac)):
            raise PeerNotAuthenticated(peer=f"The {self._peer_role}")
        hello = self._peer_hello
        if hello is None:
            raise LocalProtocolError(detail="an AUTH without a HELLO")
        self.state = HandshakeState.DONE
        self._deadline = None
        return [
            Authenticated(
                version=self._version,
                features=self._features & frozenset(hello.features),
                software=hello.software,
                engine=hello.engine,
            )
        ]

    def _mac(self, sender: PeerRole) -> bytes:
        """Return the proof that `sender` sends on this link."""
        proof = hmac.new(self._secret, _LABEL, hashlib.sha256)
        proof.update(hashlib.sha256(sender.encode()).digest())
        for role in ("client", "worker"):
            hello = self._hello_frames[role].encode()
            proof.update(hashlib.sha256(hello).digest())
            proof.update(self._fingerprints[role])
        return proof.digest()


def sdp_fingerprint(sdp: str) -> str:
    """Return the one SHA-256 certificate fingerprint in a session description.

    Raises:
        RemoteProtocolError: none, malformed, or two different ones (then it would
            be unclear which certificate DTLS goes on to verify).
    """
    found = {
        value.upper()
        for algorithm, value in _FINGERPRINT.findall(sdp)
        if algorithm.lower() == "sha-256"
    }
    if len(found) != 1:
        raise RemoteProtocolError(
            detail=f"a session description with {len(found)} SHA-256 fingerprints"
        )
    fingerprint: str = found.pop()
    if not _SHA256_HEX.match(fingerprint):
        raise RemoteProtocolError(detail="a malformed certificate fingerprint")
    return fingerprint


def _fingerprint_bytes(text: str) -> bytes:
    if not _SHA256_HEX.match(text.upper()):
        raise LocalProtocolError(detail="a fingerprint that is not SHA-256")
    return bytes.fromhex(text.replace(":", ""))
