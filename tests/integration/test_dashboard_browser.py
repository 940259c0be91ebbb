"""The dashboard in Chromium: live, by the keyboard, in both themes, at every width."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.dashboard_lab import (
    Watched,
    chromium,
    dashboard_lab,
    join_worker,
    tell,
    training,
    watched,
)
from support.signaling_lab import Lab
from support.trained_models import local_model

from sleap_rtc_plugin.protocol.model_records import Publication
from sleap_rtc_plugin.protocol.session_string import Session
from sleap_rtc_plugin.registry.model_registry import ModelRegistry
from sleap_rtc_plugin.registry.store_address import open_store
from sleap_rtc_signaling.config import RegistryConfig

if TYPE_CHECKING:
    from playwright.async_api import Browser

pytestmark = pytest.mark.timeout(180)

HOSTILE = '<script>alert("name")</script>\u202e<img src=x onerror=alert(2)>'
WAIT_MS = 10_000
THEMES = ("light", "dark")


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    (tmp_path / "store").mkdir()
    registry = RegistryConfig(store=str(tmp_path / "store"))
    async with dashboard_lab(tmp_path, registry=registry) as opened:
        yield opened


@pytest.fixture
async def browser() -> AsyncIterator["Browser"]:
    async with chromium() as opened:
        yield opened


@contextlib.asynccontextmanager
async def signed_in(
    browser: "Browser", lab: Lab, **options: Any
) -> AsyncIterator[Watched]:
    """A page of somebody who has signed in; it must end without a fault."""
    async with watched(browser, **options) as one:
        one.page.set_default_timeout(WAIT_MS)
        await one.page.goto(lab.server.url)
        await one.page.get_by_role("button", name="Continue without a name").click()
        await one.page.get_by_role("heading", name="Rooms", exact=True).wait_for()
        yield one
        assert one.faults == []


async def make_room(one: Watched, name: str) -> tuple[str, str]:
    """Make a room by hand; return its id, and the people's string."""
    page = one.page
    await page.get_by_role("link", name="Make a session string").click()
    await page.get_by_label("What the room is called").fill(name)
    await page.get_by_role("button", name="Make the room").click()
    field = page.get_by_label("Session string")
    await field.wait_for()
    text = await field.input_value()
    return Session.parse(text).room_id, text


async def publish(folder: Path, room_id: str) -> None:
    registry = ModelRegistry(open_store(str(folder / "store")), room_id)
    for number in range(3):
        await registry.publish(
            local_model(folder / f"model-{number}", seed=number),
            publication=Publication(
                alias=f"flies-v{number}",
                notes=f"Good on males.\n{HOSTILE}",
                tags=["fly", f"batch-{number}"],
            ),
            by="ann@laptop",
            trained_on="gpu-1",
        )


async def test_epochs_and_loss_move_while_somebody_looks(
    browser: "Browser", lab: Lab
) -> None:
    async with signed_in(browser, lab) as one:
        room_id, text = await make_room(one, "Fly courtship")
        await one.page.get_by_role("link", name="Go to the room").click()
        await one.page.get_by_text("Live", exact=True).wait_for()
        await one.page.get_by_text("No worker is here").wait_for()
        room = (room_id, Session.parse(text).token)
        worker = await join_worker(lab, room, jobs=[training()])
        await one.page.get_by_text("epoch 12 of 100").wait_for()
        row = one.page.get_by_role("row").filter(has_text="gpu-1").last
        assert "20.0 of 80.0 GiB free" in await row.inner_text()
        await tell(worker, jobs=[training(epoch=12, loss=0.0071)])
        await one.page.get_by_text("epoch 13 of 100").wait_for(timeout=2_000)
        await one.page.get_by_text("0.00710").wait_for()
        await tell(worker, jobs=[training(state="succeeded")], running_jobs=0)
        await one.page.get_by_text("Succeeded").wait_for(timeout=2_000)
        await one.page.get_by_text("Nothing runs.").wait_for()


