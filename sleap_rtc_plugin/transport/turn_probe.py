"""Asks one STUN or TURN server, and says in words why it is of no use.

aiortc is silent about a server that gives it no candidate. Asked after a way over
TURN has failed, by the worker that chooses its own, and by `sleap-remote doctor`.
"""

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from aioice import stun, turn

from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.signaling_messages import IceServer
from sleap_rtc_plugin.transport.effects import monotonic
from sleap_rtc_plugin.transport.ice_config import IceUrl, parse_ice_url

__all__ = [
    "StunOutcome",
    "TurnOutcome",
    "TurnState",
    "has_expired",
    "probe_stun",
    "probe_turn",
]

_REFUSED: Final = (401, 431, 441)
_EXPIRED: Final = 438
_FULL: Final = (486, 508)

TurnState = Literal[
    "works",
    "unreachable",
    "refused",
    "expired",
    "full",
    "certificate",
    "failed",
    "unusable",
]


@dataclass(frozen=True)
class TurnOutcome:
    """What became of one allocation.

    Attributes:
        state: in one word.
        reason: in a few, for a sentence; empty where it works.
        relayed: the address that the server gave us, where it works.
        seconds: how long it took.
    """

    state: TurnState
    reason: str = ""
    relayed: tuple[str, int] | None = None
    seconds: float = 0.0

    @property
    def works(self) -> bool:
        """Whether the server relays for us."""
        return self.state == "works"


