"""Every file of every job on this worker: where it lies, who may go there.

One private folder per job below the data folder; packages arrive in it, steps run in
it, results leave from it. Blocking calls, made in threads by the job coordinator.

    jobs/<job id>/package/files/   the verified package; steps run here
    jobs/<job id>/published/       models of the registry that steps use
    jobs/<job id>/configs/<n>/     the guarded configuration of step n
    jobs/<job id>/steps/<n>/       the step runner's folder; <n>.<k> of its k-th restart
    jobs/<job id>/kept/<n>/        what tries of step n that were cut off left
    store/<room>/                  files of earlier packages, for that room alone
"""

import heapq
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sleap_rtc_plugin.protocol.errors import (
    ConfigRefused,
    DiskFull,
    LocalProtocolError,
    ResultsIncomplete,
    StorageFailed,
    UnsafeMember,
)
from sleap_rtc_plugin.protocol.ids import is_job_id
from sleap_rtc_plugin.protocol.images import (
    IMAGES_FOLDER,
    image_fault,
    is_image_name,
)
from sleap_rtc_plugin.protocol.limits import (
    FREE_SPACE_FACTOR,
    GIB,
    MAX_CHUNK_BYTES,
    MAX_CONFIG_BYTES,
    MAX_IMAGE_BYTES,
    MAX_IMAGES_PER_FETCH,
    MAX_IMAGES_TOTAL_BYTES,
    MIB,
)
from sleap_rtc_plugin.protocol.manifest import FileEntry, Manifest
from sleap_rtc_plugin.protocol.messages import JobSpec, PredictStep, Step, TrainStep
from sleap_rtc_plugin.protocol.paths import path_fault
from sleap_rtc_plugin.transport.chunk_store import ChunkStore
from sleap_rtc_plugin.transport.effects import storage_error
from sleap_rtc_plugin.transport.file_source import FileSource, digest_of
from sleap_rtc_plugin.transport.room_store import open_room_store, share_of_disk
from sleap_rtc_plugin.transport.staging_area import StagingArea

__all__ = ["FileManager", "read_text"]

MODELS: Final = "models"
# What earlier packages may take, unless the worker was told another limit.
STORE_LIMIT_BYTES: Final = 50 * GIB
STORE_DISK_SHARE: Final = 5


