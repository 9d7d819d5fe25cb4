"""What numba and BLAS must be told before they are loaded: where compiled kernels go, and how threads wait.

numba writes beside the source file or into the user's cache folder. Where neither can be written (a
read-only image, an account without a home) importing a cached kernel fails; a folder in the
temporary directory then serves, owned by this user alone, since what lies in it is run.

Its OpenMP threads spin for a while after each parallel loop, in case another one comes. LeNet's step gains a tenth
by that on an idle machine, but where anything else wants the processors it loses far more (a step of 13 ms took 190).
OMP_WAIT_POLICY=passive makes them sleep. OpenBLAS's threads spin in the same way after a product (2^26 cycles), in a
user's code if not in the kernels here; OPENBLAS_THREAD_TIMEOUT=14 makes them sleep after 2^14.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from caffe_lite import kernel_cache


def _writable(folder: Path) -> bool:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return os.access(folder, os.W_OK | os.X_OK)


def prepare() -> None:
    """Set the environment, in which what the user has set stays, and have numba extended once it is imported.

    Must run before numba and NumPy are imported.
    """
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "14")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    _ensure_cache()
    kernel_cache.install()


def _ensure_cache() -> None:
    """Set NUMBA_CACHE_DIR if numba could not cache otherwise."""
    if os.environ.get("NUMBA_CACHE_DIR"):
        return
    package = Path(__file__).resolve().parent
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    if _writable(package / "__pycache__") or _writable(cache / "numba"):
        return
    user = os.getuid() if hasattr(os, "getuid") else "user"
    folder = Path(tempfile.gettempdir()) / f"caffe_lite-numba-{user}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if hasattr(os, "getuid") and (folder.stat().st_uid != os.getuid() or folder.stat().st_mode & 0o077):
        folder = Path(tempfile.mkdtemp(prefix="caffe_lite-numba-"))
    os.environ["NUMBA_CACHE_DIR"] = str(folder)
