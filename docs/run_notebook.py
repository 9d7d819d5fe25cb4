"""Run a notebook of this folder and store it with what it shows; needs the extra: pip install 'caffe-lite[test]'

    python docs/run_notebook.py docs/lenet_digits.ipynb

It runs in an empty folder. Times, versions and texts that stand for pictures are not stored, so that a notebook
changes only where its cells or what they show change.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from caffe_lite.atomic import atomic_write

PICTURES = {"image/png", "image/svg+xml"}


def execute(notebook: Any, folder: Path) -> None:
    """Run all cells, in place, by a new kernel whose working directory is ``folder``.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    from nbclient import NotebookClient

    where = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, kernel_name="python3", timeout=120, coalesce_streams=True, resources=where).execute()


def clean(notebook: Any) -> None:
    """Remove, in place, what differs from run to run or from machine to machine."""
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        cell.metadata.clear()
        for output in cell.get("outputs", []):
            if PICTURES & set(output.get("data", {})):
                output.data.pop("text/plain", None)


def main(path: Path) -> None:
    """Run the notebook ``path`` and write it back, whole or not at all."""
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        execute(notebook, Path(folder))
    clean(notebook)
    nbformat.validate(notebook)
    with atomic_write(path) as stream:
        stream.write(f"{nbformat.writes(notebook)}\n".encode())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
