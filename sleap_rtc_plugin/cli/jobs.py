"""`sleap-remote jobs`: the jobs of a room's workers, from any machine.

Whoever has the session string lists them, follows one, reads its log, ends it, or
brings its results home. The work is done in `session`; what is shown of a job that is
followed is `cli.progress`'s.
"""

import asyncio
import functools
import json
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from sleap_rtc_plugin.cli.options import (
    on_interrupt,
    reconnect_option,
    run_async,
    set_up_logging,
    transport_options,
    verbose_option,
)
from sleap_rtc_plugin.cli.session_choice import SessionChoice, session_option
from sleap_rtc_plugin.protocol.errors import (
    EXIT_CANCELLED,
    EXIT_DONE,
    JobCancelled,
    JobHasEnded,
    JobNotEnded,
    RtcError,
    from_wire,
)
from sleap_rtc_plugin.protocol.job import ENDED, JobState

if TYPE_CHECKING:
    from sleap_rtc_plugin.protocol.messages import JobSpec, StopScope
    from sleap_rtc_plugin.session.job_course import CourseObserver, JobCourse
    from sleap_rtc_plugin.session.job_search import FoundJob, RoomJobs
    from sleap_rtc_plugin.session.steady_room import SteadyRoom
    from sleap_rtc_plugin.transport.transport_options import TransportOptions

__all__ = ["jobs"]

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
_ENDED = [state.value for state in ENDED]
_WITHOUT_RESULTS = (JobState.CANCELLED.value, JobState.REJECTED.value)


class _Request:
    """What every one of these commands is given."""

    def __init__(
        self,
        *,
        session: SessionChoice,
        worker: str | None,
        reconnect_for_s: float,
        transport: "TransportOptions",
        as_json: bool,
        verbose: bool,
    ) -> None:
        self.session = session
        self.worker = worker
        self.reconnect_for_s = reconnect_for_s
        self.transport = transport
        self.as_json = as_json
        self.verbose = verbose

    def run(self, main: Callable[["SteadyRoom"], Awaitable[T]]) -> T:
        """Enter the room for `main`; an expected error ends the command."""
        set_up_logging(self.verbose)
        return run_async(self._within(main), verbose=self.verbose)

    async def _within(self, main: Callable[["SteadyRoom"], Awaitable[T]]) -> T:
        session = await self.session.find()
        from sleap_rtc_plugin.session.steady_room import SteadyRoom
        from sleap_rtc_plugin.session.submission import owner_name

        async with SteadyRoom(
            session, owner=owner_name(), transport=self.transport
        ) as room:
            return await main(room)

    async def find(self, room: "SteadyRoom", job: str) -> "tuple[FoundJob, JobSpec]":
        """Find the job that the user named."""
        from sleap_rtc_plugin.session.room_jobs import job_of_room

        return await job_of_room(
            room, job, worker=self.worker, reconnect_for_s=self.reconnect_for_s
        )

    def course(
        self,
        room: "SteadyRoom",
        found: "FoundJob",
        spec: "JobSpec",
        observer: "CourseObserver",
        since: int = 0,
    ) -> "JobCourse":
        """Return the job's course from event `since` on."""
        from sleap_rtc_plugin.protocol.job_mirror import JobMirror
        from sleap_rtc_plugin.session.job_course import JobCourse

        mirror = JobMirror(found.job.job_id, spec)
        mirror.last_seq = since
        return JobCourse(
            mirror,
            lambda: room.link(found.worker.peer_id),
            observer,
            worker=found.worker.name,
            reconnect_for_s=self.reconnect_for_s,
        )


def _command(function: F) -> F:
    """Add the options of every command; it is given them as `request`."""

    @session_option
    @click.option("--worker", metavar="NAME", help="Ask this worker only.")
    @reconnect_option
    @transport_options
    @click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
    @verbose_option
    @functools.wraps(function)
    def command(*args: Any, **options: Any) -> Any:
        names = ("session", "worker", "reconnect_for_s", "transport", "as_json")
        given = {name: options.pop(name) for name in (*names, "verbose")}
        return function(*args, request=_Request(**given), **options)

    return cast(F, command)


