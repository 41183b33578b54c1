"""Room on a disk for images that are not kept in memory: which folder, and a file there of which nothing stays behind."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aurefine.refine.options import RefineOptions

_SPARE = 1 << 30  # bytes that stay free on a disk that was not named as scratch
_IN_MEMORY = ("tmpfs", "ramfs", "devtmpfs")


@dataclass(frozen=True)
class Scratch:
    """Images that are not in memory are in a file in `folder`, or are read from their own stacks where that is empty."""

    folder: str
    warn: Callable[[str], None]

    @property
    def place(self) -> str:
        """For the user: where the images are."""
        return f"a copy in {self.folder}" if self.folder else "their own stacks"

    def create(self) -> str:
        """The name of an empty file for images; "" where none can be made, with a warning.

        Whoever opens it removes it before `reserve` makes it large: its contents are there until it is closed, however the process ends.
        """
        if not self.folder:
            return ""
        try:
            handle, path = tempfile.mkstemp(prefix="aurefine_", suffix=".images", dir=self.folder)
        except OSError as error:
            self._refused(error)
            return ""
        os.close(handle)
        return path

    def reserve(self, file: int, size: int) -> bool:
        """Make the open `file` as large as that, all of it its own now; False where there is no room for it after all, with a warning."""
        try:
            os.posix_fallocate(file, 0, size)
        except OSError as error:
            self._refused(error)
            return False
        return True

    def opened(self, size: int) -> int | None:
        """The descriptor of a file of `size` bytes that has no name; None where there is no room for it."""
        path = self.create() if size else ""
        if not path:
            return None
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        os.unlink(path)
        if self.reserve(file, size):
            return file
        os.close(file)
        return None

    def _refused(self, error: OSError) -> None:
        self.warn(f"{self.folder} has no room for the images after all ({error.strerror}): {_AT_SOURCE}")


_AT_SOURCE = "they are read from their own stacks in every iteration, which must stay where they are"


def asked(options: RefineOptions, size: int, warn: Callable[[str], None]) -> str:
    """The folder of --scratch_dir if `size` bytes of images fit there beside what is to stay free; otherwise "" and, where one was named, a warning.

    That is no error: the disk may be absent on one machine of many, and a run does not need it.
    """
    if options.scratch_dir in ("", "None"):
        return ""
    if not (os.path.isdir(options.scratch_dir) and os.access(options.scratch_dir, os.W_OK)):
        warn(f"--scratch_dir {options.scratch_dir}: there is no such folder that may be written to: scratch is not used")
        return ""
    free, kept = shutil.disk_usage(options.scratch_dir).free, int(options.keep_free_scratch_gb * (1 << 30))
    if free - kept >= size:
        return options.scratch_dir
    warn(
        f"--scratch_dir {options.scratch_dir}: {_gigabytes(free)} are free, but the images take {_gigabytes(size)} and {_gigabytes(kept)} are to "
        "stay free (--keep_free_scratch): scratch is not used"
    )
    return ""


def _candidates(options: RefineOptions) -> list[str]:
    """Folders that may have room: that of temporary files, else the output's."""
    return [tempfile.gettempdir(), *([str(Path(options.output).parent)] if options.output else [])]


def with_room(options: RefineOptions, size: int) -> str:
    """A folder for `size` bytes of what does not fit into memory: that of --scratch_dir, or one that is there anyway; "" if none has room."""
    named = [options.scratch_dir] if options.scratch_dir not in ("", "None") else []
    for folder in [*named, *_candidates(options)]:
        spare = int(options.keep_free_scratch_gb * (1 << 30)) if folder in named else _SPARE
        if os.access(folder, os.W_OK) and not in_memory(folder) and shutil.disk_usage(folder).free >= size + spare:
            return folder
    return ""


def found(options: RefineOptions, size: int, warn: Callable[[str], None]) -> str:
    """`with_room` for images that do not fit into memory; with a warning where there is none."""
    if folder := with_room(options, size):
        return folder
    warn(
        f"the images do not fit into memory, and no disk has {_gigabytes(size + _SPARE)} free for a copy "
        f"(looked at {', '.join(_candidates(options))}): "
        f"{_AT_SOURCE}. A disk named by --scratch_dir makes it quicker"
    )
    return ""


def in_memory(folder: str, mounts: Path = Path("/proc/self/mountinfo")) -> bool:
    """Whether the files of a folder are in memory, so that putting images there gains nothing."""
    device = os.stat(folder).st_dev
    name = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = [line.split() for line in mounts.read_text().splitlines()]
    except OSError:
        return False
    return any(words[2] == name and words[words.index("-") + 1] in _IN_MEMORY for words in lines)


def _gigabytes(size: int) -> str:
    return f"{size / (1 << 30):.2f} GB"
