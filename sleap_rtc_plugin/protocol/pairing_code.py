"""PURE: the code that a worker shows and somebody types: a number and three words.

`7-copper-otter-lagoon`: the number says to the signaling server which pairing is meant,
the words are known to the two sides alone. Reading is lenient with capitals, spaces and
words that are not finished, since a person types it. Called by both sides.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final, Self

from sleap_rtc_plugin.protocol.errors import PairingRefused
from sleap_rtc_plugin.protocol.limits import (
    MAX_PAIRING_CODE_CHARS,
    MAX_PAIRING_NUMBER,
)
from sleap_rtc_plugin.protocol.pairing_words import PAIRING_WORDS

__all__ = ["CODE_WORDS", "PairingCode", "is_like_a_code"]

CODE_WORDS: Final = 3
_SEPARATORS: Final = re.compile(r"[\s\-_.,]+")
# So much of a word tells it from the others.
_TELLING_CHARS: Final = 4
_LIKE: Final = re.compile(r"\s*[0-9]{1,5}[\s\-_.,]+[A-Za-z]")


@dataclass(frozen=True)
class PairingCode:
    """A code.

    Attributes:
        number: which pairing of the server; everybody may know it.
        words: what only the two sides know.
    """

    number: int
    words: tuple[str, ...]

    def __repr__(self) -> str:
        """Show the code without its words."""
        return f"PairingCode({self.number!r})"

    def __str__(self) -> str:
        """Return the code as it is shown and typed."""
        return "-".join((str(self.number), *self.words))

    @classmethod
    def from_random(cls, number: int, random: bytes) -> Self:
        """Make a code.

        Args:
            number: as the server gave it.
            random: `CODE_WORDS` bytes from a secure random source.
        """
        if len(random) != CODE_WORDS:
            raise ValueError(f"{CODE_WORDS} bytes are needed, not {len(random)}")
        return cls(number, tuple(PAIRING_WORDS[byte] for byte in random))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what somebody typed.

        Raises:
            PairingRefused: it is no code; a word that is nearly one is named.
        """
        if len(text) > MAX_PAIRING_CODE_CHARS:
            raise PairingRefused(reason="it is too long")
        first, *rest = _SEPARATORS.split(text.strip().lower()) or [""]
        if not (first.isascii() and first.isdigit()):
            raise PairingRefused(reason="it begins with a number, such as 7")
        number = int(first)
        if not 0 < number <= MAX_PAIRING_NUMBER:
            raise PairingRefused(reason="there is no such number")
        if len(rest) != CODE_WORDS:
            raise PairingRefused(
                reason=f"after the number come {CODE_WORDS} words, not {len(rest)}"
            )
        return cls(number, tuple(_word(typed) for typed in rest))


def is_like_a_code(text: str) -> bool:
    """Tell whether somebody meant to type a code, right or wrong."""
    return _LIKE.match(text[:MAX_PAIRING_CODE_CHARS]) is not None


def _word(typed: str) -> str:
    if typed in PAIRING_WORDS:
        return typed
    begun = [word for word in PAIRING_WORDS if word.startswith(typed)]
    if len(typed) >= _TELLING_CHARS and len(begun) == 1:
        return begun[0]
    raise PairingRefused(reason=_unknown(typed, begun))


def _unknown(typed: str, begun: Sequence[str]) -> str:
    # Only what is a plain word is repeated to whoever reads the message.
    shown = typed if typed.isascii() and typed.isalpha() else "one word"
    near = begun[:1] or get_close_matches(typed, PAIRING_WORDS, n=1)
    hint = f"; {near[0]} is" if near else ""
    return f"{shown} is none of its words{hint}"
