"""docs/lenet_digits.ipynb: it runs from its first cell to its last, learns, and is stored with what it shows."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "docs" / "lenet_digits.ipynb"
LOCAL = re.compile(r"(?<![\w.])/(home|root|tmp|work|Users|usr|private|var)/|[A-Z]:\\\\|site-packages|ipykernel_")


@pytest.fixture(scope="module")
def stored() -> Any:
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def run_notebook() -> Any:
    """docs/run_notebook.py as a module."""
    spec = importlib.util.spec_from_file_location("run_notebook", ROOT / "docs" / "run_notebook.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def printed(notebook: Any) -> str:
    """All that its cells print."""
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    return "".join("".join(output["text"]) for output in outputs if output["output_type"] == "stream")


def accuracy(notebook: Any) -> float:
    found = re.search(r"^test accuracy (\S+)$", printed(notebook), re.MULTILINE)
    assert found, printed(notebook)
    return float(found[1])


def test_every_cell_runs_and_nothing_is_left(
    run_notebook: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cell that fails raises here; files go into a temporary folder that is gone at the end."""
    pytest.importorskip("nbclient", reason="nbclient is missing: pip install 'caffe-lite[test]'")
    nbformat = pytest.importorskip("nbformat", reason="nbformat is missing: pip install 'caffe-lite[test]'")
    pytest.importorskip("ipykernel", reason="ipykernel is missing: pip install 'caffe-lite[test]'")
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "jupyter"))  # neither the kernels nor the settings of who runs the test
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    work, temporary = tmp_path / "work", tmp_path / "temporary"
    for folder in (work, temporary):
        folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell("print('ran', caffe.__file__, 'in', os.getcwd())"))
    run_notebook.execute(notebook, work)

    assert f"ran {ROOT / 'caffe_lite' / '__init__.py'} in {work}\n" in printed(notebook)
    assert "going on from iteration 210\n" in printed(notebook)
    assert accuracy(notebook) > 0.95
    assert [*work.iterdir(), *temporary.iterdir()] == []


def test_it_is_stored_as_one_run_showed_it(stored: Any) -> None:
    code = [cell for cell in stored["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert "error" not in {output["output_type"] for cell in code for output in cell["outputs"]}
    shown = [kind for cell in code for output in cell["outputs"] for kind in output.get("data", {})]
    assert sorted(shown) == ["image/png"] * 4 + ["image/svg+xml"]
    assert accuracy(stored) > 0.95


def test_it_is_small_and_says_nothing_of_where_it_ran(stored: Any) -> None:
    assert NOTEBOOK.stat().st_size < 200_000
    assert all(cell["metadata"] == {} for cell in stored["cells"])
    assert stored["metadata"]["language_info"] == {"name": "python"}
    pictures = re.compile(r'"image/png": "[^"]*"')
    assert not LOCAL.search(pictures.sub("", json.dumps(stored)))


def test_what_differs_from_run_to_run_is_removed(run_notebook: Any) -> None:
    """Times and versions go; of what a picture and a text show, the text goes; what only a text shows stays."""
    nbformat = pytest.importorskip("nbformat", reason="nbformat is missing: pip install 'caffe-lite[test]'")
    new_output, new_cell = nbformat.v4.new_output, nbformat.v4.new_code_cell
    picture = new_output("display_data", {"image/png": "iVBO", "text/plain": "<Figure size 700x100>"})
    number = new_output("execute_result", {"text/plain": "3"}, execution_count=1)
    cell = new_cell("f()", outputs=[picture, number], execution_count=1, metadata={"execution": {"started": "10:00"}})
    kernel = {"name": "python3", "display_name": "Python 3"}
    notebook = nbformat.v4.new_notebook(
        cells=[cell, nbformat.v4.new_markdown_cell("text")],
        metadata={"kernelspec": kernel, "language_info": {"name": "python", "version": "3.11.7"}},
    )
    run_notebook.clean(notebook)
    assert notebook.metadata == {"kernelspec": kernel, "language_info": {"name": "python"}}
    assert cell.metadata == {}
    assert [output.data for output in cell.outputs] == [{"image/png": "iVBO"}, {"text/plain": "3"}]


def test_its_links_lead_to_pages(stored: Any) -> None:
    text = "".join(line for cell in stored["cells"] if cell["cell_type"] == "markdown" for line in cell["source"])
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert targets
    assert [target for target in targets if not (NOTEBOOK.parent / target).is_file()] == []
