"""Which nets a SolverParameter asks for: one to train, any number to test."""

from __future__ import annotations

from typing import Any

from caffe_lite import prototxt
from caffe_lite.errors import SolverError
from caffe_lite.proto import caffe_pb2

Source = tuple[Any, Any]  # NetParameter with its state set, positions (None if it stands in the solver itself)


def _with_state(source: Source, phase: int, override: Any) -> Source:
    """NetState by rising precedence: the solver's default for the phase, the net's own, the solver's for this net."""
    param = caffe_pb2.NetParameter()
    param.CopyFrom(source[0])
    state = caffe_pb2.NetState(phase=phase)
    if param.HasField("state"):
        state.MergeFrom(param.state)
    if override is not None:
        state.MergeFrom(override)
    param.state.CopyFrom(state)
    return param, source[1]


def train_net_param(param: Any, origin: str) -> Source:
    """The train net, from exactly one of net, net_param, train_net, train_net_param."""
    given = [name for name in ("train_net_param", "train_net", "net_param", "net") if param.HasField(name)]
    if len(given) != 1:
        raise SolverError(
            f"{origin}: give exactly one of net, net_param, train_net, train_net_param; "
            f"got {', '.join(given) or 'none'}"
        )
    value = getattr(param, given[0])
    source: Source = prototxt.read_net(value) if isinstance(value, str) else (value, None)
    return _with_state(source, caffe_pb2.TRAIN, param.train_state if param.HasField("train_state") else None)


def test_net_params(param: Any, origin: str) -> list[Source]:
    """The test nets: test_net_param, then test_net, then as many copies of net as test_iter has left."""
    sources: list[Source] = [(p, None) for p in param.test_net_param]
    sources += [prototxt.read_net(name) for name in param.test_net]
    left = len(param.test_iter) - len(sources)
    if left < 0 or (left > 0 and not (param.HasField("net") or param.HasField("net_param"))):
        raise SolverError(
            f"{origin}: {len(param.test_iter)} test_iter for {len(sources)} test net(s): give one for each"
        )
    if left:
        shared: Source = prototxt.read_net(param.net) if param.HasField("net") else (param.net_param, None)
        sources += [shared] * left
    states = list(param.test_state)
    if states and len(states) != len(sources):
        raise SolverError(
            f"{origin}: {len(states)} test_state for {len(sources)} test net(s): give none, or one for each"
        )
    if sources and param.test_interval <= 0:
        raise SolverError(f"{origin}: test nets need test_interval > 0, got {param.test_interval}")
    overrides = states or [None] * len(sources)
    return [_with_state(s, caffe_pb2.TEST, o) for s, o in zip(sources, overrides, strict=True)]


def describe_train_net(param: Any) -> str:
    """Where the train net stands, in the words of Caffe's log."""
    for name in ("train_net", "net"):
        if param.HasField(name):
            return f"from {name} file: {getattr(param, name)}"
    return f"specified in {'net_param' if param.HasField('net_param') else 'train_net_param'}."


def describe_test_nets(param: Any) -> list[str]:
    """The same of each test net, in their order."""
    sources = ["test_net_param"] * len(param.test_net_param) + [f"test_net file: {name}" for name in param.test_net]
    shared = f"net file: {param.net}" if param.HasField("net") else "net_param"
    return sources + [shared] * (len(param.test_iter) - len(sources))
