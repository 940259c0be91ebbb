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
