"""Every bound of the doctor, by name. Units are in the names."""

from typing import Final

from sleap_rtc_plugin.protocol.limits import GIB, KIB, MIB

# -- how long the checks may take ----------------------------------------------
# The whole, on a slow machine; what is not done by then is said not to be.
OVERALL_S: Final = 29.0
LOCAL_CHECK_S: Final = 10.0
# SLEAP's GUI takes seconds to import, in a process of its own.
SLEAP_CHECK_S: Final = 25.0
SERVER_STEP_S: Final = 5.0
ROOM_S: Final = 8.0
WORKER_ANSWER_S: Final = 8.0
# Longer than the ladder itself takes, which says best why it failed.
LINK_S: Final = 17.0
STUN_S: Final = 3.0
TURN_S: Final = 6.0
KEYRING_S: Final = 6.0
SHARED_STORAGE_S: Final = 6.0
# Of the 5 s of a test of the link, half for each direction.
THROUGHPUT_S: Final = 2.5
# What ending takes after the last answer.
CLOSING_S: Final = 3.0

# -- what is asked of STUN -----------------------------------------------------
MAX_ICE_URLS: Final = 16

# -- when to speak up ----------------------------------------------------------
CLOCK_WARNING_S: Final = 60.0
CLOCK_FAILED_S: Final = 300.0
CERTIFICATE_WARNING_DAYS: Final = 14
DISK_FAILED_BYTES: Final = 200 * MIB
DISK_WARNING_BYTES: Final = 5 * GIB
# A package of a usual size, which a worker should have room for.
USUAL_PACKAGE_BYTES: Final = 1 * GIB
SLOW_LINK_BYTES_PER_S: Final = 250_000
RECENT_ERROR_S: Final = 24 * 3600.0

# -- what is read --------------------------------------------------------------
MAX_ANSWER_BYTES: Final = 64 * KIB
MAX_CHILD_OUTPUT_BYTES: Final = 64 * KIB
MAX_SETTINGS_BYTES: Final = 1 * MIB
MAX_FOUND_CHARS: Final = 400
