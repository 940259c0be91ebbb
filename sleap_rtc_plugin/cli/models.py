"""`sleap-remote models`: the models of a room, from any machine.

Whoever has the session string, or reaches their store, lists them, names them, brings
one home or shares one. The work is done by `session.room_models`; what is shown of a
model is `cli.model_words`'s.
"""

import json
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from sleap_rtc_plugin.cli.model_options import (
    ModelsRequest,
    bounded_notes,
    check_ref,
    models_command,
    read_alias,
    read_tags,
)
from sleap_rtc_plugin.protocol.errors import EXIT_CANCELLED
from sleap_rtc_plugin.protocol.limits import (
    MAX_ALIAS_CHARS,
    MAX_DISPLAY_NAME_LENGTH,
    MAX_MODEL_NOTES_CHARS,
    MAX_TAG_LENGTH,
)

if TYPE_CHECKING:
    from sleap_rtc_plugin.protocol.model_messages import ModelRow
    from sleap_rtc_plugin.protocol.model_records import ModelFilter
    from sleap_rtc_plugin.registry.model_registry import (
        Collected,
        ModelDetails,
        Published,
    )
    from sleap_rtc_plugin.session.room_models import RoomModels

__all__ = ["models"]

# A tag to take off, written as `-tag`; options of one letter are left alone.
_TAG_OFF: Final = re.compile(r"-[a-z0-9][a-z0-9._-]+\Z")


_model_argument = click.argument("model", metavar="MODEL")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def models() -> None:
    """Share trained models: find them, name them, bring them home.

    MODEL is an alias, an id, or the beginning of an id.
    """


# -- list --------------------------------------------------------------------------


@models.command("list")
@click.option("--type", "kind", metavar="TYPE", help="Only of this type: topdown, ...")
@click.option("--tag", metavar="TAG", help="Only with this tag.")
@click.option("--alias", metavar="ALIAS", help="Only with an alias that begins so.")
@click.option("--text", metavar="TEXT", help="Only with this in a name or the notes.")
@models_command
def list_command(
    kind: str | None,
    tag: str | None,
    alias: str | None,
    text: str | None,
    request: ModelsRequest,
) -> None:
    """List the room's models, the newest first.

    With --worker, those that this worker has.
    """
    from sleap_rtc_plugin.protocol.model_records import EVERY_MODEL

    wanted = _filter(kind, tag, alias, text, request.worker)
    rows, disputed, silent, place = request.run(
        lambda found: _rows_of(found, wanted), of_worker=False
    )
    for names, error in silent:
        click.echo(f"{names} could not be asked: {error}", err=True)
    if request.as_json:
        from sleap_rtc_plugin.cli.model_words import row_line

        for row in rows:
            click.echo(json.dumps(row_line(row)))
    elif rows:
        _print_table(rows)
    else:
        what = "such models" if wanted != EVERY_MODEL else "models"
        click.echo(f"There are no {what} in {place}.", err=True)
    for name in disputed:
        click.echo(
            f"{name} means different models on different workers; name those by their "
            "ids.",
            err=True,
        )


def _filter(
    kind: str | None,
    tag: str | None,
    alias: str | None,
    text: str | None,
    worker: str | None,
) -> "ModelFilter":
    from sleap_rtc_plugin.protocol.model_records import ModelFilter

    def bounded(value: str | None, limit: int, option: str) -> str:
        if len(value or "") > limit:
            raise click.UsageError(f"{option} has more than {limit} characters.")
        return value or ""

    return ModelFilter(
        # As the table shows it, or as sleap-nn calls it.
        type=bounded(kind, MAX_DISPLAY_NAME_LENGTH, "--type").replace(" ", "_"),
        tag=bounded(tag, MAX_TAG_LENGTH, "--tag"),
        alias=bounded(alias, MAX_ALIAS_CHARS, "--alias"),
        worker=bounded(worker, MAX_DISPLAY_NAME_LENGTH, "--worker"),
        text=bounded(text, MAX_DISPLAY_NAME_LENGTH, "--text"),
    )


async def _rows_of(
    found: "RoomModels", wanted: "ModelFilter"
) -> "tuple[list[ModelRow], list[str], list[tuple[str, Exception]], str]":
    from sleap_rtc_plugin.session.merged_models import disputed_aliases

    rows = await found.rows(wanted)
    return rows, disputed_aliases(rows), list(found.silent), found.place


def _print_table(rows: "Sequence[ModelRow]") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from sleap_rtc_plugin.cli.model_words import (
        COLUMNS,
        NEVER_WRAPPED,
        fit_columns,
        model_row,
    )

    now = time.time()
    cells = [model_row(row, now) for row in rows]
    console = Console()
    gap, columns = fit_columns(cells, console.width)
    table = Table(box=None, pad_edge=False, padding=(0, 0, 0, gap))
    for index, width in columns:
        title = COLUMNS[index]
        table.add_column(
            title,
            width=width,
            no_wrap=title in NEVER_WRAPPED,
            justify="right" if title in ("Age", "Loss", "Size") else "left",
            overflow="fold",
        )
    for row in cells:
        # A Text is never read as markup, whatever somebody called the model.
        table.add_row(*(Text(row[index]) for index, _ in columns))
    console.print(table)


