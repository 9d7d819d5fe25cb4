"""The synthetic devkit: a function of its settings, readable as VOC, coverable by selective search."""

from __future__ import annotations

import json
import os

import cv2
import numpy as np
import pytest

from caffe_lite.data import synthetic, synthetic_scene
from caffe_lite.data.factory import get_imdb
from caffe_lite.data.synthetic import make_devkit
from caffe_lite.data.synthetic_scene import CLASSES, Scene, SceneObject, render_scene
from caffe_lite.errors import DataError

SMALL = {"trainval": 3, "test": 2}


def contents(folder):
    found = {}
    for here, _, files in os.walk(folder):
        for file in files:
            path = os.path.join(here, file)
            with open(path, "rb") as stream:
                found[os.path.relpath(path, folder)] = stream.read()
    return found


def scene(i, seed=3, size=(200, 150)):
    return render_scene(np.random.default_rng([seed, i]), size)


@pytest.fixture(scope="module")
def many():
    return [scene(i) for i in range(120)]


def test_the_same_settings_make_the_same_bytes(tmp_path):
    first, second = (contents(make_devkit(tmp_path / folder, images=SMALL)) for folder in "ab")
    assert first == second and len(first) == 5 * 2 + 2 + 2
    other = contents(make_devkit(tmp_path / "c", seed=4, images=SMALL))
    image = "VOCdevkit2007/VOC2007/JPEGImages/000001.jpg"
    assert other[image] != first[image]


def test_a_larger_set_begins_with_the_smaller_ones_images(tmp_path):
    small = contents(make_devkit(tmp_path / "a", images={"trainval": 2}))
    large = contents(make_devkit(tmp_path / "b", images={"trainval": 4}))
    for name in ("000001", "000002"):
        for part in (f"JPEGImages/{name}.jpg", f"Annotations/{name}.xml"):
            path = f"VOCdevkit2007/VOC2007/{part}"
            assert small[path] == large[path]


def test_pixels_are_bit_identical_and_depend_on_the_seed_only():
    np.random.seed(0)
    cv2.setRNGSeed(5)
    first = scene(0)
    np.random.seed(9)
    assert np.array_equal(first.image, scene(0).image) and first.objects == scene(0).objects
    assert not np.array_equal(first.image[:100, :100], scene(1).image[:100, :100])


def test_it_is_read_as_voc(tmp_path):
    imdb = get_imdb("voc_2007_trainval", make_devkit(tmp_path / "d", images={"trainval": 4}))
    assert imdb.classes == ("__background__", *CLASSES) and imdb.num_images == 4
    for i, (entry, noted) in enumerate(zip(imdb.gt_roidb(), imdb.annotations(), strict=True)):
        expected = synthetic._scene(synthetic._checked_settings(3, {"trainval": 4}, (200, 150)), "trainval", i)
        assert [tuple(b) for b in entry["boxes"]] == [item.box for item in expected.objects]
        assert [CLASSES[c - 1] for c in entry["gt_classes"]] == [CLASSES[item.shape] for item in expected.objects]
        assert noted.difficult.tolist() == [item.difficult for item in expected.objects]
        stored = cv2.imread(imdb.image_path_at(i)).astype(float)
        assert np.abs(stored - expected.image).mean() < 8, "JPEG keeps the picture"


def test_scenes_have_all_that_is_promised(many):
    items = [(s, item) for s in many for item in s.objects]
    assert 1.5 < len(items) / len(many) < 3
    counts = np.bincount([item.shape for _, item in items], minlength=len(CLASSES))
    assert counts.min() > 0.5 * counts.mean()
    for flag, low, high in (("difficult", 0.02, 0.12), ("occluded", 0.28, 0.5), ("truncated", 0.05, 0.3)):
        assert low < np.mean([getattr(item, flag) for _, item in items]) < high, flag
    sides = []
    for s, item in items:
        x1, y1, x2, y2 = item.box
        assert 0 <= x1 < x2 < s.image.shape[1] and 0 <= y1 < y2 < s.image.shape[0]
        sides.append(max(x2 - x1, y2 - y1) + 1)
    assert np.quantile(sides, 0.1) > 35 and max(sides) <= 115
    assert all(1 <= len(s.objects) <= 4 for s, _ in items)


