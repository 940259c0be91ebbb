"""What `train` and `predict` have in common: options of a submission, and its end.

The options become one value, and that a `SubmissionPlan`; the submission is shown in
the terminal by `TerminalObserver`. Imports nothing heavy before a command runs.
"""

import asyncio
import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

import click

from sleap_rtc_plugin.cli.options import (
    reconnect_option,
    transport_options,
    verbose_option,
)
from sleap_rtc_plugin.cli.session_choice import SessionChoice, session_option
from sleap_rtc_plugin.protocol.errors import (
    EXIT_CANCELLED,
    EXIT_DONE,
    EXIT_USAGE,
    OptionRefused,
    RtcError,
)

if TYPE_CHECKING:
    from sleap_rtc_plugin.session.report import Report
    from sleap_rtc_plugin.session.submission import SubmissionPlan
    from sleap_rtc_plugin.transport.transport_options import TransportOptions

__all__ = ["SubmissionOptions", "end_with", "run_submission", "submission_options"]

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class SubmissionOptions:
    """The values of these options; `SubmissionPlan` says what they mean."""

    session: SessionChoice
    worker: str | None
    output: Path
    detach: bool
    reconnect_for_s: float
    keep_wandb_key: bool
    shared_storage_root: Path | None
    transport: "TransportOptions"
    as_json: bool
    verbose: bool

    def for_plan(self) -> dict[str, Any]:
        """Return what goes into a `SubmissionPlan` as it is."""
        return {
            "output": self.output,
            "worker": self.worker,
            "detach": self.detach,
            "reconnect_for_s": self.reconnect_for_s,
            "keep_wandb_key": self.keep_wandb_key,
            "shared_storage_root": self.shared_storage_root,
            "transport": self.transport,
        }


def submission_options(function: F) -> F:
    """Add the options of a submission; the command is given them as `options`."""

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
        "keep_wandb_key",
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
    @functools.wraps(function)
    def command(
        *args: Any,
        session: SessionChoice,
        worker: str | None,
        output: Path,
        detach: bool,
        reconnect_for_s: float,
        keep_wandb_key: bool,
        shared_storage_root: Path | None,
        transport: "TransportOptions",
        as_json: bool,
        verbose: bool,
        **others: Any,
    ) -> Any:
        options = SubmissionOptions(
            session=session,
            worker=worker,
            output=output,
            detach=detach,
            reconnect_for_s=reconnect_for_s,
            keep_wandb_key=keep_wandb_key,
            shared_storage_root=shared_storage_root,
            transport=transport,
            as_json=as_json,
            verbose=verbose,
        )
        return function(*args, options=options, **others)

    return cast(F, command)


def end_with(plan: "SubmissionPlan", options: SubmissionOptions) -> NoReturn:
    """Carry a submission through and end the command with its exit code."""
    _, code = asyncio.run(
        run_submission(plan, as_json=options.as_json, verbose=options.verbose)
    )
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
        # Of an inference the options stand on the command line, not in a package.
        is_usage = isinstance(error, OptionRefused) and not isinstance(
            plan.package, Path
        )
        code = EXIT_USAGE if is_usage else error.exit_code
        if verbose:
            import traceback

            traceback.print_exception(error)
        click.echo(str(error), err=True)
    except asyncio.CancelledError:
        code = EXIT_CANCELLED
        observer.say("Interrupted; the same command again goes on from here.")
    observer.finish(report)
    return report, code
