"""The two frames of a relay, and the answer of /ice-servers."""

import json
from pathlib import Path

import msgspec
import pytest

from sleap_rtc_plugin.protocol.close_codes import (
    FATAL_RELAY_CLOSE_CODES,
    CloseCode,
    RelayCloseCode,
)
from sleap_rtc_plugin.protocol.errors import RemoteProtocolError
from sleap_rtc_plugin.protocol.ids import is_id, is_relay_id, new_relay_id
from sleap_rtc_plugin.protocol.limits import MAX_RELAY_JOIN_BYTES
from sleap_rtc_plugin.protocol.relay_messages import (
    IceServerList,
    RelayJoin,
    RelayJoined,
    RelayTerms,
    decode_relay_join,
    decode_relay_joined,
    encode_relay,
)

RELAY = "relay-" + "0123456789abcdef" * 2


def test_a_join_goes_there_and_back() -> None:
    join = RelayJoin(relay_id=RELAY, peer_id="client-1")
    text = encode_relay(join)
    assert text == (
        f'{{"type":"relay_join","relay_id":"{RELAY}","peer_id":"client-1"}}'
    )
    assert decode_relay_join(text) == join
    assert encode_relay(RelayJoined()) == '{"type":"relay_joined"}'
    assert decode_relay_joined('{"type":"relay_joined"}') == RelayJoined()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "relay_join",
        "[]",
        "[" * MAX_RELAY_JOIN_BYTES,
        '{"type":"relay_joined"}',
        '{"type":"relay_join"}',
        f'{{"relay_id":"{RELAY}","peer_id":"a"}}',
        f'{{"type":"relay_join","relay_id":"{RELAY}"}}',
        f'{{"type":"relay_join","relay_id":"{RELAY}","peer_id":"A b"}}',
        f'{{"type":"relay_join","relay_id":"{RELAY}","peer_id":5}}',
        f'{{"type":"relay_join","relay_id":"{RELAY}x","peer_id":"a"}}',
        f'{{"type":"relay_join","relay_id":"{RELAY[:-1]}","peer_id":"a"}}',
        f'{{"type":"relay_join","relay_id":"{RELAY.upper()}","peer_id":"a"}}',
        '{"type":"relay_join","relay_id":"room-1","peer_id":"a"}',
        f'{{"type":"relay_join","relay_id":"{RELAY}","peer_id":"a"}}' + " " * 2_000,
        "\ud800",
    ],
)
def test_anything_else_is_no_join(text: str) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_relay_join(text)


@pytest.mark.parametrize("text", ["", "{}", '{"type":"relay_join"}', " " * 2_000])
def test_anything_else_is_not_joined(text: str) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_relay_joined(text)


def test_relay_ids_are_ids_that_nobody_guesses() -> None:
    made = {new_relay_id() for _ in range(100)}
    assert len(made) == 100
    assert all(is_relay_id(text) and is_id(text) for text in made)
    assert not is_relay_id(f"{RELAY}\n")


def test_an_old_server_lists_servers_only() -> None:
    decode = msgspec.json.Decoder(IceServerList).decode
    assert decode('{"ice_servers":[]}') == IceServerList(ice_servers=[])
    full = decode(
        '{"ice_servers":[],"expires_at":5.5,"relay":{"path":"/relay","max_mbit":8.0}}'
    )
    assert full.expires_at == 5.5
    assert full.relay == RelayTerms(path="/relay", max_mbit=8.0)


@pytest.mark.parametrize(
    "relay",
    [
        '{"path":"//","max_mbit":0}',
        '{"path":"http://other","max_mbit":8}',
        '{"path":"//other/relay","max_mbit":8}',
        '{"path":"/relay?a=b","max_mbit":8}',
        '{"path":"/relay"}',
        "5",
    ],
)
def test_terms_that_make_no_sense_are_refused(relay: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(f'{{"ice_servers":[],"relay":{relay}}}', type=IceServerList)


def test_the_vectors_are_understood() -> None:
    path = Path(__file__).parents[3] / "resources" / "vectors" / "relay.json"
    vectors = json.loads(path.read_text(encoding="utf-8"))
    for vector in vectors["from_peer"]:
        assert encode_relay(decode_relay_join(vector["text"])) == vector["text"]
    for vector in vectors["from_server"]:
        assert encode_relay(decode_relay_joined(vector["text"])) == vector["text"]
    for text in vectors["refused"]:
        with pytest.raises(RemoteProtocolError):
            decode_relay_join(text)


def test_the_codes_of_both_kinds_of_socket_differ() -> None:
    assert not {int(code) for code in CloseCode} & {
        int(code) for code in RelayCloseCode
    }
    assert {4420, 4421} == FATAL_RELAY_CLOSE_CODES
