"""Which PySide6 and which Python crash together.

Pure. Asked by SLEAP's side before it starts its loop, and by the doctor.
"""

from typing import Final

__all__ = ["bad_pair"]

_BAD_PYSIDE: Final = "6.12.0"
_SAFE_PYTHON: Final = (3, 12)


def bad_pair(pyside_version: str, python: tuple[int, ...]) -> str | None:
    """Say what to install where PySide6 and Python would crash together, else None.

    PySide6 6.12.0 loses a reference to None with each timer that is killed. From
    Python 3.12 on None is immortal; before, some thousand callbacks abort the process.
    """
    if pyside_version == _BAD_PYSIDE and python[:2] < _SAFE_PYTHON:
        return (
            "PySide6 6.12.0 crashes on Python 3.11 when remote training runs; install "
            "another one with: python -m pip install 'pyside6!=6.12.0'"
        )
    return None
