"""One question to the server on this machine: is it well?

For the check of a container or of systemd, which has no other program there. It asks
the address that the settings name and opens nothing else. Called by `sleap-remote
signaling health`.
"""

import http.client
import ipaddress
import ssl

from sleap_rtc_signaling.config import SignalingConfig
from sleap_rtc_signaling.limits import SELF_PROBE_TIMEOUT_S

__all__ = ["local_address", "probe"]


def probe(config: SignalingConfig, path: str) -> tuple[bool, str]:
    """Ask the server that runs with these settings.

    Args:
        config: its settings.
        path: `/health` or `/ready`.

    Returns:
        Whether it says yes, and a sentence about it.
    """
    host, port = local_address(config.host), config.port
    connection: http.client.HTTPConnection
    if config.tls is None:
        connection = http.client.HTTPConnection(
            host, port, timeout=SELF_PROBE_TIMEOUT_S
        )
    else:
        connection = http.client.HTTPSConnection(
            host, port, timeout=SELF_PROBE_TIMEOUT_S, context=_trusting_context()
        )
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        return False, f"The server at {host}:{port} does not answer: {reason}."
    finally:
        connection.close()
    if status != http.client.OK:
        return False, f"The server at {host}:{port} answers {status} to {path}."
    return True, f"The server at {host}:{port} is well."


def local_address(host: str) -> str:
    """Return where a server that listens on `host` is reached from this machine."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host or "127.0.0.1"
    if not address.is_unspecified:
        return host
    return "127.0.0.1" if address.version == 4 else "::1"


def _trusting_context() -> ssl.SSLContext:
    """Trust whoever answers: its certificate is for another name than loopback."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
