"""Names, places and samples of files on a mount, decided without a disk."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import wire_samples

from sleap_rtc_plugin.protocol.codec import decode_control, encode_control
from sleap_rtc_plugin.protocol.errors import RemoteProtocolError
from sleap_rtc_plugin.protocol.limits import (
    COMMAND_REPLY_TIMEOUT_S,
    MAX_CLIENT_PATH_CHARS,
    MAX_MOUNT_ENTRIES_PER_PAGE,
    MAX_MOUNT_NAME_CHARS,
    MAX_MOUNT_PATH_CHARS,
    MAX_WANTED_FILES,
    MOUNT_CALL_TIMEOUT_S,
    MOUNT_RESOLVE_S,
    MOUNT_SEARCH_S,
    SAMPLE_BYTES,
)
from sleap_rtc_plugin.protocol.mount_messages import (
    FoundFile,
    MountPlace,
    MountResolve,
    MountResolved,
    WantedFile,
)
from sleap_rtc_plugin.protocol.mounts import (
    client_parts,
    is_mount_name,
    is_video_container,
    place_fault,
    sample_ranges,
    suffixes,
)

WIDEST = "\U0001f41f"


@pytest.mark.parametrize("name", ["lab", "a", "Lab-1.old_2", "x" * 64])
def test_names_of_mounts(name: str) -> None:
    assert is_mount_name(name)


@pytest.mark.parametrize("name", ["", "a/b", "a b", "a=b", "ä", "x" * 65, "lab\n"])
def test_what_is_no_name_of_a_mount(name: str) -> None:
    assert not is_mount_name(name)


@pytest.mark.parametrize(
    "path", ["", "a", "2026/fly.mp4", "12:30:00.mp4", "a b/ü/.hidden", " a "]
)
def test_places(path: str) -> None:
    assert place_fault(path) is None


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "..",
        "a/../../b",
        "a//b",
        "a/",
        "./a",
        "C:/a",
        "C:",
        "a\\b",
        "a\0b",
        "a\nb",
        "\x1fa",
        "a\u202eb",
        "a\ud800",
        "x" * 256,
        "x/" * 64 + "x",
        "ab/" * 400 + "x",
    ],
)
def test_what_is_no_place(path: str) -> None:
    fault = place_fault(path)
    assert fault is not None
    assert fault.isprintable()


@pytest.mark.parametrize(
    ("path", "ends"),
    [
        ("/home/ann/a.mp4", ["home/ann/a.mp4", "ann/a.mp4", "a.mp4"]),
        ("D:\\videos\\a.mp4", ["videos/a.mp4", "a.mp4"]),
        ("\\\\server\\lab\\a.mp4", ["server/lab/a.mp4", "lab/a.mp4", "a.mp4"]),
        ("a.mp4", ["a.mp4"]),
        ("./x/./a.mp4", ["x/a.mp4", "a.mp4"]),
        ("../a.mp4", []),
        ("/home/../etc/a.mp4", []),
        ("/a\0b/c.mp4", []),
        ("/", []),
    ],
)
def test_ends_of_a_path_the_longest_first(path: str, ends: list[str]) -> None:
    assert suffixes(path) == ends


@given(st.text(max_size=2_000))
def test_every_end_of_any_path_is_a_place(path: str) -> None:
    for end in suffixes(path[:MAX_CLIENT_PATH_CHARS]):
        assert place_fault(end) is None
        assert end
    assert all("/" not in part for part in client_parts(path))


@given(st.integers(0, 2**53))
def test_samples_lie_in_the_file_and_do_not_overlap(size_bytes: int) -> None:
    end = 0
    ranges = sample_ranges(size_bytes)
    for offset, length in ranges:
        assert offset >= end
        assert length > 0
        end = offset + length
    assert end == size_bytes
    assert sum(length for _, length in ranges) <= 3 * SAMPLE_BYTES


def test_a_small_file_is_compared_as_a_whole() -> None:
    assert sample_ranges(3 * SAMPLE_BYTES) == [(0, 3 * SAMPLE_BYTES)]
    assert len(sample_ranges(3 * SAMPLE_BYTES + 1)) == 3
    assert sample_ranges(0) == []


@pytest.mark.parametrize(
    "head",
    [
        b"\0\0\0\x18ftypmp42",
        b"\0\0\0\x08wide\0\0\0\0",
        b"RIFF\0\0\0\0AVI ",
        b"\x1a\x45\xdf\xa3\x01\0\0\0\0\0\0\0",
        b"\0\0\0\x0cjP  \r\n\x87\n",
    ],
)
def test_containers(head: bytes) -> None:
    assert is_video_container(head)


@pytest.mark.parametrize(
    "head",
    [b"", b"#EXTM3U\n#EXT", b"ffconcat ver", b"RIFF\0\0\0\0WAVE", b"file 'a.mp4'"],
)
def test_what_may_lead_elsewhere_is_no_container(head: bytes) -> None:
    assert not is_video_container(head)


# -- the frames --------------------------------------------------------------------


def test_the_largest_question_and_answer_fit_a_frame() -> None:
    path = WIDEST * MAX_CLIENT_PATH_CHARS
    place = MountPlace(mount="x" * MAX_MOUNT_NAME_CHARS, path=path)
    wanted = WantedFile(
        path='"' * 10 + path[10:],
        size_bytes=2**53 - 1,
        sample="ab" * 32,
        hint=place,
        member=WIDEST * 240,
    )
    question = MountResolve(command_id="c" * 64, files=[wanted] * MAX_WANTED_FILES)
    assert decode_control(encode_control(question)) == question
    answer = MountResolved(
        command_id="c" * 64,
        found=[FoundFile(index=2**53 - 1, place=place)] * MAX_WANTED_FILES,
        roots={
            str(number).rjust(MAX_MOUNT_NAME_CHARS, "x"): WIDEST * MAX_MOUNT_PATH_CHARS
            for number in range(MAX_WANTED_FILES)
        },
    )
    assert decode_control(encode_control(answer)) == answer


@pytest.mark.parametrize(
    ("frame", "changes"),
    [
        ("MOUNT_LIST", {"place": {"mount": "../x", "path": ""}}),
        ("MOUNT_LIST", {"place": {"mount": "", "path": ""}}),
        ("MOUNT_LIST", {"place": {"mount": "a", "path": "x" * 1025}}),
        ("MOUNT_LIST", {"after": "x" * 256}),
        ("MOUNT_LISTING", {"entries": [{"name": "", "kind": "file"}]}),
        ("MOUNT_LISTING", {"entries": [{"name": "a", "kind": "device"}]}),
        (
            "MOUNT_LISTING",
            {"entries": [{"name": "a", "kind": "file"}] * 401},
        ),
        ("MOUNT_RESOLVE", {"files": [{"path": "", "size_bytes": 1, "sample": "a"}]}),
        (
            "MOUNT_RESOLVE",
            {"files": [{"path": "a", "size_bytes": -1, "sample": "ab" * 32}]},
        ),
        (
            "MOUNT_RESOLVE",
            {"files": [{"path": "a", "size_bytes": 1, "sample": "ab" * 32}] * 9},
        ),
        ("MOUNT_RESOLVE", {"job_id": "../x"}),
        ("MOUNT_RESOLVED", {"roots": {str(n): "/" for n in range(9)}}),
        ("MOUNT_RESOLVED", {"roots": {"a b": "/"}}),
        ("MOUNT_RESOLVED", {"found": [{"index": -1, "place": {"mount": "a"}}]}),
    ],
)
def test_frames_past_their_bounds_are_refused(
    frame: str, changes: dict[str, object]
) -> None:
    message = next(m for m in wire_samples.CONTROL if frame == m.NAME)
    body = msgspec.to_builtins(message) | changes
    with pytest.raises(RemoteProtocolError):
        decode_control(f"{frame}::{msgspec.json.encode(body).decode()}")


def test_bounds_come_in_order() -> None:
    assert MAX_MOUNT_ENTRIES_PER_PAGE == 400
    assert MOUNT_SEARCH_S < MOUNT_RESOLVE_S
    # One call that hangs may come on top of the rest, and the answer is still heard.
    assert MOUNT_RESOLVE_S + MOUNT_CALL_TIMEOUT_S < COMMAND_REPLY_TIMEOUT_S
