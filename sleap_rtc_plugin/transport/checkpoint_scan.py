"""Looks for code in results before they are kept, without loading them.

Checkpoints and SLEAP's metrics are pickles, and a pickle can run anything. This reads
the opcodes only, with neither torch nor numpy, and lets through what
`torch.load(weights_only=True)` would. Called by `result_import`.
"""

import ast
import io
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

from sleap_rtc_plugin.protocol.errors import StorageFailed, UnsafeCheckpoint
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.limits import MAX_ERROR_TEXT_CHARS, MIB
from sleap_rtc_plugin.transport.zip_directory import read_end_record

__all__ = ["scan_pickle", "scan_result"]

MAX_CHECKPOINT_PICKLE_BYTES: Final = 16 * MIB
MAX_METRICS_PICKLE_BYTES: Final = 64 * MIB
MAX_CHECKPOINT_MEMBERS: Final = 50_000
MAX_ARRAY_HEADER_BYTES: Final = 64 * 1024

_ZIP_MAGIC: Final = b"PK\x03\x04"
_ARRAY_MAGIC: Final = b"\x93NUMPY"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# What torch/_weights_only_unpickler.py implements, as of torch 2.15.
_TORCH_OPCODES: Final = frozenset(
    [
        "APPEND",
        "APPENDS",
        "BINFLOAT",
        "BINGET",
        "BININT",
        "BININT1",
        "BININT2",
        "BINPERSID",
        "BINPUT",
        "BINUNICODE",
        "BUILD",
        "EMPTY_DICT",
        "EMPTY_LIST",
        "EMPTY_SET",
        "EMPTY_TUPLE",
        "GLOBAL",
        "LONG1",
        "LONG_BINGET",
        "LONG_BINPUT",
        "MARK",
        "NEWFALSE",
        "NEWOBJ",
        "NEWTRUE",
        "NONE",
        "PROTO",
        "REDUCE",
        "SETITEM",
        "SETITEMS",
        "SHORT_BINSTRING",
        "STOP",
        "TUPLE",
        "TUPLE1",
        "TUPLE2",
        "TUPLE3",
    ]
)
_DTYPES: Final = [
    "bfloat16",
    "bool",
    "complex128",
    "complex32",
    "complex64",
    "float16",
    "float32",
    "float64",
    "int16",
    "int32",
    "int64",
    "int8",
    "uint16",
    "uint32",
    "uint64",
    "uint8",
    "float8_e4m3fn",
    "float8_e5m2",
]
_STORAGES: Final = [
    "BFloat16",
    "Bool",
    "Byte",
    "Char",
    "ComplexDouble",
    "ComplexFloat",
    "Double",
    "Float",
    "Half",
    "Int",
    "Long",
    "Short",
]
# The part of torch's own list that a state dict of Lightning can hold; what is left
# out (quantized, sparse and wrapped tensors) sleap-nn does not write.
_TORCH_GLOBALS: Final = frozenset(
    {
        "_codecs encode",
        "builtins bytearray",
        "builtins complex",
        "builtins set",
        "__builtin__ bytearray",
        "__builtin__ complex",
        "__builtin__ set",
        "collections Counter",
        "collections OrderedDict",
        "torch Size",
        "torch Tensor",
        "torch device",
        "torch.nn.parameter Parameter",
        "torch.storage TypedStorage",
        "torch.storage UntypedStorage",
        "torch._utils _rebuild_parameter",
        "torch._utils _rebuild_tensor",
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_tensor_v3",
        *(f"torch {dtype}" for dtype in _DTYPES),
        *(f"torch {kind}Storage" for kind in _STORAGES),
        *(f"torch.cuda {kind}Storage" for kind in _STORAGES),
    }
)
_NUMPY_OPCODES: Final = _TORCH_OPCODES - {"BINPERSID", "NEWOBJ"} | frozenset(
    [
        "BINBYTES",
        "BINBYTES8",
        "BINUNICODE8",
        "FRAME",
        "LONG4",
        "MEMOIZE",
        "SHORT_BINBYTES",
        "SHORT_BINUNICODE",
        "STACK_GLOBAL",
        "ADDITEMS",
        "FROZENSET",
        "POP",
    ]
)
_NUMPY_GLOBALS: Final = frozenset(
    {
        "_codecs encode",
        "numpy dtype",
        "numpy ndarray",
        *(
            f"numpy.{core}.multiarray {name}"
            for core in ("core", "_core")
            for name in ("_reconstruct", "scalar")
        ),
    }
)
_TORCH_SUFFIXES: Final = frozenset({".ckpt", ".pt", ".pth", ".bin"})
_ARRAY_SUFFIXES: Final = frozenset({".npz", ".npy"})
_PICKLE_SUFFIXES: Final = frozenset({".pkl", ".pickle", ".joblib", ".dill"})


