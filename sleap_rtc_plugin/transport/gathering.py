"""Gathers ICE candidates within our own time, and tidies up where that is cut short.

aioice waits five seconds for STUN and TURN servers; and where whoever waits for it is
cancelled, it leaves its questions to themselves, which end half a minute later as
errors that nobody reads. It asks a TURN server once, and one whose next relay port
happens to be taken refuses that one allocation. Used by `peer`.
"""

import asyncio
import logging

import aioice.ice
from aioice import stun

from sleap_rtc_plugin.protocol.limits import MAX_ALLOCATION_TRIES
from sleap_rtc_plugin.transport.effects import monotonic

__all__ = ["bound_gathering"]

logger = logging.getLogger(__name__)

NOBODY = ("0.0.0.0", 0)  # noqa: S104  # an address in a message, nothing listens there


def bound_gathering(ice: aioice.ice.Connection, timeout_s: float) -> None:
    """Let `ice` wait for its servers for `timeout_s` at most.

    A TURN server that refuses an allocation is asked again within that time. Where it
    is cancelled meanwhile, what was asked ends within that time out of the way, and
    what came of it is closed. Closing `ice` ends the questions that it has put, which
    would otherwise be repeated through sockets that are gone.
    """
    gather = ice.get_component_candidates
    close = ice.close
    late: set[asyncio.Task[None]] = set()

    async def persistent(
        component: int, addresses: list[str]
    ) -> list[aioice.Candidate]:
        deadline = monotonic() + timeout_s
        found = await gather(component, addresses, timeout=timeout_s)  # type: ignore[arg-type]  # of asyncio.wait
        for _ in range(MAX_ALLOCATION_TRIES - 1):
            left_s = deadline - monotonic()
            if not _lacks_relay(ice, found) or left_s <= 0:
                break
            logger.info("The TURN server gave no relay; asking it again")
            # Without addresses, nothing but the TURN server is asked.
            found += await gather(component, [], timeout=left_s)  # type: ignore[arg-type]  # of asyncio.wait
        return found

    async def bounded(component: int, addresses: list[str]) -> list[aioice.Candidate]:
        asked = asyncio.ensure_future(persistent(component, addresses))
        try:
            return await asyncio.shield(asked)
        except asyncio.CancelledError:
            task = asyncio.ensure_future(_close_after(ice, asked))
            late.add(task)
            task.add_done_callback(late.discard)
            raise

    async def closing() -> None:
        protocols = list(ice._protocols)
        _end_questions(protocols)
        await close()
        # One may have been put while the sockets closed.
        _end_questions(protocols)

    ice.get_component_candidates = bounded  # type: ignore[method-assign,assignment]
    ice.close = closing  # type: ignore[method-assign]


def _lacks_relay(ice: aioice.ice.Connection, found: list[aioice.Candidate]) -> bool:
    return ice.turn_server is not None and all(each.type != "relay" for each in found)


def _end_questions(protocols: list[aioice.ice.StunProtocol]) -> None:
    """Answer what is still asked with an error (RFC 8489 section 6.3.4)."""
    for protocol in protocols:
        for transaction_id, transaction in list(protocol.transactions.items()):
            refusal = stun.Message(
                message_method=stun.Method.BINDING,
                message_class=stun.Class.ERROR,
                transaction_id=transaction_id,
            )
            transaction.response_received(refusal, NOBODY)


async def _close_after(
    ice: aioice.ice.Connection, asked: "asyncio.Future[list[aioice.Candidate]]"
) -> None:
    try:
        await asked
    except OSError as error:
        logger.debug("Candidates that nobody waits for: %s", error)
    finally:
        # Closing twice is closing once; a relay may have come since the first time.
        await ice.close()
