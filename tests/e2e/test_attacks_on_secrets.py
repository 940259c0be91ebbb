"""Whoever stands between the real programs, or looks around, learns no secret."""

import asyncio
import json
import secrets
import sqlite3
from pathlib import Path

from support.evil_signaling import EvilSignaling
from support.programs import POSIX, Programs
from support.refusals import assert_refused, exit_of

from sleap_rtc_plugin.protocol.session_string import Session


def jobs_at(programs: Programs) -> dict[str, str]:
    """Return the state of every job that the worker knows, from its journal."""
    journal = programs.folder / "worker-data" / "journal.sqlite3"
    if not journal.exists():
        return {}
    # The worker holds the lock, so read a copy.
    copy = programs.folder / "copy"
    copy.mkdir(exist_ok=True)
    for part in journal.parent.glob("journal.sqlite3*"):
        (copy / part.name).write_bytes(part.read_bytes())
    with sqlite3.connect(copy / journal.name) as database:
        rows = database.execute("SELECT job_id, record FROM jobs").fetchall()
    database.close()
    return {job_id: json.loads(record)["state"] for job_id, record in rows}


# -- in the middle ---------------------------------------------------------------------


async def test_a_relay_in_the_middle_is_refused_by_both(
    programs: Programs, small_package: Path, output: Path
) -> None:
    async with EvilSignaling() as evil:
        session = Session(
            url=evil.url,
            room_id="room-1",
            token="any",
            peer_id="worker-1",
            secret=secrets.token_bytes(32),
        ).encode()
        worker = programs.scripted_worker("train", "--session", session)
        await asyncio.to_thread(worker.wait_ready)
        client = programs.train(small_package, session, output)
        await exit_of(client)
        await asyncio.to_thread(
            worker.wait_line, lambda line: "No link with" in line, stream="err"
        )
    assert_refused(client, 4, "peer_not_authenticated", output)
    assert client.report["state"] == "unsent"
    (complaint,) = [line for line in worker.err if "No link with" in line]
    assert "could not prove" in complaint
    # It was really in between, and learnt nothing but the handshake.
    assert evil.links == 1
    heard = [str(f).partition("::")[0] for f in evil.from_client + evil.from_worker]
    assert set(heard) == {"HELLO", "AUTH"}
    assert jobs_at(programs) == {}


# -- in words, environments, lines and files -------------------------------------------


@POSIX
def test_secrets_are_nowhere(
    programs: Programs, small_package: Path, tmp_path: Path, output: Path
) -> None:
    gate = tmp_path / "gate"
    log = tmp_path / "log"
    worker = programs.scripted_worker(f"gated,gate={gate},log={log}", "--verbose")
    worker.wait_ready()
    session = Session.parse(worker.session)
    body = worker.session.partition(":")[2]
    encoded = json.loads(_decode(body))["secret"]
    hidden = [session.token, encoded, session.secret.hex(), body, worker.session]

    client = programs.client(
        *("train", small_package, "--output", output, "--json", "--verbose"),
        SLEAP_SESSION=worker.session,
    )
    client.wait_event(event="progress", kind="epoch_end")
    running = list(programs.processes())
    assert len(running) >= 4  # the worker, the client, the runner, the trainer
    for process in running:
        words = " ".join(process.cmdline())
        assert not [secret for secret in hidden if secret in words]
        if process.pid not in (client.pid, worker.pid):
            environment = " ".join(process.environ().values())
            assert not [secret for secret in hidden if secret in environment]
    gate.touch()
    assert client.wait() == 0, client.story()
    worker.terminate()
    worker.wait()

    said = "\n".join((*client.out, *client.err, *worker.out[1:], *worker.err))
    assert "DEBUG" in said or "INFO" in said  # it was verbose indeed
    assert not [secret for secret in hidden if secret in said]
    wanted = [secret.encode() for secret in hidden] + [session.secret]
    files = [
        path
        for folder in (programs.home, programs.folder / "worker-data", output)
        for path in folder.rglob("*")
        if path.is_file()
    ]
    assert any(path.name == "journal.sqlite3" for path in files)
    found = [p for p in files for secret in wanted if secret in p.read_bytes()]
    assert found == []


def _decode(body: str) -> bytes:
    import base64

    return base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))[:-4]
