import copy
from typing import Any

import pytest
import yaml

from sleap_rtc_plugin.protocol.errors import ConfigRefused
from sleap_rtc_plugin.protocol.limits import MAX_CONFIG_DEPTH, MAX_CONFIG_NODES
from sleap_rtc_plugin.protocol.messages import TrainStep
from sleap_rtc_worker.config_yaml import YamlFault, dump_config, load_config
from sleap_rtc_worker.training_config import (
    GuardedConfig,
    guard_model_config,
    guard_training_config,
)

RUN_NAME = "261122_074257.centroid.n=24"
STEP = TrainStep(
    config="centroid.yaml", labels="flies.pkg.slp", run_name=RUN_NAME, head="centroid"
)
MEMBERS = {
    "flies.pkg.slp",
    "centroid.yaml",
    "val.slp",
    "weights/best.ckpt",
    "weights/best.h5",
    "clip.mp4",
    "facebook/model/config.json",
}
# The shape of what SLEAP exports, shortened.
STOCK = f"""\
data_config:
  train_labels_path:
  - flies.pkg.slp
  val_labels_path: null
  validation_fraction: 0.1
  test_file_path: null
  provider: LabelsReader
  cache_img_path: null
  use_existing_imgs: false
  cache_workers: 0
  preprocessing:
    scale: 1.0
    crop_size: null
  skeletons: []
model_config:
  init_weights: default
  pretrained_backbone_weights: null
  pretrained_head_weights: null
  backbone_config:
    unet:
      filters: 8
    convnext: null
    pretrained: null
trainer_config:
  train_data_loader:
    batch_size: 4
    num_workers: 0
  val_data_loader:
    num_workers: auto
  model_ckpt:
    monitor: val/loss
  trainer_devices: 1
  trainer_device_indices: null
  trainer_accelerator: auto
  profiler: null
  trainer_strategy: auto
  viz_img_format: png
  seed: 7
  use_wandb: false
  save_ckpt: true
  ckpt_dir: models
  run_name: {RUN_NAME}
  resume_ckpt_path: null
  wandb:
    entity: null
    project: null
    api_key: null
    wandb_mode: null
    viz_box_size: 5.0
  optimizer:
    lr: 0.0001
  lr_scheduler:
    reduce_lr_on_plateau:
      threshold: 1.0e-06
  zmq:
    controller_port: null
    controller_polling_timeout: 10
    publish_port: null
name: ''
description: ''
sleap_nn_version: 0.0.1
filename: ''
"""


def changed(dotted: str, value: Any) -> str:
    config = copy.deepcopy(yaml.safe_load(STOCK))
    *parents, key = dotted.split(".")
    section = config
    for parent in parents:
        if section.get(parent) is None:
            section[parent] = {}
        section = section[parent]
    section[key] = value
    return yaml.safe_dump(config, sort_keys=False)


def guard(text: str, **options: Any) -> GuardedConfig:
    return guard_training_config(text, STEP, MEMBERS, **options)


def setting(guarded: GuardedConfig, dotted: str) -> Any:
    value: Any = load_config(guarded.text)
    for key in dotted.split("."):
        value = value[key]
    return value


def test_a_stock_configuration_passes_unchanged() -> None:
    guarded = guard(STOCK)
    assert guarded.text == STOCK
    assert guarded.changes == ()
    assert guarded.weights == ()


@pytest.mark.parametrize(
    ("dotted", "value", "becomes"),
    [
        ("data_config.train_labels_path", None, ["flies.pkg.slp"]),
        ("data_config.train_labels_path", ["/home/a/b.slp"], ["flies.pkg.slp"]),
        ("data_config.cache_img_path", "/tmp/cache", None),  # noqa: S108
        ("trainer_config.ckpt_dir", None, "models"),
        ("trainer_config.ckpt_dir", "", "models"),
        ("trainer_config.run_name", "../../x", RUN_NAME),
        ("trainer_config.run_name", None, RUN_NAME),
        ("trainer_config.use_wandb", True, False),
        ("trainer_config.wandb.api_key", "secret", None),
        ("trainer_config.wandb.entity", "lab", None),
        ("trainer_config.wandb.prv_runid", "x", None),
        ("trainer_config.zmq.publish_port", 9001, None),
        ("trainer_config.zmq.controller_port", 22, None),
        ("trainer_config.trainer_device_indices", [1], None),
        ("trainer_config.train_data_loader.num_workers", 1000, 16),
        ("data_config.cache_workers", 1000, 16),
    ],
)
def test_what_belongs_to_the_worker_is_set(
    dotted: str, value: Any, becomes: Any
) -> None:
    guarded = guard(changed(dotted, value))
    assert setting(guarded, dotted) == becomes
    assert guarded.changes == (dotted,)


