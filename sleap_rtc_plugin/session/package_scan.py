"""From an opened package to the manifest of what is sent.

Remembers in the user's cache folder how large files were cut before. Blocking calls,
made in threads by `submission` and by the companion.
"""

from collections.abc import Callable

import platformdirs

from sleap_rtc_plugin.session.training_package import TrainingPackage
from sleap_rtc_plugin.transport.file_source import FileSource
from sleap_rtc_plugin.transport.plan_cache import PlanCache

__all__ = ["scan_package"]


def scan_package(
    package: TrainingPackage,
    on_progress: Callable[[int, int], None],
    *,
    is_anew: bool = False,
) -> FileSource:
    """Read what was not read before, and make the manifest.

    Args:
        package: opened a moment ago.
        on_progress: told the bytes known so far and in all.
        is_anew: trust nothing that was read before: a file changed while it was sent.

    Raises:
        StorageFailed: a file cannot be read.
    """
    done_bytes = 0

    def on_read(size_bytes: int) -> None:
        nonlocal done_bytes
        done_bytes += size_bytes
        on_progress(done_bytes, package.total_bytes)

    plans = platformdirs.user_cache_path("sleap-remote") / "plans"
    return FileSource.scan(
        package.root,
        package.members,
        on_read,
        cache=None if is_anew else PlanCache(plans),
        archive=package.archive,
    )
