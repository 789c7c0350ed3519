"""The few operations on a disk that durability rests on; a test may put a failing one in its place."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

_FILE_MODE = 0o600
_DIRECTORY_MODE = 0o700


class Disk:
    """Write, sync and truncate real files. Every method may raise OSError."""

    def make_directory(self, path: Path) -> None:
        """Create a directory only its owner may enter, durably; tighten one that is there."""
        path.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
        path.chmod(_DIRECTORY_MODE)
        self.sync_directory(path.parent)

    def open(self, path: Path, *, fresh: bool = False) -> int:
        """Open a file for appending; a `fresh` one must be empty or new, and its name is synced."""
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)
        if not fresh:
            return descriptor
        try:
            # An attempt that failed half-way may have left the name; anything in it is not ours.
            if os.fstat(descriptor).st_size:
                raise FileExistsError(errno.EEXIST, "a new segment already has content", str(path))
            self.sync_directory(path.parent)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def write(self, descriptor: int, data: bytes) -> None:
        """Write all of `data`."""
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]

    def sync(self, descriptor: int) -> None:
        """Return once the file's data is on the disk."""
        os.fdatasync(descriptor)

    def truncate(self, descriptor: int, size: int) -> None:
        """Cut the file to `size` bytes, durably."""
        os.ftruncate(descriptor, size)
        os.fsync(descriptor)

    def sync_directory(self, path: Path) -> None:
        """Return once the directory's entries are on the disk."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def replace(self, path: Path, data: bytes) -> None:
        """Put `data` in place of a file, whole or not at all."""
        draft = path.with_name(f".{path.name}.new")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _FILE_MODE)
        try:
            self.write(descriptor, data)
            self.sync(descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                draft.unlink()
            raise
        finally:
            os.close(descriptor)
        draft.replace(path)
        self.sync_directory(path.parent)
