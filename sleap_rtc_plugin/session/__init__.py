"""The desktop side's use cases: a session with a lab's workers, and its jobs."""
