"""Scripts that say ``import caffe``: run in a process of their own, as their users do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str, folder: Path, code: int = 0) -> str:
    """stdout, and stderr where a failure is expected."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == code, result.stdout + result.stderr
    return result.stdout + (result.stderr if code else "")


def script(text: str, folder: Path, *arguments: str) -> str:
    (folder / "script.py").write_text(text)
    return run("-m", "caffe_lite", "script.py", *arguments, folder=folder)


def test_every_way_of_importing(tmp_path: Path) -> None:
    out = script(
        """
import sys
import caffe
import caffe.draw
import caffe.proto.caffe_pb2
import caffe.io as caffe_io
from caffe import layers as L, params as P, to_proto
from caffe.proto import caffe_pb2
from caffe.proto.caffe_pb2 import NetParameter, SolverParameter, LayerParameter, Datum, BlobProto, V1LayerParameter
from caffe.coord_map import crop
from caffe.net_spec import NetSpec
from caffe.pycaffe import Net
from caffe import *
from google import protobuf
import caffe_lite

assert caffe.proto.caffe_pb2 is caffe_pb2 is sys.modules["caffe.proto.caffe_pb2"] is caffe_lite.proto.caffe_pb2
assert caffe_pb2.TRAIN == TRAIN == caffe.TRAIN == 0 and caffe_pb2.TEST == TEST == 1
assert caffe.io is caffe_io is caffe_lite.io and caffe_io.__name__ == "caffe_lite.io"
assert caffe.Net is Net is caffe_lite.Net is caffe._caffe.Net and caffe.NetSpec is NetSpec is caffe_lite.NetSpec
assert issubclass(caffe.Classifier, caffe.Net) and caffe.classifier.Classifier is caffe.Classifier
assert caffe.__version__ == "1.0.0" and caffe_lite.__version__ != "1.0.0"
net = NetParameter()
protobuf.text_format.Merge(str(L.ReLU(L.Input()).to_proto()), net)
assert net.layer[1].type == "ReLU" and P.Pooling.AVE == 1
assert sys.argv == ["script.py", "--gpu", "0"] and __name__ == "__main__", sys.argv
for missing in ("caffe.test", "caffe.nothing"):
    try:
        __import__(missing)
    except ImportError:
        continue
    raise AssertionError(missing)
try:
    caffe.no_such_name
except AttributeError:
    print("done")
""",
        tmp_path, "--gpu", "0",
    )  # fmt: skip
    assert out == "done\n"


def test_install_twice_and_from_a_program(tmp_path: Path) -> None:
    code = """
import caffe_lite
caffe_lite.install_as_caffe()
caffe_lite.install_as_caffe()
import sys, caffe
assert sum(type(finder).__name__ == "_Finder" for finder in sys.meta_path) == 1
print(caffe.layer_type_list()[0])
"""
    assert run("-c", code, folder=tmp_path) == "AbsVal\n"


def test_another_caffe_that_is_imported_already_stays(tmp_path: Path) -> None:
    (tmp_path / "caffe.py").write_text("mine = True")
    code = "import caffe, caffe_lite; caffe_lite.install_as_caffe()"
    assert "caffe is imported already, from" in run("-c", code, folder=tmp_path, code=1)
    after = "import caffe_lite; caffe_lite.install_as_caffe(); import caffe; print(hasattr(caffe, 'mine'))"
    assert run("-c", after, folder=tmp_path) == "False\n"


def test_command_line(tmp_path: Path) -> None:
    assert "usage: python -m caffe_lite SCRIPT" in run("-m", "caffe_lite", "--help", folder=tmp_path)
    assert "usage" in run("-m", "caffe_lite", folder=tmp_path, code=2)
    assert "cannot open 'none.py'" in run("-m", "caffe_lite", "none.py", folder=tmp_path, code=1)
    (tmp_path / "tool.py").write_text("import caffe, sys; print(caffe.TEST, sys.argv[1:]); sys.exit(3)")
    assert run("-m", "caffe_lite", "-m", "tool", "x", folder=tmp_path, code=3).startswith("1 ['x']")


def test_the_script_finds_the_modules_beside_it(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "_init_paths.py").write_text("import caffe\nloaded = caffe.TRAIN")
    (tmp_path / "tools" / "train.py").write_text("import _init_paths\nprint(_init_paths.loaded)")
    assert run("-m", "caffe_lite", "tools/train.py", folder=tmp_path) == "0\n"


