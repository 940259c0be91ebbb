"""The bounds of the signaling server that no peer needs to know.

What both sides must agree on is in `sleap_rtc_plugin.protocol.limits`. Rates are
set for a lab whose every machine comes from one address: a person at work does not
meet them, a loop without a pause does.
"""

from typing import Final, NamedTuple

from sleap_rtc_plugin.protocol.limits import KIB, MIB

DAY_S: Final = 86_400.0


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
# How soon it is asked again whether a room was renewed at another instance.
ROOM_CHECK_S: Final = 10.0

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

REQUEST_BUCKETS_S: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)

# Shorter than the check of a container may take.
SELF_PROBE_TIMEOUT_S: Final = 3.0

# -- the store ----------------------------------------------------------------
MAX_ACCOUNTS: Final = 100_000
# Below what DynamoDB takes as one item (400 KB), with its keys and names.
MAX_RECORD_BYTES: Final = 320 * KIB
# How often a change is tried again where others change the same record at once.
MAX_STORE_TRIES: Final = 64
MAX_STORE_CALLS_AT_ONCE: Final = 16
# A room that is just being made keeps its place among those of its account.
ROOM_MAKING_S: Final = 60.0
# What belongs to rooms that are gone is looked for and removed so often.
SWEEP_INTERVAL_S: Final = 6 * 3600.0
BACKUP_INTERVAL_S: Final = DAY_S
# A backup of each day of the week is kept.
BACKUPS_KEPT: Final = 7
MAX_BACKUP_BYTES: Final = 1024 * MIB
MAX_BACKUP_LINE_BYTES: Final = 1 * MIB
BACKUP_CHECK_S: Final = 300.0
STORE_BUSY_TIMEOUT_S: Final = 5.0
STORE_RETRY_S: Final = 0.02
DYNAMODB_CONNECT_TIMEOUT_S: Final = 3.0
DYNAMODB_READ_TIMEOUT_S: Final = 5.0
# How long a throttled call is tried again; a peer waits 10 s for its registration.
DYNAMODB_RETRY_S: Final = 6.0
DYNAMODB_BACKOFF_FIRST_S: Final = 0.05
DYNAMODB_BACKOFF_MAX_S: Final = 1.0
# By so much later it may remove what has ended: all servers may be down for a while.
DYNAMODB_KEPT_S: Final = 14 * DAY_S
PURGE_INTERVAL_S: Final = 600.0
# By so much a room's life may be shortened when the server is killed.
AWAKE_INTERVAL_S: Final = 30.0
CLOCK_CHECK_S: Final = 5.0

# -- several instances --------------------------------------------------------
# An instance that says nothing for so long is gone.
INSTANCE_LEASE_S: Final = 15.0
INSTANCE_BEAT_S: Final = 3.0
# How often what an instance holds is written again, and how long without that it is
# taken for there while its instance is not.
OWNER_RENEW_S: Final = 60.0
OWNERS_AT_ONCE: Final = 200
BUS_TIMEOUT_S: Final = 2.0
# How long a message that went to another instance may be without an answer.
BUS_REPLY_TIMEOUT_S: Final = 3.0
BUS_RETRY_S: Final = 0.5
# How often those who wait for a peer are looked after, should its return be missed.
HELD_CHECK_S: Final = 0.5
MAX_PENDING_FORWARDS: Final = 4_096
MAX_UNSAID_EVENTS: Final = 1_000
# What is said to all instances stays readable for one that was cut off meanwhile.
MAX_EVENTS_KEPT: Final = 10_000
EVENTS_AT_ONCE: Final = 100
EVENTS_WAIT_S: Final = 5.0
# A load balancer that asks `/ready` every two seconds has seen it by then.
DRAIN_S: Final = 5.0
MAX_DRAIN_S: Final = 600.0
# The peers of an instance that stops do not come to the others all at once.
DRAIN_SPREAD_S: Final = 2.0
MAX_BUS_MESSAGE_BYTES: Final = 128 * KIB

# -- members, invitations, credentials ------------------------------------------
MAX_INVITATIONS_PER_ROOM: Final = 50
MAX_CREDENTIALS_PER_ROOM: Final = 100
MAX_ROOMS_LISTED: Final = 200
INVITATION_SECRET_BYTES: Final = 16
INVITATION_LIFETIME_S: Final = 7 * DAY_S
MAX_INVITATION_LIFETIME_S: Final = 30 * DAY_S
MAX_CREDENTIAL_LIFETIME_S: Final = 366 * DAY_S
# The room of an account with a name, after somebody used it last.
NAMED_ROOM_LIFETIME_S: Final = 90 * DAY_S

# -- tokens -------------------------------------------------------------------
ROOM_TOKEN_LIFETIME_S: Final = 30 * 24 * 3600.0
MAX_SIGNING_KEYS: Final = 32
# How long a new key waits until it signs, so that every server has read it by then.
KEY_SETTLE_S: Final = 60.0

