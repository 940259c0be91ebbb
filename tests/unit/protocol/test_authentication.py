"""The handshake against everything a middle, a replay or a liar can try."""

from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from support import wire_samples

from sleap_rtc_plugin.protocol import authentication, codec, messages
from sleap_rtc_plugin.protocol.authentication import (
    Authenticated,
    Handshake,
    HandshakeState,
    SendFrame,
    sdp_fingerprint,
)
from sleap_rtc_plugin.protocol.errors import (
    LocalProtocolError,
    PeerNotAuthenticated,
    RemoteProtocolError,
    VersionMismatch,
)
from sleap_rtc_plugin.protocol.limits import HANDSHAKE_TIMEOUT_S

SECRET = b"s" * 32
CLIENT_CERTIFICATE = ":".join(["C1"] * 32)
WORKER_CERTIFICATE = ":".join(["D2"] * 32)
MIDDLE_CERTIFICATE = ":".join(["EE"] * 32)


@dataclass
class Side:
    """One end, and everything it wants to send."""

    handshake: Handshake
    out: list[str]
    authenticated: Authenticated | None = None

    def start(self) -> None:
        self._perform(self.handshake.start(0.0))

    def take(self, frame: str) -> None:
        self._perform(self.handshake.handle(frame, codec.decode_control(frame)))

    def _perform(self, instructions: list[Any]) -> None:
        for instruction in instructions:
            if isinstance(instruction, SendFrame):
                self.out.append(instruction.frame)
            else:
                self.authenticated = instruction


def client(**changes: Any) -> Side:
    arguments = {
        "role": "client",
        "secret": SECRET,
        "nonce": b"c" * 32,
        "local_fingerprint": CLIENT_CERTIFICATE,
        "remote_fingerprint": WORKER_CERTIFICATE,
        "software": "client 1",
        "features": frozenset({"a", "b"}),
    }
    return Side(Handshake(**{**arguments, **changes}), [])


def worker(**changes: Any) -> Side:
    arguments = {
        "role": "worker",
        "secret": SECRET,
        "nonce": b"w" * 32,
        "local_fingerprint": WORKER_CERTIFICATE,
        "remote_fingerprint": CLIENT_CERTIFICATE,
        "software": "worker 2",
        "features": frozenset({"b", "c"}),
    }
    return Side(Handshake(**{**arguments, **changes}), [])


def pair(**changes: Any) -> tuple[Side, Side]:
    one, other = client(**changes), worker(**changes)
    one.start()
    other.start()
    return one, other


def exchange_hellos(one: Side, other: Side) -> None:
    one.take(other.out[0])
    other.take(one.out[0])


