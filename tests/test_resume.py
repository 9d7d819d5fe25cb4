"""N + M iterations equal N, a stop, and M in a fresh process: parameters, history and displayed lines, to the bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.training_runs import CASES, END, STOP, write_case

ROOT = Path(__file__).resolve().parent.parent


def in_a_process(mode: str, folder: Path, *cases: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.training_runs", mode, str(folder), *cases],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """All cases: run through in one process, resumed in another one, in another order."""
    folder = tmp_path_factory.mktemp("runs")
    for name in CASES:
        write_case(folder, name)
    return in_a_process("straight", folder, *CASES), in_a_process("resume", folder, *reversed(CASES))


@pytest.mark.parametrize("case", CASES)
def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(results: Any, case: str) -> None:
    straight, resumed = results[0][case], results[1][case]
    assert resumed["lines"] == straight["lines"]
    assert sum(line.startswith("Iteration") and "loss" in line for line in straight["lines"]) >= END - STOP
    assert resumed["hash"] == straight["hash"]