def test_what_is_missing_and_must_be_is_added() -> None:
    text = "data_config: {}\nmodel_config: {}\ntrainer_config: {save_ckpt: true}\n"
    guarded = guard(text)
    assert setting(guarded, "data_config.train_labels_path") == ["flies.pkg.slp"]
    assert setting(guarded, "trainer_config.ckpt_dir") == "models"
    assert setting(guarded, "trainer_config.run_name") == RUN_NAME
    assert setting(guarded, "trainer_config.use_wandb") is False


@pytest.mark.parametrize(
    ("dotted", "value", "weights"),
    [
        ("data_config.val_labels_path", ["val.slp"], ()),
        ("data_config.val_labels_path", [], ()),
        ("data_config.test_file_path", "clip.mp4", ()),
        ("data_config.test_file_path", ["clip.mp4", "val.slp"], ()),
        (
            "model_config.pretrained_backbone_weights",
            "weights/best.ckpt",
            ("weights/best.ckpt",),
        ),
        (
            "model_config.pretrained_head_weights",
            "weights/best.h5",
            ("weights/best.h5",),
        ),
        (
            "trainer_config.resume_ckpt_path",
            "weights/best.ckpt",
            ("weights/best.ckpt",),
        ),
        ("trainer_config.profiler", "simple", ()),
        ("trainer_config.model_ckpt.monitor", "eval/val/mOKS", ()),
        ("trainer_config.max_epochs", 10_000, ()),
        ("data_config.skeletons", [{"nodes": [{"name": "head/left"}]}], ()),
        ("filename", "/home/scientist/centroid.yaml", ()),
        ("description", "see https://example.org/~me", ()),
    ],
)
def test_what_is_allowed_passes(
    dotted: str, value: Any, weights: tuple[str, ...]
) -> None:
    guarded = guard(changed(dotted, value))
    assert setting(guarded, dotted) == value
    assert guarded.weights == weights
    assert guarded.changes == ()


@pytest.mark.parametrize(
    ("dotted", "value"),
    [
        ("data_config.train_labels_path", ["a.slp", "b.slp"]),
        ("data_config.val_labels_path", ["/etc/passwd"]),
        ("data_config.val_labels_path", ["../val.slp"]),
        ("data_config.val_labels_path", ["not-there.slp"]),
        ("data_config.val_labels_path", "val.slp"),
        ("data_config.val_labels_path", ["clip.mp4"]),
        ("data_config.val_labels_path", ["s3://bucket/val.slp"]),
        ("data_config.test_file_path", "https://example.org/x.slp"),
        ("data_config.test_file_path", {"a": "b"}),
        ("data_config.test_file_path", ["clip.mp4"] * 1000),
        ("data_config.use_existing_imgs", True),
        ("data_config.preprocessing.other_path", "clip.mp4"),
        ("data_config.provider", "/etc"),
        ("model_config.pretrained_backbone_weights", "/home/a/best.ckpt"),
        ("model_config.pretrained_backbone_weights", "clip.mp4"),
        ("model_config.pretrained_head_weights", "C:\\best.ckpt"),
        ("model_config.init_weights", "weights/best.ckpt"),
        ("model_config.backbone_config.convnext.pre_trained_weights", "ConvNeXt_Tiny"),
        ("model_config.backbone_config.swint.pre_trained_weights", "Swin_T_Weights"),
        ("model_config.backbone_config.pretrained.model_name", "facebook/x"),
        ("trainer_config.ckpt_dir", "."),
        ("trainer_config.ckpt_dir", "/srv/models"),
        ("trainer_config.ckpt_dir", "../models"),
        ("trainer_config.save_ckpt", False),
        ("trainer_config.resume_ckpt_path", "last"),
        ("trainer_config.resume_ckpt_path", "weights/best.h5"),
        ("trainer_config.profiler", "pytorch"),
        ("trainer_config.trainer_strategy", "deepspeed"),
        ("trainer_config.trainer_accelerator", "tpu"),
        ("trainer_config.train_data_loader.num_workers", -1),
        ("trainer_config.train_data_loader.num_workers", True),
        ("trainer_config.train_data_loader.num_workers", "many"),
        ("trainer_config.callbacks", ["mine"]),
        ("trainer_config._target_", "os.system"),
        ("trainer_config.optimizer._target_", "x"),
        ("trainer_config.wandb.dir", "logs"),
        ("trainer_config.optimizer_name", "file:///x"),
        ("trainer_config.model_ckpt.monitor", "a/../../b"),
        ("trainer_config.zmq", "tcp"),
        ("trainer_config.wandb", ["x"]),
        ("hydra", {"run": {"dir": "/srv"}}),
        ("defaults", ["other"]),
        ("other_section", {}),
        ("model_config", None),
        ("data_config", []),
    ],
)
def test_what_a_worker_does_not_do_is_refused(dotted: str, value: Any) -> None:
    with pytest.raises(ConfigRefused) as caught:
        guard(changed(dotted, value))
    assert caught.value.config == "centroid.yaml"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("dotted", "value"),
    [
        ("description", "${oc.env:AWS_SECRET_ACCESS_KEY}"),
        ("name", "a ${name}"),
        ("trainer_config.wandb.project", "${oc.env:HOME}"),
        ("data_config.skeletons", [["${x}"]]),
        ("data_config.skeletons", [{"a": [["b", "${oc.env:HOME}"]]}]),
        ("data_config.skeletons", [{"${x}": 1}]),
        ("trainer_config.seed", "${oc.decode:7}"),
    ],
)
def test_references_are_refused_everywhere(dotted: str, value: Any) -> None:
    with pytest.raises(ConfigRefused):
        guard(changed(dotted, value), allow_wandb=True)


