"""What a program can do beyond the first version, by the names that HELLO carries.

A side may use a feature only on a link where both named it; to an older program its
frames would be a breach of the protocol. Named by `transport.peer`, asked for by
whoever sends such a frame.
"""

from typing import Final

__all__ = [
    "FEATURES",
    "JOB_IMAGES",
    "JOB_LIST",
    "JOB_QUEUE",
    "LARGE_PACKETS",
    "LINK_TEST",
    "LIVE",
    "MODELS",
    "MOUNTS",
    "SHARED_STORAGE",
]

# JOB_LIST and JOB_DESCRIBE are understood.
JOB_LIST: Final = "job-list"
# JOB_FETCH understands `part`.
JOB_IMAGES: Final = "job-images"
# JOB_QUEUE is understood.
JOB_QUEUE: Final = "job-queue"
# The frames about shared storage are understood, whether or not there is any.
SHARED_STORAGE: Final = "shared-storage"
# The frames about a worker's mounts are understood, whether or not it has any.
MOUNTS: Final = "mounts"
# The frames that test a link and shared storage are understood.
LINK_TEST: Final = "link-test"
# The frames about models are understood, and steps that predict with published ones.
MODELS: Final = "models"
# The frames about live frames and their channel are understood.
LIVE: Final = "live"
# DTLS records of more than 1500 bytes are read; named on links that do.
LARGE_PACKETS: Final = "large-packets"

# What every link can do.
FEATURES: Final = frozenset(
    {JOB_LIST, JOB_IMAGES, JOB_QUEUE, SHARED_STORAGE, MOUNTS, LINK_TEST, MODELS}
)
