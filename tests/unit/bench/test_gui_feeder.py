"""The training that `bench gui` shows is one that a viewer understands."""

import math

from sleap_rtc_plugin.bench.gui_feeder import BATCHES_PER_EPOCH, training_events
from sleap_rtc_plugin.protocol.ids import new_job_id
from sleap_rtc_plugin.session.monitor_messages import to_message


def test_a_training_in_order() -> None:
    job_id, last = new_job_id(), BATCHES_PER_EPOCH - 1
    said = {
        batch: [event.kind for event in training_events(job_id, batch)]
        for batch in (0, 1, last, last + 1)
    }
    assert said == {
        0: ["train_begin", "epoch_begin", "batch_end"],
        1: ["batch_end"],
        last: ["batch_end", "epoch_end"],
        last + 1: ["epoch_begin", "batch_end"],
    }


def test_every_event_is_for_the_viewer() -> None:
    job_id = new_job_id()
    for batch in range(3 * BATCHES_PER_EPOCH):
        for event in training_events(job_id, batch):
            message = to_message(event)
            assert message is not None
            assert all(math.isfinite(loss) for loss in message.losses.values())
            if event.kind == "batch_end":
                assert (message.epoch, message.batch) == divmod(
                    batch, BATCHES_PER_EPOCH
                )
                assert message.losses["loss"] > 0
