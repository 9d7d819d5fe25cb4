"""PascalVoc and the names of datasets, on folders of a few tiny images."""

from __future__ import annotations

import os

import cv2
import numpy as np
import pytest
import scipy.io

from caffe_lite.data import pascal_voc
from caffe_lite.data.factory import get_imdb, list_imdbs
from caffe_lite.data.pascal_voc import ENVIRONMENT, VOC_CLASSES, PascalVoc, data_root, find_devkit
from caffe_lite.data.roi_data_layer.roidb import prepare_roidb
from caffe_lite.errors import DataError
from tests.data.voc_folder import annotation, make_voc

CAT = ("cat", (3, 5, 20, 30), 0)
DOG = ("dog", (1, 1, 64, 48), 1)  # the whole image, difficult
SETS = {"trainval": {"a1": [CAT, DOG], "a2": []}, "test": {"b1": [("cow", (2, 2, 9, 9), 0)]}}


@pytest.fixture
def voc(tmp_path):
    return make_voc(tmp_path, SETS)


@pytest.fixture
def one(tmp_path):
    """Write one annotation text for the single image of ``train`` and return the dataset."""

    def build(text):
        folder = make_voc(tmp_path, {"train": {"im": []}})
        (folder / "Annotations/im.xml").write_text(text)
        return PascalVoc("train", 2007, data=tmp_path)

    return build


# --- where it lies -------------------------------------------------------------------------------


def test_devkit_is_searched_in_the_stated_order(tmp_path):
    for devkit in (".", "VOCdevkit", "VOCdevkit2007"):  # each is preferred to the one before
        make_voc(tmp_path, SETS, devkit=devkit)
        assert os.path.samefile(find_devkit(str(tmp_path), "2007"), tmp_path / devkit)
    with pytest.raises(DataError) as error:
        find_devkit(str(tmp_path), "2012")
    for tried in ("VOCdevkit2012/VOC2012", "VOCdevkit/VOC2012", f"{tmp_path.name}/VOC2012"):
        assert os.path.normpath(tried) in str(error.value)


def test_dataset_folder_comes_from_the_flag_then_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "elsewhere"))
    assert data_root(tmp_path) == str(tmp_path)
    with pytest.raises(DataError, match=f"elsewhere: no such folder.*{ENVIRONMENT}"):
        data_root()
    monkeypatch.delenv(ENVIRONMENT)
    with pytest.raises(DataError, match=f"--data.*{ENVIRONMENT}"):
        data_root()


def test_classes_are_vocs_unless_a_file_names_others(tmp_path, voc):
    assert PascalVoc("test", "2007", data=tmp_path).classes == ("__background__", "cat", "dog", "cow")
    (voc / "classes.txt").unlink()
    imdb = PascalVoc("test", "2007", data=tmp_path)
    assert imdb.classes == ("__background__", *VOC_CLASSES) and imdb.num_classes == 21


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("cat\nCat", ":2.*twice"),
        ("cat\na/b\n", ":2.*file name"),
        ("\n\n", "no class names"),
        ("x\n__background__", ":2"),
    ],
)
def test_bad_class_files(tmp_path, voc, text, what):
    (voc / "classes.txt").write_text(text)
    with pytest.raises(DataError, match=f"classes.txt.*{what}|classes.txt{what}"):
        PascalVoc("test", "2007", data=tmp_path)


@pytest.mark.parametrize(
    ("text", "what"), [("a1\na1\n", ":2: .*'a1'.*line 1"), ("a1 1\n", ":1: .*one image name"), ("\n", "lists no image")]
)
def test_bad_image_lists(tmp_path, voc, text, what):
    (voc / "ImageSets/Main/trainval.txt").write_text(text)
    with pytest.raises(DataError, match=r"trainval\.txt" + what if what[0] == ":" else r"trainval\.txt.*" + what):
        PascalVoc("trainval", "2007", data=tmp_path)


def test_missing_image_list_tells_what_there_is(tmp_path, voc):
    with pytest.raises(DataError, match=r"val\.txt.*there is test, trainval"):
        PascalVoc("val", "2007", data=tmp_path)


# --- ground truth --------------------------------------------------------------------------------


