"""Programs at a store of models, run as processes of their own by the tests.

`crowd` publishes its share of many models and moves aliases, while others do the same.
`publish` publishes one model and may kill itself at a chosen call to the disk.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from support.trained_models import local_model

from sleap_rtc_plugin.protocol.model_messages import PutAlias
from sleap_rtc_plugin.protocol.model_records import Publication
from sleap_rtc_plugin.registry.model_registry import ModelRegistry
from sleap_rtc_plugin.registry.store_address import open_store

ROOM: Final = "room-1"
# The calls with which a directory store changes a disk.
_CALLS: Final = ("open", "write", "fsync", "replace", "mkdir", "unlink")


async def _crowd(arguments: argparse.Namespace) -> None:
    registry = ModelRegistry(open_store(arguments.store), ROOM)
    me = f"person-{arguments.number}"
    numbers = range(arguments.number, arguments.models, arguments.of)
    models = {n: local_model(arguments.folder / f"m{n}", seed=n) for n in numbers}
    slowest_s = 0.0
    for number, model in models.items():
        started = time.monotonic()
        published = await registry.publish(
            model, publication=Publication(alias=f"model-no-{number}"), by=me
        )
        if published.alias_error is not None:
            raise published.alias_error
        slowest_s = max(slowest_s, time.monotonic() - started)
        for alias in (f"best-of-{arguments.number}", "latest"):
            edit = PutAlias(alias=alias, model=model.id, moves=True)
            await registry.change(edit, me)
    ids = {number: model.id for number, model in models.items()}
    print(json.dumps({"ids": ids, "slowest_s": slowest_s}))  # noqa: T201 - the answer


async def _publish(arguments: argparse.Namespace) -> None:
    registry = ModelRegistry(open_store(arguments.store), ROOM)
    model = local_model(
        arguments.folder, seed=arguments.seed, size_bytes=arguments.size_bytes
    )
    print("ready", flush=True)  # noqa: T201 - who waits for it may kill from now on
    count = _die_at(arguments.die_at)
    publication = Publication(alias=f"alias-{arguments.seed}")
    await registry.publish(model, publication=publication, by="ann")
    print(json.dumps({"id": model.id, "calls": count()}))  # noqa: T201 - the answer


def _die_at(number: int) -> Callable[[], int]:
    """Kill this process, as `kill -9` does, at its so-manieth call to the disk.

    Every second time in the middle of what a call writes. Returns what counts them.
    """
    calls = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == number:
                if real is write and number % 2:
                    write(args[0], args[1][: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        return call

    write = os.write
    for name in _CALLS:
        setattr(os, name, counted(getattr(os, name)))
    return lambda: calls


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["crowd", "publish"])
    parser.add_argument("--store", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--number", type=int, default=0)
    parser.add_argument("--of", type=int, default=1)
    parser.add_argument("--models", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--size-bytes", type=int, default=2_000)
    parser.add_argument("--die-at", type=int, default=0)
    arguments = parser.parse_args()
    asyncio.run({"crowd": _crowd, "publish": _publish}[arguments.what](arguments))


if __name__ == "__main__":
    sys.exit(main())
