"""From a package to the job it makes; every bad package has a sentence of its own."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from sleap_rtc_plugin.protocol.errors import (
    ConfigRefused,
    LabelsUnreadable,
    NotAPackage,
    OptionRefused,
    RtcError,
    StorageFailed,
    UnsafeMember,
)
from sleap_rtc_plugin.protocol.messages import PredictStep, TrainStep
from sleap_rtc_plugin.session.package_scripts import predict_commands, train_commands
from sleap_rtc_plugin.session.training_package import (
    TrainingPackage,
    check_labels,
    open_package,
)

Members = dict[str, bytes]
Write = Callable[[Members], Path]
Dump = Callable[[Any], bytes]
SHARED_DATA = Path(__file__).parents[4] / "shared" / "data"
EXPECTED_TRAINING = [
    TrainStep(
        config="centroid.yaml",
        labels="fly.pkg.slp",
        run_name="a.centroid",
        head="centroid",
    ),
    TrainStep(
        config="centered_instance.yaml",
        labels="fly.pkg.slp",
        run_name="b.centered",
        head="centered_instance",
    ),
]
BOTH_MODELS = ["models/a.centroid", "models/b.centered"]


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    return tmp_path / "not yet there" / "work"


def open_it(path: Path, workdir: Path, **options: Any) -> TrainingPackage:
    return open_package(path, workdir, labels_check=lambda _: None, **options)


def refused(kind: type[RtcError], path: Path, workdir: Path) -> str:
    with pytest.raises(kind) as caught:
        open_it(path, workdir)
    assert list(workdir.iterdir()) == []
    return str(caught.value)


def predict_step(package: TrainingPackage) -> PredictStep:
    (step,) = [s for s in package.spec.steps if isinstance(s, PredictStep)]
    return step


# -- what is understood ---------------------------------------------------


def test_zip(members: Members, write_zip: Write, workdir: Path) -> None:
    path = write_zip(members)
    package = open_it(path, workdir)
    assert package.members == tuple(members)
    assert package.total_bytes == sum(len(data) for data in members.values())
    assert package.source == path
    assert package.labels == "fly.pkg.slp"
    assert package.spec.name == "fly"
    assert not package.spec.allow_wandb
    assert package.spec.steps == [
        *EXPECTED_TRAINING,
        PredictStep(
            data="fly.pkg.slp",
            models=BOTH_MODELS,
            output="fly.pkg.slp.predictions.slp",
            options={
                "only_suggested_frames": "",
                "exclude_user_labeled": "",
                "peak_threshold": "0.3",
            },
        ),
    ]
    for name, data in members.items():
        assert (package.root / name).read_bytes() == data


def test_folder_is_used_where_it_lies(
    members: Members, write_folder: Write, workdir: Path
) -> None:
    folder = write_folder({**members, "thesis.docx": b"x", "old.slp.bak": b"x"})
    package = open_it(folder, workdir)
    assert package.root == folder
    assert set(package.members) == set(members)
    assert list(workdir.iterdir()) == []


def test_what_an_earlier_run_left_is_not_sent(
    members: Members, write_folder: Write, workdir: Path
) -> None:
    left = {"models/a.centroid/best.ckpt": b"x", "fly.pkg.slp.predictions.slp": b"x"}
    package = open_it(write_folder({**members, **left}), workdir)
    assert set(package.members) == set(members)


def test_package_zipped_again_by_hand(
    members: Members, write_zip: Write, workdir: Path
) -> None:
    inner = {f"my package/{name}": data for name, data in members.items()}
    package = open_it(write_zip(inner), workdir)
    assert set(package.members) == set(members)
    assert (package.root / "jobs.yaml").is_file()


def test_without_jobs_the_train_script_gives_the_order(
    members: Members, write_zip: Write, workdir: Path
) -> None:
    del members["jobs.yaml"]
    package = open_it(write_zip(members), workdir)
    assert package.spec.steps[:2] == EXPECTED_TRAINING
    assert predict_step(package).data == "fly.pkg.slp"


def test_configurations_and_labels_alone(
    members: Members, write_zip: Write, workdir: Path
) -> None:
    bare = {
        k: v for k, v in members.items() if k.endswith((".slp", "e.yaml", "d.yaml"))
    }
    package = open_it(write_zip(bare), workdir)
    assert package.spec.steps == EXPECTED_TRAINING


@pytest.mark.parametrize("script", [None, b"#!/bin/bash\nrm -rf ~ && sleap predict\n"])
def test_inference_of_jobs_yaml(
    members: Members, write_zip: Write, workdir: Path, script: bytes | None
) -> None:
    del members["inference-script.sh"]
    if script:
        members["inference-script.sh"] = script
    step = predict_step(open_it(write_zip(members), workdir))
    assert step.models == BOTH_MODELS
    assert step.options == {"only_suggested_frames": ""}
    assert step.output == "fly.pkg.slp.predictions.slp"


def test_data_outside_the_package_means_its_labels(
    members: Members,
    jobs: dict[str, Any],
    to_yaml: Dump,
    write_zip: Write,
    workdir: Path,
) -> None:
    jobs["inference"][0]["data_path"] = "fly.slp"
    members["jobs.yaml"] = to_yaml(jobs)
    assert predict_step(open_it(write_zip(members), workdir)).data == "fly.pkg.slp"


def test_exported_on_windows(
    members: Members,
    jobs: dict[str, Any],
    to_yaml: Dump,
    write_zip: Write,
    workdir: Path,
) -> None:
    jobs["training"][0]["run_path"] = "models\\a.centroid"
    members["jobs.yaml"] = to_yaml(jobs)
    script = members["inference-script.sh"].decode().replace("models/", "models\\")
    members["inference-script.sh"] = script.encode()
    package = open_it(write_zip(members), workdir)
    assert package.spec.steps[:2] == EXPECTED_TRAINING
    assert predict_step(package).models == BOTH_MODELS
    assert predict_step(package).options["peak_threshold"] == "0.3"


def test_training_without_inference(
    members: Members,
    jobs: dict[str, Any],
    to_yaml: Dump,
    write_zip: Write,
    workdir: Path,
) -> None:
    jobs["inference"] = []
    members["jobs.yaml"] = to_yaml(jobs)
    del members["inference-script.sh"]
    assert open_it(write_zip(members), workdir).spec.steps == EXPECTED_TRAINING


def test_model_that_lies_in_the_package(
    members: Members,
    jobs: dict[str, Any],
    to_yaml: Dump,
    write_zip: Write,
    workdir: Path,
) -> None:
    del members["inference-script.sh"]
    jobs["inference"][0]["models"] = ["models/old/best.ckpt", "models/b.centered"]
    members["jobs.yaml"] = to_yaml(jobs)
    members["models/old/best.ckpt"] = b"x"
    package = open_it(write_zip(members), workdir)
    assert predict_step(package).models == ["models/old", "models/b.centered"]
    assert "models/old/best.ckpt" in package.members


# -- a Weights & Biases key -----------------------------------------------


@pytest.fixture
def with_key(members: Members, centroid: dict[str, Any], to_yaml: Dump) -> Members:
    centroid["trainer_config"]["wandb"]["api_key"] = "s3cret"
    script = members["train-script.sh"] + b"export WANDB_API_KEY=s3cret\n"
    return {
        **members,
        "centroid.yaml": to_yaml(centroid) + b"# s3creT stays\n",
        "train-script.sh": script,
    }


def sent_bytes(package: TrainingPackage) -> bytes:
    data = b"".join((package.root / name).read_bytes() for name in package.members)
    assert len(data) == package.total_bytes
    return data


@pytest.mark.parametrize("kind", ["zip", "folder"])
def test_key_never_leaves(
    with_key: Members, write_zip: Write, write_folder: Write, workdir: Path, kind: str
) -> None:
    path = (write_zip if kind == "zip" else write_folder)(with_key)
    package = open_it(path, workdir)
    data = sent_bytes(package)
    assert b"s3cret" not in data
    assert b"s3creT stays" in data
    assert package.root != path
    assert "train-script.sh" not in package.members
    if kind == "folder":
        assert b"s3cret" in (path / "centroid.yaml").read_bytes()


def test_key_in_a_model_of_the_package(
    members: Members, write_zip: Write, workdir: Path
) -> None:
    members["models/old/training_config.yaml"] = b"wandb: {api_key: s3cret}\n"
    package = open_it(write_zip(members), workdir)
    assert b"s3cret" not in sent_bytes(package)


def test_key_is_sent_when_asked(
    with_key: Members, write_zip: Write, workdir: Path
) -> None:
    package = open_it(write_zip(with_key), workdir, keep_wandb_key=True)
    assert b"s3cret" in sent_bytes(package)
    assert package.spec.allow_wandb


# -- what is refused ------------------------------------------------------


def test_nothing_there(tmp_path: Path, workdir: Path) -> None:
    with pytest.raises(FileNotFoundError, match="There is no file or folder"):
        open_it(tmp_path / "missing.zip", workdir)


def test_no_configurations(members: Members, write_zip: Write, workdir: Path) -> None:
    del members["centroid.yaml"], members["centered_instance.yaml"]
    words = refused(NotAPackage, write_zip(members), workdir)
    assert "it holds no training configuration" in words
    assert "Export training job package" in words


def test_configurations_of_old_sleap(write_zip: Write, workdir: Path) -> None:
    path = write_zip({"centroid.json": b"{}", "a.pkg.slp": b"x"})
    assert "SLEAP 1.4 or older" in refused(NotAPackage, path, workdir)


def test_empty_folder(write_folder: Write, workdir: Path) -> None:
    path = write_folder({"readme.txt": b"x"})
    assert "no training configuration" in refused(NotAPackage, path, workdir)


def test_no_labels(members: Members, write_zip: Write, workdir: Path) -> None:
    del members["fly.pkg.slp"]
    words = refused(NotAPackage, write_zip(members), workdir)
    assert "it holds no labels" in words


def test_configuration_that_is_not_yaml(
    members: Members, write_zip: Write, workdir: Path
) -> None:
    members["centroid.yaml"] = b"a: [1"
    words = refused(ConfigRefused, write_zip(members), workdir)
    assert "centroid.yaml is not accepted: it is not YAML" in words


def test_huge_configuration_is_not_even_read(
    members: Members, write_zip: Write, workdir: Path
) -> None:
    members["centroid.yaml"] = b"#" * (2 * 1024 * 1024)
    assert "larger than 1 MiB" in refused(ConfigRefused, write_zip(members), workdir)


def test_alias_bomb(members: Members, write_zip: Write, workdir: Path) -> None:
    members["jobs.yaml"] = b"a: &a [1]\nb: [*a, *a]\n"
    assert "YAML aliases" in refused(ConfigRefused, write_zip(members), workdir)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("train_labels_path", ["/home/x/a.slp"], "names the labels /home/x/a.slp, whi"),
        ("val_labels_path", "val.slp", "names the labels val.slp, which are not in"),
        ("train_labels_path", ["other.slp"], "it trains on other.slp, but jobs.yaml"),
    ],
)
def test_labels_that_do_not_fit(
    members: Members,
    centroid: dict[str, Any],
    to_yaml: Dump,
    write_zip: Write,
    workdir: Path,
    key: str,
    value: Any,
    words: str,
) -> None:
    centroid["data_config"][key] = value
    members["centroid.yaml"] = to_yaml(centroid)
    members["other.slp"] = b"x"
    assert words in refused(ConfigRefused, write_zip(members), workdir)


def test_weights_that_are_elsewhere(
    members: Members,
    centroid: dict[str, Any],
    to_yaml: Dump,
    write_zip: Write,
    workdir: Path,
) -> None:
    centroid["model_config"]["pretrained_backbone_weights"] = "/home/x/best.ckpt"
    members["centroid.yaml"] = to_yaml(centroid)
    words = refused(ConfigRefused, write_zip(members), workdir)
    assert "it starts from the weights /home/x/best.ckpt, which are not in" in words


@pytest.mark.parametrize(
    ("run_path", "words"),
    [
        ("../../x", "its run folder ../../x is not models/"),
        ("models/a/b", "its run folder models/a/b is not models/"),
        ("/tmp/x", "its run folder /tmp/x is not models/"),  # noqa: S108 - never made
        ("models/..", "its run name .. leads out of its folder"),
        ("models/nul", "its run name nul is a name that Windows reserves"),
        ("models/run:1", "its run name run:1 has a character"),
        ("models/" + "x" * 201, "has a name longer than 200 bytes"),
        ("models/B.centered", "its run name b.centered is also another model's"),
    ],
)
def test_run_names(
    members: Members,
    jobs: dict[str, Any],
    to_yaml: Dump,
    write_zip: Write,
    workdir: Path,
    run_path: str,
    words: str,
) -> None:
    jobs["training"][0]["run_path"] = run_path
    members["jobs.yaml"] = to_yaml(jobs)
    assert words in refused(ConfigRefused, write_zip(members), workdir)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"training": 3}, "its training is not a list of entries"),
        ({"training": [3]}, "its training is not a list of entries"),
        ({"training": [{"cfg": 3}]}, "its cfg is not text"),
        ({"inference": [{"models": 3}]}, "its inference does not name its models"),
    ],
)
def test_jobs_that_make_no_sense(
    members: Members,
    jobs: dict[str, Any],
    to_yaml: Dump,
    write_zip: Write,
    workdir: Path,
    change: dict[str, Any],
    words: str,
) -> None:
    del members["inference-script.sh"]
    members["jobs.yaml"] = to_yaml(jobs | change)
    assert words in refused(ConfigRefused, write_zip(members), workdir)


def test_jobs_name_a_missing_configuration(
    members: Members, write_zip: Write, workdir: Path
) -> None:
    del members["centroid.yaml"]
    words = refused(NotAPackage, write_zip(members), workdir)
    assert "jobs.yaml names centroid.yaml, which is not" in words


def test_unknown_model(
    members: Members,
    jobs: dict[str, Any],
    to_yaml: Dump,
    write_zip: Write,
    workdir: Path,
) -> None:
    del members["inference-script.sh"]
    jobs["inference"][0]["models"] = ["/home/x/models/old"]
    members["jobs.yaml"] = to_yaml(jobs)
    words = refused(NotAPackage, write_zip(members), workdir)
    assert "uses the model /home/x/models/old, which is neither trained here" in words


def test_ambiguous_without_jobs(
    members: Members, write_zip: Write, workdir: Path
) -> None:
    del members["jobs.yaml"], members["train-script.sh"]
    members["third.yaml"] = members["centroid.yaml"]
    words = refused(NotAPackage, write_zip(members), workdir)
    assert "it has no jobs.yaml and 3 configurations" in words


def test_ambiguous_labels(
    members: Members,
    centroid: dict[str, Any],
    to_yaml: Dump,
    write_zip: Write,
    workdir: Path,
) -> None:
    centroid["data_config"] = {}
    bare = {"centroid.yaml": to_yaml(centroid), "a.slp": b"x", "b.slp": b"x"}
    words = refused(NotAPackage, write_zip(bare), workdir)
    assert "it holds 2 labels files and does not say which" in words


def test_option_that_is_not_known(
    members: Members, write_zip: Write, workdir: Path
) -> None:
    members["inference-script.sh"] = b"sleap predict --headers '{}' -m models/x\n"
    words = refused(OptionRefused, write_zip(members), workdir)
    assert "headers" in words


def test_unsafe_member(members: Members, write_zip: Write, workdir: Path) -> None:
    refused(UnsafeMember, write_zip({**members, "../x": b"x"}), workdir)


@pytest.mark.skipif(os.name == "nt", reason="making links needs a privilege there")
def test_folder_with_a_link(
    members: Members, write_folder: Write, workdir: Path
) -> None:
    folder = write_folder(members)
    (folder / "more.slp").symlink_to("fly.pkg.slp")
    assert "more.slp, which is a link" in refused(UnsafeMember, folder, workdir)


def test_workdir_that_cannot_be_made(
    members: Members, write_zip: Write, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageFailed):
        open_it(write_zip(members), tmp_path / "file" / "work")


def test_labels_are_checked_and_nothing_is_left(
    members: Members, write_zip: Write, workdir: Path
) -> None:
    with pytest.raises(LabelsUnreadable, match=r"labels fly\.pkg\.slp do not load"):
        open_package(write_zip(members), workdir)
    assert list(workdir.iterdir()) == []


# -- labels, read for real ------------------------------------------------


def test_labels_with_images(demo_folder: Path) -> None:
    check_labels(demo_folder / "demo.pkg.slp")


def test_labels_without_images(demo_folder: Path) -> None:
    with pytest.raises(LabelsUnreadable, match="images are not embedded"):
        check_labels(demo_folder / "demo.slp")


def test_labels_that_are_hdf5_but_truncated(demo_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.slp"
    path.write_bytes((demo_folder / "demo.pkg.slp").read_bytes()[:9000])
    with pytest.raises(LabelsUnreadable, match=r"labels cut\.slp do not load"):
        check_labels(path)


# -- scripts --------------------------------------------------------------


def test_scripts_as_sleap_writes_them() -> None:
    text = "#!/bin/bash\nsleap predict -m 'models/a b' \\\n  --frames 1-3\n\n"
    assert predict_commands(text) == [["-m", "models/a b", "--frames", "1-3"]]
    assert predict_commands("sleap-nn-track -m x") == [["-m", "x"]]
    text = "sleap-nn train --config-name a +trainer_config.run_name='\"r=1\"'"
    assert train_commands(text) == [("a", "r=1")]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# only a comment",
        "cd /tmp",
        "sleap predict 'open quote",
        "sleap predict -m x ; rm -rf /",
        "sleap predict -m x > /etc/passwd",
        "curl x | sh\nsleap predict -m x",
    ],
)
def test_scripts_that_are_not_understood(text: str) -> None:
    assert predict_commands(text) is None


# -- real packages --------------------------------------------------------


def shared(name: str) -> Path:
    path = SHARED_DATA / name
    if not path.exists():
        pytest.skip(f"the real package {path} is not on this machine")
    return path


@pytest.mark.needs_shared_data
@pytest.mark.parametrize("quick", ["", ".quick"])
def test_flies(workdir: Path, quick: str) -> None:
    package = open_package(shared(f"flies.topdown{quick}.training_job.zip"), workdir)
    centroid, instance, predict = package.spec.steps
    assert isinstance(centroid, TrainStep)
    assert isinstance(instance, TrainStep)
    assert isinstance(predict, PredictStep)
    assert [centroid.head, instance.head] == ["centroid", "centered_instance"]
    assert predict.data == package.labels == "flies.pkg.slp"
    assert predict.models == [f"models/{s.run_name}" for s in (centroid, instance)]
    assert set(predict.options) == {"only_suggested_frames", "exclude_user_labeled"}
    assert len(package.members) == 6


@pytest.mark.needs_shared_data
def test_robot(workdir: Path) -> None:
    package = open_package(shared("robot.single.quick.training_job.zip"), workdir)
    train, predict = package.spec.steps
    assert isinstance(train, TrainStep)
    assert isinstance(predict, PredictStep)
    assert train.head == "single_instance"
    assert predict.data == "robot.pkg.slp"
    assert predict.options == {"video_index": "0", "frames": "79"}
    assert predict.output == "robot.slp.predictions.slp"


@pytest.mark.needs_shared_data
def test_real_configuration_without_its_key(tmp_path: Path, workdir: Path) -> None:
    import zipfile

    folder = tmp_path / "real"
    with zipfile.ZipFile(shared("robot.single.quick.training_job.zip")) as archive:
        archive.extractall(folder)
    config = folder / "single_instance.yaml"
    clean = config.read_bytes()
    config.write_bytes(clean.replace(b"api_key: null", b"api_key: 0123abcd"))
    package = open_package(folder, workdir)
    assert (package.root / config.name).read_bytes() == clean
    assert yaml.safe_load(config.read_bytes())["trainer_config"]["wandb"]["api_key"]
