"""Any bytes into any decoder give a message or a `RemoteProtocolError`."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from support import wire_samples as samples
from support.machines import MANIFEST
from support.pictures import SIGNATURE, chunk, png

from sleap_rtc_plugin.protocol import codec, errors
from sleap_rtc_plugin.protocol.authentication import sdp_fingerprint
from sleap_rtc_plugin.protocol.errors import (
    RemoteProtocolError,
    SessionStringInvalid,
    SessionStringTooNew,
    UnsafeMember,
)
from sleap_rtc_plugin.protocol.fragments import (
    Fragment,
    Pack,
    decode_frame,
    encode_fragment,
    encode_pack,
)
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.images import image_fault
from sleap_rtc_plugin.protocol.manifest import Manifest
from sleap_rtc_plugin.protocol.messages import CONTROL_TYPES
from sleap_rtc_plugin.protocol.session_string import Session


def is_clean(error: Exception) -> bool:
    return clean_text(str(error), 10_000) == str(error)


any_text = st.text(alphabet=st.characters(exclude_categories=()), max_size=300)
any_bytes = st.binary(max_size=300)
names = st.sampled_from([kind.NAME for kind in CONTROL_TYPES]) | any_text
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=12,
)


def damaged(sound: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Sound bytes with a piece cut out and other bytes put in."""
    return st.builds(
        lambda data, start, length, other: (
            data[: start % (len(data) + 1)]
            + other
            + data[start % (len(data) + 1) + length :]
        ),
        sound,
        st.integers(0, 2000),
        st.integers(0, 8),
        st.binary(max_size=8),
    )


def mutated(message: object, key: int, value: object) -> bytes:
    """A sound message with one field made into anything."""
    body = msgspec.json.decode(msgspec.json.encode(message))
    if body:
        body[sorted(body)[key % len(body)]] = value
    return msgspec.json.encode(body)


control_frames = st.sampled_from(samples.CONTROL).map(codec.encode_control)
client_texts = st.sampled_from(samples.FROM_CLIENT).map(codec.encode_signaling)
server_texts = st.sampled_from(samples.FROM_SERVER).map(codec.encode_signaling)


@given(
    any_text
    | any_bytes
    | st.builds("{}::{}".format, names, any_text)
    | damaged(control_frames.map(str.encode)).map(lambda d: d.decode(errors="replace"))
)
def test_control(frame: str | bytes) -> None:
    try:
        message = codec.decode_control(frame)
    except RemoteProtocolError as error:
        assert is_clean(error)
        return
    assert codec.decode_control(codec.encode_control(message)) == message


@given(st.sampled_from(samples.CONTROL), st.integers(0, 20), json_values)
def test_control_with_one_field_of_anything(message, key: int, value: object) -> None:
    frame = f"{message.NAME}::{mutated(message, key, value).decode()}"
    try:
        decoded = codec.decode_control(frame)
    except RemoteProtocolError as error:
        assert is_clean(error)
        return
    assert type(decoded) is type(message)
    for info in vars(type(decoded)).get("__annotations__", {}):
        if isinstance(getattr(decoded, info, None), errors.ErrorInfo):
            assert str(errors.from_wire(getattr(decoded, info)))


@pytest.mark.parametrize(
    ("decode", "sound"),
    [
        (codec.decode_client_message, client_texts),
        (codec.decode_server_message, server_texts),
    ],
    ids=["client", "server"],
)
def test_signaling(decode, sound) -> None:
    @given(any_text | any_bytes | damaged(sound.map(str.encode)))
    def check(data: str | bytes) -> None:
        try:
            message = decode(data)
        except RemoteProtocolError as error:
            assert is_clean(error)
            return
        # A payload passed through unread may be anything but a message again.
        codec.encode_signaling(message)

    check()


@given(
    st.sampled_from([*samples.FROM_CLIENT, *samples.FROM_SERVER]),
    st.integers(0, 20),
    json_values,
)
def test_signaling_with_one_field_of_anything(message, key, value) -> None:
    data = mutated(message, key, value)
    for decode in (codec.decode_client_message, codec.decode_server_message):
        try:
            decoded = decode(data)
        except RemoteProtocolError:
            continue
        assert decode(codec.encode_signaling(decoded)) == decoded


@given(
    any_bytes
    | damaged(
        st.sampled_from(samples.PAYLOADS).map(
            lambda p: bytes(codec.encode_peer_payload(p))
        )
    )
)
def test_payloads(data: bytes) -> None:
    try:
        payload = codec.decode_peer_payload(Raw(data))
    except RemoteProtocolError:
        return
    assert codec.decode_peer_payload(codec.encode_peer_payload(payload)) == payload


@given(any_bytes | damaged(st.just(png(extra=chunk(b"tEXt", b"a\0b")))))
def test_images(data: bytes) -> None:
    fault = image_fault(data)
    if fault is None:
        assert data.startswith(SIGNATURE)
    else:
        assert clean_text(fault) == fault


SOUND_FRAGMENT = encode_fragment(Fragment(1, 2, 3, b"data", is_manifest=False))
SOUND_PACK = encode_pack(Pack(1, ((2, b"one"), (4, b"another"), (3, b"last"))))


@given(any_bytes | any_text | damaged(st.sampled_from([SOUND_FRAGMENT, SOUND_PACK])))
def test_fragments(frame: bytes | str) -> None:
    try:
        arrived = decode_frame(frame)
    except RemoteProtocolError:
        return
    if isinstance(arrived, Pack):
        assert encode_pack(arrived) == frame
    else:
        assert encode_fragment(arrived) == frame


@given(
    any_bytes
    | damaged(st.just(MANIFEST.encode()))
    | json_values.map(msgspec.json.encode)
    | st.lists(
        st.tuples(
            st.text(max_size=8),
            st.integers(-5, 5),
            st.binary(max_size=33),
            st.binary(max_size=9),
            st.binary(max_size=65),
        ),
        max_size=3,
    ).map(lambda files: msgspec.msgpack.encode([files]))
)
def test_manifests(data: bytes) -> None:
    try:
        manifest = Manifest.decode(data)
    except (RemoteProtocolError, UnsafeMember) as error:
        assert is_clean(error)
        return
    for number in range(manifest.chunk_count):
        assert manifest.chunk(number).size_bytes > 0


LINE = Session(
    url="http://gpu-1:8080", room_id="r", token="t", peer_id="w", secret=b"s" * 32
).encode()


@given(any_text | damaged(st.just(LINE.encode())).map(lambda d: d.decode("latin-1")))
def test_session_strings(text: str) -> None:
    try:
        session = Session.parse(text)
    except (SessionStringInvalid, SessionStringTooNew) as error:
        assert is_clean(error)
        return
    assert session.encode() == LINE


SDP = samples.SDP


@given(any_text | damaged(st.just(SDP.encode())).map(lambda d: d.decode("latin-1")))
def test_session_descriptions(sdp: str) -> None:
    try:
        assert len(sdp_fingerprint(sdp)) == 95
    except RemoteProtocolError:
        return
