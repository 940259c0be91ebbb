"""What `sleap-remote bench` measures: real programs, on this machine, from outside."""
