"""What a room hears of a model that somebody published.

Pure, and wary: anyone in the room may say so. `RemoteSession` reads it, `Lab` hands
it on; whoever shows it asks the registry, since this only says that there is
something to ask for.
"""

from dataclasses import dataclass

from sleap_rtc_plugin.protocol.model_records import alias_fault, is_model_id
from sleap_rtc_plugin.protocol.signaling_messages import JobComplete

__all__ = ["ModelNews", "read_news"]


@dataclass(frozen=True)
class ModelNews:
    """That a model was published.

    Attributes:
        worker_id: the peer that says so.
        job_id: the job that trained it.
        model: its id.
        alias: its alias, or empty.
    """

    worker_id: str
    job_id: str
    model: str
    alias: str


def read_news(sender: str, message: JobComplete) -> ModelNews | None:
    """Read an announcement; None where it is of no model."""
    if not is_model_id(message.model):
        return None
    alias = message.alias if alias_fault(message.alias) is None else ""
    return ModelNews(
        worker_id=sender, job_id=message.job_id, model=message.model, alias=alias
    )
