"""People with homes of their own, who use the programs, and a provider they sign in at.

The provider is real and runs on a loop in a thread, so that tests can wait for programs
as they always do.
"""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.oidc_provider import CLIENT_ID, OidcProvider, Person
from support.programs import Program, Programs

ALICE = Person(subject="alice-1", name="Alice Adams")
BOB = Person(subject="bob-2", name="Bob Brown")


class User:
    """One person's computer: the same programs, with settings of its own."""

    def __init__(
        self, programs: Programs, folder: Path, provider: OidcProvider
    ) -> None:
        self._programs = programs
        self._provider = provider
        self.settings = folder

    def start(self, *words: object, **environment: str) -> Program:
        where = {"SLEAP_REMOTE_CONFIG_DIR": str(self.settings)}
        return self._programs.client(*words, **where, **environment)

    def run(self, *words: object, code: int = 0) -> Program:
        """Run `sleap-remote WORDS` to its end."""
        program = self.start(*words)
        assert program.wait() == code, program.story()
        return program

    def json(self, *words: object) -> list[Any]:
        return [json.loads(line) for line in self.run(*words, "--json").out]

    def sign_in(self, server: str, person: Person) -> dict[str, Any]:
        signing_in = self.start("login", server, "--json")
        shown = signing_in.wait_event(state="waiting")
        self._provider.approve(shown["user_code"], person)
        assert signing_in.wait() == 0, signing_in.story()
        return signing_in.report


@contextmanager
def running_provider() -> Iterator[OidcProvider]:
    """Run a provider in a thread."""
    provider = OidcProvider()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="provider", daemon=True)
    thread.start()

    def wait(work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, loop).result(10)

    wait(provider.start())
    try:
        yield provider
    finally:
        wait(provider.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def accounts_config(folder: Path, provider: OidcProvider, more: str = "") -> Path:
    """Write a configuration of a server whose people are the provider's."""
    path = folder / "accounts.toml"
    path.write_text(
        "[[accounts.oidc]]\n"
        'name = "lab"\nlabel = "The Lab"\n'
        f'issuer = "{provider.issuer}"\nclient_id = "{CLIENT_ID}"\n{more}'
    )
    return path
