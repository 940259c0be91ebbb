"""The server's own TLS: a certificate that can be renewed while it serves.

Without it the server speaks plain HTTP, for one machine or behind a proxy. The context
stays the same object, so that what is loaded anew counts for every later handshake and
for no connection that is open. Called by `SignalingServer`.
"""

import ssl
from typing import Final

from sleap_rtc_signaling.config import ConfigError, TlsConfig

__all__ = ["HSTS", "ServerTls"]

HSTS: Final = ("strict-transport-security", "max-age=31536000")
"""RFC 6797: a browser that came by https does not come back without it."""


class ServerTls:
    """A certificate and its key, for a listener.

    Args:
        config: where they are.

    Raises:
        ConfigError: they cannot be read, or do not belong together.
    """

    def __init__(self, config: TlsConfig) -> None:
        self._config = config
        self.context: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_alpn_protocols(["http/1.1"])
        self._load(self.context)

    def reload(self) -> None:
        """Read both files again; what is in use stays where they are not good.

        Raises:
            ConfigError: as for the class.
        """
        # A pair that does not fit would leave the context with half of it.
        self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        self._load(self.context)

    def _load(self, context: ssl.SSLContext) -> None:
        cert, key = self._config.cert, self._config.key
        try:
            # A key with a password is refused rather than asked about at a terminal.
            context.load_cert_chain(cert, key, password=_no_password)
        except OSError as error:
            # SSLError is an OSError; its own words name a line of OpenSSL's.
            reason = (
                "they are no certificate and key that belong together"
                if isinstance(error, ssl.SSLError)
                else error.strerror or type(error).__name__
            )
            files = f"{cert} and {key}" if key is not None else str(cert)
            raise ConfigError(f"TLS cannot use {files}: {reason}.") from None
        except _LockedError:
            raise ConfigError(
                f"The key {key or cert} has a password; write it to a file without one "
                "that only this server may read."
            ) from None


class _LockedError(Exception):
    """The key's file asks for a password."""


def _no_password() -> str:
    raise _LockedError
