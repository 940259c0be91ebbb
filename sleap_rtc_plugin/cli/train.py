"""`sleap-remote train`: a package out, models and predictions home.

Prints the report as its last line with `--json`, and what came back otherwise; shows
progress on stderr. The work is done by `session.submission`.
"""

import sys
from pathlib import Path

import click

from sleap_rtc_plugin.cli.model_options import bounded_notes, read_alias, read_tags
from sleap_rtc_plugin.cli.options import run_async, set_up_logging
from sleap_rtc_plugin.cli.submission_options import (
    SubmissionOptions,
    end_with,
    submission_options,
)
from sleap_rtc_plugin.protocol.errors import EXIT_USAGE
from sleap_rtc_plugin.protocol.model_records import Publication

__all__ = ["train"]


@click.command()
@click.argument("package", type=click.Path(path_type=Path))
@click.option(
    "--publish",
    "alias",
    metavar="ALIAS",
    callback=read_alias,
    help="Publish the trained model to the room under this name, for everyone there.",
)
@click.option(
    "--move-alias",
    is_flag=True,
    help="With --publish: take the alias off the model that has it.",
)
@click.option(
    "--publish-note",
    metavar="TEXT",
    default="",
    help="With --publish: what to say about the model.",
)
@click.option(
    "--publish-tag",
    "tags",
    metavar="TAG",
    multiple=True,
    callback=read_tags,
    help="With --publish: what to file the model under; may be given several times.",
)
@submission_options
def train(
    package: Path,
    alias: str | None,
    move_alias: bool,
    publish_note: str,
    tags: tuple[str, ...],
    options: SubmissionOptions,
) -> None:
    """Train PACKAGE on a worker.

    PACKAGE is what SLEAP's "Export training job package..." wrote: the zip, or a
    folder with its contents. The same command again goes on where one was cut off.
    """
    set_up_logging(options.verbose)
    publication = _publication(alias, move_alias, publish_note, tags)
    parsed = run_async(options.session.find(), verbose=options.verbose)
    if not package.exists():
        click.echo(f"The file {package} does not exist; check its path.", err=True)
        sys.exit(EXIT_USAGE)
    from sleap_rtc_plugin.session.submission import SubmissionPlan

    plan = SubmissionPlan(
        session=parsed, package=package, publication=publication, **options.for_plan()
    )
    end_with(plan, options)


def _publication(
    alias: str | None, move_alias: bool, note: str, tags: tuple[str, ...]
) -> Publication | None:
    """Return as what the models are to be published, or None.

    Raises:
        click.UsageError: an option says what cannot be.
    """
    if alias is None:
        if move_alias or note or tags:
            raise click.UsageError(
                "--move-alias, --publish-note and --publish-tag need --publish ALIAS."
            )
        return None
    return Publication(
        alias=alias,
        moves_alias=move_alias,
        notes=bounded_notes(note),
        tags=sorted(tags),
    )
