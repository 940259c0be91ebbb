"""A dashboard on a real server, and people with and without a browser who use it."""

import contextlib
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from axe_playwright_python.async_playwright import Axe
from support.interop_chromium import chromium
from support.signaling_lab import Clock, Lab, Peer, config

from sleap_rtc_plugin.protocol.signaling_messages import PeerMetadata, UpdateMetadata
from sleap_rtc_signaling.server import SignalingServer

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

TOKEN = re.compile(r'name="form_token" value="([0-9a-f]*)"')
WORKER: dict[str, Any] = {
    "name": "gpu-1",
    "status": "busy",
    "device": "cuda",
    "gpu_model": "NVIDIA A100-SXM4-80GB",
    "gpu_count": 1,
    "gpu_memory_mb": 81_920,
    "gpu_memory_free_mb": 20_480,
    "running_jobs": 1,
    "slots": 1,
    "queue_length": 2,
    "sleap_nn_version": "0.3.5",
}


def training(**changes: Any) -> dict[str, Any]:
    return {
        "id": "0a1b2c3d",
        "state": "running",
        "kind": "train",
        "head": "centroid",
        "step": 0,
        "steps": 2,
        "since": int(time.time()) - 700,
        "epoch": 11,
        "epochs": 100,
        "loss": 0.0123,
        "loss_of": "val",
        "curve": [0.5, 0.2, 0.1, 0.05, 0.03, 0.0123],
        **changes,
    }


@contextlib.asynccontextmanager
async def dashboard_lab(folder: Path, **fields: Any) -> AsyncIterator[Lab]:
    clock = Clock()
    async with SignalingServer(config(folder, **fields), clock=clock) as server:
        lab = Lab(server, clock)
        try:
            yield lab
        finally:
            await lab.close()


async def join_worker(
    lab: Lab, room: tuple[str, str], peer_id: str = "worker-1", **values: Any
) -> Peer:
    metadata = PeerMetadata(properties={**WORKER, **values})
    return await lab.join(room, peer_id, "worker", metadata=metadata)


async def tell(worker: Peer, **values: Any) -> None:
    metadata = PeerMetadata(properties={**WORKER, **values})
    await worker.ask(UpdateMetadata(id="u", metadata=metadata))


class Visitor:
    """Somebody with a browser's cookies and headers, and without a browser."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.http = httpx.AsyncClient(base_url=lab.server.url)
        self.form_token = ""

    async def get(self, path: str, **options: Any) -> httpx.Response:
        answer = await self.http.get(path, **options)
        found = TOKEN.search(answer.text)
        if found:
            self.form_token = found[1]
        return answer

    async def post(self, path: str, **form: str) -> httpx.Response:
        return await self.http.post(
            path,
            data={"form_token": self.form_token, **form},
            headers={"sec-fetch-site": "same-origin"},
        )

    async def sign_in(self) -> None:
        await self.get("/dashboard/sign-in")
        answer = await self.post("/dashboard/sign-in", method="anonymous")
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        await self.get("/")

    async def room(self, name: str = "") -> tuple[str, str]:
        """Make a room, and return it with its token."""
        page = await self.post("/dashboard/new-room", name=name, access="open")
        room = re.search(r'data-room="([a-z0-9-]+)"', page.text)
        token = re.search(r'data-string="people" data-token="([^"]+)"', page.text)
        assert room and token, page.text
        return room[1], token[1]


@contextlib.asynccontextmanager
async def visitor(lab: Lab) -> AsyncIterator[Visitor]:
    one = Visitor(lab)
    try:
        yield one
    finally:
        await one.http.aclose()


@dataclass
class Watched:
    """A page, and all that went wrong on it or left it."""

    page: "Page"
    faults: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    async def violations(self) -> list[str]:
        """What axe-core finds that is serious or critical."""
        found = await Axe().run(self.page)
        return [
            f"{one['id']}: {[node['html'] for node in one['nodes']][:3]}"
            for one in found.response["violations"]
            if one["impact"] in ("serious", "critical")
        ]

    async def is_too_wide(self) -> bool:
        width = "document.documentElement.scrollWidth > window.innerWidth"
        return bool(await self.page.evaluate(width))


@contextlib.asynccontextmanager
async def watched(browser: "Browser", **options: Any) -> AsyncIterator[Watched]:
    """Open a page; whatever its console, scripts or policy complain of counts."""
    context = await browser.new_context(**options)
    one = Watched(await context.new_page())
    one.page.on(
        "console",
        lambda said: (
            one.faults.append(said.text) if said.type in ("error", "warning") else None
        ),
    )
    one.page.on("pageerror", lambda error: one.faults.append(str(error)))
    one.page.on(
        "request",
        lambda sent: one.requests.append(
            f"{sent.method} {sent.url} {sent.headers} {sent.post_data}"
        ),
    )
    try:
        yield one
    finally:
        await context.close()


__all__ = [
    "WORKER",
    "Visitor",
    "Watched",
    "chromium",
    "dashboard_lab",
    "join_worker",
    "tell",
    "training",
    "visitor",
    "watched",
]
