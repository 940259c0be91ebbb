"""When a provider's keys are fetched, and what a fetch is good for; no socket."""

import asyncio
from typing import Any

import pytest
from support.oidc_provider import SigningKey, unsigned

from sleap_rtc_plugin.protocol.errors import AccountsUnavailable
from sleap_rtc_signaling.accounts.jwks import BadToken, ProviderKeys, unverified_issuer
from sleap_rtc_signaling.accounts.provider_http import is_secure_url
from sleap_rtc_signaling.limits import (
    JWKS_FRESH_S,
    JWKS_REFETCH_S,
    JWKS_RETRY_S,
    JWKS_STALE_S,
)

NOW = 1_700_000_000.0
ISSUER = "https://provider.example"
FIRST, SECOND = SigningKey.make("first"), SigningKey.make("second", "RS256")


class Endpoint:
    """Stands for the provider's HTTP: counts, answers, is away, or is slow."""

    def __init__(self, *keys: SigningKey) -> None:
        self.listed: list[Any] = [key.public() for key in keys]
        self.is_away = False
        self.gate: asyncio.Event | None = None
        self.count = 0

    async def get(self, url: str, token: str = "") -> tuple[int, Any]:
        self.count += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.is_away:
            raise self.unavailable("it does not answer")
        return 200, {"keys": self.listed}

    def unavailable(self, reason: str) -> AccountsUnavailable:
        return AccountsUnavailable(server="http://server", reason=reason)


def keys_of(endpoint: Endpoint) -> ProviderKeys:
    async def find(now: float) -> str:
        return f"{ISSUER}/jwks"

    return ProviderKeys(endpoint, find, ["ES256", "RS256"])  # type: ignore[arg-type]


def token(key: SigningKey = FIRST, **claims: Any) -> str:
    return key.sign({"iss": ISSUER, "sub": "s", "exp": NOW + 1e6, **claims})


async def good(keys: ProviderKeys, text: str, now: float) -> bool:
    try:
        await keys.verify(text, now, issuer=ISSUER)
    except BadToken:
        return False
    return True


async def test_a_flood_of_unknown_keys_is_no_flood_of_fetches() -> None:
    endpoint = Endpoint(FIRST)
    keys = keys_of(endpoint)
    bad = token(SigningKey.make("nobody"))
    for second in range(50):
        assert not await good(keys, bad, NOW + second)
        assert await good(keys, token(), NOW + second)
    assert endpoint.count == 1
    assert not await good(keys, bad, NOW + JWKS_REFETCH_S)
    assert endpoint.count == 2


