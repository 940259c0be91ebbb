"""What STUN and TURN servers said, and what that means for connections.

Pure. No address of the user's is repeated: the table may be pasted into an issue.
"""

from collections.abc import Sequence
from typing import Final

from sleap_rtc_plugin.session.doctor.finding import (
    Finding,
    failed,
    note,
    ok,
    warning,
)
from sleap_rtc_plugin.session.doctor.stun_probe import StunOutcome
from sleap_rtc_plugin.transport.turn_probe import TurnFault, TurnOutcome

__all__ = ["judge_nat", "judge_stun", "judge_turn"]

_CONFIGURED: Final = "in the signaling server's configuration (ice_servers)"

# What is so, and what to do about it.
_TURN: Final[dict[TurnFault, tuple[str, str]]] = {
    "bad_url": (
        "is no address of a TURN server",
        f"Correct it {_CONFIGURED}: turn:HOST:PORT or turns:HOST:PORT.",
    ),
    "no_name": (
        "has a name that leads nowhere",
        f"Check the name {_CONFIGURED} and your network.",
    ),
    "no_answer": (
        "does not answer",
        "Check that it runs, and that a firewall lets this through; where UDP is "
        f"blocked, list ?transport=tcp or turns: as well {_CONFIGURED}.",
    ),
    "refused": (
        "takes no connection",
        f"Start the TURN server, or correct its port {_CONFIGURED}.",
    ),
    "certificate": (
        "shows a certificate that is not accepted",
        "Renew it or get one for this name; for your lab's own authority, let "
        "SSL_CERT_FILE name its certificate.",
    ),
    "tls": (
        "does not speak TLS there",
        "Use the TLS port of the TURN server, or turn: in place of turns:.",
    ),
    "credentials": (
        "does not accept the credentials",
        "Give both servers the same secret: static-auth-secret at coturn and the "
        "one in the signaling server's configuration; compare their clocks.",
    ),
    "server": (
        "refuses to relay",
        "Look into the log of the TURN server: it may be full, or forbid this.",
    ),
}


def judge_turn(outcomes: Sequence[TurnOutcome]) -> list[Finding]:
    """Judge every address of every configured TURN server."""
    if not outcomes:
        return [
            note(
                "turn",
                "None is configured; where direct ways fail there is no other.",
                f"For difficult networks, list one {_CONFIGURED}.",
            )
        ]
    findings = []
    for outcome in outcomes:
        if outcome.fault is None:
            milliseconds = round(1000 * outcome.seconds)
            findings.append(
                ok("turn", f"{outcome.url} relays (asked for {milliseconds} ms).")
            )
            continue
        found, remedy = _TURN[outcome.fault]
        findings.append(
            failed("turn", f"{outcome.url} {found} ({outcome.detail}).", remedy)
        )
    return findings


def judge_stun(outcomes: Sequence[StunOutcome]) -> list[Finding]:
    """Judge every configured STUN server."""
    if not outcomes:
        return [
            note(
                "stun",
                "None is configured; inside one network none is needed.",
                f"For connections between networks, list one {_CONFIGURED}.",
            )
        ]
    findings = []
    for outcome in outcomes:
        if outcome.mapped is not None:
            findings.append(ok("stun", f"{outcome.url} answers."))
            continue
        findings.append(
            failed(
                "stun",
                f"{outcome.url} gave no address ({outcome.reason}).",
                "Check that it runs, and that a firewall lets UDP to its port through; "
                "where UDP is blocked, list a TURN server with ?transport=tcp "
                f"{_CONFIGURED}.",
            )
        )
    return findings


def judge_nat(
    outcomes: Sequence[StunOutcome], own_hosts: Sequence[str], *, has_turn: bool
) -> Finding:
    """Say what kind of address translation is on the way, as far as it can be told.

    Args:
        outcomes: what different servers saw, all of one socket of ours.
        own_hosts: this computer's own addresses.
        has_turn: whether a TURN server is configured.
    """
    seen = [outcome.mapped for outcome in outcomes if outcome.mapped is not None]
    if not seen:
        return note("nat", "It cannot be told without a STUN server that answers.")
    if all(host in own_hosts for host, _ in seen):
        return ok("nat", "There is none on the way to the STUN servers.")
    if len(set(seen)) > 1:
        found = (
            "The network gives this computer another address for each destination "
            "(symmetric NAT)."
        )
        if has_turn:
            return note("nat", f"{found} Connections go over TURN.")
        return warning(
            "nat", found, f"List a TURN server {_CONFIGURED}; direct ways may fail."
        )
    if len(seen) == 1:
        return note(
            "nat",
            "There is one. Its kind can only be told with two STUN servers.",
            f"To know, list a second STUN server {_CONFIGURED}.",
        )
    return ok("nat", "There is one of the kind that direct connections get through.")
