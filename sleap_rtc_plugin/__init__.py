"""Remote training for SLEAP: the desktop side, its protocol and its command line."""

__all__ = ["__version__"]

__version__ = "0.1.0"
