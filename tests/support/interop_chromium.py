"""A far end of the interoperation tests in the system's Chromium, without a screen.

Playwright starts it, on a page of ours that is a file; nothing it does leaves this
machine. Where there is no Chromium, or it may not start, the tests skip.
"""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

__all__ = ["ChromiumPeer", "chromium"]

PAGE = Path(__file__).with_name("interop_page.html")
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    # Both ends may be on a machine with no address but its own loopback.
    "--allow-loopback-in-peer-connection",
    # It would hide its addresses behind names, and announce those to the network.
    "--disable-features=WebRtcHideLocalIpsWithMdns",
    # What it looks up for itself is not there.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


@asynccontextmanager
async def chromium() -> AsyncIterator["Browser"]:
    """Start a browser for any number of peers."""
    playwright_api = pytest.importorskip(
        "playwright.async_api", reason="playwright is not installed"
    )
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip("there is no Chromium; `make setup` installs it on Debian")
    async with playwright_api.async_playwright() as playwright:
        try:
            browser = await playwright.chromium.launch(
                executable_path=program,
                args=FLAGS,
                # It refuses to sandbox what root starts.
                chromium_sandbox=not (hasattr(os, "geteuid") and os.geteuid() == 0),
            )
        except playwright_api.Error as error:
            if "sandbox" not in error.message:
                raise
            pytest.skip("Chromium cannot make its sandbox on this machine")
        yield browser
        await browser.close()


class ChromiumPeer:
    """A page of its own in a browser that runs."""

    def __init__(self, page: "Page") -> None:
        self._page = page

    @classmethod
    async def in_browser(cls, browser: "Browser") -> "ChromiumPeer":
        # Only a page that may use the microphone is told of every interface.
        context = await browser.new_context(permissions=["microphone"])
        page = await context.new_page()
        await page.goto(PAGE.as_uri())
        return cls(page)

    async def open_channel(self, label: str, *, ordered: bool) -> None:
        await self._page.evaluate("openChannel", [label, ordered])

    async def offer(self) -> str:
        return str(await self._page.evaluate("describe"))

    async def answer(self, offer: str) -> str:
        return str(await self._page.evaluate("answer", offer))

    async def accept(self, answer: str) -> None:
        await self._page.evaluate("accept", answer)

    async def close_channel(self, label: str) -> None:
        await self._page.evaluate("closeChannel", label)

    async def channel_closed(self, label: str) -> None:
        await self._page.evaluate("channelClosed", label)

    async def close(self) -> None:
        if not self._page.is_closed():
            await self._page.evaluate("hangUp")
            await self._page.context.close()
