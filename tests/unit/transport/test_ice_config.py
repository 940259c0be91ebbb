"""What is taken of the servers that the signaling server lists, and for how long."""

import msgspec
import pytest

from sleap_rtc_plugin.protocol.limits import ICE_MAX_AGE_S, ICE_REFRESH_MARGIN_S
from sleap_rtc_plugin.protocol.relay_messages import IceServerList
from sleap_rtc_plugin.protocol.signaling_messages import IceServer
from sleap_rtc_plugin.transport.answer_way import AnswerWays, candidate_kinds
from sleap_rtc_plugin.transport.ice_config import (
    IceUrl,
    is_worth_keeping,
    parse_ice_url,
    stun_servers,
    turn_servers,
    turn_ways,
)
from sleap_rtc_plugin.transport.turn_probe import StunOutcome, has_expired


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("stun:a.b", IceUrl("stun", "a.b", 3478)),
        ("turn:a.b:99", IceUrl("turn-udp", "a.b", 99)),
        ("turn:a.b?transport=udp", IceUrl("turn-udp", "a.b", 3478)),
        ("turn:1.2.3.4:443?transport=tcp", IceUrl("turn-tcp", "1.2.3.4", 443)),
        ("turns:a.b", IceUrl("turn-tls", "a.b", 5349)),
        ("turns:a.b:443?transport=tcp", IceUrl("turn-tls", "a.b", 443)),
        ("turns:a.b?transport=udp", None),
        ("stun:a.b?transport=udp", None),
        ("stuns:a.b", None),
        ("turn:", None),
        ("turn:a b", None),
        ("turn:a:0", None),
        ("turn:a:65536", None),
        ("turn:a:1\n", None),
        ("turn:[::1]:1", None),
        ("http://a", None),
        ("turn:" + "a" * 5000, None),
    ],
)
def test_addresses_of_servers(url: str, found: IceUrl | None) -> None:
    assert parse_ice_url(url) == found


def test_one_server_with_one_address_is_taken_of_each_kind() -> None:
    config = IceServerList(
        ice_servers=[
            IceServer(urls=["nonsense", "turn:a?transport=tcp", "turn:b"]),
            IceServer(urls=["turn:c", "stun:d", "stun:e"], username="u"),
        ]
    )
    assert turn_ways(config) == ["turn-udp", "turn-tcp"]
    assert turn_servers(config, "turn-udp") == [IceServer(urls=["turn:b"])]
    assert turn_servers(config, "turn-tls") == []
    assert stun_servers(config) == [IceServer(urls=["stun:d"], username="u")]


def test_a_list_without_end_is_cut() -> None:
    many = IceServer(urls=["x"] * 1000 + ["turn:a"])
    assert turn_ways(IceServerList(ice_servers=[many])) == []


def test_what_older_servers_say_is_understood() -> None:
    config = msgspec.json.decode(b'{"ice_servers": []}', type=IceServerList)
    assert config == IceServerList(ice_servers=[])


@pytest.mark.parametrize(
    "path", ["relay", "/", "/a//b", "//host/x", "/../x y", "/a?b", "/" + "a" * 5000]
)
def test_a_relay_is_at_a_path_of_the_server(path: str) -> None:
    data = msgspec.json.encode(
        {"ice_servers": [], "relay": {"path": path, "max_mbit": 8}}
    )
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(data, type=IceServerList)


@pytest.mark.parametrize(
    ("expires_in_s", "age_s", "is_kept"),
    [
        (3600.0, 0.0, True),
        (None, 0.0, True),
        (ICE_REFRESH_MARGIN_S, 0.0, False),
        (ICE_REFRESH_MARGIN_S + 1, 0.0, True),
        # Of a clock that is far behind the server's.
        (10 * 86400.0, ICE_MAX_AGE_S, False),
        (None, ICE_MAX_AGE_S, False),
        (-5.0, 0.0, False),
    ],
)
def test_when_to_ask_again(
    expires_in_s: float | None, age_s: float, is_kept: bool
) -> None:
    now = 1_800_000_000.0
    expires_at = None if expires_in_s is None else now + expires_in_s
    config = IceServerList(ice_servers=[], expires_at=expires_at)
    assert is_worth_keeping(config, age_s=age_s, unix_now=now) is is_kept


# -- answering ------------------------------------------------------------------------

HOST = "a=candidate:1 1 udp 1 192.0.2.1 5 typ host\r\n"
RELAY = "a=candidate:2 1 udp 1 192.0.2.2 6 typ relay raddr 0.0.0.0 rport 9\r\n"
STUN = IceServer(urls=["stun:s:1"])


def test_an_offer_says_by_its_candidates_which_way_it_is() -> None:
    assert candidate_kinds(f"v=0\r\n{HOST}{RELAY}") == {"host", "relay"}
    assert candidate_kinds("v=0\r\n") == frozenset()


async def test_a_direct_offer_is_answered_without_turn() -> None:
    config = IceServerList(ice_servers=[STUN, IceServer(urls=["turn:t"])])
    servers = await AnswerWays(relay_only=False).for_offer(HOST, config)
    assert (servers.ice_servers, servers.relay_only) == ([STUN], False)


@pytest.mark.parametrize("sdp", [RELAY, HOST + RELAY])
async def test_an_offer_over_turn_is_answered_without_where_there_is_none(
    sdp: str,
) -> None:
    servers = await AnswerWays(relay_only=False).for_offer(
        sdp, IceServerList(ice_servers=[STUN])
    )
    assert (servers.ice_servers, servers.relay_only) == ([STUN], False)


@pytest.mark.parametrize("sdp", [RELAY, HOST])
async def test_a_worker_that_tells_no_address_rather_answers_nothing(sdp: str) -> None:
    servers = await AnswerWays(relay_only=True).for_offer(
        sdp, IceServerList(ice_servers=[STUN])
    )
    assert (servers.ice_servers, servers.relay_only) == ([], True)


# -- probes ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("username", "is_past"),
    [
        ("99:room", True),
        ("100:room", True),
        ("101:room", False),
        ("user", False),
        (None, False),
        ("9" * 5000, False),
    ],
)
def test_a_user_name_says_when_it_ends(username: str | None, is_past: bool) -> None:
    server = IceServer(urls=[], username=username)
    assert has_expired(server, 100.0) is is_past


@pytest.mark.parametrize(
    ("mapped", "nat"),
    [
        ({}, "unknown"),
        ({"a": ("192.0.2.1", 5)}, "unknown"),
        ({"a": ("192.0.2.1", 5), "b": ("192.0.2.1", 5)}, "same"),
        ({"a": ("192.0.2.1", 5), "b": ("192.0.2.1", 6)}, "different"),
    ],
)
def test_what_two_servers_see_tells_the_kind_of_nat(mapped, nat: str) -> None:
    assert StunOutcome(7, mapped).nat == nat
