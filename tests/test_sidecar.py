"""The resume file: what is put into it comes back; what is damaged, foreign or cannot be kept is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe_lite import sidecar
from caffe_lite.errors import SolverError, WeightsError

LEAVES = (
    st.none() | st.booleans() | st.integers(-(2**130), 2**130) | st.floats(allow_nan=False) | st.text(max_size=5)
    | st.sampled_from([np.arange(3), np.zeros((2, 0), "f4"), np.array(1.5), np.array(["a", "b"])])
)  # fmt: skip
TREES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)
KEYS = {"files": 1, "solver": 1, "random": 1, "train": 1, "test": 1}


def same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@given(TREES)
@settings(derandomize=True, deadline=None, max_examples=60)
def test_what_a_resume_file_keeps_comes_back(tmp_path_factory: pytest.TempPathFactory, tree: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "x.resume.npz"
    path.write_bytes(sidecar.encode({"tree": tree, **KEYS}))
    assert same(sidecar.read(path)["tree"], tree)
    assert path.read_bytes() == sidecar.encode({"tree": tree, **KEYS})


@given(st.data())
@settings(derandomize=True, deadline=None, max_examples=150)
def test_a_resume_file_with_a_changed_byte_is_refused_or_says_the_same(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    tree = {"a": [1, np.arange(40)], **KEYS}
    content = bytearray(sidecar.encode(tree))
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.getbasetemp() / "changed.resume.npz"
    path.write_bytes(content)
    try:
        assert same(sidecar.read(path)["a"], tree["a"])
    except WeightsError as error:
        assert str(error).startswith(f"{path}: ")


@pytest.mark.parametrize("bad", [object(), {1: 2}, np.array([object()]), {"__array__": 0}, b"bytes", {1, 2}])
def test_what_cannot_be_kept_is_named(bad: Any) -> None:
    with pytest.raises(SolverError, match=r"train\.own\[1\] holds .* which cannot be kept"):
        sidecar.encode({"train": {"own": [0, bad]}})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged, or not a resume file"),
        (b"no zip", "damaged, or not a resume file"),
        (sidecar.encode({"files": 1}), "it has no solver, random, train, test; delete it to resume as Caffe does"),
        (sidecar.encode({**KEYS, "format": "x"}), "it says that it is 'x'"),
        (sidecar.encode({**KEYS, "version": 2}), "of version 2, this caffe_lite reads up to 1"),
    ],
)
def test_foreign_resume_files(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        sidecar.read(tmp_path / "x.npz")


def test_nothing_that_is_loaded_runs_code(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", content=np.array([object()], dtype=object))
    with pytest.raises(WeightsError, match="allow_pickle=False"):
        sidecar.read(tmp_path / "x.npz")
