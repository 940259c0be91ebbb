"""Real NATs and firewalls: every way to a worker, taken where no better one leads.

Client and worker are behind NATs of their own; coturn and signaling are in between.
`-m slow -s` trains a package over every way and prints how it went.
"""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.nat_lab import Block, NatLab, nat_lab
from support.programs import SUPPORT, Program, Programs, Worker

from sleap_rtc_plugin.protocol.limits import LADDER_TIMEOUT_S

pytestmark = pytest.mark.timeout(1_000)
TRAINING_S = 900.0
# Between the ladder's end and the line that says so.
SLACK_S = 2.0

# (NAT, what the client's and the worker's firewalls block, the way that is left)
CASES: dict[str, tuple[Any, Block, Block, str]] = {
    "cone": ("cone", "nothing", "nothing", "direct"),
    "symmetric": ("symmetric", "nothing", "nothing", "turn-udp"),
    "no-udp": ("symmetric", "udp", "udp", "turn-tcp"),
    "tls-only": ("symmetric", "all but TLS", "all but TLS", "turn-tls"),
    "443-only": ("symmetric", "all but signaling", "all but signaling", "relay"),
}
# A real training takes a minute and more; the others are started by hand.
IN_CI = ("symmetric",)
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

    def train(self, package: Path, output: Path) -> Program:
        """Start `sleap-remote train` behind the client's NAT."""
        where = ("--session", self.worker.session, "--output", output, "--json")
        words = ("train", package, *where)
        return self.at_client(self.programs.client, *words, **self.trust)

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
    trainer: str | None = "train",
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
            # Several trainings at once would wait for each other's threads.
            OMP_NUM_THREADS="1",
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


@pytest.mark.needs_sleap_nn
@pytest.mark.needs_shared_data
@pytest.mark.parametrize(
    "case",
    [
        case if case in IN_CI else pytest.param(case, marks=pytest.mark.slow)
        for case in CASES
    ],
)
def test_a_package_is_trained_over_every_way(
    case: str, programs: Programs, shared_data: Path, output: Path
) -> None:
    chosen = CASES[case]
    package = shared_data / "robot.single.quick.training_job.zip"
    with room(chosen, programs, trainer=None) as lab:
        training = lab.train(package, output)
        assert training.wait(TRAINING_S) == 0, training.story()
        report = training.report
    sys.stdout.write(f"{case}: {report['link']}, {report['seconds']}\n")
    assert report["state"] == "succeeded"
    assert report["link"]["kind"] == chosen[-1]
    [model] = report["models"]
    assert (Path(model) / "best.ckpt").is_file()


def test_a_job_is_told_how_its_worker_was_reached(
    programs: Programs, small_package: Path, output: Path
) -> None:
    with room(CASES["443-only"], programs) as lab:
        training = lab.train(small_package, output)
        assert training.wait() == 0, training.story()
        assert training.report["link"] == {"kind": "relay", "engine": "websocket"}


# -- what does not work is told in one sentence ---------------------------------------


def test_wrong_credentials_are_named(programs: Programs) -> None:
    wrong = "another secret than that of the TURN server"
    with room(CASES["symmetric"], programs, relay=False, secret=wrong) as lab:
        found = lab.reach()
    assert found["error"] == "no_way_to_worker"
    assert found["seconds"] <= LADDER_TIMEOUT_S + SLACK_S
    said = found["message"]
    assert "No connection to the worker gpu-box: direct failed (no answer in" in said
    for way, port in [("UDP", 3478), ("TCP", 3478), ("TLS", 5349)]:
        refused = f"10.77.0.10:{port} refused the credentials"
        assert f"TURN over {way} failed ({refused})" in said, said
    assert "ask whoever runs the signaling server to mend its TURN server" in said


def test_a_certificate_that_is_not_trusted_is_named(programs: Programs) -> None:
    with room(CASES["tls-only"], programs, relay=False) as lab:
        found = lab.reach(trusts=False)
    assert found["error"] == "no_way_to_worker"
    assert found["seconds"] <= LADDER_TIMEOUT_S + SLACK_S
    assert "TURN over UDP failed (10.77.0.10:3478 did not answer" in found["message"]
    assert "TURN over TCP failed (10.77.0.10:3478 did not answer" in found["message"]
    untrusted = "the certificate of 10.77.0.10:5349 is not trusted here"
    assert f"TURN over TLS failed ({untrusted}" in found["message"]


def test_the_relay_takes_over_from_a_turn_server_that_died(programs: Programs) -> None:
    with room(CASES["symmetric"], programs) as lab:
        lab.lab.end_turn()
        found = lab.reach()
    assert found.get("kind") == "relay", found
    assert found["seconds"] <= LADDER_TIMEOUT_S


# -- privacy --------------------------------------------------------------------------


@pytest.mark.parametrize("private", ["client", "worker"])
def test_relay_only_takes_a_turn_server_where_a_direct_way_leads(
    private: str, programs: Programs
) -> None:
    words = ("--relay-only",) if private == "worker" else ()
    with room(CASES["cone"], programs, worker_words=words) as lab:
        found = lab.reach(*(("--relay-only",) if private == "client" else ()))
    assert found.get("kind") == "turn-udp", found
