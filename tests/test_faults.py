"""Faults, done for real: kill -9, a full disk, a folder that cannot be written, files cut at any byte.

After each of them the last good snapshot loads, and what is damaged is refused by its name.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import caffe_lite
from caffe_lite import sidecar, snapshot
from caffe_lite.atomic import atomic_files, atomic_write, remove_left_behind
from caffe_lite.errors import SolverError, WeightsError
from tests.training_runs import digest, set_fields, write_case

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = Path(__file__).parent / "golden" / "solvers" / "sgd"
NOBODY = 65534


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a small training on random data, which is the working directory."""
    folder = write_case(tmp_path, "plain")
    monkeypatch.chdir(folder)
    return folder


def solver_of_case(text: str = "") -> Any:
    if text:
        set_fields(Path("solver.prototxt"), text)
    return caffe_lite.get_solver("solver.prototxt")


def left_behind() -> list[str]:
    return [name for name in os.listdir() if name.endswith(".tmp")]


# ---- kill -9


def kills(case: Path, count: int, seed: int) -> None:
    """Kill a run that snapshots after every iteration; the next goes on from what is there.

    Each says where it goes on, and the bits that it has there must be those of a run that nobody killed.
    """
    rng, seen = random.Random(seed), {0: ""}
    for _ in range(count):
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.training_runs", "forever", str(case.parent), case.name],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        words = process.stdout.readline().split()
        process.stdout.readline()
        time.sleep(rng.uniform(0, 0.2))  # an iteration and its snapshot take some hundredths
        process.kill()
        process.communicate()
        assert len(words) == 2, "it could not go on"
        assert int(words[0]) >= max(seen), "a snapshot that was complete is lost"
        seen[int(words[0])] = words[1]
        state = snapshot.latest("s")
        assert state is not None or max(seen) == 0
        solver_of_case().restore(state or solver_of_case().snapshot()[1])
    assert max(seen) > 0, "it never came to iterate"
    reference = solver_of_case()
    for iteration in range(max(seen) + 1):
        if seen.get(iteration):
            assert digest(reference) == seen[iteration], f"other bits at iteration {iteration}"
        reference.step(1)
    solver = solver_of_case()
    solver.restore(snapshot.latest("s"))
    solver.snapshot()
    assert not left_behind(), "what killed processes were writing is cleaned up"


def test_kills_at_random_moments(case: Path) -> None:
    kills(case, 8, seed=1)


@pytest.mark.soak
def test_a_hundred_kills_at_random_moments(case: Path) -> None:
    kills(case, 100, seed=2)


@pytest.mark.parametrize("named", [0, 1, 2, 3])
@pytest.mark.parametrize("rewritten", [False, True])
def test_an_end_between_two_names(case: Path, monkeypatch: pytest.MonkeyPatch, named: int, rewritten: bool) -> None:
    """Model, resume file and state get their names one after another: no state is there before all it needs.

    ``rewritten``: over a snapshot of the same iteration, but of other training, which is refused then.
    """
    solver = solver_of_case()
    _, good = solver.snapshot()
    solver.step(1)
    if rewritten:
        solver.snapshot()
        solver.history[0][...] = 7
        solver.net.learnable_params[0].data[...] = 7
    replace, left = os.replace, iter(range(named))

    def replace_some(source: str, target: str) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr("caffe_lite.atomic.os.replace", replace_some)
        solver.snapshot()
    assert os.path.exists("s_iter_1.solverstate") == (rewritten or named == 3)
    complete = named == 3 or (rewritten and named == 0)
    assert snapshot.latest("s") == ("s_iter_1.solverstate" if complete else good)
    if rewritten and not complete:
        with pytest.raises(WeightsError, match="s_iter_1"):
            snapshot.check("s_iter_1.solverstate")


