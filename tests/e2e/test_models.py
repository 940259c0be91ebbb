"""Models shared on the command line: over a store, and by a worker from home to home.

Real programs and a real folder; the worker needs no trainer for it.
"""

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.programs import Program, Programs
from support.trained_models import write_model

UNREACHABLE, REFUSED, BAD_PACKAGE, USAGE, UNSAFE = 3, 4, 5, 2, 1
# Each of these starts a Python; a busy machine takes its time.
EXIT_S = 60.0


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    folder.mkdir()
    return folder


class Models:
    """`sleap-remote models`, with what each call needs beside its words."""

    def __init__(self, programs: Programs, *where: object, **environment: str) -> None:
        self.programs = programs
        self.where = where
        self.environment = environment

    def __call__(self, *words: object, code: int = 0) -> Program:
        program = self.programs.client(
            "models", *words, *self.where, **self.environment
        )
        assert program.wait(EXIT_S) == code, program.story()
        return program

    def json(self, *words: object, code: int = 0) -> list[dict[str, Any]]:
        return self(*words, "--json", code=code).events

    def refused(self, *words: object, code: int = REFUSED) -> str:
        """Return the sentence of a command that fails."""
        program = self(*words, code=code)
        assert program.out == [], program.story()
        return "\n".join(program.err)


@pytest.fixture
def models(programs: Programs, store: Path) -> Models:
    return Models(programs, "--store", store, "--room", "lab")


def pair(folder: Path) -> list[Path]:
    return [
        write_model(folder / "flies.i", seed=1, head="centered_instance"),
        write_model(folder / "flies.c", seed=2, head="centroid"),
    ]


# -- a store, and no worker anywhere ---------------------------------------------------


def test_the_life_of_a_model(models: Models, tmp_path: Path) -> None:
    assert models("list").err == [
        f"There are no models in the store {models.where[1]}."
    ]
    words = ("--alias", "flies-v1", "--tag", "fly", "--note", "Good on males.")
    pushed = models("push", *pair(tmp_path / "models"), *words)
    assert pushed.err[-1].startswith("Published as flies-v1 (model-")
    [row] = models.json("list")
    model = row["id"]
    assert (row["aliases"], row["type"], row["tags"]) == (
        ["flies-v1"],
        "topdown",
        ["fly"],
    )
    table = models("list").out
    assert table[0].split() == [
        "Alias",
        "Type",
        "Id",
        "Age",
        "By",
        "Loss",
        "Size",
        "Tags",
    ]
    assert table[1].split()[:3] == ["flies-v1", "topdown", model[6:14]]
    assert models("list", "--tag", "mouse").out == []
    assert len(models.json("list", "--alias", "flies", "--type", "topdown")) == 1

    shown = "\n".join(models("show", model[6:12]).out)
    for text in (model, "flies-v1, by ", "flies.c (centroid)", "Good on males."):
        assert text in shown
    assert any("▁" in line for line in shown.splitlines())
    [line] = models.json("show", "flies-v1")
    assert [len(curve) for curve in line["curves"]] == [3, 3]

    models("tag", "flies-v1", "+top-view", "-fly")
    models("note", "flies-v1", "Better.")
    [line] = models.json("show", "flies-v1")
    assert (line["tags"], line["notes"]) == (["top-view"], "Better.")

    home = tmp_path / "project" / "models"
    pulled = models("pull", "flies-v1", "--output", home)
    assert pulled.out == [str(home / "flies.c"), str(home / "flies.i")]
    first, second = models.json("pull", "flies-v1", "--output", home)[-2:]
    assert first["bytes_done"] == first["bytes_total"] == line["size_bytes"]
    assert second["paths"] == pulled.out

    sentence = models.refused("delete", "flies-v1")
    assert f"The model {model} is used as flies-v1;" in sentence
    models("delete", "flies-v1", "--force")
    assert models.json("list") == []
    [line] = models.json("gc")
    # It was just written: whoever pulls it now still can.
    assert line == {"event": "gc", "files": 0, "bytes": 0}


