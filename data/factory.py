"""Datasets by name: ``get_imdb('voc_2007_trainval')``.

    voc_{2007..2012}_{train,val,trainval,test}     selective search, fast mode
    ..._no_diff                                    difficult objects left out of training, the paper's 07\\diff
    ..._top_{1000..10000}                          selective search's quality mode, the best so many
    synthetic_[{2007..2012}_]{trainval,test}       what caffe_lite.data.synthetic made; the same suffixes
    coco_2014_{train,val,minival,valminusminival}  needs the extra ``coco``
    coco_2015_{test,test-dev}                      without annotations
    A+B[+C...]                                     union of datasets with the same classes, for training

The first and third line are the original's names. ``synthetic_*`` reads what ``voc_*`` of that year
(2007 if none is named) would, under another name, for output folders. A VOC-style dataset of one's
own is read under a ``voc_2007_*`` name too.
"""

from __future__ import annotations

import os
import re

from caffe_lite.data.imdb import Imdb
from caffe_lite.data.pascal_voc import YEARS, PascalVoc
from caffe_lite.data.union import UnionImdb
from caffe_lite.errors import DataError, did_you_mean

_SPLITS = ("train", "val", "trainval", "test")
_COCO = ("2014_train", "2014_val", "2014_minival", "2014_valminusminival", "2015_test", "2015_test-dev")
_VOC = re.compile(r"(?:voc_(?P<voc>\d{4})|synthetic(?:_(?P<synthetic>\d{4}))?)_(?P<rest>.+)")
_REST = re.compile(r"(?P<split>[a-z]+)(?P<no_diff>_no_diff)?(?:_top_(?P<top_k>\d+))?")


def list_imdbs() -> list[str]:
    """Every single name :func:`get_imdb` knows; unions of them it knows too."""
    voc = [f"voc_{year}_{split}" for year in YEARS for split in _SPLITS]
    synthetic = [f"synthetic_{split}" for split in _SPLITS]
    synthetic += [f"synthetic_{year}_{split}" for year in YEARS for split in _SPLITS]
    plain = [name + diff for name in voc + synthetic for diff in ("", "_no_diff")]
    top = [f"{name}_top_{k}" for name in plain for k in range(1000, 10001, 1000)]
    return [*plain, *top, *(f"coco_{name}" for name in _COCO)]


def get_imdb(name: str, data: str | os.PathLike[str] | None = None) -> Imdb:
    """The dataset called ``name``, from the dataset folder ``data`` or CAFFE_LITE_DATA.

    Raises DataError for an unknown name, for a dataset that is not there, and for a union of datasets
    whose classes differ.
    """
    if "+" in name:
        return UnionImdb([get_imdb(part, data) for part in name.split("+")])
    known = list_imdbs()
    if name not in known:
        raise DataError(f"unknown dataset {name!r}{did_you_mean(name, known) or '; known: ' + _summary()}")
    if name.startswith("coco_"):
        from caffe_lite.data.coco import Coco

        _, year, image_set = name.split("_", 2)
        return Coco(image_set, year, data=data)
    return _voc(name, data)


def _voc(name: str, data: str | os.PathLike[str] | None) -> PascalVoc:
    named = _VOC.fullmatch(name)
    rest = _REST.fullmatch(named["rest"]) if named else None
    assert named is not None and rest is not None  # a name of list_imdbs
    imdb = PascalVoc(rest["split"], named["voc"] or named["synthetic"] or "2007", data=data, name=name)
    imdb.config["use_diff"] = rest["no_diff"] is None
    if rest["top_k"]:
        imdb.config["top_k"] = int(rest["top_k"])
        imdb.roidb_handler = imdb.selective_search_ijcv_roidb
    return imdb


def _summary() -> str:
    splits = ",".join(_SPLITS)
    return (
        f"voc_{{{YEARS[0]}..{YEARS[-1]}}}_{{{splits}}}[_no_diff][_top_{{1000..10000}}], "
        f"synthetic_[YEAR_]{{{splits}}}, coco_{{{','.join(_COCO)}}}, and unions A+B"
    )
