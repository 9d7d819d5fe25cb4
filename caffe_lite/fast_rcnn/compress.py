"""Truncated SVD of fully connected layers: Girshick, Fast R-CNN (2015), section 3.1.

An InnerProduct layer X, y = W x + b with W (N, D), becomes two of rank t:

    X_L    z = diag(s) V^T x    (t, D), no bias
    X_U    y = U z + b          (N, t), the bias of X

where U, s, V are the first t singular triplets of W: of all products of that rank the nearest to W.
N D weights become t (N + D). The top of X is called X_U from there on, as in the original, except that
cls_score and bbox_pred keep their names, by which detection asks for them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from caffe_lite import prototxt, upgrade
from caffe_lite.atomic import atomic_write
from caffe_lite.errors import NetError, WeightsError, did_you_mean
from caffe_lite.fast_rcnn.test import make_output_dir
from caffe_lite.net import Net
from caffe_lite.proto import caffe_pb2

Float32 = NDArray[np.float32]

_TEST = 1
_HEADS = ("cls_score", "bbox_pred")
_OVERSAMPLING = 10  # Halko, Martinsson, Tropp (2011): columns drawn beyond the rank
_POWER_ITERATIONS = 2


class Factored(NamedTuple):
    """One layer that was factored."""

    layer: str
    rank: int
    shape: tuple[int, int]  # (N, D) of its weights
    lost: float  # share of W's Frobenius norm that the product lacks, in [0, 1]

    @property
    def before(self) -> int:
        """Weights of the layer, without biases."""
        return self.shape[0] * self.shape[1]

    @property
    def after(self) -> int:
        """Weights of the two layers in its place, without biases."""
        return self.rank * (self.shape[0] + self.shape[1])


class Compressed(NamedTuple):
    """What :func:`compress_net` made."""

    prototxt: str
    weights: str
    layers: list[Factored]
    parameters: tuple[int, int]  # of the whole net, before and after


def truncated_svd(matrix: NDArray[Any], rank: int, randomized: bool = False, seed: int = 3) -> tuple[Float32, Float32]:
    """U (N, rank) and diag(s) V^T (rank, D) of ``matrix`` (N, D), float32.

    Exact by LAPACK in float32. ``randomized``: by a random range of rank + 10 columns and two power
    iterations (Halko, Martinsson, Tropp 2011), the faster the lower the rank, and nearly as close.

    Raises:
        WeightsError: the rank is not in 1..min(N, D), or the matrix holds a value that is not finite.
    """
    import scipy.linalg

    matrix = np.asarray(matrix, dtype=np.float32)
    most = min(matrix.shape)
    if not 1 <= rank <= most:
        raise WeightsError(f"rank {rank} of a {matrix.shape[0]} x {matrix.shape[1]} matrix: must be in 1..{most}")
    if not np.isfinite(matrix).all():
        raise WeightsError("the weights hold a value that is not finite")
    if randomized:
        return _randomized_svd(matrix, rank, np.random.default_rng(seed))
    u, s, v = scipy.linalg.svd(matrix, full_matrices=False, check_finite=False)
    return np.ascontiguousarray(u[:, :rank]), s[:rank, np.newaxis] * v[:rank]


def _randomized_svd(matrix: Float32, rank: int, rng: np.random.Generator) -> tuple[Float32, Float32]:
    """The factors within an orthonormal ``basis`` (N, rank + 10) of nearly all that ``matrix`` maps to."""
    import scipy.linalg

    columns = min(rank + _OVERSAMPLING, *matrix.shape)
    basis = matrix @ rng.standard_normal((matrix.shape[1], columns), dtype=np.float32)
    for _ in range(_POWER_ITERATIONS):
        basis = scipy.linalg.qr(basis, mode="economic", check_finite=False)[0]
        basis = matrix @ (matrix.T @ basis)
    basis = scipy.linalg.qr(basis, mode="economic", check_finite=False)[0]
    inside = basis.T @ matrix
    _, vectors = scipy.linalg.eigh((inside @ inside.T).astype(np.float64), check_finite=False)
    best = vectors[:, : -rank - 1 : -1].astype(np.float32)  # eigh: smallest first
    return basis @ best, best.T @ inside


def factored_param(net_param: Any, ranks: Mapping[str, int], origin: str = "") -> Any:
    """A copy of a NetParameter with each layer of ``ranks``, name -> rank, replaced by its two factors.

    Raises:
        NetError: there is no such layer, it is no InnerProduct, it shares its weights, or a name is taken.
    """
    _check_layers(net_param, ranks, origin)
    result = caffe_pb2.NetParameter()
    result.CopyFrom(net_param)
    del result.layer[:]
    renamed: dict[str, str] = {}  # a blob of the original -> what it is called now
    for layer in net_param.layer:
        copy = caffe_pb2.LayerParameter()
        copy.CopyFrom(layer)
        copy.bottom[:] = [renamed.get(name, name) for name in layer.bottom]
        if layer.name in ranks:
            lower, upper = _factors(copy, ranks[layer.name])
            if layer.top[0] in _HEADS:
                upper.top[:] = layer.top
                renamed.pop(layer.top[0], None)
            else:
                renamed[layer.top[0]] = upper.top[0]
            result.layer.extend([lower, upper])
            continue
        for index, top in enumerate(layer.top):
            if top in layer.bottom:  # in place
                copy.top[index] = renamed.get(top, top)
            else:
                renamed.pop(top, None)
        result.layer.append(copy)
    return result


def _check_layers(net_param: Any, ranks: Mapping[str, int], origin: str) -> None:
    layers = {layer.name: layer for layer in net_param.layer}
    where = f"{origin}: " if origin else ""
    for name in ranks:
        if name not in layers:
            products = [n for n, layer in layers.items() if layer.type == "InnerProduct"]
            raise NetError(
                f"{where}no layer {name!r} to factor{did_you_mean(name, products)}; "
                f"InnerProduct layers: {', '.join(products) or 'none'}"
            )
        layer = layers[name]
        if layer.type != "InnerProduct":
            raise NetError(f"{where}layer {name!r} is a {layer.type}; only InnerProduct layers can be factored")
        if any(spec.name for spec in layer.param):
            raise NetError(f"{where}layer {name!r} shares its weights by name and cannot be factored")
        taken = {f"{name}_L", f"{name}_U"} & set(layers)
        if taken:
            raise NetError(f"{where}layer {sorted(taken)[0]!r} is there already: has this net been compressed before?")


def _factors(layer: Any, rank: int) -> tuple[Any, Any]:
    """The LayerParameters of X_L and X_U for that of X, whose bottom has its new name."""
    lower, upper = caffe_pb2.LayerParameter(), caffe_pb2.LayerParameter()
    for part, suffix in ((lower, "_L"), (upper, "_U")):
        part.CopyFrom(layer)
        del part.blobs[:]
        part.name = f"{layer.name}{suffix}"
        part.top[:] = [part.name]
        part.inner_product_param.ClearField("weight_filler")
    lower.inner_product_param.num_output = rank
    lower.inner_product_param.bias_term = False
    lower.inner_product_param.ClearField("bias_filler")
    del lower.param[1:]
    upper.bottom[:] = [lower.name]
    if layer.inner_product_param.axis < 0:  # X_L gave one axis for all that it flattened
        upper.inner_product_param.axis = -1
    return lower, upper


def ranks_of(net: Net, svd_net: Net) -> dict[str, int]:
    """Layer -> rank, of the layers of ``net`` whose factors ``svd_net`` has.

    Raises:
        NetError: there is none.
    """
    ranks = {}
    for name in net.params:
        if f"{name}_L" in svd_net.params and f"{name}_U" in svd_net.params:
            ranks[name] = _matrix(svd_net, f"{name}_L").shape[0]
    if not ranks:
        raise NetError(
            f"the compressed net has no layers X_L and X_U for a layer X of the net; its layers with weights are "
            f"{', '.join(svd_net.params)}, the net's {', '.join(net.params)}"
        )
    return ranks


def install_factors(net: Net, svd_net: Net, ranks: Mapping[str, int], randomized: bool = False) -> list[Factored]:
    """Write the factors of ``net``'s layers into those of ``svd_net``; its other layers are left alone.

    Raises:
        WeightsError: a rank or a shape does not fit, or a weight is not finite.
    """
    done = []
    for name, rank in ranks.items():
        matrix = _matrix(net, name)
        try:
            u, lower = truncated_svd(matrix, rank, randomized)
        except WeightsError as error:
            raise WeightsError(f"layer {name!r}: {error}") from error
        for suffix, values in (("_L", lower), ("_U", u)):
            target = _matrix(svd_net, name + suffix)
            if target.shape != values.shape:
                raise WeightsError(f"layer {name + suffix!r} has weights {target.shape}, the factor is {values.shape}")
            target[...] = values
        if len(svd_net.params[f"{name}_L"]) != 1 or len(svd_net.params[f"{name}_U"]) != len(net.params[name]):
            raise WeightsError(f"layer {name!r}: {name}_L must have no bias, {name}_U one if {name} has")
        if len(net.params[name]) > 1:
            svd_net.params[f"{name}_U"][1].data[...] = net.params[name][1].data
        kept = float(np.sum(np.square(lower, dtype=np.float64)))  # U is orthonormal
        total = float(np.sum(np.square(matrix, dtype=np.float64)))
        lost = float(np.sqrt(max(0.0, 1 - kept / total))) if total else 0.0
        done.append(Factored(name, rank, (matrix.shape[0], matrix.shape[1]), lost))
    return done


def _matrix(net: Net, layer: str) -> Float32:
    """The weights of an InnerProduct layer as (N, D), a view of its blob's host side."""
    data = net.params[layer][0].data
    return data.T if net.layer_dict[layer].param.inner_product_param.transpose else data


