"""Which GPU each job sees, whoever chose: the driver, the owner, an administrator."""

import pytest

from sleap_rtc_worker.gpu_slots import Gpu, plan_slots

FIRST = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"
SECOND = "GPU-1f2e3d4c-0000-4106-c12f-20bd9faed9f6"
ALIKE = [
    Gpu(index=0, model="A", memory_mb=1, free_mb=1, uuid=FIRST),
    Gpu(index=1, model="A", memory_mb=1, free_mb=1, uuid=SECOND),
]
UNLIKE = [ALIKE[0], Gpu(index=1, model="B", memory_mb=1, free_mb=1, uuid=SECOND)]


def test_one_job_for_each_gpu() -> None:
    plan = plan_slots(UNLIKE, environment={})
    assert [slot.name for slot in plan.slots] == ["0", "1"]
    assert plan.slots[1].variables == {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": "1",
    }
    assert [slot.gpu for slot in plan.slots] == UNLIKE
    assert plan.warnings == ()


def test_a_machine_without_gpus_runs_one_job() -> None:
    plan = plan_slots([], environment={}, at_most=4)
    assert [(slot.name, slot.variables) for slot in plan.slots] == [(None, {})]
    assert plan.warnings == ("one job runs at a time, since there is one for each GPU",)


def test_the_owner_chooses() -> None:
    assert [s.name for s in plan_slots(ALIKE, wanted=[1], environment={}).slots] == [
        "1"
    ]
    assert [s.name for s in plan_slots(ALIKE, at_most=1, environment={}).slots] == ["0"]
    plan = plan_slots(ALIKE, wanted=[1, 7], environment={})
    assert [slot.name for slot in plan.slots] == ["1"]
    assert plan.warnings == ("there is no GPU 7",)


def test_a_job_never_gets_a_gpu_that_was_not_chosen() -> None:
    plan = plan_slots(ALIKE, wanted=[7], environment={})
    [slot] = plan.slots
    assert (slot.name, slot.variables) == ("", {"CUDA_VISIBLE_DEVICES": ""})
    hidden = plan_slots(ALIKE, wanted=[0], environment={"CUDA_VISIBLE_DEVICES": SECOND})
    assert [s.variables for s in hidden.slots] == [{"CUDA_VISIBLE_DEVICES": ""}]
    assert hidden.warnings == ("CUDA_VISIBLE_DEVICES does not show GPU 0",)


@pytest.mark.parametrize(
    ("visible", "names", "cards"),
    [
        ("1", ["1"], [1]),
        ("1, 0", ["1", "0"], [1, 0]),
        (FIRST, [FIRST], [0]),
        ("GPU-1f2e", ["GPU-1f2e"], [1]),
        (f"MIG-{FIRST}/1/0", [f"MIG-{FIRST}/1/0"], [0]),
        ("MIG-11-22,MIG-33-44", ["MIG-11-22", "MIG-33-44"], [None, None]),
        ("0,0", ["0"], [0]),
        ("0,-1,1", ["0"], [0]),
        ("0,nonsense,1", ["0"], [0]),
    ],
)
def test_an_administrators_words_are_handed_on_as_they_are(
    visible: str, names: list[str], cards: list[int | None]
) -> None:
    plan = plan_slots(ALIKE, environment={"CUDA_VISIBLE_DEVICES": visible})
    assert [slot.name for slot in plan.slots] == names
    # The order of the numbers is the administrator's too.
    assert [s.variables for s in plan.slots] == [
        {"CUDA_VISIBLE_DEVICES": name} for name in names
    ]
    assert [slot.gpu and slot.gpu.index for slot in plan.slots] == cards


def test_a_number_is_no_card_where_their_order_is_not_known() -> None:
    environment = {"CUDA_VISIBLE_DEVICES": "1"}
    assert plan_slots(UNLIKE, environment=environment).slots[0].gpu is None
    environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    assert plan_slots(UNLIKE, environment=environment).slots[0].gpu == UNLIKE[1]
