"""Importing the package: what it loads, and that it works where nothing can be written."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

WAITING = ("OMP_WAIT_POLICY", "OPENBLAS_THREAD_TIMEOUT")
ROOT = Path(__file__).resolve().parent.parent


def run(code: str, **environment: str) -> str:
    inherited = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", *WAITING)}
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=environment.get("PYTHONPATH", ROOT),
        env={**inherited, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return result.stdout.strip()


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = "numba", "cv2", "scipy", "matplotlib", "cupy", "h5py", "yaml"
    assert run(f"import sys, caffe_lite; print([m for m in {heavy} if m in sys.modules])") == "[]"


def test_a_writable_place_is_found_for_compiled_kernels(tmp_path: Path) -> None:
    code = """
import os
from caffe_lite import numba_setup
numba_setup._writable = lambda folder: False
numba_setup._ensure_cache()
print(os.environ["NUMBA_CACHE_DIR"], oct(os.stat(os.environ["NUMBA_CACHE_DIR"]).st_mode & 0o777))
"""
    folder, mode = run(code, TMPDIR=str(tmp_path)).split()
    assert Path(folder).parent == tmp_path and mode == "0o700"


def test_an_ordinary_installation_keeps_numbas_own_place() -> None:
    assert run("import os, caffe_lite; print(os.environ.get('NUMBA_CACHE_DIR'))") == "None"


@pytest.mark.parametrize(("variable", "ours"), [("OMP_WAIT_POLICY", "passive"), ("OPENBLAS_THREAD_TIMEOUT", "14")])
def test_threads_that_wait_sleep_unless_the_user_says_otherwise(variable: str, ours: str) -> None:
    code = f"import os, caffe_lite; print(os.environ[{variable!r}])"
    assert run(code) == ours and run(code, **{variable: "20"}) == "20"


HELPER = "import numba\nFACTOR = 2\n@numba.njit\ndef times(x):\n    return FACTOR * x\n"
KERNEL = """
import numba
from caffe_lite.times import times
@numba.njit(cache=True)
def kernel(x):
    return times(x) + 1
"""
CALL = "from caffe_lite.kernel import kernel; print(kernel(3), sum(kernel.stats.cache_hits.values()))"


@pytest.fixture
def copy(tmp_path: Path) -> dict[str, str]:
    """The environment that imports a copy of the package with a kernel built from two files."""
    package = tmp_path / "caffe_lite"
    shutil.copytree(ROOT / "caffe_lite", package, ignore=shutil.ignore_patterns("__pycache__", "fast_rcnn", "models"))
    (package / "times.py").write_text(HELPER)
    (package / "kernel.py").write_text(KERNEL)
    return {"PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}


def test_a_kernel_is_compiled_anew_when_a_file_that_it_is_built_from_changes(copy: dict[str, str]) -> None:
    package = Path(copy["PYTHONPATH"]) / "caffe_lite"
    assert run(CALL, **copy) == "7 0"
    assert run(CALL, **copy) == "7 1"
    (package / "times.py").write_text(HELPER.replace("2", "5"))
    assert run(CALL, **copy) == "16 0"
    (package / "unrelated.py").write_text("import numba\n")
    assert run(CALL, **copy) == "16 1"


def test_compiling_is_said_once_if_it_takes_long(copy: dict[str, str]) -> None:
    code = f"""
import logging, sys
logging.basicConfig(stream=sys.stdout, format="%(message)s")
from caffe_lite import kernel_cache
kernel_cache.PATIENCE = PATIENCE
{CALL}
kernel(3.5)
"""
    line = f"compiling CPU kernels, once; kept in {copy['NUMBA_CACHE_DIR']}"
    assert run(code.replace("= PATIENCE", "= 1000"), **copy) == "7 0"
    shutil.rmtree(copy["NUMBA_CACHE_DIR"])
    said = run(code.replace("= PATIENCE", "= 0"), **copy).splitlines()
    assert len(said) == 2 and said[0].startswith(line) and said[1] == "7 0"
    assert run(code.replace("= PATIENCE", "= 0"), **copy) == "7 1"  # nothing is left to compile
