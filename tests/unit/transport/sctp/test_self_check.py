"""What the fast path needs of the installed aiortc is checked, all of it."""

import ast
import inspect
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from types import ModuleType

import pytest

from sleap_rtc_plugin.transport.sctp import datagrams, fast_transport, handover, leg
from sleap_rtc_plugin.transport.sctp.fast_transport import FastSctpTransport
from sleap_rtc_plugin.transport.sctp.self_check import (
    EXPECTED,
    NAMES,
    VERIFIED,
    Class,
    fault_of_installation,
    find_fault,
)


def names_of(expected: Class) -> list[str]:
    return [name.split(".")[-1] for name in (*expected.fields, *expected.methods)] + [
        field for fields in expected.made_elsewhere.values() for field in fields
    ]


def test_what_is_installed_here_is_what_was_verified() -> None:
    assert fault_of_installation() is None


@pytest.mark.parametrize("name", VERIFIED)
def test_another_version_is_not_taken(name: str) -> None:
    fault = find_fault({name: "0.0."}, (), ())
    assert fault == f"{name} {version(name)} was not verified, 0.0.* was"


@pytest.mark.parametrize(
    ("installed", "is_taken"),
    [
        ("1.16.0", True),
        ("1.16.7", True),
        ("1.16", True),
        ("1.160.0", False),
        ("1.17.0", False),
        ("11.16.0", False),
    ],
)
def test_a_patch_is_taken_and_another_minor_version_is_not(
    installed: str, is_taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = inspect.getmodule(find_fault)
    monkeypatch.setattr(module, "version", lambda name: installed)
    assert (find_fault({"aiortc": "1.16."}, (), ()) is None) == is_taken


def test_what_is_no_package_is_not_taken() -> None:
    assert find_fault({"no-such-thing": "1."}, (), ()) == (
        "no-such-thing is not installed as a package"
    )


@pytest.mark.parametrize("expected", EXPECTED, ids=lambda one: one.name)
@pytest.mark.parametrize(
    "change",
    [
        lambda one: replace(one, name=f"{one.name}X"),
        lambda one: replace(one, name=f"x{one.name}"),
        lambda one: replace(one, fields=(*one.fields, "_gone")),
        lambda one: replace(one, methods={**one.methods, "_gone": "self"}),
        lambda one: replace(one, methods={**one.methods, "__init__": "self other"}),
        lambda one: replace(one, made_elsewhere={f"{one.name}._gone": ("_gone",)}),
        lambda one: replace(one, made_elsewhere={f"{one.name}.__init__": ("_gone",)}),
    ],
    ids=["class", "module", "field", "method", "parameters", "maker", "made"],
)
def test_any_difference_is_found(
    expected: Class, change: Callable[[Class], Class]
) -> None:
    assert find_fault({}, [expected], ()) is None
    assert find_fault({}, [change(expected)], ()) is not None


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_name_is_found(name: str) -> None:
    assert find_fault({}, (), [name]) is None
    assert find_fault({}, (), [f"{name}_GONE"]) == f"there is no {name}_GONE"


@pytest.mark.parametrize("module", [datagrams, fast_transport, handover, leg])
def test_everything_private_that_is_used_is_checked(module: ModuleType) -> None:
    """A name of aiortc's that nobody checks would be found missing by a user."""
    nodes = list(ast.walk(ast.parse(inspect.getsource(module))))
    private = [
        node
        for node in nodes
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
    ]
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef)]
    own = {function.name for function in functions}
    own |= set(FastSctpTransport.__annotations__)
    if module is not fast_transport:
        own |= {
            node.attr
            for node in private
            if isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self"
        }
    checked = {name for expected in EXPECTED for name in names_of(expected)}
    assert {node.attr for node in private} - own <= checked
