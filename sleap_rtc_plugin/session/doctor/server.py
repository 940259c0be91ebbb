"""What the facts about the signaling server mean.

Pure: facts in, findings out. `server_probe` gathers them.
"""

from dataclasses import dataclass, field

from sleap_rtc_plugin.protocol.errors import RtcError
from sleap_rtc_plugin.protocol.relay_messages import IceServerList
from sleap_rtc_plugin.session.doctor.finding import (
    Finding,
    failed,
    from_error,
    note,
    ok,
    skipped,
    warning,
)
from sleap_rtc_plugin.session.doctor.limits import (
    CERTIFICATE_WARNING_DAYS,
    CLOCK_FAILED_S,
    CLOCK_WARNING_S,
)

__all__ = [
    "IceFacts",
    "ServerFacts",
    "judge_relay",
    "judge_room",
    "judge_server",
    "judge_session",
    "span_text",
]

_DAY_S = 24 * 3600.0
_LOCAL = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class ServerFacts:
    """How far one gets with the server; later fields stay empty after a fault.

    Attributes:
        url: as the session string names it.
        name_fault: why its name leads nowhere.
        port_fault: why nothing answers at its port.
        is_tls: whether its address begins with https.
        certificate_fault: why its certificate is not believed, in a word or two.
        tls_fault: why there is no TLS at all.
        certificate_ends_at: until when it is good, in Unix seconds.
        health_fault: why its answer is not that of a signaling server.
        version: what it runs; empty where it does not say.
        clock_ahead_s: how far its clock is ahead of ours, or None.
    """

    url: str
    host: str
    port: int
    is_tls: bool = False
    name_fault: str | None = None
    port_fault: str | None = None
    certificate_fault: str | None = None
    tls_fault: str | None = None
    certificate_ends_at: float | None = None
    health_fault: str | None = None
    version: str = ""
    clock_ahead_s: float | None = None

    @property
    def is_reachable(self) -> bool:
        """Whether something took the connection."""
        return self.name_fault is None and self.port_fault is None

    @property
    def is_sound(self) -> bool:
        """Whether a signaling server answered."""
        return (
            self.is_reachable
            and self.certificate_fault is None
            and self.tls_fault is None
            and self.health_fault is None
        )


@dataclass(frozen=True)
class IceFacts:
    """What a member of the room is told about ways through networks."""

    config: IceServerList = field(default_factory=lambda: IceServerList(ice_servers=[]))
    error: RtcError | None = None
    secrets: tuple[str, ...] = field(default=(), repr=False)


def judge_session(error: RtcError | None) -> Finding:
    """Judge whether the session string can be read."""
    if error is not None:
        return from_error("session", error)
    return ok("session", "It can be read.")


def judge_server(facts: ServerFacts, *, now: float) -> list[Finding]:
    """Judge every layer that was reached, and say which were not.

    Args:
        facts: about the server.
        now: this computer's clock, in Unix seconds.
    """
    steps = (
        [_judge_name(facts)]
        + ([_judge_port(facts)] if facts.name_fault is None else [])
        + ([_judge_certificate(facts, now)] if facts.is_reachable else [])
    )
    is_trusted = facts.certificate_fault is None and facts.tls_fault is None
    if facts.is_reachable and is_trusted:
        steps += [_judge_answer(facts), _judge_clock(facts)]
    reached = {finding.check for finding in steps}
    left = ("name", "port", "certificate", "server", "clock")
    return steps + [_not_reached(check) for check in left if check not in reached]


def _not_reached(check: str) -> Finding:
    return skipped(
        check,
        "Not looked at, nor anything after it: the server was not reached.",
        "Mend what is wrong above first.",
    )


def _judge_name(facts: ServerFacts) -> Finding:
    if facts.name_fault is not None:
        return failed(
            "name",
            f"{facts.host} leads nowhere ({facts.name_fault}).",
            "Check the network and the name. Where your network does not know that "
            "name, start the server with --public-url and an address that it knows.",
        )
    return ok("name", f"{facts.host} has an address.")


def _judge_port(facts: ServerFacts) -> Finding:
    place = f"port {facts.port} of {facts.host}"
    if facts.port_fault == "refused":
        remedy = "Start the worker or the server again, and use the string it prints."
        if facts.host in _LOCAL:
            remedy += (
                f" {facts.host} is always this computer: for another one, start it "
                "there with --host."
            )
        return failed("port", f"Nothing listens on {place}.", remedy)
    if facts.port_fault is not None:
        return failed(
            "port",
            f"No way to {place} ({facts.port_fault}).",
            "Check that the machine is on, and that a firewall lets TCP to that port "
            "through.",
        )
    return ok("port", f"Something listens on {place}.")


