"""What the browser of models knows and asks for, without any widget.

Lists the room's models, keeps everything of the chosen one, and turns what the user
does into commands. The window draws its `ModelsSnapshot`; the plugin hands it the
companion's events, and is told when a model is to be used or was pulled.
"""

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import msgspec

from sleap_rtc_plugin.companion.messages import (
    Command,
    Done,
    Event,
    JobChanged,
    Result,
    RoomChanged,
    WorkersChanged,
)
from sleap_rtc_plugin.companion.model_messages import (
    ChangeModel,
    DescribeModel,
    ListLocalModels,
    ListModels,
    LocalModels,
    LocalModelSet,
    ModelAnnounced,
    ModelDescription,
    ModelProgress,
    Models,
    ModelSaved,
    PublishModel,
    Pulled,
    PullModel,
)
from sleap_rtc_plugin.gui.messages import error_words, published_words
from sleap_rtc_plugin.gui.model_choice import alias_problem, model_name
from sleap_rtc_plugin.gui.models_snapshot import (
    COLUMNS,
    AliasQuestion,
    ModelsSnapshot,
    Order,
    parse_tags,
)
from sleap_rtc_plugin.protocol.errors import AliasMoved, AliasTaken, RtcError, from_wire
from sleap_rtc_plugin.protocol.ids import clean_text, new_command_id
from sleap_rtc_plugin.protocol.limits import (
    MAX_MODEL_NOTES_CHARS,
    MAX_MODEL_TAGS,
    MAX_MODELS_PER_ROOM,
)
from sleap_rtc_plugin.protocol.model_messages import (
    DeleteModel,
    ModelEdit,
    ModelRow,
    PutAlias,
    RemoveAlias,
    SetNotes,
    SetTags,
)
from sleap_rtc_plugin.protocol.model_records import (
    Publication,
    Tags,
    is_model_id,
)

__all__ = ["ModelsPresenter", "tags_problem"]

MAX_NOTICE_CHARS: Final = 600