def test_colour_does_not_tell_the_class(many):
    """The mean colours of the classes differ by far less than the objects' own."""
    colours = {k: [] for k in range(len(CLASSES))}
    for s in many:
        for item in s.objects:
            x1, y1, x2, y2 = item.box
            colours[item.shape].append(s.image[y1 : y2 + 1, x1 : x2 + 1].mean(axis=(0, 1)))
    spread = np.concatenate(list(colours.values())).std(axis=0)
    means = np.array([np.mean(c, axis=0) for c in colours.values()])
    assert (means.std(axis=0) < 0.45 * spread).all()


@pytest.mark.parametrize("name", CLASSES)
def test_shapes_are_what_they_are_called(name):
    """Area and inside points, from the definitions."""
    grid = (np.arange(-240, 240) + 0.5) / 200
    u, v = np.meshgrid(grid, grid)
    inside = synthetic_scene._distance(CLASSES.index(name), u, v) < 0
    at = lambda x, y: bool(inside[int(y * 200) + 240, int(x * 200) + 240])  # noqa: E731
    areas = {
        "disc": np.pi * 0.95**2,
        "ring": np.pi * (1.0 - 0.48**2),
        "square": 1.64**2,
        "triangle": 0.5 * 1.9 * 1.75,
        "star": 5 * np.sin(np.pi / 5) * 1.1 * 0.42,
        "cross": 2 * (0.6 * 2.0) - 0.6**2,
    }
    assert inside.sum() / 200**2 == pytest.approx(areas[name], rel=0.01)
    assert at(0, 0) == (name != "ring")
    assert at(0.75, -0.75) == (name == "square")
    assert at(0, -0.9) == (name != "square")


def test_polygon_distance_is_the_distance():
    corners = synthetic_scene._POLYGONS["square"]
    u, v = np.array([[0.0, 0.82, 1.82, 1.82]]), np.array([[0.0, 0.5, 0.0, 1.82]])
    found = synthetic_scene._polygon_distance(corners, u, v)
    np.testing.assert_allclose(found, [[-0.82, 0, 1, np.sqrt(2)]], atol=1e-12)


def test_the_box_is_that_of_the_visible_part():
    alpha, seen = np.zeros((60, 80)), np.zeros((60, 80))
    alpha[10:40, 20:60] = 1
    seen[10:40, 20:45] = 1
    whole = slice(None), slice(None)
    placed = synthetic_scene._Placed(2, whole, alpha, np.zeros((60, 80, 3)), area=1200.0)
    assert synthetic_scene._describe(placed, seen) == SceneObject(2, (20, 10, 44, 39), False, True, False)
    cut = placed._replace(area=2000.0)  # two fifths lie outside the image; 750 of 2000 pixels are seen
    assert synthetic_scene._describe(cut, seen) == SceneObject(2, (20, 10, 44, 39), True, True, True)
    assert synthetic_scene._describe(placed, 0 * seen) is None


def test_selective_search_covers_the_objects(tmp_path):
    imdb = get_imdb("synthetic_test", make_devkit(tmp_path / "d", images={"test": 14}))
    imdb.config["selective_search"] = {"progress": False}
    recall = imdb.evaluate_recall()
    count = np.mean([(entry["gt_classes"] == 0).sum() for entry in imdb.roidb])
    assert len(recall.gt_overlaps) > 20 and recall.at(0.5) > 0.95 and recall.ar > 0.7 and 50 < count < 400


def test_an_own_devkit_is_reused_and_nothing_else_is_touched(tmp_path):
    folder = make_devkit(tmp_path / "d", images=SMALL)
    os.makedirs(tmp_path / "d/cache")
    before = {p: os.stat(os.path.join(folder, p)).st_mtime_ns for p in contents(folder)}
    assert make_devkit(tmp_path / "d", images=SMALL) == folder
    assert before == {p: os.stat(os.path.join(folder, p)).st_mtime_ns for p in contents(folder)}
    with pytest.raises(DataError, match="'seed': 3.*asked for.*'seed': 8"):
        make_devkit(tmp_path / "d", seed=8, images=SMALL)


