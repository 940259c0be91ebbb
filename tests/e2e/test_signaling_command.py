"""`sleap-remote signaling` and what stands below it, as programs."""

import json
import re
import signal
from pathlib import Path

import pytest
from support.nginx_proxy import make_certificate
from support.programs import Program, Programs

USAGE = 2


def server(programs: Programs, *words: object, **environment: str) -> Program:
    where = ("--port", "0", "--rest-port", "none", "--data", programs.folder / "data")
    started = programs.client("signaling", *where, *words, **environment)
    started.wait_line(lambda line: " listens on " in line, stream="err")
    return started


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no such signal")
def test_a_running_server_reads_keys_and_certificate_again(
    programs: Programs,
) -> None:
    make_certificate(programs.folder)
    cert, key = programs.folder / "certificate.pem", programs.folder / "key.pem"
    started = server(programs, "--tls-cert", cert, "--tls-key", key)
    assert any("https://127.0.0.1" in line for line in started.err)
    rotated = programs.client(
        "signaling", "rotate-keys", "--data", programs.folder / "data"
    )
    assert rotated.wait() == 0, rotated.story()
    # Whole seconds upwards from any fraction of one, shown rounded.
    assert re.search(r"signs in 6[01] s; 1 older stay", rotated.err[-1])
    started.signal(signal.SIGHUP)
    started.wait_line(lambda line: "were read again" in line, stream="err")
    cert.write_text("nothing")
    started.signal(signal.SIGHUP)
    line = started.wait_line(lambda text: "in use stays" in text, stream="err")
    assert "certificate.pem" in line
    assert started.is_running
    started.interrupt()
    assert started.wait() == 0, started.story()


def test_settings_come_from_the_environment(programs: Programs) -> None:
    started = server(
        programs,
        SLEAP_SIGNALING_RELAY__ENABLED="true",
        SLEAP_SIGNALING_PUBLIC_URL="https://signaling.lab.example",
    )
    line = started.wait_line(lambda text: "It relays" in text, stream="err")
    assert "8 Mbit/s" in line
    assert any("https://signaling.lab.example" in line for line in started.err)


def test_check_config_prints_what_is_set_without_secrets(
    programs: Programs, tmp_path: Path
) -> None:
    path = tmp_path / "signaling.toml"
    path.write_text(
        "port = 9\n[[turn]]\nurls = ['turn:t.lab']\nsecret = '0123456789abcdef-x'\n"
    )
    checked = programs.client("signaling", "check-config", "--config", path)
    assert checked.wait() == 0, checked.story()
    said = "\n".join(checked.out)
    assert json.loads(said)["port"] == 9
    assert "turn:t.lab" in said
    assert "0123456789abcdef-x" not in said


@pytest.mark.parametrize(
    ("words", "environment", "sentence"),
    [
        ((), {"SLEAP_SIGNALING_PROT": "1"}, "SLEAP_SIGNALING_PORT is meant"),
        (("--tls-cert", "/nowhere.pem"), {}, "/nowhere.pem"),
        (("--tls-key", "/nowhere.pem"), {}, "tls.cert"),
        (("--public-url", "lab"), {}, "public_url"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    programs: Programs,
    words: tuple[str, ...],
    environment: dict[str, str],
    sentence: str,
) -> None:
    started = programs.client("signaling", "--port", "0", *words, **environment)
    assert started.wait() == USAGE, started.story()
    assert sentence in started.err[-1]
    assert len(started.err) == 1
