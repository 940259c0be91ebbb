"""How many jobs a worker runs at once, and which GPU each of them sees.

One job per GPU. An administrator who set CUDA_VISIBLE_DEVICES has chosen the GPUs, by
number, UUID or MIG instance: his words are handed on as they are, one to each slot, and
nothing else is ever shown to a job. Pure; called by `capabilities`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

__all__ = ["Gpu", "Slot", "SlotPlan", "free_slots", "plan_slots", "variables_of"]

VISIBLE: Final = "CUDA_VISIBLE_DEVICES"
ORDER: Final = "CUDA_DEVICE_ORDER"
# CUDA's numbers are those of nvidia-smi in this order only.
_PCI: Final = "PCI_BUS_ID"


@dataclass(frozen=True)
class Gpu:
    """One card, as its driver describes it.

    Attributes:
        index: as nvidia-smi numbers it.
        free_mb: at the time of the probe, in MiB.
    """

    index: int
    model: str
    memory_mb: int
    free_mb: int
    uuid: str = ""


@dataclass(frozen=True)
class Slot:
    """Room for one job.

    Attributes:
        name: of its GPU, as CUDA_VISIBLE_DEVICES names it; empty where a job must
            see none, and None where it sees what the worker sees.
        variables: what its jobs get to see of the GPUs.
        gpu: the card, where it is known which one that is.
    """

    name: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    gpu: Gpu | None = None


@dataclass(frozen=True)
class SlotPlan:
    """The slots of a worker, at least one, and what its owner should know."""

    slots: tuple[Slot, ...] = (Slot(),)
    warnings: tuple[str, ...] = ()


def plan_slots(
    gpus: Sequence[Gpu],
    *,
    wanted: Sequence[int] = (),
    at_most: int | None = None,
    environment: Mapping[str, str],
) -> SlotPlan:
    """Decide on the slots of a machine whose GPUs can be used.

    Args:
        gpus: the cards, as the driver lists them; there may be none.
        wanted: the cards to use, as nvidia-smi numbers them; all where empty.
        at_most: how many jobs may run at once; as many as GPUs by default.
        environment: the worker's variables.
    """
    warnings: list[str] = []
    visible = environment.get(VISIBLE)
    in_order = environment.get(ORDER) == _PCI or len({gpu.model for gpu in gpus}) <= 1
    if visible is None:
        slots = [_by_number(gpu) for gpu in gpus]
    else:
        slots = [_as_named(token, gpus, in_order) for token in _tokens(visible)]
    if wanted:
        found = {slot.gpu.index for slot in slots if slot.gpu is not None}
        for number in wanted:
            if number not in {gpu.index for gpu in gpus}:
                warnings.append(f"there is no GPU {number}")
            elif number not in found:
                warnings.append(f"{VISIBLE} does not show GPU {number}")
        slots = [s for s in slots if s.gpu is not None and s.gpu.index in wanted]
        if not slots:
            # Nothing that was wanted is there; another GPU may be somebody else's.
            return SlotPlan((Slot("", {VISIBLE: ""}),), tuple(warnings))
    if at_most is not None and at_most > max(1, len(slots)):
        count = max(1, len(slots))
        jobs = "one job runs" if count == 1 else f"{count} jobs run"
        warnings.append(f"{jobs} at a time, since there is one for each GPU")
    return SlotPlan(tuple(slots[:at_most]) or (Slot(),), tuple(warnings))


def variables_of(slots: Sequence[Slot]) -> dict[str, Mapping[str, str]]:
    """Return what the jobs of each slot see, by the name of its GPU."""
    return {slot.name: slot.variables for slot in slots if slot.name is not None}


def free_slots(slots: Sequence[Slot], held: Sequence[str | None]) -> list[Slot]:
    """Return the slots that no job holds.

    Args:
        slots: those that there are.
        held: the GPU of each job that runs. One that is no slot's any more (the worker
            was started again with another choice) takes the room of another.
    """
    names = {slot.name for slot in slots}
    strangers = sum(name not in names for name in held)
    free = [slot for slot in slots if slot.name not in held]
    return free[strangers:]


def _by_number(gpu: Gpu) -> Slot:
    name = str(gpu.index)
    return Slot(name, {ORDER: _PCI, VISIBLE: name}, gpu)


def _as_named(token: str, gpus: Sequence[Gpu], in_order: bool) -> Slot:
    gpu = next((gpu for gpu in gpus if _is_named(gpu, token, in_order)), None)
    return Slot(token, {VISIBLE: token}, gpu)


def _is_named(gpu: Gpu, token: str, in_order: bool) -> bool:
    if token.isdecimal():
        return in_order and int(token) == gpu.index
    # A UUID may be cut short, and older names of MIG instances begin with the card's.
    whole = token.removeprefix("MIG-").partition("/")[0]
    return bool(gpu.uuid) and whole.startswith("GPU-") and gpu.uuid.startswith(whole)


def _tokens(visible: str) -> list[str]:
    """Return the names that CUDA takes: those before the first that names nothing."""
    names: list[str] = []
    for word in visible.split(","):
        name = word.strip()
        if not (name.isdecimal() or name.startswith(("GPU-", "MIG-"))):
            break
        if name not in names:
            names.append(name)
    return names
