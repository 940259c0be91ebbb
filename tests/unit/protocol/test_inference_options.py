import shlex

import pytest

from sleap_rtc_plugin.protocol.errors import OptionRefused
from sleap_rtc_plugin.protocol.inference_options import (
    check_options,
    parse_argv,
    to_argv,
)

SCRIPT_LINE = (
    "sleap predict --gui --data_path /home/scientist/project/flies.slp "
    "--only_suggested_frames --model_paths models/a.centroid.n=24 "
    "--model_paths models/a.centered_instance.n=24 "
    "-o flies.predictions.slp --exclude_user_labeled"
)
# What a worker must never be told: files, addresses, devices, processes.
NEVER = [
    "--headers={}",
    "--stream-mode=x",
    "--stream_mode=x",
    "--stream-to-file=x.slp",
    "--write-interval=5",
    "--overlay_path=x.png",
    "--overlay-path=x.png",
    "--backbone_ckpt_path=x.ckpt",
    "--head_ckpt_path=x.ckpt",
    "--output_format=analysis_h5",
    "--runtime=onnx",
    "--mask_backend=sam",
    "--sam-checkpoint=x",
    "--sam3_model_id=evil/model",
    "--unknown",
    "--unknown=1",
]


def test_the_line_of_a_stock_package_is_read() -> None:
    parsed = parse_argv(shlex.split(SCRIPT_LINE))
    assert parsed.data_path == "/home/scientist/project/flies.slp"
    assert parsed.model_paths == (
        "models/a.centroid.n=24",
        "models/a.centered_instance.n=24",
    )
    assert parsed.output_path == "flies.predictions.slp"
    assert parsed.options == {"only_suggested_frames": "", "exclude_user_labeled": ""}


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (["--frames", "79"], {"frames": "79"}),
        (["--frames=0-99"], {"frames": "0-99"}),
        (["--frames", "0,-99"], {"frames": "0,-99"}),
        (["--frames", "1,2,3"], {"frames": "1,2,3"}),
        (["--video_index", "0"], {"video_index": "0"}),
        (["-n", "2"], {"max_instances": "2"}),
        (["-n2"], {"max_instances": "2"}),
        (["-b", "8", "-t"], {"batch_size": "8", "tracking": ""}),
        (["--peak-conf-threshold", ".5"], {"peak_threshold": ".5"}),
        (["--peak_threshold=1e-4"], {"peak_threshold": "1e-4"}),
        (["--min_line_scores", "-0.5"], {"min_line_scores": "-0.5"}),
        (["--no-ensure_rgb"], {"no-ensure_rgb": ""}),
        (["--no-mask-cleanup"], {"no-mask_cleanup": ""}),
        (["--centroid-only"], {"centroid_only": ""}),
        (["--no_empty_frames"], {"no_empty_frames": ""}),
        (["--device", "cuda:1", "--gui"], {}),
        (["--device=cuda:1", "--paf-workers", "4", "--cpu-workers=2"], {}),
        (
            ["--mot_param", "preset=paper", "--mot_param", "gallery_size=50"],
            {"mot_param": "preset=paper,gallery_size=50"},
        ),
        (["--appearance_threshold", "auto"], {"appearance_threshold": "auto"}),
        (["sleap-nn", "track", "--tracking"], {"tracking": ""}),
        (["/usr/bin/sleap-nn", "predict"], {}),
    ],
)
def test_options_are_read(words: list[str], options: dict[str, str]) -> None:
    assert parse_argv(words).options == options


@pytest.mark.parametrize("word", NEVER)
def test_what_is_the_workers_to_decide_is_refused(word: str) -> None:
    with pytest.raises(OptionRefused):
        parse_argv([word])
    name, _, value = word.removeprefix("--").partition("=")
    with pytest.raises(OptionRefused):
        check_options({name: value})
    with pytest.raises(OptionRefused):
        check_options({name.replace("-", "_"): value})


@pytest.mark.parametrize(
    "name",
    ["data_path", "model_paths", "output_path", "device", "gui", "headers", "", "-o"],
)
def test_places_are_no_options(name: str) -> None:
    with pytest.raises(OptionRefused):
        to_argv({name: "x"})


@pytest.mark.parametrize(
    "words",
    [
        ["--batch_size"],
        ["--batch_size", "0"],
        ["--batch_size", "1e9"],
        ["--batch_size", "--gui"],
        ["--tracking=1"],
        ["--peak_threshold", "nan"],
        ["--peak_threshold", "inf"],
        ["--peak_threshold", "1e400"],
        ["--frames", "1-3,5"],
        ["--frames", "-5"],
        ["--frames", "1;2"],
        ["--tracker", "evil"],
        ["--max_instances", "two"],
        ["--max_instances", "\u0661"],
        ["--data_path", "a", "--data_path", "b"],
        ["--batch_size=1", "--batch_size=2"],
        ["stray"],
        ["-x"],
        ["--"],
        ["--mot_param", "a=b --gui"],
        ["--frames", ",".join(["1"] * 5000)],
    ],
)
def test_bad_values_are_refused(words: list[str]) -> None:
    with pytest.raises(OptionRefused) as caught:
        parse_argv(words)
    assert str(caught.value).count("\n") == 0


def test_the_same_option_twice_is_once() -> None:
    assert parse_argv(["-t", "-t", "-n1", "-n1"]).options == {
        "tracking": "",
        "max_instances": "1",
    }


def test_a_value_cannot_become_an_option() -> None:
    argv = to_argv({"min_line_scores": "-1", "tracking": "", "anchor_part": "--gui"})
    assert argv == ["--min_line_scores=-1", "--tracking", "--anchor_part=--gui"]


def test_what_is_rebuilt_reads_the_same() -> None:
    options = {
        "mot_param": "preset=paper,gallery_size=50",
        "no-ensure_rgb": "",
        "frames": "0-9",
        "integral_refinement": "None",
    }
    argv = to_argv(options)
    assert argv.count("--mot_param=preset=paper") == 1
    assert parse_argv(argv).options == options


def test_too_many_options_are_refused() -> None:
    with pytest.raises(OptionRefused):
        check_options({f"option{number}": "" for number in range(1000)})