class ModelsPresenter:
    """The memory and hands of the browser of models."""

    def __init__(
        self,
        ask: Callable[[Command], Awaitable[Result]],
        spawn: Callable[[Coroutine[Any, Any, None], str], Any],
    ) -> None:
        """Begin without models.

        Args:
            ask: puts a command to the companion.
            spawn: runs a coroutine as a named task.
        """
        self.on_changed: Callable[[], None] = lambda: None
        """Called when `snapshot` changed."""
        self.on_pulled: Callable[[Sequence[str]], None] = lambda folders: None
        """Called with the folders of a model that was pulled, inside a coroutine."""
        self.on_news: Callable[[str], None] = lambda words: None
        """Called with a sentence that is worth saying where no browser is open."""
        self._ask = ask
        self._spawn = spawn
        self._snapshot = ModelsSnapshot()
        self._operation = ""
        self._room = ""
        # Raised by whatever makes answers on their way those of yesterday.
        self._stay = 0
        self._is_stale = False
        self._is_watched = False
        self._workers: set[str] = set()

    @property
    def snapshot(self) -> ModelsSnapshot:
        """What is to be shown now."""
        return self._snapshot

    # -- events ------------------------------------------------------------------------

    def handle(self, event: Event) -> None:
        """Take an event of the companion."""
        match event:
            case RoomChanged():
                self._room_changed(event)
            case WorkersChanged(workers=workers):
                self._came_online()
                self._workers_changed({worker.worker_id for worker in workers})
            case ModelAnnounced():
                name = clean_text(event.alias) or clean_text(event.model)
                self.on_news(f"The model {name} was published in this lab.")
                if self._snapshot.is_listed:
                    self.refresh()
            case JobChanged() if event.publish_error is not None:
                self._show(
                    notice=error_words(from_wire(event.publish_error)), is_problem=True
                )
            case ModelProgress() if event.operation == self._operation:
                self._show(progress=(event.done, event.total))
            case _:
                pass

    def _room_changed(self, event: RoomChanged) -> None:
        room = event.room.room_id if event.room is not None else ""
        if event.state == "offline":
            reason = clean_text(event.reason, MAX_NOTICE_CHARS)
            self._show(is_online=False, notice=reason, is_problem=bool(reason))
        if room != self._room:
            # Models of another room are none of this one's.
            self._room = room
            self._stay += 1
            self._show(rows=(), is_listed=False, is_listing=False, question=None)
            self._forget_choice()
        if event.state == "online":
            self._came_online()

    def _came_online(self) -> None:
        if not self._snapshot.is_online:
            self._show(is_online=True, notice="", is_problem=False)
            if self._is_watched:
                self.refresh()

    def _workers_changed(self, workers: set[str]) -> None:
        """Ask again where nobody could tell, since somebody may now."""
        came, self._workers = workers - self._workers, workers
        now = self._snapshot
        if came and self._is_watched and not (now.is_listed or now.is_listing):
            self.refresh()

    # -- the list ----------------------------------------------------------------------

    def watch(self, is_watched: bool) -> None:
        """Be up to date from now on, or ask for nothing by ourselves any more."""
        self._is_watched = is_watched
        if is_watched:
            self.refresh()

    def refresh(self) -> None:
        """Ask for the models, or once more where that is under way."""
        if not self._snapshot.is_online:
            return
        if self._snapshot.is_listing:
            self._is_stale = True
            return
        self._show(is_listing=True)
        self._spawn(self._list(self._stay), "list the models")

    def narrow(self, text: str) -> None:
        """Show only models that hold these words."""
        self._show(text=text)

    def choose_type(self, kind: str) -> None:
        """Show only models of a type; all where it is empty."""
        self._show(type=kind)

    def sort(self, column: int) -> None:
        """Sort by a column; again, the other way round; once more, the newest first."""
        if not 0 <= column < len(COLUMNS):
            return
        order = self._snapshot.order
        if order is None or order.column != column:
            self._show(order=Order(column))
        else:
            again = None if order.is_descending else Order(column, is_descending=True)
            self._show(order=again)

    async def _list(self, stay: int) -> None:
        try:
            result = await self._ask(ListModels())
        except RtcError as error:
            if stay == self._stay:
                self._show(is_listing=False)
                self._say_problem(error)
            return
        if stay != self._stay or not isinstance(result, Models):
            return
        was_problem = self._snapshot.is_problem and not self._snapshot.is_listed
        self._show(
            rows=tuple(result.models[:MAX_MODELS_PER_ROOM]),
            is_listed=True,
            is_listing=False,
        )
        if result.silent:
            reasons = " ".join(result.silent)
            said = f"Some models may be missing. {reasons}"
            self._say(clean_text(said, MAX_NOTICE_CHARS), is_problem=True)
        elif was_problem:
            self._say("")
        if self._snapshot.chosen is not None and self._snapshot.chosen_row is None:
            self._forget_choice()
        if self._is_stale:
            self._is_stale = False
            self.refresh()

    # -- one model ---------------------------------------------------------------------

    def choose(self, model: str | None) -> None:
        """Show everything of a model."""
        if model == self._snapshot.chosen:
            return
        self._forget_choice()
        if model is not None:
            self._show(chosen=model)
            self._spawn(self._describe(model), f"describe {model}")

    async def _describe(self, model: str) -> None:
        try:
            result = await self._ask(DescribeModel(model=model))
        except RtcError as error:
            if self._snapshot.chosen == model:
                self._say_problem(error)
            return
        if isinstance(result, ModelDescription):
            self._described(result)

    def _described(self, details: ModelDescription) -> None:
        """Take what is known of a model now, in the list too."""
        aliases = sorted(details.aliases)
        rows = [
            _after(row, details, aliases) if row.id == details.record.id else row
            for row in self._snapshot.rows
        ]
        self._show(rows=tuple(rows))
        if details.record.id == self._snapshot.chosen:
            self._show(details=details)

    def _forget_choice(self) -> None:
        self._show(chosen=None, details=None)

    # -- changes -----------------------------------------------------------------------

    def save_notes(self, notes: str) -> None:
        """Replace what people wrote about the chosen model."""
        if len(notes) > MAX_MODEL_NOTES_CHARS:
            self._say(
                f"Notes have at most {MAX_MODEL_NOTES_CHARS:,} characters; these have "
                f"{len(notes):,}. Shorten them.",
                is_problem=True,
            )
        elif (model := self._snapshot.chosen) is not None:
            self._change(SetNotes(model=model, notes=notes), "The notes are saved.")

    def save_tags(self, text: str) -> None:
        """Give the chosen model these tags and no others."""
        details, tags = self._snapshot.details, parse_tags(text)
        if details is None:
            return
        problem = tags_problem(tags)
        if problem:
            self._say(problem, is_problem=True)
            return
        before = details.record.tags
        edit = SetTags(
            model=details.record.id,
            add=[tag for tag in tags if tag not in before],
            remove=[tag for tag in before if tag not in tags],
        )
        if edit.add or edit.remove:
            self._change(edit, "The tags are saved.")

    def put_alias(self, alias: str) -> None:
        """Point an alias to the chosen model; asks first where it would move."""
        model, alias = self._snapshot.chosen, alias.strip()
        if model is None:
            return
        problem = alias_problem(alias)
        if problem:
            self._say(problem, is_problem=True)
            return
        owner = next((r for r in self._snapshot.rows if alias in r.aliases), None)
        if owner is None or owner.id == model:
            edit = PutAlias(alias=alias, model=model)
            self._change(edit, f"{alias} is this model's alias now.")
        else:
            self._ask_whether_to_move(alias, model, owner.id)

    def move_alias(self, question: AliasQuestion) -> None:
        """Move an alias, since the user said so, if it is still where it was."""
        self.dismiss_question()
        edit = PutAlias(
            alias=question.alias,
            model=question.model,
            moves=True,
            expected=question.owner if is_model_id(question.owner) else None,
        )
        self._change(edit, f"{question.alias} was moved to this model.")

    def dismiss_question(self) -> None:
        """Leave the alias where it is."""
        self._show(question=None)

    def remove_alias(self, alias: str) -> None:
        """Take an alias away; the model stays."""
        edit = RemoveAlias(alias=alias)
        self._change(edit, f"The alias {alias} is taken away.")

    def delete(self) -> None:
        """Take the chosen model out of the registry, as the user was asked about."""
        row = self._snapshot.chosen_row
        if row is not None:
            edit = DeleteModel(model=row.id, force=bool(row.aliases))
            self._change(edit, f"The model {_name(row)} is deleted.")

    def _change(self, edit: ModelEdit, notice: str) -> None:
        self._spawn(self._carry_out(edit, notice), type(edit).__name__)

    async def _carry_out(self, edit: ModelEdit, notice: str) -> None:
        self._show(working="Saving the change…", notice="", is_problem=False)
        try:
            result = await self._ask(ChangeModel(edit=edit))
        except AliasTaken as error:
            if not isinstance(edit, PutAlias):
                self._say_problem(error)
                return
            # Somebody put it elsewhere since the list was told.
            self._ask_whether_to_move(edit.alias, edit.model, error.model)
            return
        except RtcError as error:
            self._say_problem(error)
            if isinstance(error, AliasMoved):
                self.refresh()
            return
        finally:
            self._show(working="")
        if isinstance(result, ModelDescription):
            self._described(result)
        elif isinstance(result, Done) and isinstance(edit, DeleteModel):
            rows = tuple(row for row in self._snapshot.rows if row.id != edit.model)
            self._show(rows=rows)
            if self._snapshot.chosen == edit.model:
                self._forget_choice()
        if isinstance(edit, RemoveAlias) and (chosen := self._snapshot.chosen):
            await self._describe(chosen)
        self._say(notice)
        # What an alias was taken off has changed as well.
        self.refresh()

    def _ask_whether_to_move(self, alias: str, model: str, owner: str) -> None:
        row = next((row for row in self._snapshot.rows if row.id == owner), None)
        name = model_name(row.id, (), row.name) if row is not None else owner
        question = AliasQuestion(
            alias=alias, model=model, owner=owner, owner_name=clean_text(name)
        )
        self._show(question=question)

    # -- files -------------------------------------------------------------------------

    def pull(self, folder: str) -> None:
        """Bring the chosen model below a folder."""
        row = self._snapshot.chosen_row
        if row is None or self._snapshot.working:
            return
        self._begin(f"Fetching {_name(row)}…")
        command = PullModel(operation=self._operation, model=row.id, folder=folder)
        self._spawn(self._pull(command, _name(row)), f"pull {row.id}")

    async def _pull(self, command: PullModel, name: str) -> None:
        try:
            result = await self._ask(command)
        except RtcError as error:
            self._say_problem(error)
            return
        finally:
            self._end()
        if isinstance(result, Pulled):
            where = clean_text(command.folder, MAX_NOTICE_CHARS // 2)
            names = ", ".join(clean_text(Path(path).name) for path in result.folders)
            self._say(f"{name} is in {where}: {names}.")
            self.on_pulled(result.folders)
            self.refresh()

    def find_local(self, folder: str) -> None:
        """Look which models of this computer could be published."""
        self._show(local=None)
        self._spawn(self._find_local(folder), "find local models")

    async def _find_local(self, folder: str) -> None:
        try:
            result = await self._ask(ListLocalModels(folder=folder))
        except RtcError as error:
            self._show(local=())
            self._say_problem(error)
            return
        if isinstance(result, LocalModels):
            self._show(local=tuple(result.models))

    def publish(self, model: LocalModelSet, publication: Publication) -> None:
        """Publish a model of this computer."""
        if self._snapshot.working:
            return
        self._begin(f"Publishing {clean_text(model.name)}…")
        command = PublishModel(
            operation=self._operation,
            folders=list(model.folders),
            publication=publication,
            name=model.name,
        )
        self._spawn(self._publish(command), f"publish {model.name}")

    async def _publish(self, command: PublishModel) -> None:
        try:
            result = await self._ask(command)
        except RtcError as error:
            self._say_problem(error)
            return
        finally:
            self._end()
        if not isinstance(result, ModelSaved):
            return
        self.refresh()
        model = result.model.record.id
        self.choose(model)
        alias = command.publication.alias or ""
        if result.alias_error is None:
            self._say(published_words(model, alias))
            return
        refusal = from_wire(result.alias_error)
        if isinstance(refusal, AliasTaken):
            self._say(f"{published_words(model, '')} Its alias is another model's.")
            self._ask_whether_to_move(alias, model, refusal.model)
        else:
            said = f"{published_words(model, '')} {error_words(refusal)}"
            self._say(said, is_problem=True)

    def _begin(self, words: str) -> None:
        self._operation = new_command_id()
        self._show(working=words, progress=None, notice="", is_problem=False)

    def _end(self) -> None:
        self._operation = ""
        self._show(working="", progress=None)

    # -- the rest ----------------------------------------------------------------------

    def _say(self, notice: str, *, is_problem: bool = False) -> None:
        self._show(notice=notice, is_problem=is_problem)

    def _say_problem(self, error: RtcError) -> None:
        self._say(error_words(error), is_problem=True)

    def _show(self, **changes: Any) -> None:
        snapshot = replace(self._snapshot, **changes)
        if snapshot != self._snapshot:
            self._snapshot = snapshot
            self.on_changed()


def tags_problem(tags: Sequence[str]) -> str:
    """Say what is wrong with tags that were typed, or nothing."""
    if len(tags) > MAX_MODEL_TAGS:
        return f"A model has at most {MAX_MODEL_TAGS} tags; take some away."
    try:
        msgspec.convert(list(tags), Tags)
    except msgspec.ValidationError:
        return (
            "A tag is made of small letters, digits, dots, underscores and hyphens, "
            "and begins with a letter or digit."
        )
    return ""


def _name(row: ModelRow) -> str:
    return model_name(row.id, row.aliases, row.name)


def _after(row: ModelRow, details: ModelDescription, aliases: list[str]) -> ModelRow:
    record = details.record
    return msgspec.structs.replace(
        row, aliases=aliases, tags=list(record.tags), workers=list(record.workers)
    )
