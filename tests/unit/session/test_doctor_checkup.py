"""How checks are run: side by side, each with a deadline, none ends another."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from sleap_rtc_plugin.session.doctor import checkup as module
from sleap_rtc_plugin.session.doctor.checkup import Checkup, Plan, exit_status
from sleap_rtc_plugin.session.doctor.finding import (
    CHECKS,
    Finding,
    Status,
    failed,
    note,
    ok,
    warning,
)


def plan(*only: str, session: str | None = None) -> Plan:
    return Plan(
        session=session, worker=None, only=only, autoload=(Path("no.pth"), "line")
    )


async def never() -> Sequence[Finding]:
    await asyncio.Event().wait()
    return []


async def wrong() -> Sequence[Finding]:
    raise ValueError("of the kind that nobody thought of")


async def fine() -> Sequence[Finding]:
    return [ok("python", "Fine.")]


async def test_what_hangs_or_fails_is_said_and_ends_nothing_else() -> None:
    heard: list[Finding] = []
    checkup = Checkup(plan(), heard.append)
    await asyncio.gather(
        checkup._guarded(["disk"], never, 0.01),
        checkup._guarded(["keyring"], wrong, 1.0),
        checkup._guarded(["python"], fine, 1.0),
    )
    said = {finding.check: finding for finding in heard}
    assert said["python"].status is Status.OK
    assert said["disk"].status is Status.WARNING
    assert "No answer" in said["disk"].found
    assert "ValueError" in said["keyring"].found
    assert "--verbose" in said["keyring"].remedy
    assert checkup.under_way == []


async def test_the_whole_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OVERALL_S", 0.05)
    checkup = Checkup(plan("python", "server", "worker", session="sleap-session:x"))

    async def hang(*_: object) -> None:
        checkup._running.update(("name", "port", "link"))
        await asyncio.Event().wait()

    monkeypatch.setattr(checkup, "_look_at_session", hang)
    findings = await checkup.run()
    # In an area the first that is missing stands for the rest.
    assert [finding.check for finding in findings] == ["python"]
    checkup = Checkup(plan("name", "port", "link", session="sleap-session:x"))

    async def hang_again(*_: object) -> None:
        checkup._running.update(("name", "port", "link"))
        await asyncio.Event().wait()

    monkeypatch.setattr(checkup, "_look_at_session", hang_again)
    findings = await checkup.run()
    assert [finding.check for finding in findings] == ["name", "link"]
    assert all("--only" in finding.remedy for finding in findings)


async def test_only_what_was_asked_for_is_looked_at() -> None:
    findings = await Checkup(plan("python", "settings")).run()
    assert [finding.check for finding in findings] == ["python", "settings"]


async def test_a_session_that_cannot_be_read_is_not_repeated() -> None:
    text = "sleap-session:abcdefghijkl"
    (finding,) = await Checkup(plan("session", session=text)).run()
    assert finding.status is Status.FAILED
    assert "abcdefghijkl" not in finding.found + finding.remedy


def test_only_a_fault_makes_the_command_fail() -> None:
    good = [ok("python", "x"), note("stun", "x"), warning("gpu", "x", "y")]
    assert exit_status(good) == 0
    assert exit_status([*good, failed("port", "x", "y")]) == 1


def test_titles_are_short() -> None:
    assert all(len(title) <= 20 for _, title in CHECKS.values())
