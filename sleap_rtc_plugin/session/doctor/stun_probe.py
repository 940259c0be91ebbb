"""Asks the configured STUN servers under which address they see this computer.

RFC 8489, a Binding request without credentials, retried as its section 6.2.1 says. All
servers are asked from one socket, since what differs between their answers tells what
kind of address translation is on the way. No server is asked that was not configured.
"""

import asyncio
import ipaddress
import secrets
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.session.doctor.limits import (
    MAX_STUN_ANSWER_BYTES,
    STUN_FIRST_RETRY_S,
    STUN_S,
)

__all__ = [
    "Address",
    "StunOutcome",
    "binding_request",
    "probe_stun",
    "read_binding",
    "stun_address",
]

Address = tuple[str, int]

_HEADER: Final = struct.Struct("!HHI12s")
_COOKIE: Final = 0x2112A442
_BINDING: Final = 0x0001
_BINDING_SUCCESS: Final = 0x0101
_MAPPED: Final = 0x0001
_XOR_MAPPED: Final = 0x0020
_IPV4, _IPV6 = 1, 2
_DEFAULT_PORT: Final = 3478
_TRANSACTION_BYTES: Final = 12


@dataclass(frozen=True)
class StunOutcome:
    """What a server said.

    Attributes:
        url: the server.
        mapped: the address under which it sees us, or None.
        reason: why there is none.
    """

    url: str
    mapped: Address | None = None
    reason: str = ""


def stun_address(url: str) -> Address | None:
    """Return host and port of a `stun:` URL or a `turn:` URL over UDP, or None."""
    scheme, _, rest = url.partition(":")
    where, _, query = rest.partition("?")
    if scheme not in ("stun", "turn") or "transport=tcp" in query:
        return None
    host, separator, port = where.rpartition(":")
    if where.endswith("]") or not separator:
        host, port = where, ""
    if not host.strip("[]") or (port and not port.isdecimal()):
        return None
    number = int(port) if port else _DEFAULT_PORT
    return (host.strip("[]"), number) if 0 < number < 2**16 else None


def binding_request(transaction: bytes) -> bytes:
    """Return a Binding request (RFC 8489, section 5) without attributes."""
    return _HEADER.pack(_BINDING, 0, _COOKIE, transaction)


def read_binding(data: bytes) -> tuple[bytes, Address | None] | None:
    """Read a Binding success response: its transaction, and the address in it.

    Returns None for whatever is not such a response.
    """
    if not _HEADER.size <= len(data) <= MAX_STUN_ANSWER_BYTES:
        return None
    kind, length, cookie, transaction = _HEADER.unpack_from(data)
    if kind != _BINDING_SUCCESS or cookie != _COOKIE:
        return None
    if length != len(data) - _HEADER.size:
        return None
    mapped: Address | None = None
    at = _HEADER.size
    while at + 4 <= len(data):
        attribute, size = struct.unpack_from("!HH", data, at)
        value = data[at + 4 : at + 4 + size]
        if attribute == _XOR_MAPPED:
            return transaction, _read_address(value, data[4:20])
        if attribute == _MAPPED:
            mapped = _read_address(value, bytes(16))
        at += 4 + size + -size % 4
    return transaction, mapped


def _read_address(value: bytes, mask: bytes) -> Address | None:
    sizes = {_IPV4: 4, _IPV6: 16}
    if len(value) < 4 or len(value) != 4 + sizes.get(value[1], -4):
        return None
    port = int.from_bytes(value[2:4]) ^ int.from_bytes(mask[:2])
    host = bytes(a ^ b for a, b in zip(value[4:], mask, strict=False))
    return str(ipaddress.ip_address(host)), port


class _Asking(asyncio.DatagramProtocol):
    """One socket, and the answers that come to it."""

    def __init__(self) -> None:
        self.answers: dict[bytes, asyncio.Future[Address | None]] = {}

    def datagram_received(self, data: bytes, addr: Any) -> None:
        answer = read_binding(data)
        if answer is None:
            return
        waiting = self.answers.get(answer[0])
        if waiting is not None and not waiting.done():
            waiting.set_result(answer[1])

    def error_received(self, exc: Exception) -> None:
        """Ignore it: the answer that does not come says the same."""


async def probe_stun(urls: Sequence[str]) -> list[StunOutcome]:
    """Ask every server, all from one socket and side by side."""
    loop = asyncio.get_running_loop()
    transport, asking = await loop.create_datagram_endpoint(
        _Asking,
        family=socket.AF_INET,
        local_addr=("0.0.0.0", 0),  # noqa: S104 - asks from whatever address leads there
    )
    try:
        return list(
            await asyncio.gather(*(_ask(url, asking, transport) for url in urls))
        )
    finally:
        transport.close()


async def _ask(
    url: str, asking: _Asking, transport: asyncio.DatagramTransport
) -> StunOutcome:
    place = stun_address(url)
    if place is None:
        return StunOutcome(url, reason="its address cannot be read")
    loop = asyncio.get_running_loop()
    transaction = secrets.token_bytes(_TRANSACTION_BYTES)
    answer: asyncio.Future[Address | None] = loop.create_future()
    asking.answers[transaction] = answer
    try:
        async with asyncio.timeout(STUN_S):
            found = await loop.getaddrinfo(
                *place, family=socket.AF_INET, type=socket.SOCK_DGRAM
            )
            wait_s = STUN_FIRST_RETRY_S
            while not answer.done():
                transport.sendto(binding_request(transaction), found[0][4])
                await asyncio.wait([answer], timeout=wait_s)
                wait_s *= 2
    except TimeoutError:
        return StunOutcome(url, reason=f"no answer within {STUN_S:.0f} s")
    except OSError as error:
        reason = clean_text(error.strerror or str(error), 100)
        return StunOutcome(url, reason=reason)
    mapped = answer.result()
    if mapped is None:
        return StunOutcome(url, reason="its answer names no address")
    return StunOutcome(url, mapped=mapped)
