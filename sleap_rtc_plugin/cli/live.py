"""`sleap-remote live`: a video or camera to a worker, frame by frame, poses back."""

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from sleap_rtc_plugin.cli.line_writer import LineWriter
from sleap_rtc_plugin.cli.options import (
    fail,
    on_interrupt,
    run_async,
    set_up_logging,
    transport_options,
    verbose_option,
)
from sleap_rtc_plugin.cli.session_choice import SessionChoice, session_option
from sleap_rtc_plugin.protocol.errors import OptionRefused, RtcError
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.inference_options import parse_argv
from sleap_rtc_plugin.protocol.live_messages import ImageFormat, LiveInstances
from sleap_rtc_plugin.protocol.live_options import check_live_options

if TYPE_CHECKING:
    from sleap_rtc_plugin.session.live import LiveStream
    from sleap_rtc_plugin.session.live_figures import LiveFigures, Spread
    from sleap_rtc_plugin.session.live_frames import FrameSource
    from sleap_rtc_plugin.session.live_output import LivePredictions
    from sleap_rtc_plugin.session.remote_session import RemoteSession
    from sleap_rtc_plugin.session.worker_info import WorkerInfo
    from sleap_rtc_plugin.transport.transport_options import TransportOptions

__all__ = ["live"]

_STATUS_INTERVAL_S: Final = 0.25


def _check_output(
    context: click.Context, option: click.Parameter, path: Path | None
) -> Path | None:
    if path is not None and path.suffix != ".slp":
        raise click.BadParameter(f"{path} does not end in .slp")
    if path is not None and path.exists():
        raise click.BadParameter(f"{path} is there already, and nothing overwrites it")
    return path


def _read_options(words: tuple[str, ...]) -> dict[str, str]:
    """Return the inference options among the words of the command."""
    try:
        parsed = parse_argv(words)
        if parsed.data_path or parsed.model_paths or parsed.output_path:
            raise click.UsageError(
                "What is predicted, with which model and to where is said with "
                "--video, --model and --output."
            )
        return check_live_options(parsed.options)
    except OptionRefused as error:
        raise click.UsageError(
            f"The option {error.option} is not accepted: {error.reason}."
        ) from None


@click.command(context_settings={"ignore_unknown_options": True})
@click.option(
    "--video",
    required=True,
    metavar="FILE|CAMERA",
    help="A video, or the number of a camera of this computer.",
)
@click.option("--model", required=True, metavar="ALIAS|ID", help="A published model.")
@click.option(
    "--fps",
    type=click.FloatRange(0.01, 1000),
    help="Frames a second; the video's own by default.",
)
@click.option("--frames", type=click.IntRange(1), help="Stop after that many frames.")
@click.option(
    "--encoding",
    type=click.Choice(["png", "jpeg"]),
    default="png",
    show_default=True,
    help="How frames are sent: `png` loses nothing, `jpeg` is smaller and quicker.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    callback=_check_output,
    metavar="FILE.slp",
    help="Save the predictions there at the end.",
)
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.png",
    help="Draw how long the answers took.",
)
@click.option("--worker", metavar="NAME", help="Use this worker.")
@session_option
@transport_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
@verbose_option
@click.argument(
    "options", metavar="[INFERENCE OPTIONS]", nargs=-1, type=click.UNPROCESSED
)
def live(
    video: str,
    model: str,
    fps: float | None,
    frames: int | None,
    encoding: ImageFormat,
    output: Path | None,
    plot: Path | None,
    worker: str | None,
    session: SessionChoice,
    transport: "TransportOptions",
    as_json: bool,
    verbose: bool,
    options: tuple[str, ...],
) -> None:
    """Stream frames to a worker and get the instances in each back at once.

    The newest frame always goes first: one that is late is dropped and counted, never
    queued. Options of `sleap-nn predict` for single frames, such as --peak_threshold,
    may be added. Ctrl-C ends the session; what was found by then is kept.
    """
    set_up_logging(verbose)
    screen = _Screen(as_json)
    chosen = _read_options(options)
    error = run_async(
        _stream(
            screen,
            choice=session,
            wanted=worker,
            video=video,
            model=model,
            options=chosen,
            encoding=encoding,
            fps=fps,
            frames=frames,
            output=output,
            plot=plot,
            transport=transport,
        ),
        verbose=verbose,
    )
    if error is not None:
        fail(error, verbose=verbose)


async def _stream(
    screen: "_Screen",
    *,
    choice: SessionChoice,
    wanted: str | None,
    video: str,
    model: str,
    options: dict[str, str],
    encoding: ImageFormat,
    fps: float | None,
    frames: int | None,
    output: Path | None,
    plot: Path | None,
    transport: "TransportOptions",
) -> RtcError | None:
    """Carry out a session; return why it ended too early, if it did."""
    session = await choice.find()
    from sleap_rtc_plugin.session.live import start_live
    from sleap_rtc_plugin.session.live_frames import open_frames
    from sleap_rtc_plugin.session.live_output import LivePredictions
    from sleap_rtc_plugin.session.remote_session import RemoteSession
    from sleap_rtc_plugin.transport.effects import in_thread

    source = await in_thread(None, open_frames, video)
    try:
        async with RemoteSession(session, transport=transport) as remote:
            one = await _choose(remote, wanted, model)
            link = await remote.connect(one)
            screen.say(f"Loading {clean_text(model)} on {one.name}.")
            stream = await start_live(
                link, model, source, options=options, encoding=encoding
            )
            kept = LivePredictions(source.video, stream.nodes, stream.edges)
            screen.begin(stream, source, one.name)
            on_interrupt(stream.stop)
            keep = kept.add if output is not None else lambda _: None
            await stream.run(fps=fps, frames=frames, on_found=screen.found(keep))
    finally:
        await in_thread(None, source.close)
    await in_thread(None, _keep, kept, stream, output, plot, screen, source.name)
    screen.end(stream.figures, stream.error)
    return stream.error


