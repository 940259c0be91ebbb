"""Runs all checks side by side, each with its own deadline, and collects what they say.

Called by `sleap-remote doctor`. What the session names is asked and nothing else: its
server, the STUN and TURN servers that one lists, and one worker.
"""

import asyncio
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import ifaddr

from sleap_rtc_plugin.protocol.errors import RtcError
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.session_string import Session
from sleap_rtc_plugin.protocol.signaling_messages import IceServer
from sleap_rtc_plugin.session.doctor import computer, computer_probe, nat
from sleap_rtc_plugin.session.doctor.finding import (
    CHECKS,
    Finding,
    Status,
    skipped,
    warning,
    without_secrets,
)
from sleap_rtc_plugin.session.doctor.limits import (
    CLOSING_S,
    LOCAL_CHECK_S,
    MAX_ICE_URLS,
    OVERALL_S,
    SHARED_STORAGE_S,
    SLEAP_CHECK_S,
    STUN_S,
    TURN_S,
)
from sleap_rtc_plugin.session.doctor.server import (
    IceFacts,
    ServerFacts,
    judge_relay,
    judge_room,
    judge_server,
    judge_session,
)
from sleap_rtc_plugin.session.doctor.server_probe import probe_ice, probe_server
from sleap_rtc_plugin.session.doctor.worker_check import (
    LINK_CHECKS,
    WORKER_CHECKS,
    check_worker,
)
from sleap_rtc_plugin.session.secret_store import in_daemon_thread
from sleap_rtc_plugin.session.shared_files import chosen_storage_root
from sleap_rtc_plugin.transport.ice_config import parse_ice_url
from sleap_rtc_plugin.transport.shared_storage import SharedStorage
from sleap_rtc_plugin.transport.transport_options import TransportOptions
from sleap_rtc_plugin.transport.turn_probe import (
    TurnOutcome,
    probe_stun,
    probe_turn,
)

__all__ = ["Checkup", "Plan", "exit_status"]

logger = logging.getLogger(__name__)

_OFFLINE: Final = tuple(
    check for check, (area, _) in CHECKS.items() if area == "computer"
)
_NAT_CHECKS: Final = ("stun", "nat", "turn", "relay")
_STEPS: Final = ("name", "port", "certificate", "server", "clock")


@dataclass(frozen=True)
class Plan:
    """What is to be looked at.

    Attributes:
        session: as the user gave it, or None for this computer alone.
        worker: the name of the worker to look at, or None.
        only: the checks to make, of `CHECKS`; all where empty.
        autoload: the file that loads the menu, and what it should hold.
        transport: how data channels go.
    """

    session: str | None
    worker: str | None
    only: Collection[str]
    autoload: tuple[Path, str]
    transport: TransportOptions = field(default_factory=TransportOptions)


