"""What the commands about models are given: where the models are, and good names.

Decides between a store that this machine reaches and the room's workers. Used by
`cli.models`.
"""

import functools
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import click

from sleap_rtc_plugin.cli.options import (
    run_async,
    set_up_logging,
    transport_options,
    verbose_option,
)
from sleap_rtc_plugin.cli.session_choice import SessionChoice, session_option
from sleap_rtc_plugin.protocol.limits import (
    MAX_ALIAS_CHARS,
    MAX_MODEL_NOTES_CHARS,
    MAX_MODEL_TAGS,
    MAX_TAG_LENGTH,
)
from sleap_rtc_plugin.protocol.model_records import alias_fault

if TYPE_CHECKING:
    from sleap_rtc_plugin.protocol.model_messages import ModelEdit
    from sleap_rtc_plugin.registry.model_registry import ModelDetails
    from sleap_rtc_plugin.session.room_models import RoomModels
    from sleap_rtc_plugin.transport.transport_options import TransportOptions

__all__ = [
    "ModelsRequest",
    "bounded_notes",
    "check_ref",
    "models_command",
    "read_alias",
    "read_tags",
]

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
_TAG: Final = re.compile(r"[a-z0-9][a-z0-9._-]*\Z")


class ModelsRequest:
    """What every one of these commands is given."""

    def __init__(
        self,
        *,
        session: SessionChoice,
        store: str | None,
        worker: str | None,
        transport: "TransportOptions",
        as_json: bool,
        verbose: bool,
    ) -> None:
        self._session = session
        self._store = store
        self.worker = worker
        self._transport = transport
        self.as_json = as_json
        self._verbose = verbose

    def run(
        self,
        main: Callable[["RoomModels"], Awaitable[T]],
        *,
        of_worker: bool = True,
    ) -> T:
        """Open the models for `main`; an expected error ends the command.

        With `of_worker`, a worker that was named is the only one asked.
        """
        set_up_logging(self._verbose)
        return run_async(self._within(main, of_worker), verbose=self._verbose)

    async def _within(
        self, main: Callable[["RoomModels"], Awaitable[T]], of_worker: bool
    ) -> T:
        from sleap_rtc_plugin.session.settings import chosen_model_place

        worker = self.worker if of_worker else None
        if worker is not None and self._store is not None:
            raise click.UsageError(
                "--worker asks a worker, and --store needs none; give one of them."
            )
        # Who names a worker wants to ask it, whatever store is usual.
        store = chosen_model_place(self._store).store if worker is None else None
        choice, models_room = self._session.beside_store(store)
        place = chosen_model_place(self._store, models_room)
        if store is None and models_room is not None:
            raise click.UsageError(
                "--room goes with --store; without one, the room is the session's."
            )
        is_enough = store is not None and place.room is not None
        session = None
        if choice or not is_enough:
            if not choice:
                raise click.UsageError(
                    "No session is given; paste the worker's session string after "
                    "--session or into SLEAP_SESSION, name a room that is remembered "
                    "with --room, or the models' own place with --store and --room."
                    if store is None
                    else "It is not said of which room the models in the store are; "
                    "add --room NAME or --session STRING."
                )
            session = await choice.find()
        from sleap_rtc_plugin.session.room_models import open_room_models

        async with open_room_models(
            session,
            store=store,
            room=place.room,
            worker=worker,
            transport=self._transport,
        ) as found:
            return await main(found)

    def change(self, edit: "ModelEdit") -> "ModelDetails | None":
        """Change the registry."""
        return self.run(lambda found: found.change(edit))


def models_command(function: F) -> F:
    """Add the options of every command; it is given them as `request`."""

    @session_option
    @click.option(
        "--store",
        metavar="ADDRESS",
        help="Where the models are, if this machine reaches that: a folder, or "
        "s3://BUCKET/PREFIX. No worker is needed then. Beside it, --room names the "
        "room that they are filed under, by default the session's.  [env: "
        "SLEAP_MODEL_STORE, SLEAP_MODEL_ROOM]",
    )
    @click.option("--worker", metavar="NAME", help="Ask this worker only.")
    @transport_options
    @click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
    @verbose_option
    @functools.wraps(function)
    def command(*args: Any, **options: Any) -> Any:
        names = ("session", "store", "worker", "transport", "as_json")
        given = {name: options.pop(name) for name in (*names, "verbose")}
        return function(*args, request=ModelsRequest(**given), **options)

    return cast(F, command)


def read_alias(
    context: click.Context, parameter: click.Parameter, alias: str | None
) -> str | None:
    """Return an alias that can be one."""
    fault = None if alias is None else alias_fault(alias)
    if fault:
        raise click.BadParameter(f"the alias {fault}.")
    return alias


def read_tags(
    context: click.Context, parameter: click.Parameter, tags: tuple[str, ...]
) -> tuple[str, ...]:
    """Return tags that can be some, once each."""
    for tag in tags:
        if len(tag) > MAX_TAG_LENGTH or not _TAG.match(tag):
            raise click.BadParameter(
                f"{tag!r} is no tag: they are made of at most {MAX_TAG_LENGTH} small "
                "letters, digits, dots, underscores and hyphens."
            )
    if len(set(tags)) > MAX_MODEL_TAGS:
        raise click.BadParameter(f"a model has at most {MAX_MODEL_TAGS} tags.")
    return tuple(dict.fromkeys(tags))


def bounded_notes(text: str) -> str:
    """Return notes that are not too long."""
    if len(text) > MAX_MODEL_NOTES_CHARS:
        raise click.UsageError(
            f"Notes have at most {MAX_MODEL_NOTES_CHARS} characters."
        )
    return text


def check_ref(model: str) -> None:
    """Refuse what no model is called, before anyone is asked."""
    if not 0 < len(model) <= MAX_ALIAS_CHARS:
        raise click.UsageError(
            f"A MODEL's alias or id has at most {MAX_ALIAS_CHARS} characters."
        )
