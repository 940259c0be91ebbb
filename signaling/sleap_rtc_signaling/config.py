"""What an administrator decides about a signaling server.

Everything has a default, so that a laptop needs no file at all. Read from TOML by
the command; built directly by a program that embeds the server.
"""

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import platformdirs
from msgspec import Meta, Struct

from sleap_rtc_plugin.protocol.errors import EXIT_USAGE
from sleap_rtc_plugin.protocol.limits import (
    ACCOUNT_TOKEN_LIFETIME_S,
    MAX_ICE_SERVERS,
    MAX_URL_CHARS,
    ROOM_LIFETIME_S,
)
from sleap_rtc_plugin.protocol.signaling_messages import IceServer
from sleap_rtc_signaling.limits import (
    MAX_RELAYS,
    MAX_RELAYS_PER_ROOM,
    MAX_TURN_SECRET_BYTES,
    MAX_TURN_SERVERS,
    MAX_TURN_URLS,
    MIN_TURN_SECRET_CHARS,
    RELAY_ACCOUNT_SHARE,
    RELAY_MAX_MBIT,
    RELAY_ROOM_GIB_PER_DAY,
    RELAY_TOTAL_GIB_PER_DAY,
    RELAY_TOTAL_MBIT,
    ROOM_TOKEN_LIFETIME_S,
    TURN_LIFETIME_S,
)

__all__ = [
    "DEFAULT_HOST",
    "DEFAULT_PORT",
    "DEFAULT_REST_PORT",
    "ConfigError",
    "LimitsConfig",
    "RelayConfig",
    "SignalingConfig",
    "TurnServer",
    "default_data_dir",
    "load",
]

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8080
DEFAULT_REST_PORT = 8001
_NO_PORT = "none"

Port = Annotated[int, Meta(ge=0, le=65535)]
Seconds = Annotated[float, Meta(gt=0)]
Positive = Annotated[float, Meta(gt=0)]
_TURN_URL: Final = (
    r"^turns?:([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?"
    r"(\?transport=(udp|tcp))?\Z"
)
TurnUrl = Annotated[str, Meta(pattern=_TURN_URL, max_length=MAX_URL_CHARS)]


class ConfigError(Exception):
    """What the administrator asked for cannot be; the text is one sentence."""

    exit_code = EXIT_USAGE


def default_data_dir() -> Path:
    """Return where the key and the rooms are kept where nothing else is said."""
    return platformdirs.user_data_path("sleap-remote") / "signaling"


