"""`worker --pair` and `pair` as programs: from a code to a room that is remembered."""

import json
import re

from support.programs import Program, Programs, Worker

from sleap_rtc_plugin.protocol.session_string import SCHEME

REFUSED = 4
CODE = re.compile(r"^ {4}(\d+(?:-[a-z]+){3})$")


def code_of(worker: Program) -> str:
    line = worker.wait_line(lambda text: CODE.match(text) is not None, stream="err")
    return line.strip()


def paired(programs: Programs, server: str) -> tuple[Worker, str]:
    worker = programs.scripted_worker("train", "--pair", "--signaling", server)
    worker.wait_ready()
    return worker, code_of(worker)


def test_a_code_opens_the_room(programs: Programs) -> None:
    server = programs.signaling()
    worker, code = paired(programs, server)
    said = programs.client("pair", *code.split("-"), "--server", server, "--print")
    assert said.wait() == 0, said.story()
    assert said.out == [worker.session]
    assert any("is open to you" in line for line in said.err)
    worker.wait_line(lambda text: text.startswith("Paired:"), stream="err")

    listed = programs.client("workers", "--session", said.out[0], "--json")
    assert listed.wait() == 0, listed.story()
    assert json.loads(listed.out[0])["name"]

    again = programs.client("pair", code, "--server", server)
    assert again.wait() == REFUSED
    assert "was used" in again.err[-1]
    # The code and the string are on the worker's terminal, and nowhere in a log.
    assert not [line for line in said.err if SCHEME in line or code in line]


def test_a_wrong_word_is_refused_and_the_worker_shows_another_code(
    programs: Programs,
) -> None:
    server = programs.signaling()
    worker, code = paired(programs, server)
    number = code.partition("-")[0]
    guess = programs.client("pair", f"{number}-zebra-zebra-zebra", "--server", server)
    assert guess.wait() == REFUSED, guess.story()
    assert "the worker shows other words" in guess.err[-1]
    other = worker.wait_line(
        lambda text: CODE.match(text) is not None and text.strip() != code, stream="err"
    )
    right = programs.client("pair", other.strip(), "--server", server)
    assert right.wait() == 0, right.story()
    assert right.out == []


def test_what_is_no_code_asks_nobody(programs: Programs) -> None:
    nowhere = "http://127.0.0.1:1"
    typo = programs.client("pair", "7-coper-otter-lagoon", "--server", nowhere)
    assert typo.wait() == REFUSED
    assert "copper is" in typo.err[-1]
    address = programs.client("pair", "7-copper-otter-lagoon", "--server", "x")
    assert address.wait() == 2
