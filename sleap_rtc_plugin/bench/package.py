"""A training package of any size for measuring: the demo's, with ballast.

The ballast is a data set of random bytes inside the labels, where a real package has
its frames, so that every part of the way treats it as it treats a real one.
"""

import os
import zipfile
from pathlib import Path

from sleap_rtc_plugin.protocol.limits import MIB

__all__ = ["make_package"]

_BLOCK = 8 * MIB


def make_package(folder: Path, size_bytes: int) -> Path:
    """Make a package of about `size_bytes` in `folder`; return it, a folder as well."""
    import h5py
    import numpy as np

    from sleap_rtc_plugin.session.demo_project import make_demo_package

    small = make_demo_package(folder)
    package = folder / "bench.training_job"
    with zipfile.ZipFile(small) as archive:
        archive.extractall(package)
    with h5py.File(package / "demo.pkg.slp", "a") as file:
        ballast = file.create_dataset("ballast", (size_bytes,), dtype="int8")
        for begin in range(0, size_bytes, _BLOCK):
            noise = os.urandom(min(_BLOCK, size_bytes - begin))
            ballast[begin : begin + len(noise)] = np.frombuffer(noise, "int8")
    return package
