"""`sleap-remote worker`: serve a room, or open one here and print its session string.

The worker itself is in `sleap_rtc_worker`; it is imported when the command runs.
Standard output carries exactly one line, the session string; all else is on stderr.
"""

import asyncio
import contextlib
import socket
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from sleap_rtc_plugin.cli.durations import parse_duration
from sleap_rtc_plugin.cli.options import (
    on_interrupt,
    run_async,
    set_up_logging,
    transport_options,
    verbose_option,
)
from sleap_rtc_plugin.cli.sizes import parse_size
from sleap_rtc_plugin.protocol.errors import (
    EXIT_DONE,
    EXIT_JOB_FAILED,
    EXIT_USAGE,
    RtcError,
)
from sleap_rtc_plugin.protocol.ids import is_id
from sleap_rtc_plugin.protocol.limits import (
    KIB,
    MAX_JOBS_QUEUED,
    MAX_MOUNT_NAME_CHARS,
    MAX_MOUNTS,
    MAX_SESSION_STRING_CHARS,
)
from sleap_rtc_plugin.protocol.mounts import is_mount_name, place_fault
from sleap_rtc_plugin.protocol.session_string import Session, is_signaling_url

if TYPE_CHECKING:
    from sleap_rtc_plugin.protocol.pairing_code import PairingCode
    from sleap_rtc_plugin.transport.transport_options import TransportOptions
    from sleap_rtc_worker.client import RTCWorkerClient

__all__ = ["worker"]

_MISSING = (
    "The worker is not installed; install it with "
    "`pip install 'sleap-rtc-plugin[worker,signaling]'`."
)
_NO_SIGNALING = (
    "No session is given, and no signaling server can be started here; name a session "
    "or install the server with `pip install 'sleap-rtc-plugin[signaling]'`."
)
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_EVERYWHERE = ("0.0.0.0", "::", "")  # noqa: S104 - compared, not bound


@dataclass(frozen=True)
class _Server:
    """The signaling server to open here where no session is given."""

    host: str
    port: int
    public_url: str | None
    data_dir: Path


def _parse_mounts(
    context: click.Context, option: click.Parameter, words: Sequence[str]
) -> dict[str, Path]:
    """Read `NAME=PATH` words; refuse what is no name, no folder, or there twice."""
    mounts: dict[str, Path] = {}
    for word in words:
        name, separator, path = word.partition("=")
        folder = Path(path)
        if not separator or not is_mount_name(name):
            raise click.BadParameter(
                f"{word} is not NAME=PATH, where a name has up to "
                f"{MAX_MOUNT_NAME_CHARS} letters, digits, dots, hyphens and "
                "underscores"
            )
        if name in mounts:
            raise click.BadParameter(f"two mounts are named {name}")
        if not folder.is_absolute() or not folder.is_dir():
            raise click.BadParameter(f"{path} is not an absolute path of a folder")
        if place_fault(str(folder).strip("/")) is not None:
            raise click.BadParameter(f"{path} holds what cannot be shown, or too much")
        mounts[name] = folder
    if len(mounts) > MAX_MOUNTS:
        raise click.BadParameter(f"there are more than {MAX_MOUNTS} mounts")
    return mounts


def _parse_room(
    context: click.Context, option: click.Parameter, name: str | None
) -> str | None:
    if name is not None and not is_id(name):
        raise click.BadParameter(
            f"{name} is not a name of small letters, digits and hyphens between them"
        )
    return name


def _more_than_nothing(
    context: click.Context, option: click.Parameter, value: float | None
) -> float | None:
    if value is not None and value <= 0:
        raise click.BadParameter("it would let no job run; write more than 0")
    return value


