"""Every bound of the worker's engine, by name.

What crosses the wire is bounded in `sleap_rtc_plugin.protocol.limits`; here stand
the bounds of what stays on this machine. Units are in the names.
"""

from sleap_rtc_plugin.protocol.limits import KIB, MIB

# -- the step runner's loop ----------------------------------------------------
RUNNER_POLL_S = 0.05
COMMAND_POLL_S = 0.1
HEARTBEAT_INTERVAL_S = 2.0
STOP_RESEND_INTERVAL_S = 0.25
FINAL_DRAIN_S = 1.0
FINAL_DRAIN_QUIET_S = 0.1
PIPE_CLOSE_GRACE_S = 2.0
MAX_MESSAGES_PER_TURN = 500
MAX_OUTPUT_BLOCKS_PER_TURN = 64
OUTPUT_BLOCK_BYTES = 64 * KIB
MAX_OUTPUT_BLOCKS_QUEUED = 64
ZMQ_RECEIVE_HIGH_WATER = 20_000
KILL_CONFIRM_S = 5.0

# -- what the trainer may say --------------------------------------------------
MAX_TRAINER_MESSAGE_BYTES = 64 * KIB
MAX_COUNT = 2**53 - 1
MAX_LOSS_NAME_CHARS = 60
MAX_PARTIAL_LINE_CHARS = 16 * KIB
LOG_FLUSH_INTERVAL_S = 0.25
MAX_PREDICT_REPORTS_PER_S = 5
MAX_TRAINER_ERROR_CHARS = 500

# -- what is told of a step, however long it runs ------------------------------------
BATCHES_BEFORE_HALF_RATE = 5_000
MAX_BATCH_INTERVAL_S = 4.0
LOG_CHARS_AT_ONCE = 2 * 1024 * KIB
LOG_CHARS_PER_S = 16
LOG_DROPPED_INTERVAL_S = 10.0

# -- files of a step -----------------------------------------------------------
MAX_STEP_ORDER_BYTES = 1024 * KIB
MAX_STEP_STATE_BYTES = 256 * KIB
MAX_EVENT_LINE_BYTES = 128 * KIB
MAX_EVENTS_PER_STEP = 1_000_000
OUTCOME_RESERVE_BYTES = 256 * KIB
OUTCOME_RETRY_S = 1.0
OUTCOME_RETRIES_FOR_S = 3600.0
MAX_EVENTS_READ_BYTES = 1024 * KIB
MAX_SAVED_CONFIG_BYTES = 8 * 1024 * KIB

# -- restarts of a step that was cut off -------------------------------------------
MAX_STEP_RESTARTS = 5
RESTART_PAUSE_FIRST_S = 1.0
RESTART_PAUSE_MAX_S = 30.0
# Where a checkpoint's tensors are described; the tensors themselves are not read.
MAX_CHECKPOINT_INDEX_BYTES = 16 * 1024 * KIB
MAX_TRAINING_LOG_BYTES = 64 * 1024 * KIB
LEFT_OVER_DEADLINE_S = 10.0
LEFT_OVER_POLL_S = 0.05
MAX_ENVIRONMENT_BYTES = 2 * 1024 * KIB

# -- the executor ---------------------------------------------------------------
EVENT_POLL_S = 0.1
CLAIM_GRACE_S = 10.0
MAX_CLAIM_BYTES = 256

# -- the queue, what jobs may take, what is kept of them ---------------------------
JOBS_WATCH_S = 1.0
RAN_NOTE_S = 60.0
PLACES_INTERVAL_S = 1.0
PLACES_REFRESH_S = 15.0
ESTIMATE_TOLERANCE = 0.1
MAX_DURATIONS_KEPT = 200
KEEP_RESULTS_S = 30 * 24 * 3600.0
# What came home may still have to be fetched again: its client can fail, too.
FETCHED_GRACE_S = 3600.0
KEEPING_INTERVAL_S = 60.0
FORGET_AFTER_S = 90 * 24 * 3600.0

# -- signs of life ---------------------------------------------------------------
HEALTH_INTERVAL_S = 10.0
# A loop that a disk or a swapping machine holds up for this long hangs.
HEALTH_STALE_S = 60.0
MAX_HEALTH_BYTES = 4 * KIB

# -- what the room sees of jobs: well below `MAX_METADATA_BYTES`, which holds more -----
MAX_BOARD_JOBS = 8
MAX_BOARD_BYTES = 4 * KIB
BOARD_ENDED_S = 24 * 3600.0
BOARD_INTERVAL_S = 5.0
MAX_TRAIL_POINTS = 24

# -- training configurations ---------------------------------------------------
MAX_DATA_WORKERS = 16
MAX_CONFIG_STRING_CHARS = 10_000
MAX_TEST_FILES = 32

# -- checks and probes -----------------------------------------------------------
CONFIG_CHECK_TIMEOUT_S = 180.0
MAX_CHECK_OUTPUT_BYTES = 64 * KIB
TORCH_PROBE_TIMEOUT_S = 120.0
GPU_MEMORY_POLL_S = 5.0
GPU_MEMORY_STEP_MB = 256
MAX_GPUS = 64

# -- live frames -------------------------------------------------------------------
# What an encoded image has besides its pixels.
LIVE_IMAGE_SLACK_BYTES = 64 * KIB
# Frames of which parts are on their way at once.
MAX_PARTIAL_FRAMES = 4
LIVE_PREDICT_TIMEOUT_S = 60.0
# What the process with the model says of one frame.
MAX_LIVE_ANSWER_BYTES = 16 * 1024 * KIB
MAX_LIVE_REASON_CHARS = 120

# -- models of the room ----------------------------------------------------------
MAX_MODEL_RECORD_BYTES = 4 * MIB
# How old the list of models may be where an alias is looked up, or a model is used.
MODEL_FRESH_S = 5.0
# How long a job's acceptance waits for the store: shorter than its reply may take.
MODEL_ADMISSION_S = 8.0
MODEL_FETCH_TIMEOUT_S = 3600.0
MAX_MODEL_FETCHES = 2
# How long a job that has ended may wait for its models to be published.
MODEL_PUBLISH_TIMEOUT_S = 900.0
MODEL_PUBLISH_TRIES = 4
MODEL_PUBLISH_PAUSE_S = 2.0
MAX_MODEL_QUERIES = 32
MAX_MODEL_COMMANDS_WAITING = 32
MAX_MODEL_PUSHES = 8
# How long a question about models may take: shorter than its reply may.
MODEL_COMMAND_S = 12.0
