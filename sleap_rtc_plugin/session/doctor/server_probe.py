"""Asks the signaling server of a session, one layer after the other.

Name, port, certificate, health, and what a member of the room is told. Only that
server is asked, directly and never through a proxy. Gathers facts; `server` says what
they mean.
"""

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

import httpx
import msgspec
from msgspec import Struct

from sleap_rtc_plugin.protocol.errors import SignalingUnreachable
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.relay_messages import IceServerList
from sleap_rtc_plugin.protocol.session_string import Session
from sleap_rtc_plugin.protocol.signaling_messages import ServerError
from sleap_rtc_plugin.protocol.signaling_session import error_from_server
from sleap_rtc_plugin.session.doctor.limits import MAX_ANSWER_BYTES, SERVER_STEP_S
from sleap_rtc_plugin.session.doctor.server import IceFacts, ServerFacts
from sleap_rtc_plugin.transport.tls import client_context

__all__ = ["probe_ice", "probe_server"]

_PORTS: Final = {"http": 80, "https": 443}
# OpenSSL's X509_V_ERR_* by what a person has to do about them.
_CERTIFICATE_FAULTS: Final[dict[int, str]] = {
    9: "not yet valid",
    10: "expired",
    18: "unknown authority",
    19: "unknown authority",
    20: "unknown authority",
    21: "unknown authority",
    62: "wrong name",
    64: "wrong name",
}


class _Health(Struct, frozen=True):
    status: str
    version: str = ""


class _Refusal(Struct, frozen=True):
    code: str
    message: str = ""
    fields: dict[str, str] = {}


@dataclass(frozen=True)
class _Answer:
    status: int
    date: str
    content: bytes


async def probe_server(
    url: str, *, clock: Callable[[], float] = time.time
) -> ServerFacts:
    """Find out how far one gets with the server at `url`.

    Args:
        url: `http(s)://host[:port]`.
        clock: this computer's, in Unix seconds.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or _PORTS[parts.scheme]
    facts = ServerFacts(url=url, host=host, port=port, is_tls=parts.scheme == "https")
    fault = await _name_fault(host, port)
    if fault is not None:
        return _with(facts, name_fault=fault)
    fault = await _port_fault(host, port)
    if fault is not None:
        return _with(facts, port_fault=fault)
    if facts.is_tls:
        facts = await _look_at_certificate(facts)
    if facts.certificate_fault is not None or facts.tls_fault is not None:
        return facts
    return await _look_at_health(facts, clock)


async def _name_fault(host: str, port: int) -> str | None:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(SERVER_STEP_S):
            await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except TimeoutError:
        return "the name server does not answer"
    except (OSError, UnicodeError) as error:
        return clean_text(getattr(error, "strerror", None) or str(error), 100)
    return None


async def _port_fault(host: str, port: int) -> str | None:
    try:
        async with asyncio.timeout(SERVER_STEP_S):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return "no answer"
    except ConnectionRefusedError:
        return "refused"
    except OSError as error:
        return clean_text(error.strerror or str(error), 100)
    await _close(writer)
    return None


async def _look_at_certificate(facts: ServerFacts) -> ServerFacts:
    try:
        async with asyncio.timeout(SERVER_STEP_S):
            _, writer = await asyncio.open_connection(
                facts.host,
                facts.port,
                ssl=client_context(),
                server_hostname=facts.host,
                ssl_handshake_timeout=SERVER_STEP_S,
            )
    except ssl.SSLCertVerificationError as error:
        fault = _CERTIFICATE_FAULTS.get(error.verify_code)
        return _with(
            facts, certificate_fault=fault or clean_text(error.verify_message, 100)
        )
    except TimeoutError:
        return _with(facts, tls_fault="no answer in time")
    except ssl.SSLError as error:
        reason = (error.reason or "").replace("_", " ").lower()
        return _with(facts, tls_fault=clean_text(reason or "it was refused", 100))
    except OSError as error:
        return _with(facts, tls_fault=clean_text(error.strerror or str(error), 100))
    certificate = writer.get_extra_info("peercert") or {}
    ends = certificate.get("notAfter")
    await _close(writer)
    if not isinstance(ends, str):
        return facts
    return _with(facts, certificate_ends_at=float(ssl.cert_time_to_seconds(ends)))


async def _look_at_health(
    facts: ServerFacts, clock: Callable[[], float]
) -> ServerFacts:
    asked_at = clock()
    try:
        answer = await _get(facts.url, "/health", {})
    except (httpx.HTTPError, TimeoutError) as error:
        reason = clean_text(str(error), 100) or "it does not answer"
        return _with(facts, health_fault=reason)
    now = (asked_at + clock()) / 2
    ahead_s = None
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        told = parsedate_to_datetime(answer.date).timestamp()
        # The header has no fraction, so on average it is half a second old.
        ahead_s = told + 0.5 - now
    try:
        health = msgspec.json.decode(answer.content, type=_Health)
    except msgspec.MsgspecError:
        health = _Health(status="")
    if answer.status != httpx.codes.OK or health.status != "ok":
        return _with(facts, health_fault=f"HTTP status {answer.status}")
    version = clean_text(health.version, 40)
    return _with(facts, version=version, clock_ahead_s=ahead_s)


async def probe_ice(session: Session) -> IceFacts:
    """Ask what a member of the room is told about STUN, TURN and the relay."""
    url = session.url
    headers = {"Authorization": f"Bearer {session.token}"}
    try:
        answer = await _get(url, "/ice-servers", headers)
    except (httpx.HTTPError, TimeoutError) as error:
        reason = clean_text(str(error), 100) or "no answer in time"
        return IceFacts(error=SignalingUnreachable(server=url, reason=reason))
    if answer.status == httpx.codes.OK:
        return _read_ice(url, answer.content)
    try:
        said = msgspec.json.decode(answer.content, type=_Refusal)
    except msgspec.MsgspecError:
        reason = f"it answered with HTTP status {answer.status}"
        return IceFacts(error=SignalingUnreachable(server=url, reason=reason))
    refusal = ServerError(
        id="", code=said.code, message=said.message, fields=said.fields
    )
    return IceFacts(error=error_from_server(refusal, url))


def _read_ice(url: str, content: bytes) -> IceFacts:
    try:
        told = msgspec.json.decode(content, type=IceServerList)
    except msgspec.MsgspecError:
        reason = "its list of ICE servers cannot be read"
        return IceFacts(error=SignalingUnreachable(server=url, reason=reason))
    secrets = [
        text for one in told.ice_servers for text in (one.credential, one.username)
    ]
    return IceFacts(config=told, secrets=tuple(secret for secret in secrets if secret))


async def _get(url: str, path: str, headers: dict[str, str]) -> _Answer:
    """Ask, and read no more of the answer than a server of ours would say.

    Raises:
        httpx.HTTPError, TimeoutError: no answer, or too much of one.
    """
    async with (
        asyncio.timeout(SERVER_STEP_S),
        httpx.AsyncClient(
            trust_env=False, follow_redirects=False, verify=client_context()
        ) as http,
        http.stream("GET", url + path, headers=headers) as response,
    ):
        content = bytearray()
        async for part in response.aiter_bytes():
            content += part
            if len(content) > MAX_ANSWER_BYTES:
                raise httpx.ReadError("it says too much")
        date = response.headers.get("date", "")
        return _Answer(response.status_code, date, bytes(content))


def _with(facts: ServerFacts, **changes: object) -> ServerFacts:
    return replace(facts, **changes)  # type: ignore[arg-type]


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    # A peer that is no TLS server may end in any way.
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(1.0):
            await writer.wait_closed()