@click.command()
@click.option(
    "--session",
    envvar="SLEAP_SESSION",
    metavar="STRING",
    help="Join this session instead of opening a new one.  [env: SLEAP_SESSION]",
)
@click.option(
    "--session-file",
    envvar="SLEAP_SESSION_FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file that holds the session string, such as a mounted secret; --session "
    "goes before it.  [env: SLEAP_SESSION_FILE]",
)
@click.option(
    "--signaling", metavar="URL", help="Open a session at this signaling server."
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address that the signaling server opened here listens on.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="Port of the signaling server opened here; 0 picks a free one.",
)
@click.option(
    "--public-url",
    metavar="URL",
    help="Address under which the lab reaches the signaling server opened here.",
)
@click.option("--name", default="", help="What users call this worker.")
@click.option(
    "--gpu-id",
    "gpu_ids",
    type=click.IntRange(0),
    multiple=True,
    metavar="N",
    help="Use this GPU only, as nvidia-smi numbers it; may be given several times. One "
    "job runs on each.  [default: every GPU]",
)
@click.option(
    "--slots",
    type=click.IntRange(1),
    metavar="N",
    help="How many jobs run at once.  [default: one for each GPU, which is the most]",
)
@click.option(
    "--max-jobs",
    type=click.IntRange(1, MAX_JOBS_QUEUED),
    default=MAX_JOBS_QUEUED,
    show_default=True,
    metavar="N",
    help="How many jobs may wait; of one person no more than leave as many places "
    "free.  More are refused.",
)
@click.option(
    "--max-runtime",
    type=parse_duration,
    callback=_more_than_nothing,
    metavar="TIME",
    help="How long a job may run: 12h, 90m. Then its training is stopped; models that "
    "are trained by then are kept, and the job fails.  [default: as long as it takes]",
)
@click.option(
    "--disk-quota",
    type=parse_size,
    callback=_more_than_nothing,
    metavar="SIZE",
    help="How much the files of all jobs may take, apart from --store-limit: 500GB. "
    "Where it is used up, results that were fetched go first.  [default: the disk]",
)
@click.option(
    "--keep-results",
    type=parse_duration,
    metavar="TIME",
    help="How long results are kept at least: 30d, 12h. Those that nobody fetched are "
    "kept longer while there is room.  [default: 30d]",
)
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the jobs; one worker at a time.",
)
@click.option(
    "--shared-storage-root",
    envvar="SHARED_STORAGE_ROOT",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A mount shared with clients.",
)
@click.option(
    "--mount",
    "mounts",
    multiple=True,
    metavar="NAME=PATH",
    callback=_parse_mounts,
    help="A folder that clients may look into and refer to, read only, as NAME; may "
    "be given several times.",
)
@click.option(
    "--store-limit",
    type=parse_size,
    metavar="SIZE",
    help="How much of earlier packages is kept, so that it need not be sent again: "
    "20GB, 500MB, or 0 for nothing.  [default: 50 GiB or a fifth of the disk, "
    "whichever is less]",
)
@click.option(
    "--model-store",
    envvar="SLEAP_MODEL_STORE",
    metavar="ADDRESS",
    help="Where the room's models are: a folder, or s3://BUCKET/PREFIX, with "
    "?endpoint=URL for other servers than AWS. Credentials come from the AWS_* "
    "variables.  [default: models in the folder of --data; env: SLEAP_MODEL_STORE]",
)
@click.option(
    "--model-room",
    metavar="NAME",
    callback=_parse_room,
    help="What the models are filed under, for labs whose rooms come and go.  "
    "[default: the session's room]",
)
@click.option(
    "--model-cache",
    type=parse_size,
    metavar="SIZE",
    help="How much of the models is kept at hand: 20GB, or 0 for what is in use.  "
    "[default: 20 GiB or a fifth of the disk, whichever is less]",
)
@click.option(
    "--hide-jobs",
    is_flag=True,
    help="Do not show the room, and its dashboard, how far the jobs here are.",
)
@click.option(
    "--pair",
    "pairs",
    is_flag=True,
    help="Show a code of a number and three words, good once and for five minutes, "
    "which somebody types instead of copying the session string.",
)
@click.option(
    "--health",
    "asks_health",
    is_flag=True,
    help="Do not start a worker: say whether the one on the folder of --data lives, "
    "and end with code 0 if so, else 1.",
)
@transport_options
@verbose_option
def worker(
    session: str | None,
    session_file: Path | None,
    signaling: str | None,
    host: str,
    port: int,
    public_url: str | None,
    name: str,
    gpu_ids: tuple[int, ...],
    slots: int | None,
    max_jobs: int,
    max_runtime: float | None,
    disk_quota: int | None,
    keep_results: float | None,
    data: Path | None,
    shared_storage_root: Path | None,
    mounts: dict[str, Path],
    store_limit: int | None,
    model_store: str | None,
    model_room: str | None,
    model_cache: int | None,
    hide_jobs: bool,
    pairs: bool,
    asks_health: bool,
    transport: "TransportOptions",
    verbose: bool,
) -> None:
    """Run a worker on this machine.

    With no session it opens one: it starts a signaling server here and prints the
    session string for the lab.
    """
    set_up_logging(verbose)
    if asks_health:
        _tell_health(data or _default_data_dir())
    if session is None and session_file is not None:
        session = _read_session(session_file)
    try:
        from sleap_rtc_worker.client import RTCWorkerClient
        from sleap_rtc_worker.model_tools import ModelOptions
        from sleap_rtc_worker.retention import JobLimits
    except ImportError as error:
        if (error.name or "").partition(".")[0].startswith("sleap_rtc"):
            raise
        click.echo(_MISSING, err=True)
        sys.exit(EXIT_USAGE)
    for option, url in (("--signaling", signaling), ("--public-url", public_url)):
        if url is not None and not is_signaling_url(url):
            raise click.BadParameter(f"{url} is not a web address", param_hint=option)
    folder = data or _default_data_dir()
    server = _Server(host, port, public_url, folder / "signaling")
    limits = JobLimits(max_jobs, max_runtime, disk_quota)
    if keep_results is not None:
        limits = replace(limits, keep_results_s=keep_results)

    async def run() -> None:
        client = RTCWorkerClient(
            data_dir=folder,
            name=name,
            gpu_id=gpu_ids,
            slots=slots,
            limits=limits,
            shared_storage_root=shared_storage_root,
            mounts=mounts,
            store_limit_bytes=store_limit,
            models=ModelOptions(model_store, model_room or "", model_cache),
            transport=transport,
            shows_jobs=not hide_jobs,
        )
        try:
            async with _session(client, session, signaling, server) as found:
                await _serve(
                    client,
                    found,
                    prints_session=session is None,
                    pairs=pairs,
                    mounts=mounts,
                )
        finally:
            client.close()

    run_async(run(), verbose=verbose)