def test_net_surgery(tmp_path: Path) -> None:
    """A classifier becomes fully convolutional: its inner products turn into convolutions with the same numbers."""
    out = script(
        """
import numpy as np
import caffe
from caffe import layers as L, params as P

def net(size, fully_convolutional):
    n = caffe.NetSpec()
    n.data = L.Input(shape=dict(dim=[1, 1, size, size]))
    n.conv1 = L.Convolution(n.data, num_output=4, kernel_size=3, weight_filler=dict(type="xavier"))
    n.pool1 = L.Pooling(n.conv1, pool=P.Pooling.MAX, kernel_size=2, stride=2)
    if fully_convolutional:
        n["fc-conv"] = L.Convolution(n.pool1, num_output=5, kernel_size=3)
        n.prob = L.Softmax(n["fc-conv"])
    else:
        n.fc = L.InnerProduct(n.pool1, num_output=5, weight_filler=dict(type="xavier"))
        n.prob = L.Softmax(n.fc)
    name = "full.prototxt" if fully_convolutional else "plain.prototxt"
    with open(name, "w") as f:
        f.write(str(n.to_proto()))
    return name

caffe.set_mode_cpu()
plain = caffe.Net(net(8, False), caffe.TEST)
plain.save("plain.caffemodel")
full = caffe.Net(net(12, True), "plain.caffemodel", caffe.TEST)
full.params["fc-conv"][0].data.flat = plain.params["fc"][0].data.flat
full.params["fc-conv"][1].data[...] = plain.params["fc"][1].data
image = np.random.RandomState(0).rand(12, 12)
out = full.forward_all(data=np.asarray([image[None]]))["prob"]
for i, j in np.ndindex(3, 3):
    window = image[2 * i : 2 * i + 8, 2 * j : 2 * j + 8]
    np.testing.assert_allclose(out[0, :, i, j], plain.forward(data=window[None, None])["prob"][0], rtol=1e-4)
print(out.shape)
""",
        tmp_path,
    )
    assert out == "(1, 5, 3, 3)\n"


DIGITS = """
import numpy as np
from sklearn.datasets import load_digits
images, labels = load_digits(return_X_y=True)
images = (images / 16).astype(np.float32).reshape(-1, 1, 8, 8)
"""


def test_netspec_lenet_learns_digits_from_hdf5(tmp_path: Path) -> None:
    out = script(
        DIGITS
        + """
import h5py
import caffe
from caffe import layers as L, params as P

for name, part in (("train", slice(0, 1500)), ("test", slice(1500, None))):
    with h5py.File(name + ".h5", "w") as f:
        f["data"], f["label"] = images[part], labels[part].astype("float32")
    with open(name + ".txt", "w") as f:
        f.write(name + ".h5\\n")

def lenet(source, batch_size):
    n = caffe.NetSpec()
    n.data, n.label = L.HDF5Data(batch_size=batch_size, source=source, ntop=2)
    n.conv1 = L.Convolution(n.data, kernel_size=3, pad=1, num_output=16, weight_filler=dict(type="xavier"))
    n.pool1 = L.Pooling(n.conv1, kernel_size=2, stride=2, pool=P.Pooling.MAX)
    n.ip1 = L.InnerProduct(n.pool1, num_output=64, weight_filler=dict(type="xavier"))
    n.relu1 = L.ReLU(n.ip1, in_place=True)
    n.ip2 = L.InnerProduct(n.relu1, num_output=10, weight_filler=dict(type="xavier"))
    n.accuracy = L.Accuracy(n.ip2, n.label, include=dict(phase=caffe.TEST))
    n.loss = L.SoftmaxWithLoss(n.ip2, n.label)
    return n.to_proto()

for name, size in (("train", 50), ("test", 99)):
    with open(name + ".prototxt", "w") as f:
        f.write(str(lenet(name + ".txt", size)))
with open("solver.prototxt", "w") as f:
    f.write('train_net: "train.prototxt" test_net: "test.prototxt" test_iter: 3 test_interval: 100 random_seed: 1 '
            'base_lr: 0.05 momentum: 0.9 weight_decay: 5e-4 lr_policy: "inv" gamma: 0.0001 power: 0.75 '
            'max_iter: 300 snapshot_after_train: false')
solver = caffe.SGDSolver("solver.prototxt")
losses = np.zeros(200)
for it in range(200):
    solver.step(1)
    losses[it] = solver.net.blobs["loss"].data
correct = 0
for _ in range(3):
    solver.test_nets[0].forward()
    correct += sum(solver.test_nets[0].blobs["ip2"].data.argmax(1) == solver.test_nets[0].blobs["label"].data)
print(losses[:10].mean() > 4 * losses[-10:].mean(), correct > 0.9 * 297)
""",
        tmp_path,
    )
    assert out == "True True\n"


