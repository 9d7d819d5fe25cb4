"""Files that are either whole or not there: write beside, flush to disk, then replace.

While a temporary file (``.NAME.*.tmp``) is written its process holds a lock on it, so that what a
killed process left behind can be told from what another one is writing.
"""

from __future__ import annotations

import contextlib
import glob
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows: nothing is locked, and nothing that was left behind is removed
    fcntl = None  # type: ignore[assignment]


@contextmanager
def atomic_write(path: str | os.PathLike[str], mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file in the folder of ``path``; on success it replaces ``path``.

    On any exception the temporary file is removed and what stood at ``path`` survives.
    """
    with atomic_files() as files:
        yield files.open(path, mode)


@contextmanager
def atomic_files() -> Iterator[AtomicFiles]:
    """Several files at once: when all are on disk, each replaces its path, in the order of ``open``.

    On any exception before that, the temporary files are removed and no path has changed.
    """
    files = AtomicFiles()
    try:
        yield files
        files.flush()
        files.replace()
    finally:
        files.discard()


class AtomicFiles:
    """What :func:`atomic_files` gives."""

    def __init__(self) -> None:
        self._open: list[tuple[IO[Any], str, str]] = []  # stream, temporary file, path

    def open(self, path: str | os.PathLike[str], mode: str = "wb") -> IO[Any]:
        """A stream into the temporary file for ``path``; leave it open."""
        path = os.fspath(path)
        folder = os.path.dirname(path) or "."
        try:
            handle, temporary = tempfile.mkstemp(prefix=f".{os.path.basename(path)}.", suffix=".tmp", dir=folder)
        except OSError as error:  # nobody has heard of the temporary file
            raise OSError(error.errno, error.strerror, path) from error
        stream = os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8")
        self._open.append((stream, temporary, path))
        _lock(handle)
        return stream

    def flush(self) -> None:
        """All bytes on disk."""
        umask = os.umask(0)
        os.umask(umask)
        for stream, temporary, _ in self._open:
            stream.flush()
            os.fsync(stream.fileno())
            os.chmod(temporary, 0o666 & ~umask)  # mkstemp gives 0600; a file made by open() would not have it

    def replace(self) -> None:
        """Give each file its name, and make the name itself survive a power cut before the next gets its own."""
        while self._open:
            stream, temporary, path = self._open[0]
            if os.name == "nt":
                stream.close()  # an open file cannot be renamed there
            os.replace(temporary, path)
            stream.close()
            del self._open[0]
            _sync_folder(os.path.dirname(path) or ".")

    def discard(self) -> None:
        """Remove the temporary files that have not got their names."""
        for stream, temporary, _ in self._open:
            with contextlib.suppress(OSError):  # what is still buffered may not fit on the disk
                stream.close()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
        self._open.clear()


def remove_left_behind(prefix: str | os.PathLike[str]) -> list[str]:
    """Remove the temporary files of paths that begin with ``prefix`` whose process was killed; their paths."""
    if fcntl is None:
        return []
    folder, name = os.path.split(os.fspath(prefix))
    removed = []
    for path in sorted(glob.glob(os.path.join(glob.escape(folder or "."), f".{glob.escape(name)}*.tmp"))):
        with contextlib.suppress(OSError), open(path, "rb") as stream:  # gone meanwhile, or locked: being written
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)
            removed.append(path)
    return removed


def _lock(handle: int) -> None:
    if fcntl is not None:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _sync_folder(folder: str) -> None:
    """Make the new name itself survive a power cut, where the platform can do that."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
