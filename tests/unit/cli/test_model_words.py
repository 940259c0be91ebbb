"""What is said of models, in rows, on pages and in JSON."""

import json
from typing import Any

import pytest
from msgspec import structs
from support.model_samples import MODEL, MOVE, OTHER, RECORD

from sleap_rtc_plugin.cli.model_words import (
    COLUMNS,
    details_line,
    details_rows,
    fit_columns,
    model_row,
    moved_words,
    row_line,
    short_id,
)
from sleap_rtc_plugin.protocol.limits import MAX_UNIX_TIME_S
from sleap_rtc_plugin.protocol.model_messages import ModelRow
from sleap_rtc_plugin.protocol.model_records import (
    AliasMove,
    AliasRecord,
    CurvePoint,
    TrainingFacts,
)
from sleap_rtc_plugin.registry.model_registry import ModelDetails

NOW = 1_700_000_000.0 + 7200


def row(**fields: Any) -> ModelRow:
    values: dict[str, Any] = {
        "id": MODEL,
        "type": "centered_instance",
        "name": "flies",
        "size_bytes": 11_749_326,
        "published_at": NOW - 60,
    }
    return ModelRow(**(values | fields))


def cells(**fields: Any) -> dict[str, str]:
    return dict(zip(COLUMNS, model_row(row(**fields), NOW), strict=True))


def details(**fields: Any) -> ModelDetails:
    record = structs.replace(RECORD, **fields)
    moves = [MOVE, AliasMove(model=OTHER, by="bob", at=NOW - 86_400 * 3)]
    curve = [CurvePoint(epoch=n, train=None, val=1 / (n + 1)) for n in range(4)]
    return ModelDetails(
        record=record,
        aliases={"flies-v1": AliasRecord(model=MODEL, moves=moves)},
        curves=[curve, curve[:1]],
    )


def page(of: ModelDetails) -> dict[str, str]:
    return dict(details_rows(of, NOW))


def test_a_row() -> None:
    found = cells(
        aliases=["a", "b"],
        trained_at=NOW - 7200,
        trained_by="ann@laptop",
        published_by="bob@desk",
        best_loss=0.0161,
        workers=["gpu-1", "gpu-2"],
        tags=["fly"],
    )
    assert found == {
        "Alias": "a, b",
        "Type": "centered instance",
        "Id": "00112233",
        "Age": "2 h",
        "By": "ann",
        "Loss": "0.016",
        "Size": "11.7 MB",
        "Workers": "gpu-1, gpu-2",
        "Tags": "fly",
    }


def test_a_row_of_what_little_is_known() -> None:
    found = cells(published_by="bob@desk")
    assert (found["Alias"], found["Age"], found["By"]) == ("(flies)", "1 min", "bob")
    assert (found["Loss"], found["Workers"], found["Tags"]) == ("", "", "")


def test_a_clock_ahead_of_ours() -> None:
    assert cells(published_at=NOW + 500)["Age"] == "0 s"


def test_rows_are_json_with_every_field() -> None:
    line = json.loads(json.dumps(row_line(row())))
    assert line["aliases"] == line["tags"] == []
    assert (line["best_loss"], line["trained_at"]) == (None, None)


# -- tables --------------------------------------------------------------------------


def shown(width: int, *rows: ModelRow) -> tuple[int, dict[str, int]]:
    texts = [model_row(one, NOW) for one in rows]
    gap, columns = fit_columns(texts, width)
    total = sum(width_ for _, width_ in columns) + gap * (len(columns) - 1)
    assert total <= width
    return gap, {COLUMNS[index]: width_ for index, width_ in columns}


FULL = row(
    aliases=["flies-2026-best"],
    trained_by="ann@laptop",
    best_loss=0.0161,
    workers=["gpu-1", "gpu-2"],
    tags=["fly", "top-view"],
)


def test_a_wide_terminal_shows_everything_in_one_line() -> None:
    gap, columns = shown(140, FULL)
    assert gap == 2
    assert list(columns) == list(COLUMNS)
    assert columns["Workers"] == len("gpu-1, gpu-2")
    assert columns["Tags"] == len("fly, top-view")


