"""The worker's door: how many offers and meetings there may be at once."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from sleap_rtc_plugin.protocol.limits import (
    MAX_PENDING_OFFERS,
    MAX_PENDING_OFFERS_PER_PEER,
)
from sleap_rtc_plugin.protocol.relay_messages import IceServerList
from sleap_rtc_plugin.protocol.session_string import Session
from sleap_rtc_plugin.protocol.signaling_messages import (
    RelayedOffer,
    RelayRequest,
    RelayResponse,
)
from sleap_rtc_plugin.transport.transport_options import TransportOptions
from sleap_rtc_worker import offer_service
from sleap_rtc_worker.offer_service import OfferService

SESSION = Session(
    url="http://h:1", room_id="room-1", token="t", peer_id="worker-1", secret=b"s" * 32
)


class Source:
    async def current(self) -> IceServerList:
        return IceServerList(ice_servers=[])


class Signaling:
    peer_id = "worker-1"


class Door:
    """A worker's door where every offer that is answered waits for ever."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answered: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.service = OfferService(
            lambda link: pytest.fail("no link"),
            self.spawn,
            TransportOptions(),
        )
        self.service._session = SESSION
        self.service._source = Source()  # type: ignore[assignment]
        self.service.enter(Signaling())  # type: ignore[arg-type]
        monkeypatch.setattr(offer_service, "accept_offer", self.accept)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.get_running_loop().create_task(work))

    async def accept(self, signaling: Any, offer: RelayedOffer, **known: Any) -> Any:
        self.answered.append(offer.from_)
        await asyncio.Event().wait()

    async def offer(self, peer_id: str, times: int) -> int:
        """Offer so often, and return how often it was answered."""
        self.answered.clear()
        for _ in range(times):
            self.service.offered(RelayedOffer(id="c-1", from_=peer_id, sdp=""))
        for _ in range(3):
            await asyncio.sleep(0)
        return len(self.answered)

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def test_offers_of_one_peer_and_of_all_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    door = Door(monkeypatch)
    each = MAX_PENDING_OFFERS_PER_PEER
    peers = MAX_PENDING_OFFERS // each
    for number in range(peers):
        assert await door.offer(f"client-{number}", each + 5) == each
    assert await door.offer("client-late", 1) == 0
    await door.close()
    assert await door.offer("client-late", 1) == 1
    await door.close()
    assert not door.service._pending


async def test_a_server_without_a_relay_is_told_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    door = Door(monkeypatch)
    said: asyncio.Queue[RelayResponse] = asyncio.Queue()
    request = RelayRequest(request_id="r-1", relay_id="relay-" + "0" * 32)
    door.service.relay_asked(request, "client-1", said.put_nowait)
    response = await said.get()
    assert (response.request_id, response.accepts) == ("r-1", False)
    assert response.error is not None
    assert response.error.code == "relay_refused"
    door.service.leave()
    door.service.relay_asked(request, "client-1", said.put_nowait)
    assert not (await said.get()).accepts
    await door.close()
