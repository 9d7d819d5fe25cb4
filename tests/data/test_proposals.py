"""Selective search that gives the same boxes whatever the order, and the readers of .mat files."""

from __future__ import annotations

import ctypes
import os

import cv2
import numpy as np
import pytest
import scipy.io

from caffe_lite.data import proposals
from caffe_lite.data.proposals import (
    compute_proposals,
    load_dataset_mat,
    load_demo_mat,
    load_ijcv_mat,
    selective_search,
    top_boxes,
)
from caffe_lite.errors import DataError
from tests.data.voc_folder import picture


@pytest.fixture
def files(tmp_path):
    paths = []
    for i in range(4):
        paths.append(str(tmp_path / f"{i}.png"))
        cv2.imwrite(paths[-1], picture(i, 80, 60))
    return paths


def same(first, second):
    return len(first) == len(second) and all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_boxes_are_sorted_distinct_and_inside_the_image():
    boxes = selective_search(picture(0, 80, 60), min_side=8)
    assert boxes.dtype == np.uint16 and len(boxes) > 3
    assert boxes.tolist() == sorted(boxes.tolist())
    assert len(np.unique(boxes, axis=0)) == len(boxes)
    assert (boxes[:, 2] < 80).all() and (boxes[:, 3] < 60).all()
    assert (boxes[:, 2:].astype(int) - boxes[:, :2] + 1 >= 8).all()
    assert [0, 0, 79, 59] in boxes.tolist(), "the whole image is one of them, its last pixel included"


def test_an_object_is_found_to_the_pixel():
    image = np.full((60, 80, 3), 90, np.uint8)
    image[20:45, 30:62] = (20, 200, 240)
    assert [30, 20, 61, 44] in selective_search(image, sigma=0.1).tolist()


def test_boxes_do_not_depend_on_order_threads_or_random_state(files):
    alone = [selective_search(cv2.imread(path)) for path in files]
    assert same(compute_proposals(files, None, progress=False, workers=1), alone)
    libc = ctypes.CDLL("msvcrt" if os.name == "nt" else None)
    for state in (1, 99):
        libc.srand(state)  # OpenCV orders its boxes by the C library's rand()
        cv2.setRNGSeed(state)
        backwards = compute_proposals(files[::-1] + files, None, progress=False, workers=3)
        assert same(backwards, alone[::-1] + alone)


def test_top_boxes_are_a_fixed_choice_that_prefers_large_ones():
    rng = np.random.default_rng(0)
    corner = rng.integers(0, 400, (3000, 2))
    boxes = np.unique(np.hstack((corner, corner + rng.integers(1, 90, (3000, 2)))), axis=0).astype(np.uint16)
    chosen = top_boxes(boxes, 500)
    assert len(chosen) == 500 and chosen.tolist() == sorted(chosen.tolist())
    assert {*map(tuple, top_boxes(boxes, 200))} < {*map(tuple, chosen)} < {*map(tuple, boxes)}
    area = (boxes[:, 2] - boxes[:, 0] + 1.0) * (boxes[:, 3] - boxes[:, 1] + 1.0)
    taken = (boxes[:, np.newaxis] == chosen).all(axis=2).any(axis=1)
    assert area[taken].mean() > 1.3 * area.mean() and (area[taken] < np.quantile(area, 0.3)).any(), (
        "small ones occur too"
    )
    assert top_boxes(boxes, None) is boxes and top_boxes(boxes, 10**6) is boxes


def test_settings_change_the_boxes_and_wrong_ones_are_refused():
    image = picture(0, 80, 60)
    assert len(selective_search(image, "quality")) > len(selective_search(image, "fast"))
    assert len(selective_search(image, min_side=30)) < len(selective_search(image, min_side=8))
    assert len(selective_search(image, top_k=2)) == 2
    with pytest.raises(DataError, match="unknown mode 'fsat'; did you mean 'fast'"):
        selective_search(image, "fsat")
    with pytest.raises(DataError, match="inc_k must be a number > 0, got 0"):
        selective_search(image, inc_k=0)
    with pytest.raises(DataError, match="unknown setting 'sigm'; did you mean 'sigma'"):
        compute_proposals([], None, sigm=1)
    with pytest.raises(DataError, match=r"\(60, 80\) uint8"):
        selective_search(image[..., 0])


@pytest.mark.parametrize("shape", [(1, 1), (2, 90), (90, 3), (30, 200)])
def test_odd_shapes(shape):
    boxes = selective_search(np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8), min_side=1)
    assert len(boxes) and (boxes[:, 2] < shape[1]).all() and (boxes[:, 3] < shape[0]).all()


def test_cache_is_used_whatever_the_list(files, tmp_path, monkeypatch):
    cache = str(tmp_path / "cache")
    first = compute_proposals(files[:3], cache, progress=False)
    with monkeypatch.context() as patch:
        patch.setattr(proposals, "_search", lambda *_: pytest.fail("the cache was not used"))
        assert same(compute_proposals(files[2::-1], cache, progress=False), first[::-1])
        assert same(compute_proposals(files[:1], cache, top_k=2, progress=False), [top_boxes(first[0], 2)])
    assert len(list((tmp_path / "cache/proposals").iterdir())) == 3
    compute_proposals(files[:1], cache, progress=False, sigma=1.5)
    cv2.imwrite(files[1], picture(77, 80, 60))
    changed = compute_proposals(files[:3], cache, progress=False)
    assert len(list((tmp_path / "cache/proposals").iterdir())) == 5, "other settings and other pixels are other files"
    assert not np.array_equal(changed[1], first[1])


