"""Small files of experiments: JSON, prototxt, and names by content."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

from caffe_lite import prototxt
from caffe_lite.atomic import atomic_write


def write_text(path: str, text: str) -> None:
    """Write a file, whole or not at all."""
    with atomic_write(path, "w") as stream:
        stream.write(text)


def write_json(path: str, content: Any) -> None:
    """Write ``content``, whole or not at all; numbers must be finite."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: str) -> Any:
    """The content, or None if there is no such file."""
    try:
        with open(path, encoding="utf-8") as stream:
            return json.load(stream)
    except FileNotFoundError:
        return None


def write_solver(param: Any, net: Any, folder: str) -> str:
    """Write train.prototxt and the solver.prototxt that trains it into ``folder``; the latter's path."""
    train, solver = os.path.join(folder, "train.prototxt"), os.path.join(folder, "solver.prototxt")
    param.ClearField("net")
    param.train_net = train
    write_text(train, prototxt.write(net))
    write_text(solver, prototxt.write(param))
    return solver


def hash_of(content: Any) -> str:
    """12 hexadecimal digits of what JSON can say."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
