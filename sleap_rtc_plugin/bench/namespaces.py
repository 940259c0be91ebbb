"""Two network namespaces of Linux with a TUN device in each, held by this process.

They have no names and no files: when the last process in them ends, however it ends,
nothing is left. Used by `bench.wan`, which forwards between the devices, and by the
ends of a link, which enter one each. Works on Linux alone.
"""

import contextlib
import ctypes
import errno
import os
import socket
import struct
from pathlib import Path
from typing import Final

from msgspec import Struct

__all__ = ["ADDRESSES", "Namespace", "NotPermitted", "Tun", "enter", "new_networks"]

# One address each, of the range that is set aside for benchmarks (RFC 2544).
ADDRESSES: Final = ("198.18.0.1", "198.18.0.2")
_NETMASK: Final = "255.255.255.252"
_TUN: Final = Path("/dev/net/tun")
_MTU_BYTES: Final = 1_500
# Room for what arrives while the emulator is not scheduled: 100 ms at 500 Mbit/s.
_QUEUE_PACKETS: Final = 5_000

# linux/sched.h, linux/if_tun.h, linux/sockios.h, linux/if.h
_CLONE_NEWUSER: Final = 0x10000000
_CLONE_NEWNET: Final = 0x40000000
_TUNSETIFF: Final = 0x400454CA
_IFF_TUN: Final = 0x0001
_IFF_NO_PI: Final = 0x1000
_SIOCSIFFLAGS: Final = 0x8914
_SIOCSIFADDR: Final = 0x8916
_SIOCSIFNETMASK: Final = 0x891C
_SIOCSIFMTU: Final = 0x8922
_SIOCSIFTXQLEN: Final = 0x8943
_IFF_UP: Final = 0x1
_IFREQ_BYTES: Final = 40
_DEVICE: Final = "path0"


class NotPermitted(Exception):
    """This machine does not let this user make namespaces or TUN devices."""


class Namespace(Struct, frozen=True):
    """Where a namespace is found for as long as its holder lives.

    Attributes:
        network: a file below /proc.
        user: a file below /proc of the user namespace that owns it; None where that
            is the caller's own.
        address: this end's.
    """

    network: str
    user: str | None
    address: str


class Tun:
    """A TUN device in a network namespace: packets out, packets in."""

    def __init__(self, address: str) -> None:
        """Make it in the namespace that this process is in, and bring it up.

        Raises:
            NotPermitted: there is no TUN here, or not for this user.
        """
        import fcntl  # not there on Windows, where this class is of no use

        try:
            self.fd = os.open(_TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            flags = struct.pack("H", _IFF_TUN | _IFF_NO_PI)
            fcntl.ioctl(self.fd, _TUNSETIFF, _request(_DEVICE, flags))
        except OSError as error:
            raise NotPermitted(f"{_TUN} cannot be used: {error.strerror}") from None
        # Nothing of IPv6 here: its announcements would count as packets.
        with contextlib.suppress(OSError):
            Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("1")
        up = struct.pack("h", _IFF_UP)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            for command, device, value in (
                (_SIOCSIFFLAGS, "lo", up),
                (_SIOCSIFADDR, _DEVICE, _address(address)),
                (_SIOCSIFNETMASK, _DEVICE, _address(_NETMASK)),
                (_SIOCSIFMTU, _DEVICE, struct.pack("i", _MTU_BYTES)),
                (_SIOCSIFFLAGS, _DEVICE, up),
            ):
                fcntl.ioctl(any_socket, command, _request(device, value))
            # The system's own root alone may; for others 500 packets are the default.
            with contextlib.suppress(PermissionError):
                length = _request(_DEVICE, struct.pack("i", _QUEUE_PACKETS))
                fcntl.ioctl(any_socket, _SIOCSIFTXQLEN, length)

    def read(self, most: int) -> list[bytes]:
        """Return the packets that wait, `most` of them at most."""
        packets: list[bytes] = []
        fd, read, append = self.fd, os.read, packets.append
        with contextlib.suppress(BlockingIOError):
            for _ in range(most):
                append(read(fd, _MTU_BYTES))
        return packets

    def write(self, packets: list[bytes]) -> None:
        """Let packets arrive; one that the kernel does not take is lost, as outside."""
        fd, write = self.fd, os.write
        for packet in packets:
            with contextlib.suppress(OSError):
                write(fd, packet)


def _request(device: str, value: bytes) -> bytes:
    """Return a struct ifreq (linux/if.h): a name of 16 bytes, then a union."""
    return struct.pack("16s", device.encode()).ljust(16, b"\0") + value.ljust(
        _IFREQ_BYTES - 16, b"\0"
    )


def _address(text: str) -> bytes:
    """Return a struct sockaddr_in with no port."""
    return struct.pack("=HH4s", socket.AF_INET, 0, socket.inet_aton(text))


def new_networks() -> list[tuple[Namespace, Tun]]:
    """Make a network namespace with a device in it for each of `ADDRESSES`.

    This process ends up in the last one. Whoever is not allowed to make any becomes
    the master of a user namespace first, where the system gives one away; that needs a
    process without threads.

    Raises:
        NotPermitted: neither is allowed here.
    """
    user = None
    made: list[tuple[Namespace, Tun]] = []
    for address in ADDRESSES:
        try:
            if not made and not _is_network_allowed():
                _become_master()
                user = f"/proc/{os.getpid()}/ns/user"
            elif made:
                _call("unshare", _CLONE_NEWNET)
        except OSError as error:
            raise NotPermitted(
                f"network namespaces cannot be made: {error.strerror}"
            ) from None
        # The file keeps the namespace when this process moves on to the next one.
        held = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        network = f"/proc/{os.getpid()}/fd/{held}"
        made.append((Namespace(network, user, address), Tun(address)))
    return made


def _is_network_allowed() -> bool:
    """Move to a new network namespace, where that is allowed."""
    try:
        _call("unshare", _CLONE_NEWNET)
    except PermissionError:
        return False
    return True


def _become_master() -> None:
    """Move to a new user namespace and a network namespace of its own.

    All files stay the user's; the only user that there is inside counts as root.
    """
    user, group = os.geteuid(), os.getegid()
    _call("unshare", _CLONE_NEWUSER | _CLONE_NEWNET)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")


def enter(namespace: Namespace) -> None:
    """Move this process, which has no other thread yet, to a namespace.

    Raises:
        OSError: its holder is gone, or this user may not.
    """
    for path, kind in (
        (namespace.user, _CLONE_NEWUSER),
        (namespace.network, _CLONE_NEWNET),
    ):
        if path is None:
            continue
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _call("setns", fd, kind)
        finally:
            os.close(fd)


def _call(name: str, *arguments: int) -> None:
    """Call the C library: Python has these two from 3.12 on."""
    library = ctypes.CDLL(None, use_errno=True)
    try:
        function = getattr(library, name)
    except AttributeError:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from None
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
