"""The process beside SLEAP that does the work: sessions, packages, jobs, results."""
