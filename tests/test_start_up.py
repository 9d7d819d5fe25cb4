"""Importing the package: what it loads, and that it works where nothing can be written."""

from __future__ import annotations

import os
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
