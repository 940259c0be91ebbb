"""The signaling driver over sockets that the test holds in its hand."""

import asyncio
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.frames import Close

from sleap_rtc_plugin.protocol import codec
from sleap_rtc_plugin.protocol import signaling_session as machine
from sleap_rtc_plugin.protocol.close_codes import CloseCode
from sleap_rtc_plugin.protocol.errors import (
    AccountsUnavailable,
    PeerIdTaken,
    RtcError,
    SignalingUnreachable,
    SignInRequired,
)
from sleap_rtc_plugin.protocol.signaling_messages import (
    PeerList,
    Register,
    Registered,
    ServerError,
)
from sleap_rtc_plugin.transport import signaling_client as module
from sleap_rtc_plugin.transport.signaling_client import SignalingClient

PATIENCE_S = 10


class FakeSocket:
    """One WebSocket to a server that answers as the test says."""

    def __init__(self, *, closes_at_once: bool = True, refusal: str = "") -> None:
        self.refusal = refusal
        self.incoming: asyncio.Queue[str | Exception] = asyncio.Queue()
        self.sent: list[Any] = []
        self.news = asyncio.Condition()
        self.close_code: int | None = None
        self.may_close = asyncio.Event()
        self.closing = asyncio.Event()
        self.ended = asyncio.Event()
        if closes_at_once:
            self.may_close.set()

    def __aiter__(self) -> "FakeSocket":
        return self

    async def __anext__(self) -> str:
        item = await self.incoming.get()
        if isinstance(item, Exception):
            self.ended.set()
            raise item
        return item

    async def send(self, data: str) -> None:
        message = codec.decode_client_message(data)
        self.sent.append(message)
        if isinstance(message, Register) and self.refusal:
            self.say(ServerError(id=message.id, code=self.refusal, message="no"))
        elif isinstance(message, Register):
            reply = Registered(
                id=message.id,
                peer_id=message.peer_id,
                room_id=message.room_id,
                expires_at=0.0,
            )
            self.say(reply)
        async with self.news:
            self.news.notify_all()

    async def has_sent(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_S), self.news:
            await self.news.wait_for(lambda: len(self.sent) >= count)

    def say(self, message: Any) -> None:
        self.incoming.put_nowait(codec.encode_signaling(message))

    async def close(self) -> None:
        """Close as websockets does: wait for the server, then end the iteration."""
        self.closing.set()
        await self.may_close.wait()
        self.close_code = 1000
        self.incoming.put_nowait(StopAsyncIteration())

    def break_with(self, code: int) -> None:
        self.close_code = code
        self.incoming.put_nowait(ConnectionClosedError(Close(code, "said"), None))


