"""Train a net as a solver.prototxt says."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any

from caffe_lite.commands._net import add_state_options, stages
from caffe_lite.console import add_compute_option, check_compute, positive

EXAMPLES = """examples:
  caffe-lite train --solver lenet_solver.prototxt
  caffe-lite train --solver solver.prototxt --weights bvlc_reference_caffenet.caffemodel --gpu 0
  caffe-lite train --solver solver.prototxt --snapshot lenet_iter_5000.solverstate
  caffe-lite train --solver solver.prototxt --resume --keep 3 --on-nan skip 2>&1 | tee train.log

Paths in the prototxt are relative to the working directory, as in Caffe. Without --gpu and --cpu the
device is what solver_mode and device_id say, the CPU if they say nothing.

Lines on the terminal are Caffe's, so log parsers for Caffe read them. The same numbers go as JSON lines
into <snapshot_prefix>_log.jsonl. An interrupt (Ctrl-C) stops after the current iteration with a
snapshot, a second one at once; SIGHUP writes a snapshot and training goes on.
"""
OWN_QUIET = True

ACTIONS = ("stop", "snapshot", "none")
log = logging.getLogger("caffe_lite")


def add_arguments(parser: Any) -> None:
    parser.add_argument("--solver", "-solver", required=True, metavar="FILE", help="the solver.prototxt")
    start = parser.add_argument_group("where to begin")
    start.add_argument(
        "--weights",
        "-weights",
        metavar="FILE[,FILE]",
        help="finetune from these .caffemodels, instead of the solver's weights",
    )
    start.add_argument("--snapshot", "-snapshot", metavar="FILE", help="go on from this .solverstate")
    start.add_argument(
        "--resume", action="store_true", help="go on from the newest whole snapshot; if there is none, begin"
    )
    device = parser.add_argument_group("device")
    device.add_argument("--gpu", "-gpu", metavar="N", help="train on GPU N; 'all' where there is one")
    add_compute_option(device)
    device.add_argument("--cpu", action="store_true", help="train on the CPU, whatever solver_mode says")
    device.add_argument("--threads", type=positive, metavar="N", help="CPU threads (default: one for each processor)")
    net = parser.add_argument_group("train net")
    add_state_options(net)
    net.add_argument(
        "--phase", "-phase", choices=("TRAIN", "TEST"), help=argparse.SUPPRESS
    )  # without effect, as in Caffe
    run = parser.add_argument_group("run")
    run.add_argument(
        "--sigint_effect",
        "-sigint_effect",
        choices=ACTIONS,
        default="stop",
        help="what an interrupt does (default: stop)",
    )
    run.add_argument(
        "--sighup_effect",
        "-sighup_effect",
        choices=ACTIONS,
        default="snapshot",
        help="the same for SIGHUP (default: snapshot)",
    )
    run.add_argument("--keep", type=positive, metavar="N", help="keep the newest N snapshots only (default: all)")
    run.add_argument(
        "--on-nan", choices=("stop", "skip"), default="stop",
        help="if loss or gradients are NaN or infinite: stop with an error, or skip the update (default: stop)",
    )  # fmt: skip
    run.add_argument("--quiet", action="store_true", help="print warnings and errors only")
    run.add_argument("--log_dir", "-log_dir", metavar="DIR", help="write the log lines into a file in DIR, too")


def run(args: Any) -> None:
    import caffe_lite
    from caffe_lite import glog
    from caffe_lite.signals import SignalHandler, SolverAction
    from caffe_lite.training_log import TrainingLog

    sys.path.insert(0, os.getcwd())  # Python layers lie beside the prototxt that names them
    if args.threads is not None:
        caffe_lite.set_num_threads(args.threads)
    actions = [SolverAction[name.upper()] for name in (args.sigint_effect, args.sighup_effect)]
    with glog.logging_to(level=1 if args.quiet else None, folder=args.log_dir), SignalHandler(*actions) as signals:
        solver, state = _build(args)
        solver.action_function = signals.requested
        solver.on_nan = args.on_nan
        solver.keep_snapshots = args.keep or 0
        if state is not None:
            log.info("Resuming from %s", state)
            solver.restore(state)
        log.info("Starting Optimization")
        with TrainingLog(solver), _progress(solver, shown=sys.stderr.isatty() and not args.quiet):
            solver.solve()
        log.info("Optimization Done.")


def _build(args: Any) -> tuple[Any, str | None]:
    """The solver, on its device, and the .solverstate that it is to go on from."""
    from caffe_lite import prototxt, registry, upgrade
    from caffe_lite.errors import SolverError

    if args.snapshot and (args.weights or args.resume):
        raise SolverError("--snapshot says where to go on: leave out --weights and --resume")
    param, _ = prototxt.read_solver(args.solver)
    param = upgrade.upgrade_solver(param)
    param.train_state.level = args.level
    param.train_state.stage.extend(stages(args))
    _choose_device(args, param)
    state = args.snapshot or (_newest(param, args.solver) if args.resume else None)
    if state or args.weights:
        del param.weights[:]
    if args.weights and not state:
        param.weights.append(args.weights)
    return registry.solvers.get(param.type, args.solver).from_param(param, args.solver), state


def _newest(param: Any, origin: str) -> str | None:
    from caffe_lite import snapshot

    prefix = snapshot.prefix_of(param, origin)
    found = snapshot.latest(prefix)
    if found is None:
        log.warning("--resume: there is no snapshot %s_iter_N.solverstate: training begins anew", prefix)
    return found


def _choose_device(args: Any, param: Any) -> None:
    import caffe_lite
    from caffe_lite import device
    from caffe_lite.errors import DeviceError
    from caffe_lite.proto import caffe_pb2

    if args.gpu and args.cpu:
        raise DeviceError("give --gpu or --cpu, not both")
    wanted, reason = args.gpu, "--gpu"
    if not wanted and not args.cpu and param.HasField("solver_mode"):
        if param.solver_mode == caffe_pb2.SolverParameter.GPU:
            wanted, reason = str(param.device_id), f"{args.solver}: solver_mode: GPU (or train with --cpu)"
    check_compute(args.compute, bool(wanted))
    if not wanted:
        log.info("Use CPU.")
        caffe_lite.set_mode_cpu()
        return
    if wanted != "all" and not wanted.isdecimal():
        many = "; training on several GPUs is not supported, choose one" if "," in wanted else ""
        raise DeviceError(f"--gpu takes the number of one GPU, or 'all', got {wanted!r}{many}")
    if wanted == "all" and (count := device.gpu_count()) > 1:
        raise DeviceError(f"--gpu all: there are {count} GPUs, and training on several is not supported: choose one")
    try:
        caffe_lite.set_compute(args.compute)
        caffe_lite.set_device(0 if wanted == "all" else int(wanted))
        caffe_lite.set_mode_gpu()
    except DeviceError as error:
        raise DeviceError(f"{reason}: {error}") from error
    log.info("Using GPUs %d", device.current().index)


@contextlib.contextmanager
def _progress(solver: Any, shown: bool) -> Iterator[None]:
    """A bar below the log lines, if ``shown``."""
    if not shown:
        yield
        return
    from caffe_lite.progress import progress_bar

    with progress_bar(total=solver.param.max_iter, initial=solver.iter, desc=solver.net.name, unit="it") as bar:

        def advance(event: str, fields: dict[str, Any]) -> None:
            if event == "iteration":
                bar.update(fields["iter"] - bar.n)
            elif event == "train":
                bar.set_postfix(loss=f"{fields['smoothed_loss']:.4g}", lr=f"{fields['lr']:.4g}", refresh=False)

        solver.listeners.append(advance)
        try:
            yield
        finally:
            solver.listeners.remove(advance)