def test_ground_truth_counts_from_zero_and_includes_difficult_objects(tmp_path, voc):
    imdb = PascalVoc("trainval", "2007", data=tmp_path)
    first, second = imdb.gt_roidb()
    assert first["boxes"].tolist() == [[2, 4, 19, 29], [0, 0, 63, 47]] and first["boxes"].dtype == np.uint16
    assert first["gt_classes"].tolist() == [1, 2]
    assert first["gt_overlaps"].toarray().tolist() == [[0, 1, 0, 0], [0, 0, 1, 0]]
    assert second["boxes"].shape == (0, 4) and second["gt_overlaps"].shape == (0, 4)
    assert imdb.annotations()[0].difficult.tolist() == [False, True]
    imdb.config["use_diff"] = False
    assert imdb.gt_roidb()[0]["gt_classes"].tolist() == [1]


def test_year_2012_reads_its_own_folder_and_cuts_fractions(tmp_path):
    objects = [("Cat", (3.7, 5.0, 20.9, 30.2), 0)]  # a class is found whatever its capitals
    make_voc(tmp_path, {"train": {"2008_000001": objects}}, year="2012", devkit="VOCdevkit2012")
    entry = get_imdb("voc_2012_train", tmp_path).gt_roidb()[0]
    assert entry["boxes"].tolist() == [[2, 4, 19, 29]] and entry["gt_classes"].tolist() == [1]


def test_pngs_are_found_too(tmp_path, voc):
    image = cv2.imread(str(voc / "JPEGImages/a1.jpg"))
    (voc / "JPEGImages/a1.jpg").unlink()
    cv2.imwrite(str(voc / "JPEGImages/a1.png"), image)
    imdb = PascalVoc("trainval", "2007", data=tmp_path)
    assert imdb.image_path_at(0).endswith("a1.png") and len(imdb.gt_roidb()) == 2


BAD_OBJECTS = [
    ([CAT, ("dgo", (1, 1, 5, 5), 0)], r":6: object 1 \('dgo'\): unknown class; did you mean 'dog'\?"),
    ([("zebra", (1, 1, 5, 5), 0)], r"'zebra'.*the classes are cat, dog, cow"),
    ([("cat", (9, 1, 5, 5), 0)], r"object 0 \('cat'\): xmax < xmin: .* 9, 1, 5, 5"),
    ([("cat", (1, 9, 5, 5), 0)], r"ymax < ymin"),
    ([("cat", (1, 1, 65, 5), 0)], r":4: object 0 \('cat'\): the box is outside the image of 64x48 pixels: .* 65, 5"),
    ([("cat", (1, 1, 5, 49), 0)], r"outside the image"),
    ([("cat", (0, 1, 5, 5), 0)], r"outside.*counts from 1"),
    ([("cat", ("one", 1, 5, 5), 0)], r"<xmin> must be a number, got 'one'"),
    ([("cat", ("nan", 1, 5, 5), 0)], r"<xmin> must be a number"),
    ([("cat", ("1e99", 1, 5, 5), 0)], r"<xmin> must be a number"),
    ([("cat", (1, 1, 5, 5), 7)], r"<difficult> must be 0 or 1, got '7'"),
    ([("", (1, 1, 5, 5), 0)], r":2: object 0: no <name>"),
]


@pytest.mark.parametrize(("objects", "what"), BAD_OBJECTS)
def test_bad_objects_are_named(one, objects, what):
    with pytest.raises(DataError, match=r"im\.xml.*" + what if what[0] != ":" else r"im\.xml" + what):
        one(annotation(objects)).gt_roidb()


BOMB = '<!DOCTYPE a [<!ENTITY b "bbbbbbbb"><!ENTITY c "&b;&b;&b;&b;">]>\n<annotation>&c;</annotation>'
BAD_FILES = [
    (annotation([CAT])[:80], r":\d+: malformed XML: .*truncated"),
    ("<annotation>\n<object>\n</annotation>\n", r":3: malformed XML: mismatched tag$"),
    ("", ":1: malformed XML: no element found"),
    ('<?xml version="1.0" encoding="klingon"?><annotation/>', r": malformed XML|:1: malformed XML"),
    (BOMB, ":1: a document type"),
    ("<html></html>", ":1: expected <annotation>, got <html>"),
    ("<annotation>\n<object><name>cat</name></object></annotation>", r":2: object 0 \('cat'\): no <bndbox>"),
    ("<annotation><object><name>cat</name><bndbox><xmin>1</xmin></bndbox></object></annotation>", "no <ymin>"),
]


