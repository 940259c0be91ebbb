"""The encryption of a pairing: SPAKE2 (RFC 9382) over the code, then a sealed string.

Both sides know a short code. Whoever is between them, the signaling server too, learns
nothing that would let it try words: one message each way commits to one guess. The
claimer proves its key first, so a guesser gets one try and no sealed text to try others
on. The group is `spake2`'s, edwards25519; keys come from HKDF-SHA256 (RFC 5869), the
seal is ChaCha20-Poly1305 (RFC 8439). Pure but for randomness; called by
`session.pairing`.
"""

import hashlib
import hmac
from collections.abc import Sequence
from typing import Final, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from spake2 import SPAKE2_A, SPAKE2_B

from sleap_rtc_plugin.protocol.errors import LocalProtocolError, PairingFailed

__all__ = ["PairingCipher"]

_WORKER: Final = b"sleap-rtc pairing 1 worker"
_CLAIMER: Final = b"sleap-rtc pairing 1 claimer"
_PROOF: Final = b"proof of the claimer"
_SEAL: Final = b"seal of the worker"
_KEY_BYTES: Final = 32
# Each key seals one message, so the nonce may be a constant.
_NONCE: Final = bytes(12)


class PairingCipher:
    """One side of one pairing; it may be used once.

    Args:
        side: `worker` shows the code and has the string, `claimer` types it.
        words: the words that were shown or typed. The number is not among them: the
            server gives it only after the worker's first message.
    """

    def __init__(
        self, side: Literal["worker", "claimer"], words: Sequence[str]
    ) -> None:
        self._side = side
        kind = SPAKE2_A if side == "worker" else SPAKE2_B
        self._spake = kind("-".join(words).encode(), idA=_WORKER, idB=_CLAIMER)
        self.message: Final[bytes] = self._spake.start()
        """What goes to the other side."""
        self._transcript = b""
        self._keys: tuple[bytes, bytes] | None = None

    def receive(self, message: bytes) -> None:
        """Take the other side's message.

        Raises:
            PairingFailed: it is none, or this side's own.
        """
        if self._keys is not None:
            raise LocalProtocolError(detail="a pairing takes one message")
        try:
            shared = self._spake.finish(message)
        # Whatever a hostile message makes the library raise, the answer is no.
        except Exception:
            raise PairingFailed(reason="what came is no message") from None
        ours, theirs = self.message, message
        first, second = (ours, theirs) if self._side == "worker" else (theirs, ours)
        self._transcript = hashlib.sha256(first + second).digest()
        self._keys = self._derive(shared, _PROOF), self._derive(shared, _SEAL)

    def prove(self) -> bytes:
        """Return the claimer's proof that it knew the code."""
        proof_key, _ = self._agreed()
        return hmac.digest(proof_key, self._transcript, "sha256")

    def check(self, proof: bytes) -> None:
        """Check the claimer's proof.

        Raises:
            PairingFailed: other words were typed.
        """
        if not hmac.compare_digest(self.prove(), proof):
            raise PairingFailed(reason="other words were typed")

    def seal(self, text: str) -> bytes:
        """Seal the session string for a claimer that has proved itself."""
        _, seal_key = self._agreed()
        sealer = ChaCha20Poly1305(seal_key)
        return sealer.encrypt(_NONCE, text.encode(), self._transcript)

    def unseal(self, sealed: bytes) -> str:
        """Open what the worker sealed.

        Raises:
            PairingFailed: it was not sealed by a worker that showed this code.
        """
        _, seal_key = self._agreed()
        try:
            text = ChaCha20Poly1305(seal_key).decrypt(_NONCE, sealed, self._transcript)
            return text.decode()
        except (InvalidTag, UnicodeDecodeError):
            reason = "what came was not sealed by the worker"
            raise PairingFailed(reason=reason) from None

    def _agreed(self) -> tuple[bytes, bytes]:
        if self._keys is None:
            raise LocalProtocolError(detail="the other side has said nothing yet")
        return self._keys

    def _derive(self, shared: bytes, label: bytes) -> bytes:
        return HKDF(
            algorithm=hashes.SHA256(),
            length=_KEY_BYTES,
            salt=self._transcript,
            info=label,
        ).derive(shared)