class TurnServer(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A TURN server that shares a secret with this one (`use-auth-secret`).

    In a file, exactly one of the three says what the secret is; `load` reads the
    other two, so that `secret` is always there.

    Attributes:
        urls: `turn:` and `turns:` addresses, `?transport=tcp` among them.
        secret: the shared secret itself.
        secret_file: a file that holds it, and nothing else.
        secret_env: the environment variable that holds it.
    """

    urls: Annotated[tuple[TurnUrl, ...], Meta(min_length=1, max_length=MAX_TURN_URLS)]
    secret: str = ""
    secret_file: Path | None = None
    secret_env: str | None = None

    def __repr__(self) -> str:
        """Leave out the secret."""
        return f"TurnServer({list(self.urls)!r})"


class RelayConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The relay of last resort, through this server's WebSocket.

    Attributes:
        enabled: whether there is one at all.
        max_mbit: what one relay carries in each direction, in Mbit/s.
        total_mbit: what all of them carry together, both directions.
        max_relays: how many there may be at once.
        max_relays_per_room: the same, of one room.
        room_gib_per_day: what a room may have relayed in a day of UTC.
        total_gib_per_day: what all rooms may.
        account_share: which part of `max_relays` and `total_gib_per_day` the rooms
            of one account may have together.
    """

    enabled: bool = False
    max_mbit: Positive = RELAY_MAX_MBIT
    total_mbit: Positive = RELAY_TOTAL_MBIT
    max_relays: Annotated[int, Meta(ge=1)] = MAX_RELAYS
    max_relays_per_room: Annotated[int, Meta(ge=1)] = MAX_RELAYS_PER_ROOM
    room_gib_per_day: Positive = RELAY_ROOM_GIB_PER_DAY
    total_gib_per_day: Positive = RELAY_TOTAL_GIB_PER_DAY
    account_share: Annotated[float, Meta(gt=0, le=1)] = RELAY_ACCOUNT_SHARE


class LimitsConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many sockets there may be, and how much they may say.

    What is not set is as `limits` has it. The rates hold in the long run; at once
    there may be more, in the same proportion as there.

    Attributes:
        max_sockets: WebSockets of the whole server.
        max_sockets_per_address: the same, from one address.
        connects_per_s: new WebSockets from one address.
        messages_per_s: messages of one peer.
        address_messages_per_s: messages of all peers of one address.
    """

    max_sockets: Annotated[int, Meta(ge=1)] | None = None
    max_sockets_per_address: Annotated[int, Meta(ge=1)] | None = None
    connects_per_s: Positive | None = None
    messages_per_s: Positive | None = None
    address_messages_per_s: Positive | None = None


class SignalingConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of one server.

    Attributes:
        host: the address to listen on; only loopback lets nobody else in.
        port: for REST and the WebSocket; 0 picks a free one.
        rest_port: for REST alone; 0 picks a free one, None opens none.
        data_dir: holds the signing key and the rooms.
        ice_servers: told to every peer; empty by default, nothing public is used.
        turn: told to every peer too, with credentials that end.
        turn_lifetime_s: how long such credentials are good.
        relay: the relay of last resort; off by default.
        limits: how many sockets, and how much they may say.
        room_lifetime_s: how long a room lives without a worker in it.
        room_token_lifetime_s: how long a session string may be used at most.
        account_token_lifetime_s: how long an account may open and delete rooms.
        trusted_proxies: addresses whose `X-Forwarded-For` is believed.
    """

    host: str = DEFAULT_HOST
    port: Port = DEFAULT_PORT
    rest_port: Port | None = DEFAULT_REST_PORT
    data_dir: Path = msgspec.field(default_factory=default_data_dir)
    ice_servers: Annotated[
        tuple[IceServer, ...], Meta(max_length=MAX_ICE_SERVERS - MAX_TURN_SERVERS)
    ] = ()
    turn: Annotated[tuple[TurnServer, ...], Meta(max_length=MAX_TURN_SERVERS)] = ()
    turn_lifetime_s: Seconds = TURN_LIFETIME_S
    relay: RelayConfig = RelayConfig()
    limits: LimitsConfig = LimitsConfig()
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
        config = msgspec.convert(values, SignalingConfig, dec_hook=_decode_path)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path} is not accepted: {error}.") from None
    turn = tuple(_with_secret(server, path) for server in config.turn)
    return msgspec.structs.replace(config, turn=turn)


def _with_secret(server: TurnServer, path: Path) -> TurnServer:
    """Read the secret from where the file says that it is."""
    given = (server.secret, server.secret_file, server.secret_env)
    if sum(1 for value in given if value) != 1:
        raise ConfigError(
            f"{path} is not accepted: a [[turn]] table needs one of secret, "
            "secret_file and secret_env."
        )
    secret = server.secret
    if server.secret_file is not None:
        place = str(server.secret_file)
        secret = _read_secret(server.secret_file)
    elif server.secret_env:
        place = f"the environment variable {server.secret_env}"
        secret = os.environ.get(server.secret_env, "").strip()
    else:
        place = str(path)
    if len(secret) < MIN_TURN_SECRET_CHARS:
        raise ConfigError(
            f"The TURN secret in {place} is missing or shorter than "
            f"{MIN_TURN_SECRET_CHARS} characters; `openssl rand -hex 32` makes a good "
            "one."
        )
    return msgspec.structs.replace(
        server, secret=secret, secret_file=None, secret_env=None
    )


def _read_secret(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(MAX_TURN_SECRET_BYTES).decode().strip()
    except FileNotFoundError:
        raise ConfigError(f"The file {path} with a TURN secret is missing.") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ConfigError(f"{path} cannot be read: {reason}.") from None


def _decode_path(kind: type[Any], value: Any) -> Any:
    if kind is Path and isinstance(value, str):
        return Path(value).expanduser()
    raise ValueError("Expected `str`")