@pytest.mark.parametrize("damage", ["empty", "half", "pickle"])
def test_a_damaged_cache_file_is_made_again(files, tmp_path, damage):
    cache = tmp_path / "cache"
    expected = compute_proposals(files[:1], str(cache), progress=False)
    (file,) = (cache / "proposals").iterdir()
    whole = file.read_bytes()
    if damage == "pickle":
        np.savez(file, boxes=np.array([{"a": 1}], object))
    else:
        file.write_bytes(b"" if damage == "empty" else whole[: len(whole) // 2])
    assert same(compute_proposals(files[:1], str(cache), progress=False), expected)
    assert np.load(file, allow_pickle=False)["boxes"].dtype == np.uint16


def test_missing_and_damaged_images_are_named(files, tmp_path):
    with pytest.raises(DataError, match=r"gone\.png"):
        compute_proposals([*files, str(tmp_path / "gone.png")], None, progress=False)
    (tmp_path / "bad.png").write_bytes(b"no image")
    for cache in (None, str(tmp_path / "cache")):
        with pytest.raises(DataError, match=r"bad\.png"):
            compute_proposals([*files, str(tmp_path / "bad.png")], cache, progress=False)


def test_opencv_without_its_contributed_modules(monkeypatch):
    monkeypatch.delattr(cv2, "ximgproc")
    with pytest.raises(DataError, match="opencv-contrib-python-headless"):
        selective_search(picture(0))


# --- .mat files ----------------------------------------------------------------------------------


def cell(*arrays):
    out = np.empty((1, len(arrays)), object)
    out[0, :] = arrays
    return out


def test_dataset_file(tmp_path):
    path = str(tmp_path / "voc.mat")
    boxes = cell(np.array([[1, 2, 3, 4], [10, 20, 30, 40]], np.uint16), np.zeros((0, 4)), np.array([[5.0, 6, 7, 8]]))
    scipy.io.savemat(path, {"boxes": boxes, "images": cell("000005", "000007", "000009")})
    loaded = load_dataset_mat(path, ["000005", "000007", "000009"])
    assert [b.tolist() for b in loaded] == [[[1, 0, 3, 2], [19, 9, 39, 29]], [], [[5, 4, 7, 6]]]
    assert all(b.dtype == np.uint16 and b.shape[1] == 4 for b in loaded)
    with pytest.raises(DataError, match=r"voc\.mat: proposals of 3 images, but the image list has 2"):
        load_dataset_mat(path, ["000005", "000007"])
    with pytest.raises(DataError, match=r"voc\.mat: image 1 is '000007', but the image list has '000008'"):
        load_dataset_mat(path, ["000005", "000008", "000009"])


def test_demo_and_ranked_files_differ_by_one(tmp_path):
    path = str(tmp_path / "demo.mat")
    scipy.io.savemat(path, {"boxes": np.array([[1, 2, 3, 4], [9, 9, 9, 9]], np.uint16)})
    assert load_demo_mat(path).tolist() == [[1, 2, 3, 4], [9, 9, 9, 9]]
    assert load_ijcv_mat(path, 1).tolist() == [[0, 1, 2, 3]]
    with pytest.raises(DataError, match="not a cell.*demo file"):
        load_dataset_mat(path, ["a", "b"])


def test_damaged_mat_files_are_named(tmp_path):
    path = tmp_path / "boxes.mat"
    boxes = np.random.default_rng(0).integers(0, 500, (400, 4))
    scipy.io.savemat(path, {"boxes": np.sort(boxes, axis=1)}, do_compression=True)
    whole = path.read_bytes()
    assert len(load_demo_mat(str(path))) == 400
    half = whole[: len(whole) // 2]
    for content in (b"", whole[:60], whole[:140], half, whole[:200] + bytes(300), b"\x89HDF" + whole):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"boxes\.mat"):
            load_demo_mat(str(path))
    with pytest.raises(DataError, match=r"gone\.mat: no such"):
        load_demo_mat(str(tmp_path / "gone.mat"))
    scipy.io.savemat(path, {"regions": boxes})
    with pytest.raises(DataError, match=r"boxes\.mat: no variable 'boxes'.*regions"):
        load_demo_mat(str(path))


@pytest.mark.parametrize("row", [(0, 1, 2, 3), (4, 4, 3, 5), (1, 1, 70000, 2), (1, 1, np.inf, 2)])
def test_impossible_boxes_in_a_mat_file_are_named(tmp_path, row):
    path = str(tmp_path / "boxes.mat")
    scipy.io.savemat(path, {"boxes": np.array([(1, 1, 2, 2), row], np.float64)})
    with pytest.raises(DataError, match=r"boxes\.mat: row 1 \("):
        load_ijcv_mat(path)


@pytest.mark.parametrize("boxes", [np.zeros((3, 5)), np.array(["text"]), np.zeros((2, 2, 4))])
def test_boxes_of_another_shape(tmp_path, boxes):
    path = str(tmp_path / "boxes.mat")
    scipy.io.savemat(path, {"boxes": boxes})
    with pytest.raises(DataError, match=r"boxes\.mat: expected numbers of shape \(R, 4\)"):
        load_demo_mat(path)