class Server:
    """Hands out sockets in the order in which they are to be used."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *sockets: FakeSocket) -> None:
        self.waiting = list(sockets)
        monkeypatch.setattr(module, "connect", self._connect)

    async def _connect(self, url: str, **options: Any) -> FakeSocket:
        assert url == "ws://gpu-1:8080/ws"
        return self.waiting.pop(0)


def client(**more: Any) -> SignalingClient:
    return SignalingClient(
        server="http://gpu-1:8080",
        room_id="room-1",
        token="a.b.c",
        peer_id="client-1",
        role="client",
        **more,
    )


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "SIGNALING_BACKOFF_FIRST_S", 0.01)
    monkeypatch.setattr(machine, "SIGNALING_PING_INTERVAL_S", 0.05)
    monkeypatch.setattr(machine, "SIGNALING_REPLY_TIMEOUT_S", 0.05)


async def test_registering_and_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    socket = FakeSocket()
    Server(monkeypatch, socket)
    async with client() as signaling:
        asking = asyncio.ensure_future(signaling.discover("worker"))
        await socket.has_sent(2)
        socket.say(PeerList(id=socket.sent[1].id, peers=[]))
        assert await asking == []


async def test_a_lost_socket_is_replaced_and_the_question_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "SIGNALING_BACKOFF_FIRST_S", 0.01)
    one, two = FakeSocket(), FakeSocket()
    Server(monkeypatch, one, two)
    async with client() as signaling:
        asking = asyncio.ensure_future(signaling.discover())
        await one.has_sent(2)
        one.break_with(1006)
        await two.has_sent(2)
        assert two.sent == one.sent
        two.say(PeerList(id=two.sent[1].id, peers=[]))
        assert await asking == []


async def test_a_computer_that_slept_connects_anew_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "SIGNALING_BACKOFF_FIRST_S", 0.01)
    monkeypatch.setattr(module, "KEEP_ALIVE_INTERVAL_S", 0.01)
    wall = 1e9
    monkeypatch.setattr(module, "wall_clock", lambda: wall)
    # The server's end of the first is gone, and nobody said so.
    stale, fresh = FakeSocket(closes_at_once=False), FakeSocket()
    Server(monkeypatch, stale, fresh)
    async with client() as signaling:
        await stale.has_sent(1)
        # A turn of the loop with the old time, so that both clocks were seen.
        await asyncio.sleep(0)
        wall += 3600.0
        await fresh.has_sent(1)
        stale.may_close.set()
        asking = asyncio.ensure_future(signaling.discover())
        await fresh.has_sent(2)
        fresh.say(PeerList(id=fresh.sent[1].id, peers=[]))
        assert await asking == []


async def test_an_old_socket_that_closes_late_does_not_take_the_new_one_along(
    monkeypatch: pytest.MonkeyPatch, quick: None
) -> None:
    """A server froze, the client moved on, and only then the old socket closed."""
    frozen, fresh = FakeSocket(closes_at_once=False), FakeSocket()
    Server(monkeypatch, frozen, fresh)
    async with client() as signaling:
        await asyncio.wait_for(frozen.closing.wait(), PATIENCE_S)
        monkeypatch.setattr(machine, "SIGNALING_PING_INTERVAL_S", 100.0)
        monkeypatch.setattr(machine, "SIGNALING_REPLY_TIMEOUT_S", 100.0)
        await fresh.has_sent(1)
        frozen.may_close.set()
        await asyncio.wait_for(frozen.ended.wait(), PATIENCE_S)
        asking = asyncio.ensure_future(signaling.discover())
        await fresh.has_sent(2)
        fresh.say(PeerList(id=fresh.sent[1].id, peers=[]))
        assert await asking == []
        assert not signaling.gave_up.done()


async def test_a_socket_replaced_by_another_program_is_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    socket = FakeSocket()
    Server(monkeypatch, socket)
    async with client() as signaling:
        socket.break_with(CloseCode.REPLACED)
        async with asyncio.timeout(PATIENCE_S):
            assert isinstance(await signaling.gave_up, PeerIdTaken)


# -- accounts ------------------------------------------------------------------------


class Tokens:
    """What `account` gives, one after the other; the last again and again."""

    def __init__(self, *tokens: str | RtcError) -> None:
        self.tokens = list(tokens)

    async def __call__(self) -> str:
        token = self.tokens.pop(0) if len(self.tokens) > 1 else self.tokens[0]
        if isinstance(token, RtcError):
            raise token
        return token


PROVIDER_AWAY = AccountsUnavailable(server="http://gpu-1:8080", reason="no answer")


async def test_each_registration_has_the_token_of_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "SIGNALING_BACKOFF_FIRST_S", 0.01)
    one, two, three = FakeSocket(), FakeSocket(), FakeSocket()
    Server(monkeypatch, one, two, three)
    tokens = Tokens("first", "second", PROVIDER_AWAY, "third")
    async with client(account=tokens) as signaling:
        one.break_with(1006)
        await two.has_sent(1)
        two.break_with(CloseCode.REVOKED)
        # The provider is away for a moment: that is no reason to come without.
        await three.has_sent(1)
        assert not signaling.gave_up.done()
    accounts = [socket.sent[0].account for socket in (one, two, three)]
    assert accounts == ["first", "second", "third"]


async def test_a_room_for_everybody_is_entered_while_the_provider_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    socket = FakeSocket()
    Server(monkeypatch, socket)
    async with client(account=Tokens(PROVIDER_AWAY)):
        assert socket.sent[0].account == ""


async def test_a_room_for_members_says_what_is_wrong_with_the_account(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Server(monkeypatch, FakeSocket(refusal="sign_in_required"))
    with pytest.raises(AccountsUnavailable):
        async with client(account=Tokens(PROVIDER_AWAY)):
            pass
    Server(monkeypatch, FakeSocket(refusal="sign_in_required"))
    with pytest.raises(SignInRequired):
        async with client():
            pass


async def test_before_the_first_stay_an_account_is_no_reason_to_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Server(monkeypatch, FakeSocket(refusal="rate_limited"))
    away = SignalingUnreachable(server="http://gpu-1:8080", reason="refused")
    with pytest.raises(RtcError):
        async with client(account=Tokens(away)):
            pass
