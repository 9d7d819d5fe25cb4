"""COCO: a tiny json and two pictures; ground truth, crowds, results, AP from the definition."""

from __future__ import annotations

import json
import sys

import cv2
import numpy as np
import pytest

from caffe_lite.data.coco import Coco
from caffe_lite.data.coco_eval import average_precisions
from caffe_lite.data.factory import get_imdb
from caffe_lite.data.roi_data_layer.minibatch import sampling_indices
from caffe_lite.data.roi_data_layer.roidb import add_bbox_regression_targets, prepare_roidb
from caffe_lite.data.synthetic_scene import render_scene
from caffe_lite.errors import DataError

CATEGORIES = [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}, {"id": 90, "name": "toothbrush"}]  # not in order
IMAGES = [
    {"id": 9, "file_name": "COCO_val2014_000000000009.jpg", "width": 100, "height": 80},
    {"id": 30, "file_name": "COCO_val2014_000000000030.jpg", "width": 90, "height": 70},
]


def note(number, image, category, bbox, **more):
    return {"id": number, "image_id": image, "category_id": category, "bbox": bbox, "area": bbox[2] * bbox[3], **more}


ANNOTATIONS = [
    note(1, 9, 18, [10.5, 20.9, 30.0, 40.0], iscrowd=0),
    note(2, 9, 1, [-3.0, 5.0, 500.0, 20.0], iscrowd=0),  # sticks out of the image
    note(3, 9, 1, [5.0, 5.0, 0.0, 0.0], iscrowd=0),  # no area
    note(4, 30, 90, [40.0, 30.0, 40.0, 30.0], iscrowd=1),
    note(5, 30, 18, [2.0, 2.0, 20.0, 20.0], iscrowd=0),
]


@pytest.fixture
def data(tmp_path):
    write(tmp_path)
    folder = tmp_path / "coco/images/val2014"
    folder.mkdir(parents=True)
    for i, image in enumerate(IMAGES):
        scene = render_scene(np.random.default_rng(i), (100, 100)).image
        cv2.imwrite(str(folder / image["file_name"]), cv2.resize(scene, (image["width"], image["height"])))
    return tmp_path


def write(root, name="instances_minival2014", **changes):
    folder = root / "coco/annotations"
    folder.mkdir(parents=True, exist_ok=True)
    content = {"images": IMAGES, "categories": CATEGORIES, "annotations": ANNOTATIONS, **changes}
    (folder / f"{name}.json").write_text(json.dumps(content))


def detections(imdb, *found):
    boxes = [[np.zeros((0, 5), np.float32) for _ in range(imdb.num_images)] for _ in imdb.classes]
    for name, image, box, score in found:
        k, i = imdb.classes.index(name), imdb.image_index.index(str(image))
        boxes[k][i] = np.vstack((boxes[k][i], [*box, score])).astype(np.float32)
    return boxes


def test_ground_truth(data):
    imdb = get_imdb("coco_2014_minival", data)
    assert imdb.classes == ("__background__", "person", "dog", "toothbrush"), "by category id"
    assert imdb.image_size_at(0) == (100, 80) and imdb.image_path_at(1).endswith(
        "val2014/COCO_val2014_000000000030.jpg"
    )
    first, second = imdb.gt_roidb()
    # x, y, x + w - 1, y + h - 1, clipped, cut to whole pixels
    assert first["boxes"].tolist() == [[10, 20, 39, 59], [0, 5, 99, 24]] and first["boxes"].dtype == np.uint16
    assert first["gt_classes"].tolist() == [2, 1]
    assert first["gt_overlaps"].toarray().tolist() == [[0, 0, 1, 0], [0, 1, 0, 0]]
    assert second["gt_classes"].tolist() == [3, 2]
    assert second["gt_overlaps"].toarray().tolist() == [[-1, -1, -1, -1], [0, 0, 1, 0]]


def test_what_lies_in_a_crowd_is_neither_object_nor_background(data):
    imdb = get_imdb("coco_2014_minival", data)
    inside, outside, little = (45, 35, 60, 50), (2, 2, 21, 20), (30, 20, 49, 39)
    boxes = [np.array([(0, 0, 9, 9)]), np.array([inside, outside, little, (7, 7, 7, 9)])]
    imdb.roidb_handler = lambda: imdb.with_gt(imdb.gt_roidb(), boxes)
    entry = imdb.roidb[1]
    assert entry["boxes"].tolist()[2:] == [list(inside), list(outside), list(little)], "no side under min_size 2"
    overlaps = entry["gt_overlaps"].toarray()
    assert (overlaps[2] == -1).all() and overlaps[3, 2] == np.float32(19 / 20) and overlaps[4].min() == 0
    prepare_roidb(imdb)
    fg, bg = sampling_indices(entry["max_overlaps"])
    assert fg.tolist() == [1, 3] and not {0, 2} & {*bg.tolist()}
    with pytest.warns(UserWarning, match="do not vary"):
        add_bbox_regression_targets(imdb.roidb)
    assert entry["bbox_targets"][:, 0].tolist() == [0, 2, 0, 2, 0]
    assert len(imdb.evaluate_recall().gt_overlaps) == 3, "crowds are not counted"


def test_proposals_are_selective_searchs_best_and_the_mirrored_half_trains(data):
    imdb = get_imdb("coco_2014_minival", data)
    imdb.config["top_k"] = 4
    assert [len(entry["boxes"]) for entry in imdb.roidb] == [6, 6]
    imdb.append_flipped_images()
    prepare_roidb(imdb)
    assert imdb.roidb[2]["boxes"][0].tolist() == [100 - 39 - 1, 20, 100 - 10 - 1, 59]


