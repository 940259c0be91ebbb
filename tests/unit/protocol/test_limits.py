"""The bounds fit together; a change of one that breaks another fails here."""

from sleap_rtc_plugin.protocol import limits as bound
from sleap_rtc_plugin.protocol.fragments import HEADER_BYTES


def numbers() -> dict[str, float]:
    return {
        name: value
        for name, value in vars(bound).items()
        if name.isupper() and isinstance(value, int | float)
    }


def test_every_bound_is_a_positive_number() -> None:
    assert len(numbers()) > 80
    assert all(value > 0 for value in numbers().values())


def test_names_end_in_their_unit() -> None:
    for name, value in numbers().items():
        if isinstance(value, float):
            assert name.endswith(("_S", "_FACTOR")), name


def test_a_fragment_with_its_header_fits_a_frame() -> None:
    assert bound.FRAGMENT_BYTES + HEADER_BYTES <= bound.MAX_TRANSFER_FRAME_BYTES
    # What every WebRTC stack accepts in one message (RFC 8841 section 6.1).
    assert bound.MAX_TRANSFER_FRAME_BYTES <= 64 * bound.KIB


def test_the_largest_chunk_is_at_most_half_the_window() -> None:
    # Else a receiver could never ask again before its window is empty.
    assert bound.CHUNK_BYTES <= bound.MAX_CHUNK_BYTES
    assert 2 * bound.MAX_CHUNK_BYTES <= bound.REQUEST_WINDOW_BYTES


def test_the_largest_package_of_usual_chunks_has_a_manifest_that_fits() -> None:
    chunks = bound.MAX_PACKAGE_BYTES // bound.CHUNK_BYTES + bound.MAX_PACKAGE_FILES
    assert chunks * (4 + 32) + bound.MAX_PACKAGE_FILES * (
        bound.MAX_PATH_CHARS + 64
    ) <= (bound.MAX_MANIFEST_BYTES)


def test_what_is_relayed_fits_a_signaling_message() -> None:
    room = bound.MAX_SIGNALING_MESSAGE_BYTES
    assert room > bound.MAX_SDP_CHARS
    assert room > bound.MAX_PEER_MESSAGE_BYTES
    assert room > bound.MAX_METADATA_BYTES + bound.MAX_TOKEN_CHARS
    assert room > bound.MAX_CANDIDATE_CHARS


def test_a_session_string_fits_its_parts() -> None:
    parts = bound.MAX_TOKEN_CHARS + bound.MAX_URL_CHARS // 2
    assert parts * 4 / 3 < bound.MAX_SESSION_STRING_CHARS


def test_timeouts_come_in_order() -> None:
    assert bound.KEEP_ALIVE_INTERVAL_S * 3 < bound.KEEP_ALIVE_TIMEOUT_S
    assert bound.HANDSHAKE_TIMEOUT_S <= bound.LINK_CONNECT_TIMEOUT_S
    assert bound.SIGNALING_REPLY_TIMEOUT_S < bound.SIGNALING_PING_INTERVAL_S
    assert bound.SIGNALING_BACKOFF_FIRST_S < bound.SIGNALING_BACKOFF_MAX_S
    assert bound.KEEP_ALIVE_TIMEOUT_S < bound.TRANSFER_STALL_TIMEOUT_S
    assert bound.PEER_ID_RESERVED_S < bound.ROOM_LIFETIME_S


def test_buffers_come_in_order() -> None:
    assert bound.SEND_BUFFER_FLOOR_BYTES < bound.SEND_BUFFER_HIGH_BYTES
    assert 2 * bound.MAX_TRANSFER_FRAME_BYTES < bound.SEND_BUFFER_HIGH_BYTES
    assert bound.CONTROL_BUFFER_HIGH_BYTES < bound.CONTROL_BUFFER_MAX_BYTES
    assert bound.MAX_CONTROL_FRAME_BYTES < bound.CONTROL_BUFFER_HIGH_BYTES


def test_version_ranges_are_ranges() -> None:
    assert 1 <= bound.PROTOCOL_VERSION_MIN <= bound.PROTOCOL_VERSION_MAX
