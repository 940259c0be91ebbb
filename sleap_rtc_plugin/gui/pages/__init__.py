"""The parts of the remote training dialog: passive views of one snapshot each.

A page draws a `Snapshot` in `render` and says with signals what the user wants; it
decides nothing and keeps nothing. Put together by `gui.dialog`.
"""

from sleap_rtc_plugin.gui.pages.lab_page import LabPage
from sleap_rtc_plugin.gui.pages.run_page import RunPage
from sleap_rtc_plugin.gui.pages.workers_page import WorkersPage

__all__ = ["LabPage", "RunPage", "WorkersPage"]
