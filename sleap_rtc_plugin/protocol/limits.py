"""Every bound of the protocol, by name.

A peer that goes past one of these is refused; none of them is a tuning knob.
Units are in the names: bytes, seconds, or a plain count.
"""

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

# -- versions -----------------------------------------------------------------
PROTOCOL_VERSION_MIN = 1
PROTOCOL_VERSION_MAX = 1
SESSION_STRING_VERSION = 1
INVITATION_CODE_VERSION = 1

# -- identifiers and names ----------------------------------------------------
MAX_ID_LENGTH = 64
MAX_DISPLAY_NAME_LENGTH = 120
SECRET_BYTES = 32
NONCE_BYTES = 32
MAX_SESSION_STRING_CHARS = 8 * KIB
MAX_TOKEN_CHARS = 4 * KIB
MAX_URL_CHARS = 2 * KIB

# -- signaling ----------------------------------------------------------------
MAX_SIGNALING_MESSAGE_BYTES = 64 * KIB
MAX_SDP_CHARS = 32 * KIB
MAX_CANDIDATE_CHARS = 1 * KIB
MAX_PEER_MESSAGE_BYTES = 16 * KIB
MAX_METADATA_BYTES = 8 * KIB
MAX_METADATA_KEYS = 64
MAX_METADATA_DEPTH = 4
MAX_TAGS = 32
MAX_TAG_LENGTH = 64
MAX_FILTER_TERMS = 32
MAX_PEERS_PER_ROOM = 200
MAX_ROOMS_PER_ACCOUNT = 20
MAX_PEERS_LISTED = 200
ROOM_LIFETIME_S = 2 * 3600.0
ACCOUNT_TOKEN_LIFETIME_S = 24 * 3600.0
REGISTER_DEADLINE_S = 10.0
PEER_ID_RESERVED_S = 600.0
SIGNALING_REPLY_TIMEOUT_S = 10.0
SIGNALING_PING_INTERVAL_S = 20.0
SIGNALING_CONNECT_TIMEOUT_S = 10.0
SIGNALING_BACKOFF_FIRST_S = 0.5
SIGNALING_BACKOFF_MAX_S = 30.0
MAX_PENDING_SIGNALING_COMMANDS = 64
MAX_SIGNALING_SEND_QUEUE = 256
MAX_ICE_SERVERS = 32

# -- accounts, members, pairing --------------------------------------------------
MAX_NAME_CHARS = 120
MAX_MEMBERS_PER_ROOM = 200
MAX_INVITATION_CHARS = 512
MAX_REST_ANSWER_BYTES = 1 * MIB
MAX_PAIRING_MESSAGE_BYTES = 16 * KIB
PAIRING_LIFETIME_S = 300.0
MAX_PAIRING_NUMBER = 9_999
MAX_PAIRING_CODE_CHARS = 200
# How often each side asks the server how far the other is.
PAIRING_POLL_S = 1.0
# How long one side waits for a message that the other's program sends by itself.
PAIRING_ANSWER_S = 20.0
# After so many wrong guesses in a row, a worker shows no new code by itself.
MAX_PAIRING_CODES = 3

# -- the relay of last resort ---------------------------------------------------
RELAY_JOIN_TIMEOUT_S = 10.0
MAX_RELAY_JOIN_BYTES = 1 * KIB
# A fragment of the transfer channel with what a cipher and its frame add.
MAX_RELAY_FRAME_BYTES = 64 * KIB + 64
RELAY_PIECE_BYTES = 16 * KIB
# What is on its way at once: at 8 Mbit/s a control message waits 0.25 s behind it.
RELAY_WINDOW_BYTES = 256 * KIB
RELAY_ACK_BYTES = 32 * KIB
MAX_RELAYS_PER_WORKER = 8

# -- the link between two peers -----------------------------------------------
CONTROL_CHANNEL = "control"
TRANSFER_CHANNEL = "transfer"
MAX_CONTROL_FRAME_BYTES = 128 * KIB
MAX_FRAME_NAME_LENGTH = 32
LINK_CONNECT_TIMEOUT_S = 20.0
HANDSHAKE_TIMEOUT_S = 10.0
KEEP_ALIVE_INTERVAL_S = 5.0
KEEP_ALIVE_TIMEOUT_S = 20.0
COMMAND_REPLY_TIMEOUT_S = 15.0
MAX_LINKS_PER_WORKER = 64
MAX_FEATURES = 32
CONTROL_BUFFER_HIGH_BYTES = 256 * KIB
CONTROL_BUFFER_MAX_BYTES = 8 * MIB
CLOSE_DRAIN_TIMEOUT_S = 1.0
MAX_EARLY_FRAMES = 64

