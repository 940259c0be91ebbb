"""People with names on the dashboard: signing in by a code, inviting, removing."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.dashboard_lab import (
    Visitor,
    Watched,
    chromium,
    dashboard_lab,
    join_worker,
    training,
    visitor,
    watched,
)
from support.oidc_provider import CLIENT_ID, OidcProvider, Person
from support.signaling_lab import Lab

from sleap_rtc_plugin.protocol.invitation_code import InvitationCode
from sleap_rtc_plugin.protocol.session_string import Session
from sleap_rtc_signaling.accounts_config import OidcConfig
from sleap_rtc_signaling.config import AccountsConfig
from sleap_rtc_signaling.limits import SIGN_IN_TOKEN_S

if TYPE_CHECKING:
    from playwright.async_api import Browser

pytestmark = pytest.mark.timeout(180)

ANN = Person(subject="ann-1", name="Ann", email="ann@lab.example")
BEN = Person(subject="ben-2", name="Ben <b>", email="ben@lab.example")
WAIT_MS = 15_000


@pytest.fixture
async def provider() -> AsyncIterator[OidcProvider]:
    async with OidcProvider() as running:
        yield running


@pytest.fixture
async def lab(provider: OidcProvider, tmp_path: Path) -> AsyncIterator[Lab]:
    way = OidcConfig(
        name="lab", label="The Lab", issuer=provider.issuer, client_id=CLIENT_ID
    )
    async with dashboard_lab(tmp_path, accounts=AccountsConfig(oidc=(way,))) as opened:
        provider.clock = opened.clock
        yield opened


@contextlib.asynccontextmanager
async def signed_in(
    browser: "Browser", lab: Lab, provider: OidcProvider, person: Person
) -> AsyncIterator[Watched]:
    async with watched(browser) as one:
        page = one.page
        page.set_default_timeout(WAIT_MS)
        await page.goto(lab.server.url)
        await page.get_by_role("button", name="Sign in with The Lab").click()
        code = await page.get_by_label("The code").inner_text()
        link = page.get_by_role("link").filter(has_text=provider.issuer)
        assert await link.get_attribute("rel") == "noopener noreferrer"
        assert await one.violations() == []
        provider.approve(code, person)
        # Without another press: the page asks by itself.
        await page.get_by_role("heading", name="Rooms", exact=True).wait_for()
        await page.get_by_text(person.name, exact=True).wait_for()
        yield one
        assert one.faults == []


async def test_somebody_is_invited_looks_on_brings_a_worker_and_is_removed(
    lab: Lab, provider: OidcProvider
) -> None:
    async with (
        chromium() as browser,
        signed_in(browser, lab, provider, ANN) as ann,
        signed_in(browser, lab, provider, BEN) as ben,
    ):
        await ann.page.get_by_role("link", name="Make a session string").click()
        await ann.page.get_by_label("What the room is called").fill("Flies")
        await ann.page.get_by_label("Its members alone").check()
        await ann.page.get_by_role("button", name="Make the room").click()
        worker_string = await ann.page.get_by_label("The worker's string").input_value()
        session = Session.parse(worker_string)
        room = (session.room_id, session.token)
        await join_worker(lab, room, jobs=[training()])
        await ann.page.get_by_role("link", name="Go to the room").click()
        await ann.page.get_by_role("link", name="People and credentials").click()
        await ann.page.get_by_label("For whom").fill("Ben")
        await ann.page.get_by_label("As", exact=True).select_option("guest")
        await ann.page.get_by_role("button", name="Make an invitation").click()
        code = await ann.page.get_by_label("Code", exact=True).input_value()
        assert InvitationCode.parse(code).url == lab.server.url

        await ben.page.get_by_text("You are in no room yet.").wait_for()
        await ben.page.get_by_label("The invitation's code").fill(f" {code} ")
        await ben.page.get_by_role("button", name="Enter the room").click()
        await ben.page.get_by_text("You are its guest").wait_for()
        await ben.page.get_by_text("epoch 12 of 100").wait_for()
        await ben.page.get_by_text("Live", exact=True).wait_for()

        # A member may bring a worker; a guest may not.
        await ann.page.get_by_role("link", name="People and credentials").click()
        row = ann.page.get_by_role("row").filter(has_text=BEN.name)
        await row.get_by_role("combobox").select_option("member")
        await row.get_by_role("button", name="Change").click()
        await ann.page.get_by_text("role was changed").wait_for()
        await ben.page.get_by_role("link", name="People and credentials").click()
        await ben.page.get_by_label("For", exact=True).fill("desk")
        await ben.page.get_by_role("button", name="Make a credential").click()
        await ben.page.get_by_text("The credential is made").wait_for()
        await ben.page.get_by_role("heading", name="Your credentials").wait_for()
        assert await ben.violations() == []
        await ben.page.get_by_role("button", name="Take back desk").click()
        await ben.page.get_by_text("The credential was taken back").wait_for()
        await ben.page.get_by_role("link", name="Now").click()
        await ben.page.get_by_text("Live", exact=True).wait_for()

        # The invitation was good once.
        async with visitor(lab) as other:
            other.http.cookies.update(
                {c["name"]: c["value"] for c in await ben.page.context.cookies()}
            )
            await other.get("/")
            again = await other.post("/dashboard/accept-invitation", code=code)
            assert again.status_code >= 400
            assert await owner_forms_are_refused(other, session.room_id) == set()

        await ann.page.get_by_role("link", name="People and credentials").click()
        row = ann.page.get_by_role("row").filter(has_text=BEN.name)
        await row.get_by_role("button", name="Remove").click()
        await ann.page.get_by_text("The member was removed").wait_for()
        await ben.page.get_by_text("No longer live").wait_for()
        await ben.page.reload()
        await ben.page.get_by_text("That did not work").wait_for()
        ben.faults.clear()  # the refusal's status is in the browser's console


async def owner_forms_are_refused(one: Visitor, room_id: str) -> set[str]:
    """Send what only owners may; return what was not refused."""
    page = await one.get(f"/dashboard/rooms/{room_id}/people")
    assert "Make an invitation" not in page.text
    sent = {
        "members": {"account_id": "x", "role": "owner"},
        "room": {"name": "Mine", "access": "open"},
        "invitations": {"role": "owner"},
        "invitations/revoke": {"id": "invitation-1"},
        "credentials": {"kind": "session"},
        "credentials/revoke": {"id": "credential-1"},
        "delete": {"sure": "yes"},
    }
    return {
        path
        for path, form in sent.items()
        if (await one.post(f"/dashboard/rooms/{room_id}/{path}", **form)).status_code
        < 400
    }


async def test_a_login_goes_on_after_its_token_has_ended(
    lab: Lab, provider: OidcProvider
) -> None:
    async with visitor(lab) as one:
        await one.get("/dashboard/sign-in")
        answer = await one.post("/dashboard/sign-in", method="lab")
        assert answer.headers["location"] == "/dashboard/sign-in/code"
        page = (await one.get("/dashboard/sign-in/code")).text
        waiting = await one.post("/dashboard/sign-in/code")
        assert waiting.headers["location"] == "/dashboard/sign-in/code"
        code = page.partition('aria-label="The code">')[2].partition("<")[0]
        provider.approve(code, ANN)
        lab.advance(10)
        done = await one.post("/dashboard/sign-in/code")
        assert done.headers["location"] == "/"
        for _ in range(3):
            lab.advance(SIGN_IN_TOKEN_S)
            assert "Ann" in (await one.get("/")).text


async def test_a_code_that_was_refused_is_said_to_be(
    lab: Lab, provider: OidcProvider
) -> None:
    async with visitor(lab) as one:
        await one.get("/dashboard/sign-in")
        await one.post("/dashboard/sign-in", method="lab")
        page = (await one.get("/dashboard/sign-in/code")).text
        code = page.partition('aria-label="The code">')[2].partition("<")[0]
        provider.deny(code)
        lab.advance(10)
        answer = await one.post("/dashboard/sign-in/code")
        assert answer.status_code == 403
        assert "sign in again" in answer.text
        gone = await one.get("/dashboard/sign-in/code")
        assert gone.headers["location"] == "/dashboard/sign-in"
