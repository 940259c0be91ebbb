"""What the doctor makes of facts: which are faults, and what is to be done."""

from dataclasses import fields, replace
from typing import Any, get_args

import pytest

from sleap_rtc_plugin.protocol.errors import (
    DiskFull,
    NoReply,
    SharedStorageUnusable,
    StepFailed,
    WorkerBusy,
    WorkerTooOld,
    error_types,
)
from sleap_rtc_plugin.protocol.limits import GIB, MIB
from sleap_rtc_plugin.protocol.messages import JobSummary
from sleap_rtc_plugin.protocol.relay_messages import IceServerList, RelayTerms
from sleap_rtc_plugin.session.doctor import computer, nat, server, worker
from sleap_rtc_plugin.session.doctor.finding import (
    CHECKS,
    NOTHING_TO_DO,
    Finding,
    Status,
    from_error,
    ok,
    without_secrets,
)
from sleap_rtc_plugin.session.worker_info import WorkerInfo
from sleap_rtc_plugin.transport.link_test import Moved
from sleap_rtc_plugin.transport.turn_probe import StunOutcome, TurnOutcome, TurnState

OK, NOTE, WARNING, FAILED = Status.OK, Status.NOTE, Status.WARNING, Status.FAILED
NOW = 1_800_000_000.0
DAY = 86_400.0
URL = "turn:turn.lab:3478"
BOX = WorkerInfo(
    peer_id="worker-1",
    name="gpu-box",
    status="available",
    device="cuda",
    gpu_model="RTX A5000",
    gpu_memory_mb=24_576,
    gpu_free_mb=20_480,
    queue_length=0,
    running_jobs=0,
    sleap_nn_version="0.3.5",
)


def assert_sound(finding: Finding) -> None:
    assert finding.check in CHECKS
    assert finding.found[-1] in ".…"
    if finding.status in (WARNING, FAILED):
        assert finding.remedy not in ("", NOTHING_TO_DO)


# -- this computer -------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "status"),
    [
        ((3, 10, 9), FAILED),
        ((3, 11, 0), OK),
        ((3, 13, 5), OK),
        ((3, 14, 0), WARNING),
    ],
)
def test_versions_of_python(version: tuple[int, ...], status: Status) -> None:
    finding = computer.judge_python(version)
    assert finding.status is status
    assert_sound(finding)


@pytest.mark.parametrize(
    ("pyside", "python", "status"),
    [
        ("6.12.0", (3, 11, 9), FAILED),
        ("6.12.0", (3, 12, 1), OK),
        ("6.11.1", (3, 11, 9), OK),
        ("6.12.1", (3, 11, 9), OK),
        (None, (3, 11, 9), NOTE),
    ],
)
def test_the_pair_that_crashes(
    pyside: str | None, python: tuple[int, ...], status: Status
) -> None:
    finding = computer.judge_qt(pyside, python)
    assert finding.status is status
    assert_sound(finding)
    if status is FAILED:
        assert "pip install 'pyside6!=6.12.0'" in finding.remedy


@pytest.mark.parametrize(
    ("versions", "fault", "status", "do"),
    [
        ({"aiortc": "1.16.0"}, None, OK, ""),
        ({"aiortc": None}, None, FAILED, "Install it again"),
        ({"aiortc": "1.17.0"}, "aiortc 1.17.0 was not verified", WARNING, "1.16.*"),
    ],
)
def test_packages(
    versions: dict[str, str | None], fault: str | None, status: Status, do: str
) -> None:
    finding = computer.judge_packages(computer.PackageFacts(versions, fault))
    assert finding.status is status
    assert do in finding.remedy
    assert_sound(finding)


@pytest.mark.parametrize(
    ("facts", "status", "do"),
    [
        (computer.SleapFacts(None), NOTE, "own environment"),
        (computer.SleapFacts("1.6.6"), OK, ""),
        (
            computer.SleapFacts("1.7.0", unsupported="This is SLEAP 1.7; update it."),
            FAILED,
            "Update it",
        ),
        (computer.SleapFacts("1.6.6", failure="it crashed"), WARNING, "label"),
    ],
)
def test_sleap(facts: computer.SleapFacts, status: Status, do: str) -> None:
    finding = computer.judge_sleap(facts)
    assert finding.status is status
    assert do in finding.remedy
    assert_sound(finding)


