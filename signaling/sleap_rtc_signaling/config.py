"""What an administrator decides about a signaling server.

Everything has a default, so that a laptop needs no file at all. Read from TOML by
the command; built directly by a program that embeds the server.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Any

import msgspec
import platformdirs
from msgspec import Meta, Struct

from sleap_rtc_plugin.protocol.errors import EXIT_USAGE
from sleap_rtc_plugin.protocol.limits import ACCOUNT_TOKEN_LIFETIME_S, ROOM_LIFETIME_S
from sleap_rtc_plugin.protocol.signaling_messages import IceServer
from sleap_rtc_signaling.limits import ROOM_TOKEN_LIFETIME_S

__all__ = [
    "DEFAULT_HOST",
    "DEFAULT_PORT",
    "DEFAULT_REST_PORT",
    "ConfigError",
    "SignalingConfig",
    "default_data_dir",
    "load",
]

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8080
DEFAULT_REST_PORT = 8001
_NO_PORT = "none"

Port = Annotated[int, Meta(ge=0, le=65535)]
Seconds = Annotated[float, Meta(gt=0)]


class ConfigError(Exception):
    """What the administrator asked for cannot be; the text is one sentence."""

    exit_code = EXIT_USAGE


def default_data_dir() -> Path:
    """Return where the key and the rooms are kept where nothing else is said."""
    return platformdirs.user_data_path("sleap-remote") / "signaling"


class SignalingConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of one server.

    Attributes:
        host: the address to listen on; only loopback lets nobody else in.
        port: for REST and the WebSocket; 0 picks a free one.
        rest_port: for REST alone; 0 picks a free one, None opens none.
        data_dir: holds the signing key and the rooms.
        ice_servers: told to every peer; empty by default, nothing public is used.
        room_lifetime_s: how long a room lives without a worker in it.
        room_token_lifetime_s: how long a session string may be used at most.
        account_token_lifetime_s: how long an account may open and delete rooms.
        trusted_proxies: addresses whose `X-Forwarded-For` is believed.
    """

    host: str = DEFAULT_HOST
    port: Port = DEFAULT_PORT
    rest_port: Port | None = DEFAULT_REST_PORT
    data_dir: Path = msgspec.field(default_factory=default_data_dir)
    ice_servers: tuple[IceServer, ...] = ()
    room_lifetime_s: Seconds = ROOM_LIFETIME_S
    room_token_lifetime_s: Seconds = ROOM_TOKEN_LIFETIME_S
    account_token_lifetime_s: Seconds = ACCOUNT_TOKEN_LIFETIME_S
    trusted_proxies: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Leave out the TURN servers, which may carry a password."""
        return (
            f"SignalingConfig(host={self.host!r}, port={self.port}, "
            f"rest_port={self.rest_port}, data_dir={str(self.data_dir)!r})"
        )


def load(path: Path) -> SignalingConfig:
    """Read a TOML file; `rest_port = "none"` opens no second port.

    Raises:
        ConfigError: the file is missing, not TOML, or sets what does not exist.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"The configuration file {path} does not exist.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.") from None
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.") from None
    if values.get("rest_port") == _NO_PORT:
        values["rest_port"] = None
    try:
        return msgspec.convert(values, SignalingConfig, dec_hook=_decode_path)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path} is not accepted: {error}.") from None


def _decode_path(kind: type[Any], value: Any) -> Any:
    if kind is Path and isinstance(value, str):
        return Path(value).expanduser()
    raise ValueError("Expected `str`")
