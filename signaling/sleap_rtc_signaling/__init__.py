"""The signaling server: rooms, discovery, and the messages that set up a link."""
