"""What an administrator decides about a signaling server.

Everything has a default, so that a laptop needs no file at all. The command reads
options, then the environment, then a TOML file (pydantic-settings); a program that
embeds the server builds a `SignalingConfig`, and no environment is read.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

import msgspec
import platformdirs
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    ValidationError,
    field_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from sleap_rtc_plugin.protocol.limits import (
    ACCOUNT_TOKEN_LIFETIME_S,
    MAX_ICE_SERVERS,
    MAX_URL_CHARS,
    ROOM_LIFETIME_S,
)
from sleap_rtc_plugin.protocol.session_string import is_signaling_url
from sleap_rtc_plugin.protocol.signaling_messages import IceServer
from sleap_rtc_signaling.accounts_config import AccountsConfig, with_client_secrets
from sleap_rtc_signaling.limits import (
    BACKUP_INTERVAL_S,
    DRAIN_S,
    MAX_DRAIN_S,
    MAX_RELAYS,
    MAX_RELAYS_PER_ROOM,
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
from sleap_rtc_signaling.sections import (
    ConfigError,
    HomePath,
    Positive,
    Seconds,
    Section,
    Switch,
    read_secret,
)

__all__ = [
    "DEFAULT_HOST",
    "DEFAULT_PORT",
    "DEFAULT_REST_PORT",
    "ENVIRONMENT_PREFIX",
    "AccountsConfig",
    "BusConfig",
    "ConfigError",
    "DashboardConfig",
    "LimitsConfig",
    "LogConfig",
    "RegistryConfig",
    "RelayConfig",
    "Section",
    "SignalingConfig",
    "StoreConfig",
    "TlsConfig",
    "TurnServer",
    "default_data_dir",
    "load",
    "shown",
]

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8080
DEFAULT_REST_PORT = 8001
ENVIRONMENT_PREFIX: Final = "SLEAP_SIGNALING_"
_NESTED: Final = "__"
_USER_OF_URL: Final = re.compile("//.*@")
_BUS_SCHEMES: Final = ("redis://", "rediss://", "unix://")
_NO_PORT: Final = "none"


# -- what values look like ------------------------------------------------------------


def _read_rest_port(value: Any) -> Any:
    return None if value == _NO_PORT else value


def _read_ice_server(value: Any) -> Any:
    if isinstance(value, IceServer):
        return value
    try:
        return msgspec.convert(value, IceServer)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None


def _check_url(value: str) -> str:
    if not is_signaling_url(value):
        raise ValueError("an address such as https://signaling.lab.example is expected")
    return value.rstrip("/")


Port = Annotated[int, Field(ge=0, le=65535)]
_TURN_URL: Final = (
    r"^turns?:([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?"
    r"(\?transport=(udp|tcp))?$"
)
TurnUrl = Annotated[str, Field(pattern=_TURN_URL, max_length=MAX_URL_CHARS)]
Ice = Annotated[IceServer, BeforeValidator(_read_ice_server)]


def default_data_dir() -> Path:
    """Return where the key and the rooms are kept where nothing else is said."""
    return platformdirs.user_data_path("sleap-remote") / "signaling"


# -- the sections ---------------------------------------------------------------------


class TurnServer(Section):
    """A TURN server that shares a secret with this one (`use-auth-secret`).

    Exactly one of the three says what the secret is; `load` reads the other two, so
    that `secret` is always there.

    Attributes:
        urls: `turn:` and `turns:` addresses, `?transport=tcp` among them.
        secret: the shared secret itself.
        secret_file: a file that holds it, and nothing else.
        secret_env: the environment variable that holds it.
    """

    urls: Annotated[tuple[TurnUrl, ...], Field(min_length=1, max_length=MAX_TURN_URLS)]
    secret: Annotated[str, Field(repr=False)] = ""
    secret_file: HomePath | None = None
    secret_env: str | None = None


class RelayConfig(Section):
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

    enabled: Switch = False
    max_mbit: Positive = RELAY_MAX_MBIT
    total_mbit: Positive = RELAY_TOTAL_MBIT
    max_relays: Annotated[int, Field(ge=1)] = MAX_RELAYS
    max_relays_per_room: Annotated[int, Field(ge=1)] = MAX_RELAYS_PER_ROOM
    room_gib_per_day: Positive = RELAY_ROOM_GIB_PER_DAY
    total_gib_per_day: Positive = RELAY_TOTAL_GIB_PER_DAY
    account_share: Annotated[float, Field(gt=0, le=1)] = RELAY_ACCOUNT_SHARE


class DashboardConfig(Section):
    """The pages for people with a browser.

    Attributes:
        enabled: whether there are any.
    """

    enabled: Switch = True


class RegistryConfig(Section):
    """Where the models of the rooms are, for the dashboard to show.

    Attributes:
        store: a folder or `s3://...`, as workers name it with `--model-store`; empty
            where the dashboard shows no models.
    """

    store: Annotated[str, Field(max_length=MAX_URL_CHARS)] = ""


class StoreConfig(Section):
    """Where rooms and accounts are kept.

    Attributes:
        kind: `sqlite`, a file in `data_dir`; or `dynamodb`, for several instances.
        table: the DynamoDB table, which is there already.
        region: its AWS region; where empty, what AWS's programs are set to.
        endpoint: another address than AWS's, for tests.
        backup_to: an object store's address for backups; where empty, there are none.
        backup_every_s: how long between two backups.
    """

    kind: Literal["sqlite", "dynamodb"] = "sqlite"
    table: str = "sleap-remote"
    region: str = ""
    endpoint: str = ""
    backup_to: str = ""
    backup_every_s: Seconds = BACKUP_INTERVAL_S


class BusConfig(Section):
    """`[bus]`: what several instances behind one address share.

    Attributes:
        url: `redis://`, `rediss://` or `unix://`; where empty, this instance is alone.
        prefix: how every key in Redis begins, where several services share one.
        drain_s: how long an instance that is stopped says that it is not ready before
            it sends its peers to the others; as long as the load balancer needs to see.
    """

    url: Annotated[str, Field(repr=False, max_length=MAX_URL_CHARS)] = ""
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9:_-]{1,64}$")] = "sleap-remote"
    drain_s: Annotated[float, Field(ge=0, le=MAX_DRAIN_S)] = DRAIN_S

    @field_validator("url")
    @classmethod
    def _check_bus_url(cls, value: str) -> str:
        if value and not value.startswith(_BUS_SCHEMES):
            raise ValueError("redis://…, rediss://… or unix://… is expected")
        return value


class TlsConfig(Section):
    """The server's certificate; without this table it speaks plain HTTP.

    Attributes:
        cert: a PEM file with the certificate and those above it.
        key: a PEM file with its private key; None where `cert` holds it too.
    """

    cert: HomePath
    key: HomePath | None = None


class LogConfig(Section):
    """What the server writes to stderr while it serves.

    Attributes:
        format: `text` for a person, `json` for a program.
        level: from which level on.
    """

    format: Literal["text", "json"] = "text"
    level: Literal["debug", "info", "warning", "error"] = "warning"


class LimitsConfig(Section):
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

    max_sockets: Annotated[int, Field(ge=1)] | None = None
    max_sockets_per_address: Annotated[int, Field(ge=1)] | None = None
    connects_per_s: Positive | None = None
    messages_per_s: Positive | None = None
    address_messages_per_s: Positive | None = None


class SignalingConfig(Section):
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
        accounts: the ways to sign in.
        store: where rooms and accounts are kept.
        bus: what several instances share; alone by default.
        trusted_proxies: addresses whose `X-Forwarded-For` is believed.
        dashboard: the pages at `/`.
        registry: the models that they show.
        tls: the server's own certificate; None where a proxy has one, or nobody.
        log: what it writes to stderr.
        public_url: the address that is told to people, where it is not the server's
            own: that of a proxy, or a name.
    """

    host: str = DEFAULT_HOST
    port: Port = DEFAULT_PORT
    rest_port: Annotated[Port | None, BeforeValidator(_read_rest_port)] = (
        DEFAULT_REST_PORT
    )
    data_dir: HomePath = Field(default_factory=default_data_dir)
    ice_servers: Annotated[
        tuple[Ice, ...], Field(max_length=MAX_ICE_SERVERS - MAX_TURN_SERVERS)
    ] = ()
    turn: Annotated[tuple[TurnServer, ...], Field(max_length=MAX_TURN_SERVERS)] = ()
    turn_lifetime_s: Seconds = TURN_LIFETIME_S
    relay: RelayConfig = RelayConfig()
    limits: LimitsConfig = LimitsConfig()
    room_lifetime_s: Seconds = ROOM_LIFETIME_S
    room_token_lifetime_s: Seconds = ROOM_TOKEN_LIFETIME_S
    account_token_lifetime_s: Seconds = ACCOUNT_TOKEN_LIFETIME_S
    store: StoreConfig = StoreConfig()
    bus: BusConfig = BusConfig()
    accounts: AccountsConfig = AccountsConfig()
    trusted_proxies: tuple[str, ...] = ()
    dashboard: DashboardConfig = DashboardConfig()
    registry: RegistryConfig = RegistryConfig()
    tls: TlsConfig | None = None
    log: LogConfig = LogConfig()
    public_url: Annotated[str, AfterValidator(_check_url)] | None = None

    def __repr__(self) -> str:
        """Leave out the TURN servers, which may carry a password."""
        return (
            f"SignalingConfig(host={self.host!r}, port={self.port}, "
            f"rest_port={self.rest_port}, data_dir={str(self.data_dir)!r})"
        )

    __str__ = __repr__