# -- trying again -------------------------------------------------------------
RETRY_FIRST_S = 0.5
RETRY_MAX_S = 15.0
# A link that held so long ends the outage before it.
STEADY_LINK_S = 10.0
# How long a command stays without its worker before it says how to come back.
RECONNECT_BUDGET_S = 90.0
# -- the ways to a worker -----------------------------------------------------
# All ways together; each begins a while after the one before it.
LADDER_TIMEOUT_S = 15.0
RUNG_TIMEOUT_S = 9.0
TURN_AFTER_DIRECT_S = 1.5
TURN_AFTER_TURN_S = 1.0
RELAY_AFTER_OTHERS_S = 1.5
# How long a better way may still take after a worse one has come about.
BETTER_WAY_GRACE_S = 0.5
# A STUN server that does not answer must not hold up two machines in one room.
GATHER_TIMEOUT_S = 2.0
TURN_GATHER_TIMEOUT_S = 4.0
TURN_PROBE_TIMEOUT_S = 3.0
# A relay port that the TURN server picks may be taken; it picks another the next time.
MAX_ALLOCATION_TRIES = 3
# What is known of the TURN servers is looked at anew after this.
TURN_CHOICE_LIFETIME_S = 300.0
TURN_FAILURE_LIFETIME_S = 10.0
MAX_ICE_URLS = 32
# Credentials are fetched anew this long before they expire, and at least so often.
ICE_REFRESH_MARGIN_S = 120.0
ICE_MAX_AGE_S = 600.0
MAX_PENDING_OFFERS = 32
MAX_PENDING_OFFERS_PER_PEER = 8

# -- transfers ----------------------------------------------------------------
CHUNK_BYTES = 1 * MIB
MAX_CHUNK_BYTES = 4 * MIB
# What the 32 bits of a chunk's size can say; a hole is neither held nor sent.
MAX_HOLE_BYTES = 2**32 - 1
FRAGMENT_BYTES = 60 * KIB
MAX_TRANSFER_FRAME_BYTES = 64 * KIB
# What travels whole with others of its kind, and how many in one frame.
MAX_PACKED_CHUNK_BYTES = 8 * KIB
MAX_PACKED_CHUNKS = 512
MAX_MANIFEST_BYTES = 32 * MIB
MAX_PACKAGE_BYTES = 256 * GIB
MAX_PACKAGE_FILES = 10_000
MAX_PATH_CHARS = 240
MAX_PATH_COMPONENT_BYTES = 200
MAX_PATH_DEPTH = 12
REQUEST_WINDOW_BYTES = 8 * MIB
# Also the most ranges that one request names, each of one chunk at least.
REQUEST_WINDOW_CHUNKS = 2_000
# What waits in the transfer channel delays a control message by as much time.
SEND_QUEUE_TIME_S = 0.05
SEND_RATE_MEMORY_S = 0.25
SEND_BUFFER_FLOOR_BYTES = 32 * KIB
SEND_BUFFER_HIGH_BYTES = 1 * MIB
MAX_NEED_RANGES = 2_000
MAX_NEED_CHUNKS = 16_000
MAX_REPAIRS_PER_CHUNK = 3
MAX_REPAIRS_PER_FILE = 1
MAX_TRANSFERS_PER_LINK = 8
TRANSFER_STALL_TIMEOUT_S = 60.0
FREE_SPACE_FACTOR = 1.2

# -- shared storage -----------------------------------------------------------
PROBE_BYTES = 32
# Shorter than a command's reply may take: a worker still says that its mount hangs.
MOUNT_TIMEOUT_S = 10.0
MAX_STUCK_CALLS = 4
SHARED_RESULTS_TIMEOUT_S = 600.0
SHARED_LEFT_OVER_AFTER_S = 7 * 24 * 3600.0

# -- a worker's mounts --------------------------------------------------------
MAX_MOUNTS = 32
MAX_MOUNT_NAME_CHARS = 64
MAX_MOUNT_PATH_CHARS = 1_024
MAX_MOUNT_PATH_DEPTH = 64
MAX_MOUNT_ENTRY_CHARS = 255
MAX_MOUNT_ENTRIES_PER_PAGE = 400
MAX_MOUNT_PAGE_BYTES = 64 * KIB
MAX_MOUNT_FOLDER_ENTRIES = 20_000
# As many as fit into one frame, whatever their paths hold.
MAX_WANTED_FILES = 8
# A path as a client's own system writes it.
MAX_CLIENT_PATH_CHARS = 1_024
# What is compared of a file before it is taken for another: at three places of it.
SAMPLE_BYTES = 256 * KIB
MOUNT_SEARCH_S = 3.0
MAX_MOUNT_ENTRIES_SEARCHED = 100_000
MAX_MOUNT_CANDIDATES = 16
# Shorter than a command's reply may take, one call that hangs included.
MOUNT_RESOLVE_S = 8.0
MOUNT_CALL_TIMEOUT_S = 5.0
MAX_MOUNT_COMMANDS_WAITING = 32

# -- tests of a link ----------------------------------------------------------
LINK_TEST_S = 5.0
# How long after its end a test may still be reported.
LINK_TEST_GRACE_S = 5.0
MAX_LINK_TEST_BYTES = 1 * GIB
# A stream that no transfer has: those count from 1.
LINK_TEST_STREAM = 2**32 - 1

