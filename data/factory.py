"""Datasets by name: ``get_imdb('voc_2007_trainval')``.

    voc_{2007,2012}_{train,val,trainval,test}                 selective search, fast mode
    voc_{2007,2012}_{train,val,trainval,test}_top_{1000..10000}   its quality mode, the best so many
    synthetic_{trainval,test}                                 what caffe_lite.data.synthetic made

The names are the original's. ``synthetic_*`` is the same as ``voc_2007_*`` under another name, for
output folders. A VOC-style dataset of one's own is read under a ``voc_2007_*`` name too.
"""

from __future__ import annotations

import os
import re

from caffe_lite.data.pascal_voc import YEARS, PascalVoc
from caffe_lite.errors import DataError, did_you_mean

_SPLITS = ("train", "val", "trainval", "test")
_NAME = re.compile(r"(?:voc_(\d{4})|synthetic)_(\w+?)(?:_top_(\d+))?")


def list_imdbs() -> list[str]:
    """Every name :func:`get_imdb` knows."""
    voc = [f"voc_{year}_{split}" for year in YEARS for split in _SPLITS]
    top = [f"{name}_top_{k}" for name in voc for k in range(1000, 10001, 1000)]
    return [*voc, *top, "synthetic_trainval", "synthetic_test"]


def get_imdb(name: str, data: str | os.PathLike[str] | None = None) -> PascalVoc:
    """The dataset called ``name``, from the dataset folder ``data`` or CAFFE_LITE_DATA.

    Raises DataError for an unknown name and for a dataset that is not there.
    """
    known = list_imdbs()
    if name not in known:
        raise DataError(f"unknown dataset {name!r}{did_you_mean(name, known) or '; known: ' + _summary()}")
    match = _NAME.fullmatch(name)
    assert match is not None
    year, split, top_k = match.groups()
    imdb = PascalVoc(split, year or "2007", data=data, name=name)
    if top_k:
        imdb.config["top_k"] = int(top_k)
        imdb.roidb_handler = imdb.selective_search_ijcv_roidb
    return imdb


def _summary() -> str:
    splits = ",".join(_SPLITS)
    return f"voc_{{{','.join(YEARS)}}}_{{{splits}}}[_top_{{1000..10000}}], synthetic_{{trainval,test}}"
