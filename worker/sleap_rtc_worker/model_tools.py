"""What a worker needs for the room's models, built from what its owner chose.

Called by the worker's root, which hands the parts to jobs and links.
"""

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from blake3 import blake3

from sleap_rtc_plugin.protocol.limits import MODEL_CACHE_LIMIT_BYTES
from sleap_rtc_plugin.registry.directory_store import DirectoryStore
from sleap_rtc_plugin.registry.object_store import ObjectStore
from sleap_rtc_plugin.registry.store_address import open_store
from sleap_rtc_plugin.transport.effects import storage_error
from sleap_rtc_plugin.transport.room_store import share_of_disk
from sleap_rtc_worker.file_manager import FileManager
from sleap_rtc_worker.model_publishing import JobPublisher
from sleap_rtc_worker.model_pushes import ModelPushes
from sleap_rtc_worker.model_registry import WorkerModels

__all__ = ["ModelOptions", "ModelTools"]

# By default no more of the disk than one part in so many.
CACHE_DISK_SHARE: Final = 5
IDENTITY_DIGITS: Final = 16


@dataclass(frozen=True)
class ModelOptions:
    """What the worker's owner chose.

    Attributes:
        store: the address of the store; by default a folder below the data folder.
        room: what the registry is filed under; by default the session's room id.
        cache_bytes: how much of the models is kept at hand; by default
            `MODEL_CACHE_LIMIT_BYTES`, but no more than a fifth of the disk.
    """

    store: str | None = None
    room: str = ""
    cache_bytes: int | None = None


class ModelTools:
    """The parts that have to do with models."""

    def __init__(
        self,
        data_dir: Path,
        files: FileManager,
        options: ModelOptions,
        worker_name: str,
        sleap_nn_version: str,
    ) -> None:
        """Build them; the store is not asked for anything yet.

        Args:
            data_dir: the worker's folder.
            files: where its jobs lie.
            options: what its owner chose.
            worker_name: what users call it.
            sleap_nn_version: the installed sleap-nn's, or nothing.

        Raises:
            StoreInvalid: the address of the store cannot be used.
            StorageFailed: the data folder cannot be used.
        """
        cache_bytes = options.cache_bytes
        if cache_bytes is None:
            cache_bytes = share_of_disk(
                data_dir, MODEL_CACHE_LIMIT_BYTES, CACHE_DISK_SHARE
            )
        store, identity = _open(data_dir, options, worker_name)
        self.models = WorkerModels(
            store=store,
            cache_dir=data_dir / "model-cache",
            cache_limit_bytes=cache_bytes,
            worker_name=worker_name,
            sleap_nn_version=sleap_nn_version,
            room=options.room,
        )
        self.pushes = ModelPushes(
            data_dir / "model-pushes",
            self.models,
            place=f"the disk of the worker {worker_name}",
            space_fault=files.space_fault,
        )
        self.publisher = JobPublisher(
            self.models,
            files,
            worker_name=worker_name,
            sleap_nn_version=sleap_nn_version,
        )
        self.properties = {"model_store": identity}


class _OwnFolder(DirectoryStore):
    """The folder that a worker has for itself; clients hear no paths of its machine."""

    def __init__(self, root: Path, worker_name: str) -> None:
        super().__init__(root)
        self._worker_name = worker_name

    @property
    def name(self) -> str:
        return f"of the worker {self._worker_name}"


def _open(
    data_dir: Path, options: ModelOptions, worker_name: str
) -> tuple[ObjectStore, str]:
    """Return the store, and what the room sees of it.

    That tells whether two workers have the same one, but neither address nor path.

    Raises:
        StoreInvalid: the address cannot be used.
        StorageFailed: the worker's own folder cannot be made.
    """
    address = options.store
    if address is not None and address.startswith("s3:"):
        return open_store(address), f"s3:{_identity(address, options.room)}"
    if address is not None:
        store = open_store(address)
        folder = Path(address).expanduser().absolute()
    else:
        folder = data_dir / "models"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(error, folder) from None
        store = _OwnFolder(folder, worker_name)
    try:
        status = folder.stat()
        place = f"{status.st_dev} {status.st_ino}"
    except OSError:
        # A disk that is not mounted yet.
        place = str(folder)
    # The same path elsewhere is another folder.
    here = f"{socket.gethostname()} {place}"
    return store, f"folder:{_identity(here, options.room)}"


def _identity(place: str, room: str) -> str:
    return blake3(f"{place}\n{room}".encode()).hexdigest()[:IDENTITY_DIGITS]
