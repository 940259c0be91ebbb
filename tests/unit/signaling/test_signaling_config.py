import json
from pathlib import Path

import pytest

from sleap_rtc_plugin.protocol.signaling_messages import IceServer
from sleap_rtc_signaling.config import (
    ConfigError,
    RelayConfig,
    SignalingConfig,
    TurnServer,
    load,
)


def test_everything_has_a_default_that_is_not_public() -> None:
    config = SignalingConfig()
    assert (config.host, config.port, config.rest_port) == ("127.0.0.1", 8080, 8001)
    assert config.ice_servers == ()
    assert config.data_dir.name == "signaling"


def test_a_file_sets_what_it_names(tmp_path: Path) -> None:
    path = tmp_path / "signaling.toml"
    path.write_text(
        """
        host = "127.0.0.2"
        rest_port = "none"
        data_dir = "/srv/signaling"
        room_lifetime_s = 600
        [[ice_servers]]
        urls = ["turn:turn.example.org"]
        username = "lab"
        credential = "hidden-password"
        """
    )
    config = load(path)
    assert config.host == "127.0.0.2"
    assert config.port == 8080
    assert config.rest_port is None
    assert config.data_dir == Path("/srv/signaling")
    assert config.room_lifetime_s == 600
    assert config.ice_servers == (
        IceServer(
            urls=["turn:turn.example.org"],
            username="lab",
            credential="hidden-password",
        ),
    )
    assert "hidden-password" not in repr(config)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("port = ", "TOML"),
        ("port = 70000", "port"),
        ("port = 'http'", "port"),
        ("ports = 1", "ports"),
        ("room_lifetime_s = 0", "room_lifetime_s"),
        ("room_lifetime_s = -5", "room_lifetime_s"),
        ("data_dir = 5", "data_dir"),
        ("ice_servers = [1]", "ice_servers"),
        ("rest_port = 'off'", "rest_port"),
    ],
)
def test_a_wrong_file_is_one_clear_sentence(
    tmp_path: Path, text: str, words: str
) -> None:
    path = tmp_path / "signaling.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_missing_or_binary_file_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load(tmp_path / "missing.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "binary.toml")


# -- the relay --------------------


def test_the_relay_is_off_until_the_file_says_otherwise(tmp_path: Path) -> None:
    assert not SignalingConfig().relay.enabled
    path = tmp_path / "signaling.toml"
    path.write_text("[relay]\nmax_mbit = 2")
    assert not load(path).relay.enabled
    path.write_text("[relay]\nenabled = true\nmax_mbit = 2.5\nroom_gib_per_day = 1")
    relay = load(path).relay
    assert relay == RelayConfig(enabled=True, max_mbit=2.5, room_gib_per_day=1)


@pytest.mark.parametrize(
    "line",
    [
        "enabled = 1",
        "max_mbit = 0",
        "max_relays = 0",
        "account_share = 0",
        "account_share = 1.1",
        "room_gib_per_day = -1",
        "speed = 5",
    ],
)
def test_a_wrong_relay_table_is_one_clear_sentence(tmp_path: Path, line: str) -> None:
    path = tmp_path / "signaling.toml"
    path.write_text(f"[relay]\n{line}")
    with pytest.raises(ConfigError, match=line.partition(" ")[0]):
        load(path)


# -- TURN --------------------

SECRET = "0123456789abcdef-of-a-test"
TURN = '[[turn]]\nurls = ["turn:t.lab:3478", "turns:t.lab:443?transport=tcp"]\n'
URLS = ("turn:t.lab:3478", "turns:t.lab:443?transport=tcp")


