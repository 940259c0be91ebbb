"""A training package of any size for measuring: the demo's, with ballast.

The ballast is a data set of random bytes inside the labels, where a real package has
its frames, so that every part of the way treats it as it treats a real one.
"""

import zipfile
from pathlib import Path

from sleap_rtc_plugin.protocol.limits import MIB

__all__ = ["make_package"]

_BLOCK = 8 * MIB


def make_package(folder: Path, size_bytes: int) -> Path:
    """Make a package of about `size_bytes` in `folder`; return the zip."""
    import h5py
    import numpy as np

    from sleap_rtc_plugin.session.demo_project import make_demo_package

    small = make_demo_package(folder)
    labels = folder / "demo.pkg.slp"
    random = np.random.default_rng(0)
    with h5py.File(labels, "a") as file:
        ballast = file.create_dataset("ballast", (size_bytes,), dtype="int8")
        for begin in range(0, size_bytes, _BLOCK):
            end = min(begin + _BLOCK, size_bytes)
            ballast[begin:end] = random.integers(-128, 128, end - begin, "int8")
    package = folder / "bench.training_job.zip"
    with (
        zipfile.ZipFile(small) as source,
        zipfile.ZipFile(package, "w", zipfile.ZIP_STORED) as target,
    ):
        for name in source.namelist():
            if name == labels.name:
                target.write(labels, name)
            else:
                target.writestr(name, source.read(name))
    return package
