"""LMDB and LevelDB: the databases of Datum messages that Caffe's tools write and its Data layer reads.

Records come in the order of their keys, byte by byte, and begin again after the last. Neither library
lets one process open a database twice, so nets that read the same one share it here. LevelDB needs
the extra ``leveldb`` (plyvel).

LMDB maps the file into memory: reading past the end of one that is cut short would kill the process
with a bus error, so its size is checked when it is opened.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from caffe_lite.errors import DataError

BACKENDS = ("LEVELDB", "LMDB")  # by the number of DataParameter.DB
COMMIT_RECORDS, COMMIT_BYTES = 1000, 64 << 20  # records are committed when either is reached
FIRST_MAP_BYTES = 64 << 20  # of an LMDB being written, doubled when full
SPARE_PAGES = 16  # at the end of an LMDB that may have been allocated without ever being written


class Records:
    """The records of the database at ``path``, over and over. For one thread at a time.

    Raises:
        DataError: there is none, it is empty, damaged, or of the other backend, or a library is missing.
    """

    def __init__(self, path: str, backend: str) -> None:
        self.path = path
        self._cursor = (_LmdbCursor if backend == "LMDB" else _LevelDbCursor)(path)
        with self._reading():
            if not self._cursor.first():
                raise DataError(f"{path}: the {backend} database holds no records")

    @property
    def key(self) -> bytes:
        """Of the record that ``read`` returns next."""
        with self._reading():
            return self._cursor.key()

    def read(self) -> tuple[bytes, bytes]:
        """(key, value) of the next record."""
        with self._reading():
            item = self._cursor.key(), self._cursor.value()
            if not self._cursor.next():
                self._cursor.first()
            return item

    def seek(self, key: bytes) -> None:
        """Let ``read`` go on with the record of ``key``; DataError if there is none, and nothing changes."""
        with self._reading():
            before = self._cursor.key()
            if not self._cursor.seek(key):
                self._cursor.seek(before)
                raise DataError(f"{self.path}: has no record {show_key(key)}")

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except self._cursor.errors as error:
            raise DataError(f"{self.path}: the database is damaged: {error}") from error


def show_key(key: bytes) -> str:
    """A record's key for a message."""
    return repr(key.decode("utf-8", "backslashreplace"))


