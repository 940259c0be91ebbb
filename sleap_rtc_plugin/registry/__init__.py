"""The room's models in an object store: who may use it stands in ARCHITECTURE.md."""