# -- show --------------------------------------------------------------------------


@models.command()
@_model_argument
@models_command
def show(model: str, request: ModelsRequest) -> None:
    """Show how a model was trained, and who named it and when."""
    details = request.run(lambda found: found.describe(model))
    if request.as_json:
        from sleap_rtc_plugin.cli.model_words import details_line

        click.echo(json.dumps(details_line(details)))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from sleap_rtc_plugin.cli.model_words import details_rows

    page = Table.grid(padding=(0, 2))
    page.add_column(no_wrap=True)
    page.add_column(overflow="fold")
    for title, text in details_rows(details, time.time()):
        page.add_row(Text(title), Text(text))
    Console().print(page)


# -- alias, tag, note ----------------------------------------------------------------


@models.command()
@click.argument("alias", callback=read_alias)
@click.argument("model", metavar="[MODEL]", required=False)
@click.option(
    "--move",
    "--move-alias",
    "moves",
    is_flag=True,
    help="Take the alias off the model that has it.",
)
@click.option("--remove", is_flag=True, help="Take the alias away; its model stays.")
@models_command
def alias(
    alias: str, model: str | None, moves: bool, remove: bool, request: ModelsRequest
) -> None:
    """Give a model an alias, or take one away.

    An alias that another model has stays there, unless it is moved. Everybody sees who
    moved it, and when.
    """
    from sleap_rtc_plugin.cli.model_words import moved_words
    from sleap_rtc_plugin.protocol.model_messages import PutAlias, RemoveAlias

    if remove == (model is not None):
        raise click.UsageError("Name the MODEL to give the alias to, or --remove it.")
    if model is None:
        request.change(RemoveAlias(alias=alias))
        _say(request, moved_words(alias, None), event="alias", alias=alias, model=None)
        return
    check_ref(model)
    details = request.change(PutAlias(alias=alias, model=model, moves=moves))
    record = None if details is None else details.aliases.get(alias)
    _say(
        request,
        moved_words(alias, record),
        event="alias",
        alias=alias,
        model=None if details is None else details.record.id,
    )