def test_results_file_and_both_averages(data, capsys, tmp_path):
    imdb = get_imdb("coco_2014_minival", data)
    # the dog of image 9 to the pixel; that of image 30 cut to IoU 12 / 20 = 0.6: right at IoU 0.5, 0.55 and 0.6
    found = detections(imdb, ("dog", 9, (10.5, 20.9, 39.5, 59.9), 0.9), ("dog", 30, (2, 2, 21, 13), 0.8))
    found[1][0] = np.array([(50, 60, 60, 70, 0.5)], np.float32)  # no person there
    aps = imdb.evaluate_detections(found, str(tmp_path / "out"))
    rows = json.loads((tmp_path / "out/detections_minival2014_results.json").read_text())
    assert {(row["image_id"], row["category_id"]) for row in rows} == {(9, 18), (30, 18), (9, 1)}
    dog = next(row for row in rows if row["image_id"] == 30)
    np.testing.assert_allclose(dog["bbox"] + [dog["score"]], [2, 2, 20, 12, 0.8], rtol=1e-6)
    # at 7 of the 10 IoUs one of two dogs is found: recalls 0 to 0.5 of 0, 0.01, ..., 1 have precision 1
    assert aps["dog"] == pytest.approx((3 * 1 + 7 * 51 / 101) / 10)
    assert aps["person"] == 0 and np.isnan(aps["toothbrush"]), "a class of crowds alone is left out"
    pascal = average_precisions(imdb.dataset, rows).ap50
    np.testing.assert_allclose(pascal, [0, 1, np.nan])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["AP", "%", "0.5:0.95", "0.5"]
    assert lines[2].split() == ["dog", f"{100 * aps['dog']:.1f}", "100.0"]
    assert lines[-1].split() == ["mean", f"{50 * aps['dog']:.1f}", "50.0"]


def test_no_detections_at_all(data, tmp_path):
    imdb = get_imdb("coco_2014_minival", data)
    assert imdb.evaluate_detections(detections(imdb), str(tmp_path / "out"))["dog"] == 0
    with pytest.raises(DataError, match="4 classes x 2 images, got 3 x"):
        imdb.evaluate_detections([[[], []]] * 3, str(tmp_path / "out"))


def test_a_test_set_has_results_only(data, tmp_path, capsys):
    write(tmp_path, "image_info_test-dev2015")
    path = data / "coco/annotations/image_info_test-dev2015.json"
    content = json.loads(path.read_text())
    del content["annotations"]
    path.write_text(json.dumps(content))
    imdb = get_imdb("coco_2015_test-dev", data)
    assert not imdb.has_gt
    assert imdb.evaluate_detections(detections(imdb), str(tmp_path / "out")) == {}
    assert "no AP" in capsys.readouterr().out and (tmp_path / "out/detections_test-dev2015_results.json").exists()


BAD = [
    ({"annotations": [note(7, 5, 18, [1, 1, 5, 5])]}, r"annotation 7: image_id 5, category_id 18"),
    ({"annotations": [note(7, 9, 2, [1, 1, 5, 5])]}, r"annotation 7: .*category_id 2"),
    ({"annotations": [{**note(7, 9, 18, [1, 1, 5, 5]), "bbox": [1, 2, 3]}]}, r"annotation 7: bbox must be four"),
    ({"annotations": [{**note(7, 9, 18, [1, 1, 5, 5]), "bbox": None}]}, r"annotation 7: bbox must be four"),
    ({"annotations": {}}, "expected 'annotations' to be a list"),
    ({"images": [{"id": 9}]}, "expected 'images' to be a list of objects with id, file_name, width, height"),
    ({"images": []}, "lists no image"),
    ({"categories": []}, "lists no category"),
    ({"images": IMAGES + IMAGES[:1]}, "two of the images have the same id"),
    ({"images": [{**IMAGES[0], "file_name": "../../secret.jpg"}]}, "plain name"),
    ({"images": [{**IMAGES[0], "width": 0}]}, "image 9: width and height"),
]


@pytest.mark.parametrize(("changes", "what"), BAD)
def test_bad_json_is_named(data, changes, what):
    write(data, **changes)
    with pytest.raises(DataError, match=r"instances_minival2014\.json.*" + what):
        get_imdb("coco_2014_minival", data).gt_roidb()


@pytest.mark.parametrize(
    ("text", "what"), [('{"images": [', r":1:13: malformed or truncated"), ("[]", "expected an object")]
)
def test_what_is_no_json_of_coco_is_named(data, text, what):
    (data / "coco/annotations/instances_minival2014.json").write_text(text)
    with pytest.raises(DataError, match=r"instances_minival2014\.json.*" + what):
        get_imdb("coco_2014_minival", data)


def test_absent_parts(data):
    with pytest.raises(DataError, match=r"instances_train2014\.json: no such file"):
        get_imdb("coco_2014_train", data)
    (data / "coco/images/val2014/COCO_val2014_000000000030.jpg").unlink()
    with pytest.raises(DataError, match=r"000000000030\.jpg: no such image file"):
        get_imdb("coco_2014_minival", data).roidb  # noqa: B018


def test_without_pycocotools_the_extra_is_named(data, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    with pytest.raises(DataError, match=r"pip install 'caffe-lite\[coco\]'"):
        Coco("minival", 2014, data=data)