def test_a_secret_comes_from_the_file_another_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret_file = tmp_path / "secret"
    secret_file.write_text(f"{SECRET}\n")
    monkeypatch.setenv("TURN_SECRET_OF_A_TEST", SECRET)
    path = tmp_path / "signaling.toml"
    for line in (
        f"secret = '{SECRET}'",
        f"secret_file = '{secret_file}'",
        "secret_env = 'TURN_SECRET_OF_A_TEST'",
    ):
        path.write_text(TURN + line)
        config = load(path)
        assert config.turn == (TurnServer(urls=URLS, secret=SECRET),)
        assert SECRET not in repr(config)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (TURN, "one of"),
        (TURN + "secret = 'short'", "16 characters"),
        (TURN + f"secret = '{SECRET}'\nsecret_env = 'X'", "one of"),
        (TURN + "secret_env = 'NO_SUCH_VARIABLE'", "NO_SUCH_VARIABLE"),
        (TURN + "secret_file = '/nowhere/secret'", "missing"),
        (TURN + "secret_file = '/'", "cannot be read"),
        (TURN + f"secret = '{SECRET}'\npassword = 'x'", "password"),
        ("[[turn]]\nurls = []\nsecret = 'x'", "urls"),
        ("[[turn]]\nurls = ['stun:t.lab']\nsecret = 'x'", "urls"),
        ("[[turn]]\nurls = ['turn:t.lab?transport=tls']\nsecret = 'x'", "urls"),
        ("[[turn]]\nurls = ['turn:']\nsecret = 'x'", "urls"),
        ("turn_lifetime_s = 0", "turn_lifetime_s"),
    ],
)
def test_a_wrong_turn_table_is_one_clear_sentence(
    tmp_path: Path, text: str, words: str
) -> None:
    path = tmp_path / "signaling.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words) as caught:
        load(path)
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


# -- the environment --------------------


def test_options_go_before_the_environment_and_that_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "signaling.toml"
    path.write_text(
        "port = 1\nrest_port = 2\nhost = '127.0.0.2'\n[relay]\nmax_mbit = 3"
    )
    monkeypatch.setenv("SLEAP_SIGNALING_PORT", "11")
    monkeypatch.setenv("SLEAP_SIGNALING_REST_PORT", "none")
    monkeypatch.setenv("SLEAP_SIGNALING_RELAY__ENABLED", "true")
    monkeypatch.setenv("SLEAP_SIGNALING_TRUSTED_PROXIES", '["10.0.0.1"]')
    ice = '[{"urls": ["stun:s.lab"]}]'
    monkeypatch.setenv("SLEAP_SIGNALING_ICE_SERVERS", ice)
    config = load(path, {"port": 111, "relay": {"max_relays": 5}})
    assert (config.port, config.rest_port, config.host) == (111, None, "127.0.0.2")
    assert config.relay == RelayConfig(enabled=True, max_mbit=3, max_relays=5)
    assert config.trusted_proxies == ("10.0.0.1",)
    assert config.ice_servers == (IceServer(urls=["stun:s.lab"]),)
    assert load(path).port == 11
    assert type(load(path)) is SignalingConfig


def test_a_program_that_embeds_the_server_reads_no_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SLEAP_SIGNALING_PORT", "11")
    assert SignalingConfig().port == 8080


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("SLEAP_SIGNALING_PORT", "http", "SLEAP_SIGNALING_PORT is not accepted: port"),
        ("SLEAP_SIGNALING_PROT", "1", "sets nothing; SLEAP_SIGNALING_PORT is meant"),
        ("SLEAP_SIGNALING_RELAY__MAX_MBIT", "0", "RELAY__MAX_MBIT is not accepted"),
        ("SLEAP_SIGNALING_RELAY__SPEED", "1", "there is no such setting"),
        ("SLEAP_SIGNALING_TURN", "turn:t.lab", "SLEAP_SIGNALING_TURN is not accepted"),
    ],
)
def test_a_wrong_variable_is_one_clear_sentence(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=words) as caught:
        load()
    assert "\n" not in str(caught.value)


def test_a_slip_in_the_file_is_told_with_what_was_meant(tmp_path: Path) -> None:
    path = tmp_path / "signaling.toml"
    path.write_text("room_lifetime = 5")
    with pytest.raises(ConfigError, match="room_lifetime_s is meant, perhaps"):
        load(path)
    path.write_text("[relay]\nmax_relay = 5")
    with pytest.raises(ConfigError, match="max_relays is meant, perhaps"):
        load(path)


def test_a_secret_in_the_environment_is_not_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turn = json.dumps([{"urls": ["turn:t.lab"], "secret": SECRET}])
    monkeypatch.setenv("SLEAP_SIGNALING_TURN", turn)
    config = load()
    assert config.turn[0].secret == SECRET
    assert SECRET not in repr(config) + str(config) + repr(config.turn)
    monkeypatch.setenv("SLEAP_SIGNALING_TURN", turn.replace("turn:", "tern:"))
    with pytest.raises(ConfigError) as caught:
        load()
    assert SECRET not in str(caught.value)
