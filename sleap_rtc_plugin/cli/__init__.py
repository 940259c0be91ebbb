"""The command line, `sleap-remote`. Each command imports what it needs when run."""