class Checkup:
    """One run of the doctor."""

    def __init__(
        self, plan: Plan, on_finding: Callable[[Finding], None] = lambda finding: None
    ) -> None:
        """Prepare; `on_finding` is told each finding as soon as it is there."""
        self._plan = plan
        self._on_finding = on_finding
        self._findings: list[Finding] = []
        self._secrets: set[str] = set()
        self._running: set[str] = set()
        self._is_reachable: bool | None = None

    @property
    def under_way(self) -> Sequence[str]:
        """What is being looked at now, for a line of progress."""
        return [CHECKS[check][1] for check in CHECKS if check in self._running]

    async def run(self) -> list[Finding]:
        """Make every check; return what they say in the order of the table."""
        # First, since whoever reads the settings sets a broken file aside.
        await self._guarded(["settings"], _look_at_settings, LOCAL_CHECK_S)
        tasks = [
            asyncio.ensure_future(self._offline()),
            asyncio.ensure_future(self._online()),
        ]
        _, pending = await asyncio.wait(tasks, timeout=OVERALL_S)
        for task in pending:
            task.cancel()
        if pending:
            # What does not even end when it is told to is left behind.
            await asyncio.wait(pending, timeout=CLOSING_S)
            self._say_what_is_missing()
        for task in tasks:
            if task.done() and not task.cancelled():
                task.result()
        order = list(CHECKS)
        return sorted(self._findings, key=lambda found: order.index(found.check))

    # -- what is said --------------------------------------------------------------

    def _wants(self, *checks: str) -> bool:
        only = self._plan.only
        return not only or any(check in only for check in checks)

    def _say(self, finding: Finding) -> None:
        self._running.discard(finding.check)
        if not self._wants(finding.check):
            return
        safe = without_secrets(finding, self._secrets, str(Path.home()))
        self._findings.append(safe)
        self._on_finding(safe)

    def _say_what_is_missing(self) -> None:
        # In an area one check waits for the other, so the first tells the rest.
        silent = {
            CHECKS[check][0]: check
            for check in reversed(CHECKS)
            if check in self._running
        }
        for check in silent.values():
            if self._wants(check):
                self._say(
                    warning(
                        check,
                        f"No answer within {OVERALL_S:.0f} s.",
                        f"Run it alone: sleap-remote doctor --only {check}",
                    )
                )

    async def _guarded(
        self,
        checks: Sequence[str],
        look: Callable[[], Awaitable[Sequence[Finding]]],
        deadline_s: float,
    ) -> None:
        """Make one check; whatever goes wrong in it is said and ends nothing else."""
        if not self._wants(*checks):
            return
        self._running.update(checks)
        try:
            async with asyncio.timeout(deadline_s):
                found = await look()
        except TimeoutError:
            found = [
                warning(
                    checks[0],
                    f"No answer within {deadline_s:.0f} s.",
                    "If this computer is busy, run it again; if not, a disk or mount "
                    "may hang.",
                )
            ]
        except Exception as error:
            logger.debug("The check %s failed", checks[0], exc_info=error)
            found = [
                warning(
                    checks[0],
                    f"This could not be looked at ({type(error).__name__}).",
                    "Please report it with the output of --verbose.",
                )
            ]
        for finding in found:
            self._say(finding)
        self._running.difference_update(checks)

    # -- this computer -------------------------------------------------------------

    async def _offline(self) -> None:
        python = tuple(sys.version_info[:3])
        path, expected = self._plan.autoload

        async def look_at_python() -> list[Finding]:
            return [computer.judge_python(python)]

        async def look_at_packages() -> list[Finding]:
            facts = await asyncio.to_thread(computer_probe.look_at_packages)
            return [computer.judge_packages(facts)]

        async def look_at_qt() -> list[Finding]:
            return [computer.judge_qt(computer_probe.version_of("PySide6"), python)]

        async def look_at_sleap() -> list[Finding]:
            return [computer.judge_sleap(await computer_probe.look_at_sleap())]

        async def look_at_menu() -> list[Finding]:
            state = computer_probe.look_at_autoload(path, expected)
            return [computer.judge_menu(state, str(path))]

        async def look_at_keyring() -> list[Finding]:
            return [computer.judge_keyring(await computer_probe.look_at_keyring())]

        async def look_at_disks() -> list[Finding]:
            places = await in_daemon_thread(computer_probe.look_at_disks, LOCAL_CHECK_S)
            return [computer.judge_disk(places)]

        await asyncio.gather(
            self._guarded(["python"], look_at_python, LOCAL_CHECK_S),
            self._guarded(["packages"], look_at_packages, LOCAL_CHECK_S),
            self._guarded(["qt"], look_at_qt, LOCAL_CHECK_S),
            self._guarded(["sleap"], look_at_sleap, SLEAP_CHECK_S + CLOSING_S),
            self._guarded(["menu"], look_at_menu, LOCAL_CHECK_S),
            self._guarded(["keyring"], look_at_keyring, LOCAL_CHECK_S),
            self._guarded(["disk"], look_at_disks, LOCAL_CHECK_S),
            self._guarded(["storage"], self._look_at_storage, LOCAL_CHECK_S),
        )

    async def _look_at_storage(self) -> list[Finding]:
        root = chosen_storage_root()
        if root is None:
            return [computer.judge_storage(None, None)]
        fault = await in_daemon_thread(
            lambda: computer_probe.storage_fault(root), LOCAL_CHECK_S
        )
        return [computer.judge_storage(str(root), fault)]

    # -- the server and the worker -------------------------------------------------

    async def _online(self) -> None:
        wanted = [check for check in CHECKS if check not in _OFFLINE]
        if self._wants(*wanted):
            await self._look_at_session()
        if self._wants("proxy"):
            names = computer_probe.proxies_set()
            self._say(computer.judge_proxy(names, self._is_reachable))

    async def _look_at_session(self) -> None:
        text = self._plan.session
        if not text:
            self._say(
                skipped(
                    "session",
                    "None is given, so only this computer was looked at.",
                    "Give the line that the worker printed: --session '...', or "
                    "SLEAP_SESSION.",
                )
            )
            return
        self._secrets.update(text.split())
        try:
            session = Session.parse(text)
        except RtcError as error:
            self._say(judge_session(error))
            return
        encoded = text.strip().rpartition(":")[2]
        self._secrets.update((session.token, encoded))
        self._say(judge_session(None))
        self._running.update((*_STEPS, "room"))
        facts = await self._look_at_server(session)
        if not facts.is_sound:
            self._skip(("room", *_NAT_CHECKS, *WORKER_CHECKS), "the server")
            return
        if not self._wants("room", *_NAT_CHECKS, *WORKER_CHECKS):
            return
        ice = await probe_ice(session)
        self._secrets.update(ice.secrets)
        if ice.error is not None:
            self._say(judge_room(ice.error))
            self._skip((*_NAT_CHECKS, *WORKER_CHECKS), "the room")
            return
        await asyncio.gather(
            self._look_at_networks(ice),
            self._look_at_worker(session),
        )

    def _skip(self, checks: Sequence[str], what: str) -> None:
        """Say once per area that its checks need what is not there."""
        self._running.difference_update(checks)
        for area in ("server", "worker"):
            left = [c for c in checks if CHECKS[c][0] == area and self._wants(c)]
            if left:
                self._say(
                    skipped(
                        left[0],
                        f"Not looked at, nor anything after it: {what} comes first.",
                        "Mend what is wrong above first.",
                    )
                )

    async def _look_at_server(self, session: Session) -> ServerFacts:
        facts = await probe_server(session.url)
        self._is_reachable = facts.is_reachable
        for finding in judge_server(facts, now=time.time()):
            self._say(finding)
        return facts

    async def _look_at_worker(self, session: Session) -> None:
        if not self._wants("room", *WORKER_CHECKS):
            return
        self._running.update(("room", *WORKER_CHECKS))
        root = chosen_storage_root()
        storage = None
        if root is not None:
            # The link's own deadline must not be the first to end.
            timeout_s = SHARED_STORAGE_S / 2
            storage = (str(root), SharedStorage(root, timeout_s=timeout_s))
        try:
            await check_worker(
                session,
                self._plan.worker,
                self._say,
                wants_link=self._wants(*LINK_CHECKS),
                shared_storage=storage,
                transport=self._plan.transport,
            )
        finally:
            if not _is_being_cancelled():
                self._running.difference_update(WORKER_CHECKS)

    # -- ways through networks -----------------------------------------------------

    async def _look_at_networks(self, ice: IceFacts) -> None:
        servers = ice.config.ice_servers
        listed = [(server, url) for server in servers for url in server.urls]
        listed = listed[:MAX_ICE_URLS]
        stun = list(dict.fromkeys(u for _, u in listed if u.startswith("stun:")))
        turn = [(server, url) for server, url in listed if not url.startswith("stun:")]

        async def look_at_stun() -> list[Finding]:
            # A TURN server over UDP answers such questions, too.
            others = [url for _, url in turn if _is_turn_udp(url)]
            outcome = await probe_stun([*stun, *others], timeout_s=STUN_S)
            own = await asyncio.to_thread(_own_hosts)
            kind = nat.judge_nat(outcome, own, has_turn=bool(turn))
            return [*nat.judge_stun(stun, outcome), kind]

        async def look_at_turn() -> list[Finding]:
            return nat.judge_turn(await asyncio.gather(*map(_allocate, turn)))

        async def look_at_relay() -> list[Finding]:
            return [judge_relay(ice)]

        await asyncio.gather(
            self._guarded(["stun", "nat"], look_at_stun, LOCAL_CHECK_S),
            self._guarded(["turn"], look_at_turn, TURN_S + 2 * CLOSING_S),
            self._guarded(["relay"], look_at_relay, LOCAL_CHECK_S),
        )


async def _look_at_settings() -> list[Finding]:
    facts = await in_daemon_thread(computer_probe.look_at_settings, LOCAL_CHECK_S)
    return [computer.judge_settings(facts)]


async def _allocate(one: tuple[IceServer, str]) -> tuple[str, TurnOutcome]:
    server, url = one
    outcome = await probe_turn(server, url, timeout_s=TURN_S)
    return clean_text(url), outcome


def _is_turn_udp(url: str) -> bool:
    parsed = parse_ice_url(url)
    return parsed is not None and parsed.way == "turn-udp"


def _own_hosts() -> list[str]:
    """Return this computer's own addresses."""
    return [
        str(ip.ip if isinstance(ip.ip, str) else ip.ip[0])
        for adapter in ifaddr.get_adapters()
        for ip in adapter.ips
    ]


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def exit_status(findings: Sequence[Finding]) -> int:
    """Return 1 where something failed, else 0."""
    return int(any(finding.status is Status.FAILED for finding in findings))
