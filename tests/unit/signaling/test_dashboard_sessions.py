"""Sessions of browsers: only the cookie opens them, and the store learns nothing."""

import msgspec
import pytest

from sleap_rtc_plugin.protocol.account_messages import DeviceFlow
from sleap_rtc_signaling.dashboard.sessions import Content, Login, Sessions
from sleap_rtc_signaling.stores.memory import MemoryRecords
from sleap_rtc_signaling.stores.records import Record

NOW = 1_000.0
LOGIN = Login(
    account_id="github-1",
    name="Ann",
    method="github",
    token="secret-token",
    refresh_token="secret-refresh",
    expires_at=NOW + 100,
)


@pytest.fixture
def records() -> MemoryRecords:
    return MemoryRecords()


async def test_a_session_is_found_by_its_cookie(records: MemoryRecords) -> None:
    sessions = Sessions(records)
    made = await sessions.open(Content(login=LOGIN), NOW + 50, NOW)
    found = await sessions.find(made.cookie, NOW)
    assert found is not None
    assert found.content.login == LOGIN
    assert await sessions.find(made.cookie, NOW + 51) is None


async def test_the_store_holds_neither_token_nor_name_nor_cookie(
    records: MemoryRecords,
) -> None:
    made = await Sessions(records).open(Content(login=LOGIN), NOW + 50, NOW)
    (kept,) = await records.everything("dashboard", NOW)
    text = repr(kept)
    for secret in ("secret", "Ann", "github", made.cookie[:8], made.cookie[-8:]):
        assert secret not in text


async def test_another_key_opens_nothing(records: MemoryRecords) -> None:
    sessions = Sessions(records)
    made = await sessions.open(Content(login=LOGIN), NOW + 50, NOW)
    other = made.cookie[:-6] + ("AAAAAA" if made.cookie[-6:] != "AAAAAA" else "BBBBBB")
    assert await sessions.find(other, NOW) is None


@pytest.mark.parametrize("cookie", ["", "x", "é" * 64, "A" * 63, "A" * 65, "+/" * 32])
async def test_what_is_no_cookie_finds_nothing(
    records: MemoryRecords, cookie: str
) -> None:
    assert await Sessions(records).find(cookie, NOW) is None


async def test_a_record_moved_to_another_name_opens_nothing(
    records: MemoryRecords,
) -> None:
    sessions = Sessions(records)
    first = await sessions.open(Content(login=LOGIN), NOW + 50, NOW)
    second = await sessions.open(Content(), NOW + 50, NOW)
    kept = {record.key: record for record in await records.everything("dashboard", NOW)}
    (one, other) = kept.values()
    await records.replace(Record(one.key, other.value, NOW + 50, "", one.version), NOW)
    await records.replace(
        Record(other.key, one.value, NOW + 50, "", other.version), NOW
    )
    assert await sessions.find(first.cookie, NOW) is None
    assert await sessions.find(second.cookie, NOW) is None


async def test_of_two_changes_at_once_one_is_made(records: MemoryRecords) -> None:
    sessions = Sessions(records)
    made = await sessions.open(Content(login=LOGIN), NOW + 50, NOW)
    seen = await sessions.find(made.cookie, NOW)
    assert seen is not None
    assert await sessions.replace(seen, Content(renewing_at=1), NOW)
    assert not await sessions.replace(seen, Content(renewing_at=2), NOW)


async def test_a_closed_session_is_gone(records: MemoryRecords) -> None:
    sessions = Sessions(records)
    made = await sessions.open(Content(login=LOGIN), NOW + 50, NOW)
    await sessions.close(made)
    assert await sessions.find(made.cookie, NOW) is None


async def test_a_form_is_of_one_session_alone(records: MemoryRecords) -> None:
    sessions = Sessions(records)
    one = await sessions.open(Content(), NOW + 50, NOW)
    other = await sessions.open(Content(), NOW + 50, NOW)
    assert one.allows(one.form_token)
    assert not one.allows(other.form_token)
    assert not one.allows("")
    assert not one.allows("é")


def test_nothing_secret_is_in_a_repr() -> None:
    flow = DeviceFlow(
        flow_id="secret-flow",
        user_code="ABCD",
        verification_uri="https://example.org",
        expires_at=NOW,
    )
    assert "secret" not in repr(Content(login=LOGIN, flow=flow))
    assert msgspec.json.decode(msgspec.json.encode(LOGIN), type=Login) == LOGIN
