"""Files are data: nothing that can run what a file says is used anywhere in the package."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("caffe_lite", "layers", "solvers", "data", "models")
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "shelve", "marshal", "joblib", "dbm"}
CALLS = {"eval", "exec", "compile", "__import__"}


def sources() -> list[Path]:
    found = [
        path for room in ROOMS for path in (ROOT / room).rglob("*.py") if not path.is_relative_to(ROOT / room / room)
    ]
    return sorted({path.resolve() for path in found})


def dangers(source: str) -> Iterator[str]:
    """What in a module's source could run the content of a file, with its line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (f"{node.lineno}: import {a.name}" for a in node.names if a.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            yield f"{node.lineno}: from {node.module}"
        elif isinstance(node, ast.Call):
            yield from (f"{node.lineno}: {what}" for what in _dangerous_call(node))


def _dangerous_call(call: ast.Call) -> Iterator[str]:
    name = ast.unparse(call.func)
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    if name in CALLS:
        yield name
    if name in ("np.load", "numpy.load") and given.get("allow_pickle") != "False":
        yield f"{name} without allow_pickle=False"
    if given.get("allow_pickle", "False") != "False":
        yield f"{name} with allow_pickle"
    if name == "torch.load" and given.get("weights_only") != "True":
        yield "torch.load without weights_only=True"
    if name.startswith("yaml.") and name.split(".")[-1] in ("load", "load_all", "unsafe_load", "full_load"):
        yield name


def test_no_module_can_run_what_a_file_says():
    found = [f"{path.relative_to(ROOT)}:{what}" for path in sources() for what in dangers(path.read_text("utf-8"))]
    assert found == []
    assert len(sources()) > 100


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "def f():\n import shelve as s",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "np.save(path, x, allow_pickle=True)",
        "yaml.load(text)",
        "eval(text)",
        "torch.load(path)",
    ],
)
def test_this_test_sees(source):
    assert list(dangers(source))


def test_this_test_sees_no_ghosts():
    assert not list(
        dangers("import json\nnp.load(p, allow_pickle=False)\nyaml.safe_load(t)\nre.compile('x')\nnet.eval()")
    )