# -- from outside ---------------------------------------------------------------------


class _FromOutside(BaseSettings, SignalingConfig):
    """The same settings, filled from options, the environment and a file."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX,
        env_nested_delimiter=_NESTED,
        frozen=True,
        extra="forbid",
        arbitrary_types_allowed=True,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take options and the file, which `load` hands over, and the environment."""
        assert isinstance(init_settings, InitSettingsSource)  # noqa: S101 -- pydantic's
        given = init_settings.init_kwargs
        options = InitSettingsSource(settings_cls, dict(given.get("options", {})))
        file = InitSettingsSource(settings_cls, dict(given.get("file", {})))
        return options, EnvSettingsSource(settings_cls), file


def load(
    path: Path | None = None, options: Mapping[str, Any] | None = None
) -> SignalingConfig:
    """Gather the settings: options go before the environment, that before the file.

    `SLEAP_SIGNALING_PORT=80`, `SLEAP_SIGNALING_RELAY__ENABLED=true`, lists as JSON;
    `rest_port = "none"` opens no second port.

    Args:
        path: a TOML file.
        options: what the command line says, by the names of the settings.

    Raises:
        ConfigError: the file is missing or not TOML, or something sets what does not
            exist or cannot be.
    """
    values = {} if path is None else _read_toml(path)
    _check_environment()
    try:
        found = _FromOutside(file=values, options=dict(options or {}))  # type: ignore[call-arg]
    except SettingsError:
        where = _variable_at_fault()
        raise ConfigError(f"{where} is not accepted: it is not JSON.") from None
    except ValidationError as error:
        raise ConfigError(_sentence(error, path)) from None
    place = str(path) if path is not None else "The configuration"
    settings = {name: getattr(found, name) for name in SignalingConfig.model_fields}
    settings["turn"] = tuple(_with_secret(server, place) for server in found.turn)
    settings["accounts"] = with_client_secrets(found.accounts, place)
    return SignalingConfig(**settings)