def test_the_labels_must_be_in_the_package() -> None:
    with pytest.raises(ConfigRefused):
        guard_training_config(STOCK, STEP, {"other.slp"})


def test_wandb_passes_where_the_user_asked_for_it() -> None:
    config = yaml.safe_load(STOCK)
    config["trainer_config"]["use_wandb"] = True
    config["trainer_config"]["wandb"] |= {
        "entity": "lab",
        "project": "flies",
        "api_key": "0123456789abcdef",
        "wandb_mode": "offline",
    }
    text = yaml.safe_dump(config, sort_keys=False)
    guarded = guard(text, allow_wandb=True)
    assert load_config(guarded.text) == config
    config["trainer_config"]["wandb"]["wandb_mode"] = "shared"
    with pytest.raises(ConfigRefused):
        guard(yaml.safe_dump(config), allow_wandb=True)
    config["trainer_config"]["wandb"]["wandb_mode"] = None
    config["trainer_config"]["wandb"]["entity"] = "https://example.org"
    with pytest.raises(ConfigRefused):
        guard(yaml.safe_dump(config), allow_wandb=True)


def test_downloads_pass_where_the_worker_allows_them() -> None:
    convnext = "model_config.backbone_config.convnext.pre_trained_weights"
    guarded = guard(changed(convnext, "ConvNeXt_Tiny_Weights"), allow_downloads=True)
    assert setting(guarded, convnext) == "ConvNeXt_Tiny_Weights"
    with pytest.raises(ConfigRefused):
        guard(changed(convnext, "../x"), allow_downloads=True)
    name = "model_config.backbone_config.pretrained.model_name"
    guard(changed(name, "facebook/dinov2-small"), allow_downloads=True)
    for local in ("facebook/model", "./model", "/models/x", "model", "a/b/c"):
        with pytest.raises(ConfigRefused):
            guard(changed(name, local), allow_downloads=True)


def test_a_models_own_configuration_may_name_far_places() -> None:
    text = "data_config:\n  train_labels_path:\n  - /home/scientist/flies.slp\n"
    guard_model_config(text, "models/a/training_config.yaml")
    with pytest.raises(ConfigRefused):
        guard_model_config(text + "name: ${oc.env:HOME}\n", "a.yaml")
    with pytest.raises(ConfigRefused):
        guard_model_config("{", "a.yaml")


# -- YAML itself -------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        "just text",
        "- a list",
        "a: &x 1\nb: *x\n",
        "a: &x [1, 2]\nb: [*x, *x]\n",
        "a: !!python/object/apply:os.system ['true']\n",
        "a: !!binary aGVsbG8=\n",
        "a: !custom 1\n",
        "a: !!python/object/apply:pathlib.Path ['/etc']\n",
        "a: 1\n---\nb: 2\n",
        "a: 1\na: 2\n",
        "1: a\n",
        "true: a\n",
        "null: a\n",
        "? [a, b]\n: c\n",
        "a: {b: [}\n",
        "a: " + "[" * (MAX_CONFIG_DEPTH + 1) + "]" * (MAX_CONFIG_DEPTH + 1),
        "a: " + "[" * 100_000,
        "a: [" + "1, " * (MAX_CONFIG_NODES + 1) + "]",
        "a: " + "9" * 5000,
        "a: " + "9" * 30,
        "a: " + "x" * 20_000,
        "a: \x00",
        "a: \ud800",
        "a: " + "'" + "x" * (2 * 1024 * 1024) + "'",
    ],
)
def test_what_is_no_configuration_is_refused(text: str) -> None:
    with pytest.raises(YamlFault):
        load_config(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1.0e-06", 1e-06),
        ("'1e-4'", "1e-4"),
        ("2024-01-01", "2024-01-01"),
        ("yes", True),
        ("'yes'", "yes"),
        ("~", None),
        ("0.1", 0.1),
        ("-0", 0),
        (".inf", float("inf")),
        ("261122_074257.centroid.n=24", "261122_074257.centroid.n=24"),
    ],
)
def test_values_are_read_as_omegaconf_reads_them_and_written_back(
    text: str, value: object
) -> None:
    loaded = load_config(f"a: {text}\n")
    assert loaded == {"a": value}
    assert load_config(dump_config(loaded)) == loaded