@pytest.mark.parametrize(("text", "what"), BAD_FILES)
def test_bad_annotation_files_are_named_with_their_line(one, text, what):
    with pytest.raises(DataError, match=rf"im\.xml({what})" if what[0] == ":" else rf"im\.xml.*{what}"):
        one(text).gt_roidb()


@pytest.mark.parametrize("part", ["JPEGImages/a2.jpg", "Annotations/a2.xml"])
def test_missing_files_are_named(tmp_path, voc, part):
    (voc / part).unlink()
    imdb = PascalVoc("trainval", "2007", data=tmp_path)
    with pytest.raises(DataError, match=os.path.basename(part)):
        imdb.roidb  # noqa: B018


def test_a_truncated_image_is_named(tmp_path, voc):
    path = voc / "JPEGImages/a2.jpg"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"a2\.jpg"):
        PascalVoc("trainval", "2007", data=tmp_path).roidb  # noqa: B018


# --- the cache -----------------------------------------------------------------------------------


def test_ground_truth_is_cached_until_a_file_changes(tmp_path, voc, monkeypatch):
    before = PascalVoc("trainval", "2007", data=tmp_path).gt_roidb()
    with monkeypatch.context() as patch:
        patch.setattr(pascal_voc, "read_annotation", lambda *_: pytest.fail("the cache was not used"))
        again = PascalVoc("trainval", "2007", data=tmp_path).gt_roidb()
    for a, b in zip(before, again, strict=True):
        np.testing.assert_array_equal(a["boxes"], b["boxes"])
        np.testing.assert_array_equal(a["gt_classes"], b["gt_classes"])
    (voc / "Annotations/a2.xml").write_text(annotation([CAT]))
    assert PascalVoc("trainval", "2007", data=tmp_path).gt_roidb()[1]["gt_classes"].tolist() == [1]
    (voc / "classes.txt").write_text("dog\ncat\ncow\n")
    assert PascalVoc("trainval", "2007", data=tmp_path).gt_roidb()[1]["gt_classes"].tolist() == [2]


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 nonsense", None])
def test_a_damaged_cache_is_made_again(tmp_path, voc, damage):
    expected = PascalVoc("trainval", "2007", data=tmp_path).gt_roidb()[0]["boxes"]
    file = tmp_path / "cache/voc_2007_trainval_gt.npz"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    np.testing.assert_array_equal(PascalVoc("trainval", "2007", data=tmp_path).gt_roidb()[0]["boxes"], expected)
    np.load(file, allow_pickle=False)["boxes"]


def test_an_unwritable_cache_folder_is_only_a_warning(tmp_path, voc):
    (tmp_path / "file").write_text("")
    imdb = PascalVoc("trainval", "2007", data=tmp_path, cache_folder=tmp_path / "file")
    with pytest.warns(UserWarning, match="not kept"):
        assert len(imdb.roidb) == 2


# --- proposals -----------------------------------------------------------------------------------


def test_original_selective_search_file_is_used(tmp_path, voc):
    cells = np.empty((1, 2), object)
    cells[0, 0] = np.array([[5, 3, 30, 20], [1, 1, 48, 64]], np.float64)  # y1 x1 y2 x2, from 1
    cells[0, 1] = np.array([[1, 2, 3, 4]], np.float64)
    (tmp_path / "selective_search_data").mkdir()
    scipy.io.savemat(tmp_path / "selective_search_data/voc_2007_trainval.mat", {"boxes": cells})
    first, second = PascalVoc("trainval", "2007", data=tmp_path).roidb
    assert first["boxes"].tolist() == [[2, 4, 19, 29], [0, 0, 63, 47], [2, 4, 19, 29], [0, 0, 63, 47]]
    assert first["gt_classes"].tolist() == [1, 2, 0, 0]
    np.testing.assert_array_equal(first["gt_overlaps"].toarray()[2:].max(axis=1), [1, 1])
    assert second["boxes"].tolist() == [[1, 0, 3, 2]]