_job_argument = click.argument("job", metavar="JOB")
_since_option = click.option(
    "--since",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="Begin after the event of this number.  [default: at the beginning]",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def jobs() -> None:
    """See and end the jobs of a session's workers, or bring their results home.

    JOB is a job's id, a beginning of it that no other job has, or its name.
    """


# -- list --------------------------------------------------------------------------


@jobs.command("list")
@_command
def list_command(request: _Request) -> None:
    """List the jobs of every worker, the newest first."""
    found = request.run(lambda room: _jobs_of(room, request.worker))
    for worker, error in found.silent:
        click.echo(f"{worker.name} could not be asked: {error}", err=True)
    if request.as_json:
        from sleap_rtc_plugin.cli.job_words import job_line

        for one in found.jobs:
            click.echo(json.dumps(job_line(one)))
    elif found.jobs:
        _print_table(found)
    else:
        names = ", ".join(worker.name for worker in found.asked)
        click.echo(f"There are no jobs on {names}.", err=True)


async def _jobs_of(room: "SteadyRoom", worker: str | None) -> "RoomJobs":
    from sleap_rtc_plugin.session.room_jobs import jobs_of_room

    return await jobs_of_room(room, worker)


def _print_table(found: "RoomJobs") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from sleap_rtc_plugin.cli.job_words import COLUMNS, job_row

    now = time.time()
    newest_first = sorted(found.jobs, key=lambda one: -one.job.created_at)
    rows = [job_row(one, now) for one in newest_first]
    table = Table(box=None, pad_edge=False)
    # Columns that nothing stands in are left out.
    shown = [i for i in range(len(COLUMNS)) if any(row[i] for row in rows)]
    for index in shown:
        table.add_column(COLUMNS[index], no_wrap=index == 0)
    for row in rows:
        # A Text is never read as markup, whatever somebody called the job.
        table.add_row(*(Text(row[index]) for index in shown))
    Console().print(table)


# -- attach ------------------------------------------------------------------------


@jobs.command()
@_job_argument
@_since_option
@_command
def attach(job: str, since: int, request: _Request) -> None:
    """Follow a job until it ends; Ctrl-C leaves, and the job goes on.

    Everything that it told so far is told again, so the loss curve is whole.
    """
    sys.exit(request.run(lambda room: _attach(room, request, job, since)))


async def _attach(room: "SteadyRoom", request: _Request, job: str, since: int) -> int:
    from sleap_rtc_plugin.cli.progress import TerminalObserver

    found, spec = await request.find(room, job)
    job_id, worker = found.job.job_id, found.worker.name
    observer = TerminalObserver(as_json=request.as_json, is_numbered=True)
    course = request.course(room, found, spec, observer, since)
    with observer:
        observer.attached(found.worker, job_id, name=found.job.name)
        if not await _until_interrupted(course.follow()):
            observer.say(
                f"The job {job_id} goes on on {worker}; `sleap-remote jobs attach "
                f"{job_id}` comes back to it."
            )
            return EXIT_DONE
    observer.say_curves()
    error, state = course.mirror.error, course.mirror.state
    if error is None:
        observer.say(
            f"The job {job_id} has ended ({state.value}); `sleap-remote jobs fetch "
            f"{job_id}` brings its results home."
        )
        return EXIT_DONE
    click.echo(str(error), err=True)
    return error.exit_code


async def _until_interrupted(work: Coroutine[Any, Any, None]) -> bool:
    """Do the work; return False where Ctrl-C ended it."""
    task = asyncio.ensure_future(work)

    def leave() -> None:
        task.cancel()

    on_interrupt(leave)
    try:
        await task
    except asyncio.CancelledError:
        return False
    return True


# -- logs --------------------------------------------------------------------------


@jobs.command()
@_job_argument
@_since_option
@click.option("--follow", "-f", is_flag=True, help="Go on until the job has ended.")
@_command
def logs(job: str, since: int, follow: bool, request: _Request) -> None:
    """Print what a job's trainer printed; the lines go to stdout."""
    request.run(lambda room: _logs(room, request, job, since, follow=follow))


async def _logs(
    room: "SteadyRoom", request: _Request, job: str, since: int, *, follow: bool
) -> None:
    from sleap_rtc_plugin.cli.job_log import LogPrinter

    found, spec = await request.find(room, job)
    newest = found.job.last_seq
    printer = LogPrinter(as_json=request.as_json)
    course = request.course(room, found, spec, printer, since)
    if follow:
        await _until_interrupted(course.follow())
    elif since < newest:
        await _until_interrupted(
            course.reach(lambda mirror: mirror.has_ended or mirror.last_seq >= newest)
        )


# -- stop and cancel -----------------------------------------------------------------


@jobs.command()
@_job_argument
@click.option(
    "--step",
    "scope",
    flag_value="step",
    help="End this training only; the job goes on with its next step.",
)
@click.option(
    "--job",
    "scope",
    flag_value="job",
    default="job",
    help="Leave out the steps that have not begun, too.  [default]",
)
@_command
def stop(job: str, scope: "StopScope", request: _Request) -> None:
    """Stop a job after its batch and keep its models."""
    found = request.run(lambda room: _stop(room, request, job, scope))
    _say_told(request, found, "stop")


async def _stop(
    room: "SteadyRoom", request: _Request, job: str, scope: "StopScope"
) -> "FoundJob":
    found, course = await _unended(room, request, job)
    await course.stop(scope)
    return found


@jobs.command()
@_job_argument
@click.option("--yes", "-y", is_flag=True, help="Do not ask at a terminal.")
@_command
def cancel(job: str, yes: bool, request: _Request) -> None:
    """End a job now and discard it."""
    found = request.run(lambda room: _cancel(room, request, job, is_sure=yes))
    if found is None:
        click.echo("Nothing was cancelled.", err=True)
        sys.exit(EXIT_CANCELLED)
    _say_told(request, found, "cancel")


async def _cancel(
    room: "SteadyRoom", request: _Request, job: str, *, is_sure: bool
) -> "FoundJob | None":
    from sleap_rtc_plugin.cli.job_words import state_words

    found, course = await _unended(room, request, job)
    if not is_sure and sys.stdin is not None and sys.stdin.isatty():
        one = found.job
        click.echo(
            f"Cancel {one.job_id} ({one.name} of {one.owner or 'nobody'}, "
            f"{state_words(found)}) on {found.worker.name} and discard it?",
            err=True,
        )
        # Whoever thinks for long loses the link, and gets another.
        if not click.confirm("Sure", err=True):
            return None
    await course.cancel()
    return found


async def _unended(
    room: "SteadyRoom", request: _Request, job: str
) -> "tuple[FoundJob, JobCourse]":
    """Find a job that goes on; of what it told so far, nothing is needed."""
    from sleap_rtc_plugin.cli.job_log import SilentObserver

    found, spec = await request.find(room, job)
    if found.job.state in _ENDED:
        raise JobHasEnded(job_id=found.job.job_id, state=found.job.state)
    since = found.job.last_seq
    return found, request.course(room, found, spec, SilentObserver(), since)


def _say_told(request: _Request, found: "FoundJob", what: str) -> None:
    job_id, worker = found.job.job_id, found.worker.name
    if request.as_json:
        click.echo(json.dumps({"event": what, "job_id": job_id, "worker": worker}))
    elif what == "stop":
        click.echo(
            f"{worker} stops {job_id} and keeps its models; `sleap-remote jobs fetch "
            f"{job_id}` brings them home once it has ended.",
            err=True,
        )
    else:
        click.echo(f"{worker} ends {job_id} and discards it.", err=True)


# -- fetch -------------------------------------------------------------------------


@jobs.command()
@_job_argument
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    help="Folder for models/ and the predictions.  [default: here]",
)
@_command
def fetch(job: str, output: Path, request: _Request) -> None:
    """Bring the results of an ended job home.

    Nothing that is there is overwritten. The same command again goes on where one was
    cut off.
    """
    sys.exit(request.run(lambda room: _fetch(room, request, job, output)))


