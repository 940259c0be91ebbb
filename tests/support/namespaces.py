"""Two network namespaces and what joins them, for the tests of packet sizes.

Needs Linux, iproute2 and the rights of root; a test that asks for them skips without.
Sockets belong to the namespace they were opened in, so both ends of a call can live in
one process.
"""

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

__all__ = ["Cable", "namespaces_joined"]

CLONE_NEWNET = 0x40000000
NAMESPACES = Path("/var/run/netns")
OWN = Path("/proc/thread-self/ns/net")


@dataclass(frozen=True)
class Cable:
    """What joins the namespaces, with a router in the middle or not; an end is 0 or 1.

    Attributes:
        names: of the namespaces, and of their interfaces.
        router: the name of the third one, or None.
    """

    names: tuple[str, str]
    router: str | None

    def set_mtu(self, end: int, mtu_bytes: int) -> None:
        """Set what an end sends and takes at most; more is dropped there silently."""
        name = self.names[end]
        _ip("-n", name, "link", "set", name, "mtu", str(mtu_bytes))

    def set_router_mtu(self, end: int, mtu_bytes: int) -> None:
        """Set what goes between the router and an end at most: it may cut the rest."""
        assert self.router is not None
        name = f"to{self.names[end]}"
        _ip("-n", self.router, "link", "set", name, "mtu", str(mtu_bytes))
        self.set_mtu(end, mtu_bytes)

    def inside(self, end: int) -> AbstractContextManager[None]:
        """Open sockets, and look for addresses, in the namespace of an end."""
        return self.inside_of(self.names[end])

    @contextmanager
    def inside_of(self, name: str) -> Iterator[None]:
        """Be in a namespace for a while."""
        with OWN.open("rb") as own, (NAMESPACES / name).open("rb") as there:
            _enter(there.fileno())
            try:
                yield
            finally:
                _enter(own.fileno())


def _enter(descriptor: int) -> None:
    # os.setns is new in Python 3.12.
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def _is_mounted() -> bool:
    """Whether the folder of namespaces is a mount of its own."""
    mounts = Path("/proc/self/mounts")
    return mounts.exists() and " /run/netns " in mounts.read_text()


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)  # noqa: S607


@contextmanager
def namespaces_joined(
    mtu_bytes: int, *, version: int = 4, has_router: bool = False
) -> Iterator[Cable]:
    """Make two namespaces that reach each other; skips where that is not allowed."""
    if sys.platform != "linux" or shutil.which("ip") is None:
        pytest.skip("network namespaces are Linux's, and ip of iproute2 makes them")
    mark = f"slp{os.getpid()}"
    cable = Cable((f"{mark}a", f"{mark}b"), f"{mark}r" if has_router else None)
    made = [name for name in (*cable.names, cable.router) if name is not None]
    was_mounted = _is_mounted()
    try:
        try:
            for name in made:
                _ip("netns", "add", name)
            _join(cable, mtu_bytes, version)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {error.stderr.decode()}")
        yield cable
    finally:
        for name in made:
            if (NAMESPACES / name).exists():
                _ip("netns", "delete", name)
        if not was_mounted and _is_mounted():
            # `ip` mounts that folder on itself, and leaves it so.
            subprocess.run(["umount", str(NAMESPACES)], check=False)  # noqa: S607


def _join(cable: Cable, mtu_bytes: int, version: int) -> None:
    one, other = cable.names
    if cable.router is None:
        _plug(one, one, other, other)
        _configure(one, one, _address(version, 0, 1), version)
        _configure(other, other, _address(version, 0, 2), version)
    else:
        for end, name in enumerate(cable.names):
            port = f"to{name}"
            _plug(name, name, cable.router, port)
            _configure(name, name, _address(version, end, 1), version)
            _configure(cable.router, port, _address(version, end, 2), version)
            _ip("-n", cable.router, "link", "set", port, "mtu", str(mtu_bytes))
            gateway = _address(version, end, 2).partition("/")[0]
            _ip("-n", name, "route", "add", "default", "via", gateway)
        with cable.inside_of(cable.router):
            family = "ipv6/conf/all/forwarding" if version == 6 else "ipv4/ip_forward"
            Path("/proc/sys/net", family).write_text("1")
    for end in (0, 1):
        cable.set_mtu(end, mtu_bytes)


def _address(version: int, net: int, host: int) -> str:
    return {4: f"10.83.{net}.{host}/24", 6: f"fd00:83:{net}::{host}/64"}[version]


def _plug(one: str, port: str, other: str, other_port: str) -> None:
    _ip(
        *("link", "add", port, "netns", one, "type", "veth"),
        *("peer", "name", other_port, "netns", other),
    )


def _configure(name: str, port: str, address: str, version: int) -> None:
    # Without the wait for somebody else who has that address.
    nodad = ("nodad",) if version == 6 else ()
    _ip("-n", name, "address", "add", address, "dev", port, *nodad)
    _ip("-n", name, "link", "set", port, "up")