def compress_net(
    prototxt_file: str | os.PathLike[str],
    weights_file: str | os.PathLike[str],
    ranks: Mapping[str, int] | None = None,
    svd_prototxt: str | os.PathLike[str] | None = None,
    output_dir: str | os.PathLike[str] | None = None,
    randomized: bool = False,
) -> Compressed:
    """Factor layers of a TEST net and write the weights, and the prototxt if it is not given.

    Give either ``ranks``, layer -> rank, or ``svd_prototxt``, a prototxt that holds X_L and X_U. Files
    go to ``output_dir``, by default the weights' folder, as ``<weights>_svd_<layer>_<rank>...`` with the
    layers in the net's order, once everything is computed, each whole or not at all.

    Raises:
        NetError, WeightsError: the layers, ranks or weights do not fit.
        DataError: the folder cannot be written; told before anything is computed.
    """
    if (ranks is None) == (svd_prototxt is None):
        raise NetError("give either the ranks of layers or the prototxt of the compressed net")
    origin, source = os.fspath(prototxt_file), os.fspath(weights_file)
    param, positions = prototxt.read_net(origin)
    positions = upgrade.upgrade_net(param, positions) or positions
    param.state.phase = _TEST
    net = Net.from_param(param, positions)
    _refuse_untouched(net.copy_from(source).untouched, source)
    if svd_prototxt is not None:
        svd_net = Net(svd_prototxt, _TEST)
        ranks = ranks_of(net, svd_net)
    else:
        assert ranks is not None
        ranks = {layer.name: ranks[layer.name] for layer in param.layer if layer.name in ranks} | dict(ranks)
        svd_param = factored_param(param, ranks, origin)
        svd_net = Net.from_param(svd_param)
    untouched = svd_net.copy_from(source).untouched
    factors = {name + suffix for name in ranks for suffix in ("_L", "_U")}
    _refuse_untouched([name for name in untouched if name not in factors], source)
    folder = make_output_dir((os.path.dirname(source) if output_dir is None else output_dir) or os.curdir)
    layers = install_factors(net, svd_net, ranks, randomized)

    stem = os.path.splitext(os.path.basename(source))[0] + "_svd"
    stem += "".join(f"_{name.replace('/', '_')}_{rank}" for name, rank in ranks.items())
    written = os.path.join(folder, f"{stem}.caffemodel")
    svd_net.save(written)
    described = os.fspath(svd_prototxt) if svd_prototxt is not None else os.path.join(folder, f"{stem}.prototxt")
    if svd_prototxt is None:
        svd_param.ClearField("state")  # whoever builds the net says the phase
        with atomic_write(described, "w") as stream:
            stream.write(prototxt.write(svd_param))
    return Compressed(described, written, layers, (_parameters(net), _parameters(svd_net)))


def _refuse_untouched(names: Iterable[str], source: str) -> None:
    missing = list(names)
    if missing:
        raise WeightsError(f"{source}: holds no weights for {', '.join(missing)}; they belong to another net")


def _parameters(net: Net) -> int:
    return sum(blob.data.size for blobs in net.params.values() for blob in blobs)


def layer_times(net: Net, layers: Iterable[str], regions: int = 2000, repeats: int = 3) -> dict[str, float]:
    """Seconds of each layer's forward at ``regions`` regions, the least of ``repeats`` after one to warm up.

    A net without an input ``rois`` is timed at the shapes of its prototxt.
    """
    if "rois" in net.inputs:
        net.blobs["rois"].reshape(regions, net.blobs["rois"].shape[1])
    net.reshape()
    times = {}
    for name in layers:
        taken = []
        for _ in range(repeats + 1):
            start = time.perf_counter()
            net.forward(start=name, end=name)
            taken.append(time.perf_counter() - start)
        times[name] = min(taken[1:])
    return times
