"""A UDP relay between two real peers that loses, repeats and reorders what it carries.

Each end is given the relay's address in place of the other's, so that nothing goes past
it. Connecting goes unharmed: the faults begin with the association, and the same seed
chooses them each time.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Any

__all__ = ["BadLink"]

APPLICATION_DATA = b"\x17"  # the content type of DTLS records, RFC 6347 section 4.3.1
REPEATED, DELAYED, LOST = 0.02, 0.02, 0.02
LONGEST_DELAY_DATAGRAMS = 20

Address = tuple[str, int]


class _Direction:
    """What happens to datagrams on their way to one end."""

    def __init__(self, send: Callable[[bytes], None], seed: str) -> None:
        self._send = send
        self._chance = random.Random(seed)  # noqa: S311 - the same ones in each run
        self._held: list[tuple[int, bytes]] = []
        self._count = 0
        self.faults = 0

    def carry(self, datagram: bytes) -> None:
        self._count += 1
        fate = self._chance.random() if datagram[:1] == APPLICATION_DATA else 1.0
        harmed = fate < REPEATED + DELAYED + LOST
        self.faults += harmed
        if not harmed:
            self._send(datagram)
        elif fate < REPEATED:
            self._send(datagram)
            self._send(datagram)
        elif fate < REPEATED + DELAYED:
            due = self._count + self._chance.randint(1, LONGEST_DELAY_DATAGRAMS)
            self._held.append((due, datagram))
        for late in [held for held in self._held if held[0] <= self._count]:
            self._held.remove(late)
            self._send(late[1])


class _Side(asyncio.DatagramProtocol):
    """The relay's socket on one side; takes what the end there sends."""

    def __init__(self) -> None:
        self.end: Address | None = None
        self.onward: _Direction | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if addr[:2] == self.end and self.onward is not None:
            self.onward.carry(data)

    def send(self, datagram: bytes) -> None:
        if self.end is not None:
            self.transport.sendto(datagram, self.end)


class BadLink:
    """One relay for one call; the caller's description goes through it first."""

    def __init__(self, seed: str) -> None:
        self._caller, self._called = _Side(), _Side()
        self._caller.onward = _Direction(self._called.send, f"{seed}, there")
        self._called.onward = _Direction(self._caller.send, f"{seed}, back")

    @property
    def faults(self) -> tuple[int, int]:
        """How many datagrams it has harmed on their way there and back."""
        return self._caller.onward.faults, self._called.onward.faults

    async def carry_offer(self, sdp: str) -> str:
        """Return the offer with the relay's address in it."""
        self._caller.end = _address(sdp)
        loop = asyncio.get_running_loop()
        for side in (self._caller, self._called):
            local = (self._caller.end[0], 0)
            await loop.create_datagram_endpoint(lambda end=side: end, local)
        return _with_address(sdp, self._called.transport.get_extra_info("sockname"))

    def carry_answer(self, sdp: str) -> str:
        """Return the answer with the relay's address in it."""
        self._called.end = _address(sdp)
        return _with_address(sdp, self._caller.transport.get_extra_info("sockname"))

    def close(self) -> None:
        self._caller.transport.close()
        self._called.transport.close()


def _is_usable(line: str) -> bool:
    """Tell whether a line is a candidate of UDP over IPv4 (RFC 8839 section 5.1)."""
    words = line.split()
    is_candidate = line.startswith("a=candidate:")
    return is_candidate and words[2].lower() == "udp" and "." in words[4]


def _address(sdp: str) -> Address:
    words = next(filter(_is_usable, sdp.splitlines())).split()
    return words[4], int(words[5])


def _with_address(sdp: str, address: Address) -> str:
    """Leave one candidate in a description, and change where it is."""
    kept = next(filter(_is_usable, sdp.splitlines()))
    words = kept.split()
    words[4:6] = address[0], str(address[1])
    lines = [
        " ".join(words) if line == kept else line
        for line in sdp.splitlines()
        if line == kept or not line.startswith("a=candidate:")
    ]
    return "\r\n".join(lines) + "\r\n"