class _Unsafe(ValueError):
    """The reason why a file is refused, in words."""


def scan_result(path: Path, name: str) -> None:
    """Refuse a result that would run code when SLEAP or sleap-nn loads it.

    Files of other kinds are not looked at.

    Args:
        path: the file.
        name: its relative path, for the error.

    Raises:
        UnsafeCheckpoint: it would, or it cannot be told.
        StorageFailed: it cannot be read.
    """
    suffix = path.suffix.lower()
    scan: Callable[[BinaryIO], None]
    if suffix in _TORCH_SUFFIXES:
        scan = _scan_checkpoint
    elif suffix in _ARRAY_SUFFIXES:
        scan = _scan_arrays
    elif suffix in _PICKLE_SUFFIXES:
        raise UnsafeCheckpoint(path=name, reason="it is a bare pickle")
    else:
        return
    try:
        with path.open("rb") as file:
            scan(file)
    except _Unsafe as unsafe:
        reason = clean_text(str(unsafe), MAX_ERROR_TEXT_CHARS)
        raise UnsafeCheckpoint(path=name, reason=reason) from None
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        EOFError,
        RuntimeError,
        ValueError,
    ):
        raise UnsafeCheckpoint(path=name, reason="it is damaged") from None
    except OSError as error:
        raise StorageFailed(
            place=str(path), reason=error.strerror or "cannot be read"
        ) from error


# -- pickles ---------------------------------------------------------------------


def scan_pickle(
    data: bytes, *, opcodes: frozenset[str], allowed: frozenset[str]
) -> None:
    """Read the opcodes of a pickle and refuse any but the allowed ones.

    A name that the pickle puts together while it runs cannot be read this way and is
    refused too.

    Args:
        data: the pickle, and nothing behind it.
        opcodes: the names of the opcodes to let through, as in `pickletools`.
        allowed: the globals to let through, as `module name`.

    Raises:
        ValueError: an opcode or global is not allowed, or this is not a pickle.
    """
    memo: dict[int, str | None] = {}
    # The last two values pushed, as far as they are known to be text.
    pushed: list[str | None] = [None, None]
    end = 0
    for opcode, argument, position in _opcodes(data):
        end = position + 1
        name = opcode.name
        if name not in opcodes:
            raise _Unsafe(f"its pickle uses the instruction {name}")
        if name == "GLOBAL":
            _check_global(argument, allowed)
        elif name == "STACK_GLOBAL":
            module, attribute = pushed
            if module is None or attribute is None:
                raise _Unsafe("its pickle puts a name together while it runs")
            _check_global(f"{module} {attribute}", allowed)
        if name in ("FRAME", "PROTO"):
            continue
        if name == "MEMOIZE":
            memo[len(memo)] = pushed[1]
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = pushed[1]
        elif name in ("BINGET", "LONG_BINGET"):
            pushed = [pushed[1], memo.get(argument)]
        elif isinstance(argument, str) and name != "GLOBAL":
            pushed = [pushed[1], argument]
        else:
            pushed = [pushed[1], None]
    if end != len(data):
        raise _Unsafe("there is something behind its pickle")


def _opcodes(data: bytes) -> Iterator[tuple[Any, Any, int]]:
    for opcode, argument, position in pickletools.genops(data):
        yield opcode, argument, position or 0


def _check_global(name: str, allowed: frozenset[str]) -> None:
    if name not in allowed:
        raise _Unsafe(f"it would call {name.replace(' ', '.')}")


