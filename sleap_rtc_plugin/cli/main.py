"""The command `sleap-remote`: finds the subcommand and imports only that one.

`sleap-remote --help` must come at once, on a laptop without torch too, so each
subcommand lives in a module that is imported when it is named.
"""

import importlib
import sys

import click

from sleap_rtc_plugin import __version__
from sleap_rtc_plugin.protocol.errors import EXIT_CANCELLED

__all__ = ["main"]

# Command -> its module and its help line, so that `--help` imports none of them.
_COMMANDS = {
    "label": ("label", "Start SLEAP with the menu Remote Train."),
    "enable": ("label", "Let plain `sleap` have the menu, too."),
    "disable": ("label", "Undo enable."),
    "train": ("train", "Train a package on a worker and bring the models home."),
    "predict": ("predict", "Predict on a worker and bring the predictions home."),
    "jobs": ("jobs", "See, end or fetch the jobs of a session's workers."),
    "models": ("models", "Share models: find, name, pull and push them."),
    "live": ("live", "Stream a video or camera and get poses back at once."),
    "workers": ("workers", "List the workers of a session."),
    "files": ("files", "Look into the folders that a worker has mounted."),
    "login": ("login", "Sign in at a signaling server."),
    "logout": ("login", "Sign out again."),
    "whoami": ("login", "Say who is signed in where."),
    "rooms": ("rooms", "Open rooms, and say who may enter them."),
    "doctor": ("doctor", "Find out what keeps remote training from working."),
    "demo": ("demo", "Try everything on this machine, with a made-up project."),
    "worker": ("worker", "Run a worker on this machine."),
    "pair": ("pair", "Enter a room by the code that a worker shows."),
    "signaling": ("signaling", "Run a signaling server."),
    "bench": ("bench", "Measure this machine."),
}


class _LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        module_name, _ = _COMMANDS[name]
        module = importlib.import_module(f"sleap_rtc_plugin.cli.{module_name}")
        command: click.Command = getattr(module, name)
        return command

    def format_commands(
        self, context: click.Context, formatter: click.HelpFormatter
    ) -> None:
        with formatter.section("Commands"):
            rows = [(name, line) for name, (_, line) in _COMMANDS.items()]
            formatter.write_dl(rows)


@click.command(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sleap-remote")
def group() -> None:
    """Train SLEAP models on another machine's GPU."""


def main() -> None:
    """Run the command line."""
    try:
        group(prog_name="sleap-remote")
    except KeyboardInterrupt:
        sys.exit(EXIT_CANCELLED)
