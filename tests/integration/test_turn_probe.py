"""Why a TURN server is of no use, asked of a real one; what an offer tells of us."""

import asyncio
import base64
import hashlib
import hmac
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.nat_lab import make_certificates
from support.turn_server import HOST, TurnServer, turn_server

from sleap_rtc_plugin.protocol.relay_messages import IceServerList
from sleap_rtc_plugin.protocol.signaling_messages import IceServer
from sleap_rtc_plugin.transport.answer_way import AnswerWays
from sleap_rtc_plugin.transport.peer import PeerConnection
from sleap_rtc_plugin.transport.turn_probe import probe_stun, probe_turn

pytestmark = pytest.mark.timeout(60)
PATIENCE_S = 10.0
NOBODY = "0.0.0.0"  # noqa: S104 - compared, not bound
SECRET = "a secret of the test that is long enough"


@pytest.fixture
async def turn(tmp_path: Path) -> AsyncIterator[TurnServer]:
    async with turn_server(tmp_path, secret=SECRET) as server:
        yield server


def credentials(lifetime_s: float = 600.0, secret: str = SECRET) -> tuple[str, str]:
    user = f"{int(time.time() + lifetime_s)}:room"
    digest = hmac.new(secret.encode(), user.encode(), hashlib.sha1).digest()
    return user, base64.b64encode(digest).decode()


def server(port: int, scheme: str = "turn", way: str = "udp", **known) -> IceServer:
    user, password = credentials(**known)
    url = f"{scheme}:{HOST}:{port}?transport={way}"
    return IceServer(urls=[url], username=user, credential=password)


async def probe(one: IceServer, timeout_s: float = PATIENCE_S):
    return await probe_turn(one, one.urls[0], timeout_s=timeout_s)


@pytest.mark.parametrize("way", ["udp", "tcp"])
async def test_a_server_that_works(turn: TurnServer, way: str) -> None:
    outcome = await probe(server(turn.port, way=way))
    assert outcome.works, outcome
    assert outcome.relayed is not None
    assert outcome.relayed[0] == HOST


@pytest.mark.parametrize("way", ["udp", "tcp"])
async def test_a_server_that_refuses(turn: TurnServer, way: str) -> None:
    outcome = await probe(server(turn.port, way=way, secret="x" * 40))
    assert outcome.state == "refused"
    assert outcome.reason == f"{HOST}:{turn.port} refused the credentials"


async def test_credentials_of_the_past(turn: TurnServer) -> None:
    outcome = await probe(server(turn.port, lifetime_s=-5))
    assert outcome.state == "expired"
    assert "have expired" in outcome.reason


async def test_no_credentials_at_all(turn: TurnServer) -> None:
    url = f"turn:{HOST}:{turn.port}"
    outcome = await probe(IceServer(urls=[url]))
    assert outcome.state == "refused"


async def test_nobody_is_there() -> None:
    async def say_nothing(reader, writer) -> None:
        await reader.read()
        writer.close()

    silent = await asyncio.start_server(say_nothing, HOST, 0)
    port = silent.sockets[0].getsockname()[1]
    try:
        outcome = await probe(server(port, way="tcp"), 0.3)
        assert outcome.state == "unreachable"
        assert "did not answer" in outcome.reason
        outcome = await probe(server(port, "turns", "tcp"), 0.3)
        assert outcome.state == "unreachable"
    finally:
        silent.close()
        await silent.wait_closed()
    outcome = await probe(server(port, way="tcp"))
    assert outcome.state == "unreachable"
    assert outcome.reason == f"nothing listens on {HOST}:{port}"


async def test_a_server_that_speaks_no_tls(turn: TurnServer) -> None:
    outcome = await probe(server(turn.port, "turns", "tcp"), 3.0)
    assert outcome.state in ("failed", "unreachable")


async def test_a_certificate_that_nobody_vouches_for(tmp_path: Path) -> None:
    import ssl

    make_certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "turn.pem", tmp_path / "turn.key")
    listening = await asyncio.start_server(
        lambda reader, writer: writer.close(), HOST, 0, ssl=context
    )
    port = listening.sockets[0].getsockname()[1]
    try:
        outcome = await probe(server(port, "turns", "tcp"))
    finally:
        listening.close()
        await listening.wait_closed()
    assert outcome.state == "certificate"
    assert f"the certificate of {HOST}:{port} is not trusted here" in outcome.reason


async def test_what_is_no_address() -> None:
    for url in ("stun:a", "http://a", "turn:"):
        outcome = await probe_turn(IceServer(urls=[url]), url, timeout_s=1)
        assert outcome.state == "unusable"


async def test_a_stun_server_says_which_address_it_sees(turn: TurnServer) -> None:
    good, bad = f"stun:{HOST}:{turn.port}", f"stun:{HOST}:1"
    outcome = await probe_stun([good, bad, "stun:"], timeout_s=2.0)
    assert outcome.mapped == {good: (HOST, outcome.local_port)}
    assert set(outcome.failures) == {bad, "stun:"}


# -- what is told of us ---------------------------------------------------------------


def addresses(sdp: str) -> set[str]:
    return set(re.findall(r"\d+\.\d+\.\d+\.\d+|[0-9a-f]*:[0-9a-f:]*:[0-9a-f]+", sdp))


async def test_with_relays_only_no_address_of_ours_is_told(turn: TurnServer) -> None:
    ends = [
        PeerConnection(
            role=role,  # type: ignore[arg-type]
            peer_id="other",
            secret=b"s" * 32,
            ice_servers=[server(turn.port)],
            relay_only=True,
        )
        for role in ("client", "worker")
    ]
    try:
        offer = await ends[0].make_offer()
        answer = await ends[1].make_answer(offer)
    finally:
        for end in ends:
            await end.close()
    for sdp in (offer, answer):
        candidates = [line for line in sdp.splitlines() if "a=candidate" in line]
        assert len(candidates) == 1
        assert " typ relay raddr 0.0.0.0 rport 9" in candidates[0]
        # The relay's own is that of the TURN server, which is on this machine here.
        rest = sdp.replace(candidates[0], "")
        assert {a for a in addresses(rest) if "." in a} <= {NOBODY, HOST}


async def test_with_relays_only_and_no_relay_nothing_is_told() -> None:
    end = PeerConnection(
        role="client", peer_id="other", secret=b"s" * 32, relay_only=True
    )
    try:
        offer = await end.make_offer()
        assert not end.has_candidates
        assert {a for a in addresses(offer) if "." in a} <= {NOBODY}
    finally:
        await end.close()


async def test_an_offer_over_turn_is_answered_over_what_works(turn: TurnServer) -> None:
    """UDP is preferred; where it leads nowhere, TCP is taken."""
    relay_offer = "a=candidate:2 1 udp 1 192.0.2.2 6 typ relay raddr 0.0.0.0 rport 9"
    udp, tcp = server(turn.port), server(turn.port, way="tcp")
    ways = AnswerWays(relay_only=False)
    both = IceServerList(ice_servers=[tcp, udp])
    answer = await ways.for_offer(relay_offer, both)
    assert (answer.ice_servers, answer.relay_only) == ([udp], True)
    dead = server(1)
    answer = await ways.for_offer(relay_offer, IceServerList(ice_servers=[dead, tcp]))
    assert (answer.ice_servers, answer.relay_only) == ([tcp], True)
