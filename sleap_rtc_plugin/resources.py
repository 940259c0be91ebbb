"""Finds the files that come with the program.

In a wheel they lie inside the package (`_resources`), in a checkout or an editable
install beside it (`resources`). Called by whatever needs one of them.
"""

from pathlib import Path
from typing import Final

__all__ = ["resource"]

_PACKAGE: Final = Path(__file__).resolve().parent
_PLACES: Final = (_PACKAGE / "_resources", _PACKAGE.parent / "resources")


def resource(name: str) -> Path:
    """Return the path of the resource `name`, such as `demo/centroid.yaml`.

    Raises:
        FileNotFoundError: the installation lacks it.
    """
    for place in _PLACES:
        path = place / name
        if path.exists():
            return path
    raise FileNotFoundError(
        f"The resource {name} is missing from this installation of sleap-rtc-plugin; "
        "reinstall it."
    )
