"""`sleap-remote doctor`: what may be wrong, found out here, there and between."""