# -- torch -----------------------------------------------------------------------


def _open_exact_zip(file: BinaryIO) -> zipfile.ZipFile:
    """Open a zip in which every reader finds the same members."""
    file.seek(0)
    magic = file.read(len(_ZIP_MAGIC))
    record = read_end_record(file)
    if magic != _ZIP_MAGIC or record is None:
        raise _Unsafe("it is not a zip, as sleap-nn writes it")
    if not record.is_exact:
        raise _Unsafe("it has something before or behind its zip")
    if record.members > MAX_CHECKPOINT_MEMBERS:
        raise _Unsafe(f"it holds {record.members} members")
    archive = zipfile.ZipFile(file)
    names = [info.orig_filename.casefold() for info in archive.infolist()]
    if len(set(names)) != len(names):
        raise _Unsafe("two of its members have the same name")
    return archive


def _scan_checkpoint(file: BinaryIO) -> None:
    with _open_exact_zip(file) as archive:
        infos = archive.infolist()
        roots = {info.orig_filename.partition("/")[0] for info in infos}
        pickles = [i for i in infos if i.orig_filename.lower().endswith(".pkl")]
        if len(roots) != 1 or [i.orig_filename for i in pickles] != [
            f"{min(roots)}/data.pkl"
        ]:
            raise _Unsafe("it is not laid out as torch.save does it")
        if any(info.compress_type != zipfile.ZIP_STORED for info in infos):
            raise _Unsafe("it is compressed, which torch.save never does")
        data = _read_bounded(archive, pickles[0], MAX_CHECKPOINT_PICKLE_BYTES)
    scan_pickle(data, opcodes=_TORCH_OPCODES, allowed=_TORCH_GLOBALS)


def _read_bounded(archive: zipfile.ZipFile, info: zipfile.ZipInfo, limit: int) -> bytes:
    if info.file_size > limit:
        raise _Unsafe(f"its {info.orig_filename} is larger than {limit} bytes")
    return archive.read(info)


# -- numpy -----------------------------------------------------------------------


def _scan_arrays(file: BinaryIO) -> None:
    """Scan a `.npy` or `.npz`: numpy takes a file that is neither for a pickle."""
    if file.read(len(_ARRAY_MAGIC)) == _ARRAY_MAGIC:
        _scan_array(file)
        return
    with _open_exact_zip(file) as archive:
        for info in archive.infolist():
            with archive.open(info) as member:
                if member.read(len(_ARRAY_MAGIC)) == _ARRAY_MAGIC:
                    _scan_array(member)


def _scan_array(file: Any) -> None:
    """Scan one array from behind its magic (numpy's format, NEP 1)."""
    version = file.read(2)
    length_bytes = {b"\1\0": 2, b"\2\0": 4, b"\3\0": 4}.get(version, 0)
    if not length_bytes:
        raise _Unsafe("its arrays are of an unknown format")
    length = int.from_bytes(file.read(length_bytes), "little")
    if length > MAX_ARRAY_HEADER_BYTES:
        raise _Unsafe("the header of an array is too long")
    encoding = "utf-8" if version == b"\3\0" else "latin-1"
    try:
        header = ast.literal_eval(file.read(length).decode(encoding).strip())
        description = header["descr"]
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError):
        raise _Unsafe("the header of an array cannot be read") from None
    if not _may_hold_objects(description):
        return
    data = io.BytesIO(file.read(MAX_METRICS_PICKLE_BYTES + 1)).getvalue()
    if len(data) > MAX_METRICS_PICKLE_BYTES:
        raise _Unsafe("an array of objects is too large")
    scan_pickle(data, opcodes=_NUMPY_OPCODES, allowed=_NUMPY_GLOBALS)


def _may_hold_objects(description: Any) -> bool:
    """Tell whether numpy may unpickle an array of this type; when in doubt, yes."""
    if isinstance(description, str):
        return "o" in description.lower()
    if isinstance(description, list | tuple):
        return any(_may_hold_objects(part) for part in description)
    return not isinstance(description, int)
