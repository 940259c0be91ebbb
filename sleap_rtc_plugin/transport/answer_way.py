"""Which STUN or TURN server a worker uses to answer an offer.

An offer says by its candidates which way the client tries. One that holds nothing but
TURN candidates is answered with one of the worker's own, over whichever of UDP, TCP and
TLS reaches the TURN server from here: so either side may be behind a firewall. Used by
the worker's door.
"""

import asyncio
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sleap_rtc_plugin.protocol.limits import (
    BETTER_WAY_GRACE_S,
    TURN_CHOICE_LIFETIME_S,
    TURN_FAILURE_LIFETIME_S,
    TURN_PROBE_TIMEOUT_S,
)
from sleap_rtc_plugin.protocol.relay_messages import IceServerList
from sleap_rtc_plugin.protocol.signaling_messages import IceServer
from sleap_rtc_plugin.transport.effects import monotonic
from sleap_rtc_plugin.transport.ice_config import (
    TURN_WAYS,
    TurnWay,
    stun_servers,
    turn_servers,
    turn_ways,
)
from sleap_rtc_plugin.transport.turn_probe import TurnOutcome, probe_turn

__all__ = ["AnswerServers", "AnswerWays", "candidate_kinds"]

logger = logging.getLogger(__name__)

_CANDIDATE: Final = re.compile(r"^a=candidate:.* typ ([a-z]+)", re.MULTILINE)


@dataclass(frozen=True)
class AnswerServers:
    """What to answer with.

    Attributes:
        ice_servers: at most one STUN and one TURN server.
        relay_only: whether only the TURN server's address is told.
    """

    ice_servers: list[IceServer]
    relay_only: bool


def candidate_kinds(sdp: str) -> frozenset[str]:
    """Return the kinds of candidates in an offer: `host`, `srflx`, `relay`."""
    return frozenset(_CANDIDATE.findall(sdp))


class AnswerWays:
    """How offers are answered, and which way to the TURN server works from here."""

    def __init__(self, *, relay_only: bool) -> None:
        """Prepare; with `relay_only` no address of this machine is told to anybody."""
        self._relay_only = relay_only
        self._known: tuple[IceServerList, TurnWay | None, float] | None = None
        self._probing = asyncio.Lock()

    async def for_offer(self, sdp: str, config: IceServerList) -> AnswerServers:
        """Return what to answer an offer with."""
        kinds = candidate_kinds(sdp)
        is_turn_way = kinds == {"relay"}
        if not (self._relay_only or "relay" in kinds):
            return AnswerServers(stun_servers(config), relay_only=False)
        way = await self._turn_way(config)
        turn = turn_servers(config, way) if way is not None else []
        if self._relay_only or (is_turn_way and turn):
            return AnswerServers(turn, relay_only=True)
        return AnswerServers([*stun_servers(config), *turn], relay_only=False)

    async def _turn_way(self, config: IceServerList) -> TurnWay | None:
        """Return the lightest way to the TURN server that works, tried now and then."""
        async with self._probing:
            if self._known is not None:
                known, way, found_at = self._known
                lifetime_s = TURN_CHOICE_LIFETIME_S if way else TURN_FAILURE_LIFETIME_S
                if known == config and monotonic() - found_at < lifetime_s:
                    return way
            way = await _first_that_works(config, turn_ways(config))
            self._known = (config, way, monotonic())
            return way


async def _first_that_works(
    config: IceServerList, ways: Sequence[TurnWay]
) -> TurnWay | None:
    """Try ways to a TURN server at once; a lighter one may be a little later."""
    loop = asyncio.get_running_loop()
    tasks = {loop.create_task(_probe(config, way), name=way): way for way in ways}
    working: list[TurnWay] = []
    timeout_s: float | None = None
    pending = set(tasks)
    try:
        while pending:
            done, pending = await asyncio.wait(
                pending, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                if task.result().works:
                    working.append(tasks[task])
                else:
                    logger.info("%s: %s", tasks[task], task.result().reason)
            best = min(working, key=TURN_WAYS.index, default=None)
            if best is None:
                continue
            lighter = TURN_WAYS[: TURN_WAYS.index(best)]
            if not done or not any(tasks[task] in lighter for task in pending):
                break
            timeout_s = BETTER_WAY_GRACE_S
    finally:
        for task in pending:
            task.cancel()
    return min(working, key=TURN_WAYS.index, default=None)


async def _probe(config: IceServerList, way: TurnWay) -> TurnOutcome:
    [server] = turn_servers(config, way)
    return await probe_turn(server, server.urls[0], timeout_s=TURN_PROBE_TIMEOUT_S)
