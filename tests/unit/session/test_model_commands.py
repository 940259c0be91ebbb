"""What a worker says of models is believed as far as it can be true, and no further."""

from collections.abc import Sequence
from typing import Any

import pytest
from msgspec import structs
from support.model_samples import MODEL, MOVE, OTHER, RECORD

from sleap_rtc_plugin.protocol.errors import RemoteProtocolError
from sleap_rtc_plugin.protocol.limits import MAX_UNIX_TIME_S
from sleap_rtc_plugin.protocol.messages import Acknowledged
from sleap_rtc_plugin.protocol.model_messages import (
    ModelDescribed,
    ModelListed,
    ModelRow,
    SetNotes,
)
from sleap_rtc_plugin.protocol.model_records import (
    AliasRecord,
    ModelFile,
    ModelFilter,
    ModelRecord,
)
from sleap_rtc_plugin.registry.model_identity import model_id_of
from sleap_rtc_plugin.session.model_commands import (
    change_model,
    describe_model,
    list_models,
)

SIZES = {"size_bytes": sum(file.size_bytes for file in RECORD.files)}
ID = model_id_of(RECORD.parts, RECORD.files)
GOOD = structs.replace(RECORD, id=ID, **SIZES)


class Worker:
    """A link whose worker says what it is told to."""

    def __init__(self, *replies: Any) -> None:
        self.replies = list(replies)
        self.asked: list[Any] = []

    async def ask(self, command: Any, timeout_s: float = 0.0) -> Any:
        self.asked.append(command)
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        return structs.replace(reply, command_id=command.command_id)


def row(model_id: str = MODEL, **fields: Any) -> ModelRow:
    values: dict[str, Any] = {"type": "t", "name": "n", "size_bytes": 1}
    return ModelRow(id=model_id, **({"published_at": 1.0} | values | fields))


def listed(rows: Sequence[ModelRow], *, more: bool = False) -> ModelListed:
    return ModelListed(command_id="c-1", models=list(rows), more=more)


def described(record: ModelRecord = GOOD, **fields: Any) -> ModelDescribed:
    return ModelDescribed(command_id="c-1", record=record, **fields)


async def rows_of(*pages: ModelListed) -> list[ModelRow]:
    worker: Any = Worker(*pages)
    return await list_models(worker, ModelFilter())


# -- lists ---------------------------------------------------------------------------


async def test_pages_are_asked_for_until_the_last() -> None:
    worker: Any = Worker(listed([row()], more=True), listed([row(OTHER)]))
    rows = await list_models(worker, ModelFilter(tag="fly"))
    assert [found.id for found in rows] == [MODEL, OTHER]
    assert [command.after for command in worker.asked] == [None, MODEL]
    assert all(command.filter.tag == "fly" for command in worker.asked)


async def test_a_model_that_slid_into_the_next_page_is_listed_once() -> None:
    rows = await rows_of(listed([row()], more=True), listed([row(), row(OTHER)]))
    assert [found.id for found in rows] == [MODEL, OTHER]


@pytest.mark.parametrize("page", [listed([], more=True), listed([row()], more=True)])
async def test_pages_without_end(page: ModelListed) -> None:
    with pytest.raises(RemoteProtocolError):
        await rows_of(page)


async def test_an_answer_to_something_else() -> None:
    worker: Any = Worker(Acknowledged(command_id="c-1"))
    with pytest.raises(RemoteProtocolError):
        await list_models(worker, ModelFilter())
    with pytest.raises(RemoteProtocolError):
        await describe_model(worker, "flies")
    with pytest.raises(RemoteProtocolError):
        await change_model(worker, SetNotes(model=MODEL, notes=""), "ann")


async def test_text_that_moves_the_cursor_and_times_of_no_calendar() -> None:
    odd = row(
        name="\x1b[2Jflies",
        workers=["a\nb"],
        trained_by="\u202eann",
        trained_at=-5.0,
        published_at=1e300,
    )
    [found] = await rows_of(listed([odd]))
    assert found.name == "[2Jflies"
    assert (found.workers, found.trained_by) == (["a b"], "ann")
    assert (found.trained_at, found.published_at) == (0.0, MAX_UNIX_TIME_S)


# -- one model -----------------------------------------------------------------------


async def details_of(answer: ModelDescribed, ref: str = ID) -> Any:
    worker: Any = Worker(answer)
    return await describe_model(worker, ref)


async def test_a_model_as_it_is() -> None:
    alias = AliasRecord(model=ID, moves=[structs.replace(MOVE, model=ID)])
    details = await details_of(described(aliases={"flies": alias}), "flies")
    assert details.record == GOOD
    assert details.aliases == {"flies": alias}


def with_file(path: str) -> ModelRecord:
    file = ModelFile(path=path, size_bytes=0, digest="ab" * 32)
    return structs.replace(GOOD, files=[*GOOD.files, file])


@pytest.mark.parametrize(
    "record",
    [
        with_file("../outside"),
        with_file("/etc/passwd"),
        with_file("flies.centroid/../../x"),
        with_file("elsewhere/x"),
        with_file("C:/x"),
        structs.replace(GOOD, id=OTHER),
        structs.replace(GOOD, size_bytes=1),
        structs.replace(GOOD, checkpoint_path="flies.centroid/other.ckpt"),
        structs.replace(GOOD, files=GOOD.files[:1], size_bytes=1_000),
        structs.replace(GOOD, parts=[GOOD.parts[0], GOOD.parts[0]]),
    ],
)
async def test_a_record_that_no_registry_holds(record: ModelRecord) -> None:
    with pytest.raises(RemoteProtocolError):
        await details_of(described(record), record.id)


async def test_another_model_than_the_one_asked_for() -> None:
    with pytest.raises(RemoteProtocolError, match="describes another model"):
        await details_of(described(), OTHER)
    with pytest.raises(RemoteProtocolError, match="describes another model"):
        await details_of(described(), "flies")


async def test_an_alias_of_another_model() -> None:
    alias = AliasRecord(model=OTHER, moves=[MOVE])
    with pytest.raises(RemoteProtocolError, match="alias of another model"):
        await details_of(described(aliases={"flies": alias}), "flies")


async def test_text_of_a_record_is_cleaned() -> None:
    odd = structs.replace(
        GOOD, name="\x1b[2J", notes="a\x07\nb", published_by="\u202eann"
    )
    record = (await details_of(described(odd))).record
    assert (record.name, record.notes, record.published_by) == ("[2J", "a\nb", "ann")
