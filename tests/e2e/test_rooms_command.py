"""`login` and `rooms` as programs: from a code at a provider to a job in a room.

A real server, a real OpenID provider, people with homes of their own, and workers that
hold nothing but a credential.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.oidc_provider import OidcProvider
from support.people import ALICE, BOB, User, accounts_config, running_provider
from support.programs import Program, Programs, wait_for

from sleap_rtc_plugin.protocol.invitation_code import INVITATION_SCHEME
from sleap_rtc_plugin.protocol.session_string import SCHEME, Session

REFUSED = 4
INTERRUPTED = 130


class Town:
    """A server, and who uses it."""

    def __init__(
        self, programs: Programs, provider: OidcProvider, folder: Path
    ) -> None:
        self.programs = programs
        self.provider = provider
        self._folder = folder
        config = accounts_config(folder, provider)
        self.server = programs.signaling("--config", config)

    def user(self, name: str) -> User:
        return User(self.programs, self._folder / name, self.provider)

    def worker(self, session: str, behaviour: str = "train") -> Program:
        settings = str(self._folder / "nobody")
        worker = self.programs.scripted_worker(
            behaviour, "--session", session, SLEAP_REMOTE_CONFIG_DIR=settings
        )
        return worker.wait_ready()


@pytest.fixture
def town(programs: Programs, tmp_path: Path) -> Iterator[Town]:
    with running_provider() as provider:
        yield Town(programs, provider, tmp_path)


def last(program: Program) -> str:
    return program.err[-1]


def test_a_room_for_members_from_the_first_code_to_the_last_revocation(
    town: Town, small_package: Path, tmp_path: Path
) -> None:
    alice, bob, nobody = town.user("alice"), town.user("bob"), town.user("nobody")

    told = alice.sign_in(town.server, ALICE)
    assert (told["name"], told["method"]) == ("Alice Adams", "lab")
    [known] = alice.json("whoami")
    assert known["account_id"] == told["account_id"]

    created = alice.run("rooms", "create", "--name", "Flies", "--access", "members")
    [string] = created.out
    assert string.startswith(SCHEME)
    made = alice.run("rooms", "credential", "Flies", "--kind", "worker")
    [for_worker] = made.out
    worker = town.worker(for_worker)

    [listed] = alice.json("workers", "--room", "Flies")
    assert listed["name"]

    # The string opens nothing for who is nobody, nor the worker's for a client.
    refused = nobody.run("workers", "--session", string, code=REFUSED)
    assert f"sleap-remote login {town.server}" in last(refused)
    nobody.run("workers", "--session", for_worker, code=REFUSED)
    bob.run("rooms", "show", "Flies", code=REFUSED)

    bob.sign_in(town.server, BOB)
    bob.run("workers", "--session", string, code=REFUSED)
    invited = alice.run("rooms", "invite", "Flies", "--for", "Bob")
    [code] = invited.out
    assert code.startswith(INVITATION_SCHEME)
    accepted = bob.run("rooms", "accept", code)
    assert "You are now a member of the room Flies" in accepted.err[0]
    nobody.run("rooms", "accept", code, code=REFUSED)

    [row] = bob.json("rooms", "list")
    assert (row["name"], row["role"], row["is_kept"]) == ("Flies", "member", True)
    bob.run("rooms", "invite", "Flies", code=REFUSED)
    output = tmp_path / "output"
    trained = bob.start(
        "train", small_package, "--room", "Flies", "--output", output, "--json"
    )
    assert trained.wait() == 0, trained.story()
    assert trained.report["state"] == "succeeded", trained.story()

    # Taken away: the membership, then what let the worker in.
    alice.run("rooms", "remove", "Flies", "Bob Brown")
    bob.run("workers", "--room", row["room_id"], code=REFUSED)
    [details] = alice.json("rooms", "show", "Flies")
    [one] = [c for c in details["credentials"] if c["kind"] == "worker"]
    alice.run("rooms", "revoke", "Flies", one["credential_id"])
    assert worker.wait() == REFUSED, worker.story()
    assert "taken back" in "\n".join(worker.err)
    again = town.programs.scripted_worker("train", "--session", for_worker)
    assert again.wait() == REFUSED, again.story()

    alice.run("rooms", "delete", "Flies", "--yes")
    assert alice.json("rooms", "list") == []
    alice.run("logout")
    alice.run("rooms", "create", code=2)
    for program in town.programs.started:
        said = "\n".join(program.err)
        assert SCHEME not in said
        assert INVITATION_SCHEME not in said


def test_a_member_comes_in_although_the_string_was_taken_back(town: Town) -> None:
    alice, nobody = town.user("alice"), town.user("nobody")
    alice.sign_in(town.server, ALICE)
    [string] = alice.run("rooms", "create", "--name", "Flies").out
    worker = town.programs.scripted_worker(
        "train", "--session", string, SLEAP_REMOTE_CONFIG_DIR=str(alice.settings)
    ).wait_ready()
    assert nobody.json("workers", "--session", string)
    [details] = alice.json("rooms", "show", "Flies")
    [credential] = details["credentials"]
    alice.run("rooms", "revoke", "Flies", credential["credential_id"])
    nobody.run("workers", "--session", string, code=REFUSED)
    assert worker.wait() == REFUSED, worker.story()
    # The account of its machine's user is a member's.
    worker = town.programs.scripted_worker(
        "train", "--session", string, SLEAP_REMOTE_CONFIG_DIR=str(alice.settings)
    ).wait_ready()
    assert alice.json("workers", "--room", "Flies")
    assert alice.json("workers", "--session", string)


def test_a_worker_opens_a_room_of_the_account_that_is_signed_in(town: Town) -> None:
    alice = town.user("alice")
    alice.sign_in(town.server, ALICE)
    worker = town.programs.scripted_worker(
        "train",
        "--signaling",
        town.server,
        SLEAP_REMOTE_CONFIG_DIR=str(alice.settings),
    ).wait_ready()
    [room] = alice.json("rooms", "list")
    assert room["room_id"] == Session.parse(worker.session).room_id
    assert room["role"] == "owner"


def test_signing_in_can_be_given_up_refused_and_too_late(town: Town) -> None:
    alice = town.user("alice")
    waiting = alice.start("login", town.server, "--json")
    waiting.wait_event(state="waiting")
    waiting.interrupt()
    assert waiting.wait() == INTERRUPTED
    assert last(waiting) == "Interrupted; nobody was signed in."

    asked = alice.start("login", town.server)
    code = asked.wait_line(
        lambda line: line.startswith("    ") and ":" not in line, stream="err"
    )
    assert any(town.provider.issuer in line for line in asked.err)
    town.provider.deny(code.strip())
    assert asked.wait() == REFUSED, asked.story()

    alice.run("login", town.server, "--method", "nothing", code=REFUSED)
    alice.run("whoami", code=2)
    alice.run("login", "not an address", code=2)
    assert not (alice.settings / "accounts").exists()


def test_two_programs_that_need_the_next_token_at_once(town: Town) -> None:
    alice = town.user("alice")
    alice.sign_in(town.server, ALICE)
    alice.run("rooms", "create", "--name", "Flies")
    [path] = (alice.settings / "accounts").glob("*.txt")
    kept = json.loads(path.read_text())
    # As if an hour had passed.
    kept["account"]["expires_at"] = 1.0
    path.write_text(json.dumps(kept))
    programs = [alice.start("rooms", "list", "--json") for _ in range(4)]
    for program in programs:
        assert program.wait() == 0, program.story()
    assert alice.json("whoami")
    after = json.loads(path.read_text())
    assert after["account"]["refresh_token"] != kept["account"]["refresh_token"]
    wait_for(lambda: path.exists(), "the account is still kept")
