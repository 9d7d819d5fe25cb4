"""The console scripts: each is made of command modules, one file a command, found by its name.

A command module holds

    its docstring        the first line is what ``--help`` says of the command
    EXAMPLES             shown at the end of ``COMMAND --help``
    ALIASES              other names of the command, if it has any
    OWN_QUIET            True if its own ``--quiet`` silences more than the progress bars
    add_arguments(parser)
    run(args) -> int | None    the exit status; None is 0

and imports whatever is slow inside ``run``. A new command is a new file in the package; nothing else
changes. A module whose name begins with an underscore is no command.
"""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import sys
from collections.abc import Sequence
from typing import Any

from caffe_lite import progress
from caffe_lite.errors import CaffeError


class Console:
    """The script ``prog``, whose commands are the modules of ``package``.

    ``separator`` stands in command names where modules have an underscore; on the command line
    ``-`` and ``_`` are the same.
    """

    def __init__(self, prog: str, description: str, package: str, separator: str = "_") -> None:
        self.prog = prog
        self.description = description
        self.package = package
        self.separator = separator

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Run the command line ``argv`` (default: the process's); the exit status: 0, or 1 for an error."""
        args = self.parser().parse_args(self._with_exact_name(sys.argv[1:] if argv is None else argv))
        progress.silence(args.quiet)
        try:
            return args.run(args) or 0
        except BrokenPipeError:  # whoever read our output, head say, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except (CaffeError, OSError) as error:
            if args.debug:
                raise
            print(f"{self.prog}: error: {_one_line(error)}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print(f"{self.prog}: interrupted", file=sys.stderr)
            return 130

    def _module(self, name: str) -> Any:
        return importlib.import_module(f"{self.package}.{name.replace(self.separator, '_')}")

    def command_names(self) -> list[str]:
        """The names of all commands, sorted."""
        folder = importlib.import_module(self.package).__path__
        modules = (m.name for m in pkgutil.iter_modules(folder) if not m.name.startswith("_"))
        return sorted(name.replace("_", self.separator) for name in modules)

    def parser(self) -> argparse.ArgumentParser:
        """The parser of all commands."""
        import caffe_lite

        parser = argparse.ArgumentParser(prog=self.prog, description=self.description)
        version = f"{self.prog} (caffe_lite {caffe_lite.__version__})"
        parser.add_argument("--version", action="version", version=version)
        commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
        for name in self.command_names():
            module = self._module(name)
            text = (module.__doc__ or "").split("\n", 1)[0].strip()
            command = commands.add_parser(
                name,
                help=text.rstrip("."),
                description=text,
                epilog=module.EXAMPLES,
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )
            command.set_defaults(run=module.run, console=self)
            module.add_arguments(command)
            command.add_argument("--debug", action="store_true", help="show the traceback of an error")
            if not getattr(module, "OWN_QUIET", False):
                command.add_argument("--quiet", action="store_true", help="show no progress bars")
        return parser

    def _with_exact_name(self, argv: Sequence[str]) -> list[str]:
        """``argv`` with the command spelt as the parser knows it."""
        argv = list(argv)
        if argv and not argv[0].startswith("-"):
            known = {name.replace(self.separator, "_"): name for name in self.command_names()}
            known.update(
                (alias, name) for name in list(known.values()) for alias in getattr(self._module(name), "ALIASES", ())
            )
            argv[0] = known.get(argv[0].replace("-", "_"), argv[0])
        return argv


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None and error.strerror is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


# ---- options that several commands have


def add_device_options(parser: Any, threads: str = "one for each processor") -> None:
    """``--gpu``, ``--compute`` and ``--threads``, for :func:`choose_device`."""
    parser.add_argument("--gpu", "-gpu", type=int, metavar="N", help="use GPU N (default: the CPU)")
    add_compute_option(parser)
    parser.add_argument("--threads", type=positive, metavar="N", help=f"threads that compute (default: {threads})")


def add_compute_option(parser: Any) -> None:
    """``--compute``, for ``caffe_lite.set_compute`` and :func:`check_compute`."""
    from caffe_lite.device import COMPUTE

    parser.add_argument(
        "--compute", choices=COMPUTE, default="float32",
        help="how a GPU multiplies matrices; tf32 and bf16 are faster and round more (default: float32)",
    )  # fmt: skip


def check_compute(compute: str, on_gpu: bool) -> None:
    """Refuse ``--compute tf32`` and bf16 where no GPU was chosen, which would do as if it were not said.

    Raises:
        DeviceError: it was said, and nets run on the CPU.
    """
    from caffe_lite.errors import DeviceError

    if compute != "float32" and not on_gpu:
        raise DeviceError(f"--compute {compute} is for GPUs: give --gpu too (the CPU computes in float32)")


def choose_device(args: Any) -> None:
    """Do what ``--gpu``, ``--compute`` and ``--threads`` say; before any net is built.

    Raises:
        DeviceError: there is no such GPU, or it cannot compute that way.
    """
    import caffe_lite

    check_compute(args.compute, args.gpu is not None)
    if args.gpu is not None:
        caffe_lite.set_compute(args.compute)
        caffe_lite.set_device(args.gpu)
        caffe_lite.set_mode_gpu()
    if args.threads is not None:
        caffe_lite.set_num_threads(args.threads)


def positive(text: str) -> int:
    """An argparse type: an integer of 1 or more."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {value}")
    return value