async def _choose(
    remote: "RemoteSession", wanted: str | None, model: str
) -> "WorkerInfo":
    """Pick the worker that is named, or a free one that has the model at hand."""
    workers = await remote.workers()
    if wanted is not None or len(workers) <= 1:
        return await remote.choose(wanted)
    from sleap_rtc_plugin.session.warm_workers import model_id_of

    asked = await remote.ask_models(workers, [model])
    return await remote.choose_for_models(None, [model_id_of(model, asked)])


def _keep(
    kept: "LivePredictions",
    stream: "LiveStream",
    output: Path | None,
    plot: Path | None,
    screen: "_Screen",
    title: str,
) -> None:
    """Save what there is, whatever ended the session."""
    if output is not None:
        kept.save(output)
        screen.say(f"Saved the predictions of {len(kept)} frames as {output}.")
    if plot is not None and stream.figures.answered:
        from sleap_rtc_plugin.session.latency_plot import plot_latencies

        plot_latencies(plot, stream.figures.latency.values_ms, clean_text(title))
        screen.say(f"Drew {plot}.")


class _Screen:
    """What the command says: a status line and sentences on stderr, JSON on stdout."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._is_live = sys.stderr.isatty() and not as_json
        self._shown_at = 0.0
        self._figures: LiveFigures | None = None
        self._lines: LineWriter | None = None

    def say(self, text: str) -> None:
        """Print a sentence on stderr."""
        self._clear()
        click.echo(text, err=True)

    def begin(self, stream: "LiveStream", source: "FrameSource", worker: str) -> None:
        """The model is loaded."""
        self._figures = stream.figures
        if self._as_json:
            loop = asyncio.get_running_loop()

            def gone() -> None:
                with contextlib.suppress(RuntimeError):  # the loop may be gone, too
                    loop.call_soon_threadsafe(stream.stop)

            self._lines = LineWriter(gone)
        self.say(
            f"{source.name}, {source.width} x {source.height} pixels, to {worker} "
            f"({stream.device})."
        )
        self._emit(
            {
                "event": "started",
                "worker": worker,
                "device": stream.device,
                "nodes": stream.nodes,
                "edges": stream.edges,
            }
        )

    def found(
        self, keep: Callable[[LiveInstances], None]
    ) -> Callable[[LiveInstances, float], None]:
        """Return what is told of each answer."""

        def tell(found: LiveInstances, latency_ms: float) -> None:
            keep(found)
            self._show(latency_ms, len(found.instances))
            self._emit(
                {
                    "event": "frame",
                    "frame": found.frame,
                    "latency_ms": round(latency_ms, 2),
                    "waited_ms": round(found.waited_us / 1_000, 2),
                    "predicted_ms": round(found.predicted_us / 1_000, 2),
                    "instances": [
                        {
                            "score": one.score,
                            "track": clean_text(one.track),
                            "points": one.points,
                        }
                        for one in found.instances
                    ],
                }
            )

        return tell

    def end(self, figures: "LiveFigures", error: RtcError | None) -> None:
        """Print what became of the frames."""
        if self._as_json:
            ended = {"error": str(error)} if error is not None else {}
            lines = self._lines or LineWriter()
            summary = {"event": "summary", **figures.as_json(), **ended}
            lines.close(json.dumps(summary | {"not_printed": lines.dropped}))
            return
        self._clear()
        for line in _summary(figures):
            click.echo(line)

    def _emit(self, line: dict[str, Any]) -> None:
        if self._lines is not None:
            self._lines.write(json.dumps(line))

    def _show(self, latency_ms: float, instances: int) -> None:
        now = time.monotonic()
        figures = self._figures
        if not self._is_live or figures is None:
            return
        if now - self._shown_at < _STATUS_INTERVAL_S:
            return
        self._shown_at = now
        late = figures.taken + figures.missed - figures.answered
        click.echo(
            f"\r{figures.answered} frames, {figures.answered_per_s:.1f}/s, "
            f"{latency_ms:.0f} ms, {instances} instances, {late} without answer\x1b[K",
            err=True,
            nl=False,
        )

    def _clear(self) -> None:
        if self._is_live and self._shown_at:
            click.echo("\r\x1b[K", err=True, nl=False)


def _summary(figures: "LiveFigures") -> list[str]:
    """Return the figures as lines for a person."""
    known = {
        "not read in time": figures.missed,
        "replaced before they were sent": figures.dropped,
        "lost on the way": figures.lost,
        "replaced at the worker": figures.superseded,
    }
    drops = ", ".join(f"{count} {what}" for what, count in known.items() if count)
    lines = [
        f"{figures.taken + figures.missed} frames, {figures.answered} answered "
        f"({figures.answered_per_s:.1f} a second)" + (f"; {drops}" if drops else "")
    ]
    rows = (
        ("latency", figures.latency.spread()),
        ("of it waiting at the worker", figures.waited.spread()),
        ("of it predicting", figures.predicted.spread()),
    )
    return lines + [f"{name}: {_words(row)}" for name, row in rows if row is not None]


def _words(spread: "Spread") -> str:
    return (
        f"{spread.min:.0f} ms at least, median {spread.median:.0f}, 95 % below "
        f"{spread.p95:.0f}, 99 % below {spread.p99:.0f}, at most {spread.max:.0f}"
    )
