"""Which YAML is accepted, and that taking out a key changes nothing else."""

from pathlib import Path

import pytest
import yaml

from sleap_rtc_plugin.protocol.errors import ConfigRefused
from sleap_rtc_plugin.protocol.limits import MAX_CONFIG_BYTES
from sleap_rtc_plugin.transport.package_configs import (
    parse_yaml,
    read_training_config,
    without_wandb_key,
)

BOMB = b"a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n"


def test_plain_values() -> None:
    text = b"\xef\xbb\xbfa: 1\nb: [x, null, 1.0e-06]\n"
    assert parse_yaml(text, "c.yaml") == {"a": 1, "b": ["x", None, 1e-6]}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"a: [1", "it is not YAML ("),
        (b"\x00\x01", "it is not YAML ("),
        (b"\xff\xfe\x41", "it is not UTF-8 text"),
        (BOMB, "it uses YAML aliases"),
        (b"[" * 33 + b"]" * 33, "it is nested deeper or longer"),
        (b"[" * 100_000, "it is nested deeper or longer"),
        (b"- 1\n" * 50_001, "it is nested deeper or longer"),
        (b"a: 1\n---\nb: 2\n", "it is nested deeper or longer"),
        (b"#" * (MAX_CONFIG_BYTES + 1), "it is larger than 1 MiB"),
        (b"a: 1\na: 2\n", "it has the key a twice"),
        (b"!!python/object/apply:os.system ['true']", "could not determine a constr"),
        (b"a: 2020-13-45", "it is not YAML (month must be"),
        (b"a: " + b"9" * 5000, "it is not YAML ("),
        (b"? [a]\n: b", "it is not YAML ("),
    ],
)
def test_refused(data: bytes, words: str) -> None:
    with pytest.raises(ConfigRefused) as caught:
        parse_yaml(data, "c.yaml")
    assert words in str(caught.value)
    assert "configuration c.yaml is not accepted" in str(caught.value)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("wandb:\n  api_key: s3cret\n  b: 1\n", "wandb:\n  api_key: null\n  b: 1\n"),
        ("w:\r\n  api_key: 's3'  # mine\r\n", "w:\r\n  api_key: null  # mine\r\n"),
        ('{a: "x", api_key: "s3", c: 1.0e-06}', '{a: "x", api_key: null, c: 1.0e-06}'),
        ("api_key: |\n  s3\n  cret\nb: 1\n", "api_key: null\nb: 1\n"),
        ("- WANDB_API_KEY: 12\n- api_key: s", "- WANDB_API_KEY: null\n- api_key: null"),
        ("\ufeffapi_key: s\n", "\ufeffapi_key: null\n"),
        ("api_key:\n  a: s3\nb: é\n", "api_key:\n  nullb: é\n"),
    ],
)
def test_key_is_taken_out_and_nothing_else(before: str, after: str) -> None:
    edited = without_wandb_key(before.encode(), "c.yaml")
    assert edited is not None
    assert b"s3" not in edited
    if "nullb" in after:  # an odd form: the meaning counts
        assert yaml.safe_load(edited) == {"api_key": None, "b": "é"}
    else:
        assert edited.decode() == after


@pytest.mark.parametrize(
    "text", ["", "a: 1", "api_key: null", "api_key:", "api_key: ''"]
)
def test_no_key(text: str) -> None:
    assert without_wandb_key(text.encode(), "c.yaml") is None


def head(heads: object) -> dict[str, object]:
    return {"model_config": {"head_configs": heads}}


def test_what_a_configuration_says() -> None:
    value = {
        "data_config": {"train_labels_path": "a.slp", "val_labels_path": ["b.slp"]},
        **head({"centroid": {}, "bottomup": None}),
        "trainer_config": {"run_name": "r", "resume_ckpt_path": "w.ckpt"},
    }
    config = read_training_config(value, "c.yaml")
    assert config.head == "centroid"
    assert config.labels == ("a.slp",)
    assert config.other_labels == ("b.slp",)
    assert config.weights == ("w.ckpt",)
    assert config.run_name == "r"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], "it has no model_config.head_configs"),
        (head({}), "it must choose one head and chooses none"),
        (head({"a": 1, "b": 2}), "it must choose one head and chooses a, b"),
        (head({"../x": 1}), "it must choose one head"),
        ({**head({"a": 1}), "data_config": 3}, "its data_config is not a mapping"),
        (
            {**head({"a": 1}), "data_config": {"train_labels_path": [3]}},
            "its train_labels_path does not name files",
        ),
    ],
)
def test_refused_configurations(value: object, words: str) -> None:
    with pytest.raises(ConfigRefused) as caught:
        read_training_config(value, "c.yaml")
    assert words in str(caught.value)


def test_demo_configurations_are_accepted() -> None:
    root = Path(__file__).parents[3] / "resources" / "demo"
    heads = {
        read_training_config(parse_yaml(path.read_bytes(), path.name), path.name).head
        for path in root.glob("*.yaml")
    }
    assert heads == {"centroid", "centered_instance"}
