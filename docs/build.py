"""Build the site: the tutorials of this folder, and the reference of every public module from its docstrings.

    python docs/build.py [OUT]        default: build/docs; needs the extra: pip install 'caffe-lite[docs]'

pdoc shows modules, so each tutorial becomes the docstring of a module of a package ``tutorials`` that exists while
the site is made; a notebook is shown with the outputs that it is stored with. A link to another page (``train.md``)
is made one to its module's page.
"""

from __future__ import annotations

import base64
import json
import pkgutil
import re
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import caffe_lite

FOLDER = Path(__file__).resolve().parent
PAGES = ("run", "train", "layers", "fast_rcnn", "paper", "weights", "gpu", "scripts")  # in this order
NOTEBOOKS = ("lenet_digits",)
HIDDEN = ("caffe_lite.commands", "caffe_lite.fast_rcnn.commands", "caffe_lite.__main__")  # see COMMAND --help
LINK = re.compile(r"\]\((\w+)\.(?:md|ipynb)(#[\w-]+)?\)")


def public_modules() -> list[str]:
    """Every module of caffe_lite whose name has no underscore in front, but for the commands."""
    found = (module.name for module in pkgutil.walk_packages(caffe_lite.__path__, "caffe_lite."))
    shown = (name for name in found if not name.startswith(HIDDEN) and "._" not in name)
    return ["caffe_lite", *sorted(shown)]


def write_tutorials(package: Path) -> list[str]:
    """Make ``package``, a module for each page; their names."""
    package.mkdir()
    (package / "__init__.py").write_text(_module(FOLDER / "index.md", "tutorials/"), encoding="utf-8")
    for page in (*(FOLDER / f"{name}.md" for name in PAGES), *(FOLDER / f"{name}.ipynb" for name in NOTEBOOKS)):
        (package / f"{page.stem}.py").write_text(_module(page, ""), encoding="utf-8")
    return ["tutorials", *(f"tutorials.{name}" for name in (*PAGES, *NOTEBOOKS))]


def _module(page: Path, prefix: str) -> str:
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".ipynb":
        text = notebook_text(json.loads(text))
    text = LINK.sub(rf"]({prefix}\1.html\2)", text)
    return f"{text!r}\n\n__all__: list[str] = []\n"  # the first literal of a module is its docstring


def notebook_text(notebook: Any) -> str:
    """A notebook (its JSON) as Markdown: texts, blocks of code, what they printed, their pictures as data URIs."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        parts.extend(_output_text(output) for output in cell.get("outputs", []))
    return "\n\n".join(parts) + "\n"


def _output_text(output: Any) -> str:
    if output["output_type"] == "stream":
        return f"```text\n{''.join(output['text']).rstrip()}\n```"
    data = {kind: "".join(content) for kind, content in output["data"].items()}
    if "image/svg+xml" in data:
        return f"![](data:image/svg+xml;base64,{base64.b64encode(data['image/svg+xml'].encode()).decode()})"
    return f"![](data:image/png;base64,{''.join(data['image/png'].split())})"


def build(out: Path) -> None:
    """Write the site to the folder ``out``."""
    import pdoc

    pdoc.render.configure(
        docformat="google",
        footer_text=f"caffe_lite {caffe_lite.__version__}",
        show_source=False,
    )
    # pdoc does not find the names of annotations in what NamedTuple generates, and shows them as they are written
    warnings.filterwarnings("ignore", "Error parsing type annotation", UserWarning)
    # of packages with __all__ pdoc shows what that names only, so each module is named here, some twice
    warnings.filterwarnings("ignore", "The module specification", UserWarning)
    with tempfile.TemporaryDirectory() as folder:
        sys.path.insert(0, folder)
        try:
            modules = [*write_tutorials(Path(folder) / "tutorials"), *public_modules()]
            pdoc.pdoc(*modules, output_directory=out)
        finally:
            sys.path.remove(folder)


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "build/docs")
    build(target)
    print(f"wrote {target / 'index.html'}")
