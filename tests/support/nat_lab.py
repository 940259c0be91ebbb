"""Two machines behind two NATs, and a public network with TURN and signaling servers.

    client -- NAT a --+            +-- NAT b -- worker
                      +-- public --+
                          10.77.0.10

Made of network namespaces, so it needs Linux, root, iproute2, nftables and coturn; a
test that asks for it skips without. Programs are started with `inside`.
"""

import datetime
import ipaddress
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

__all__ = ["Block", "NatLab", "Side", "make_certificates", "nat_lab"]

PUBLIC: Final = "10.77.0.10"
SIGNALING_PORT: Final = 443
TURN_PORT: Final = 3478
TURN_TLS_PORT: Final = 5349
SECRET: Final = "the secret that the TURN server shares with signaling"
START_TIMEOUT_S: Final = 20
END_TIMEOUT_S: Final = 5

Side = Literal["client", "worker"]
Block = Literal["nothing", "udp", "all but TLS", "all but signaling"]
# What a firewall lets out, as nftables matches it.
_LET_OUT: Final[dict[Block, str]] = {
    "nothing": "",
    "udp": "meta l4proto tcp",
    "all but TLS": f"tcp dport {{ {SIGNALING_PORT}, {TURN_TLS_PORT} }}",
    "all but signaling": f"tcp dport {SIGNALING_PORT}",
}


@dataclass
class NatLab:
    """The networks, while they are there.

    Attributes:
        folder: of the servers' files.
        mark: begins the name of every namespace.
        turn_log: what the TURN server says.
    """

    folder: Path
    mark: str
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def inside(self, place: Side | Literal["public"]) -> tuple[str, ...]:
        """Return the words that start a program in a namespace."""
        names = {"client": "pa", "worker": "pb", "public": "pub"}
        return ("ip", "netns", "exec", self.mark + names[place])

    @property
    def signaling_url(self) -> str:
        return f"http://{PUBLIC}:{SIGNALING_PORT}"

    @property
    def authority(self) -> Path:
        """The certificate that the TURN server's is signed with, for SSL_CERT_FILE."""
        return self.folder / "authority.pem"

    @property
    def turn_log(self) -> Path:
        return self.folder / "turn.log"

    def turn_urls(self) -> list[str]:
        return [
            f"turn:{PUBLIC}:{TURN_PORT}?transport=udp",
            f"turn:{PUBLIC}:{TURN_PORT}?transport=tcp",
            f"turns:{PUBLIC}:{TURN_TLS_PORT}?transport=tcp",
        ]

    def signaling_config(self, *, relay: bool = True, secret: str = SECRET) -> Path:
        """Write the signaling server's file, and return it."""
        urls = ", ".join(f'"{url}"' for url in self.turn_urls())
        path = self.folder / "signaling.toml"
        path.write_text(
            f"[[ice_servers]]\nurls = ['stun:{PUBLIC}:{TURN_PORT}']\n"
            f"[[turn]]\nurls = [{urls}]\nsecret = '{secret}'\n"
            + ("[relay]\nenabled = true\n" if relay else "")
        )
        return path

    def end_turn(self) -> None:
        """Kill the TURN server."""
        self.processes[0].kill()
        self.processes[0].wait()

    def start_turn(self) -> None:
        """Run coturn in the public network."""
        make_certificates(self.folder)
        options = [
            "-n",
            *("--listening-ip", PUBLIC, "--relay-ip", PUBLIC, "--realm", "lab"),
            *("--listening-port", str(TURN_PORT)),
            *("--tls-listening-port", str(TURN_TLS_PORT)),
            *("--cert", str(self.folder / "turn.pem")),
            *("--pkey", str(self.folder / "turn.key")),
            *("--use-auth-secret", "--static-auth-secret", SECRET),
            # A peer that cannot be reached ends coturn's whole allocation.
            "--denied-peer-ip=10.0.0.0-10.255.255.255",
            "--allowed-peer-ip=10.77.0.1-10.77.0.254",
            *("--userdb", str(self.folder / "users.db")),
            *("--pidfile", str(self.folder / "turn.pid")),
            *("--log-file", "stdout", "--simple-log", "--verbose", "--no-cli"),
            "--no-rfc5780",
        ]
        with self.turn_log.open("wb") as output:
            process = subprocess.Popen(
                [*self.inside("public"), "turnserver", *options],
                stdout=output,
                stderr=output,
                cwd=self.folder,
            )
        self.processes.append(process)
        until = time.monotonic() + START_TIMEOUT_S
        probe = [
            *self.inside("public"),
            *(sys.executable, "-c"),
            "import socket, sys\n"
            f"socket.create_connection(('{PUBLIC}', int(sys.argv[1])), 1)",
        ]
        for port in (TURN_PORT, TURN_TLS_PORT):
            while subprocess.run([*probe, str(port)], capture_output=True).returncode:
                assert process.poll() is None, self.turn_log.read_text()
                assert time.monotonic() < until, self.turn_log.read_text()

    def close(self) -> None:
        for process in self.processes:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(END_TIMEOUT_S)
            process.kill()
            process.wait()
        for name in ("pa", "pb", "nata", "natb", "pub"):
            subprocess.run(
                ["ip", "netns", "delete", self.mark + name],  # noqa: S607
                capture_output=True,
                check=False,
            )