async def test_the_secret_stays_in_the_browser(
    browser: "Browser", lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    async with signed_in(browser, lab) as one:
        room_id, text = await make_room(one, "Flies")
        worker_string = await one.page.get_by_label("The worker's string").input_value()
        command = await one.page.get_by_label("Command").input_value()
        people, worker = Session.parse(text), Session.parse(worker_string)
        assert people.url == worker.url == lab.server.url
        assert people.room_id == worker.room_id == room_id
        assert people.secret == worker.secret
        assert len(set(people.secret)) > 8
        assert people.token != worker.token
        assert command == f"SLEAP_SESSION='{worker_string}' sleap-remote worker"
        # Another string of the room, from one that is known.
        await one.page.get_by_role("link", name="Go to the room").click()
        await one.page.get_by_role("link", name="People and credentials").click()
        await one.page.get_by_label("For", exact=True).fill("gpu-2")
        await one.page.get_by_role("button", name="Make a credential").click()
        known = one.page.get_by_label("A session string of this room")
        await known.fill("sleap-session:AAAA")
        await one.page.get_by_text("Part of it is missing or changed").wait_for()
        await known.fill(f" {text} ")
        await one.page.get_by_text("Nothing was sent.").wait_for()
        field = one.page.get_by_label("The new string, for a worker")
        another = Session.parse(await field.input_value())
        assert another.secret == people.secret
        assert another.token not in (people.token, worker.token)
        secret = text[-60:-10]
        sent = "\n".join(one.requests)
    said = "\n".join(record.getMessage() for record in caplog.records)
    for part in (secret, _base64(people.secret), people.secret.hex()):
        assert part not in sent
        assert part not in said
    assert "new-room" in sent
    for path in Path(lab.server._config.data_dir).rglob("*"):
        if path.is_file():
            assert _base64(people.secret).encode() not in path.read_bytes()


def _base64(data: bytes) -> str:
    import base64

    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


async def test_hostile_words_are_only_words(
    browser: "Browser", lab: Lab, tmp_path: Path
) -> None:
    async with signed_in(browser, lab, viewport={"width": 360, "height": 800}) as one:
        one.page.on("dialog", lambda box: one.faults.append(box.message))
        room_id, text = await make_room(one, HOSTILE)
        room = (room_id, Session.parse(text).token)
        await join_worker(
            lab,
            room,
            name=HOSTILE,
            gpu_model=HOSTILE,
            sleap_nn_version="w" * 4_000,
            jobs=[training(), training(id="ff", state="failed")],
        )
        await publish(tmp_path, room_id)
        await one.page.get_by_role("link", name="Go to the room").click()
        await one.page.get_by_text('<script>alert("name")').first.wait_for()
        assert not await one.is_too_wide()
        for tab in ("People and credentials", "Models"):
            await one.page.get_by_role("link", name=tab).click()
            assert not await one.is_too_wide()
        await one.page.get_by_role("link", name="flies-v2").click()
        await one.page.get_by_text("Good on males.").wait_for()
        assert await one.page.locator("main img, main script").count() == 0


@pytest.mark.parametrize("theme", THEMES)
async def test_every_page_is_accessible_and_fits(
    browser: "Browser", lab: Lab, tmp_path: Path, theme: str
) -> None:
    async with signed_in(browser, lab, color_scheme=theme) as one:
        seen: list[str] = []

        async def look() -> None:
            seen.append(one.page.url)
            assert await one.violations() == [], one.page.url
            for width in (360, 768, 1280, 1600):
                await one.page.set_viewport_size({"width": width, "height": 900})
                assert not await one.is_too_wide(), (one.page.url, width)

        await look()
        room_id, text = await make_room(one, "Fly courtship")
        await look()
        room = (room_id, Session.parse(text).token)
        await publish(tmp_path, room_id)
        await one.page.get_by_role("link", name="Go to the room").click()
        await one.page.get_by_text("No worker is here").wait_for()
        await look()
        rows = [
            training(),
            training(id="2", kind="predict", done=5, total=70, loss=None, curve=[]),
            training(id="3", state="queued", epoch=None, loss=None, curve=[]),
            training(id="4", state="succeeded"),
            training(id="5", state="failed"),
        ]
        await join_worker(lab, room, jobs=rows)
        await one.page.get_by_text("epoch 12 of 100").wait_for()
        await look()
        await one.page.get_by_role("link", name="Models").click()
        await one.page.get_by_role("link", name="flies-v1").wait_for()
        await look()
        await one.page.get_by_role("link", name="flies-v1").click()
        await one.page.get_by_role("heading", name="Facts").wait_for()
        await look()
        await one.page.get_by_role("link", name="People and credentials").click()
        await one.page.get_by_label("For whom").fill("Ben")
        await one.page.get_by_role("button", name="Make an invitation").click()
        await one.page.get_by_text("The invitation is made").wait_for()
        await look()
        await one.page.get_by_label("For", exact=True).fill("gpu-2")
        await one.page.get_by_role("button", name="Make a credential").click()
        await one.page.get_by_text("The credential is made").wait_for()
        await look()
        await one.page.goto(f"{lab.server.url}/dashboard/new-room")
        await look()
        await one.page.get_by_role("button", name="Sign out").click()
        await one.page.get_by_role("heading", name="Sign in").wait_for()
        await look()
        assert len(set(seen)) >= 8


async def test_without_a_mouse(browser: "Browser", lab: Lab) -> None:
    async with watched(browser) as one:
        page = one.page
        await page.goto(lab.server.url)

        async def tab_to(words: str) -> None:
            for _ in range(40):
                await page.keyboard.press("Tab")
                focused = page.locator(":focus")
                name = await focused.evaluate(
                    "e => e.innerText || e.labels?.[0]?.innerText || e.value || ''"
                )
                if words in name:
                    # It can be seen where one is.
                    style = "e => getComputedStyle(e).outlineStyle"
                    assert await focused.evaluate(style) != "none"
                    return
            raise AssertionError(f"the keyboard does not reach {words}")

        await page.keyboard.press("Tab")
        assert await page.locator(":focus").inner_text() == "Skip to the content"
        await tab_to("Continue without a name")
        await page.keyboard.press("Enter")
        await page.get_by_role("heading", name="Rooms", exact=True).wait_for()
        await tab_to("Make a session string")
        await page.keyboard.press("Enter")
        await page.get_by_label("What the room is called").wait_for()
        await page.keyboard.type("By keyboard")  # the field has the focus already
        await tab_to("Make the room")
        await page.keyboard.press("Enter")
        await page.get_by_label("Session string").wait_for()
        await tab_to("Copy")
        await tab_to("Go to the room")
        await page.keyboard.press("Enter")
        await page.get_by_role("heading", name="By keyboard").wait_for()
        await tab_to("People and credentials")
        await page.keyboard.press("Enter")
        await page.get_by_role("heading", name="Members").wait_for()
        assert one.faults == []


async def test_an_update_takes_neither_focus_nor_marked_text(
    browser: "Browser", lab: Lab
) -> None:
    async with signed_in(browser, lab) as one:
        page = one.page
        room_id, text = await make_room(one, "Flies")
        room = (room_id, Session.parse(text).token)
        worker = await join_worker(lab, room, jobs=[training()])
        await page.get_by_role("link", name="Go to the room").click()
        await page.get_by_text("epoch 12 of 100").wait_for()
        models = page.get_by_role("link", name="Models")
        await models.focus()
        cell = page.get_by_text("epoch 12 of 100")
        await cell.evaluate("e => getSelection().selectAllChildren(e)")
        await tell(worker, jobs=[training(epoch=20)], queue_length=7)
        await page.get_by_role("cell", name="7", exact=True).wait_for()
        # The workers are new; the jobs, where something is marked, wait.
        assert await page.evaluate("getSelection().toString()") == "epoch 12 of 100"
        assert await models.evaluate("e => e === document.activeElement")
        await page.evaluate("getSelection().removeAllRanges()")
        await page.get_by_text("epoch 21 of 100").wait_for()


async def test_a_page_out_of_sight_lets_go_of_its_connection(
    browser: "Browser", lab: Lab
) -> None:
    see = """state => {
        Object.defineProperty(
            document, "visibilityState", {value: state, configurable: true});
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    async with signed_in(browser, lab) as one:
        page = one.page
        room_id, text = await make_room(one, "Flies")
        await page.clock.install()
        await page.get_by_role("link", name="Go to the room").click()
        await page.get_by_text("Live", exact=True).wait_for()
        await page.evaluate(see, "hidden")
        await page.clock.fast_forward(30_000)
        await page.evaluate(see, "visible")
        await page.clock.fast_forward(90_000)
        await page.get_by_text("Live", exact=True).wait_for()
        await page.evaluate(see, "hidden")
        await page.clock.fast_forward(61_000)
        await page.get_by_text("Paused while nobody looked").wait_for()
        room = (room_id, Session.parse(text).token)
        await join_worker(lab, room, jobs=[training()])
        await page.evaluate(see, "visible")
        await page.get_by_text("epoch 12 of 100").wait_for()
        await page.get_by_text("Live", exact=True).wait_for()


async def test_a_page_says_when_it_is_not_live(browser: "Browser", lab: Lab) -> None:
    async with signed_in(browser, lab) as one:
        await make_room(one, "Flies")
        await one.page.get_by_role("link", name="Go to the room").click()
        await one.page.get_by_text("Live", exact=True).wait_for()
        async with asyncio.timeout(30):
            await lab.server.stop()
        await one.page.get_by_text("No connection; trying again").wait_for()
        one.faults.clear()  # that the server is gone is in the browser's console too


async def test_models_are_filtered_as_somebody_types(
    browser: "Browser", lab: Lab, tmp_path: Path
) -> None:
    async with signed_in(browser, lab) as one:
        page = one.page
        room_id, _ = await make_room(one, "Flies")
        await page.get_by_role("link", name="Go to the room").click()
        await page.get_by_role("link", name="Models").click()
        await page.get_by_text("Nothing is published yet.").wait_for()
        await publish(tmp_path, room_id)
        async with asyncio.timeout(20):
            while await page.get_by_role("link", name=re.compile("flies")).count() < 3:
                await page.reload()
        await page.get_by_label("Containing").press_sequentially("v1")
        await page.get_by_role("link", name="flies-v2").wait_for(state="detached")
        assert await page.get_by_role("link", name=re.compile("flies")).count() == 1
        focused = "document.activeElement.id"
        assert await page.evaluate(focused) == "text"
        await page.get_by_label("Containing").fill("")
        await page.get_by_label("Tag").select_option("batch-0")
        await page.get_by_role("link", name="flies-v1").wait_for(state="detached")
        await page.get_by_role("link", name="flies-v0").click()
        command = page.get_by_label("The command to use it")
        wanted = "sleap-remote predict VIDEO --model flies-v0"
        assert await command.input_value() == wanted