class _TagCommand(click.Command):
    """A command that takes `+TAG` and `-TAG` beside the options."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        words: list[str] = []
        for number, word in enumerate(args):
            if word == "--":
                words += args[number:]
                break
            if word.startswith("+"):
                words.append(f"--add={word[1:]}")
            elif _TAG_OFF.match(word):
                words.append(f"--remove={word[1:]}")
            else:
                words.append(word)
        return super().parse_args(context, words)


@models.command(cls=_TagCommand, options_metavar="[+TAG | -TAG]... [OPTIONS]")
@_model_argument
@click.option(
    "--add", multiple=True, metavar="TAG", callback=read_tags, help="As +TAG."
)
@click.option(
    "--remove", multiple=True, metavar="TAG", callback=read_tags, help="As -TAG."
)
@models_command
def tag(
    model: str, add: tuple[str, ...], remove: tuple[str, ...], request: ModelsRequest
) -> None:
    """File a model under +TAG, or no longer under -TAG.

    A tag of one letter is taken off with --remove.
    """
    from sleap_rtc_plugin.protocol.model_messages import SetTags

    if not add and not remove:
        raise click.UsageError("Name a tag, as in +fly or -fly.")
    check_ref(model)
    edit = SetTags(model=model, add=list(add), remove=list(remove))
    details = request.change(edit)
    tags = [] if details is None else details.record.tags
    words = f"Its tags are {', '.join(tags)}." if tags else "It has no tags now."
    _say(request, words, event="tag", model=_id_of(details), tags=tags)


@models.command()
@_model_argument
@click.argument("text", metavar="TEXT|-")
@models_command
def note(model: str, text: str, request: ModelsRequest) -> None:
    """Write about a model: TEXT, or what comes from stdin with `-`.

    It takes the place of what was written before; an empty text takes that away.
    """
    from sleap_rtc_plugin.protocol.model_messages import SetNotes

    check_ref(model)
    if text == "-":
        text = sys.stdin.read(MAX_MODEL_NOTES_CHARS + 1).strip()
    details = request.change(SetNotes(model=model, notes=bounded_notes(text)))
    words = "The notes are written." if text else "The notes are gone."
    _say(request, words, event="note", model=_id_of(details))


def _id_of(details: "ModelDetails | None") -> str | None:
    return None if details is None else details.record.id


# -- pull and push -------------------------------------------------------------------


@models.command()
@_model_argument
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("models"),
    show_default="models",
    help="Folder for the model's folders; SLEAP looks into models/ beside a project.",
)
@models_command
def pull(model: str, output: Path, request: ModelsRequest) -> None:
    """Bring a model home, where SLEAP lists it.

    Nothing that is there is overwritten. The paths of the model's folders go to stdout.
    """
    from sleap_rtc_plugin.cli.model_progress import BytesBar

    async def bring(found: "RoomModels") -> list[Path]:
        with BytesBar("Bringing the model home", as_json=request.as_json) as bar:
            return await found.pull(model, output, bar.update)

    paths = request.run(bring)
    if request.as_json:
        line = {"event": "pulled", "model": model, "paths": [str(p) for p in paths]}
        click.echo(json.dumps(line))
        return
    for path in paths:
        click.echo(str(path))


@models.command()
@click.argument(
    "folders",
    metavar="FOLDER...",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path),
)
@click.option(
    "--alias", metavar="ALIAS", callback=read_alias, help="The name to publish it as."
)
@click.option(
    "--move-alias",
    "--move",
    "moves",
    is_flag=True,
    help="Take the alias off the model that has it.",
)
@click.option("--note", default="", metavar="TEXT", help="What to say about it.")
@click.option(
    "--tag",
    "tags",
    multiple=True,
    metavar="TAG",
    callback=read_tags,
    help="File it under this; may be given several times.",
)
@click.option("--name", default="", metavar="NAME", help="What to call it.")
@models_command
def push(
    folders: tuple[Path, ...],
    alias: str | None,
    moves: bool,
    note: str,
    tags: tuple[str, ...],
    name: str,
    request: ModelsRequest,
) -> None:
    """Share a trained model, or the two of a top-down pair.

    A FOLDER is one below models/, as sleap-nn leaves it after a training. Only the
    weights, the configurations, the losses and the metrics are sent, no labels and no
    images.
    """
    from sleap_rtc_plugin.cli.model_progress import BytesBar
    from sleap_rtc_plugin.protocol.model_records import Publication

    publication = Publication(
        alias=alias, moves_alias=moves, notes=bounded_notes(note), tags=list(tags)
    )

    async def publish(found: "RoomModels") -> "tuple[Published, str]":
        with BytesBar("Publishing the model", as_json=request.as_json) as bar:
            published = await found.publish(
                folders, publication, name=name, on_progress=bar.update
            )
        return published, found.place

    published, place = request.run(publish)
    model_id = published.details.record.id
    error = published.alias_error
    got = alias if alias in published.details.aliases else None
    words = f"Published as {got} ({model_id})" if got else f"Published as {model_id}"
    _say(
        request,
        f"{words} in {place}.",
        event="published",
        model=model_id,
        alias=got,
        aliases=sorted(published.details.aliases),
        error=None if error is None else {"code": error.code, "message": str(error)},
    )
    if error is not None:
        click.echo(f"It did not get the alias: {error}", err=True)
        sys.exit(error.exit_code)


# -- delete and gc -------------------------------------------------------------------


@models.command()
@_model_argument
@click.option("--force", is_flag=True, help="Even if it has an alias.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask at a terminal.")
@models_command
def delete(model: str, force: bool, yes: bool, request: ModelsRequest) -> None:
    """Take a model out of the registry, for everybody.

    Its files go later, with `models gc`.
    """
    from sleap_rtc_plugin.protocol.model_messages import DeleteModel

    check_ref(model)

    async def remove(found: "RoomModels") -> str | None:
        details = await found.describe(model)
        model_id = details.record.id
        if not yes and not force and sys.stdin is not None and sys.stdin.isatty():
            click.echo(
                f"Delete {model_id} ({details.record.name}, {details.record.type}) "
                f"from {found.place}, for everybody?",
                err=True,
            )
            if not click.confirm("Sure", err=True):
                return None
        await found.change(DeleteModel(model=model_id, force=force))
        return model_id

    model_id = request.run(remove)
    if model_id is None:
        click.echo("Nothing was deleted.", err=True)
        sys.exit(EXIT_CANCELLED)
    _say(request, f"Deleted {model_id}.", event="deleted", model=model_id)


@models.command()
@models_command
def gc(request: ModelsRequest) -> None:
    """Remove the files of deleted models and of interrupted publishing.

    Only what no model refers to, and what is older than a day.
    """
    from rich.filesize import decimal

    async def collect(found: "RoomModels") -> "tuple[Collected, list[Any], str]":
        return await found.collect(), list(found.silent), found.place

    collected, silent, place = request.run(collect)
    for names, error in silent:
        click.echo(f"{names} could not be asked: {error}", err=True)
    words = (
        f"Removed {collected.files} files ({decimal(collected.bytes)}) from {place}."
    )
    if not collected.files:
        words = f"There is nothing to remove in {place}."
    _say(request, words, event="gc", files=collected.files, bytes=collected.bytes)


def _say(request: ModelsRequest, words: str, **line: Any) -> None:
    """Print a line of JSON on stdout where asked, or words on stderr."""
    if request.as_json:
        click.echo(json.dumps(line))
    else:
        click.echo(words, err=True)
