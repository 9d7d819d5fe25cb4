"""The tutorials: every block of code on every page runs as it stands, and links lead somewhere.

A page's blocks run in their order, in one empty folder: ``python`` in one namespace, ``sh`` by bash, which
stops at the first command that fails. A block that begins with ``# NAME`` is a file of that name.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from caffe_lite.data.config import preserved_cfg

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(page.stem for page in DOCS.glob("*.md"))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (\S+\.\w+)\n")
COMMANDS = textwrap.dedent(f"""\
    set -eo pipefail
    python() {{ "{sys.executable}" "$@"; }}
    caffe-lite() {{ python -m caffe_lite.cli "$@"; }}
    fast-rcnn() {{ python -m caffe_lite.fast_rcnn.cli "$@"; }}
    """)


@pytest.mark.parametrize("page", PAGES)
def test_every_block_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("caffe", "softplus"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    finders = list(sys.meta_path)
    names: dict[str, object] = {"__name__": "__main__"}
    with preserved_cfg():
        for kind, text in BLOCK.findall((DOCS / f"{page}.md").read_text()):
            if file := FILE.match(text):
                (tmp_path / file[1]).write_text(text)
            elif kind == "python":
                exec(compile(text, f"{page}.md", "exec"), names)
            elif kind == "sh":
                run_shell(text, tmp_path)
            else:
                pytest.fail(f"{page}.md: a block of kind {kind!r} that is no file is not tested:\n{text}")
    sys.meta_path[:] = finders  # scripts.md installs caffe
    for name in [name for name in sys.modules if name.partition(".")[0] == "caffe"]:
        del sys.modules[name]


def run_shell(text: str, folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", COMMANDS + text], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, f"{text}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_pages(page: str) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", (DOCS / f"{page}.md").read_text()):
        assert (DOCS / target).is_file(), f"{page}.md: {target}"


def test_the_site_has_every_page() -> None:
    """docs/build.py names each page, once, and its links point to what it writes."""
    build = _build_script()
    assert sorted((*build.PAGES, "index")) == PAGES
    assert sorted(build.NOTEBOOKS) == sorted(page.stem for page in DOCS.glob("*.ipynb"))
    for page in DOCS.glob("*.md"):
        shown = ast.get_docstring(ast.parse(build._module(page, "")), clean=False)
        assert shown == build.LINK.sub(r"](\1.html\2)", page.read_text())
    assert build.LINK.sub(r"](\1.html\2)", "see [Train](train.md#resume), [x](y.png)") == (
        "see [Train](train.html#resume), [x](y.png)"
    )
    assert build.LINK.sub(r"](\1.html\2)", "[LeNet](lenet_digits.ipynb)") == "[LeNet](lenet_digits.html)"


def test_the_site_shows_a_notebook_with_its_outputs() -> None:
    outputs = [
        {"output_type": "stream", "name": "stdout", "text": ["0.97\n", "0.98\n"]},
        {"output_type": "display_data", "data": {"image/png": "iVBO\nRw0K\n"}, "metadata": {}},
        {"output_type": "execute_result", "data": {"image/svg+xml": ["<svg/>"]}, "metadata": {}},
    ]
    cells = [
        {"cell_type": "markdown", "source": ["# LeNet\n", "Small."]},
        {"cell_type": "code", "source": ["print(x)\n", "net"], "outputs": outputs},
    ]
    assert _build_script().notebook_text({"cells": cells}) == (
        "# LeNet\nSmall.\n\n"
        "```python\nprint(x)\nnet\n```\n\n"
        "```text\n0.97\n0.98\n```\n\n"
        "![](data:image/png;base64,iVBORw0K)\n\n"
        "![](data:image/svg+xml;base64,PHN2Zy8+)\n"
    )


def test_the_reference_has_the_public_modules_alone() -> None:
    modules = _build_script().public_modules()
    assert {"caffe_lite", "caffe_lite.net", "caffe_lite.layers.convolution", "caffe_lite.data.nms"} <= set(modules)
    assert not [name for name in modules if "commands" in name or "._" in name]


def _build_script():
    spec = importlib.util.spec_from_file_location("docs_build", DOCS / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
