"""Jobs outlive everything: whoever dies, another client finds the job and all of it.

Real programs and real `kill -9`; the trainer is scripted but for the last test.
"""

import os
import pty
from pathlib import Path

import pytest
from support.packages import rewrite, shorten
from support.programs import POSIX, Program, Programs, wait_for
from support.story import Server, Story, epochs
from support.trainings import TRAINING_S

UNREACHABLE, REFUSED, JOB_FAILED, CANCELLED = 3, 4, 1, 130
RECONNECTED_S = 120.0

pytestmark = [POSIX, pytest.mark.timeout(300)]


@pytest.fixture
def story(programs: Programs) -> Story:
    return Story(programs)


@pytest.fixture
def detached(story: Story, small_package: Path, output: Path) -> str:
    """The id of a job at its first epoch, that nobody follows."""
    client = story.train(small_package, output, "--detach")
    assert client.wait() == 0, client.story()
    wait_for(lambda: story.trainings == 1, "the training")
    job_id: str = client.report["job_id"]
    return job_id


def ended(program: Program, code: int = 0, timeout_s: float = 60.0) -> Program:
    assert program.wait(timeout_s) == code, program.story()
    return program


def rows(story: Story, **where: str) -> list[dict[str, object]]:
    client = ended(story.jobs("list", "--json", **where))
    return client.events


def numbers_of(program: Program) -> list[int]:
    """Return the numbers of all events but batches, which are shown now and then."""
    return [
        event["seq"]
        for event in program.events
        if "seq" in event and event.get("kind") != "batch_end"
    ]


# -- the laptop ------------------------------------------------------------------------


def test_the_laptop_story(story: Story, small_package: Path, output: Path) -> None:
    laptop = story.train(small_package, output)
    story.allow(0, 1)
    laptop.wait_event(event="progress", kind="epoch_end", epoch=1)
    laptop.kill()
    story.allow(2)
    story.worker.kill()
    story.server.restart()
    story.allow(3)
    story.start_worker()

    # Another computer, with nothing but the session string.
    desktop = story.elsewhere()
    [row] = rows(story, **desktop)
    assert (row["state"], row["worker"]) == ("running", "gpu-box")
    job_id = str(row["job_id"])
    assert job_id == laptop.events[0]["job_id"]
    client = story.jobs("attach", job_id[:12], "--json", **desktop)
    client.wait_event(event="progress", kind="epoch_end", epoch=3)
    story.allow_all()
    ended(client)
    assert epochs(client) == list(range(story.epochs))
    numbers = [event["seq"] for event in client.events if "seq" in event]
    assert numbers == sorted(set(numbers))
    assert story.trainings == 1

    there = story.programs.folder / "there"
    fetched = ended(story.jobs("fetch", job_id, "--output", there, "--json", **desktop))
    assert fetched.report["state"] == "succeeded"
    [model] = fetched.report["models"]
    assert Path(model).parent == there / "models"
    assert (Path(model) / "best.ckpt").read_bytes() == story.checkpoint(job_id)
    assert not (there / ".sleap-remote").exists()
    # Only the server and the worker are left.
    left = {process.pid for process in story.programs.processes()}
    assert left == {story.server.program.pid, story.worker.pid}


def test_train_itself_comes_through_all_that(
    story: Story, small_package: Path, output: Path
) -> None:
    client = story.train(small_package, output)
    story.allow(0)
    client.wait_event(event="progress", kind="epoch_end", epoch=0)
    story.worker.kill()
    story.server.restart()
    story.start_worker()
    client.wait_event(RECONNECTED_S, event="link", state="back")
    story.allow_all()
    ended(client, timeout_s=RECONNECTED_S)
    assert epochs(client) == list(range(story.epochs))
    assert client.report["state"] == "succeeded"
    assert story.trainings == 1
    [model] = client.report["models"]
    found = (Path(model) / "best.ckpt").read_bytes()
    assert found == story.checkpoint(client.report["job_id"])


