"""Which of the room's models can predict on the open project, and under which name.

Pure; called by the presenter of the run window and by the browser of models. What a
peer wrote is cleaned before it becomes part of a sentence.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.model_messages import ModelRow
from sleap_rtc_plugin.protocol.model_records import alias_fault
from sleap_rtc_plugin.session.run_request import PublishedModel

__all__ = [
    "HALVES",
    "ModelChoice",
    "alias_problem",
    "choices_of",
    "misfit",
    "model_name",
    "type_words",
]

MAX_CHOICES: Final = 50
MAX_NODES_NAMED: Final = 3
MAX_NODE_CHARS: Final = 24
_TYPES: Final[Mapping[str, str]] = {
    "topdown": "Top-down",
    "bottomup": "Bottom-up",
    "multi_class_bottomup": "Bottom-up with identities",
    "single_instance": "Single animal",
    "centroid": "Centroid only",
    "centered_instance": "Centered instance only",
    "multi_class_topdown": "Identities only",
}
# Types of one network that is of use with another one only.
HALVES: Final = frozenset({"centroid", "centered_instance", "multi_class_topdown"})


@dataclass(frozen=True)
class ModelChoice:
    """A model as the run window offers it; `misfit` says why it cannot be used."""

    model: PublishedModel
    misfit: str = ""


def type_words(kind: str) -> str:
    """Say a model's type, such as "Top-down"."""
    return _TYPES.get(kind) or clean_text(kind) or "Unknown"


def model_name(model_id: str, aliases: Sequence[str], name: str) -> str:
    """Return how people call a model: by an alias, its name, or its id."""
    return next(iter(aliases), "") or clean_text(name) or model_id


def choices_of(
    rows: Sequence[ModelRow],
    skeletons: Mapping[str, Sequence[str]],
    nodes: Sequence[str],
) -> tuple[ModelChoice, ...]:
    """Return the models to offer for a project, those that fit it first.

    Args:
        rows: the room's models, the newest first.
        skeletons: the nodes of each, where they are known.
        nodes: those of the project; empty where none is open.
    """
    choices = [
        ModelChoice(
            PublishedModel(
                id=row.id,
                head=row.type,
                name=model_name(row.id, row.aliases, row.name),
            ),
            misfit(row.type, skeletons.get(row.id, ()), nodes),
        )
        for row in rows[:MAX_CHOICES]
    ]
    # Stable: the newest first among those that fit, and among the others.
    return tuple(sorted(choices, key=lambda choice: bool(choice.misfit)))


def misfit(kind: str, skeleton: Sequence[str], nodes: Sequence[str]) -> str:
    """Say why a model cannot predict on a project, or nothing where it can.

    Args:
        kind: the model's type.
        skeleton: the nodes that it was trained for; empty where that is not known.
        nodes: those of the project; empty where none is open.
    """
    if kind in HALVES:
        return "It is one half of a top-down pair; publish both halves as one model."
    if not skeleton or not nodes or set(skeleton) == set(nodes):
        return ""
    lacks = [node for node in nodes if node not in skeleton]
    more = [node for node in skeleton if node not in nodes]
    parts = [f"it does not know {_named(lacks)}"] if lacks else []
    if more:
        parts.append(f"the project has no {_named(more)}")
    return f"It was trained for another skeleton: {', and '.join(parts)}."


def _named(nodes: Sequence[str]) -> str:
    names = [clean_text(node, MAX_NODE_CHARS) for node in nodes[:MAX_NODES_NAMED]]
    rest = len(nodes) - len(names)
    return ", ".join(names) + (f" and {rest} more" if rest else "")


def alias_problem(alias: str) -> str:
    """Say what is wrong with an alias that is being typed, or nothing."""
    fault = alias_fault(alias)
    return f"An alias {fault}." if fault else ""