# -- packages -----------------------------------------------------------------
MAX_ZIP_MEMBERS = 10_000
MAX_COMPRESSION_RATIO = 200
COMPRESSION_RATIO_FREE_BYTES = 64 * MIB
MAX_CONFIG_BYTES = 1 * MIB
MAX_CONFIG_DEPTH = 32
MAX_CONFIG_NODES = 10_000
MAX_STEPS = 32
MAX_STEP_OPTIONS = 128
MAX_OPTION_CHARS = 4 * KIB

# -- jobs ---------------------------------------------------------------------
MAX_JOBS_QUEUED = 100
MAX_STARTS_IN_S = 366 * 24 * 3600.0
STAGING_IDLE_TIMEOUT_S = 24 * 3600.0
STOP_GRACE_S = 120.0
INTERRUPT_GRACE_S = 10.0
TERMINATE_GRACE_S = 10.0
RUNNER_START_TIMEOUT_S = 60.0
MAX_BATCH_EVENTS_PER_S = 20
MAX_LOG_LINE_CHARS = 500
MAX_LOG_LINES_PER_EVENT = 50
MAX_LOG_LINES_PER_S = 200
MAX_LAST_LINES = 20
MAX_LOSSES_PER_EVENT = 16
MAX_LOSSES_PER_STEP = 64
MAX_ERROR_TEXT_CHARS = 2_000
MAX_JOBS_PER_PAGE = 100
MAX_JOB_PAGE_BYTES = 64 * KIB
MAX_JOBS_LISTED = 1_000
MAX_WORKERS_ASKED = 32
MAX_CANDIDATES_NAMED = 8
# The end of the year 9999: the last second that calendars show.
MAX_UNIX_TIME_S = 253_402_300_799.0

# -- models of a room ---------------------------------------------------------
MAX_ALIAS_CHARS = 64
# How often an alias moved is told; older moves are forgotten.
MAX_ALIAS_MOVES = 20
MAX_ALIASES_PER_MODEL = 32
MAX_MODEL_PARTS = 2
MAX_MODEL_FILES = 500
MAX_PULLED_NAMES = 1_000
MAX_MODEL_BYTES = 8 * GIB
MAX_MODEL_HOLDERS = 64
MAX_METRICS_BYTES = 256 * MIB
MAX_LOSS_LOG_BYTES = 64 * MIB
MAX_LOSS_LOG_EPOCHS = 100_000
MAX_SKELETON_NODES = 1_000
MAX_MODEL_NOTES_CHARS = 4_000
MAX_MODEL_TAGS = 32
MAX_MODELS_PER_ROOM = 5_000
MAX_REGISTRY_BYTES = 64 * MIB
MAX_MODELS_PER_PAGE = 50
# What a page of models takes at most in a frame; one model always fits.
MAX_MODEL_PAGE_BYTES = 64 * KIB
# Aliases that point nowhere now, and whose moves are still known.
MAX_FORMER_ALIASES = 1_000
MAX_CURVE_POINTS = 400
# How often a change is tried again where others change the registry at once.
MAX_REGISTRY_RETRIES = 60
REGISTRY_RETRY_FIRST_S = 0.02
REGISTRY_RETRY_MAX_S = 2.0
REGISTRY_TIMEOUT_S = 30.0
REGISTRY_REFRESH_S = 300.0
# A worker asks its store before it answers, and may have to try again.
MODEL_REPLY_TIMEOUT_S = 90.0
# Meanwhile it moves the files of a model to its store, or from there.
MODEL_FILES_TIMEOUT_S = 3600.0
# Files that no model refers to are removed this long after they were written.
MODEL_GARBAGE_AGE_S = 24 * 3600.0
MODEL_CACHE_LIMIT_BYTES = 20 * GIB
# A store gets and gives files in pieces, each within a time of its own.
STORE_PIECE_BYTES = 8 * MIB
STORE_PIECE_TIMEOUT_S = 120.0
MAX_STORE_ENTRIES = 1_000_000
STORE_CONNECT_TIMEOUT_S = 10.0
# How long one program may keep a folder of models from the others.
STORE_LOCK_TIMEOUT_S = 20.0
# How often files that vanished while they were published are written again.
MAX_PUBLISH_REPAIRS = 3

# -- live frames --------------------------------------------------------------
LIVE_CHANNEL = "live"
MAX_LIVE_MESSAGE_BYTES = 64 * KIB
MAX_LIVE_FRAME_BYTES = 16 * MIB
MAX_LIVE_SIDE_PIXELS = 8_192
MAX_LIVE_INSTANCES = 200
MAX_LIVE_NODES = 1_000
MAX_LIVE_SESSIONS = 2
# What waits to be sent delays the next frame, by 30 ms at 8 Mbit/s; a frame that is
# not sent for that long is replaced by a newer one.
LIVE_SEND_BUFFER_BYTES = 32 * KIB
LIVE_START_TIMEOUT_S = 120.0
LIVE_IDLE_TIMEOUT_S = 60.0

# -- a training's validation images ----------------------------------------------
MAX_IMAGES_PER_FETCH = 100
MAX_IMAGE_BYTES = 4 * MIB
MAX_IMAGES_TOTAL_BYTES = 64 * MIB
MAX_IMAGE_SIDE_PIXELS = 8_192
MAX_IMAGE_PIXELS = 32 * 1024 * 1024
