"""What makes two models the same: their configurations, weights and heads.

Pure, but for the digest that it computes. Called where a model is read from a folder,
and where one comes out of a store whose list somebody may have edited.
"""

from collections.abc import Sequence
from typing import Final

import blake3

from sleap_rtc_plugin.protocol.model_records import (
    CHECKPOINT,
    MODEL_CONFIG,
    ModelFile,
    ModelPart,
)

__all__ = ["model_id_of"]

_ID_DIGITS: Final = 20


def model_id_of(parts: Sequence[ModelPart], files: Sequence[ModelFile]) -> str:
    """Return the id of a model: publishing the same one twice gives the same id.

    BLAKE3 over one line a part, in the order in which they are used: its head, the
    digest of its configuration and the digest of its weights. The names of folders
    and the other files have no part in it.

    Args:
        parts: its networks.
        files: among them the configuration and weights of each part.
    """
    digests = {file.path: file.digest for file in files}
    lines = [
        f"{part.head} {digests[f'{part.folder}/{MODEL_CONFIG}']} "
        f"{digests[f'{part.folder}/{CHECKPOINT}']}\n"
        for part in parts
    ]
    digest = blake3.blake3("".join(lines).encode()).hexdigest()
    return f"model-{digest[:_ID_DIGITS]}"
