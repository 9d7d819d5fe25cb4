"""The roidb: derived fields and regression targets as the original computed them, and bad boxes."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse

from caffe_lite.data.boxes import bbox_transform
from caffe_lite.data.roi_data_layer.roidb import (
    _compute_targets,
    _row_maxima,
    add_bbox_regression_targets,
    check_roidb,
    filter_roidb,
    prepare_roidb,
)
from caffe_lite.errors import DataError
from tests.data.roidb_maker import GOLDEN, golden_imdb, plain_image, small_entry, trainable

pytestmark = pytest.mark.usefixtures("original_settings")


def test_prepared_fields_and_targets_equal_the_originals(stand_in_images):
    golden, unnormalised = np.load(GOLDEN / "roidb.npz"), np.load(GOLDEN / "unnormalised.npz")
    imdb = golden_imdb(stand_in_images, ".png")
    prepare_roidb(imdb)
    for i, entry in enumerate(imdb.roidb):
        for key in ("max_overlaps", "max_classes"):
            np.testing.assert_array_equal(entry[key], golden[f"e{i}_{key}"])
            assert entry[key].dtype == golden[f"e{i}_{key}"].dtype
        raw = _compute_targets(entry["boxes"], entry["max_overlaps"], entry["max_classes"])
        np.testing.assert_allclose(raw, unnormalised[f"e{i}_bbox_targets"], rtol=3e-7, atol=1e-9)
    means, stds = add_bbox_regression_targets(imdb.roidb)
    np.testing.assert_allclose(means, golden["means"], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(stds, golden["stds"], rtol=1e-6, atol=1e-9)
    for i, entry in enumerate(imdb.roidb):
        assert entry["bbox_targets"].dtype == np.float32
        np.testing.assert_allclose(entry["bbox_targets"], golden[f"e{i}_bbox_targets"], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(entry["bbox_targets"][:, 0], golden[f"e{i}_bbox_targets"][:, 0])


def test_normalised_targets_have_zero_mean_and_unit_deviation_by_class(stand_in_images):
    roidb = trainable(golden_imdb(stand_in_images, ".png"))
    every = np.concatenate([entry["bbox_targets"] for entry in roidb])
    for label in np.unique(every[every[:, 0] > 0, 0]):
        of_class = every[every[:, 0] == label, 1:]
        if (of_class != 0).any():
            np.testing.assert_allclose(of_class.mean(axis=0), 0, atol=1e-4)
            np.testing.assert_allclose(of_class.std(axis=0), 1, atol=1e-3)


def test_targets_point_at_the_object_that_is_overlapped_most():
    boxes = np.array([[0, 0, 20, 20], [0, 0, 24, 30], [0, 0, 23, 27], [0, 0, 20, 7]], np.uint16)
    targets = _compute_targets(boxes, np.array([1, 1, 0.8, 0.4], np.float32), np.array([1, 2, 2, 1]))
    np.testing.assert_array_equal(targets[:2], [[1, 0, 0, 0, 0], [2, 0, 0, 0, 0]])
    np.testing.assert_allclose(targets[2], [2, *bbox_transform(boxes[2:3], boxes[1:2])[0]], rtol=1e-6)
    np.testing.assert_array_equal(targets[3], 0)  # below BBOX_THRESH


def test_an_image_without_objects_or_boxes_has_zero_targets(tmp_path):
    lonely = small_entry(tmp_path / "a.png", boxes=[(0, 0, 5, 5)], overlaps=[0.0])
    bare = small_entry(tmp_path / "b.png", boxes=[], overlaps=[])
    orphan = small_entry(tmp_path / "c.png", boxes=[(0, 0, 5, 5)], overlaps=[0.7])  # its object is not in the list
    add_bbox_regression_targets([lonely, bare, orphan])
    for entry in (lonely, bare, orphan):
        assert entry["bbox_targets"].shape == (len(entry["boxes"]), 5)
        assert not entry["bbox_targets"].any()


def test_a_class_whose_targets_are_all_equal_keeps_deviation_1_with_a_warning(tmp_path):
    entry = small_entry(tmp_path / "a.png", boxes=[(0, 0, 9, 9)], overlaps=[1.0])
    with pytest.warns(UserWarning, match="targets of class 2 do not vary"):
        means, stds = add_bbox_regression_targets([entry])
    assert entry["bbox_targets"].tolist() == [[2, 0, 0, 0, 0]]
    assert not means.any() and stds.tolist() == [0] * 8 + [1] * 4  # background and absent classes: 0


def test_one_constant_coordinate_leaves_the_others_normalised(tmp_path):
    """A proposal beside its object, of its size: dx varies; dy, dw and dh are 0."""
    entry = small_entry(tmp_path / "a.png", boxes=[(0, 0, 9, 9), (3, 0, 12, 9)], overlaps=[1.0, 0.6])
    with pytest.warns(UserWarning, match="class 2"):
        means, stds = add_bbox_regression_targets([entry])
    assert means[8:] == pytest.approx([-1 / 6, 0, 0, 0]) and stds[8:] == pytest.approx([1 / 6, 1, 1, 1])
    np.testing.assert_allclose(entry["bbox_targets"], [[2, 1, 0, 0, 0], [2, -1, 0, 0, 0]], atol=1e-6)


def test_images_without_a_roi_to_train_on_can_be_dropped(tmp_path):
    useful = small_entry(tmp_path / "a.png")
    empty = small_entry(tmp_path / "b.png", overlaps=[0.05, 0.0, 0.0])
    assert filter_roidb([useful, empty]) == [useful]


@pytest.mark.parametrize(
    ("box", "why"),
    [
        ((9, 0, 8, 5), "x2 < x1"),
        ((0, 9, 5, 8), "y2 < y1"),
        ((0, 0, 30, 5), "outside the image, which is 30 x 20"),
        ((0, 0, 5, 20), "outside the image"),
        ((65535, 0, 65535, 5), "outside the image"),  # -1 as uint16
    ],
)
def test_a_bad_box_is_named_with_its_image_and_row(tmp_path, box, why):
    image = plain_image(tmp_path / "a.png", (0, 0, 0))
    good = small_entry(image)
    check_roidb([good])
    bad = small_entry(image, boxes=[(0, 0, 29, 19), box], overlaps=[1.0, 0.5], flipped=True)
    with pytest.raises(DataError) as caught:
        check_roidb([good, bad])
    for word in ("a.png (mirrored)", "proposal in row 1", str(box), why):
        assert word in str(caught.value)
    bad = small_entry(image, boxes=[box], overlaps=[1.0])
    with pytest.raises(DataError, match="object 0 of class 2"):
        check_roidb([bad])


def test_prepare_checks_boxes_and_overlaps(tmp_path):
    def imdb(entry):
        return SimpleNamespace(roidb=[entry], image_path_at=lambda i: str(tmp_path / "a.png"))

    plain_image(tmp_path / "a.png", (0, 0, 0))
    with pytest.raises(DataError, match="outside the image"):
        prepare_roidb(imdb(small_entry("", boxes=[(0, 0, 99, 9)], overlaps=[1.0])))
    background = small_entry("", boxes=[(0, 0, 9, 9)], overlaps=[0.0])
    background["gt_overlaps"] = scipy.sparse.csr_matrix(np.array([[0.5, 0, 0]], np.float32))
    with pytest.raises(DataError, match="row 0: overlap 0.5 with class 0"):
        prepare_roidb(imdb(background))
    with pytest.raises(DataError, match=r"a\.png: cannot read"):
        (tmp_path / "a.png").unlink()
        prepare_roidb(imdb(small_entry("")))


@pytest.mark.parametrize("sorted_columns", [True, False])
def test_derived_fields_are_row_maximum_and_first_argmax_of_the_dense_overlaps(tmp_path, sorted_columns):
    rng = np.random.default_rng(0)
    dense = rng.choice(np.float32([0, 0, 0, 0.25, 0.5, 1]), (200, 5))
    dense[:, 0] = 0
    dense[:7] = -1  # crowds
    dense[7:9] = [(0, -1, -1, -1, -1), (-1, 0, -1, -1, -1)]
    sparse = scipy.sparse.csr_matrix(dense)
    if not sorted_columns:
        rows = [slice(*sparse.indptr[i : i + 2]) for i in range(200)]
        parts = (np.concatenate([a[r][::-1] for r in rows]) for a in (sparse.data, sparse.indices))
        sparse = scipy.sparse.csr_matrix((*parts, sparse.indptr), shape=dense.shape)
    sparse.data[sparse.data == 0.25] = 0  # zeros that are stored
    dense[dense == 0.25] = 0
    values, columns = _row_maxima(sparse)
    np.testing.assert_array_equal(values, dense.max(axis=1))
    np.testing.assert_array_equal(columns, dense.argmax(axis=1))
    assert values.dtype == np.float32 and columns.dtype == np.int64