# -- signing in -----------------------------------------------------------------
PROVIDER_TIMEOUT_S: Final = 8.0
MAX_PROVIDER_ANSWER_BYTES: Final = 256 * KIB
MAX_PROVIDERS: Final = 8
MAX_ALLOWED: Final = 200
MAX_DEVICE_CODE_CHARS: Final = 2 * KIB
MAX_FLOW_LIFETIME_S: Final = 1800.0
DEFAULT_FLOW_INTERVAL_S: Final = 5.0
MAX_FLOW_INTERVAL_S: Final = 60.0
# By so much each `slow_down` makes the pause longer (RFC 8628 section 3.5).
FLOW_SLOWER_S: Final = 5.0
SIGN_IN_TOKEN_S: Final = 3600.0
REFRESH_LIFETIME_S: Final = 30 * 24 * 3600.0
# After so long a person signs in at the provider again, however often they refresh.
SIGN_IN_LIFETIME_S: Final = 90 * 24 * 3600.0
# -- a provider's keys
# Some providers list every group of a person in an ID token.
MAX_PROVIDER_TOKEN_CHARS: Final = 32 * KIB
MAX_JWKS_KEYS: Final = 32
MAX_KEY_ID_CHARS: Final = 256
MIN_RSA_BITS: Final = 2_048
MAX_RSA_BITS: Final = 8_192
JWKS_FRESH_S: Final = 3600.0
JWKS_REFETCH_S: Final = 60.0
JWKS_RETRY_S: Final = 10.0
# How long the last known keys go on while the provider does not answer.
JWKS_STALE_S: Final = 24 * 3600.0
CLOCK_SKEW_S: Final = 60.0
# -- Cognito
COGNITO_THREADS: Final = 4
MAX_COGNITO_CALLS: Final = 64
COGNITO_CALL_S: Final = 5.0
COGNITO_TIMEOUT_S: Final = 20.0
# No access token of Cognito's is good for longer.
COGNITO_TOKEN_S: Final = 24 * 3600.0
COGNITO_USER_LIFETIME_S: Final = 30 * 24 * 3600.0
COGNITO_DELETED_AT_ONCE: Final = 100

# -- pairing ------------------------------------------------------------------
MAX_PAIRINGS_PER_ROOM: Final = 3
MAX_PAIRING_TRIES: Final = 12
SHORT_PAIRING_NUMBERS: Final = 99

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
BYTES_PER_MBIT: Final = 125_000

# -- TURN ---------------------------------------------------------------------
TURN_LIFETIME_S: Final = 12 * 3600.0
# Whoever has credentials can try secrets against them in peace.
MIN_TURN_SECRET_CHARS: Final = 16
MAX_SECRET_FILE_BYTES: Final = 1 * KIB
MAX_TURN_SERVERS: Final = 8
MAX_TURN_URLS: Final = 8
TURN_NAME_CHARS: Final = 16

# How soon a running server takes up a key that was made beside it; a good deal less
# than KEY_SETTLE_S, after which the others sign with it.
KEYS_CHECK_S: Final = 15.0

# -- rates --------------------------------------------------------------------
SIGN_IN_RATE: Final = Rate(burst=60, per_s=1.0)
DEVICE_FLOW_RATE: Final = Rate(burst=20, per_s=0.2)
ALL_DEVICE_FLOWS_RATE: Final = Rate(burst=100, per_s=2.0)
DEVICE_POLL_RATE: Final = Rate(burst=60, per_s=2.0)
REFRESH_RATE: Final = Rate(burst=60, per_s=1.0)
REST_RATE: Final = Rate(burst=300, per_s=20.0)
CONNECT_RATE: Final = Rate(burst=200, per_s=10.0)
PEER_MESSAGE_RATE: Final = Rate(burst=400, per_s=100.0)
ADDRESS_MESSAGE_RATE: Final = Rate(burst=8_000, per_s=2_000.0)
REFUSAL_RATE: Final = Rate(burst=100, per_s=1.0)
# A number that is claimed is spent, so a claim a minute would already be a nuisance.
CLAIM_RATE: Final = Rate(burst=5, per_s=0.05)
ALL_CLAIMS_RATE: Final = Rate(burst=60, per_s=1.0)
# A person changes a room by hand; a lab invites its people in one go.
ROOM_CHANGE_RATE: Final = Rate(burst=120, per_s=2.0)
# The secret of an invitation cannot be guessed; this keeps the store from being asked.
ACCEPT_RATE: Final = Rate(burst=30, per_s=0.5)
MAX_RATE_KEYS: Final = 20_000

# -- the dashboard --------------------------------------------------------------
PAGE_RATE: Final = Rate(burst=300, per_s=20.0)
MAX_FORM_FIELDS: Final = 16
LOGIN_LIFETIME_S: Final = 7 * 24 * 3600.0
# A token is renewed this long before it ends, and whoever else wants it waits so long.
LOGIN_RENEW_BEFORE_S: Final = 60.0
LOGIN_RENEW_DEADLINE_S: Final = 10.0
LOGIN_RENEW_POLL_S: Final = 0.1
MAX_LIVE_STREAMS: Final = 512
MAX_LIVE_STREAMS_PER_LOGIN: Final = 8
LIVE_INTERVAL_S: Final = 1.0
# What was taken back ends a stream after this time at the latest.
LIVE_ACCESS_CHECK_S: Final = 5.0
LIVE_COMMENT_S: Final = 15.0
LIVE_SEND_DEADLINE_S: Final = 20.0
MODELS_PER_PAGE: Final = 50
# A list of models may be so old; each look asks the store.
MODELS_FRESH_S: Final = 5.0
MAX_REGISTRIES_HELD: Final = 64
MAX_JOBS_READ_PER_WORKER: Final = 16
MAX_JOBS_SHOWN: Final = 60
MAX_ENDED_JOBS_SHOWN: Final = 20
MAX_CURVE_POINTS_SHOWN: Final = 64
