"""A live session's runner without sleap-nn: `scripted_live_runner.py BEHAVIOUR...`.

Behaviours: `delay=S` takes so long for each frame, `dies=N` is killed at frame N,
`refuses` cannot load the model, `checks` looks whether it is one. Each frame has one
instance, whose first node tells the brightness of the frame's first pixel.
"""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from sleap_rtc_plugin.protocol.live_messages import LiveInstance
from sleap_rtc_worker.live_records import Loaded, LoadModel
from sleap_rtc_worker.live_runner import main

BEHAVIOUR = dict(word.partition("=")[::2] for word in sys.argv[1:])


class Predictor:
    def __init__(self, order: LoadModel) -> None:
        if "refuses" in BEHAVIOUR:
            raise RuntimeError("it does not like this model")
        if "checks" in BEHAVIOUR:
            for folder in order.folders:
                assert Path(folder, "best.ckpt").is_file()
                assert Path(folder, "training_config.yaml").is_file()
        self.loaded = Loaded(nodes=["head", "tail"], edges=[(0, 1)], device="cpu")
        self.left = int(BEHAVIOUR.get("dies", -1))

    def predict(self, image: Any) -> list[LiveInstance]:
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1
        # What a slow model does: nothing waits for it to be over.
        time.sleep(float(BEHAVIOUR.get("delay", 0)))
        brightness = float(image[0, 0, 0])
        return [LiveInstance(0.5, "", [(brightness, 1.0, 0.75), (None, None, 0.0)])]


if __name__ == "__main__":
    sys.exit(main(Predictor))
