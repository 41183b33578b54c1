"""The one gate between names that come from the browser and files: nothing outside the project's folder, links included."""

from __future__ import annotations

import os
from pathlib import Path


class Outside(Exception):
    """A name that leads out of the project, or to a hidden file."""


class Missing(Exception):
    """A file or job that is not there."""


class Folder:
    """The project's folder."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).resolve()

    def path(self, name: str) -> Path:
        """The file of a name relative to the project, every link followed; Outside where it is elsewhere or hidden, whether it exists or not."""
        if not name or "\0" in name or name.startswith(("/", "~")):
            raise Outside(name)
        try:
            path = (self.root / name).resolve()
        except (OSError, RuntimeError) as error:  # links in a ring
            raise Outside(name) from error
        if not path.is_relative_to(self.root) or any(part.startswith(".") for part in path.relative_to(self.root).parts):
            raise Outside(name)
        return path

    def file(self, name: str) -> Path:
        """An existing file; Missing where there is none."""
        path = self.path(name)
        if not path.is_file():
            raise Missing(name)
        return path

    def name(self, path: Path) -> str:
        """The name of a path, relative to the project."""
        return path.relative_to(self.root).as_posix()

    def entries(self, name: str) -> list[tuple[str, bool, int]]:
        """Name, whether it is a folder, and bytes of all that lies in a folder ("" is the project's), folders first, by name.

        Hidden files, and links that lead out, are left out.
        """
        folder = self.path(name) if name else self.root
        if not folder.is_dir():
            raise Missing(name)
        found = []
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    if entry.is_symlink():  # all others lie where they seem to, and need no look at every part of their path
                        self.path(self.name(Path(entry.path)))
                    if not entry.name.startswith("."):
                        found.append((entry.name, entry.is_dir(), entry.stat().st_size))
                except (Outside, OSError):
                    continue
        return sorted(found, key=lambda each: (not each[1], each[0]))
