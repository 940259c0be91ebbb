"""Enters a room, reaches its worker, and says in one JSON line how, or why not.

Started as `reach_worker.py SESSION [--relay-only]`, in whatever network. Seconds are
those of the whole way to an authenticated link.
"""

import asyncio
import json
import logging
import sys
import time

from sleap_rtc_plugin.protocol.errors import RtcError
from sleap_rtc_plugin.protocol.session_string import Session
from sleap_rtc_plugin.session.remote_session import RemoteSession
from sleap_rtc_plugin.transport.transport_options import TransportOptions


async def reach(session: Session, options: TransportOptions) -> dict[str, object]:
    async with RemoteSession(session, transport=options) as room:
        worker = await room.choose()
        began_at = time.monotonic()
        try:
            link = (await room.connect(worker)).link
        except RtcError as error:
            found: dict[str, object] = {"error": error.code, "message": str(error)}
        else:
            found = {"kind": link.kind, "engine": link.engine}
        return found | {"seconds": round(time.monotonic() - began_at, 2)}


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    chosen = TransportOptions(relay_only="--relay-only" in sys.argv)
    outcome = asyncio.run(reach(Session.parse(sys.argv[1]), chosen))
    sys.stdout.write(json.dumps(outcome) + "\n")