@pytest.mark.parametrize(
    ("state", "status"),
    [(None, NOTE), ("enabled", OK), ("disabled", NOTE), ("broken", FAILED)],
)
def test_the_menu(state: Any, status: Status) -> None:
    finding = computer.judge_menu(state, "/site/sleap_remote.pth")
    assert finding.status is status
    assert_sound(finding)


KEYRING = computer.KeyringFacts(
    backend="keyring.backends.macOS",
    failure=None,
    is_forced_off=False,
    is_installed=True,
    is_chosen=False,
    files="/home/ann/sessions",
    open_files=(),
)


@pytest.mark.parametrize(
    ("changes", "status", "do"),
    [
        ({}, OK, ""),
        ({"backend": None}, NOTE, ""),
        ({"backend": None, "is_installed": False}, NOTE, "pip install keyring"),
        ({"is_forced_off": True}, NOTE, ""),
        ({"failure": "locked"}, WARNING, "Unlock"),
        ({"failure": "no", "is_chosen": True}, WARNING, "PYTHON_KEYRING_BACKEND"),
        ({"open_files": ["room-1.txt"]}, FAILED, "chmod"),
    ],
)
def test_the_keyring(changes: dict[str, Any], status: Status, do: str) -> None:
    finding = computer.judge_keyring(replace(KEYRING, **changes))
    assert finding.status is status
    assert do in finding.remedy
    assert_sound(finding)


@pytest.mark.parametrize(
    ("free_bytes", "status"), [(100 * MIB, FAILED), (GIB, WARNING), (90 * GIB, OK)]
)
def test_the_disk_with_least_room_counts(free_bytes: int, status: Status) -> None:
    places = [
        computer.DiskFacts("temporary files (/tmp)", 500 * GIB),
        computer.DiskFacts("packages (/home)", free_bytes),
    ]
    finding = computer.judge_disk(places)
    assert finding.status is status
    assert "/home" in finding.found
    assert_sound(finding)


def test_a_disk_that_cannot_be_used() -> None:
    gone = computer.DiskFacts("packages (/mnt)", 0, "Stale file handle")
    assert computer.judge_disk([gone]).status is FAILED


@pytest.mark.parametrize(
    ("names", "reachable", "status"),
    [
        ([], None, OK),
        (["HTTP_PROXY"], True, NOTE),
        (["HTTP_PROXY"], None, NOTE),
        (["HTTP_PROXY"], False, WARNING),
    ],
)
def test_proxies(names: list[str], reachable: bool | None, status: Status) -> None:
    finding = computer.judge_proxy(names, reachable)
    assert finding.status is status
    assert_sound(finding)


# -- the server ----------------------------------------------------------------

SOUND = server.ServerFacts(
    url="https://lab.example",
    host="lab.example",
    port=443,
    is_tls=True,
    certificate_ends_at=NOW + 90 * DAY,
    version="0.1.0",
    clock_ahead_s=0.4,
)


def judged(**changes: Any) -> dict[str, Finding]:
    findings = server.judge_server(replace(SOUND, **changes), now=NOW)
    for finding in findings:
        assert_sound(finding)
    assert len({finding.check for finding in findings}) == len(findings) == 5
    return {finding.check: finding for finding in findings}


def test_a_sound_server() -> None:
    assert {finding.status for finding in judged().values()} == {OK}


@pytest.mark.parametrize(
    ("changes", "check", "do"),
    [
        ({"name_fault": "not known"}, "name", "--public-url"),
        ({"port_fault": "refused"}, "port", "Start the worker"),
        ({"port_fault": "refused", "host": "127.0.0.1"}, "port", "--host"),
        ({"port_fault": "no answer"}, "port", "firewall"),
        ({"certificate_fault": "expired"}, "certificate", "Renew"),
        ({"certificate_fault": "not yet valid"}, "certificate", "clock"),
        ({"certificate_fault": "wrong name"}, "certificate", "--public-url"),
        ({"certificate_fault": "unknown authority"}, "certificate", "SSL_CERT_FILE"),
        ({"certificate_fault": "revoked"}, "certificate", "server"),
        ({"tls_fault": "wrong version number"}, "certificate", "http://"),
        ({"health_fault": "HTTP status 404"}, "server", "Check the port"),
    ],
)
def test_the_first_fault_is_the_one(
    changes: dict[str, Any], check: str, do: str
) -> None:
    findings = judged(**changes)
    wrong = [f for f in findings.values() if f.status in (WARNING, FAILED)]
    assert [finding.check for finding in wrong] == [check]
    assert do in wrong[0].remedy