def test_what_a_killed_process_left_goes_but_not_what_another_one_writes(tmp_path: Path) -> None:
    (tmp_path / ".s_iter_1.caffemodel.abc.tmp").write_bytes(b"half")
    (tmp_path / ".other_iter_1.caffemodel.abc.tmp").write_bytes(b"half")
    code = f"""
import os, sys
from caffe_lite.atomic import remove_left_behind
print([os.path.basename(p) for p in remove_left_behind({str(tmp_path / "s_iter_")!r})])
"""
    with atomic_files() as files:
        files.open(tmp_path / "s_iter_2.caffemodel").write(b"under way")
        done = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
        )
    assert done.stdout == "['.s_iter_1.caffemodel.abc.tmp']\n", done.stderr
    assert sorted(os.listdir(tmp_path)) == [".other_iter_1.caffemodel.abc.tmp", "s_iter_2.caffemodel"]
    assert remove_left_behind(tmp_path / "s_iter_") == []


# ---- a full disk


@contextlib.contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """No file can grow beyond ``size`` bytes: writing fails as on a full disk (Python ignores SIGXFSZ)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("form", ["BINARYPROTO", "HDF5"])
def test_a_disk_that_is_full_at_any_byte(case: Path, form: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)  # nothing may be written to a log file meanwhile
    solver = solver_of_case(f"snapshot_format: {form}")
    solver.step(1)
    _, good = solver.snapshot()
    before = {name: Path(name).read_bytes() for name in os.listdir() if os.path.isfile(name)}
    largest = max(os.path.getsize(name) for name in os.listdir() if "_iter_1." in name)
    solver.step(1)
    for limit in [0, 1, *range(50, largest, 331)]:
        with (
            file_size_limit(limit),
            pytest.raises(WeightsError, match="s_iter_2: the snapshot was not written: File too"),
        ):
            solver.snapshot()
        assert not left_behind()
    assert {name: Path(name).read_bytes() for name in os.listdir() if os.path.isfile(name)} == before
    assert snapshot.latest("s") == good
    solver.snapshot()
    assert snapshot.latest("s") != good


def test_training_outlives_a_full_disk(case: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A snapshot on the way that fails is an error in the log; at the end it is one for the caller."""
    solver = solver_of_case("snapshot: 1 max_iter: 4")
    solver.step(1)
    with file_size_limit(0):
        solver.step(2)
    assert solver.iter == 3 and snapshot.latest("s") == "s_iter_1.solverstate"
    failed = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert [m.split(":")[0] for m in failed] == ["Iteration 2", "Iteration 3"]
    assert "no snapshot was written, training goes on" in failed[0] and "File too large" in failed[0]
    with file_size_limit(0), pytest.raises(WeightsError, match="s_iter_4: the snapshot was not written"):
        solver.solve()


@pytest.mark.soak
def test_a_full_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case, small = write_case(tmp_path, "plain"), tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        monkeypatch.chdir(case)
        solver = solver_of_case(f'snapshot_prefix: "{small}/s"')
        good = None
        with pytest.raises(WeightsError, match="the snapshot was not written: No space left on device"):
            for _ in range(100):
                solver.step(1)
                good = solver.snapshot()[1]
        assert good is not None and snapshot.latest(small / "s") == good
        assert not [name for name in os.listdir(small) if name.endswith(".tmp")]
        snapshot.prune(small / "s", 1)
        solver.snapshot()
    finally:
        subprocess.run(["umount", str(small)], check=True)