def test_two_solvers_in_one_loop_with_a_python_loss(tmp_path: Path) -> None:
    """The fine-tuning example's loop: a net with copied weights beside one from scratch, fed from memory."""
    (tmp_path / "my_layers.py").write_text(
        """
import numpy as np
import caffe

class HingeLoss(caffe.Layer):
    def setup(self, bottom, top):
        self.margin = eval(self.param_str)["margin"]
    def reshape(self, bottom, top):
        top[0].reshape(1)
    def forward(self, bottom, top):
        n = bottom[0].num
        scores, y = bottom[0].data, bottom[1].data.astype(int).ravel()
        self.sign = np.where(np.arange(scores.shape[1]) == y[:, None], -1.0, 1.0)
        self.excess = np.maximum(0, self.margin + self.sign * scores)
        top[0].data[0] = self.excess.sum() / n
    def backward(self, top, propagate_down, bottom):
        assert list(propagate_down) == [True, False]
        bottom[0].diff[...] = top[0].diff[0] * self.sign * (self.excess > 0) / bottom[0].num
"""
    )
    out = script(
        DIGITS
        + """
import caffe
from caffe import layers as L

n = caffe.NetSpec()
n.data, n.label = L.MemoryData(batch_size=50, channels=1, height=8, width=8, ntop=2)
n.ip1 = L.InnerProduct(n.data, num_output=32, weight_filler=dict(type="xavier"))
n.relu1 = L.ReLU(n.ip1, in_place=True)
n.scores = L.InnerProduct(n.relu1, num_output=10, weight_filler=dict(type="xavier"))
n.loss = L.Python(n.scores, n.label, module="my_layers", layer="HingeLoss", param_str="{'margin': 1.0}", loss_weight=1)
open("net.prototxt", "w").write(str(n.to_proto()))
open("solver.prototxt", "w").write('net: "net.prototxt" base_lr: 0.01 lr_policy: "fixed" momentum: 0.9 type: "Nesterov"')

def solver():
    s = caffe.get_solver("solver.prototxt")
    s.net.set_input_arrays(images[:1500], labels[:1500].astype(np.float32))
    return s

def run(niter, solvers):
    losses = {name: np.zeros(niter) for name, _ in solvers}
    for it in range(niter):
        for name, s in solvers:
            s.step(1)
            losses[name][it] = s.net.blobs["loss"].data.copy().item()
    return losses

first = solver()
run(120, [("first", first)])
first.net.save("first.caffemodel")
tuned, scratch = solver(), solver()
tuned.net.copy_from("first.caffemodel")
losses = run(20, [("tuned", tuned), ("scratch", scratch)])
print(losses["tuned"].mean() < 0.5 * losses["scratch"].mean(), type(tuned) is caffe.NesterovSolver)
""",
        tmp_path,
    )
    assert out == "True True\n"


def test_fast_rcnns_use_of_a_net(tmp_path: Path) -> None:
    (tmp_path / "my_data.py").write_text(
        """
import caffe
class Data(caffe.Layer):
    def set_roidb(self, roidb):
        self.roidb = roidb
    def setup(self, bottom, top):
        top[0].reshape(1, 2)
    def reshape(self, bottom, top):
        pass
    def forward(self, bottom, top):
        top[0].reshape(1, len(self.roidb))
        top[0].data[...] = self.roidb
    def backward(self, top, propagate_down, bottom):
        pass
"""
    )
    (tmp_path / "net.prototxt").write_text(
        'layer { name: "data" type: "Python" top: "rois" python_param { module: "my_data" layer: "Data" } }'
    )
    out = script(
        """
import os
import caffe
net = caffe.Net("net.prototxt", caffe.TEST)
net.name = os.path.splitext(os.path.basename("vgg16.caffemodel"))[0]
net.layers[0].set_roidb([1, 2, 3])
print(net.name, net.forward()["rois"])
""",
        tmp_path,
    )
    assert out == "vgg16 [[1. 2. 3.]]\n"
