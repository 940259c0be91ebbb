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
from sleap_rtc_plugin.transport.turn_probe import (
    StunOutcome,
    TurnOutcome,
    TurnState,
)

__all__ = ["judge_nat", "judge_stun", "judge_turn"]

_CONFIGURED: Final = "in the signaling server's configuration (ice_servers)"

# What to do about each way in which a TURN server is of no use.
_TURN: Final[dict[TurnState, str]] = {
    "unusable": f"Correct it {_CONFIGURED}: turn:HOST:PORT or turns:HOST:PORT.",
    "unreachable": "Check that it runs, its name and port, and that a firewall lets "
    "this through; where UDP is blocked, list ?transport=tcp or turns: as well "
    f"{_CONFIGURED}.",
    "certificate": "Renew it, or get one for this name; for your lab's own authority, "
    "let SSL_CERT_FILE name its certificate.",
    "refused": "Give both servers the same secret: static-auth-secret at coturn, and "
    "the one in the signaling server's configuration.",
    "expired": "Set the clocks of the signaling server and of the TURN server from the "
    "network (NTP).",
    "full": "Raise total-quota or user-quota of the TURN server, or wait.",
    "failed": "Look into the log of the TURN server, and compare its port with the one "
    f"{_CONFIGURED}.",
}


def judge_turn(outcomes: Sequence[tuple[str, TurnOutcome]]) -> list[Finding]:
    """Judge every address of every configured TURN server, by its URL."""
    if not outcomes:
        return [
            note(
                "turn",
                "None is configured; where direct ways fail there is no other.",
                f"For difficult networks, list one {_CONFIGURED}.",
            )
        ]
    findings = []
    for url, outcome in outcomes:
        if outcome.works:
            took = f"{1000 * outcome.seconds:.0f} ms"
            findings.append(ok("turn", f"{url} relays; asking for it took {took}."))
            continue
        found = f"{url} is of no use: {outcome.reason}."
        findings.append(failed("turn", found, _TURN[outcome.state]))
    return findings


def judge_stun(urls: Sequence[str], outcome: StunOutcome) -> list[Finding]:
    """Judge every configured STUN server, the `urls`, by what they said."""
    if not urls:
        return [
            note(
                "stun",
                "None is configured; inside one network none is needed.",
                f"For connections between networks, list one {_CONFIGURED}.",
            )
        ]
    findings = []
    for url in urls:
        if url in outcome.mapped:
            findings.append(ok("stun", f"{url} answers."))
            continue
        findings.append(
            failed(
                "stun",
                f"{url} is of no use: {outcome.failures.get(url, 'no answer')}.",
                "Check that it runs, and that a firewall lets UDP to its port through; "
                "where UDP is blocked, list a TURN server with ?transport=tcp "
                f"{_CONFIGURED}.",
            )
        )
    return findings


def judge_nat(
    outcome: StunOutcome, own_hosts: Sequence[str], *, has_turn: bool
) -> Finding:
    """Say what kind of address translation is on the way, as far as it can be told.

    Args:
        outcome: what different servers saw, all of one socket of ours.
        own_hosts: this computer's own addresses.
        has_turn: whether a TURN server is configured.
    """
    seen = list(outcome.mapped.values())
    if not seen:
        return note("nat", "It cannot be told without a STUN server that answers.")
    if all(host in own_hosts for host, _ in seen):
        return ok("nat", "There is none on the way to the STUN servers.")
    match outcome.nat:
        case "different":
            found = (
                "The network gives this computer another address for each destination "
                "(symmetric NAT)."
            )
            if has_turn:
                return note("nat", f"{found} Connections go over TURN.")
            return warning(
                "nat", found, f"List a TURN server {_CONFIGURED}; direct ways may fail."
            )
        case "unknown":
            return note(
                "nat",
                "There is one. Its kind can only be told with two STUN servers.",
                f"To know, list a second STUN server {_CONFIGURED}.",
            )
        case "same":
            return ok("nat", "There is one that direct connections get through.")
