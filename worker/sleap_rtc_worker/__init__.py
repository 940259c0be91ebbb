"""The headless worker: takes jobs, runs sleap-nn, sends results home."""
