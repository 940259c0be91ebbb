"""The bounds of the signaling server that no peer needs to know.

What both sides must agree on is in `sleap_rtc_plugin.protocol.limits`. Rates are
set for a lab whose every machine comes from one address: a person at work does not
meet them, a loop without a pause does.
"""

from typing import Final, NamedTuple

from sleap_rtc_plugin.protocol.limits import KIB, MIB


class Rate(NamedTuple):
    """A token bucket: `burst` at once, then `per_s` each second."""

    burst: int
    per_s: float

    def scaled(self, per_s: float | None) -> "Rate":
        """Return another rate with the burst in proportion; None changes nothing."""
        if per_s is None:
            return self
        return Rate(max(1, round(self.burst * per_s / self.per_s)), per_s)


# -- sockets ------------------------------------------------------------------
MAX_SOCKETS: Final = 8_192
MAX_SOCKETS_PER_ADDRESS: Final = 512
# Beside `protocol.limits.MAX_SIGNALING_SEND_QUEUE`, for messages that are large.
MAX_WAITING_BYTES: Final = 2 * MIB
MAX_MALFORMED_MESSAGES: Final = 3
MAX_MESSAGE_FRAGMENTS: Final = 1_024
CLOSE_DEADLINE_S: Final = 2.0
REQUEST_DEADLINE_S: Final = 10.0
SOCKET_SEND_BUFFER_BYTES: Final = 256 * KIB
LISTEN_BACKLOG: Final = 512

# -- rooms --------------------------------------------------------------------
MAX_RESERVED_IDS_PER_ROOM: Final = 1_000
CLOSED_ROOM_REMEMBERED_S: Final = 60.0
# What is said to a peer that is just coming back waits for it, shorter than a command
# waits for its reply, and only while the peer was lost a moment ago.
HELD_MESSAGE_S: Final = 5.0
HELD_AFTER_LOSS_S: Final = 30.0
MAX_HELD_MESSAGES: Final = 256
ROOM_RENEW_FRACTION: Final = 0.5

# -- discovery ----------------------------------------------------------------
MAX_IN_OPERANDS: Final = 64
PEER_LIST_ENVELOPE_BYTES: Final = 256

# -- HTTP ---------------------------------------------------------------------
MAX_BODY_BYTES: Final = 8 * KIB
MAX_DISCARDED_BYTES: Final = 1 * MIB
MAX_REQUEST_HEAD_BYTES: Final = 16 * KIB
KEEP_ALIVE_S: Final = 5
STOP_GRACE_S: Final = 1
STOP_DEADLINE_S: Final = 3.0

# -- the store ----------------------------------------------------------------
MAX_ACCOUNTS: Final = 100_000
STORE_BUSY_TIMEOUT_S: Final = 5.0
STORE_RETRY_S: Final = 0.02
PURGE_INTERVAL_S: Final = 600.0
# By so much a room's life may be shortened when the server is killed.
AWAKE_INTERVAL_S: Final = 30.0
CLOCK_CHECK_S: Final = 5.0

# -- tokens -------------------------------------------------------------------
ROOM_TOKEN_LIFETIME_S: Final = 30 * 24 * 3600.0

# -- the relay of last resort ---------------------------------------------------
RELAY_MAX_MBIT: Final = 8.0
RELAY_TOTAL_MBIT: Final = 100.0
MAX_RELAYS: Final = 32
MAX_RELAYS_PER_ROOM: Final = 8
RELAY_ROOM_GIB_PER_DAY: Final = 20.0
RELAY_TOTAL_GIB_PER_DAY: Final = 200.0
RELAY_ACCOUNT_SHARE: Final = 0.5
RELAY_IDLE_TIMEOUT_S: Final = 60.0
# How long one frame may wait until the partner has room for it.
RELAY_STALL_TIMEOUT_S: Final = 30.0
# What may pass at once after a pause: a few frames, or the pace would be a stutter.
RELAY_BURST_BYTES: Final = 256 * KIB
# A frame counts as at least this much, since a small one costs nearly as much work.
MIN_RELAY_FRAME_COST_BYTES: Final = 512
# What lies in the kernel delays an urgent frame; without a bound that is seconds.
RELAY_RECEIVE_BUFFER_BYTES: Final = 256 * KIB
RELAY_USAGE_INTERVAL_S: Final = 30.0
DAY_S: Final = 86_400.0
BYTES_PER_MBIT: Final = 125_000

# -- TURN ---------------------------------------------------------------------
TURN_LIFETIME_S: Final = 12 * 3600.0
# Whoever has credentials can try secrets against them in peace.
MIN_TURN_SECRET_CHARS: Final = 16
MAX_TURN_SECRET_BYTES: Final = 1 * KIB
MAX_TURN_SERVERS: Final = 8
MAX_TURN_URLS: Final = 8
TURN_NAME_CHARS: Final = 16

# -- rates --------------------------------------------------------------------
SIGN_IN_RATE: Final = Rate(burst=60, per_s=1.0)
REST_RATE: Final = Rate(burst=300, per_s=20.0)
CONNECT_RATE: Final = Rate(burst=200, per_s=10.0)
PEER_MESSAGE_RATE: Final = Rate(burst=400, per_s=100.0)
ADDRESS_MESSAGE_RATE: Final = Rate(burst=8_000, per_s=2_000.0)
REFUSAL_RATE: Final = Rate(burst=100, per_s=1.0)
MAX_RATE_KEYS: Final = 20_000