def test_a_foreign_folder_is_refused(tmp_path):
    (tmp_path / "letters.txt").write_text("mine")
    with pytest.raises(DataError, match=r"not empty \(letters\.txt\)"):
        make_devkit(tmp_path, images=SMALL)
    assert os.listdir(tmp_path) == ["letters.txt"]


def test_a_foreign_devkit_is_refused(tmp_path):
    os.makedirs(tmp_path / "VOCdevkit2007/VOC2007")
    with pytest.raises(DataError, match="not made here"):
        make_devkit(tmp_path, images=SMALL)
    for manifest in ("[1]", "{}", "nonsense", '{"settings": 3}'):
        (tmp_path / "VOCdevkit2007/manifest.json").write_text(manifest)
        with pytest.raises(DataError, match="not made here"):
            make_devkit(tmp_path, images=SMALL)


def test_a_changed_devkit_is_refused(tmp_path):
    folder = make_devkit(tmp_path / "d", images=SMALL)
    with open(os.path.join(folder, "VOCdevkit2007/VOC2007/Annotations/000002.xml"), "a") as stream:
        stream.write("\n")
    with pytest.raises(DataError, match="changed after it was made"):
        make_devkit(tmp_path / "d", images=SMALL)


def test_an_interrupted_run_leaves_nothing_and_can_be_repeated(tmp_path, monkeypatch):
    calls = []

    def interrupt(name, *made):
        calls.append(name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(name, *made)

    original = synthetic.annotation_xml
    with monkeypatch.context() as patch:
        patch.setattr(synthetic, "annotation_xml", interrupt)
        with pytest.raises(KeyboardInterrupt):
            make_devkit(tmp_path / "d", images=SMALL)
    assert os.listdir(tmp_path / "d") == []
    make_devkit(tmp_path / "d", images=SMALL)
    manifest = json.loads((tmp_path / "d/VOCdevkit2007/manifest.json").read_text())
    assert manifest["settings"]["images"] == SMALL


@pytest.mark.parametrize(
    "wrong", [{"images": {"trainval": 0}}, {"images": {"../up": 2}}, {"size": (40, 150)}, {"seed": -1}]
)
def test_unusable_settings(tmp_path, wrong):
    with pytest.raises(DataError, match="synthetic devkit"):
        make_devkit(tmp_path / "d", **{"images": SMALL, **wrong})
    assert not (tmp_path / "d").exists()


def test_an_unwritable_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="file"):
        make_devkit(tmp_path / "file", images=SMALL)
    with pytest.raises(DataError, match="file"):
        make_devkit(tmp_path / "file" / "below", images=SMALL)


def test_annotation_counts_from_one():
    item = SceneObject(0, (0, 4, 9, 14), truncated=False, occluded=True, difficult=True)
    text = synthetic.annotation_xml("000001", Scene(np.zeros((20, 30, 3), np.uint8), [item]))
    assert "<xmin>1</xmin><ymin>5</ymin><xmax>10</xmax><ymax>15</ymax>" in text
    assert "<width>30</width>" in text and "<name>disc</name>" in text
    assert "<occluded>1<" in text and "<difficult>1<" in text and "<truncated>0<" in text


def test_years_stand_side_by_side_with_scenes_of_their_own(tmp_path):
    data = make_devkit(tmp_path / "d", images=SMALL)
    before = contents(data)
    assert make_devkit(data, images=SMALL, year=2012) == data
    after = contents(data)
    assert {name: after[name] for name in before} == before
    later = get_imdb("synthetic_2012_trainval", data)
    assert later.image_index == ["2012_000001", "2012_000002", "2012_000003"] and not later.use_07_metric
    first, second = (after[f"VOCdevkit{y}/VOC{y}/JPEGImages/{n}000001.jpg"] for y, n in ((2007, ""), (2012, "2012_")))
    assert first != second
    union = get_imdb("synthetic_2007_trainval+synthetic_2012_trainval", data)
    assert union.num_images == 6 and union.classes == ("__background__", *CLASSES)
    make_devkit(data, images=SMALL, year="2012")  # is there already
    with pytest.raises(DataError, match="made with"):
        make_devkit(data, seed=9, images=SMALL, year=2012)
    with pytest.raises(DataError, match="years 2007, 2008.*2013"):
        make_devkit(data, year=2013)
