"""`sleap-remote worker` whose published models are folders, for tests of live frames.

Started as `live_worker.py ALIAS=FOLDER[+FOLDER] BEHAVIOUR worker OPTIONS`: with the
behaviour `real` sleap-nn itself predicts, else a scripted runner does. With `published`
in place of the alias, models are those of the worker's own store.
"""

import sys
from pathlib import Path
from typing import Any

from support.live_worlds import FolderModels, runner

import sleap_rtc_worker.client
from sleap_rtc_plugin.cli.main import main
from sleap_rtc_worker.live_process import RUNNER
from sleap_rtc_worker.live_service import LiveSessions

if __name__ == "__main__":
    alias, _, folders = sys.argv[1].partition("=")
    models = FolderModels({alias: [Path(folder) for folder in folders.split("+")]})
    words = RUNNER if sys.argv[2] == "real" else runner(*sys.argv[2].split(","))

    def build(**options: Any) -> LiveSessions:
        made_up = {} if alias == "published" else {"models": models}
        return LiveSessions(**{**options, **made_up, "runner": words})

    sleap_rtc_worker.client.LiveSessions = build  # type: ignore[misc,assignment]
    sys.argv = ["sleap-remote", *sys.argv[3:]]
    main()
