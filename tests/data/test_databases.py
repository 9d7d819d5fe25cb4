"""LMDB and LevelDB: written and read back, shared in the process, damaged ones refused."""

from __future__ import annotations

import builtins
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from caffe_lite.data import databases
from caffe_lite.data.databases import Records, write_database
from caffe_lite.errors import DataError

VALUES = [b"one", b"two" * 5000, b"", b"four"]


def plyvel():
    return pytest.importorskip("plyvel", reason="LevelDB needs the extra leveldb")


@pytest.fixture(params=["LMDB", "LEVELDB"])
def backend(request):
    if request.param == "LEVELDB":
        plyvel()
    return request.param


def written(path, backend="LMDB", values=VALUES):
    assert write_database(str(path), ((b"%03d" % i, v) for i, v in enumerate(values)), backend) == len(values)
    return str(path)


def test_records_come_in_the_order_of_keys_and_again(tmp_path, backend):
    path = str(tmp_path / "db")
    assert (
        write_database(path, [(b"b", b"2"), (b"\xff", b"4"), (b"a", b"1"), (b"b2", b"3"), (b"a", b"0")], backend) == 5
    )
    records = Records(path, backend)
    expected = [(b"a", b"0"), (b"b", b"2"), (b"b2", b"3"), (b"\xff", b"4")]
    assert records.key == b"a"
    assert [records.read() for _ in range(9)] == (expected * 3)[:9]
    assert records.key == b"b"
    records.seek(b"\xff")
    assert records.read() == expected[3] and records.key == b"a"
    with pytest.raises(DataError, match=r"db: has no record 'ab'"):
        records.seek(b"ab")
    assert records.read() == expected[0]


def test_two_readers_of_one_database(tmp_path, backend):
    path = written(tmp_path / "db", backend)
    first, second = Records(path, backend), Records(os.path.join(path, ""), backend)
    first.read()
    assert (first.key, second.key) == (b"001", b"000")
    del first
    assert second.read() == (b"000", b"one")
    del second
    assert not databases._open, "closed with its last reader"


def test_threads_that_come_and_go(tmp_path):
    path = written(tmp_path / "db")

    def read(_):
        for _ in range(100):
            assert Records(path, "LMDB").read()[0] == b"000"

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads take turns in the middle of things
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(read, range(4)))
    finally:
        sys.setswitchinterval(interval)
    assert not databases._open


def test_a_database_larger_than_its_first_map(tmp_path, monkeypatch):
    monkeypatch.setattr(databases, "FIRST_MAP_BYTES", 1 << 16)
    monkeypatch.setattr(databases, "COMMIT_RECORDS", 7)
    values = [os.urandom(5000) for _ in range(100)]
    records = Records(written(tmp_path / "db", values=values), "LMDB")
    assert [records.read()[1] for _ in range(100)] == values


@pytest.mark.parametrize("place", ["folder", "file", "read-only folder"])
def test_where_an_lmdb_may_be(tmp_path, place):
    path = written(tmp_path / "db")
    os.remove(os.path.join(path, "lock.mdb"))
    if place == "file":
        shutil.move(os.path.join(path, "data.mdb"), tmp_path / "db.mdb")
        path = str(tmp_path / "db.mdb")
    elif place == "read-only folder":
        os.chmod(path, 0o555)
    try:
        assert Records(path, "LMDB").read() == (b"000", b"one")
    finally:
        os.chmod(path, 0o755)


def test_nothing_is_left_of_a_database_that_could_not_be_written(tmp_path, backend):
    def records():
        yield b"1", b"1"
        raise KeyError("the source broke")

    with pytest.raises(KeyError):
        write_database(str(tmp_path / "db"), records(), backend)
    assert os.listdir(tmp_path) == []
    written(tmp_path / "db", backend)
    with pytest.raises(DataError, match="db: already exists"):
        write_database(str(tmp_path / "db"), [], backend)
    with pytest.raises(DataError, match="absent/db: cannot be written: No such file"):
        write_database(str(tmp_path / "absent" / "db"), [], backend)


def test_absent_and_empty(tmp_path, backend):
    with pytest.raises(DataError, match=f"db: there is no such {backend} database"):
        Records(str(tmp_path / "db"), backend)
    with pytest.raises(DataError, match="the source is empty"):
        Records("", backend)
    with pytest.raises(DataError, match=f"db: the {backend} database holds no records"):
        Records(written(tmp_path / "db", backend, []), backend)
    with pytest.raises(DataError, match=f": not a {backend} database: expected a folder with"):
        Records(str(tmp_path), backend)


def test_the_other_backend(tmp_path):
    lmdb = written(tmp_path / "lmdb")
    with pytest.raises(DataError, match="lmdb: this is .* write backend: LMDB in data_param"):
        Records(lmdb, "LEVELDB")
    plyvel()
    with pytest.raises(DataError, match="leveldb: this is .* write backend: LEVELDB in data_param"):
        Records(written(tmp_path / "leveldb", "LEVELDB"), "LMDB")


@pytest.mark.parametrize("keep", [0, 100, 9000, -40000])
def test_an_lmdb_thatis_cut_short(tmp_path, keep):
    """Reading it would end the process with a bus error."""
    path = written(tmp_path / "db", values=[b"x" * 3000] * 50)
    file = os.path.join(path, "data.mdb")
    os.truncate(file, keep % os.path.getsize(file))
    with pytest.raises(DataError, match="cut short|not an LMDB database"):
        Records(path, "LMDB")


def test_noise(tmp_path):
    (tmp_path / "data.mdb").write_bytes(bytes(range(256)) * 64)
    with pytest.raises(DataError, match="not an LMDB database, or a damaged one"):
        Records(str(tmp_path), "LMDB")


def test_a_damaged_leveldb(tmp_path):
    plyvel()
    path = written(tmp_path / "db", "LEVELDB")
    with open(os.path.join(path, "CURRENT"), "w") as stream:
        stream.write("nonsense\n")
    with pytest.raises(DataError, match="db: the LevelDB database cannot be opened"):
        Records(path, "LEVELDB")


def test_leveldb_without_its_library_names_the_extra(tmp_path, monkeypatch):
    importer = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "plyvel":
            raise ImportError(name)
        return importer(name, *args, **kwargs)

    (tmp_path / "CURRENT").write_text("MANIFEST-000002\n")
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DataError, match=r"LevelDB needs plyvel.*pip install 'caffe-lite\[leveldb\]'"):
        Records(str(tmp_path), "LEVELDB")
