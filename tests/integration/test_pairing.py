"""Pairing by a code with a real server: handing over, guessing, being in between."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

import pytest
from support.signaling_lab import Lab

from sleap_rtc_plugin.protocol.errors import (
    NotAllowed,
    PairingFailed,
    PairingRefused,
    RateLimited,
    TokenRefused,
    TooMany,
)
from sleap_rtc_plugin.protocol.limits import MAX_PAIRING_CODES, PAIRING_LIFETIME_S
from sleap_rtc_plugin.protocol.pairing_code import PairingCode
from sleap_rtc_plugin.protocol.session_string import Session
from sleap_rtc_plugin.session import pairing
from sleap_rtc_plugin.session.pairing import claim_session, hand_over, hand_over_once
from sleap_rtc_plugin.transport.account import AccountClient
from sleap_rtc_signaling import pairing_routes
from sleap_rtc_signaling.limits import CLAIM_RATE, MAX_PAIRINGS_PER_ROOM, Rate


@pytest.fixture(autouse=True)
def patient_for_no_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairing, "PAIRING_POLL_S", 0.1)


@pytest.fixture
def many_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairing_routes, "CLAIM_RATE", Rate(1_000, 1_000.0))
    # Before the server starts: `lab` comes after this fixture where both are named.


async def session_of(lab: Lab) -> Session:
    room_id, token = await lab.room()
    return Session(
        url=lab.server.url,
        room_id=room_id,
        token=token,
        peer_id="worker-1",
        secret=bytes(range(32)),
    )


class Worker:
    """A worker that shows codes."""

    def __init__(self, session: Session) -> None:
        self.codes: asyncio.Queue[PairingCode] = asyncio.Queue()
        self._session = session

    def show(self, code: PairingCode, expires_at: float) -> None:
        self.codes.put_nowait(code)

    @contextlib.asynccontextmanager
    async def at(self, *, once: bool = False) -> AsyncIterator[asyncio.Task[None]]:
        offer = hand_over_once if once else hand_over
        task = asyncio.create_task(offer(self._session, self.show))
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def wrong(code: PairingCode) -> PairingCode:
    others = ("zebra", "zebra", "zebra")
    return PairingCode(code.number, others)


async def test_the_code_hands_the_session_over(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    session = await session_of(lab)
    worker = Worker(session)
    async with worker.at() as offering:
        code = await worker.codes.get()
        got = await claim_session(lab.server.url, PairingCode.parse(str(code)))
        await offering
    assert got == session
    for word in (*code.words, session.token, session.encode()):
        assert word not in caplog.text
    with pytest.raises(PairingRefused, match="was used"):
        await claim_session(lab.server.url, code)


async def test_a_wrong_guess_spends_the_code_and_the_next_one_is_good(
    lab: Lab,
) -> None:
    session = await session_of(lab)
    worker = Worker(session)
    async with worker.at() as offering:
        first = await worker.codes.get()
        with pytest.raises(PairingFailed, match="other words"):
            await claim_session(lab.server.url, wrong(first))
        second = await worker.codes.get()
        # Even the right words come too late for the first.
        with pytest.raises(PairingRefused):
            await claim_session(lab.server.url, first)
        assert await claim_session(lab.server.url, second) == session
        await offering


async def test_after_a_few_wrong_guesses_no_more_codes_are_shown(lab: Lab) -> None:
    worker = Worker(await session_of(lab))
    async with worker.at() as offering:
        for _ in range(MAX_PAIRING_CODES):
            code = await worker.codes.get()
            with pytest.raises(PairingFailed):
                await claim_session(lab.server.url, wrong(code))
        with pytest.raises(PairingFailed, match="other words"):
            await offering
    assert worker.codes.empty()


async def test_two_claims_at_once_are_one(lab: Lab) -> None:
    session = await session_of(lab)
    worker = Worker(session)
    async with worker.at() as offering:
        code = await worker.codes.get()
        claims = [claim_session(lab.server.url, code) for _ in range(4)]
        results = await asyncio.gather(*claims, return_exceptions=True)
        await offering
    assert results.count(session) == 1
    refused = [result for result in results if result != session]
    assert all(isinstance(error, PairingRefused) for error in refused)


async def test_a_claimer_that_says_no_more_spends_the_code(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairing, "PAIRING_ANSWER_S", 0.1)
    worker = Worker(await session_of(lab))
    async with worker.at(once=True) as offering, AccountClient(lab.server.url) as http:
        code = await worker.codes.get()
        await http.claim_pairing(code.number)
        with pytest.raises(PairingFailed, match="said no more"):
            await offering


async def test_a_code_ends(lab: Lab) -> None:
    worker = Worker(await session_of(lab))
    async with worker.at() as offering:
        code = await worker.codes.get()
        lab.advance(PAIRING_LIFETIME_S + 1)
        with pytest.raises(PairingRefused, match="expired"):
            await claim_session(lab.server.url, code)
        with pytest.raises(PairingRefused, match="nobody typed it"):
            await offering


async def test_a_worker_that_stops_takes_its_code_back(lab: Lab) -> None:
    worker = Worker(await session_of(lab))
    async with worker.at():
        code = await worker.codes.get()
    with pytest.raises(PairingRefused):
        await claim_session(lab.server.url, code)


async def test_a_server_in_between_gets_nothing(lab: Lab) -> None:
    """The server answers the claimer in the worker's place, with words of its own."""
    worker = Worker(await session_of(lab))
    async with worker.at(once=True), AccountClient(lab.server.url) as evil:
        code = await worker.codes.get()
        await evil.claim_pairing(code.number)
        # It opens a pairing of its own, and leads the claimer there.
        session = await session_of(lab)
        trap = Worker(session)
        async with trap.at(once=True) as trapping:
            trapped = await trap.codes.get()
            misled = PairingCode(trapped.number, code.words)
            with pytest.raises(PairingFailed):
                await claim_session(lab.server.url, misled)
            with pytest.raises(PairingFailed):
                await trapping


