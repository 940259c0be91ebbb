"""`sleap-remote label`, `enable` and `disable`: SLEAP's GUI with the plugin.

`label` starts it for one run. `enable` leaves one file in the environment, so that
plain `sleap` loads the plugin too, and `disable` takes it away.
"""

import importlib.util
import sys
import sysconfig
from pathlib import Path

import click

from sleap_rtc_plugin.protocol.errors import EXIT_USAGE

__all__ = ["disable", "enable", "label", "pth_path"]


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument(
    "arguments",
    nargs=-1,
    type=click.UNPROCESSED,
    metavar="[LABELS.slp] [SLEAP OPTIONS]...",
)
def label(arguments: tuple[str, ...]) -> None:
    """Start SLEAP with the menu Remote Train.

    Everything after `label` goes to SLEAP as it is: a project to open, and any option
    of `sleap-label`, such as --no-usage-data or --reset.
    """
    _require_sleap()
    from sleap_rtc_plugin.gui.autoload import install
    from sleap_rtc_plugin.gui.event_loop import refuse_bad_pair
    from sleap_rtc_plugin.gui.sleap_compat import run_sleap

    refusal = refuse_bad_pair()
    if refusal is not None:
        _refuse(refusal)
    install()
    run_sleap(list(arguments))


@click.command()
def enable() -> None:
    """Let plain `sleap` have the menu, too.

    From now on `sleap`, `sleap label` and `sleap-label` of this environment load the
    plugin. `sleap-remote disable` undoes it.
    """
    _require_sleap()
    from sleap_rtc_plugin.gui.autoload import PTH_LINE

    path = pth_path()
    try:
        if not path.is_file() or path.read_text(encoding="utf-8") != PTH_LINE:
            _write_whole(path, PTH_LINE)
    except OSError as error:
        _refuse(
            f"{path} cannot be written ({error.strerror}); run this as the user who "
            "installed SLEAP there, or start SLEAP with `sleap-remote label`, which "
            "needs no file."
        )
    click.echo(f"SLEAP in {sys.prefix} now has the menu Remote Train.")
    click.echo("To undo it, run: sleap-remote disable")


@click.command()
def disable() -> None:
    """Undo `sleap-remote enable`."""
    path = pth_path()
    try:
        path.unlink()
    except FileNotFoundError:
        click.echo(f"SLEAP in {sys.prefix} did not load remote training.")
    except OSError as error:
        _refuse(
            f"{path} cannot be removed ({error.strerror}); run this as the user who "
            "enabled it."
        )
    else:
        click.echo(f"SLEAP in {sys.prefix} is as it was before.")


def pth_path() -> Path:
    """Return the file that loads the plugin into plain `sleap`."""
    from sleap_rtc_plugin.gui.autoload import PTH_NAME

    return Path(sysconfig.get_path("purelib")) / PTH_NAME


def _write_whole(path: Path, text: str) -> None:
    """Write a file so that a Python that starts meanwhile sees all of it or none."""
    draft = path.with_suffix(".tmp")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def _require_sleap() -> None:
    if importlib.util.find_spec("sleap") is None:
        _refuse(
            f"SLEAP is not installed in {sys.prefix}; run the sleap-remote of SLEAP's "
            "own environment, or install SLEAP here with: "
            "python -m pip install 'sleap-rtc-plugin[gui]'"
        )


def _refuse(sentence: str) -> None:
    click.echo(sentence, err=True)
    sys.exit(EXIT_USAGE)