@contextmanager
def nat_lab(
    folder: Path,
    *,
    nat: Literal["cone", "symmetric"] = "symmetric",
    client: Block = "nothing",
    worker: Block = "nothing",
) -> Iterator[NatLab]:
    """Make the networks; a NAT lets out what its side's firewall does not block."""
    _skip_where_impossible()
    lab = NatLab(folder, f"slpn{os.getpid()}")
    was_mounted = _is_mounted()
    try:
        try:
            _build(lab, nat, {"a": client, "b": worker})
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no such networks here: {error.stderr.decode()}")
        lab.start_turn()
        yield lab
    finally:
        lab.close()
        if not was_mounted and _is_mounted():
            # `ip` mounts that folder on itself, and leaves it so.
            subprocess.run(["umount", "/var/run/netns"], check=False)  # noqa: S607


def _skip_where_impossible() -> None:
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("network namespaces are Linux's, and root's")
    for program, package in (
        ("ip", "iproute2"),
        ("nft", "nftables"),
        ("turnserver", "coturn"),
    ):
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program}: apt-get install {package}")


def _is_mounted() -> bool:
    return " /run/netns " in Path("/proc/self/mounts").read_text()


def _run(*words: str, text: str | None = None) -> None:
    data = text.encode() if text is not None else None
    subprocess.run(words, input=data, check=True, capture_output=True)


def _build(lab: NatLab, nat: str, blocks: dict[str, Block]) -> None:
    mark = lab.mark
    public = f"{mark}pub"
    for name in ("pub", "nata", "natb", "pa", "pb"):
        _run("ip", "netns", "add", mark + name)
        _run("ip", "-n", mark + name, "link", "set", "lo", "up")
    _run("ip", "-n", public, "link", "add", "br0", "type", "bridge")
    _run("ip", "-n", public, "link", "set", "br0", "up")
    _run("ip", "-n", public, "address", "add", f"{PUBLIC}/24", "dev", "br0")
    for number, side in enumerate("ab", 1):
        router, machine = f"{mark}nat{side}", f"{mark}p{side}"
        _plug(router, "wan", public, f"to{side}")
        _run("ip", "-n", public, "link", "set", f"to{side}", "master", "br0")
        _run("ip", "-n", public, "link", "set", f"to{side}", "up")
        _configure(router, "wan", f"10.77.0.{number}/24")
        _plug(router, "lan", machine, "eth0")
        _configure(router, "lan", f"10.77.10{number}.1/24")
        _configure(machine, "eth0", f"10.77.10{number}.2/24")
        gateway = f"10.77.10{number}.1"
        _run("ip", "-n", machine, "route", "add", "default", "via", gateway)
        inside = ("ip", "netns", "exec", router)
        _run(*inside, "tee", "/proc/sys/net/ipv4/ip_forward", text="1")
        _run(*inside, "nft", "-f", "-", text=_rules(nat, blocks[side]))


def _plug(one: str, port: str, other: str, other_port: str) -> None:
    _run(
        *("ip", "link", "add", port, "netns", one, "type", "veth"),
        *("peer", "name", other_port, "netns", other),
    )


def _configure(name: str, port: str, address: str) -> None:
    _run("ip", "-n", name, "address", "add", address, "dev", port)
    _run("ip", "-n", name, "link", "set", port, "up")


def _rules(nat: str, block: Block) -> str:
    how = "random,fully-random" if nat == "symmetric" else ""
    return f"""
table ip nat {{
  chain out {{
    type nat hook postrouting priority 100;
    oifname "wan" masquerade {how}
  }}
}}
table ip firewall {{
  chain through {{
    type filter hook forward priority 0; policy drop;
    ct state established,related accept
    iifname "lan" {_LET_OUT[block]} accept
  }}
  chain own {{
    type filter hook input priority 0; policy accept;
    iifname "wan" ct state new drop
  }}
}}
"""


def make_certificates(folder: Path) -> None:
    """Write an authority's certificate, and one for the TURN server signed by it."""
    now = datetime.datetime.now(datetime.UTC)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        for name in ("Lab authority", PUBLIC)
    ]
    for number, file in enumerate(("authority", "turn")):
        is_authority = number == 0
        builder = (
            x509.CertificateBuilder()
            .subject_name(names[number])
            .issuer_name(names[0])
            .public_key(keys[number].public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(keys[number].public_key()),
                critical=False,
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(
                    keys[0].public_key()
                ),
                critical=False,
            )
        )
        if is_authority:
            usage = x509.KeyUsage(
                *(True, False, False, False, False, True, True, False, False)
            )
            builder = builder.add_extension(usage, critical=True)
        else:
            address = x509.IPAddress(ipaddress.ip_address(PUBLIC))
            builder = builder.add_extension(
                x509.SubjectAlternativeName([address]), critical=False
            )
        certificate = builder.sign(keys[0], hashes.SHA256())
        (folder / f"{file}.pem").write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
        )
    (folder / "turn.key").write_bytes(
        keys[1].private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