@pytest.mark.parametrize(
    ("ahead_s", "status", "words"),
    [
        (None, NOTE, "does not tell"),
        (59.0, OK, "agree"),
        (-61.0, WARNING, "1 minute behind"),
        (299.0, WARNING, "5 minutes ahead of"),
        (3599.9, FAILED, "1 hour ahead of"),
        (-86_400.0 * 3, FAILED, "3 days behind"),
    ],
)
def test_clocks(ahead_s: float | None, status: Status, words: str) -> None:
    finding = judged(clock_ahead_s=ahead_s)["clock"]
    assert finding.status is status
    assert words in finding.found


def test_certificates_that_end_soon() -> None:
    assert judged(certificate_ends_at=NOW + 3 * DAY)["certificate"].status is WARNING
    assert judged(is_tls=False)["certificate"].status is NOTE
    assert judged(is_tls=False, host="localhost")["certificate"].status is OK


def test_the_relay() -> None:
    assert server.judge_relay(server.IceFacts()).status is NOTE
    config = IceServerList(
        ice_servers=[], relay=RelayTerms(path="/relay", max_mbit=20.0)
    )
    finding = server.judge_relay(server.IceFacts(config=config))
    assert finding.status is OK
    assert "20 Mbit/s" in finding.found


# -- ways through networks -------------------------------------------------------


@pytest.mark.parametrize("state", get_args(TurnState))
def test_every_end_of_an_allocation_has_a_remedy(state: TurnState) -> None:
    (finding,) = nat.judge_turn([(URL, TurnOutcome(state, "it did not answer"))])
    assert finding.status is (OK if state == "works" else FAILED)
    assert URL in finding.found
    assert_sound(finding)


@pytest.mark.parametrize(
    ("mapped", "has_turn", "status", "words"),
    [
        ([], False, NOTE, "cannot be told"),
        ([("10.0.0.7", 4000)], False, OK, "none on the way"),
        ([("198.51.100.1", 4000)], False, NOTE, "two STUN servers"),
        ([("198.51.100.1", 4000)] * 2, False, OK, "direct connections"),
        ([("198.51.100.1", 1), ("198.51.100.1", 2)], False, WARNING, "symmetric"),
        ([("198.51.100.1", 1), ("198.51.100.1", 2)], True, NOTE, "over TURN"),
    ],
)
def test_kinds_of_address_translation(
    mapped: list[tuple[str, int]], has_turn: bool, status: Status, words: str
) -> None:
    seen = {f"stun:s{i}.lab": address for i, address in enumerate(mapped)}
    finding = nat.judge_nat(StunOutcome(4000, seen), ["10.0.0.7"], has_turn=has_turn)
    assert finding.status is status
    assert words in finding.found
    # Where somebody is, is nobody's business.
    assert "198.51" not in finding.found
    assert_sound(finding)


# -- the worker ------------------------------------------------------------------


def test_what_a_worker_trains_with() -> None:
    assert "20.0 are free" in worker.judge_gpu(BOX).found
    assert worker.judge_gpu(replace(BOX, device="cpu")).status is WARNING
    assert worker.judge_trainer(BOX).status is OK
    missing = worker.judge_trainer(replace(BOX, sleap_nn_version=None))
    assert missing.status is FAILED
    assert "pip install" in missing.remedy


def test_its_disk() -> None:
    full = DiskFull(place="its disk", needed="1.2 GiB", free="3 MiB")
    finding = worker.judge_worker_disk(full)
    assert finding is not None
    assert finding.status is FAILED
    assert_sound(finding)
    assert worker.judge_worker_disk(WorkerBusy(worker="w", reason="full")) is None


