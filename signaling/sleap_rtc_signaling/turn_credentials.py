"""PURE: credentials for a TURN server that are good for a while.

The scheme of coturn's `use-auth-secret` (draft-uberti-behave-turn-rest-00): the user
name says until when, the password is its HMAC under a secret that this server and the
TURN server share. Called by `GET /ice-servers`; the secret itself goes nowhere.
"""

import base64
import hashlib
import hmac
from collections.abc import Iterable

from sleap_rtc_plugin.protocol.signaling_messages import IceServer
from sleap_rtc_signaling.config import TurnServer
from sleap_rtc_signaling.limits import TURN_NAME_CHARS

__all__ = ["turn_name", "turn_servers"]


def turn_name(subject: str) -> str:
    """Return how a TURN server may know a room or an account.

    The same subject has the same name, so that quotas per user mean something; who
    reads the TURN server's log learns nothing with which a room could be found.
    """
    digest = hashlib.sha256(f"turn {subject}".encode()).hexdigest()
    return digest[:TURN_NAME_CHARS]


def turn_servers(
    servers: Iterable[TurnServer], name: str, expires_at: int
) -> list[IceServer]:
    """Return the servers with credentials.

    Args:
        servers: as the administrator configured them.
        name: see `turn_name`.
        expires_at: until when the credentials are good, as Unix time.
    """
    username = f"{expires_at}:{name}"
    return [
        IceServer(
            urls=list(server.urls),
            username=username,
            credential=_password(server.secret, username),
        )
        for server in servers
    ]


def _password(secret: str, username: str) -> str:
    # SHA-1 is what TURN servers compute; as an HMAC it is not broken.
    digest = hmac.new(secret.encode(), username.encode(), hashlib.sha1).digest()
    return base64.b64encode(digest).decode()