def shown(config: SignalingConfig) -> dict[str, Any]:
    """Return the settings as JSON values, with what is secret left out."""
    values = config.model_dump(mode="json", exclude={"ice_servers", "turn"})
    # There may be a password in it.
    values["bus"]["url"] = _USER_OF_URL.sub("//(left out)@", config.bus.url)
    servers: list[IceServer | TurnServer] = [*config.ice_servers, *config.turn]
    return values | {"ice_servers": [list(server.urls) for server in servers]}


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"The configuration file {path} does not exist.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.") from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.") from None


def _variables() -> Iterator[tuple[str, list[str]]]:
    """Yield our variables, and the path of settings that each one names."""
    for name in os.environ:
        if name.upper().startswith(ENVIRONMENT_PREFIX):
            rest = name[len(ENVIRONMENT_PREFIX) :].lower()
            yield name, rest.split(_NESTED)


def _check_environment() -> None:
    """Refuse variables that set nothing: a slip there would go unnoticed."""
    for name, (first, *_) in _variables():
        if first not in SignalingConfig.model_fields:
            raise ConfigError(
                f"The environment variable {name} sets nothing"
                f"{_nearest(first, SignalingConfig, ENVIRONMENT_PREFIX)}."
            )


def _variable_at_fault() -> str:
    """Name the variable whose JSON cannot be read; pydantic names the field only."""
    for name, (first, *rest) in _variables():
        if not rest and first in ("ice_servers", "turn", "relay", "accounts"):
            try:
                msgspec.json.decode(os.environ[name].encode())
            except msgspec.DecodeError:
                return f"The environment variable {name}"
    return "An environment variable"