def test_a_worker_that_comes_back_before_its_server(
    story: Story, detached: str, output: Path
) -> None:
    """After a power cut nobody waits for anybody: the job goes on."""
    story.worker.kill()
    story.server.program.kill()
    story.start_worker(is_ready=False)
    said = "Jobs go on here"
    story.worker.wait_line(lambda line: said in line, stream="err")
    story.allow_all()
    outcomes = "jobs/*/steps/0/outcome.json"
    wait_for(lambda: any(story.data.glob(outcomes)), "the training's end")
    story.server.program = story.server.start()
    story.worker.wait_ready(RECONNECTED_S)
    fetched = story.jobs("fetch", detached, "--output", output, "--json")
    assert ended(fetched).report["state"] == "succeeded"
    assert story.trainings == 1


# -- the same command ------------------------------------------------------------------


def test_the_same_command_waits_for_its_worker(
    story: Story, small_package: Path, output: Path, detached: str
) -> None:
    # Another worker is there and would take it.
    gates = f"gates={story.gates},epochs={story.epochs}"
    other_log = story.programs.folder / "other.log"
    story.programs.scripted_worker(
        f"paced,log={other_log},{gates}",
        *("--session", story.session, "--name", "other"),
        *("--data", story.programs.folder / "other-data"),
    ).wait_ready()
    story.worker.kill()
    short = ended(
        story.train(small_package, output, "--reconnect-for", "1s"), UNREACHABLE
    )
    assert short.report["error"]["code"] == "worker_away"
    assert (short.report["job_id"], short.report["worker"]) == (detached, "gpu-box")
    assert f"jobs attach {detached}" in short.err[-1]

    client = story.train(small_package, output)
    client.wait_event(event="waiting", worker="gpu-box", job_id=detached)
    story.allow_all()
    story.start_worker()
    ended(client, timeout_s=RECONNECTED_S)
    assert client.report["job_id"] == detached
    assert story.trainings == 1
    assert not other_log.exists()


def test_another_worker_by_name_is_another_job(
    story: Story, small_package: Path, output: Path, detached: str
) -> None:
    gates = f"gates={story.gates},epochs={story.epochs}"
    story.programs.scripted_worker(
        f"paced,{gates}",
        *("--session", story.session, "--name", "other"),
        *("--data", story.programs.folder / "other-data"),
    ).wait_ready()
    story.allow_all()
    client = ended(story.train(small_package, output, "--worker", "other"))
    assert client.report["job_id"] != detached
    assert any(f"{detached} stays on gpu-box" in line for line in client.err)


# -- the commands ----------------------------------------------------------------------


def test_a_job_by_any_name(story: Story, detached: str) -> None:
    client = ended(story.jobs("list"))
    title, row = client.out
    assert title.split()[:2] == ["Job", "Name"]
    assert row.startswith(detached)
    assert "gpu-box" in row
    name = str(rows(story)[0]["name"])
    story.allow_all()
    for wanted in (detached, detached[:9], detached.removeprefix("job-"), name):
        followed = ended(story.jobs("attach", wanted, "--json"))
        assert followed.events[0]["job_id"] == detached
    unknown = ended(story.jobs("attach", "nobody"), REFUSED)
    assert unknown.err == [
        "No job nobody was found on gpu-box; `sleap-remote jobs list` shows the jobs "
        "there are."
    ]


def test_a_beginning_that_two_jobs_have(
    story: Story, small_package: Path, output: Path, detached: str
) -> None:
    ended(story.train(small_package, output / "2", "--detach"))
    client = ended(story.jobs("cancel", "job-", "--json"), REFUSED)
    assert client.err[-1].startswith("No job job- was found")
    name = str(rows(story)[0]["name"])
    client = ended(story.jobs("cancel", name), REFUSED)
    assert detached in client.err[-1]
    assert "whole id" in client.err[-1]
    assert {row["state"] for row in rows(story)} <= {"running", "starting", "queued"}


