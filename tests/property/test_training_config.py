"""Whatever a client writes, no place outside the package reaches sleap-nn."""

from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc_plugin.protocol.errors import ConfigRefused
from sleap_rtc_plugin.protocol.messages import TrainStep
from sleap_rtc_worker.config_yaml import YamlFault, dump_config, load_config
from sleap_rtc_worker.training_config import guard_training_config

STEP = TrainStep(config="c.yaml", labels="l.slp", run_name="run", head="centroid")
MEMBERS = {"l.slp", "val.slp", "w/best.ckpt", "clip.mp4"}
PLACES = {
    "data_config": ("train_labels_path", "val_labels_path", "test_file_path"),
    "model_config": ("pretrained_backbone_weights", "pretrained_head_weights"),
    "trainer_config": ("resume_ckpt_path",),
}
KEYS = st.sampled_from(
    [
        *(key for keys in PLACES.values() for key in keys),
        "cache_img_path",
        "ckpt_dir",
        "run_name",
        "save_ckpt",
        "use_wandb",
        "wandb",
        "zmq",
        "api_key",
        "publish_port",
        "backbone_config",
        "pretrained",
        "convnext",
        "pre_trained_weights",
        "profiler",
        "num_workers",
        "_target_",
        "description",
        "other",
        "some_path",
    ]
) | st.text(max_size=8)
TEXTS = st.sampled_from(
    [
        *MEMBERS,
        "/etc/passwd",
        "../up",
        "a/../../b",
        "~/x",
        "C:\\x",
        "C:/x",
        "\\\\host\\share",
        "s3://bucket/x",
        "https://example.org/x",
        "file:///etc/passwd",
        "${oc.env:HOME}",
        "$${x}",
        "\\${x}",
        "models",
        "1e-4",
        "2024-01-01",
        "null",
        "yes",
        "",
    ]
) | st.text(max_size=12)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats()
    | TEXTS
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4)
    ),
    max_leaves=12,
)
CONFIGS = st.fixed_dictionaries(
    {name: st.dictionaries(KEYS, VALUES, max_size=5) for name in PLACES},
    optional={"name": TEXTS, "description": TEXTS, "extra": VALUES},
)


def leaves(value: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict):
        return [
            leaf for key, inner in value.items() for leaf in leaves(inner, (*path, key))
        ]
    if isinstance(value, list):
        return [leaf for inner in value for leaf in leaves(inner, path)]
    return [(path, value)]


def is_outside(text: str) -> bool:
    return (
        text.startswith(("/", "\\", "~"))
        or "://" in text
        or text[1:3] in (":\\", ":/")
        or ".." in text.replace("\\", "/").split("/")
    )


@given(CONFIGS, st.booleans(), st.booleans())
def test_no_place_outside_and_no_reference_comes_through(
    config: dict[str, Any], allow_wandb: bool, allow_downloads: bool
) -> None:
    # A configuration that is refused proves nothing, so give most a chance.
    config["trainer_config"].setdefault("save_ckpt", True)
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    try:
        guarded = guard_training_config(
            text,
            STEP,
            MEMBERS,
            allow_wandb=allow_wandb,
            allow_downloads=allow_downloads,
        )
    except ConfigRefused as error:
        assert "\n" not in str(error)
        return
    made = load_config(guarded.text)
    for path, value in leaves(made):
        assert not any("${" in key for key in path)
        if not isinstance(value, str):
            continue
        assert "${" not in value
        if path not in {("name",), ("description",)}:
            assert not is_outside(value), (path, value)
        if path[-1] in PLACES.get(path[0], ()) and len(path) == 2:
            assert value in MEMBERS
    assert made["data_config"]["train_labels_path"] == ["l.slp"]
    assert made["trainer_config"]["ckpt_dir"] == "models"
    assert made["trainer_config"]["run_name"] == "run"
    assert made["trainer_config"]["save_ckpt"] is True
    if not allow_wandb:
        assert made["trainer_config"]["use_wandb"] is False


@given(st.text(max_size=300))
def test_any_text_is_a_configuration_or_refused(text: str) -> None:
    try:
        load_config(text)
    except YamlFault:
        return


@given(st.dictionaries(st.text(max_size=8), VALUES, max_size=4))
def test_what_is_written_reads_the_same(config: dict[str, Any]) -> None:
    try:
        once = dump_config(config)
        read = load_config(once)
    except YamlFault:
        return
    assert dump_config(read) == once
    assert repr(read) == repr(config)
