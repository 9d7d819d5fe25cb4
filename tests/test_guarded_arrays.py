"""No vector kernel of the CPU reads or writes beyond its arrays, whatever the shapes; see tests/guarded_arrays.py."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="guards memory with Linux's mprotect")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("at_the_end, offset", [(True, 4), (False, -4)])
def test_a_read_beyond_an_array_ends_the_process(at_the_end, offset):
    code = (
        "import ctypes; from tests.guarded_arrays import guarded;"
        f"ctypes.string_at(guarded((1,), at_the_end={at_the_end}).ctypes.data + {offset}, 1)"
    )
    assert run("-c", code).returncode == -signal.SIGSEGV


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.soak)])
def test_every_kernel_stays_within_its_arrays(seed):
    calls = 8000 if seed else 300
    done = run("-m", "tests.guarded_arrays", str(calls), str(seed))
    assert done.returncode == 0, f"{done.stdout[-300:]}\n{done.stderr[-2000:]}"
    assert done.stdout.endswith(f"{calls} calls\n")