def refuses(side: Side, frame: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        side.take(frame)
    assert side.handshake.state is HandshakeState.FAILED
    assert side.authenticated is None


def test_two_honest_peers() -> None:
    one, other = pair()
    exchange_hellos(one, other)
    assert one.authenticated is None
    one.take(other.out[1])
    other.take(one.out[1])
    assert one.authenticated == Authenticated(1, frozenset({"b"}), "worker 2")
    assert other.authenticated == Authenticated(1, frozenset({"b"}), "client 1")
    assert one.handshake.state is other.handshake.state is HandshakeState.DONE
    assert len(one.out) == len(other.out) == 2


def test_the_secret_never_crosses() -> None:
    one, other = pair()
    exchange_hellos(one, other)
    crossed = "".join(one.out + other.out)
    assert SECRET.hex() not in crossed
    assert SECRET.decode() not in crossed


def test_a_wrong_secret_is_refused_by_both() -> None:
    one, other = client(), worker(secret=b"x" * 32)
    one.start()
    other.start()
    exchange_hellos(one, other)
    refuses(one, other.out[1], PeerNotAuthenticated)
    refuses(other, one.out[1], PeerNotAuthenticated)


def test_a_relay_with_certificates_of_its_own_is_refused_by_both() -> None:
    one = client(remote_fingerprint=MIDDLE_CERTIFICATE)
    other = worker(remote_fingerprint=MIDDLE_CERTIFICATE)
    one.start()
    other.start()
    exchange_hellos(one, other)
    refuses(one, other.out[1], PeerNotAuthenticated)
    refuses(other, one.out[1], PeerNotAuthenticated)


def test_a_relay_on_one_leg_only_is_refused_too() -> None:
    one, other = client(remote_fingerprint=MIDDLE_CERTIFICATE), worker()
    one.start()
    other.start()
    exchange_hellos(one, other)
    refuses(one, other.out[1], PeerNotAuthenticated)


def test_swapped_fingerprints_do_not_pass() -> None:
    one = client()
    other = worker(
        local_fingerprint=CLIENT_CERTIFICATE, remote_fingerprint=WORKER_CERTIFICATE
    )
    one.start()
    other.start()
    exchange_hellos(one, other)
    refuses(one, other.out[1], PeerNotAuthenticated)


def test_own_frames_reflected_are_refused() -> None:
    one, _ = pair()
    refuses(one, one.out[0], RemoteProtocolError)


def test_an_own_hello_with_the_other_role_is_refused() -> None:
    one, _ = pair()
    own = codec.decode_control(one.out[0])
    reflected = msgspec.structs.replace(own, role="worker")
    refuses(one, codec.encode_control(reflected), PeerNotAuthenticated)


def test_an_own_proof_reflected_is_refused() -> None:
    one, other = pair()
    exchange_hellos(one, other)
    refuses(one, one.out[1], PeerNotAuthenticated)


def test_equal_nonces_are_refused() -> None:
    one, other = pair(nonce=b"n" * 32)
    refuses(one, other.out[0], PeerNotAuthenticated)


def test_a_proof_of_an_earlier_handshake_is_refused() -> None:
    one, other = pair()
    exchange_hellos(one, other)
    recorded_hello, recorded_auth = other.out
    again = client(nonce=b"n" * 32)
    again.start()
    again.take(recorded_hello)
    refuses(again, recorded_auth, PeerNotAuthenticated)


def test_both_recorded_sides_do_not_fool_a_fresh_worker() -> None:
    one, other = pair()
    exchange_hellos(one, other)
    fresh = worker(nonce=b"f" * 32)
    fresh.start()
    fresh.take(one.out[0])
    refuses(fresh, one.out[1], PeerNotAuthenticated)


@pytest.mark.parametrize(
    "change",
    [
        {"software": "client 0"},
        {"features": ["a"]},
        {"features": []},
        {"nonce": "0d" * 32},
        {"protocol_max": 2},
    ],
    ids=str,
)
def test_a_hello_altered_in_flight_is_refused_by_both(change: dict[str, Any]) -> None:
    one, other = pair()
    hello = codec.decode_control(one.out[0])
    altered = codec.encode_control(msgspec.structs.replace(hello, **change))
    other.take(altered)
    one.take(other.out[0])
    refuses(other, one.out[1], PeerNotAuthenticated)
    refuses(one, other.out[1], PeerNotAuthenticated)


def test_a_version_range_made_smaller_in_flight_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(authentication, "PROTOCOL_VERSION_MAX", 3)
    one, other = pair()
    hello = codec.decode_control(one.out[0])
    downgraded = msgspec.structs.replace(hello, protocol_max=1)
    other.take(codec.encode_control(downgraded))
    one.take(other.out[0])
    refuses(other, one.out[1], PeerNotAuthenticated)


def test_the_same_hello_spelled_otherwise_is_not_the_same() -> None:
    one, other = pair()
    other.take(one.out[0].replace('"role"', ' "role"'))
    one.take(other.out[0])
    refuses(other, one.out[1], PeerNotAuthenticated)


def test_the_highest_common_version_is_spoken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "PROTOCOL_VERSION_MIN", 2)
    monkeypatch.setattr(authentication, "PROTOCOL_VERSION_MAX", 5)
    one = client()
    monkeypatch.setattr(authentication, "PROTOCOL_VERSION_MAX", 4)
    other = worker()
    one.start()
    other.start()
    exchange_hellos(one, other)
    one.take(other.out[1])
    other.take(one.out[1])
    assert other.authenticated is not None
    assert other.authenticated.version == 4


@pytest.mark.parametrize(
    ("low", "high"), [(2, 9), (1000, 1000), (5, 1)], ids=["newer", "far", "inverted"]
)
def test_no_common_version(low: int, high: int) -> None:
    one, other = pair()
    hello = codec.decode_control(other.out[0])
    strange = msgspec.structs.replace(hello, protocol_min=low, protocol_max=high)
    with pytest.raises(VersionMismatch) as refused:
        one.take(codec.encode_control(strange))
    assert refused.value.theirs == f"{low} to {high}"
    assert one.handshake.state is HandshakeState.FAILED
    assert len(one.out) == 1  # no proof for a peer that we cannot speak with


