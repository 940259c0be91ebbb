"""Samples of the frames about models and live frames; `wire_samples` has the others."""

from typing import Final

from sleap_rtc_plugin.protocol import live_messages as live
from sleap_rtc_plugin.protocol import messages as m
from sleap_rtc_plugin.protocol import model_messages as models
from sleap_rtc_plugin.protocol import model_records as records
from sleap_rtc_plugin.protocol.errors import StoreUnreachable

JOB: Final = "job-00112233445566778899"
TRANSFER: Final = "transfer-99887766554433221100"
MODEL: Final = "model-00112233445566778899"
OTHER: Final = "model-99887766554433221100"
DIGEST: Final = "ab" * 32
FACTS: Final = records.TrainingFacts(
    dataset_digest="cd" * 32,
    epochs=3,
    best_loss=0.125,
    best_epoch=1,
    final_loss=0.25,
    duration_s=25.5,
    sleap_nn_version="0.3.5",
    skeleton=["head", "thorax"],
)
RECORD: Final = records.ModelRecord(
    id=MODEL,
    type="topdown",
    name="flies",
    parts=[
        records.ModelPart(folder="flies.centroid", head="centroid"),
        records.ModelPart(folder="flies.instance", head="centered_instance"),
    ],
    checkpoint_path="flies.centroid/best.ckpt",
    files=[
        records.ModelFile(path=f"{folder}/{name}", size_bytes=1_000, digest=DIGEST)
        for folder in ("flies.centroid", "flies.instance")
        for name in (records.CHECKPOINT, records.MODEL_CONFIG)
    ],
    size_bytes=4_000,
    trained_at=1700000000.0,
    trained_by="ann@laptop",
    trained_on="gpu-1",
    published_at=1700000001.0,
    published_by="ann@laptop",
    workers=["gpu-1"],
    notes="Trained on the first half.",
    tags=["fly", "top-view"],
    training=FACTS,
)
MOVE: Final = records.AliasMove(model=MODEL, by="ann@laptop", at=1700000002.0)
PUBLICATION: Final = records.Publication(
    alias="flies-v1", moves_alias=True, notes="Good on males.", tags=["fly"]
)
PUBLISHING: Final = m.JobSpec(
    name="flies",
    steps=[
        m.TrainStep(
            config="robot.yaml", labels="robot.pkg.slp", run_name="r", head="centroid"
        ),
        m.PredictStep(data="fly.mp4", published=MODEL, output="fly.predictions.slp"),
    ],
    publish=PUBLICATION,
)

CONTROL: Final[list[m.ControlMessage]] = [
    m.JobSubmit(
        command_id="c-1",
        job_id=JOB,
        spec=PUBLISHING,
        package_digest=DIGEST,
        package_bytes=7,
    ),
    m.ModelPublished(
        job_id=JOB, seq=12, at=1700000003.0, model=MODEL, alias="flies-v1"
    ),
    m.ModelPublished(
        job_id=JOB,
        seq=12,
        at=1700000003.0,
        error=StoreUnreachable(store="s3://lab", reason="it timed out").to_wire(),
    ),
    m.FileMeta(
        transfer_id=TRANSFER,
        stream=2,
        job_id=MODEL,
        purpose="model",
        manifest_bytes=321,
        manifest_digest=DIGEST,
        total_bytes=4_000,
        file_count=4,
    ),
    models.ModelList(command_id="c-30"),
    models.ModelList(
        command_id="c-31",
        filter=records.ModelFilter(type="topdown", tag="fly", worker="gpu-1"),
        after=OTHER,
    ),
    models.ModelListed(
        command_id="c-30",
        models=[
            models.ModelRow(
                id=MODEL,
                type="topdown",
                name="flies",
                aliases=["flies-v1"],
                size_bytes=4_000,
                published_at=1700000001.0,
                workers=["gpu-1"],
                best_loss=0.125,
            )
        ],
        more=True,
    ),
    models.ModelDescribe(command_id="c-32", model="flies-v1"),
    models.ModelDescribed(
        command_id="c-32",
        record=RECORD,
        aliases={"flies-v1": records.AliasRecord(model=MODEL, moves=[MOVE])},
        curves=[
            [
                records.CurvePoint(epoch=0, train=None, val=0.5),
                records.CurvePoint(epoch=1, train=0.25, val=0.125),
            ],
            [],
        ],
        held=True,
    ),
    models.ModelChange(
        command_id="c-33",
        edit=models.PutAlias(alias="flies-v1", model=MODEL, moves=True, expected=OTHER),
        by="ann@laptop",
    ),
    models.ModelChange(
        command_id="c-34", edit=models.RemoveAlias(alias="flies-v1"), by="ann"
    ),
    models.ModelChange(
        command_id="c-35",
        edit=models.SetTags(model=MODEL, add=["fly"], remove=["mouse"]),
    ),
    models.ModelChange(
        command_id="c-36", edit=models.SetNotes(model="flies-v1", notes="Good.")
    ),
    models.ModelChange(
        command_id="c-37", edit=models.DeleteModel(model=MODEL, force=True)
    ),
    models.ModelChange(command_id="c-38", edit=models.CollectModels()),
    models.ModelChanged(command_id="c-33", record=RECORD, aliases=["flies-v1"]),
    models.ModelChanged(command_id="c-38", files=12, bytes=4_096),
    models.ModelPush(
        command_id="c-39",
        offer=models.ModelOffer(
            id=MODEL,
            name="flies",
            folders=["flies.centroid", "flies.instance"],
            training=FACTS,
            publication=PUBLICATION,
        ),
        total_bytes=4_000,
    ),
    models.ModelCommit(command_id="c-40", model=MODEL, by="ann@laptop"),
    models.ModelFetch(command_id="c-41", model=MODEL),
    live.LiveStart(
        command_id="c-42",
        model="flies-v1",
        width=384,
        height=384,
        channels=1,
        options={"peak_threshold": "0.1"},
    ),
    live.LiveStarted(
        command_id="c-42", nodes=["head", "thorax"], edges=[(0, 1)], device="cpu"
    ),
    live.LiveStop(command_id="c-43"),
    live.LiveReport(
        command_id="c-43", received=198, incomplete=1, superseded=20, predicted=178
    ),
    live.LiveReport(reason="no frame came for 60 s"),
]
