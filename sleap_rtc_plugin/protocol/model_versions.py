"""Which sleap-nn can load a model that another sleap-nn trained.

Pure, and only as good as a version number: what it lets through, sleap-nn itself still
looks at. Called by the worker, and by a client that chooses one.
"""

import re
from typing import Final

__all__ = ["can_load"]

_VERSION: Final = re.compile(r"v?(\d{1,6})\.(\d{1,6})(?:\D|\Z)")


def can_load(model_version: str, worker_version: str) -> bool:
    """Tell whether a model loads where this sleap-nn is installed.

    It does where it was trained with the same major and minor version or an older one.
    A version that is not known is no reason to refuse.

    Args:
        model_version: of the sleap-nn that trained the model, or nothing.
        worker_version: of the one that shall load it, or nothing.
    """
    trained, installed = _parse(model_version), _parse(worker_version)
    return trained is None or installed is None or trained <= installed


def _parse(version: str) -> tuple[int, int] | None:
    found = _VERSION.match(version)
    return (int(found[1]), int(found[2])) if found else None
