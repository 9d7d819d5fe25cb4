"""Methods by name: what they mean, mixtures, the cache, and Imdb.set_proposals."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from caffe_lite.data import edge_boxes as edges
from caffe_lite.data import proposals
from caffe_lite.data.dense_boxes import dense_boxes, nearest_dense
from caffe_lite.data.edge_boxes import edge_boxes
from caffe_lite.data.factory import get_imdb
from caffe_lite.data.proposal_methods import Options, Term, parse_method, propose
from caffe_lite.data.proposals import load_dataset_mat, selective_search, write_dataset_mat
from caffe_lite.errors import DataError
from tests.data.voc_folder import make_voc, picture

QUIET = Options(progress=False)


@pytest.fixture
def files(tmp_path):
    paths = []
    for i, extension in enumerate(("png", "jpg", "bmp")):
        paths.append(str(tmp_path / f"{i}.{extension}"))
        cv2.imwrite(paths[-1], picture(i, 80, 60))
    return paths


def same(first, second):
    return len(first) == len(second) and all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_names_and_counts():
    assert parse_method("ss:2000+dense:10000") == [Term("ss", 2000), Term("dense", 10000)]
    assert parse_method("nearest_dense") == [Term("nearest_dense", None)]
    for text, what in (
        ("sss", "unknown method 'sss'; did you mean 'ss'"),
        ("", "unknown method ''; there are ss, ss_quality"),
        ("ss:", "got ''"),
        ("dense:-4", "COUNT of 1 or more, got '-4'"),
        ("dense:0", "got '0'"),
    ):
        with pytest.raises(DataError, match=what):
            parse_method(text)


def test_each_method_is_what_its_name_says(files):
    images = [cv2.imread(path) for path in files]
    assert same(propose("ss", files, QUIET), [selective_search(im) for im in images])
    assert same(propose("ss:3", files, QUIET), [selective_search(im, top_k=3) for im in images])
    assert same(propose("ss_quality:9", files, QUIET), [selective_search(im, "quality", 9) for im in images])
    assert same(propose("gradient_edge_boxes:7", files, QUIET), [edge_boxes(im)[:7] for im in images])
    assert same(propose("dense", files, QUIET), [dense_boxes(80, 60)] * 3)
    expected = [nearest_dense(selective_search(im, top_k=4), 80, 60) for im in images]
    assert same(propose("nearest_dense:4", files, QUIET), expected)


def test_random_boxes_depend_on_seed_and_name_alone(files):
    drawn = propose("dense:50", files, QUIET)
    assert same(propose("dense:50", files[::-1], QUIET), drawn[::-1])
    assert not np.array_equal(drawn[0], drawn[1]), "images of one size have samples of their own"
    assert not same(propose("dense:50", files, QUIET._replace(seed=4)), drawn)


def test_a_mixture_has_every_box_once_in_the_order_of_its_methods(files):
    first, both = propose("ss", files, QUIET), propose("ss+ss_quality+dense:30", files, QUIET)
    wide, drawn = propose("ss_quality", files, QUIET), propose("dense:30", files, QUIET)
    for one, mixed, *others in zip(first, both, wide, drawn, strict=True):
        np.testing.assert_array_equal(mixed[: len(one)], one)
        rows = [tuple(row) for row in mixed.tolist()]
        assert len({*rows}) == len(rows)
        assert {*rows} == {tuple(row) for part in (one, *others) for row in part.tolist()}


def test_computed_boxes_are_cached(files, tmp_path, monkeypatch):
    options = QUIET._replace(cache_folder=str(tmp_path / "cache"))
    method = "ss:5+gradient_edge_boxes:8+nearest_dense"
    before = propose(method, files, options)
    monkeypatch.setattr(proposals, "_search", lambda *_: pytest.fail("the cache was not used"))
    monkeypatch.setattr(edges, "edge_boxes", lambda *_, **__: pytest.fail("the cache was not used"))
    assert same(propose(method, files, options), before)


def test_structured_edges_need_their_model(files, tmp_path):
    with pytest.raises(DataError, match="--edge-model.*gradient_edge_boxes"):
        propose("edge_boxes", files, QUIET)
    with pytest.raises(DataError, match=r"none\.yml: no such model"):
        propose("edge_boxes", files, QUIET._replace(edge_model=str(tmp_path / "none.yml")))


def test_a_missing_image_is_named(files, tmp_path):
    for method in ("ss", "dense:4", "gradient_edge_boxes", "nearest_dense"):
        with pytest.raises(DataError, match=r"gone\.png"):
            propose(method, [*files, str(tmp_path / "gone.png")], QUIET)


def test_the_originals_file_holds_them(files, tmp_path):
    boxes = [*propose("ss", files, QUIET), np.zeros((0, 4), np.uint16)]
    path, names = str(tmp_path / "voc_2007_test.mat"), ["a", "b", "c", "d"]
    write_dataset_mat(path, names, boxes)
    assert same(load_dataset_mat(path, names), boxes)


def test_an_imdb_takes_the_boxes_of_a_method(tmp_path):
    make_voc(tmp_path, {"test": {"a": [("cat", (3, 5, 20, 30), 0)], "b": []}})
    imdb = get_imdb("voc_2007_test", tmp_path)
    assert len(imdb.roidb) == 2
    imdb.set_proposals("dense:20")
    first, second = imdb.roidb
    assert first["gt_classes"].tolist() == [1] + [0] * 20 and len(second["boxes"]) == 20
    expected = propose("dense:20", [imdb.image_path_at(0)])[0]
    np.testing.assert_array_equal(first["boxes"][1:], expected)
    with pytest.raises(DataError, match="unknown method"):
        imdb.set_proposals("selective")