def test_ranked_selective_search_files_are_cut_at_top_k(tmp_path, voc):
    folder = tmp_path / "selective_search_IJCV_data/voc_2007"
    folder.mkdir(parents=True)
    boxes = np.stack([np.arange(1, 41), np.full(40, 2), np.full(40, 60), np.full(40, 40)], axis=1)
    for name in ("a1", "a2"):
        scipy.io.savemat(folder / f"{name}.mat", {"boxes": boxes})
    imdb = PascalVoc("trainval", "2007", data=tmp_path)
    imdb.config["top_k"] = 30
    imdb.roidb_handler = imdb.selective_search_ijcv_roidb
    assert imdb.roidb[1]["boxes"].shape == (30, 4) and imdb.roidb[1]["boxes"][29].tolist() == [29, 1, 59, 39]


def test_proposals_are_computed_where_there_is_no_file(tmp_path, voc):
    imdb = PascalVoc("trainval", "2007", data=tmp_path)
    imdb.config["selective_search"] = {"min_side": 8, "progress": False}
    entry = imdb.roidb[0]
    assert entry["gt_classes"].tolist()[:2] == [1, 2] and not entry["gt_classes"][2:].any() and len(entry["boxes"]) > 3
    prepare_roidb(imdb)  # every box lies in its image
    assert len(list((tmp_path / "cache/proposals").iterdir())) == 2


def test_images_without_annotations_have_proposals_and_results_files_only(tmp_path, capsys):
    folder = make_voc(tmp_path, {"test": {"im": [CAT]}}, year="2012", devkit="VOCdevkit")
    (folder / "Annotations/im.xml").unlink()
    imdb = PascalVoc("test", "2012", data=tmp_path)
    assert not imdb.has_gt and (imdb.roidb[0]["gt_classes"] == 0).all()
    imdb.competition_mode(True)
    assert imdb.evaluate_detections(detections(imdb), str(tmp_path / "out")) == {}
    assert "no AP" in capsys.readouterr().out and (tmp_path / "out/comp4_det_test_cat.txt").exists()


# --- evaluation ----------------------------------------------------------------------------------


def detections(imdb, *found):
    """all_boxes with (class, image, box, score) entries."""
    boxes = [[np.zeros((0, 5), np.float32) for _ in range(imdb.num_images)] for _ in imdb.classes]
    for name, image, box, score in found:
        k, i = imdb.classes.index(name), imdb.image_index.index(image)
        boxes[k][i] = np.vstack((boxes[k][i], [*box, score])).astype(np.float32)
    return boxes