def _judge_certificate(facts: ServerFacts, now: float) -> Finding:
    if not facts.is_tls and facts.host in _LOCAL:
        return ok("certificate", "It needs none: it is on this computer.")
    if not facts.is_tls:
        return note(
            "certificate",
            "The connection to it is not encrypted. The worker's data is, from end to "
            "end; the room's token can be read on the way.",
            "Beyond your own network, put the server behind a TLS proxy and use https.",
        )
    match facts.certificate_fault:
        case None:
            pass
        case "expired":
            return failed(
                "certificate",
                f"The certificate of {facts.host} has expired.",
                "Renew it on the server. If it is new, set this computer's clock.",
            )
        case "not yet valid":
            return failed(
                "certificate",
                f"The certificate of {facts.host} is not valid yet.",
                "Set this computer's clock; if it is right, the server's certificate "
                "was made with a wrong one.",
            )
        case "wrong name":
            return failed(
                "certificate",
                f"The certificate is not for the name {facts.host}.",
                "Use the name in the certificate (the worker's --public-url), or get "
                "one for this name.",
            )
        case "unknown authority":
            return failed(
                "certificate",
                f"Nobody whom this computer trusts vouches for {facts.host}.",
                "If it is your lab's own authority, let SSL_CERT_FILE name a file with "
                "its certificate. If not, somebody may be in between: do not go on.",
            )
        case other:
            return failed(
                "certificate",
                f"The certificate of {facts.host} is not accepted ({other}).",
                "Have it looked at on the server.",
            )
    if facts.tls_fault is not None:
        return failed(
            "certificate",
            f"Port {facts.port} of {facts.host} does not speak TLS "
            f"({facts.tls_fault}).",
            "See that the port is that of the TLS proxy; without one, the address "
            "begins with http://.",
        )
    if facts.certificate_ends_at is None:
        return ok("certificate", f"It is good for {facts.host}.")
    days = int((facts.certificate_ends_at - now) / _DAY_S)
    found = f"It is good for {facts.host}, for {days} more days."
    if days < CERTIFICATE_WARNING_DAYS:
        return warning("certificate", found, "Renew it on the server soon.")
    return ok("certificate", found)


def _judge_answer(facts: ServerFacts) -> Finding:
    if facts.health_fault is not None:
        return failed(
            "server",
            f"What answers at {facts.url} is no signaling server "
            f"({facts.health_fault}).",
            "Check the port, and http or https, in the server's address; the worker "
            "prints both. If they are right, start the server again.",
        )
    runs = f", version {facts.version}" if facts.version else ""
    return ok("server", f"{facts.url} is a signaling server{runs}.")


def _judge_clock(facts: ServerFacts) -> Finding:
    ahead_s = facts.clock_ahead_s
    if facts.health_fault is not None:
        return _not_reached("clock")
    if ahead_s is None:
        return note("clock", "The server does not tell its time.")
    if abs(ahead_s) < CLOCK_WARNING_S:
        return ok("clock", "This computer and the server agree on the time.")
    order = "ahead of" if ahead_s > 0 else "behind"
    found = f"The server's clock is {span_text(abs(ahead_s))} {order} this computer's."
    remedy = "Let both set their clocks from the network (NTP)."
    if abs(ahead_s) < CLOCK_FAILED_S:
        return warning("clock", found, remedy)
    return failed(
        "clock", found, f"{remedy} Until then sign-ins and certificates may be refused."
    )


def judge_room(error: RtcError | None) -> Finding:
    """Judge whether the session's token admits to the room."""
    if error is not None:
        return from_error("room", error)
    return ok("room", "The session admits to its room.")


def judge_relay(ice: IceFacts) -> Finding:
    """Say whether the server relays where nothing else goes through."""
    relay = ice.config.relay
    if relay is not None:
        limit = f", at up to {relay.max_mbit:g} Mbit/s" if relay.max_mbit else ""
        return ok("relay", f"As a last resort, the server relays{limit}.")
    return note("relay", "The server does not relay; direct ways or TURN have to do.")


def span_text(seconds: float) -> str:
    """Say a length of time in its largest unit."""
    for unit, length_s in (("day", _DAY_S), ("hour", 3600.0), ("minute", 60.0)):
        count = round(seconds / length_s)
        # A moment less than an hour is an hour to everybody.
        if seconds >= 0.99 * length_s:
            return f"{count} {unit}{'' if count == 1 else 's'}"
    count = round(seconds)
    return f"{count} second{'' if count == 1 else 's'}"
