"""What numba's cache of compiled kernels lacks: it knows one file of a kernel, and it is silent.

numba takes a kernel from the disk if the file where the kernel stands has not changed. A kernel that
is built from another file of this package (:mod:`caffe_lite.simd`) would stay what it was when that
file changes, so the stamp of this package's kernels covers those files too: the modules of the
package that the kernel's module imports and that import numba themselves, and theirs in turn.

Compiling takes a while the first time, which one line on the log says. Both wait for numba to be
imported, by whom ever; this module does not import it.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import logging
import re
import sys
import time
from collections.abc import Iterator
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

log = logging.getLogger("caffe_lite")
PACKAGE = "caffe_lite."
PATIENCE = 2.0  # seconds of compiling without a word
_IMPORT = re.compile(r"^from (caffe_lite[\w.]*) import (\([^)]*\)|.*)$", re.MULTILINE)
_NUMBA = re.compile(r"^(import|from) (numba|llvmlite)\b", re.MULTILINE)


def install() -> None:
    """Extend numba now if it is imported, else as soon as it is."""
    if "numba" in sys.modules:
        _extend()
    else:
        sys.meta_path.insert(0, _NumbaFinder())


class _NumbaFinder(MetaPathFinder):
    """Finds numba as others would, once, and has it extended after its import."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != "numba":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_extend(module: Any) -> None:
                execute(module)
                _extend()

            spec.loader.exec_module = execute_and_extend  # type: ignore[method-assign]
        return spec


def _extend() -> None:
    from numba.core import event
    from numba.core.caching import CacheImpl

    locators: Any = getattr(CacheImpl, "_locator_classes", [])  # numba's own affair: without it, nothing is extended
    locators[:0] = [type(f"Package{base.__name__}", (_PackageLocator, base), {}) for base in locators]
    event.register("numba:compile", _listener(event.Listener))


class _PackageLocator:
    """Any of numba's locators, for this package's functions alone, with a stamp of all their files."""

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> Any:
        if not py_func.__module__.startswith(PACKAGE):
            return None
        locator = super().from_function(py_func, py_file)  # type: ignore[misc]
        if locator is not None:
            locator.module = py_func.__module__
        return locator

    def get_source_stamp(self) -> Any:
        return super().get_source_stamp(), digest(self.module)  # type: ignore[misc, attr-defined]


@functools.cache
def digest(module: str) -> str:
    """SHA-256 of the sources from which kernels of ``module``, which is imported, are built."""
    found = {module}
    waiting = [module]
    while waiting:
        new = set(_helpers(waiting.pop())) - found
        found |= new
        waiting += new
    return hashlib.sha256("\0".join(_source(name) for name in sorted(found)).encode()).hexdigest()


def _helpers(module: str) -> Iterator[str]:
    """The modules of this package that ``module`` imports and that import numba."""
    for base, names in _IMPORT.findall(_source(module)):
        for name in (base, *(f"{base}.{word}" for word in re.findall(r"\w+", names))):
            if name in sys.modules and _NUMBA.search(_source(name)):
                yield name


@functools.cache
def _source(module: str) -> str:
    file = getattr(sys.modules[module], "__file__", None)
    return Path(file).read_text(encoding="utf-8") if file and file.endswith(".py") else ""


def _listener(base: Any) -> Any:
    """A listener to numba's events of compiling, of numba's class ``base``."""

    class CompilingListener(base):
        def __init__(self) -> None:
            self.depth = 0  # kernels compile the kernels that they call
            self.seconds = self.started = 0.0
            self.said = False

        def on_start(self, event: Any) -> None:
            if self.depth == 0:
                self.started = time.perf_counter()
            self.depth += 1
            self.say(event)

        def on_end(self, event: Any) -> None:
            self.depth -= 1
            if self.depth == 0:
                self.seconds += time.perf_counter() - self.started
            self.say(event)

        def say(self, event: Any) -> None:
            spent = self.seconds + (time.perf_counter() - self.started if self.depth else 0)
            dispatcher = event.data["dispatcher"]
            if self.said or spent < PATIENCE or not dispatcher.py_func.__module__.startswith(PACKAGE):
                return
            folder = getattr(dispatcher._cache, "cache_path", None)
            if folder is not None:
                self.said = True
                log.warning("compiling CPU kernels, once; kept in %s", folder)

    return CompilingListener()
