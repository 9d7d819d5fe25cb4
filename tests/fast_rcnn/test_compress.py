"""Truncated SVD: against the definition of the best product of a rank, and the files of a whole net."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import caffe_lite
from caffe_lite import models, prototxt
from caffe_lite.data.synthetic import make_devkit
from caffe_lite.errors import DataError, NetError, WeightsError
from caffe_lite.fast_rcnn import compress
from caffe_lite.fast_rcnn.cli import main
from caffe_lite.fast_rcnn.compress import compress_net, factored_param, layer_times, truncated_svd

TEST_NET = models.path("mini/test.prototxt")


def spectrum(n: int, d: int, values: np.ndarray) -> np.ndarray:
    """A random (n, d) matrix with these singular values."""
    rng = np.random.default_rng(0)
    u, _ = np.linalg.qr(rng.standard_normal((n, len(values))))
    v, _ = np.linalg.qr(rng.standard_normal((d, len(values))))
    return (u * values) @ v.T


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """The mini net with random weights, those of fc6 of a steep spectrum."""
    net = caffe_lite.Net(str(TEST_NET), caffe_lite.TEST)
    rng = np.random.default_rng(1)
    for blobs in net.params.values():
        for blob in blobs:
            blob.data[...] = 0.02 * rng.standard_normal(blob.shape)
    net.params["fc6"][0].data[...] = spectrum(192, 3456, 0.9 ** np.arange(192))
    net.save(str(tmp_path / "mini.caffemodel"))
    return tmp_path / "mini.caffemodel"


def forward(net: Any, rois: int = 9) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(2)
    corners = rng.integers(0, 40, (rois, 2))
    boxes = np.hstack((np.zeros((rois, 1)), corners, corners + rng.integers(8, 40, (rois, 2))))
    net.blobs["data"].reshape(1, 3, 96, 96)
    net.blobs["rois"].reshape(rois, 5)
    found = net.forward(data=rng.uniform(-100, 100, (1, 3, 96, 96)), rois=boxes)
    return {name: values.copy() for name, values in found.items()}


@pytest.mark.parametrize("shape", [(30, 50), (50, 30)])
@pytest.mark.parametrize("rank", [1, 7, 30])
def test_the_product_is_the_nearest_of_its_rank(shape: tuple[int, int], rank: int) -> None:
    """Eckart-Young: what is missing has the norm of the singular values left out; U is orthonormal."""
    values = np.linspace(3, 0.5, 30)
    matrix = spectrum(*shape, values).astype(np.float32)
    u, lower = truncated_svd(matrix, rank)
    assert u.shape == (shape[0], rank) and lower.shape == (rank, shape[1])
    assert u.dtype == lower.dtype == np.float32
    np.testing.assert_allclose(u.T @ u, np.eye(rank), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(lower, axis=1), values[:rank], rtol=1e-4)
    missing = np.linalg.norm(matrix - u @ lower)
    assert missing == pytest.approx(np.linalg.norm(values[rank:]), abs=2e-4)


def test_the_randomized_product_is_nearly_as_near() -> None:
    values = 1 / np.arange(1, 81)
    matrix = spectrum(80, 200, values).astype(np.float32)
    u, lower = truncated_svd(matrix, 10, randomized=True)
    np.testing.assert_allclose(u.T @ u, np.eye(10), atol=1e-5)
    assert np.linalg.norm(matrix - u @ lower) <= 1.01 * np.linalg.norm(values[10:])


@pytest.mark.parametrize("rank", [0, 31])
def test_an_impossible_rank_is_refused(rank: int) -> None:
    with pytest.raises(WeightsError, match="30 x 50 matrix: must be in 1..30"):
        truncated_svd(np.ones((30, 50)), rank)


def test_weights_that_are_not_finite_are_refused() -> None:
    with pytest.raises(WeightsError, match="not finite"):
        truncated_svd(np.full((3, 4), np.nan), 2)


def test_all_singular_values_change_no_output(weights: Path) -> None:
    made = compress_net(TEST_NET, weights, {"fc6": 192})
    whole = forward(caffe_lite.Net(str(TEST_NET), caffe_lite.TEST, weights=str(weights)))
    parts = forward(caffe_lite.Net(made.prototxt, caffe_lite.TEST, weights=made.weights))
    assert whole.keys() == parts.keys() == {"bbox_pred", "cls_prob"}
    for name, values in whole.items():
        np.testing.assert_allclose(parts[name], values, rtol=1e-3, atol=1e-5, err_msg=name)


def test_files_hold_the_factors_and_everything_else_as_it_was(weights: Path) -> None:
    made = compress_net(TEST_NET, weights, {"bbox_pred": 5, "fc6": 48})
    assert Path(made.weights).name == "mini_svd_fc6_48_bbox_pred_5.caffemodel"  # in the net's order
    assert made.prototxt == made.weights.replace(".caffemodel", ".prototxt")
    whole = caffe_lite.Net(str(TEST_NET), caffe_lite.TEST, weights=str(weights)).params
    parts = caffe_lite.Net(made.prototxt, caffe_lite.TEST, weights=made.weights).params
    assert list(parts) == [
        "conv1", "conv2", "conv3", "conv4", "fc6_L", "fc6_U", "cls_score", "bbox_pred_L", "bbox_pred_U",
    ]  # fmt: skip
    assert forward(caffe_lite.Net(made.prototxt, caffe_lite.TEST)).keys() == {"bbox_pred", "cls_prob"}
    assert [len(parts[name]) for name in ("fc6_L", "fc6_U")] == [1, 2]
    np.testing.assert_array_equal(parts["fc6_U"][1].data, whole["fc6"][1].data)
    for name in ("conv1", "conv2", "conv3", "conv4", "cls_score"):
        for a, b in zip(parts[name], whole[name], strict=True):
            np.testing.assert_array_equal(a.data, b.data)
    u, s, v = np.linalg.svd(whole["fc6"][0].data, full_matrices=False)
    product = parts["fc6_U"][0].data @ parts["fc6_L"][0].data
    np.testing.assert_allclose(product, (u[:, :48] * s[:48]) @ v[:48], atol=2e-6)
    fc6 = made.layers[0]
    assert (fc6.layer, fc6.rank, fc6.before, fc6.after) == ("fc6", 48, 192 * 3456, 48 * (192 + 3456))
    assert fc6.lost == pytest.approx(np.linalg.norm(s[48:]) / np.linalg.norm(s), rel=0.05)
    assert made.parameters[0] - made.parameters[1] == sum(f.before - f.after for f in made.layers)


def test_a_given_prototxt_says_the_layers_and_ranks(weights: Path) -> None:
    svd = models.path("mini/compressed/test.prototxt")
    given = compress_net(TEST_NET, weights, svd_prototxt=svd, output_dir="given")
    own = compress_net(TEST_NET, weights, {"fc6": 48}, output_dir="own")
    assert given.prototxt == str(svd) and [p.name for p in Path("given").iterdir()] == [Path(own.weights).name]
    a = forward(caffe_lite.Net(str(svd), caffe_lite.TEST, weights=given.weights))
    b = forward(caffe_lite.Net(own.prototxt, caffe_lite.TEST, weights=given.weights))
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])


def test_the_shipped_compressed_net_is_the_factored_one() -> None:
    for net, ranks in (("VGG16", {"fc6": 1024, "fc7": 256}), ("mini", {"fc6": 48})):
        param, _ = prototxt.read_net(models.path(f"{net}/test.prototxt"))
        expected, _ = prototxt.read_net(models.path(f"{net}/compressed/test.prototxt"))
        assert factored_param(param, ranks) == expected


def test_blobs_are_renamed_until_the_next_layer_of_that_name() -> None:
    param = caffe_lite.proto.caffe_pb2.NetParameter()
    prototxt.parse(
        'layer { name: "a" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 4 axis: -2 } }'
        'layer { name: "r" type: "ReLU" bottom: "y" top: "y" }'
        'layer { name: "b" type: "Softmax" bottom: "y" top: "z" }'
        'layer { name: "c" type: "Softmax" bottom: "z" top: "y" }'
        'layer { name: "d" type: "Softmax" bottom: "y" top: "w" }',
        param,
    )
    layers = factored_param(param, {"a": 2}).layer
    wiring = [(p.name, list(p.bottom), list(p.top)) for p in layers]
    assert wiring == [
        ("a_L", ["x"], ["a_L"]), ("a_U", ["a_L"], ["a_U"]), ("r", ["a_U"], ["a_U"]), ("b", ["a_U"], ["z"]),
        ("c", ["z"], ["y"]), ("d", ["y"], ["w"]),
    ]  # fmt: skip
    assert [p.inner_product_param.axis for p in layers[:2]] == [-2, -1]


def test_a_transposed_layer_is_factored_too(tmp_path: Path) -> None:
    file = tmp_path / "t.prototxt"
    file.write_text(
        'name: "t" layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 3 dim: 6 } } }'
        'layer { name: "a" type: "InnerProduct" bottom: "x" top: "y"'
        " inner_product_param { num_output: 4 transpose: true bias_term: false weight_filler { type: 'xavier' } } }"
    )
    caffe_lite.set_random_seed(1)
    net = caffe_lite.Net(str(file), caffe_lite.TEST)
    net.save("t.caffemodel")
    made = compress_net(file, "t.caffemodel", {"a": 4})
    x = np.random.default_rng(0).standard_normal((3, 6))
    parts = caffe_lite.Net(made.prototxt, caffe_lite.TEST, weights=made.weights)
    np.testing.assert_allclose(parts.forward(x=x)["a_U"], net.forward(x=x)["y"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("ranks", "said"),
    [
        ({"fc7": 3}, r"no layer 'fc7' to factor; did you mean 'fc6'\?; InnerProduct layers: fc6, cls_score, bbox_pred"),
        ({"conv2": 3}, "layer 'conv2' is a Convolution"),
        ({"fc6": 193}, r"layer 'fc6': rank 193 of a 192 x 3456 matrix"),
    ],
)
def test_what_cannot_be_factored_is_refused_and_nothing_written(
    weights: Path, ranks: dict[str, int], said: str
) -> None:
    with pytest.raises((NetError, WeightsError), match=said):
        compress_net(TEST_NET, weights, ranks, output_dir="out")
    assert not list(Path("out").glob("*"))


def test_an_unwritable_folder_is_told_before_anything_is_computed(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compress, "truncated_svd", lambda *_: pytest.fail("computed"))
    Path("file").write_text("in the way")
    with pytest.raises(DataError, match=r"file.out: cannot write to the output folder"):
        compress_net(TEST_NET, weights, {"fc6": 4}, output_dir="file/out")


def test_a_net_is_not_compressed_twice(weights: Path) -> None:
    made = compress_net(TEST_NET, weights, {"fc6": 48})
    with pytest.raises(NetError, match="no layer 'fc6'"):
        compress_net(made.prototxt, made.weights, {"fc6": 20})
    with pytest.raises(NetError, match="no layers X_L and X_U"):
        compress_net(TEST_NET, weights, svd_prototxt=TEST_NET)


def test_layers_are_timed_at_the_regions_asked_for() -> None:
    net = caffe_lite.Net(str(TEST_NET), caffe_lite.TEST)
    times = layer_times(net, ["fc6", "cls_score"], regions=17, repeats=1)
    assert net.blobs["fc6"].shape == (17, 192) and all(t > 0 for t in times.values()) and len(times) == 2


def test_the_command_reports_and_compares(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = make_devkit("data", 5, {"trainval": 1, "test": 2}, (120, 100))
    command = ["compress-net", "--def", "models/mini/test.prototxt", "--net", str(weights), "--rois", "10"]
    test = ["--imdb", "synthetic_test", "--data", data, "--set", "TEST.SCALES", "(64,)"]
    assert main([*command, "--layer", "fc6=24", "--layer", "bbox_pred=9", "--randomized", *test]) == 0
    out = capsys.readouterr().out
    assert "mini_svd_fc6_24_bbox_pred_9.prototxt" in out and "mAP before" in out
    assert "663,552" in out and f"{24 * (192 + 3456):,}" in out
    assert main([*command, "--def-svd", "models/mini/compressed/test.prototxt", "-o", "svd"]) == 0
    assert [p.name for p in Path("svd").iterdir()] == ["mini_svd_fc6_48.caffemodel"]
    with pytest.raises(SystemExit):
        main([*command, "--layer", "fc6"])
    assert "expected NAME=RANK" in capsys.readouterr().err
