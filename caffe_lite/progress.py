"""Progress bars: live on a terminal, a line now and then where the output goes to a file, none if silenced."""

from __future__ import annotations

import sys
from typing import Any

QUIET = 10.0  # seconds between two lines in a log file
_silent = False


def silence(silent: bool) -> None:
    """Show no bars from now on, or show them again."""
    global _silent
    _silent = silent


def progress_bar(*args: Any, **options: Any) -> Any:
    """A tqdm bar; the arguments are tqdm's."""
    from tqdm import tqdm

    options["disable"] = options.get("disable", False) or _silent
    if not sys.stderr.isatty():
        options.setdefault("mininterval", QUIET)
        options.setdefault("maxinterval", QUIET)
    return tqdm(*args, **options)
