"""What the run window chooses beside SLEAP's own dialog: a model of the lab, an alias.

The rules are pure and stand first; `RunChoices` puts the user's choices and what the
lab offers into the presenter's snapshot. Made by the presenter, called by the run page
and the plugin.
"""

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from sleap_rtc_plugin.companion.messages import Command, Event, Result
from sleap_rtc_plugin.companion.model_messages import (
    ListModels,
    ModelAnnounced,
    Models,
)
from sleap_rtc_plugin.gui.messages import error_words
from sleap_rtc_plugin.gui.model_choice import (
    HALVES,
    ModelChoice,
    alias_problem,
    choices_of,
)
from sleap_rtc_plugin.protocol.errors import RtcError
from sleap_rtc_plugin.protocol.model_records import Publication, alias_fault, type_of
from sleap_rtc_plugin.session.run_request import (
    ModelToTrain,
    PublishedModel,
    RunRequest,
)

if TYPE_CHECKING:
    from sleap_rtc_plugin.gui.snapshot import Snapshot

__all__ = [
    "Mode",
    "RunChoices",
    "model_problem",
    "planned_run",
    "publish_hint",
    "publish_problem",
]

Mode = Literal["training", "inference"]

NO_MODEL: Final = (
    "SLEAP has no trained models for this run. Choose a model of the lab above."
)
_ASK_ALIAS: Final = "Type an alias, such as flies-v1."
_HALF: Final = (
    "This run trains one half of a top-down pair, and only whole ones are published. "
    "Train both, or publish them later in Remote Models."
)


# -- rules -----------------------------------------------------------------------------


def trains(run: RunRequest | None) -> bool:
    """Tell whether a run trains a model."""
    return run is not None and any(isinstance(m, ModelToTrain) for m in run.models)


def planned_run(
    run: RunRequest | None, model: PublishedModel | None, alias: str | None
) -> RunRequest | None:
    """Return a run as it is to be sent.

    Args:
        run: as it was set up in SLEAP.
        model: a model of the lab to predict with in place of SLEAP's, or None.
        alias: what to publish the trained models as, or None for not at all.
    """
    if run is None:
        return None
    if trains(run):
        publish = None
        if alias is not None and alias_fault(alias) is None:
            publish = Publication(alias=alias)
        return msgspec.structs.replace(run, publish=publish)
    if model is not None:
        return msgspec.structs.replace(run, models=[model])
    return run


def publish_problem(run: RunRequest | None, alias: str | None) -> str:
    """Say why the trained models cannot be published so, or nothing."""
    if alias is None or not trains(run):
        return ""
    if run is not None:
        heads = [m.head for m in run.models if isinstance(m, ModelToTrain)]
        kind = type_of(heads)
        if kind is None or kind in HALVES or len(heads) < len(run.models):
            return _HALF
    return alias_problem(alias) if alias else _ASK_ALIAS


def publish_hint(
    run: RunRequest | None, alias: str | None, taken: frozenset[str]
) -> str:
    """Say below the field what is wrong with an alias, or what will become of it."""
    if alias is None:
        return ""
    problem = publish_problem(run, alias)
    if not problem and not alias:
        return _ASK_ALIAS
    if not problem and alias_fault(alias) is not None:
        return alias_problem(alias)
    if not problem and alias in taken:
        return (
            "This alias is another model's. Yours is published all the same, and you "
            "can move the alias to it in Remote Models."
        )
    return problem


def model_problem(
    run: RunRequest | None,
    model: PublishedModel | None,
    offered: Sequence[ModelChoice],
) -> str:
    """Say why a run cannot predict with what is chosen, or nothing."""
    if run is None or trains(run):
        return ""
    if model is None:
        return "" if run.models else NO_MODEL
    for choice in offered:
        if choice.model.id == model.id:
            return choice.misfit
    return ""


# -- choosing --------------------------------------------------------------------------


class RunChoices:
    """Takes the user's choices, and asks the lab what there is to choose from."""

    def __init__(
        self,
        ask: Callable[[Command], Awaitable[Result | None]],
        spawn: Callable[[Coroutine[Any, Any, Any], str], Any],
        change: Callable[..., None],
        snapshot: Callable[[], "Snapshot"],
    ) -> None:
        """Begin with nothing chosen.

        Args:
            ask: puts a command to the companion.
            spawn: starts a coroutine under a name.
            change: changes fields of the presenter's snapshot.
            snapshot: returns that.
        """
        self._ask = ask
        self._spawn = spawn
        self._change = change
        self._snapshot = snapshot
        self._nodes: tuple[str, ...] = ()

    def handle(self, event: Event) -> None:
        """Take an event of the companion."""
        if isinstance(event, ModelAnnounced) and self._snapshot().offered is not None:
            self.offer(self._nodes)

    def set_mode(self, mode: Mode) -> None:
        """Say what the window is for; a run of the other kind is forgotten."""
        now = self._snapshot()
        if now.run is not None and trains(now.run) != (mode == "training"):
            self._change(mode=mode, run=None)
        else:
            self._change(mode=mode)

    def choose_model(self, model_id: str | None) -> None:
        """Predict with a model of the lab; None for what SLEAP's dialog says."""
        for choice in self._snapshot().offered or ():
            if choice.model.id == model_id and not choice.misfit:
                self._change(model=choice.model, problem="")
                return
        if model_id is None:
            self._change(model=None, problem="")

    def use_model(self, model: PublishedModel) -> None:
        """Predict with this model, which the user chose elsewhere."""
        self._change(model=model, problem="")

    def set_publishes(self, publishes: bool) -> None:
        """Choose whether the trained models are published."""
        self._change(publishes=publishes)

    def set_alias(self, alias: str) -> None:
        """Choose the alias of what is published."""
        self._change(alias=alias.strip())

    def offer(self, nodes: Sequence[str]) -> None:
        """Ask which models there are, and which fit a project with these nodes."""
        self._nodes = tuple(nodes)
        if self._snapshot().is_inside:
            self._spawn(self._offer(), "offer the lab's models")

    async def _offer(self) -> None:
        try:
            result = await self._ask(ListModels(skeletons=True))
        except RtcError as error:
            # Runs go on without them; the list says why it is empty.
            self._change(offer_problem=error_words(error))
            return
        if isinstance(result, Models):
            taken = {alias for row in result.models for alias in row.aliases}
            self._change(
                offered=choices_of(result.models, result.skeletons, self._nodes),
                taken=frozenset(taken),
                offer_problem="",
            )
