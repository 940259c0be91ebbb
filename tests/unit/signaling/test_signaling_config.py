from pathlib import Path

import pytest

from sleap_rtc_plugin.protocol.signaling_messages import IceServer
from sleap_rtc_signaling.config import ConfigError, SignalingConfig, load


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