def _nearest(name: str, section: type[BaseModel], prefix: str = "") -> str:
    near = difflib.get_close_matches(name, section.model_fields, n=1)
    if not near:
        return ""
    return f"; {prefix}{near[0].upper() if prefix else near[0]} is meant, perhaps"


def _section(words: list[str]) -> type[BaseModel]:
    """Return the section that a path of settings leads to."""
    section: type[BaseModel] = SignalingConfig
    for word in words:
        known = section.model_fields.get(word)
        kinds = [] if known is None else [known.annotation, *get_args(known.annotation)]
        # A list of tables has numbers in its path, which lead nowhere.
        kinds += [inner for kind in kinds for inner in get_args(kind)]
        found = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
        section = found[0] if found else section
    return section


def _sentence(error: ValidationError, path: Path | None) -> str:
    """Say in one sentence what is wrong, and where it comes from."""
    first = error.errors(include_url=False, include_input=False)[0]
    words = [str(word) for word in first["loc"]]
    where = ".".join(words) or "the configuration"
    place = str(path) if path is not None else "The configuration"
    for name, keys in _variables():
        if keys == words[: len(keys)]:
            place = f"The environment variable {name}"
    reason = first["msg"]
    if first["type"] == "extra_forbidden":
        reason = f"there is no such setting{_nearest(words[-1], _section(words[:-1]))}"
    return f"{place} is not accepted: {where}: {reason}."


def _with_secret(server: TurnServer, place: str) -> TurnServer:
    """Read the secret from where the file says that it is."""
    given = (server.secret, server.secret_file, server.secret_env)
    if sum(1 for value in given if value) != 1:
        raise ConfigError(
            f"{place} is not accepted: a [[turn]] table needs one of secret, "
            "secret_file and secret_env."
        )
    secret = server.secret
    if server.secret_file is not None:
        place = str(server.secret_file)
        secret = read_secret(server.secret_file)
    elif server.secret_env:
        place = f"the environment variable {server.secret_env}"
        secret = os.environ.get(server.secret_env, "").strip()
    if len(secret) < MIN_TURN_SECRET_CHARS:
        raise ConfigError(
            f"The TURN secret in {place} is missing or shorter than "
            f"{MIN_TURN_SECRET_CHARS} characters; `openssl rand -hex 32` makes a good "
            "one."
        )
    return TurnServer(urls=server.urls, secret=secret)