async def _fetch(room: "SteadyRoom", request: _Request, job: str, output: Path) -> int:
    from sleap_rtc_plugin.cli.job_log import SilentObserver
    from sleap_rtc_plugin.cli.progress import TerminalObserver
    from sleap_rtc_plugin.session.report import Report
    from sleap_rtc_plugin.session.submission import report_results

    found, spec = await request.find(room, job)
    job_id = found.job.job_id
    if found.job.state not in _ENDED:
        raise JobNotEnded(job_id=job_id, state=found.job.state)
    if found.job.state in _WITHOUT_RESULTS:
        raise _why(found)
    report = Report(state=found.job.state, job_id=job_id, worker=found.worker.name)
    observer = TerminalObserver(as_json=request.as_json)
    course = request.course(room, found, spec, SilentObserver())

    async def bring_home() -> None:
        # What it says of its steps tells which results there should be.
        await course.follow()
        imported = await course.bring_home(
            output, lambda totals: observer.transferring("results", totals)
        )
        report_results(report, course.mirror, imported)

    error: RtcError | None = None
    code = EXIT_DONE
    try:
        with observer:
            if not await _until_interrupted(bring_home()):
                observer.say("Interrupted; the same command again goes on from here.")
                code = EXIT_CANCELLED
        error = course.mirror.error
    except RtcError as raised:
        error = raised
    if error is not None:
        report.set_error(error)
        code = code or error.exit_code
        click.echo(str(error), err=True)
    observer.finish(report)
    return code


def _why(found: "FoundJob") -> RtcError:
    error = found.job.error
    return JobCancelled(job_id=found.job.job_id) if error is None else from_wire(error)
