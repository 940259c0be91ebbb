"""The asyncio loop on a real, running Qt loop; each case in a process of its own."""

import subprocess
import sys
import textwrap

import pytest

pytest.importorskip("qasync")

from sleap_rtc_plugin.gui.event_loop import refuse_bad_pair

PREAMBLE = """
    import asyncio, sys, threading, time
    from qtpy.QtCore import QCoreApplication, QTimer
    from sleap_rtc_plugin.gui import event_loop

    app = QCoreApplication([])
"""


def run(body: str) -> subprocess.CompletedProcess[str]:
    """Run a program whose `main()` is called from a slot of a running Qt loop."""
    program = (
        textwrap.dedent(PREAMBLE)
        + textwrap.dedent(body)
        + "\nQTimer.singleShot(0, main)\ncode = app.exec()\n"
        + "print('threads', *(thread.name for thread in threading.enumerate()))\n"
        + "sys.exit(code)\n"
    )
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_tasks_and_threads_run_and_nothing_is_left() -> None:
    done = run("""
        async def work():
            loop = asyncio.get_running_loop()
            assert loop is event_loop.ensure_loop()
            name = await asyncio.to_thread(lambda: threading.current_thread().name)
            assert name.startswith("sleap-remote"), name
            for _ in range(20):
                await asyncio.sleep(0)
            async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
                address = server.sockets[0].getsockname()
                reader, writer = await asyncio.open_connection(*address)
                print("read", (await reader.readline()).decode().strip())
                writer.close()
                await writer.wait_closed()
            event_loop.call_soon_in_qt(app.quit)

        async def answer(reader, writer):
            writer.write(b"hello\\n")
            writer.close()

        def main():
            assert event_loop.ensure_loop() is event_loop.ensure_loop()
            event_loop.spawn(work(), "work")
        """)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.split("\n")[:2] == ["read hello", "threads MainThread"]
    assert done.stderr == ""


def test_a_failure_of_a_task_is_logged_with_its_name() -> None:
    done = run("""
        async def work():
            raise ValueError("no luck")

        def main():
            event_loop.spawn(work(), "the work").add_done_callback(
                lambda task: app.quit()
            )
        """)
    assert done.returncode == 0
    assert "the work failed: ValueError('no luck')" in done.stderr


def test_last_words_are_said_before_the_loop_closes() -> None:
    done = run("""
        async def goodbye():
            await asyncio.sleep(0.05)
            await asyncio.to_thread(print, "goodbye")

        async def endless():
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                print("cancelled")

        def main():
            event_loop.at_quit(goodbye)
            event_loop.spawn(endless(), "endless")
            QTimer.singleShot(0, app.quit)
        """)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["goodbye", "cancelled", "threads", "MainThread"]


def test_an_application_that_is_ended_inside_a_coroutine_ends() -> None:
    done = run("""
        async def work():
            await asyncio.to_thread(int)
            app.quit()

        def main():
            event_loop.spawn(work(), "work")
        """)
    assert done.returncode == 0
    assert done.stdout.split() == ["threads", "MainThread"]
    assert "ended inside a coroutine" in done.stderr


def test_closing_does_not_wait_for_ever() -> None:
    done = run("""
        event_loop.QUIT_TIMEOUT_S = 0.3

        async def stubborn():
            while True:
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    pass

        def main():
            event_loop.at_quit(stubborn)
            began = time.monotonic()
            app.aboutToQuit.connect(lambda: print(time.monotonic() - began))  # once
            app.quit()
        """)
    assert 0.25 < float(done.stdout.split()[0]) < 2
    assert "given up" in done.stderr


def test_a_coroutine_is_waited_for_in_a_slot_but_not_in_a_coroutine() -> None:
    done = run("""
        async def quick():
            await asyncio.sleep(0.01)

        async def inside():
            try:
                event_loop.run_until_closed(quick(), 1)
            except RuntimeError as error:
                print(error)
            event_loop.call_soon_in_qt(outside)

        def outside():
            print(asyncio.current_task())
            print(event_loop.run_until_closed(quick(), 5))
            print(event_loop.run_until_closed(asyncio.sleep(60), 0.05))
            app.quit()

        def main():
            event_loop.spawn(inside(), "inside")
            app.aboutToQuit.connect(late)

        def late():
            print(event_loop.run_until_closed(quick(), 1))
        """)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "run_until_closed was called inside a coroutine",
        "None",
        "True",
        "False",
        "False",
        "threads MainThread",
    ]


@pytest.mark.parametrize(
    ("pyside", "python", "is_refused"),
    [
        ("6.12.0", (3, 11), True),
        ("6.12.0", (3, 12), False),
        ("6.12.1", (3, 11), False),
        ("6.11.3", (3, 11), False),
    ],
)
def test_the_pair_that_crashes_is_refused(
    pyside: str, python: tuple[int, int], is_refused: bool
) -> None:
    reason = refuse_bad_pair(pyside, python)
    assert (reason is not None) is is_refused
    if reason:
        assert "pyside6!=6.12.0" in reason
