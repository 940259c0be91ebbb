"""Real NATs and firewalls: every way to a worker, taken where no better one leads.

Client and worker are behind NATs of their own; coturn and signaling are in between.
"""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from support.nat_lab import Block, NatLab, nat_lab
from support.programs import SUPPORT, Program, Programs, Worker

from sleap_rtc_plugin.protocol.limits import LADDER_TIMEOUT_S

pytestmark = pytest.mark.timeout(600)

# (NAT, what the client's and the worker's firewalls block, the way that is left)
CASES: dict[str, tuple[Any, Block, Block, str]] = {
    "cone": ("cone", "nothing", "nothing", "direct"),
    "symmetric": ("symmetric", "nothing", "nothing", "turn-udp"),
    "no-udp": ("symmetric", "udp", "udp", "turn-tcp"),
    "tls-only": ("symmetric", "all but TLS", "all but TLS", "turn-tls"),
    "443-only": ("symmetric", "all but signaling", "all but signaling", "relay"),
}
# Where one side alone is blocked, the other's way may be a lighter one.
ONE_SIDED: dict[str, tuple[Any, Block, Block, str]] = {
    "client-no-udp": ("cone", "udp", "nothing", "turn-tcp"),
    "worker-no-udp": ("cone", "nothing", "udp", "turn-udp"),
    "client-tls-only": ("cone", "all but TLS", "nothing", "turn-tls"),
    "worker-tls-only": ("symmetric", "nothing", "all but TLS", "turn-udp"),
    "client-443-only": ("cone", "all but signaling", "nothing", "relay"),
    "worker-443-only": ("cone", "nothing", "all but signaling", "relay"),
}


class Room:
    """A lab with a session in it."""

    def __init__(self, lab: NatLab, programs: Programs, worker: Worker) -> None:
        self.lab = lab
        self.programs = programs
        self.worker = worker
        self.trust = {"SSL_CERT_FILE": str(lab.authority)}

    def at_client(self, start: Any, *words: Any, **more: Any) -> Program:
        return start_at(self.programs, self.lab.inside("client"), start, *words, **more)

    def reach(self, *words: str, trusts: bool = True) -> dict[str, Any]:
        """Reach the worker once, and return how."""
        program = self.at_client(
            self.programs.start,
            SUPPORT / "reach_worker.py",
            self.worker.session,
            *words,
            **(self.trust if trusts else {}),
        )
        program.wait()
        return program.report


def start_at(programs: Programs, where: tuple[str, ...], start: Any, *a: Any, **k: Any):
    programs.where = where
    try:
        return start(*a, **k)
    finally:
        programs.where = ()


@contextlib.contextmanager
def room(
    case: tuple[Any, Block, Block, str],
    programs: Programs,
    *,
    trainer: str | None = "quick",
    worker_words: tuple[str, ...] = (),
    **config: Any,
) -> Iterator[Room]:
    """A lab of NATs with a signaling server, and a worker that is ready."""
    nat, client, worker, _ = case
    folder = programs.folder / "lab"
    folder.mkdir()
    with nat_lab(folder, nat=nat, client=client, worker=worker) as lab:
        start_at(
            programs,
            lab.inside("public"),
            programs.client,
            "signaling",
            *("--host", "10.77.0.10", "--port", "443", "--rest-port", "none"),
            *("--config", lab.signaling_config(**config)),
            *("--data", folder / "signaling"),
        ).wait_line(lambda text: " listens on " in text, stream="err")
        words = ("--signaling", lab.signaling_url, "--name", "gpu-box", *worker_words)
        start: Any = programs.worker
        if trainer is not None:
            words, start = (trainer, *words), programs.scripted_worker
        started = start_at(
            programs,
            lab.inside("worker"),
            start,
            *words,
            SSL_CERT_FILE=str(lab.authority),
        )
        try:
            yield Room(lab, programs, started.wait_ready())
        finally:
            programs.close()


@pytest.mark.parametrize("case", [*CASES, *ONE_SIDED])
def test_the_way_that_is_left_is_found_in_time(case: str, programs: Programs) -> None:
    chosen = (CASES | ONE_SIDED)[case]
    way = chosen[-1]
    with room(chosen, programs) as lab:
        found = lab.reach()
    sys.stdout.write(f"{case}: {found}\n")
    assert found.get("kind") == way, found
    assert found["seconds"] <= LADDER_TIMEOUT_S