@pytest.mark.usefixtures("many_claims")
async def test_numbers_that_do_not_exist_are_refused(lab: Lab) -> None:
    for number in ("0", "10000", "-1", "1e3", "x", "%32", "99999999999999999999"):
        answer = await lab.post(f"/pairings/{number}/claim", json={})
        assert answer.status_code == 404
        assert answer.json()["code"] == "pairing_refused"


async def test_keys_of_others_open_nothing(lab: Lab) -> None:
    session = await session_of(lab)
    async with AccountClient(lab.server.url) as http:
        mine = await http.open_pairing(session.token, "aaaa")
        for key in ("", "x", mine.owner_key[:-1]):
            with pytest.raises(PairingRefused):
                await http.pairing_state(mine.number, key)
            with pytest.raises(PairingRefused):
                await http.answer_pairing(mine.number, key, "m", "p")
            with pytest.raises(PairingRefused):
                await http.finish_pairing(mine.number, key, "s")
            with pytest.raises(PairingRefused):
                await http.close_pairing(mine.number, key)
        assert (await http.pairing_state(mine.number, mine.owner_key)).state == "open"
        claimed = await http.claim_pairing(mine.number)
        # The claimer can neither finish for the worker, nor answer twice.
        with pytest.raises(PairingRefused):
            await http.finish_pairing(mine.number, claimed.claim_key, "s")
        await http.answer_pairing(mine.number, claimed.claim_key, "m", "p")
        with pytest.raises(PairingRefused):
            await http.answer_pairing(mine.number, claimed.claim_key, "m", "q")


async def test_guessing_is_slow(lab: Lab) -> None:
    async with AccountClient(lab.server.url) as http:
        for number in range(1, CLAIM_RATE.burst + 1):
            with pytest.raises(PairingRefused):
                await http.claim_pairing(number)
        with pytest.raises(RateLimited):
            await http.claim_pairing(99)


async def test_who_may_open_one_and_how_many(lab: Lab) -> None:
    session = await session_of(lab)
    async with AccountClient(lab.server.url) as http:
        with pytest.raises(TokenRefused):
            await http.open_pairing("no.such.token", "aaaa")
        with pytest.raises(TokenRefused):
            await http.open_pairing(await lab.account(), "aaaa")
        for _ in range(MAX_PAIRINGS_PER_ROOM):
            await http.open_pairing(session.token, "aaaa")
        with pytest.raises(TooMany):
            await http.open_pairing(session.token, "aaaa")


async def test_a_worker_credential_hands_out_nothing(lab: Lab) -> None:
    account = await lab.account()
    room_id, _ = await lab.room(account)
    made = await lab.post(
        f"/rooms/{room_id}/credentials", account, json={"kind": "worker"}
    )
    async with AccountClient(lab.server.url) as http:
        with pytest.raises(NotAllowed, match="hand out"):
            await http.open_pairing(made.json()["token"], "aaaa")
