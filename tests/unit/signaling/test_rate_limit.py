import pytest

from sleap_rtc_signaling.limits import Rate
from sleap_rtc_signaling.rate_limit import RateLimiter, address_key


def test_a_burst_then_the_steady_rate() -> None:
    limiter = RateLimiter(Rate(burst=3, per_s=2.0))
    assert [limiter.take("a", 10.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert limiter.take("a", 10.0) == pytest.approx(0.5)
    assert limiter.take("a", 10.4) == pytest.approx(0.1)
    assert limiter.take("a", 10.5) == 0.0
    assert limiter.take("a", 10.5) > 0.0


def test_a_refusal_takes_nothing() -> None:
    limiter = RateLimiter(Rate(burst=1, per_s=1.0))
    limiter.take("a", 0.0)
    for _ in range(100):
        limiter.take("a", 0.5)
    assert limiter.take("a", 1.0) == 0.0


def test_a_bucket_does_not_overflow() -> None:
    limiter = RateLimiter(Rate(burst=2, per_s=1.0))
    limiter.take("a", 0.0)
    taken = [limiter.take("a", 1_000.0) == 0.0 for _ in range(3)]
    assert taken == [True, True, False]


def test_keys_do_not_share() -> None:
    limiter = RateLimiter(Rate(burst=1, per_s=1.0))
    assert limiter.take("a", 0.0) == 0.0
    assert limiter.take("b", 0.0) == 0.0
    assert limiter.take("a", 0.0) > 0.0


def test_the_bucket_used_longest_ago_makes_room() -> None:
    limiter = RateLimiter(Rate(burst=1, per_s=1.0), max_keys=2)
    limiter.take("a", 0.0)
    limiter.take("b", 0.0)
    limiter.take("a", 0.0)
    limiter.take("c", 0.0)
    assert len(limiter) == 2
    assert limiter.take("a", 0.0) > 0.0
    assert limiter.take("b", 0.0) == 0.0


def test_a_clock_that_steps_back_neither_drains_nor_fills() -> None:
    limiter = RateLimiter(Rate(burst=2, per_s=1.0))
    limiter.take("a", 100.0)
    assert limiter.take("a", 50.0) == 0.0
    assert limiter.take("a", 99.0) > 0.0
    assert limiter.take("a", 101.0) == 0.0


def test_a_forgotten_key_starts_anew() -> None:
    limiter = RateLimiter(Rate(burst=1, per_s=1.0))
    limiter.take("a", 0.0)
    limiter.forget("a")
    limiter.forget("never there")
    assert limiter.take("a", 0.0) == 0.0


@pytest.mark.parametrize(
    ("host", "key"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("not an address", "not an address"),
        ("", ""),
    ],
)
def test_one_site_is_one_key(host: str, key: str) -> None:
    assert address_key(host) == key
