"""asyncio drivers of the protocol: signaling, peer connections, file transfer."""
