"""`sleap-remote train`: a package out, models and predictions home.

Prints the report as its last line with `--json`, and what came back otherwise; shows
progress on stderr. The work is done by `session.submission`.
"""

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sleap_rtc_plugin.cli.options import (
    fail,
    parse_session,
    reconnect_option,
    session_option,
    set_up_logging,
    transport_options,
    verbose_option,
)
from sleap_rtc_plugin.protocol.errors import (
    EXIT_CANCELLED,
    EXIT_DONE,
    EXIT_USAGE,
    RtcError,
)

if TYPE_CHECKING:
    from sleap_rtc_plugin.session.report import Report
    from sleap_rtc_plugin.session.submission import SubmissionPlan
    from sleap_rtc_plugin.transport.transport_options import TransportOptions

__all__ = ["run_submission", "train"]


@click.command()
@click.argument("package", type=click.Path(path_type=Path))
@session_option
@click.option("--worker", metavar="NAME", help="Use this worker.")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    help="Folder for models/ and the predictions.  [default: here]",
)
@click.option("--detach", is_flag=True, help="Leave once the job is queued.")
@reconnect_option
@click.option(
    "--send-wandb-key",
    is_flag=True,
    help="Send the Weights & Biases key in the package; it is taken out otherwise.",
)
@click.option(
    "--shared-storage-root",
    envvar="SHARED_STORAGE_ROOT",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="Where this machine mounts a folder that the worker mounts too; files go "
    "through it where they can.  [env: SHARED_STORAGE_ROOT]",
)
@transport_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines on stdout.")
@verbose_option
def train(
    package: Path,
    session: str | None,
    worker: str | None,
    output: Path,
    detach: bool,
    reconnect_for_s: float,
    send_wandb_key: bool,
    shared_storage_root: Path | None,
    transport: "TransportOptions",
    as_json: bool,
    verbose: bool,
) -> None:
    """Train PACKAGE on a worker.

    PACKAGE is what SLEAP's "Export training job package..." wrote: the zip, or a
    folder with its contents. The same command again goes on where one was cut off.
    """
    set_up_logging(verbose)
    try:
        parsed = parse_session(session)
    except RtcError as error:
        fail(error, verbose=verbose)
    if not package.exists():
        click.echo(f"The file {package} does not exist; check its path.", err=True)
        sys.exit(EXIT_USAGE)
    from sleap_rtc_plugin.session.submission import SubmissionPlan

    plan = SubmissionPlan(
        session=parsed,
        package=package,
        output=output,
        worker=worker,
        detach=detach,
        reconnect_for_s=reconnect_for_s,
        keep_wandb_key=send_wandb_key,
        shared_storage_root=shared_storage_root,
        transport=transport,
    )
    _, code = asyncio.run(run_submission(plan, as_json=as_json, verbose=verbose))
    sys.exit(code)


async def run_submission(
    plan: "SubmissionPlan", *, as_json: bool, verbose: bool
) -> "tuple[Report, int]":
    """Carry a submission through in the terminal.

    Returns:
        The report, already printed, and the exit code.
    """
    from sleap_rtc_plugin.cli.progress import TerminalObserver
    from sleap_rtc_plugin.session.report import Report
    from sleap_rtc_plugin.session.submission import Detached, Submission

    report, code = Report(), EXIT_DONE
    observer = TerminalObserver(as_json=as_json)
    submission = asyncio.ensure_future(Submission(plan, observer, report).run())
    try:
        with observer, observer.interruption.of_task(submission):
            await submission
    except Detached:
        observer.say(
            f"The job {report.job_id} goes on on {report.worker}; `sleap-remote jobs "
            f"attach {report.job_id}` shows it from anywhere with the session string, "
            "and the same command again brings its results home."
        )
    except RtcError as error:
        report.set_error(error)
        code = error.exit_code
        if verbose:
            import traceback

            traceback.print_exception(error)
        click.echo(str(error), err=True)
    except asyncio.CancelledError:
        code = EXIT_CANCELLED
        observer.say("Interrupted; the same command again goes on from here.")
    observer.finish(report)
    return report, code
