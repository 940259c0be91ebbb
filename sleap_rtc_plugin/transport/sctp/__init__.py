"""The fast data-channel path: SCTP (RFC 9260) on the wire as aiortc speaks it."""
