"""Makes the README's pictures of the dashboard, in Chromium, from a real server.

Run as `python resources/screenshots/dashboard.py --output DIR` in an environment with
the extra signaling, playwright and a Chromium. The workers are only registered: they
say what workers say. It touches nothing but DIR and a temporary folder.
"""

import argparse
import asyncio
import contextlib
import math
import random
import secrets
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from playwright.async_api import Page, async_playwright

from sleap_rtc_plugin.protocol.session_string import Session
from sleap_rtc_plugin.protocol.signaling_messages import PeerMetadata
from sleap_rtc_plugin.transport.signaling_client import SignalingClient
from sleap_rtc_signaling.config import SignalingConfig
from sleap_rtc_signaling.server import SignalingServer

WIDE: Final = {"width": 1280, "height": 860}
PHONE: Final = {"width": 390, "height": 900}
GIB: Final = 1024


def curve(epochs: int, floor: float, seed: int) -> list[float]:
    """Make up losses that fall to about `floor`."""
    noise = random.Random(seed)  # noqa: S311 - a picture is no secret
    return [
        float(f"{floor + 0.4 * math.exp(-n / 5) * noise.uniform(0.8, 1.2):.4g}")
        for n in range(epochs)
    ]


def training(number: int, **changes: Any) -> dict[str, Any]:
    """Make up a job, as a worker's metadata has it."""
    losses = curve(22, 0.002 * (number + 1), number)
    return {
        "id": f"{random.Random(number).getrandbits(32):08x}",  # noqa: S311 - the same
        "state": "running",
        "kind": "train",
        "head": "centroid",
        "step": 0,
        "steps": 3,
        "since": time.time() - 1_500 * (number + 1),
        "epoch": 86,
        "epochs": 200,
        "loss": losses[-1],
        "loss_of": "val",
        "curve": losses,
        **changes,
    }


def workers() -> dict[str, dict[str, Any]]:
    """What the picture's workers say of themselves."""
    idle = {"running_jobs": 0, "queue_length": 0, "slots": 1, "gpu_count": 1}
    known = {"device": "cuda", "sleap_nn_version": "0.3.5", **idle}
    predicting = {"kind": "predict", "step": 2, "done": 6_240, "total": 18_000}
    return {
        "basement-a100": {
            **known,
            "status": "busy",
            "gpu_model": "NVIDIA A100-SXM4-80GB",
            "gpu_memory_mb": 80 * GIB,
            "gpu_memory_free_mb": 22 * GIB,
            "running_jobs": 1,
            "queue_length": 1,
            "jobs": [
                training(1),
                training(2, state="queued", epoch=None, loss=None, curve=[]),
                training(3, state="succeeded", epoch=199, since=time.time() - 9_000),
            ],
        },
        "office-4090": {
            **known,
            "status": "busy",
            "gpu_model": "NVIDIA GeForce RTX 4090",
            "gpu_memory_mb": 24 * GIB,
            "gpu_memory_free_mb": 15 * GIB,
            "running_jobs": 1,
            "jobs": [
                training(4, loss=None, curve=[], **predicting),
                training(5, state="failed", epoch=17, since=time.time() - 30_000),
            ],
        },
        "teaching-titan": {
            **known,
            "status": "available",
            "gpu_model": "NVIDIA TITAN RTX",
            "gpu_memory_mb": 24 * GIB,
            "gpu_memory_free_mb": 23 * GIB,
        },
    }


async def enter(
    stack: contextlib.AsyncExitStack, session: Session, name: str, said: dict[str, Any]
) -> None:
    """Register a worker, until the pictures are made."""
    await stack.enter_async_context(
        SignalingClient(
            server=session.url,
            room_id=session.room_id,
            token=session.token,
            peer_id=f"worker-{name}",
            resume_key=secrets.token_hex(32),
            role="worker",
            metadata=PeerMetadata(properties={**said, "name": name}),
            on_relayed=lambda message: None,
        )
    )


async def new_room(page: Page, url: str) -> Session:
    """Sign in and make a room by hand."""
    await page.goto(url)
    await page.get_by_role("button", name="Continue without a name").click()
    await page.get_by_role("link", name="Make a session string").click()
    await page.get_by_label("What the room is called").fill("Fly courtship")
    await page.get_by_role("button", name="Make the room").click()
    strings = page.get_by_label("The worker's string")
    await strings.wait_for()
    return Session.parse(await strings.input_value())


async def picture(page: Page, path: Path, size: Any, theme: Any) -> None:
    """Take one picture."""
    await page.set_viewport_size(size)
    await page.emulate_media(color_scheme=theme)
    await page.screenshot(path=path, animations="disabled")


async def make(output: Path) -> None:
    """Make all of them."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        sys.exit("There is no Chromium; install one.")
    async with contextlib.AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        config = SignalingConfig(port=0, rest_port=None, data_dir=Path(folder))
        server = await stack.enter_async_context(SignalingServer(config))
        playwright = await stack.enter_async_context(async_playwright())
        browser = await playwright.chromium.launch(
            executable_path=program, chromium_sandbox=False
        )
        stack.push_async_callback(browser.close)
        page = await browser.new_page()
        session = await new_room(page, server.url)
        for name, said in workers().items():
            await enter(stack, session, name, said)
        await page.get_by_role("link", name="Go to the room").click()
        await page.get_by_text("Live", exact=True).wait_for()
        await page.get_by_text("teaching-titan").wait_for()
        await picture(page, output / "dashboard.png", WIDE, "light")
        await picture(page, output / "dashboard-phone.png", PHONE, "dark")


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    asyncio.run(make(arguments.output))


if __name__ == "__main__":
    main()
