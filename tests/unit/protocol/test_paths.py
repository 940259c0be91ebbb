"""Every path attack that we know, alone and in company."""

import unicodedata
from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc_plugin.protocol.errors import UnsafeMember
from sleap_rtc_plugin.protocol.limits import (
    MAX_PATH_CHARS,
    MAX_PATH_COMPONENT_BYTES,
    MAX_PATH_DEPTH,
)
from sleap_rtc_plugin.protocol.paths import (
    check_component,
    check_path,
    check_paths,
    path_fault,
)

SAFE = [
    "a",
    "labels.v001.pkg.slp",
    "models/flies.centroid/best.ckpt",
    ".hidden",
    "a b (2).yaml",
    "Müller/実験.slp",
    "console.txt",
    "com10",
    "auxiliary",
    "lpt",
    "x" * MAX_PATH_COMPONENT_BYTES,
    "/".join(["d"] * MAX_PATH_DEPTH),
]

DEVICES = ["con", "prn", "aux", "nul", "conin$", "conout$", "clock$"]
PORTS = [f"{kind}{n}" for kind in ("com", "lpt") for n in "0123456789¹²³"]

UNSAFE = {
    "nothing": "",
    "itself": ".",
    "up": "..",
    "up and away": "../x",
    "up in the middle": "a/../x",
    "up at the end": "a/..",
    "itself in the middle": "a/./b",
    "three dots": "...",
    "dots and spaces": "a/. ./b",
    "space": " ",
    "absolute": "/etc/passwd",
    "two slashes": "//server/share",
    "doubled slash": "a//b",
    "slash at the end": "a/",
    "drive": "C:/x",
    "drive without a slash": "c:x",
    "UNC": "\\\\server\\share\\x",
    "device path": "\\\\.\\PhysicalDrive0",
    "long path": "\\\\?\\C:\\x",
    "backslash": "a\\b",
    "backslash up": "..\\x",
    "alternate stream": "a.txt:hidden",
    "colon deeper": "a/c:/x",
    "wildcard": "a*",
    "question": "a?",
    "quote": 'a"b',
    "pipe": "a|b",
    "less": "a<b",
    "greater": "a>b",
    "NUL character": "a\x00b",
    "NUL at the end": "a.slp\x00.txt",
    "new line": "a\nb",
    "escape": "a\x1b[2Jb",
    "delete": "a\x7f",
    "C1 control": "a\x9bb",
    "right-to-left override": "a\u202egpj.exe",
    "Arabic letter mark": "a\u061cb",
    "zero width": "a\u200bb",
    "byte order mark": "\ufeffa",
    "half a surrogate pair": "a\ud800",
    "trailing dot": "a.",
    "trailing dot of a folder": "a./b",
    "trailing space": "a ",
    "trailing space of a folder": "a /b",
    "too long": "a/" * ((MAX_PATH_CHARS // 2) + 1) + "b",
    "too long a name": "x" * (MAX_PATH_COMPONENT_BYTES + 1),
    "too long a name in bytes": "é" * (MAX_PATH_COMPONENT_BYTES // 2 + 1),
    "too deep": "/".join(["d"] * (MAX_PATH_DEPTH + 1)),
}


@pytest.mark.parametrize("path", SAFE)
def test_safe_paths_pass_unchanged(path: str) -> None:
    assert path_fault(path) is None
    assert check_path(path) == path


@pytest.mark.parametrize("path", UNSAFE.values(), ids=UNSAFE)
def test_unsafe_paths_are_refused(path: str) -> None:
    with pytest.raises(UnsafeMember) as refused:
        check_path(path)
    sentence = str(refused.value)
    assert sentence.isprintable()
    assert refused.value.member
    assert sentence.startswith(f"The package holds {refused.value.member}, which ")


@pytest.mark.parametrize(
    "form", ["{}", "{}.txt", "{}.tar.gz", "a/{}", "{}/b", "{} .txt", "{}  .a.b"]
)
def test_device_names_are_refused_with_any_ending(form: str) -> None:
    # Windows looks at what stands before the first dot, without trailing spaces.
    for name in DEVICES + PORTS:
        for spelled in (name, name.upper(), name.title()):
            path = form.format(spelled)
            assert path_fault(path) == "is a name that Windows reserves", path


COLLISIONS = {
    "same": ["a", "a"],
    "case": ["Models/a", "models/A"],
    "sharp s": ["straße", "STRASSE"],
    "final sigma": ["ΟΔΟΣ", "οδος"],
    "composed": ["caf\u00e9", "cafe\u0301"],
    "composed and case": ["CAFE\u0301", "caf\u00e9"],
    "Kelvin": ["\u212a", "k"],
    "file and folder": ["a", "a/b"],
    "folder and file": ["a/b", "a"],
    "folder and file by case": ["A/b", "a"],
    "deep": ["a/b/c/d", "a/B"],
}


@pytest.mark.parametrize("paths", COLLISIONS.values(), ids=COLLISIONS)
def test_collisions_are_refused(paths: list[str]) -> None:
    with pytest.raises(UnsafeMember, match="has the same name as another"):
        check_paths(paths)


def test_neighbours_pass() -> None:
    check_paths(["a/b", "a/c", "a.b", "ab", "b/a/b", "A1", "a2"])


def test_a_component_has_no_slash() -> None:
    assert check_component("flies.centroid") == "flies.centroid"
    for name in ("a/b", "/", "..", "a\\b", "con"):
        with pytest.raises(UnsafeMember):
            check_component(name)


names = st.text(
    alphabet=st.sampled_from("aA.:/\\ ~$*\x00\u202eéß"), max_size=12
) | st.sampled_from([*UNSAFE.values(), *SAFE])


@given(st.lists(names, max_size=4).map("/".join) | names)
def test_what_passes_stays_below_its_folder_on_every_system(path: str) -> None:
    if path_fault(path) is not None:
        return
    posix = PurePosixPath("/root") / path
    windows = PureWindowsPath("C:\\root") / path
    assert posix.parts[:2] == ("/", "root")
    assert windows.parts[:2] == ("C:\\", "root")
    assert posix.parts[2:] == windows.parts[2:] == tuple(path.split("/"))
    assert ".." not in posix.parts


@given(st.lists(st.text(max_size=6), max_size=5))
def test_paths_that_pass_together_differ_however_they_are_spelled(
    paths: list[str],
) -> None:
    try:
        check_paths(paths)
    except UnsafeMember:
        return
    for form in ("NFC", "NFD"):
        keys = {unicodedata.normalize(form, path).casefold() for path in paths}
        assert len(keys) == len(paths)
