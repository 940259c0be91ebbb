"""Whom the client believes when a signaling server shows a certificate.

The system's store, what SSL_CERT_FILE or SSL_CERT_DIR name, and the public authorities
that come with Python's packages: the same for REST and for the WebSocket.
"""

import contextlib
import ssl

__all__ = ["client_context"]


def client_context() -> ssl.SSLContext:
    """Return a context that checks the certificate and the name in it."""
    context = ssl.create_default_context()
    with contextlib.suppress(ImportError, OSError):
        # Some systems show Python an empty store.
        import certifi

        context.load_verify_locations(cafile=certifi.where())
    return context
