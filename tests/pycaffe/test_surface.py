"""Every public name of pycaffe is there, with its type and its signature."""

from __future__ import annotations

import inspect
import logging
import subprocess
import sys
import time

import pytest

import caffe_lite as caffe
from caffe_lite.errors import CaffeError
from caffe_lite.pycaffe import init_log

FUNCTIONS = """get_solver has_nccl init_log layer_type_list log set_device set_mode_cpu set_mode_gpu set_multiprocess
set_random_seed set_solver_count set_solver_rank solver_count solver_rank to_proto install_as_caffe""".split()
CLASSES = """AdaDeltaSolver AdaGradSolver AdamSolver Classifier Detector Layer NCCL Net NesterovSolver NetSpec
RMSPropSolver SGDSolver Timer""".split()


def test_module_has_every_name() -> None:
    assert all(inspect.isfunction(getattr(caffe, name)) for name in FUNCTIONS)
    assert all(inspect.isclass(getattr(caffe, name)) for name in CLASSES)
    assert (caffe.TRAIN, caffe.TEST) == (0, 1)
    assert isinstance(caffe.__version__, str)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("Net.__init__", "self network_file phase level stages weights"),
        ("Net.forward", "self blobs start end kwargs"),
        ("Net.backward", "self diffs start end kwargs"),
        ("Net.forward_all", "self blobs kwargs"),
        ("Net.forward_backward_all", "self blobs diffs kwargs"),
        ("Net.set_input_arrays", "self data labels"),
        ("Classifier.__init__", "self model_file pretrained_file image_dims mean input_scale raw_scale channel_swap"),
        ("Classifier.predict", "self inputs oversample"),
        ("Detector.__init__", "self model_file pretrained_file mean input_scale raw_scale channel_swap context_pad"),
        ("Detector.detect_windows", "self images_windows"),
        ("Detector.detect_selective_search", "self image_fnames"),
        ("Detector.crop", "self im window"),
        ("Detector.configure_crop", "self context_pad"),
        ("io.blobproto_to_array", "blob return_diff"),
        ("io.array_to_blobproto", "arr diff"),
        ("io.array_to_datum", "arr label"),
        ("io.load_image", "filename color"),
        ("io.resize_image", "im new_dims interp_order"),
        ("io.oversample", "images crop_dims"),
        ("SGDSolver.solve", "self resume_file"),
    ],
)
def test_signatures(name: str, parameters: str) -> None:
    thing = caffe
    for part in name.split("."):
        thing = getattr(thing, part)
    found = inspect.signature(thing).parameters.values()
    assert [p.name for p in found if p.kind is not p.KEYWORD_ONLY] == parameters.split(), (
        "our own options have keywords"
    )


def test_layer_type_list() -> None:
    types = caffe.layer_type_list()
    assert {"Data", "Convolution", "InnerProduct", "Python", "ROIPooling"} <= set(types)
    assert list(types) == sorted(types)


def test_one_solver_on_one_device() -> None:
    assert (caffe.solver_count(), caffe.solver_rank(), caffe.has_nccl()) == (1, 0, False)
    caffe.set_solver_count(1)
    caffe.set_solver_rank(0)
    caffe.set_multiprocess(True)
    for refused in (lambda: caffe.set_solver_count(2), lambda: caffe.set_solver_rank(1), caffe.NCCL.new_uid):
        with pytest.raises(RuntimeError, match="one process trains on one device|NCCL"):
            refused()
    with pytest.raises(RuntimeError, match="NCCL"):
        caffe.NCCL(None, b"")


def test_set_device_refuses_a_negative_number() -> None:
    with pytest.raises(CaffeError, match="a device number is >= 0"):
        caffe.set_device(-1)


def test_timer_counts_milliseconds() -> None:
    timer = caffe.Timer()
    assert timer.ms == 0
    timer.start()
    time.sleep(0.02)
    timer.stop()
    measured = timer.ms
    assert 20 <= measured < 5000
    assert timer.ms == measured, "stopped"


def test_log_goes_to_stderr_from_the_level_that_init_log_sets(capsys) -> None:
    logger = logging.getLogger("caffe_lite")
    before = logger.level
    try:
        init_log()
        caffe.log("a message of INFO")
        assert "a message of INFO" in capsys.readouterr().err
        init_log(1)
        caffe.log("quiet")
        assert capsys.readouterr().err == ""
        init_log(0, False)
        caffe.log("quiet")
        assert capsys.readouterr().err == ""
    finally:
        init_log(0, False)
        logger.setLevel(before)
    with pytest.raises(ValueError, match="level must be"):
        init_log(4)


def test_import_loads_nothing_heavy() -> None:
    code = """
import sys, caffe_lite
caffe_lite.install_as_caffe()
import caffe
print([m for m in ("numba", "cv2", "scipy", "matplotlib", "h5py", "yaml") if m in sys.modules])
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
