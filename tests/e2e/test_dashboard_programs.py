"""From the dashboard's page to a training: the strings it makes, real programs, epochs.

A person signs in, makes a room, starts a worker with the string for workers and trains
with the string for people; the page shows each epoch as it ends.
"""

import asyncio
from pathlib import Path

import pytest
from support.dashboard_lab import Watched, chromium, watched
from support.programs import Programs

WAIT_MS = 40_000


async def new_room(one: Watched, url: str) -> tuple[str, str]:
    """Make a room by hand; return the string for people and that for a worker."""
    one.page.set_default_timeout(WAIT_MS)
    await one.page.goto(url)
    await one.page.get_by_role("button", name="Continue without a name").click()
    await one.page.get_by_role("link", name="Make a session string").click()
    await one.page.get_by_label("What the room is called").fill("Flies")
    await one.page.get_by_role("button", name="Make the room").click()
    people = one.page.get_by_label("Session string")
    await people.wait_for()
    worker = one.page.get_by_label("The worker's string")
    return await people.input_value(), await worker.input_value()


@pytest.mark.parametrize("hides", [False, True], ids=["shown", "hidden"])
async def test_a_training_is_seen_as_it_goes(
    programs: Programs, small_package: Path, output: Path, tmp_path: Path, hides: bool
) -> None:
    gates = tmp_path / "gates"
    gates.mkdir()
    url = await asyncio.to_thread(programs.signaling)
    async with chromium() as browser, watched(browser) as one:
        people, worker_string = await new_room(one, url)
        await one.page.get_by_role("link", name="Go to the room").click()
        await one.page.get_by_text("No worker is here").wait_for()
        words = ["--session", worker_string, "--name", "gpu-box"]
        worker = programs.scripted_worker(
            f"paced,epochs=3,gates={gates}", *words, *(["--hide-jobs"] if hides else [])
        )
        await asyncio.to_thread(worker.wait_ready)
        await one.page.get_by_role("rowheader", name="gpu-box").wait_for()
        await one.page.get_by_text("Available").wait_for()
        client = programs.train(small_package, people, output)
        await one.page.get_by_text("Busy").wait_for()
        (gates / "0").touch()
        if hides:
            await one.page.get_by_role("cell", name="1 of 1").wait_for()
        else:
            await one.page.get_by_text("epoch 1 of ").wait_for()
            (gates / "1").touch()
            await one.page.get_by_text("epoch 2 of ").wait_for()
            await one.page.get_by_text("0.250").first.wait_for()
            await one.page.get_by_role("img", name="Loss from 0.250").wait_for()
        for number in range(3):
            (gates / str(number)).touch()
        assert await asyncio.to_thread(client.wait) == 0, client.story()
        await one.page.get_by_text("Available").wait_for()
        await one.page.get_by_text("Nothing runs.").wait_for()
        if not hides:
            await one.page.get_by_text("Succeeded").wait_for()
        assert await one.page.get_by_text("Succeeded").count() == (not hides)
        assert one.faults == []
