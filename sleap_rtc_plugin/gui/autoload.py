"""Makes SLEAP's GUI load the plugin, in whatever way it is started.

`sleap-remote enable` puts one line into site-packages, which every start of Python
runs; it imports nothing, and comes here only when SLEAP's GUI is imported.
`sleap-remote label` calls `install` for one run.
"""

import sys

__all__ = ["PTH_LINE", "PTH_NAME", "install"]

_WATCH = """
class SleapRemoteWatch:
    def find_spec(self, name, path=None, target=None):
        if name == "sleap.gui.app":
            import sys
            sys.meta_path.remove(self)
            try:
                from sleap_rtc_plugin.gui.autoload import install
                return install().find_spec(name)
            except Exception:
                pass
if not any(type(finder).__name__ == "SleapRemoteWatch" for finder in sys.meta_path):
    sys.meta_path.insert(0, SleapRemoteWatch())
"""

# `site` runs lines that start with `import`, twice in an environment whose `lib64` is
# a link to `lib`. Does nothing once the plugin is gone.
PTH_LINE = f"import sys; exec({_WATCH!r})\n"

# Sorted, and so run, after the file of an editable install, which starts with `_`.
PTH_NAME = "sleap_remote.pth"

# SLEAP's only GUI module that `sleap`, `sleap label` and `sleap-label` all import.
_APP = "sleap.gui.app"


class _AppFinder:
    """Lets the other finders find SLEAP's GUI, and follows its loading."""

    def __init__(self) -> None:
        self._is_looking = False

    def find_spec(self, name, path=None, target=None):  # type: ignore[no-untyped-def]
        """Return the spec of SLEAP's GUI with a loader that is followed."""
        if name != _APP or self._is_looking:
            return None
        from importlib.util import find_spec

        self._is_looking = True
        try:
            spec = find_spec(name)
            if spec is not None and spec.loader is not None:
                self._follow(spec.loader)
            return spec
        except Exception as error:
            _complain(error)
            return None
        finally:
            self._is_looking = False

    def _follow(self, loader) -> None:  # type: ignore[no-untyped-def]
        load = loader.exec_module

        def exec_module(module: object) -> None:
            del loader.exec_module
            if self in sys.meta_path:
                sys.meta_path.remove(self)
            load(module)
            _start()

        loader.exec_module = exec_module


def install() -> _AppFinder:
    """Have the plugin started with SLEAP's GUI; to be called before that is loaded."""
    for known in sys.meta_path:
        if isinstance(known, _AppFinder):
            return known
    finder = _AppFinder()
    sys.meta_path.insert(0, finder)
    return finder


def _start() -> None:
    try:
        from sleap_rtc_plugin.gui.startup import hook_into_sleap

        hook_into_sleap()
    except Exception as error:
        _complain(error)


def _complain(error: Exception) -> None:
    """Leave one line; SLEAP goes on without the plugin."""
    import logging

    logging.getLogger(__name__).warning("Remote training is not available: %r", error)