def write_database(path: str, records: Iterable[tuple[bytes, bytes]], backend: str = "LMDB") -> int:
    """Write (key, value) records as a new database, which is there whole or not at all; how many.

    ``records`` may be in any order and of any number; of two with one key the later stays.

    Raises:
        DataError: something is at ``path`` already, it cannot be written, or a library is missing.
    """
    if backend not in BACKENDS:
        raise DataError(f"{path}: a database is one of {', '.join(BACKENDS)}, not {backend!r}")
    if os.path.lexists(path):
        raise DataError(f"{path}: already exists: remove it first, or choose another name")
    write = _write_lmdb if backend == "LMDB" else _write_leveldb
    folder = os.path.dirname(os.path.abspath(path))
    temporary = ""
    try:
        temporary = tempfile.mkdtemp(prefix=f".{os.path.basename(path)}.", suffix=".tmp", dir=folder)
        count = write(temporary, _chunks(records))
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o777 & ~umask)  # mkdtemp gives 0700
        os.rename(temporary, path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        if temporary:
            shutil.rmtree(temporary, ignore_errors=True)
    return count


def _chunks(records: Iterable[tuple[bytes, bytes]]) -> Iterator[list[tuple[bytes, bytes]]]:
    chunk: list[tuple[bytes, bytes]] = []
    size = 0
    for key, value in records:
        chunk.append((key, value))
        size += len(value)
        if len(chunk) == COMMIT_RECORDS or size >= COMMIT_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


# ---- opening


Key = tuple[str, int]


class _Database:
    """An open database and how many read it."""

    def __init__(self, handle: Any) -> None:
        self.handle, self.readers = handle, 0


class _Reader:
    """One of those who read the database of ``key``, which is closed with its last reader."""

    def __init__(self, key: Key, database: _Database) -> None:
        self.handle = database.handle
        weakref.finalize(self, _release, key, database).atexit = False


_open: dict[Key, _Database] = {}
_open_lock = threading.RLock()  # garbage may be collected, and with it a database closed, while it is held


def _opened(path: str, opener: Callable[[str], Any]) -> _Reader:
    """LMDB and LevelDB refuse to open what the process has open, so a database is closed under the lock, too."""
    key = (os.path.realpath(path), os.getpid())  # a forked process must not use its parent's
    with _open_lock:
        while True:
            database = _open.get(key)
            if database is None:
                _open[key] = database = _Database(opener(path))
            database.readers += 1
            if _open.get(key) is database:  # and was not closed before it was counted
                return _Reader(key, database)


def _release(key: Key, database: _Database) -> None:
    with _open_lock:
        database.readers -= 1
        if not database.readers:
            del _open[key]
            database.handle.close()


def _check_place(path: str, backend: str) -> None:
    """Is there something at ``path`` that may be a database of ``backend``?"""
    if not path:
        raise DataError("the source is empty: give data_param { source: ... } the folder of a database")
    if not os.path.exists(path):
        raise DataError(f"{path}: there is no such {backend} database")
    found = "LMDB" if _is_lmdb(path) else "LEVELDB" if os.path.exists(os.path.join(path, "CURRENT")) else ""
    if found != backend:
        if not found:
            raise DataError(f"{path}: not a {backend} database: {_EXPECTED[backend]}")
        raise DataError(f"{path}: this is a database of the other kind: write backend: {found} in data_param")


_EXPECTED = {"LMDB": "expected a folder with a data.mdb", "LEVELDB": "expected a folder with a file CURRENT"}


def _is_lmdb(path: str) -> bool:
    return os.path.isfile(path) or os.path.isfile(os.path.join(path, "data.mdb"))


# ---- LMDB


class _LmdbCursor:
    def __init__(self, path: str) -> None:
        import lmdb

        self.errors: tuple[type[Exception], ...] = (lmdb.Error,)
        _check_place(path, "LMDB")
        self._opened = _opened(path, _open_lmdb)
        try:
            self._transaction = self._opened.handle.begin()
        except lmdb.Error as error:
            raise DataError(f"{path}: the LMDB database cannot be read: {error}") from error
        self._cursor = self._transaction.cursor()
        self.first, self.next, self.seek = self._cursor.first, self._cursor.next, self._cursor.set_key
        self.key, self.value = self._cursor.key, self._cursor.value


def _open_lmdb(path: str) -> Any:
    import lmdb

    options = {"readonly": True, "subdir": os.path.isdir(path), "create": False}
    try:
        try:
            environment = lmdb.open(path, **options)
        except lmdb.Error:
            environment = lmdb.open(path, lock=False, **options)  # perhaps no lock file can be made beside it
    except lmdb.Error as error:
        raise DataError(f"{path}: not an LMDB database, or a damaged one: {error}") from error
    try:
        _check_whole(path, environment)
    except BaseException:
        environment.close()
        raise
    return environment


def _check_whole(path: str, environment: Any) -> None:
    statistics, last_page = environment.stat(), environment.info()["last_pgno"]
    used = 2 + sum(statistics[kind] for kind in ("branch_pages", "leaf_pages", "overflow_pages"))
    file = os.path.join(path, "data.mdb") if os.path.isdir(path) else path
    size = os.path.getsize(file)
    if size < max(used, last_page + 1 - SPARE_PAGES) * statistics["psize"]:
        raise DataError(
            f"{file}: the database is cut short: {size} bytes, expected {(last_page + 1) * statistics['psize']}; "
            "copy it again"
        )


def _write_lmdb(folder: str, chunks: Iterable[list[tuple[bytes, bytes]]]) -> int:
    import lmdb

    count, map_size = 0, FIRST_MAP_BYTES
    try:
        with lmdb.open(folder, map_size=map_size) as environment:
            for chunk in chunks:
                while True:
                    try:
                        with environment.begin(write=True) as transaction:
                            for key, value in chunk:
                                transaction.put(key, value)
                        break
                    except lmdb.MapFullError:
                        map_size *= 2
                        environment.set_mapsize(map_size)
                count += len(chunk)
    except lmdb.Error as error:
        raise DataError(f"the LMDB database cannot be written: {error}") from error
    return count


# ---- LevelDB


def _plyvel(path: str) -> Any:
    try:
        import plyvel
    except ImportError as error:
        raise DataError(
            f"{path}: LevelDB needs plyvel, which is not installed: pip install 'caffe-lite[leveldb]', or convert the "
            "database to LMDB and write backend: LMDB in data_param"
        ) from error
    return plyvel


class _LevelDbCursor:
    def __init__(self, path: str) -> None:
        _check_place(path, "LEVELDB")
        plyvel = _plyvel(path)
        self.errors: tuple[type[Exception], ...] = (plyvel.Error,)
        self._opened = _opened(path, _open_leveldb)
        self._cursor = self._opened.handle.raw_iterator(verify_checksums=True)
        self.key, self.value = self._cursor.key, self._cursor.value

    def first(self) -> bool:
        self._cursor.seek_to_first()
        return self._cursor.valid()

    def next(self) -> bool:
        self._cursor.next()
        return self._cursor.valid()

    def seek(self, key: bytes) -> bool:
        self._cursor.seek(key)
        return self._cursor.valid() and self._cursor.key() == key


def _open_leveldb(path: str) -> Any:
    plyvel = _plyvel(path)
    try:
        return plyvel.DB(path, create_if_missing=False)
    except plyvel.Error as error:
        raise DataError(
            f"{path}: the LevelDB database cannot be opened: {error} (one process at a time can have it open)"
        ) from error


def _write_leveldb(folder: str, chunks: Iterable[list[tuple[bytes, bytes]]]) -> int:
    plyvel = _plyvel(folder)
    count = 0
    try:
        with contextlib.closing(plyvel.DB(folder, create_if_missing=True)) as database:
            for chunk in chunks:
                with database.write_batch() as batch:
                    for key, value in chunk:
                        batch.put(key, value)
                count += len(chunk)
    except plyvel.Error as error:
        raise DataError(f"the LevelDB database cannot be written: {error}") from error
    return count