NOT_HELLO = [m for m in wire_samples.CONTROL if not isinstance(m, messages.Hello)]


@pytest.mark.parametrize("message", NOT_HELLO, ids=lambda m: m.NAME)
def test_anything_before_hello_is_refused(message: messages.ControlMessage) -> None:
    _, other = pair()
    refuses(other, codec.encode_control(message), RemoteProtocolError)


@pytest.mark.parametrize(
    "message",
    [m for m in wire_samples.CONTROL if not isinstance(m, messages.Auth)],
    ids=lambda m: m.NAME,
)
def test_anything_between_hello_and_auth_is_refused(
    message: messages.ControlMessage,
) -> None:
    one, other = pair()
    exchange_hellos(one, other)
    refuses(other, codec.encode_control(message), RemoteProtocolError)


def test_a_failed_handshake_stays_failed() -> None:
    one, other = pair()
    exchange_hellos(one, other)
    refuses(one, codec.encode_control(messages.Auth(mac="00" * 32)), Exception)
    refuses(one, other.out[1], RemoteProtocolError)


def test_nothing_but_start_comes_first() -> None:
    one, other = client(), worker()
    other.start()
    refuses(one, other.out[0], RemoteProtocolError)


def test_starting_twice_is_our_own_fault() -> None:
    one = client()
    one.start()
    with pytest.raises(LocalProtocolError):
        one.start()


def test_the_deadline_runs_from_the_start_to_the_last_proof() -> None:
    one, other = client(), worker()
    assert one.handshake.deadline() is None
    [hello] = one.handshake.start(100.0)
    assert isinstance(hello, SendFrame)
    assert one.handshake.deadline() == 100.0 + HANDSHAKE_TIMEOUT_S
    other.start()
    one.take(other.out[0])
    assert one.handshake.deadline() == 100.0 + HANDSHAKE_TIMEOUT_S
    other.take(hello.frame)
    one.take(other.out[1])
    assert one.handshake.deadline() is None


@pytest.mark.parametrize(
    "changes",
    [
        {"secret": b""},
        {"secret": b"s" * 31},
        {"nonce": b"n" * 33},
        {"local_fingerprint": "AB:CD"},
        {"remote_fingerprint": ""},
    ],
    ids=str,
)
def test_our_own_mistakes_are_named_as_ours(changes: dict[str, Any]) -> None:
    with pytest.raises(LocalProtocolError):
        client(**changes)


# -- fingerprints in descriptions ---------------------------------------------------

LINE = f"a=fingerprint:sha-256 {CLIENT_CERTIFICATE}"


@pytest.mark.parametrize(
    "sdp",
    [
        f"v=0\r\n{LINE}\r\nm=application\r\n",
        f"v=0\n{LINE}\n{LINE}\n",
        f"v=0\n{LINE.lower()}\n",
        f"v=0\na=fingerprint:SHA-256 {CLIENT_CERTIFICATE}\n",
        f"v=0\n{LINE}\na=fingerprint:sha-512 AA:BB\n",
    ],
)
def test_the_one_fingerprint_is_found(sdp: str) -> None:
    assert sdp_fingerprint(sdp) == CLIENT_CERTIFICATE


@pytest.mark.parametrize(
    "sdp",
    [
        "",
        "v=0\r\n",
        f"v=0\n{LINE}\na=fingerprint:sha-256 {WORKER_CERTIFICATE}\n",
        "v=0\na=fingerprint:sha-256 AA:BB\n",
        "v=0\na=fingerprint:sha-1 AA:BB\n",
        f"v=0\n x{LINE}\n",
        f"v=0\na=fingerprint:sha-256 {CLIENT_CERTIFICATE}:AA\n",
        "v=0\na=fingerprint:sha-256 " + "AB" * 32 + "\n",
    ],
)
def test_none_two_or_malformed_fingerprints_are_refused(sdp: str) -> None:
    with pytest.raises(RemoteProtocolError):
        sdp_fingerprint(sdp)
