"""`sleap-remote predict`: data and models out, predictions home.

Models are folders here or models of the room's registry. Prints the report as its last
line with `--json`, and what came back otherwise. The work is done by
`session.submission`.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from sleap_rtc_plugin.cli.inference_words import option_rows, split_words
from sleap_rtc_plugin.cli.options import fail, run_async, set_up_logging
from sleap_rtc_plugin.cli.submission_options import (
    SubmissionOptions,
    end_with,
    submission_options,
)
from sleap_rtc_plugin.protocol.errors import EXIT_USAGE, OptionRefused, RtcError
from sleap_rtc_plugin.protocol.inference_options import (
    MAX_FRAMES_CHARS,
    ParsedInference,
    parse_argv,
)

if TYPE_CHECKING:
    from sleap_rtc_plugin.session.inference_package import InferenceRequest

__all__ = ["predict"]

_INFERENCE = "sleap_rtc_plugin.inference_words"
MAX_RANDOM_FRAMES = 100_000


class _PredictCommand(click.Command):
    """Leaves sleap-nn's options to sleap-nn's table, and lists them in `--help`."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        takes: dict[str, bool] = {}
        for parameter in self.get_params(context):
            if isinstance(parameter, click.Option):
                has_value = not (parameter.is_flag or parameter.count)
                takes |= dict.fromkeys(parameter.opts, has_value)
        own, words = split_words(args, takes.get)
        context.meta[_INFERENCE] = words
        return super().parse_args(context, own)

    def format_options(
        self, context: click.Context, formatter: click.HelpFormatter
    ) -> None:
        super().format_options(context, formatter)
        for title, rows in option_rows():
            with formatter.section(f"{title} (options of sleap-nn)"):
                formatter.write_dl(rows)


@click.command(cls=_PredictCommand)
@click.argument("data", nargs=-1, metavar="DATA...", type=click.Path(path_type=Path))
@click.option(
    "--model",
    "-m",
    "models",
    metavar="ALIAS|ID|DIR",
    multiple=True,
    help="A model of the room by its alias or id, or the folder of a trained one; may "
    "be given several times. The folders of a centroid and a centered-instance model "
    "are used together.",
)
@click.option(
    "--random-frames",
    metavar="N",
    type=click.IntRange(1, MAX_RANDOM_FRAMES),
    help="Predict N frames of each DATA, chosen by chance.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    help="With --random-frames: another number chooses other frames.",
)
@click.option(
    "--store",
    metavar="ADDRESS",
    help="Where the room's models are, if this machine reaches that: a folder, or "
    "s3://BUCKET/PREFIX. The room's workers are asked otherwise. Beside --session, "
    "--room names the room that the models are filed under.  [env: SLEAP_MODEL_STORE, "
    "SLEAP_MODEL_ROOM]",
)
@submission_options
@click.pass_context
def predict(
    context: click.Context,
    data: tuple[Path, ...],
    models: tuple[str, ...],
    random_frames: int | None,
    seed: int,
    store: str | None,
    options: SubmissionOptions,
) -> None:
    """Predict on DATA on a worker.

    DATA are videos, labels (.slp, .pkg.slp) or packages that SLEAP exported; all are
    predicted with every model, and the predictions come home. Besides the options
    below every inference and tracking option of sleap-nn may be given, with
    underscores or hyphens.

    The same command again goes on where one was cut off.
    """
    set_up_logging(options.verbose)
    parsed = _parse(context.meta[_INFERENCE])
    if parsed.data_path is not None:
        data = (*data, Path(parsed.data_path))
    if not data:
        raise click.UsageError("No DATA is given; name a video or labels.")
    models = (*models, *parsed.model_paths)
    if not models:
        raise click.UsageError(
            "No model is given; name one with --model ALIAS, ID or folder."
        )
    for path in data:
        if not path.exists():
            click.echo(f"The file {path} does not exist; check its path.", err=True)
            sys.exit(EXIT_USAGE)
    choice, models_room = options.session.beside_store()
    session = run_async(choice.find(), verbose=options.verbose)
    try:
        request = _request(data, models, parsed, random_frames, seed)
    except OptionRefused as error:
        _refuse(error)
    except RtcError as error:
        fail(error, verbose=options.verbose)
    from sleap_rtc_plugin.session.settings import chosen_model_place
    from sleap_rtc_plugin.session.submission import SubmissionPlan

    plan = SubmissionPlan(
        session=session,
        package=request,
        models_at=chosen_model_place(store, models_room),
        **options.for_plan(),
    )
    end_with(plan, options)


def _parse(words: Sequence[str]) -> ParsedInference:
    try:
        parsed = parse_argv(words, max_frames_chars=MAX_FRAMES_CHARS)
    except OptionRefused as error:
        _refuse(error)
    if parsed.output_path is not None:
        raise click.UsageError(
            "--output_path is not used here; --output names the folder for predictions."
        )
    return parsed


def _request(
    data: Sequence[Path],
    models: Sequence[str],
    parsed: ParsedInference,
    random_frames: int | None,
    seed: int,
) -> "InferenceRequest":
    from sleap_rtc_plugin.session.inference_package import InferenceRequest
    from sleap_rtc_plugin.session.model_choice import choose_models

    chosen = choose_models(models)
    for note in chosen.notes:
        click.echo(note, err=True)
    unique = {path.resolve(): path for path in reversed(data)}
    return InferenceRequest(
        data=tuple(reversed(unique.values())),
        models=chosen.sets,
        options=parsed.options,
        by_chance=random_frames,
        seed=seed,
    )


def _refuse(error: OptionRefused) -> NoReturn:
    """End the command: an option of sleap-nn is not accepted."""
    raise click.UsageError(f"{error.option} is not accepted: {error.reason}.")