def test_an_alias_moves_with_a_word_and_tells_who_did_it(
    models: Models, tmp_path: Path
) -> None:
    models("push", write_model(tmp_path / "a", seed=1), "--alias", "flies")
    [*_, line] = models.json(
        "push", write_model(tmp_path / "b", seed=2), "--alias", "flies", code=REFUSED
    )
    assert (line["alias"], line["error"]["code"]) == (None, "alias_taken")
    second = line["model"]
    first = {row["id"] for row in models.json("list")} - {second}
    sentence = models.refused("alias", "flies", second)
    assert f"The alias flies belongs to {first.pop()};" in sentence
    assert second in models("alias", "flies", second, "--move").err[-1]
    [line] = models.json("show", "flies")
    assert line["id"] == second
    moves = line["aliases"]["flies"]["moves"]
    assert len(moves) == 2
    assert all("@" in move["by"] or move["by"] for move in moves)
    models("alias", "flies", "--remove")
    assert "There is no model flies" in models.refused("show", "flies")


def test_notes_from_stdin(models: Models, programs: Programs, tmp_path: Path) -> None:
    models("push", write_model(tmp_path / "a"), "--alias", "flies")
    start = programs.environment | {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    argv = [sys.executable, "-m", "sleap_rtc_plugin.cli", "models", "note", "flies"]
    text = "One line.\nAnd another."
    done = subprocess.run(
        [*argv, "-", *map(str, models.where)],
        input=text,
        encoding="utf-8",
        env=start,
        check=True,
        capture_output=True,
        timeout=EXIT_S,
    )
    assert done.stderr == "The notes are written.\n"
    [line] = models.json("show", "flies")
    assert line["notes"] == text


def test_nothing_is_overwritten(models: Models, tmp_path: Path) -> None:
    models("push", write_model(tmp_path / "a"), "--alias", "flies")
    mine = tmp_path / "home" / "a"
    mine.mkdir(parents=True)
    (mine / "best.ckpt").write_text("mine")
    pulled = models("pull", "flies", "--output", tmp_path / "home")
    assert pulled.out == [f"{mine} (2)"]
    assert (mine / "best.ckpt").read_text() == "mine"


@pytest.mark.parametrize("alias", ["Flies", "a b", "../x", "-x", "é", "x" * 65])
def test_odd_aliases(models: Models, tmp_path: Path, alias: str) -> None:
    folder = write_model(tmp_path / "a")
    sentence = models.refused("push", folder, f"--alias={alias}", code=USAGE)
    assert "small letters, digits, dots" in sentence
    assert not (Path(str(models.where[1])) / "lab").exists()


def test_what_is_no_model(models: Models, tmp_path: Path) -> None:
    sentence = models.refused("push", tmp_path / "none", code=BAD_PACKAGE)
    assert "is not a trained model (there is no such folder)" in sentence
    folder = write_model(tmp_path / "a")
    (folder / "best.ckpt").write_bytes(pickle.dumps(os.system))
    sentence = models.refused("push", folder, code=UNSAFE)
    assert "best.ckpt is refused" in sentence
    assert models.json("list") == []


def test_stores_that_cannot_be_used(
    models: Models, programs: Programs, store: Path, tmp_path: Path
) -> None:
    models("push", write_model(tmp_path / "a"), "--alias", "flies")
    [checkpoint] = [
        path
        for path in (store / "lab" / "blobs").iterdir()
        if path.stat().st_size > 2000
    ]
    checkpoint.write_bytes(bytes(checkpoint.stat().st_size))
    home = tmp_path / "home"
    assert "is damaged in the store" in models.refused(
        "pull", "flies", "--output", home
    )
    assert not list(home.rglob("*.ckpt"))
    manifest = store / "lab" / "manifest.json"
    whole = manifest.read_bytes()
    manifest.write_bytes(whole[:-20])
    for words in (["list"], ["alias", "flies", "--remove"], ["gc"]):
        assert "is damaged (it is not JSON" in models.refused(*words)
    assert manifest.read_bytes() == whole[:-20]
    newer = json.loads(whole) | {"version": 99}
    manifest.write_text(json.dumps(newer))
    assert "has version 99" in models.refused("list")
    shutil.rmtree(store)
    sentence = models.refused("list", code=UNREACHABLE)
    assert f"The model store {store} cannot be reached" in sentence
    elsewhere = Models(programs, "--room", "lab")
    for address in ("s3://", "s3://bucket?key=secret", "ftp://host/x"):
        sentence = elsewhere.refused("list", "--store", address, code=USAGE)
        assert "cannot be used" in sentence


def test_what_has_to_be_said(models: Models, programs: Programs, store: Path) -> None:
    bare = Models(programs)
    assert "No session is given" in bare.refused("list", code=USAGE)
    sentence = bare.refused("list", "--store", store, code=USAGE)
    assert "add --room NAME" in sentence
    assert "`sleap-remote rooms list`" in bare.refused("list", "--room", "x")
    sentence = models.refused("show", "x", "--worker", "gpu-1", code=USAGE)
    assert "give one of them" in sentence
    assert "Name a tag" in models.refused("tag", "flies", code=USAGE)
    assert "is no tag" in models.refused("tag", "flies", "+Fly", code=USAGE)
    assert "or --remove it" in models.refused("alias", "flies", code=USAGE)
    sentence = bare.refused("list", "--store", store, "--room", "../x")
    assert "is no name for a room" in sentence


def test_the_store_of_the_environment(
    programs: Programs, store: Path, tmp_path: Path
) -> None:
    usual = Models(programs, SLEAP_MODEL_STORE=str(store), SLEAP_MODEL_ROOM="lab")
    usual("push", write_model(tmp_path / "a"), "--alias", "flies")
    assert (store / "lab" / "manifest.json").is_file()
    assert [row["aliases"] for row in usual.json("list")] == [["flies"]]


# -- from home to home -----------------------------------------------------------------


def test_a_worker_in_between(programs: Programs, tmp_path: Path) -> None:
    url = programs.signaling()
    worker = programs.worker("--signaling", url, "--name", "gpu-1").wait_ready()
    ann = Models(programs, "--session", worker.session)
    [*_, line] = ann.json(
        "push", *pair(tmp_path / "models"), "--alias", "flies-v1", "--tag", "fly"
    )
    assert (line["alias"], line["error"]) == ("flies-v1", None)

    # Another person, with nothing but the session string.
    home = programs.folder / "desktop"
    home.mkdir()
    folders = {f"XDG_{k}_HOME": str(home / k) for k in ("CACHE", "CONFIG", "DATA")}
    bob = Models(programs, "--session", worker.session, HOME=str(home), **folders)
    [row] = bob.json("list")
    assert (row["id"], row["tags"]) == (line["model"], ["fly"])
    pulled = bob("pull", "flies-v1", "--output", home / "models")
    assert pulled.out == [
        str(home / "models" / name) for name in ("flies.c", "flies.i")
    ]
    for name in ("flies.c", "flies.i"):
        for file in (home / "models" / name).iterdir():
            there = tmp_path / "models" / name / file.name
            assert file.read_bytes() == there.read_bytes()
    assert {path.name for path in (home / "models").iterdir()} == {"flies.c", "flies.i"}
    bob("alias", "best", "flies-v1")
    assert ann.json("show", "best")[0]["id"] == line["model"]

    # A second worker with a store of its own: its registry joins the list.
    programs.worker(
        *("--session", worker.session, "--name", "gpu-2"),
        *("--data", programs.folder / "other-data"),
    ).wait_ready()
    other = write_model(tmp_path / "models" / "other", seed=9)
    [*_, second] = ann.json("push", other, "--worker", "gpu-2", "--alias", "other")
    assert {row["id"] for row in bob.json("list")} == {line["model"], second["model"]}
    [row] = bob.json("list", "--worker", "gpu-2")
    assert row["id"] == second["model"]
    sentence = bob.refused("show", "other", "--worker", "gpu-1")
    assert "There is no model other" in sentence
    worker.terminate()
    worker.wait(EXIT_S)
    assert [row["id"] for row in bob.json("list")] == [second["model"]]