def link(**changes: Any) -> Finding:
    facts = {
        "kind": "direct",
        "engine": "fast",
        "peer_engine": "fast",
        "software": "sleap-rtc-plugin 0.1.0",
        "ours": "sleap-rtc-plugin 0.1.0",
        "took_s": 0.25,
    }
    finding = worker.judge_link(**(facts | changes))
    assert_sound(finding)
    return finding


def test_how_a_link_came_about() -> None:
    assert link().status is OK
    assert "TURN server (TLS)" in link(kind="turn-tls").found
    assert link(kind="relay", engine="websocket").status is WARNING
    assert "slow way at the worker" in link(peer_engine="aiortc").found
    assert "Update the older" in link(software="sleap-rtc-plugin 0.0.9").remedy


FAST = Moved(100 * MIB, 2.5)


@pytest.mark.parametrize(
    ("there", "back", "limit", "status", "words"),
    [
        (FAST, FAST, None, OK, "336 Mbit/s to the worker"),
        (FAST, FAST, 12_500_000, OK, "100 Mbit/s are allowed here"),
        (FAST, Moved(100_000, 2.5), None, WARNING, "0.32 Mbit/s back"),
        (WorkerBusy(worker="w", reason="files move"), FAST, None, NOTE, "files move"),
        (FAST, WorkerTooOld(worker="w", activity="x"), None, NOTE, "Not measured"),
        (FAST, NoReply(peer="w", command="LINK_TEST"), None, FAILED, "no reply"),
    ],
)
def test_throughput(
    there: Any, back: Any, limit: int | None, status: Status, words: str
) -> None:
    finding = worker.judge_throughput(there, back, limit)
    assert finding.status is status
    assert words in finding.found
    assert_sound(finding)


def job(ended_at: float, *, is_wrong: bool) -> JobSummary:
    error = StepFailed(step="Training centroid", reason="out of memory", last_lines="x")
    return JobSummary(
        job_id="job-00112233445566778899",
        name="flies",
        state="failed" if is_wrong else "succeeded",
        steps=1,
        created_at=NOW - 9 * DAY,
        ended_at=ended_at,
        error=error.to_wire() if is_wrong else None,
    )


@pytest.mark.parametrize(
    ("jobs", "status", "words"),
    [
        ([], OK, "no jobs yet"),
        ([job(NOW, is_wrong=False)], OK, "None of its newest"),
        ([job(NOW - 7200, is_wrong=True)], WARNING, "2 hours ago"),
        ([job(NOW - 3 * DAY, is_wrong=True)], NOTE, "3 days ago"),
        (
            [job(NOW, is_wrong=False), job(NOW - 60, is_wrong=True)],
            NOTE,
            "A later one went well",
        ),
    ],
)
def test_the_last_job(jobs: list[JobSummary], status: Status, words: str) -> None:
    finding = worker.judge_last_error(jobs, NOW)
    assert finding.status is status
    assert words in finding.found
    assert_sound(finding)


def test_storage_that_both_see() -> None:
    error = SharedStorageUnusable(place="The storage", reason="the worker sees another")
    assert worker.judge_storage(None, None).status is NOTE
    assert worker.judge_storage("/mnt", None).status is OK
    finding = worker.judge_storage("/mnt", error)
    assert finding.status is WARNING
    assert "another" in finding.found


# -- what is said ------------------------------------------------------------------


def test_every_error_becomes_a_finding() -> None:
    for leaf in error_types().values():
        error = leaf(**{field.name: "made up" for field in fields(leaf)})
        finding = from_error("link", error)
        assert finding.found
        assert finding.remedy
        assert finding.remedy[0].isupper() or not finding.remedy[0].isalpha()


def test_secrets_and_homes_are_taken_out() -> None:
    said = ok("session", "The token abcdef of abc is in /home/ann/x.")
    safe = without_secrets(said, ["abcdef", "abcdef0123", "abc", ""], "/home/ann")
    # What is too short to be a secret stays, or words would be torn apart.
    assert safe.found == "The token (secret) of abc is in ~/x."
    assert safe.status is OK