async def test_who_asks_at_once_shares_one_fetch_and_may_leave() -> None:
    endpoint = Endpoint(FIRST)
    endpoint.gate = asyncio.Event()
    keys = keys_of(endpoint)
    asking = [asyncio.create_task(good(keys, token(), NOW)) for _ in range(20)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    asking[0].cancel()
    endpoint.gate.set()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert answers[1:] == [True] * 19
    assert endpoint.count == 1


async def test_keys_rotate_both_ways() -> None:
    endpoint = Endpoint(FIRST)
    keys = keys_of(endpoint)
    assert await good(keys, token(), NOW)
    endpoint.listed = [SECOND.public()]
    assert not await good(keys, token(SECOND), NOW + 1)
    assert await good(keys, token(SECOND), NOW + JWKS_REFETCH_S)
    # With the same fetch the first is gone.
    assert not await good(keys, token(), NOW + JWKS_REFETCH_S + 1)
    endpoint.listed = [FIRST.public()]
    later = NOW + JWKS_REFETCH_S + JWKS_FRESH_S
    assert not await good(keys, token(SECOND), later)
    assert await good(keys, token(), later)


async def test_the_last_known_keys_go_on_for_a_day() -> None:
    endpoint = Endpoint(FIRST)
    keys = keys_of(endpoint)
    assert await good(keys, token(), NOW)
    endpoint.is_away = True
    assert await good(keys, token(), NOW + JWKS_STALE_S - 1)
    asked = endpoint.count
    for step in range(9):
        assert await good(keys, token(), NOW + JWKS_STALE_S - 1 + step / 10)
    assert endpoint.count == asked
    with pytest.raises(AccountsUnavailable):
        await keys.verify(token(), NOW + JWKS_STALE_S, issuer=ISSUER)
    endpoint.is_away = False
    assert await good(keys, token(), NOW + JWKS_STALE_S + JWKS_RETRY_S)


async def test_an_unknown_key_is_no_bad_token_while_nobody_answers() -> None:
    endpoint = Endpoint(FIRST)
    endpoint.is_away = True
    keys = keys_of(endpoint)
    for _ in range(5):
        with pytest.raises(AccountsUnavailable):
            await keys.verify(token(), NOW, issuer=ISSUER)
    assert endpoint.count == 1
    # Who is no token at all asks nobody.
    assert not await good(keys, "x.y.z", NOW + JWKS_RETRY_S)
    assert endpoint.count == 1


@pytest.mark.parametrize(
    "entry",
    [
        None,
        "key",
        {},
        {"kid": "first"},
        FIRST.public() | {"use": "enc"},
        FIRST.public() | {"kid": 7},
        FIRST.public() | {"kid": "x" * 300},
        FIRST.public() | {"crv": "P-384"},
        FIRST.public() | {"alg": "ES384"},
        FIRST.public() | {"x": "AAAA"},
        {"kty": "oct", "kid": "first", "k": "AAAA"},
    ],
)
async def test_keys_that_are_none_are_left_out(entry: Any) -> None:
    endpoint = Endpoint(SECOND)
    endpoint.listed.append(entry)
    keys = keys_of(endpoint)
    assert not await good(keys, token(), NOW)
    assert await good(keys, token(SECOND), NOW)
    endpoint.listed = [entry]
    # An answer without a key of use does not take away those that are known.
    assert await good(keys, token(SECOND), NOW + JWKS_FRESH_S)


async def test_the_first_of_two_keys_of_one_name_counts() -> None:
    thief = SigningKey.make("first")
    keys = keys_of(Endpoint(FIRST, thief))
    assert await good(keys, token(), NOW)
    assert not await good(keys, token(thief), NOW)


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": NOW},
        {"exp": None},
        {"exp": True},
        {"exp": "never"},
        {"exp": float("nan")},
        {"nbf": NOW + 61},
        {"iat": NOW + 61},
        {"iat": "x"},
        {"iss": "https://other.example"},
    ],
)
async def test_times_are_checked(claims: dict[str, Any]) -> None:
    assert not await good(keys_of(Endpoint(FIRST)), token(**claims), NOW)


async def test_clocks_may_differ_by_a_minute() -> None:
    text = token(iat=NOW + 59, nbf=NOW + 59)
    assert await good(keys_of(Endpoint(FIRST)), text, NOW)


def test_an_issuer_is_read_and_not_believed() -> None:
    assert unverified_issuer(token()) == ISSUER
    for text in ("", "x", "a.b.c", unsigned({"iss": 7}), "x" * 100_000):
        assert unverified_issuer(text) == ""


@pytest.mark.parametrize(
    ("url", "is_secure"),
    [
        ("https://a.example/x?y=z", True),
        ("http://127.0.0.1:8080/x", True),
        ("http://localhost/x", True),
        ("http://[::1]:1/", True),
        ("http://a.example", False),
        ("http://localhost.evil.example", False),
        ("http://127.0.0.1@evil.example/", False),
        ("https://user:pw@a.example/", False),
        ("https://", False),
        ("https://a.example/\n", False),
        ("https://a.example\\@evil", False),
        ("https://[", False),
        ("https://a:99999/", False),
        ("javascript:alert(1)", False),
        ("ftp://a.example", False),
        ("https://ä.example/", False),
        ("https://a/" + "x" * 3_000, False),
        (None, False),
        (7, False),
    ],
)
def test_addresses_that_may_be_shown(url: object, is_secure: bool) -> None:
    assert is_secure_url(url) is is_secure
