"""Figure 2: the time of each layer of a test net, before and after truncated SVD.

The time of a layer does not depend on its weights, so that random ones serve; regions are random too.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

import caffe_lite
from caffe_lite import device as devices
from caffe_lite import threads
from caffe_lite.data.config import cfg
from caffe_lite.fast_rcnn.experiments import paper
from caffe_lite.fast_rcnn.experiments.lab import Lab
from caffe_lite.fast_rcnn.experiments.results import FORWARD_MS, MAP, Claim, Report, Row
from caffe_lite.fast_rcnn.experiments.setting import MINI, MODELS
from caffe_lite.fast_rcnn.experiments.systems import test_system
from caffe_lite.models import resolve
from caffe_lite.progress import progress_bar

SHARE, MILLISECONDS = "share of the forward pass, %", "forward, ms"
IMAGE, REGIONS, PASSES = (600, 1000), 2000, 3
_QUICK_IMAGE, _QUICK_REGIONS = (120, 160), 50
_FILES = {paper.BEFORE: "test.prototxt", paper.AFTER: "compressed/test.prototxt"}
_TEST_PHASE = 1


def fig2(lab: Lab, report: Report) -> None:
    """VGG16's layers at 600 x 1000 pixels and 2,000 regions."""
    model = lab.setting.models[0] if lab.setting.models else (MINI if lab.setting.quick else "L")
    image, regions = (_QUICK_IMAGE, _QUICK_REGIONS) if lab.setting.quick else (IMAGE, REGIONS)
    passes = max(PASSES, len(lab.setting.seeds))
    times = {
        state: layer_passes(f"{MODELS[model].folder}/{file}", image, regions, passes, lab.setting.progress)
        for state, file in _FILES.items()
    }
    totals = {state: np.sum(list(found.values()), axis=0) for state, found in times.items()}
    groups = list(dict.fromkeys([*paper.FIG2[paper.BEFORE], *(g for found in times.values() for g in found)]))
    for group in groups:
        of_paper = {state: paper.FIG2[state][group] for state in times if group in paper.FIG2[state]}
        share = {s: (100 * np.array(f[group]) / totals[s]).tolist() for s, f in times.items() if group in f}
        spent = {state: found[group] for state, found in times.items() if group in found}
        report.rows.append(Row(group, SHARE, {s: v[0] for s, v in of_paper.items()}, share))
        report.rows.append(Row(group, MILLISECONDS, {s: v[1] for s, v in of_paper.items()}, spent))
    report.rows.sort(key=lambda row: row.quantity == MILLISECONDS)
    for state, total in totals.items():
        of_paper_total = float(paper.FIG2_TOTAL_MS[state])
        report.rows.append(Row(state, FORWARD_MS, {"L": of_paper_total}, {model: total.tolist()}))
    report.rows += [Row(s, MAP, {"L": ap}, _mean_aps(lab, model, s)) for s, ap in paper.FIG2_MAP.items()]
    report.claims.append(Claim(FORWARD_MS, paper.BEFORE, paper.AFTER, "Truncated SVD saves time"))
    saved = 100 * (1 - float(np.mean(totals[paper.AFTER])) / float(np.mean(totals[paper.BEFORE])))
    of_paper_saved = 100 * (1 - paper.FIG2_TOTAL_MS[paper.AFTER] / paper.FIG2_TOTAL_MS[paper.BEFORE])
    report.notes.append(
        f"Net {model}, {image[0]} x {image[1]} pixels, {regions} regions, {passes} passes; {_processor()} against the "
        f"paper's K40. Truncated SVD saves {saved:.0f} % of the time here, {of_paper_saved:.0f} % in the paper."
    )


def _mean_aps(lab: Lab, model: str, state: str) -> dict[str, list[float]]:
    """Of the net trained on a real devkit, as in table 4; not of the large net on the synthetic one."""
    if lab.setting.data is None:
        return {}
    system = paper.FAST if state == paper.BEFORE else paper.FAST_SVD
    return {model: [test_system(lab, system, model, seed).mean_ap for seed in lab.setting.seeds]}


def layer_passes(
    file: str, image: tuple[int, int], regions: int, passes: int, progress: bool = True
) -> dict[str, list[float]]:
    """Milliseconds of each group of layers in each of ``passes`` after one to warm up; weights are random.

    A layer counts with what is done in place behind it (ReLU, Dropout). Groups: conv, RoI pooling, each hidden
    InnerProduct by its name (the factors of one under its name), other.
    """
    net = _random_net(file, image, regions)
    names = _groups(net)
    found = {group: [0.0] * passes for group in names}
    synchronize = net.device.synchronize
    spent = [0.0] * len(net.layers)

    def start(i: int) -> None:
        synchronize()
        spent[i] = -time.perf_counter()

    def stop(i: int) -> None:
        synchronize()
        spent[i] += time.perf_counter()

    net.callbacks["before_forward"].append(start)
    net.callbacks["after_forward"].append(stop)
    with progress_bar(total=passes + 1, desc=file, unit="pass", disable=not progress) as bar:
        for number in range(passes + 1):
            net.forward()
            bar.update()
            if number:
                for group, seconds in zip(names, spent, strict=True):
                    found[group][number - 1] += 1e3 * seconds
    return found


def _random_net(file: str, image: tuple[int, int], regions: int) -> Any:
    """A TEST net with random weights, image and regions in its inputs."""
    net = caffe_lite.Net(resolve(file), _TEST_PHASE)
    rng = np.random.default_rng(cfg.RNG_SEED)
    for blobs in net.params.values():
        weights = blobs[0].data
        weights[...] = rng.standard_normal(weights.shape, dtype=np.float32) * np.sqrt(2 / weights[0].size)
    net.blobs["data"].reshape(1, 3, *image)
    net.blobs["data"].data[...] = rng.normal(0, 60, (1, 3, *image))
    net.blobs["rois"].reshape(regions, 5)
    net.blobs["rois"].data[...] = random_rois(rng, regions, image)
    net.reshape()
    return net


def _groups(net: Any) -> list[str]:
    """The group of each layer."""
    groups: list[str] = []
    by_top: dict[str, str] = {}
    for layer in net.layers:
        tops, bottoms = net.top_names[layer.name], net.bottom_names[layer.name]
        if layer.type == "Convolution":
            group = "conv"
        elif layer.type == "ROIPooling":
            group = paper.ROI_POOLING
        elif layer.type == "InnerProduct" and layer.name not in ("cls_score", "bbox_pred"):
            group = layer.name.removesuffix("_L").removesuffix("_U")
        elif tops and list(tops) == list(bottoms[:1]):
            group = by_top.get(tops[0], "other")
        else:
            group = "other"
        by_top.update(dict.fromkeys(tops, group))
        groups.append(group)
    return groups


def random_rois(rng: np.random.Generator, count: int, image: tuple[int, int]) -> np.ndarray:
    """Rows (0, x1, y1, x2, y2), boxes of 5 to 100 % of each side of an image (height, width), uniformly placed."""
    height, width = image
    sides = rng.uniform(0.05, 1.0, (count, 2)) * (width - 1, height - 1)
    first = rng.uniform(0, 1, (count, 2)) * ((width - 1, height - 1) - sides)
    return np.hstack((np.zeros((count, 1)), first, first + sides)).astype(np.float32)


def _processor() -> str:
    if devices.current().is_gpu:
        return "a GPU"
    return f"{threads.get_num_threads()} processor threads"
