"""Makes SLEAP's GUI load the plugin, in whatever way it is started.

`sleap-remote enable` puts a line into site-packages that calls `install` at each start
of Python, so this module imports nothing that is not loaded anyway. `sleap-remote
label` calls it for one run.
"""

import sys

__all__ = ["PTH_LINE", "PTH_NAME", "install"]

# Lines that start with `import` are run by `site`. It survives an uninstalled plugin.
PTH_LINE = (
    "import sys; exec('try:\\n from sleap_rtc_plugin.gui.autoload import install\\n "
    "install()\\nexcept Exception: pass')\n"
)

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


def install() -> None:
    """Have the plugin started once SLEAP's GUI is loaded; again does nothing."""
    if _APP in sys.modules:
        _start()
    elif not any(isinstance(finder, _AppFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AppFinder())


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