@dataclass(frozen=True)
class StunOutcome:
    """What STUN servers saw of one socket of ours.

    Attributes:
        local_port: the socket's own port.
        mapped: our address as each server saw it, by the server's URL.
        failures: why a server said nothing, by its URL.
    """

    local_port: int
    mapped: dict[str, tuple[str, int]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def nat(self) -> Literal["unknown", "same", "different"]:
        """Whether two servers saw the `same` address, so that a NAT can be crossed.

        `different` is a symmetric NAT (RFC 4787: address-dependent mapping).
        """
        if len(self.mapped) < 2:
            return "unknown"
        return "same" if len(set(self.mapped.values())) == 1 else "different"


def has_expired(server: IceServer, unix_now: float) -> bool:
    """Say whether a time-limited user name (`EXPIRY:NAME`) is of the past."""
    expiry = (server.username or "").partition(":")[0]
    return expiry.isdigit() and len(expiry) <= 12 and int(expiry) <= unix_now


async def probe_turn(server: IceServer, url: str, *, timeout_s: float) -> TurnOutcome:
    """Ask a TURN server for an allocation, and give it back."""
    address = parse_ice_url(url)
    if address is None or address.way == "stun":
        return TurnOutcome("unusable", f"{clean_text(url, 100)} is no TURN address")
    began_at = monotonic()
    try:
        async with asyncio.timeout(timeout_s):
            relayed = await _allocate(server, address)
    except TimeoutError:
        state, words = _silence(address, timeout_s)
    except stun.TransactionError as error:
        state, words = _refusal(server, address, error)
    except ssl.SSLCertVerificationError as error:
        state = "certificate"
        detail = clean_text(error.verify_message, 80)
        words = f"the certificate of {address.address} is not trusted here: {detail}"
    except ssl.SSLError as error:
        state = "failed"
        words = f"{address.address} does not speak TLS: {clean_text(str(error), 80)}"
    except socket.gaierror:
        state, words = "unreachable", f"the name {address.host} is not known here"
    except (OSError, ValueError, AssertionError) as error:
        state, words = _broken(address, error)
    else:
        return TurnOutcome("works", "", relayed, monotonic() - began_at)
    return TurnOutcome(state, words, None, monotonic() - began_at)


async def _allocate(server: IceServer, address: IceUrl) -> tuple[str, int]:
    over_udp = address.way == "turn-udp"
    relay, _ = await turn.create_turn_endpoint(
        asyncio.DatagramProtocol,
        server_addr=(address.host, address.port),
        username=server.username,
        password=server.credential,
        ssl=address.way == "turn-tls",
        transport="udp" if over_udp else "tcp",
    )
    relayed: tuple[str, int] = relay.get_extra_info("sockname")
    relay.close()
    return relayed


def _silence(address: IceUrl, timeout_s: float) -> tuple[TurnState, str]:
    return "unreachable", f"{address.address} did not answer in {timeout_s:.0f} s"


def _broken(address: IceUrl, error: Exception) -> tuple[TurnState, str]:
    if isinstance(error, ConnectionRefusedError):
        return "unreachable", f"nothing listens on {address.address}"
    detail = clean_text(str(error), 80) or type(error).__name__
    return "unreachable", f"{address.address} cannot be reached: {detail}"


def _refusal(
    server: IceServer, address: IceUrl, error: stun.TransactionError
) -> tuple[TurnState, str]:
    if not isinstance(error, stun.TransactionFailed):
        return "unreachable", f"{address.address} did not answer"
    code = error.response.error_code
    if code in (*_REFUSED, _EXPIRED) and has_expired(server, time.time()):
        return "expired", f"the credentials for {address.address} have expired"
    if code in (*_REFUSED, _EXPIRED):
        return "refused", f"{address.address} refused the credentials"
    if code in _FULL:
        return "full", f"{address.address} has no room for one more"
    return "failed", f"{address.address} refused with code {code}"


class _StunSocket(asyncio.DatagramProtocol):
    """One socket that asks several servers; a sender for aioice's transactions."""

    def __init__(self) -> None:
        self.transport: asyncio.DatagramTransport | None = None
        self.waiting: dict[bytes, stun.Transaction] = {}

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        with contextlib.suppress(ValueError):
            message = stun.parse_message(data)
            transaction = self.waiting.get(message.transaction_id)
            if transaction is not None and message.message_class in (
                stun.Class.RESPONSE,
                stun.Class.ERROR,
            ):
                transaction.response_received(message, addr)

    def send_stun(self, message: stun.Message, addr: tuple[str, int]) -> None:
        if self.transport is not None:
            self.transport.sendto(bytes(message), addr)

    async def ask(self, address: IceUrl) -> tuple[str, int]:
        """Return what a server says that our address is."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(
            address.host, address.port, family=socket.AF_INET, type=socket.SOCK_DGRAM
        )
        server = (str(found[0][4][0]), address.port)
        request = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
        transaction = stun.Transaction(request, server, self)
        self.waiting[request.transaction_id] = transaction
        try:
            response, _ = await transaction.run()
        finally:
            del self.waiting[request.transaction_id]
        mapped = response.attributes.get("XOR-MAPPED-ADDRESS")
        if mapped is None:
            raise OSError("it does not say which address it saw")
        return str(mapped[0]), int(mapped[1])


async def probe_stun(urls: Sequence[str], *, timeout_s: float) -> StunOutcome:
    """Ask STUN servers (`stun:` URLs, or `turn:` ones over UDP) from one socket."""
    loop = asyncio.get_running_loop()
    transport, asker = await loop.create_datagram_endpoint(
        _StunSocket,
        local_addr=("0.0.0.0", 0),  # noqa: S104 - sends, and hears answers alone
    )
    outcome = StunOutcome(transport.get_extra_info("sockname")[1])

    async def ask(url: str) -> None:
        address = parse_ice_url(url)
        if address is None or address.way not in ("stun", "turn-udp"):
            outcome.failures[url] = f"{clean_text(url, 100)} is no STUN address"
            return
        try:
            async with asyncio.timeout(timeout_s):
                outcome.mapped[url] = await asker.ask(address)
        except (TimeoutError, stun.TransactionTimeout):
            outcome.failures[url] = _silence(address, timeout_s)[1]
        except socket.gaierror:
            outcome.failures[url] = f"the name {address.host} is not known here"
        except stun.TransactionFailed as error:
            code = error.response.error_code
            outcome.failures[url] = f"{address.address} refused with code {code}"
        except OSError as error:
            outcome.failures[url] = _broken(address, error)[1]

    try:
        await asyncio.gather(*(ask(url) for url in urls))
    finally:
        transport.close()
    return outcome