def test_evaluation_ignores_difficult_objects_and_prints_a_table(tmp_path, voc, capsys):
    imdb = PascalVoc("trainval", "2007", data=tmp_path)
    found = detections(imdb, ("cat", "a1", (2, 4, 19, 29), 0.9), ("dog", "a1", (0, 0, 63, 47), 0.8))
    aps = imdb.evaluate_detections(found, str(tmp_path / "out"))
    assert list(aps) == ["cat", "dog", "cow"]
    assert aps["cat"] == 1.0 and np.isnan(aps["dog"]) and np.isnan(aps["cow"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["cat", "100.0"] and lines[-1].split() == ["mAP", "100.0"]
    assert len({len(line) for line in lines[1:]}) == 1, "columns are aligned"
    assert not list((tmp_path / "out").glob("comp4*")), "results files are removed"


def test_a_wrong_detection_halves_the_precision(tmp_path, voc):
    imdb = PascalVoc("test", "2007", data=tmp_path)
    found = detections(imdb, ("cow", "b1", (40, 20, 60, 40), 0.9), ("cow", "b1", (1, 1, 8, 8), 0.5))
    assert imdb.evaluate_detections(found, str(tmp_path / "out"))["cow"] == pytest.approx(0.5)


def test_years_have_their_own_metric(tmp_path):
    """Half of the objects found: 6 of the 11 recalls are reached, but half of the area (from 2010 on)."""
    objects = {"im": [("cat", (1, 1, 9, 9), 0), ("cat", (20, 20, 40, 40), 0)]}
    expected = {"2007": 6 / 11, "2009": 6 / 11, "2010": 0.5, "2012": 0.5}
    for year in expected:
        make_voc(tmp_path, {"val": objects}, year=year, devkit=f"VOCdevkit{year}")
        imdb = PascalVoc("val", year, data=tmp_path)
        found = detections(imdb, ("cat", "im", (0, 0, 8, 8), 0.9))
        assert imdb.evaluate_detections(found, str(tmp_path / "out"))["cat"] == pytest.approx(expected[year])


def test_competition_files_have_the_kits_name_place_and_format(tmp_path, voc):
    imdb = PascalVoc("test", "2007", data=tmp_path)
    imdb.competition_mode(True)
    imdb.evaluate_detections(detections(imdb, ("cow", "b1", (1, 1, 8, 8), 0.12345)))
    folder = tmp_path / "VOCdevkit2007/results/VOC2007/Main"
    names = ["comp4_det_test_cat.txt", "comp4_det_test_cow.txt", "comp4_det_test_dog.txt"]
    assert sorted(p.name for p in folder.iterdir()) == names
    assert (folder / "comp4_det_test_cow.txt").read_text() == "b1 0.123 2.0 2.0 9.0 9.0\n"
    imdb.config["comp_id"] = "comp3"
    imdb.evaluate_detections(detections(imdb), str(tmp_path / "out"))
    assert (tmp_path / "out/comp3_det_test_cow.txt").exists()


def test_salted_files_carry_the_process_number(tmp_path, voc):
    imdb = PascalVoc("test", "2007", data=tmp_path)
    imdb.config["cleanup"] = False
    imdb.evaluate_detections(detections(imdb), str(tmp_path / "out"))
    assert (tmp_path / f"out/comp4-{os.getpid()}_det_test_cat.txt").read_text() == ""


def test_evaluation_refuses_what_does_not_fit(tmp_path, voc):
    imdb = PascalVoc("trainval", "2007", data=tmp_path)
    with pytest.raises(DataError, match="4 classes x 2 images, got 3 x"):
        imdb.evaluate_detections([[[], []]] * 3, str(tmp_path / "out"))
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="file: cannot write"):
        imdb.evaluate_detections(detections(imdb), str(tmp_path / "file"))


# --- names ---------------------------------------------------------------------------------------


def test_names_are_the_originals():
    names = list_imdbs()
    splits = ("train", "val", "trainval", "test")
    plain = [f"voc_{year}_{split}" for year in (2007, 2012) for split in splits]
    ranked = [f"{name}_top_{k}" for name in plain for k in range(1000, 10001, 1000)]
    assert len(plain) == 8 and len(ranked) == 80 and set(plain + ranked) <= set(names)
    assert {"voc_2010_test", "voc_2007_trainval_no_diff", "synthetic_2012_trainval", "coco_2014_minival"} <= set(names)
    assert len(set(names)) == len(names)


def test_get_imdb(tmp_path, voc):
    assert get_imdb("voc_2007_trainval", tmp_path).name == "voc_2007_trainval"
    top = get_imdb("voc_2007_test_top_3000", tmp_path)
    assert top.config["top_k"] == 3000 and top.roidb_handler == top.selective_search_ijcv_roidb
    assert (top.name, top.image_set) == ("voc_2007_test_top_3000", "test")
    assert top.config["use_diff"]
    easy = get_imdb("voc_2007_trainval_no_diff", tmp_path)
    assert easy.gt_roidb()[0]["gt_classes"].tolist() == [1] and easy.name == "voc_2007_trainval_no_diff"
    assert get_imdb("synthetic_2007_trainval_no_diff_top_2000", tmp_path).config["top_k"] == 2000
    synthetic = get_imdb("synthetic_test", tmp_path)
    assert (synthetic.name, synthetic.image_index) == ("synthetic_test", ["b1"])


@pytest.mark.parametrize(
    ("name", "what"), [("voc_2007_trianval", "did you mean 'voc_2007_trainval'"), ("coco", "known: voc_.*synthetic")]
)
def test_unknown_names(name, what):
    with pytest.raises(DataError, match=f"unknown dataset '{name}'.*{what}"):
        get_imdb(name)