def _tell_health(folder: Path) -> NoReturn:
    """Say whether the worker on a folder lives; with nothing heavy imported."""
    from sleap_rtc_worker.health import read_health, verdict

    lives, sentence = verdict(read_health(folder), time.time())
    click.echo(sentence, err=True)
    sys.exit(EXIT_DONE if lives else EXIT_JOB_FAILED)


def _read_session(path: Path) -> str:
    """Read a session string from a file; what is in it is never shown.

    Raises:
        click.BadParameter: it cannot be read, or there is nothing in it.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_SESSION_STRING_CHARS + KIB).decode().strip()
    except (OSError, UnicodeDecodeError):
        text = ""
    if not text:
        raise click.BadParameter(
            f"{path} cannot be read or holds no session string",
            param_hint="--session-file",
        )
    return text


def _default_data_dir() -> Path:
    import platformdirs

    return platformdirs.user_data_path("sleap-remote") / "worker"


@contextlib.asynccontextmanager
async def _session(
    client: "RTCWorkerClient",
    text: str | None,
    signaling: str | None,
    server: "_Server",
) -> AsyncIterator[Session]:
    """Join a session, or open one at a server that is there or is started here."""
    from sleap_rtc_plugin.session.accounts import SignedInAccounts
    from sleap_rtc_plugin.session.new_room import open_room

    if text is not None:
        yield Session.parse(text)
    elif signaling is not None:
        yield await open_room(
            signaling.rstrip("/"),
            client.identity.peer_id,
            accounts=SignedInAccounts(),
        )
    else:
        async with _signaling_here(server) as url:
            yield await open_room(url, client.identity.peer_id)


@contextlib.asynccontextmanager
async def _signaling_here(wanted: "_Server") -> AsyncIterator[str]:
    """Run a signaling server in this process; yield its address."""
    try:
        from sleap_rtc_signaling.config import ConfigError, SignalingConfig
        from sleap_rtc_signaling.server import SignalingServer
    except ImportError as error:
        if (error.name or "").partition(".")[0].startswith("sleap_rtc"):
            raise
        raise click.UsageError(_NO_SIGNALING) from None
    config = SignalingConfig(
        host=wanted.host, port=wanted.port, rest_port=None, data_dir=wanted.data_dir
    )
    async with contextlib.AsyncExitStack() as stack:
        try:
            server = await stack.enter_async_context(SignalingServer(config))
        except ConfigError as error:
            raise click.BadParameter(str(error), param_hint="--host") from None
        if wanted.public_url is not None:
            url = wanted.public_url.rstrip("/")
        elif wanted.host in _LOOPBACK:
            url = server.url
            click.echo(
                "Only this machine can reach this worker; to let the lab in, "
                "start it with `--host 0.0.0.0`.",
                err=True,
            )
        else:
            url = f"http://{_reachable(wanted.host)}:{server.port}"
            click.echo(
                f"The session string leads the lab to {url}; if this machine has "
                "another address for them, name it with `--public-url`.",
                err=True,
            )
        yield url


def _reachable(host: str) -> str:
    """Return the address under which other machines reach a server on `host`."""
    if host in _EVERYWHERE:
        import ifaddr

        addresses = [
            ip.ip
            for adapter in ifaddr.get_adapters()
            for ip in adapter.ips
            if isinstance(ip.ip, str)
        ]
        known = (ip for ip in addresses if not ip.startswith(("127.", "169.254.")))
        return next(known, socket.gethostname())
    return f"[{host}]" if ":" in host else host


async def _serve(
    client: "RTCWorkerClient",
    session: Session,
    *,
    prints_session: bool,
    pairs: bool,
    mounts: dict[str, Path],
) -> None:
    from sleap_rtc_plugin.session.accounts import SignedInAccounts

    on_interrupt(client.stop)
    tasks: list[asyncio.Task[None]] = []
    accounts = SignedInAccounts()

    async def account() -> str:
        return await accounts.token(session.url)

    def ready() -> None:
        if prints_session:
            click.echo(session.encode())
        capabilities = client.capabilities
        where = capabilities.gpu_model or f"no GPU ({capabilities.device})"
        count = len(capabilities.slots)
        at_once = f"; {count} jobs run at once" if count > 1 else ""
        click.echo(f"Worker {client.name} is ready: {where}{at_once}.", err=True)
        for name, folder in mounts.items():
            click.echo(f"Clients may look into {folder}, as {name}.", err=True)
        for warning in capabilities.warnings:
            click.echo(warning, err=True)
        if pairs:
            tasks.append(asyncio.create_task(_show_codes(session)))

    try:
        await client.run_worker(session, on_ready=ready, account=account)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    last = "The worker has stopped."
    if client.running_jobs:
        last += " What runs goes on; the next worker on this folder takes it up."
    click.echo(last, err=True)


async def _show_codes(session: Session) -> None:
    """Hand the session over by a code; whatever comes of it, the worker goes on."""
    from sleap_rtc_plugin.session.pairing import hand_over

    def show(code: "PairingCode", expires_at: float) -> None:
        until = time.strftime("%H:%M:%S", time.localtime(expires_at))
        click.echo(
            f"Pairing code, good once and until {until}:\n\n    {code}\n\n"
            f"Type it in SLEAP (Remote Train), or: "
            f"sleap-remote pair {code} --server {session.url}",
            err=True,
        )

    try:
        await hand_over(session, show)
    except RtcError as error:
        click.echo(str(error), err=True)
    else:
        click.echo("Paired: the code was typed and is used up now.", err=True)
