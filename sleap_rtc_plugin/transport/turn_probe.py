"""Asks one TURN server for an allocation, and says why there is none.

aiortc tries the first TURN address only, and a wrong password or a bad certificate
looks to it like a server that is not there. So this asks the server itself (RFC 8656),
in the way that a connection would, and gives the allocation back at once.
"""

import asyncio
import re
import ssl
from dataclasses import dataclass
from typing import Any, Final, Literal

from aioice import stun, turn

from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.signaling_messages import IceServer
from sleap_rtc_plugin.transport.effects import monotonic
from sleap_rtc_plugin.transport.tls import client_context

__all__ = ["TurnFault", "TurnOutcome", "probe_turn"]

TurnFault = Literal[
    "bad_url", "no_name", "no_answer", "refused", "certificate", "tls", "credentials",
    "server",
]  # fmt: skip

_URL: Final = re.compile(
    r"(?P<scheme>turns?):(?P<host>\[[0-9A-Fa-f:.]+\]|[^:?\[\]]+)(:(?P<port>[0-9]{1,5}))?"
    r"(\?transport=(?P<transport>udp|tcp))?\Z"
)
_PORTS: Final = {"turn": 3478, "turns": 5349}
# RFC 8489 section 14.8 and RFC 8656 section 19: what a wrong name or password gives.
_CREDENTIAL_CODES: Final = (401, 403, 431, 441)
_CLOSE_S: Final = 2.0


@dataclass(frozen=True)
class TurnOutcome:
    """How an Allocate request ended.

    Attributes:
        url: the server's.
        seconds: how long that took.
        fault: why there was no allocation, or None where there was one.
        detail: the same in the words of the server or the system, cleaned.
    """

    url: str
    seconds: float = 0.0
    fault: TurnFault | None = None
    detail: str = ""

    @property
    def is_allocated(self) -> bool:
        """Whether the server relays for us."""
        return self.fault is None


class _Nobody(asyncio.DatagramProtocol):
    """Who takes what the relay gets: nobody. `closed` is set with the end."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()


async def probe_turn(server: IceServer, url: str, *, timeout_s: float) -> TurnOutcome:
    """Allocate at `url` with the credentials of `server`, and give it back.

    Args:
        server: whose username and credential are used.
        url: one of its addresses, over UDP, TCP or TLS.
        timeout_s: how long to wait for the allocation.
    """
    begun_at = monotonic()
    fault, detail = await _fault(server, url, timeout_s)
    return TurnOutcome(url, monotonic() - begun_at, fault, clean_text(detail))


async def _fault(
    server: IceServer, url: str, timeout_s: float
) -> tuple[TurnFault | None, str]:
    parts = _URL.match(url)
    if parts is None or int(parts["port"] or 1) > 65535:
        return "bad_url", "its address cannot be read"
    is_tls = parts["scheme"] == "turns"
    transport = parts["transport"] or ("tcp" if is_tls else "udp")
    if is_tls and transport == "udp":
        return "bad_url", "TLS over UDP is not supported"
    host = parts["host"].strip("[]")
    port = int(parts["port"] or _PORTS[parts["scheme"]])
    try:
        async with asyncio.timeout(timeout_s):
            relay, nobody = await turn.create_turn_endpoint(
                _Nobody,
                (host, port),
                username=server.username,
                password=server.credential,
                ssl=client_context() if is_tls else None,
                transport=transport,
            )
    except (TimeoutError, stun.TransactionTimeout):
        return "no_answer", f"no answer within {timeout_s:.0f} s"
    except stun.TransactionFailed as error:
        return _refusal(error.response.attributes.get("ERROR-CODE"))
    except ssl.SSLCertVerificationError as error:
        return "certificate", error.verify_message
    except ssl.SSLError as error:
        return "tls", (error.reason or "it was refused").replace("_", " ").lower()
    except ConnectionRefusedError:
        return "refused", "nothing listens there"
    except (OSError, ValueError, UnicodeError) as error:
        is_name = type(error).__name__ == "gaierror"
        detail = getattr(error, "strerror", None) or str(error)
        return ("no_name" if is_name else "no_answer"), detail
    relay.close()
    try:
        async with asyncio.timeout(_CLOSE_S):
            await nobody.closed.wait()
    except TimeoutError:
        # The server frees it in time by itself.
        pass
    return None, ""


def _refusal(error_code: Any) -> tuple[TurnFault, str]:
    """Read an ERROR-CODE attribute, whatever a server put there."""
    try:
        code, words = error_code
        detail = f"{int(code)} {words}"
        is_ours = int(code) in _CREDENTIAL_CODES
    except (TypeError, ValueError):
        return "server", "an error without a code"
    return ("credentials" if is_ours else "server"), detail
