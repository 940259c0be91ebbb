"""What all tables of a signaling server's configuration share.

Kinds of values, the error of whoever sets what cannot be, and files that hold a
secret. Called by the modules that describe a table.
"""

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from sleap_rtc_plugin.protocol.errors import EXIT_USAGE
from sleap_rtc_signaling.limits import MAX_SECRET_FILE_BYTES

__all__ = [
    "ConfigError",
    "HomePath",
    "Positive",
    "Seconds",
    "Section",
    "Switch",
    "read_secret",
]


class ConfigError(Exception):
    """What the administrator asked for cannot be; the text is one sentence."""

    exit_code = EXIT_USAGE


def _refuse_numbers(value: Any) -> Any:
    # Words such as "true" come from the environment; a 1 in a file is a slip.
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError("true or false is expected")
    return value


Switch = Annotated[bool, BeforeValidator(_refuse_numbers)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seconds = Positive
HomePath = Annotated[Path, AfterValidator(Path.expanduser)]


class Section(BaseModel):
    """A table of the file; what it does not know is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


def read_secret(path: Path) -> str:
    """Read a file that holds a secret, and nothing else.

    Raises:
        ConfigError: it is missing, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(MAX_SECRET_FILE_BYTES).decode().strip()
    except FileNotFoundError:
        raise ConfigError(f"The file {path} with a secret is missing.") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ConfigError(f"{path} cannot be read: {reason}.") from None