# ---- a folder that cannot be written


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nobody may write into ``folder``; root, whom no permission binds, is somebody else meanwhile."""
    root = os.geteuid() == 0
    folder.chmod(0o555)
    if root:
        os.setresuid(NOBODY, NOBODY, 0)
    try:
        yield
    finally:
        if root:
            os.setresuid(0, 0, 0)
        folder.chmod(0o755)


def test_a_read_only_folder(case: Path) -> None:
    solver = solver_of_case()
    solver.step(1)
    _, good = solver.snapshot()
    before = sorted(os.listdir())
    solver.step(1)
    with read_only(case):
        with pytest.raises(WeightsError, match="s_iter_2: the snapshot was not written: Permission denied"):
            solver.snapshot()
        with pytest.raises(SolverError, match="cannot write snapshots to '.': no such folder, or not writable"):
            solver_of_case()
    assert sorted(os.listdir()) == before and snapshot.latest("s") == good


def test_a_folder_that_is_none(case: Path) -> None:
    Path("file").write_text("in the way")
    solver = solver_of_case("snapshot: 0")
    solver.param.snapshot_prefix = "file/s"
    with pytest.raises(WeightsError, match="file/s_iter_0: the snapshot was not written: Not a directory"):
        solver.snapshot()


def test_an_atomic_write_that_fails_leaves_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with pytest.raises(OSError), file_size_limit(10), atomic_write(path) as stream:
        stream.write(b"n" * 100)
    with pytest.raises(ZeroDivisionError), atomic_files() as files:
        files.open(path).write(b"new")
        files.open(tmp_path / "y").write(b"new")
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == ["x"] and path.read_bytes() == b"old"


# ---- files that are cut or changed


def each_cut(path: str, step: int) -> Iterator[int]:
    """Cut the file at every ``step``-th byte and at the last twenty; whole again at the end."""
    content = Path(path).read_bytes()
    try:
        for size in sorted({*range(0, len(content), step), *range(max(len(content) - 20, 0), len(content))}):
            Path(path).write_bytes(content[:size])
            yield size
    finally:
        Path(path).write_bytes(content)


@pytest.mark.parametrize("form", ["BINARYPROTO", "HDF5"])
def test_a_snapshot_cut_anywhere(case: Path, form: str) -> None:
    solver = solver_of_case(f"snapshot_format: {form}")
    solver.step(1)
    _, good = solver.snapshot()
    solver.step(1)
    model, state = solver.snapshot()
    step = 7 if form == "BINARYPROTO" else 97
    for path in (model, state, sidecar.path_of(state)):
        for size in each_cut(path, step if path != sidecar.path_of(state) else 97):
            with pytest.raises(WeightsError) as error:
                snapshot.check(state)
            assert str(error.value).startswith(f"{path}: ")
            assert re.search(
                rf"{size} bytes, \d+ were written: it is cut|damaged, or not a resume file", str(error.value)
            )
        Path(path).write_bytes(Path(path).read_bytes()[:-1])
        untouched = digest(solver)
        with pytest.raises(WeightsError):
            solver.restore(state)
        assert digest(solver) == untouched
        assert snapshot.latest("s") == good
        solver.snapshot()
    assert snapshot.latest("s") == state


def test_a_changed_byte_anywhere(case: Path) -> None:
    solver = solver_of_case()
    model, state = solver.snapshot()
    for path in (model, state):
        content = Path(path).read_bytes()
        for at in range(0, len(content), 11):
            Path(path).write_bytes(content[:at] + bytes([content[at] ^ 16]) + content[at + 1 :])
            with pytest.raises(WeightsError, match=f"^{path}: damaged, or changed since it was written"):
                snapshot.check(state)
        Path(path).write_bytes(content)
    snapshot.check(state)


@pytest.mark.parametrize("form", ["BINARYPROTO", "HDF5"])
def test_caffes_own_files_cut_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, make_hdf5: Callable[[Path], None]
) -> None:
    """No resume file vouches for them: what is not refused must have lost nothing."""
    shutil.copytree(GOLDEN, tmp_path / "sgd")
    monkeypatch.chdir(tmp_path / "sgd")
    ending = ""
    if form == "HDF5":
        ending = ".h5"
        make_hdf5(tmp_path / "sgd")
    state, model = f"ref_iter_8.solverstate{ending}", f"ref_iter_8.caffemodel{ending}"
    solver = caffe_lite.get_solver("solver.prototxt")
    solver.restore(state)
    whole, accepted = digest(solver), 0
    for path in (state, model):
        for _ in each_cut(path, 53 if form == "HDF5" else 3):
            try:
                solver.restore(state)
            except WeightsError as error:
                assert str(error).startswith(f"{path}: ")
            else:
                assert digest(solver) == whole
                accepted += 1
            solver.iter = -1
    assert accepted <= 1, "only layers without parameters may be missing at the end"


@pytest.fixture
def make_hdf5() -> Callable[[Path], None]:
    """Turn the recorded snapshot into HDF5 files, without a resume file."""

    def make(folder: Path) -> None:
        solver = caffe_lite.get_solver("solver.prototxt")
        solver.restore("ref_iter_8.solverstate")
        solver.param.snapshot_format = 0
        solver.snapshot()
        os.unlink("ref_iter_8.solverstate.h5.resume.npz")

    return make