def test_the_log_and_the_events_from_any_number_on(story: Story, detached: str) -> None:
    story.allow(0, 1)
    follower = story.jobs("logs", detached, "--follow")
    follower.wait_line(lambda line: line == "epoch 1 begins")
    story.allow_all()
    ended(follower)
    begins = [f"epoch {number} begins" for number in range(story.epochs)]
    assert [line for line in follower.out if line in begins] == begins
    assert ended(story.jobs("logs", detached)).out == follower.out
    numbers = numbers_of(ended(story.jobs("attach", detached, "--json")))
    middle = numbers[len(numbers) // 2]
    rest = ended(story.jobs("attach", detached, "--json", "--since", middle))
    assert numbers_of(rest) == [number for number in numbers if number > middle]
    told = ended(story.jobs("logs", detached, "--json", "--since", middle)).events
    assert all(event["seq"] > middle for event in told)
    assert ended(story.jobs("logs", detached, "--since", numbers[-1])).out == []


def test_two_clients_watch_one_job_and_leave(story: Story, detached: str) -> None:
    one = story.jobs("attach", detached, "--json")
    other = story.jobs("attach", detached, "--json", **story.elsewhere())
    story.allow(0)
    for client in (one, other):
        client.wait_event(event="progress", kind="epoch_end", epoch=0)
    one.interrupt()
    ended(one)
    assert f"{detached} goes on on gpu-box" in one.err[-1]
    assert f"jobs attach {detached}" in one.err[-1]
    story.allow_all()
    ended(other)
    assert epochs(other) == list(range(story.epochs))
    # A loss that never changes is drawn as low as can be.
    assert any("▁▁▁▁▁▁ " in line and "6 epochs" in line for line in other.err)


def test_stop_from_elsewhere_keeps_the_model(
    programs: Programs, small_package: Path, output: Path
) -> None:
    gate = programs.folder / "gate"
    worker = programs.scripted_worker(f"gated,gate={gate}").wait_ready()
    client = programs.train(small_package, worker.session, output)
    client.wait_event(event="progress", kind="epoch_end")
    job_id = client.events[0]["job_id"]
    early = programs.client("jobs", "fetch", job_id, "--session", worker.session)
    assert "has not ended yet (it is running)" in ended(early, REFUSED).err[-1]
    stopped = programs.client("jobs", "stop", job_id, SLEAP_SESSION=worker.session)
    ended(stopped)
    assert job_id in stopped.err[-1]
    assert ended(client).report["models"]
    again = programs.client("jobs", "stop", job_id, SLEAP_SESSION=worker.session)
    assert "has ended already (succeeded)" in ended(again, REFUSED).err[-1]


def test_cancel_from_elsewhere(
    story: Story, small_package: Path, output: Path, detached: str
) -> None:
    watching = story.jobs("attach", detached, "--json")
    watching.wait_event(event="progress", kind="train_begin")
    said = ended(story.jobs("cancel", detached, "--json")).report
    assert said == {"event": "cancel", "job_id": detached, "worker": "gpu-box"}
    ended(watching, CANCELLED)
    assert [row["state"] for row in rows(story)] == ["cancelled"]
    fetch = ended(story.jobs("fetch", detached, "--output", output), CANCELLED)
    assert "was cancelled" in fetch.err[-1]
    assert not (output / "models").exists()
    # And what was submitted is over: the same command says so.
    ended(story.train(small_package, output), CANCELLED)


def test_a_fetch_that_was_cut_off_goes_on_and_overwrites_nothing(
    programs: Programs, small_package: Path, output: Path
) -> None:
    worker = programs.scripted_worker("train,checkpoint_mib=40").wait_ready()
    sent = ended(programs.train(small_package, worker.session, output, "--detach"))
    job_id = sent.report["job_id"]
    session = {"SLEAP_SESSION": worker.session}
    ended(programs.client("jobs", "attach", job_id, **session))
    mine = output / "models" / "mine"
    mine.mkdir(parents=True)
    (mine / "best.ckpt").write_bytes(b"mine")

    words = ("jobs", "fetch", job_id, "--output", output, "--json")
    first = programs.client(*words, **session)
    first.wait_line(lambda line: '"bytes_sent": 0' not in line and "transfer" in line)
    first.kill()
    second = ended(programs.client(*words, **session))
    last = [e for e in second.events if e.get("event") == "transfer"][-1]
    assert last["bytes_sent"] + last["bytes_reused"] <= 1.02 * last["bytes_total"]
    [model] = second.report["models"]
    before = (Path(model) / "best.ckpt").stat()
    # What is at home already is neither doubled nor written again.
    third = ended(programs.client(*words, **session))
    assert third.report["models"] == [model]
    assert (Path(model) / "best.ckpt").stat().st_mtime_ns == before.st_mtime_ns
    assert (mine / "best.ckpt").read_bytes() == b"mine"


def test_a_lab_without_a_worker(story: Story, detached: str) -> None:
    story.worker.kill()
    nobody = ended(story.jobs("list"), UNREACHABLE)
    assert "No worker is online" in nobody.err[-1]
    # Who sent the job knows where it is; who did not, does not.
    words = ("attach", detached, "--reconnect-for", "1s")
    away = ended(story.jobs(*words), UNREACHABLE)
    assert "gpu-box could not be reached for 1 s" in away.err[-1]
    ended(story.jobs(*words, **story.elsewhere()), UNREACHABLE)


@pytest.mark.skipif(not hasattr(pty, "openpty"), reason="terminals are POSIX's")
def test_cancel_asks_at_a_terminal(story: Story, detached: str) -> None:
    client, keyboard = story.programs.at_terminal(
        "jobs", "cancel", detached[:10], "--session", story.session
    )
    client.wait_line(lambda line: "discard it?" in line, stream="err")
    os.write(keyboard, b"n\n")
    ended(client, CANCELLED)
    assert rows(story)[0]["state"] == "running"


# -- with sleap-nn ---------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.needs_sleap_nn
@pytest.mark.timeout(900)
def test_the_laptop_story_with_sleap_nn(
    programs: Programs, demo_package: Path, tmp_path: Path, output: Path
) -> None:
    epochs_each = 3
    package = rewrite(
        demo_package,
        tmp_path / "laptop.training_job.zip",
        lambda members: shorten(members, epochs=epochs_each, steps=4),
    )
    server = Server(programs)
    where = ("--name", "gpu-box")
    worker = programs.worker("--signaling", server.url, *where).wait_ready()
    session = worker.session
    laptop = programs.train(package, session, output)
    laptop.wait_event(TRAINING_S, event="progress", kind="epoch_end")
    laptop.kill()
    worker.kill()
    server.restart()
    programs.worker("--session", session, *where).wait_ready()

    home = tmp_path / "desktop"
    home.mkdir()
    desktop = {
        "HOME": str(home),
        **{f"XDG_{k}_HOME": str(home / k) for k in ("CACHE", "STATE", "CONFIG")},
        "SLEAP_SESSION": session,
    }
    client = programs.client("jobs", "attach", "lap", "--json", **desktop)
    # A name is no beginning of an id, and this is neither.
    ended(client, REFUSED)
    [row] = ended(programs.client("jobs", "list", "--json", **desktop)).events
    job_id = row["job_id"]
    client = programs.client("jobs", "attach", job_id, "--json", **desktop)
    ended(client, timeout_s=2 * TRAINING_S)
    curve = [
        (e["step"], e["epoch"])
        for e in client.events
        if e.get("event") == "progress" and e["kind"] == "epoch_end"
    ]
    assert curve == [(step, e) for step in (0, 1) for e in range(epochs_each)]
    words = ("jobs", "fetch", job_id, "--output", output, "--json")
    fetched = ended(programs.client(*words, **desktop))
    assert fetched.report["state"] == "succeeded"
    assert len(fetched.report["models"]) == 2
    for model in fetched.report["models"]:
        assert (Path(model) / "best.ckpt").is_file()
    assert fetched.report["predictions"]
    left = [" ".join(process.cmdline()) for process in programs.processes()]
    assert not [words for words in left if "sleap_nn" in words or "runner" in words]