class FileManager:
    """The files below one worker's data folder."""

    def __init__(
        self,
        data_dir: Path,
        *,
        place: str = "the worker's disk",
        chunk_size: int | None = None,
        store_limit_bytes: int | None = None,
    ) -> None:
        """Use `data_dir`, which is made when needed, for this user only.

        Args:
            data_dir: the worker's folder.
            place: what clients are told it is called.
            chunk_size: bytes per chunk of what is sent home; by default it is cut by
                what it holds.
            store_limit_bytes: how much of earlier packages is kept, 0 for nothing; by
                default `STORE_LIMIT_BYTES`, but no more than a fifth of the disk.
        """
        self.data_dir = data_dir
        self._place = place
        if chunk_size is not None:
            chunk_size = min(max(chunk_size, 1), MAX_CHUNK_BYTES)
        self._chunk_bytes = chunk_size
        self._jobs = data_dir / "jobs"
        self._jobs.mkdir(mode=0o700, parents=True, exist_ok=True)
        if store_limit_bytes is None:
            store_limit_bytes = share_of_disk(
                data_dir, STORE_LIMIT_BYTES, STORE_DISK_SHARE
            )
        self._store_limit_bytes = store_limit_bytes
        self._store: ChunkStore | None = None

    # -- places --------------------------------------------------------------------

    def job_dir(self, job_id: str) -> Path:
        """Return a job's own folder."""
        if not is_job_id(job_id):
            raise LocalProtocolError(detail="a job id that was not checked")
        return self._jobs / job_id

    def staging_area(self, job_id: str) -> StagingArea:
        """Return where a job's package arrives."""
        return StagingArea(self.job_dir(job_id) / "package", self._place, self._store)

    def package_dir(self, job_id: str) -> Path:
        """Return the verified package, where the steps run."""
        return self.staging_area(job_id).files

    def published_dir(self, job_id: str) -> Path:
        """Return where models of the registry lie that the job uses."""
        return self.job_dir(job_id) / "published"

    def model_dirs(self, job_id: str, run_names: Sequence[str]) -> list[Path]:
        """Return the folders of models that the job trained."""
        return [self.package_dir(job_id) / MODELS / name for name in run_names]

    def config_dir(self, job_id: str, step: int) -> Path:
        """Return the folder of a step's guarded configuration."""
        return self.job_dir(job_id) / "configs" / str(step)

    def step_dir(self, job_id: str, step: int, restarts: int = 0) -> Path:
        """Return the step runner's folder, made when needed; each try has its own."""
        name = f"{step}.{restarts}" if restarts else str(step)
        folder = self.job_dir(job_id) / "steps" / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def kept_dir(self, job_id: str, step: int) -> Path:
        """Return where the checkpoints of a step's earlier tries are."""
        return self.job_dir(job_id) / "kept" / str(step)

    def missing_bytes(self, package_bytes: int) -> int:
        """Return how much more must be free for a package of so many bytes, or 0."""
        needed, free = self._needed_and_free(package_bytes)
        return max(0, needed - free)

    def space_fault(self, package_bytes: int) -> DiskFull | None:
        """Say that a package of so many bytes does not fit, or None where it does."""
        needed, free = self._needed_and_free(package_bytes)
        if needed <= free:
            return None
        return DiskFull(
            place=self._place,
            needed=f"{needed / MIB:.1f} MiB",
            free=f"{free / MIB:.1f} MiB",
        )

    def _needed_and_free(self, package_bytes: int) -> tuple[int, int]:
        needed = int(package_bytes * FREE_SPACE_FACTOR)
        free = shutil.disk_usage(self.data_dir).free
        if needed > free and self._store is not None:
            free += self._store.spare_bytes()
        return needed, free

    def size_bytes(self, job_id: str) -> int:
        """Return what a job's files take on the disk; 0 where there are none."""
        total = 0
        for folder, _, names in os.walk(self.job_dir(job_id)):
            for name in names:
                try:
                    status = Path(folder, name).lstat()
                except OSError:
                    # sleap-nn renames and deletes files meanwhile.
                    continue
                # Holes take nothing; Windows does not tell.
                blocks = getattr(status, "st_blocks", None)
                size = status.st_size
                total += size if blocks is None else min(size, blocks * 512)
        return total

    def has_files(self, job_id: str) -> bool:
        """Tell whether anything of a job is on the disk."""
        return self.job_dir(job_id).exists()

    # -- earlier packages ------------------------------------------------------------

    def open_store(self, room_id: str, now: float) -> None:
        """Use what earlier packages of a room left here, and keep the next ones.

        Args:
            room_id: the room that is served from now on.
            now: Unix seconds.
        """
        self.close_store()
        if self._store_limit_bytes <= 0:
            return
        self._store = open_room_store(
            self.data_dir / "store",
            room_id,
            limit_bytes=self._store_limit_bytes,
            now=now,
            place=self._place,
        )

    def close_store(self) -> None:
        """Let go of the room's store."""
        if self._store is not None:
            self._store.close()
            self._store = None

    # -- the package -----------------------------------------------------------------

    def members(self, job_id: str) -> frozenset[str]:
        """Return the package's files, as relative paths with `/`."""
        root = self.package_dir(job_id)
        return frozenset(
            path.relative_to(root).as_posix()
            for path in root.rglob("*")
            if path.is_file() and not path.is_symlink()
        )

    def read_config(self, job_id: str, member: str) -> str:
        """Return the text of a configuration in the package.

        Raises:
            ConfigRefused: it is missing, too large or not text.
        """
        return read_text(self.package_dir(job_id) / member, member)

    @staticmethod
    def config_name(step: Step) -> str:
        """Return the file name of a step's guarded configuration."""
        if isinstance(step, TrainStep):
            return step.config.rpartition("/")[2]
        return "config.yaml"

    def write_config(self, job_id: str, index: int, step: Step, text: str) -> Path:
        """Write the guarded configuration that a step runs with."""
        folder = self.config_dir(job_id, index)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / self.config_name(step)
        path.write_text(text, encoding="utf-8")
        return path

    # -- results -----------------------------------------------------------------------

    def results(self, job_id: str, spec: JobSpec, steps: list[int]) -> FileSource:
        """Read what the steps that ended well left behind, ready to be sent.

        Raises:
            ResultsIncomplete: a file that was there is gone.
            StorageFailed: the disk failed.
        """
        root = self.package_dir(job_id)
        paths: list[str] = []
        for index in steps:
            step = spec.steps[index]
            match step:
                case TrainStep():
                    paths += self._model_files(root, step)
                case PredictStep():
                    paths.append(step.output)
        try:
            return FileSource.scan(root, paths, chunk_bytes=self._chunk_bytes)
        except UnsafeMember as error:
            raise ResultsIncomplete(step=spec.name, missing=error.member) from None

    def _model_files(self, root: Path, step: TrainStep) -> list[str]:
        folder = root / MODELS / step.run_name
        found = sorted(
            path.relative_to(root).as_posix()
            for path in folder.rglob("*")
            if path.is_file() and not path.is_symlink()
        )
        # What sleap-nn may write and no system can store is not worth a lost model.
        return [path for path in found if path_fault(path) is None]

    def images(self, job_id: str, step: TrainStep) -> FileSource:
        """Read the newest whole images that a training has drawn so far.

        sleap-nn goes on drawing meanwhile, and deletes them all when it is done:
        what is not whole or not there any more is left out.
        """
        folder = self.package_dir(job_id) / MODELS / step.run_name / IMAGES_FOLDER
        entries: list[FileEntry] = []
        total_bytes = 0
        for name in _newest_images(folder):
            try:
                [entry] = FileSource.scan(folder, [name]).manifest.files
                data = (folder / name).read_bytes()
            except (StorageFailed, OSError):
                continue
            total_bytes += entry.size_bytes
            if total_bytes > MAX_IMAGES_TOTAL_BYTES:
                break
            # The digest tells that both reads saw the same image.
            if image_fault(data) is None and digest_of(data) == entry.digest:
                entries.append(entry)
        return FileSource(folder, Manifest(entries))

    def discard(self, job_id: str) -> None:
        """Delete everything of a job.

        Raises:
            StorageFailed: some of it could not be deleted.
        """
        folder = self.job_dir(job_id)
        try:
            if folder.exists():
                shutil.rmtree(folder)
        except OSError as error:
            raise storage_error(error, folder) from None


def read_text(path: Path, name: str) -> str:
    """Return the text of a configuration, which clients know by `name`.

    Raises:
        ConfigRefused: it is missing, too large or not text.
    """
    try:
        data = path.read_bytes() if path.stat().st_size <= MAX_CONFIG_BYTES else b""
        text = data.decode()
    except FileNotFoundError:
        raise ConfigRefused(
            config=name, reason="the package does not hold it"
        ) from None
    except (OSError, UnicodeDecodeError):
        raise ConfigRefused(config=name, reason="it cannot be read") from None
    if not text.strip():
        raise ConfigRefused(config=name, reason="it is empty or too large")
    return text


def _newest_images(folder: Path) -> list[str]:
    """Return the names of a folder's images, the newest first, bounded."""
    found: list[tuple[int, str]] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not is_image_name(entry.name) or not entry.is_file(
                    follow_symlinks=False
                ):
                    continue
                status = entry.stat(follow_symlinks=False)
                if status.st_size <= MAX_IMAGE_BYTES:
                    found.append((status.st_mtime_ns, entry.name))
    except OSError:
        # The folder is not there yet, or not any more.
        return []
    newest = heapq.nlargest(MAX_IMAGES_PER_FETCH, found)
    return [name for _, name in newest]
