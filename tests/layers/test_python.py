import sys
import types

import numpy as np
import pytest

import caffe_lite
from caffe_lite.blob import HostBlob
from caffe_lite.errors import DataError, NetError

HEAD = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }'
SCALE = """
import numpy as np
import caffe_lite

class Scale(caffe_lite.Layer):
    def setup(self, bottom, top):
        assert self.param_str == self.param_str_ and self.phase == caffe_lite.TRAIN
        self.factor = float(self.param_str)

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)

    def forward(self, bottom, top):
        assert type(bottom[0].data) is np.ndarray and self.xp is np
        self.seen = [*bottom, *top]
        top[0].data[...] = self.factor * bottom[0].data

    def backward(self, top, propagate_down, bottom):
        if propagate_down[0]:
            bottom[0].diff[...] = self.factor * top[0].diff

class Weighted(Scale):
    def setup(self, bottom, top):
        self.blobs.add_blob(1)

class Broken(Scale):
    def forward(self, bottom, top):
        return {}["missing"]

class Refusing(Scale):
    def setup(self, bottom, top):
        raise caffe_lite.DataError("image 7 is empty")

class NoForward(caffe_lite.Layer):
    def reshape(self, bottom, top):
        top[0].reshape(1)

class Stranger:
    pass
"""


@pytest.fixture
def build(device, tmp_path, monkeypatch):
    """A net on each device whose second layer is a Python layer; module my_layers lies on sys.path."""
    folder = tmp_path / "code"
    (folder / "my_package").mkdir(parents=True)
    (folder / "my_layers.py").write_text(SCALE)
    (folder / "my_package" / "__init__.py").write_text("")
    (folder / "my_package" / "scale.py").write_text(SCALE)
    (folder / "needs_more.py").write_text("import a_module_that_nobody_has")
    monkeypatch.syspath_prepend(str(folder))

    def make(module, layer, param_str="2.5", top="y", more=""):
        path = tmp_path / "net.prototxt"
        path.write_text(f"""force_backward: true {HEAD}
            layer {{ name: "mine" type: "Python" bottom: "x" top: "{top}"
                    python_param {{ module: "{module}" layer: "{layer}" param_str: "{param_str}" }} }} {more}""")
        return caffe_lite.Net(path, caffe_lite.TRAIN)

    yield make
    for name in [name for name in sys.modules if name.split(".")[0] in ("my_layers", "my_package", "needs_more")]:
        del sys.modules[name]


@pytest.mark.parametrize("module", ["my_layers", "my_package.scale"])
def test_runs_forward_and_backward(build, module):
    net = build(module, "Scale", more='layer { name: "relu" type: "ReLU" bottom: "y" top: "z" }')
    assert type(net.layers[1]).__name__ == "Scale" and net.layers[1] is net.layer_dict["mine"]
    net.blobs["x"].data[...] = [[1, -2, 3], [4, 5, -6]]
    net.forward()
    np.testing.assert_array_equal(net.blobs["z"].data, [[2.5, 0, 7.5], [10, 12.5, 0]])
    net.blobs["z"].diff[...] = 1
    net.backward()
    np.testing.assert_array_equal(net.blobs["x"].diff, [[2.5, 0, 2.5], [2.5, 2.5, 0]])


def test_sees_host_copies_of_a_gpus_blobs(build, device):
    net = build("my_layers", "Scale")
    net.forward()
    assert [isinstance(blob, HostBlob) for blob in net.layers[1].seen] == [device.is_gpu] * 2


def test_may_run_in_place(build):
    net = build("my_layers", "Scale", top="x")
    net.blobs["x"].data[...] = 2
    net.forward()
    np.testing.assert_array_equal(net.blobs["x"].data, np.full((2, 3), 5.0))


def test_finds_a_module_without_a_spec(build, monkeypatch):
    script = types.ModuleType("pretended_main")  # as __main__ of a user's script
    script.__spec__ = None
    exec(compile(SCALE, "script", "exec"), script.__dict__)
    monkeypatch.setitem(sys.modules, "pretended_main", script)
    assert isinstance(build("pretended_main", "Scale").layers[1], script.Scale)


def test_falls_back_on_the_modules_of_caffe_lite_data(build, monkeypatch):
    ours = types.ModuleType("caffe_lite.data.only_ours")
    exec(compile(SCALE, "ours", "exec"), ours.__dict__)
    monkeypatch.setitem(sys.modules, "caffe_lite.data.only_ours", ours)
    assert isinstance(build("only_ours", "Scale").layers[1], ours.Scale)


def test_sys_path_comes_first(build, monkeypatch):
    ours = types.ModuleType("caffe_lite.data.my_layers")
    exec(compile(SCALE, "ours", "exec"), ours.__dict__)
    monkeypatch.setitem(sys.modules, "caffe_lite.data.my_layers", ours)
    assert type(build("my_layers", "Scale").layers[1]).__module__ == "my_layers"


@pytest.mark.parametrize(
    ("module", "layer", "message"),
    [
        ("no_such_module", "Scale", "there is no Python module 'no_such_module', on sys.path or in caffe_lite.data"),
        ("no_such_package.layer", "Scale", "there is no Python module 'no_such_package.layer'"),
        ("my_package.scael", "Scale", "Python module 'my_package.scael' does not exist"),
        ("my_layers.scale", "Scale", "Python module 'my_layers.scale' does not exist"),
        ("my_layers", "Scael", "module 'my_layers' has no class 'Scael'; did you mean 'Scale'?"),
        ("my_layers", "Stranger", "my_layers.Stranger is not a subclass of caffe_lite.Layer"),
        ("my_layers", "np", "my_layers.np is not a subclass of caffe_lite.Layer"),
        ("my_layers", "", "python_param needs module and layer, got 'my_layers' and ''"),
    ],
)
def test_a_module_or_class_that_is_not_there(build, module, layer, message):
    with pytest.raises(NetError) as caught:
        build(module, layer)
    assert "net.prototxt:2:" in str(caught.value)
    assert f"layer 'mine' (Python): {message}" in str(caught.value)


def test_what_user_code_raises_reaches_the_caller(build):
    with pytest.raises(ModuleNotFoundError, match="a_module_that_nobody_has"):
        build("needs_more", "Scale")
    with pytest.raises(ValueError, match="could not convert string to float: 'many'"):
        build("my_layers", "Scale", param_str="many")
    with pytest.raises(DataError, match=r"layer 'mine' \(Python\): image 7 is empty"):
        build("my_layers", "Refusing")
    with pytest.raises(KeyError) as caught:
        build("my_layers", "Broken").forward()
    assert caught.traceback[-1].path.name == "my_layers.py"


def test_a_method_that_is_missing_is_named(build):
    net = build("my_layers", "NoForward")
    with pytest.raises(NotImplementedError, match="layer 'mine' .*forward"):
        net.forward()


def test_may_have_parameters(build):
    net = build("my_layers", "Weighted")
    assert net.params["mine"][0].shape == (1,)
