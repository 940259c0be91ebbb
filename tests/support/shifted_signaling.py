"""`sleap-remote signaling` with a clock that is wrong by E2E_CLOCK_S seconds."""

import os
import time

_real = time.time
_ahead_s = float(os.environ["E2E_CLOCK_S"])
time.time = lambda: _real() + _ahead_s

if __name__ == "__main__":
    from sleap_rtc_plugin.cli.main import main

    main()