def test_eighty_columns_show_every_column() -> None:
    gap, columns = shown(80, FULL)
    assert gap == 1
    assert list(columns) == list(COLUMNS)
    assert columns["Alias"] >= len("flies-2026-best")


@pytest.mark.parametrize("width", [70, 60, 50, 40, 34])
def test_a_narrow_terminal_keeps_alias_id_and_age(width: int) -> None:
    _, columns = shown(width, FULL)
    assert {"Alias", "Id", "Age"} <= set(columns)


def test_a_terminal_too_narrow_for_anything() -> None:
    assert fit_columns([model_row(FULL, NOW)], 5)[1]


def test_columns_that_nothing_stands_in_are_left_out() -> None:
    _, columns = shown(140, row())
    assert list(columns) == ["Alias", "Type", "Id", "Age", "Size"]


# -- one model -----------------------------------------------------------------------


def test_a_page() -> None:
    found = page(details())
    assert found["Model"] == MODEL
    assert found["Aliases"].splitlines() == [
        "flies-v1, by ann@laptop 2 h ago",
        "  before: 99887766, by bob 3 d ago",
    ]
    assert found["Parts"].splitlines() == [
        "flies.centroid (centroid)",
        "flies.instance (centered_instance)",
    ]
    assert found["Trained"].endswith(
        "(2 h ago) by ann@laptop on gpu-1, in 26 s"  # 25.5 s, rounded to the even one
    )
    assert found["Loss"] == "best 0.125 in epoch 2 of 3, last 0.25"
    # A curve of one point is none.
    assert found["Curve"] == "█▅▂▁ 1 → 0.25 (centroid)"
    assert found["Skeleton"] == "2 nodes: head, thorax"
    assert found["Labels"] == f"BLAKE3 {'cd' * 32}"
    assert found["Files"] == "4, 4.0 kB"
    assert (found["Held by"], found["Tags"]) == ("gpu-1", "fly, top-view")


def test_a_page_says_nothing_of_what_is_not_known() -> None:
    bare = ModelDetails(
        record=structs.replace(
            RECORD,
            trained_at=None,
            trained_by="",
            trained_on="",
            published_by="",
            workers=[],
            notes="",
            tags=[],
            training=TrainingFacts(),
        ),
        aliases={},
    )
    assert list(page(bare)) == ["Model", "Name", "Type", "Parts", "Published", "Files"]


def test_a_time_at_the_end_of_the_calendar() -> None:
    assert page(details(trained_at=MAX_UNIX_TIME_S, published_at=0.0))["Published"]


def test_a_curve_of_losses_that_nobody_has() -> None:
    curve = [
        CurvePoint(epoch=0, train=None, val=None),
        CurvePoint(epoch=1, train=-1.0, val=None),
        CurvePoint(epoch=2, train=1e300, val=0.0),
        CurvePoint(epoch=3, train=None, val=5e-324),
    ]
    odd = ModelDetails(record=RECORD, aliases={}, curves=[curve, []])
    assert "(centroid)" in page(odd)["Curve"]


def test_a_page_is_json_with_every_field() -> None:
    line = json.loads(json.dumps(details_line(details())))
    assert line["aliases"]["flies-v1"]["moves"][1]["model"] == OTHER
    assert line["curves"][0][0] == {"epoch": 0, "train": None, "val": 1.0}
    assert line["training"]["best_epoch"] == 1


def test_what_became_of_an_alias() -> None:
    record = details().aliases["flies-v1"]
    assert moved_words("flies-v1", None) == "The alias flies-v1 is gone."
    first = AliasRecord(model=MODEL, moves=record.moves[:1])
    assert moved_words("flies-v1", first) == f"flies-v1 is {MODEL} now."
    moved = f"flies-v1 is {MODEL} now; it was {OTHER} before."
    assert moved_words("flies-v1", record) == moved
    gone = AliasMove(model=None, by="ann", at=1.0)
    back = AliasRecord(model=MODEL, moves=[record.moves[0], gone])
    assert moved_words("flies-v1", back) == f"flies-v1 is {MODEL} now."


def test_short_ids() -> None:
    assert short_id(MODEL) == "00112233"
