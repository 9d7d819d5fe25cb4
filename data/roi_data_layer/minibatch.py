"""Minibatch sampling of Fast R-CNN (paper, section 2.3): a few images, RoIs from each.

Sampling follows the original to the draw. With numpy's legacy global generator the order is: one
``randint`` for the scales of all images; then for each image ``choice`` of its foreground RoIs and
``choice`` of its background RoIs, both without replacement. Drawing and reading are apart, so that
images can be read ahead in a thread while every draw stays in its place:

    get_minibatch(roidb, K) == build_minibatch(draw_minibatch(roidb, K))

Shapes: N images, R RoIs in all, K classes with the background.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caffe_lite.data.config import ConfigError, cfg
from caffe_lite.data.image_blob import im_list_to_blob, prep_im_for_blob, read_image
from caffe_lite.errors import DataError

Float32 = NDArray[np.float32]
Entry = Mapping[str, Any]


@dataclass
class Sample:
    """What was drawn for one image; ``boxes`` (n, 4) in pixels of the stored image, n may be 0."""

    image: str
    flipped: bool
    target_size: float
    boxes: NDArray[Any]
    labels: Float32
    bbox_targets: Float32 | None  # (n, 4K), None without cfg.TRAIN.BBOX_REG
    bbox_loss_weights: Float32 | None


def get_minibatch(roidb: Sequence[Entry], num_classes: int) -> dict[str, Float32]:
    """The blobs of a minibatch made of these roidb entries, all float32.

    data (N, 3, H, W); rois (R, 5) rows (image index, x1, y1, x2, y2) in pixels of ``data``; labels
    (R,); and with cfg.TRAIN.BBOX_REG bbox_targets and bbox_loss_weights (R, 4K). Images follow one
    another, foreground before background. R is less than cfg.TRAIN.BATCH_SIZE where an image has too
    few RoIs; nothing is padded.

    Raises ConfigError if BATCH_SIZE cannot be shared out among the images; DataError naming the
    image that cannot be read, the entry that was not prepared, or the images without any RoI.
    """
    return build_minibatch(draw_minibatch(roidb, num_classes))


def draw_minibatch(roidb: Sequence[Entry], num_classes: int) -> list[Sample]:
    """All random draws of a minibatch, in the original's order; reads no file."""
    rois_per_image = _rois_per_image(len(roidb))
    fg_per_image = int(np.round(cfg.TRAIN.FG_FRACTION * rois_per_image))
    for entry in roidb:
        _check_prepared(entry)
    scales = np.random.randint(0, high=len(cfg.TRAIN.SCALES), size=len(roidb))
    samples = [
        _draw_sample(entry, cfg.TRAIN.SCALES[scale], fg_per_image, rois_per_image, num_classes)
        for entry, scale in zip(roidb, scales, strict=True)
    ]
    if not any(len(sample.boxes) for sample in samples):
        raise DataError(
            f"{', '.join(sample.image for sample in samples)}: no RoI to train on: none overlaps an object by "
            f"TRAIN.FG_THRESH {cfg.TRAIN.FG_THRESH} or more (up to {fg_per_image} an image are taken), and none by "
            f"[TRAIN.BG_THRESH_LO {cfg.TRAIN.BG_THRESH_LO}, TRAIN.BG_THRESH_HI {cfg.TRAIN.BG_THRESH_HI}); lower "
            "TRAIN.BG_THRESH_LO, or drop such images with filter_roidb"
        )
    return samples


def build_minibatch(samples: Sequence[Sample]) -> dict[str, Float32]:
    """The blobs of drawn samples: reads and scales the images; draws nothing."""
    images, rois = [], []
    for index, sample in enumerate(samples):
        image = read_image(sample.image)
        _check_inside(sample, image.shape)
        if sample.flipped:
            image = image[:, ::-1, :]
        scaled, scale = prep_im_for_blob(image, cfg.PIXEL_MEANS, sample.target_size, cfg.TRAIN.MAX_SIZE)
        images.append(scaled)
        part = np.full((len(sample.boxes), 5), index, dtype=np.float32)
        part[:, 1:] = sample.boxes.astype(np.float64) * scale
        rois.append(part)
    blobs = {
        "data": im_list_to_blob(images),
        "rois": np.concatenate(rois),
        "labels": np.concatenate([sample.labels for sample in samples]),
    }
    if samples[0].bbox_targets is not None:
        blobs["bbox_targets"] = np.concatenate([s.bbox_targets for s in samples if s.bbox_targets is not None])
        blobs["bbox_loss_weights"] = np.concatenate(
            [s.bbox_loss_weights for s in samples if s.bbox_loss_weights is not None]
        )
    return blobs


def sampling_indices(max_overlaps: NDArray[np.floating]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows that may be drawn as foreground, and as background, by the thresholds of ``cfg.TRAIN``."""
    fg = max_overlaps >= cfg.TRAIN.FG_THRESH
    bg = (max_overlaps < cfg.TRAIN.BG_THRESH_HI) & (max_overlaps >= cfg.TRAIN.BG_THRESH_LO)
    return np.flatnonzero(fg), np.flatnonzero(bg)


def _rois_per_image(num_images: int) -> int:
    if num_images == 0 or cfg.TRAIN.BATCH_SIZE <= 0 or cfg.TRAIN.BATCH_SIZE % num_images:
        raise ConfigError(
            f"TRAIN.BATCH_SIZE {cfg.TRAIN.BATCH_SIZE} cannot be shared out among the {num_images} image(s) of a "
            f"minibatch (TRAIN.IMS_PER_BATCH {cfg.TRAIN.IMS_PER_BATCH}): it must be a positive multiple of them"
        )
    return cfg.TRAIN.BATCH_SIZE // num_images


def _check_prepared(entry: Entry) -> None:
    needed = {"image": "prepare_roidb", "max_classes": "prepare_roidb", "max_overlaps": "prepare_roidb"}
    if cfg.TRAIN.BBOX_REG:
        needed["bbox_targets"] = "add_bbox_regression_targets"
    for key, remedy in needed.items():
        if key not in entry:
            raise DataError(f"{entry.get('image', 'a roidb entry')}: has no {key!r}: call {remedy} first")


def _draw_sample(entry: Entry, target_size: float, fg_per_image: int, rois_per_image: int, num_classes: int) -> Sample:
    fg, bg = sampling_indices(entry["max_overlaps"])
    num_fg = min(fg_per_image, len(fg))
    if len(fg):
        fg = np.random.choice(fg, size=num_fg, replace=False)
    num_bg = min(rois_per_image - num_fg, len(bg))
    if len(bg):
        bg = np.random.choice(bg, size=num_bg, replace=False)
    keep = np.append(fg, bg)

    labels = entry["max_classes"][keep].astype(np.float32)
    labels[num_fg:] = 0
    targets, weights = None, None
    if cfg.TRAIN.BBOX_REG:
        targets, weights = _expand_targets(entry["bbox_targets"][keep], num_classes)
    return Sample(
        image=entry["image"],
        flipped=bool(entry.get("flipped", False)),
        target_size=target_size,
        boxes=entry["boxes"][keep],
        labels=labels,
        bbox_targets=targets,
        bbox_loss_weights=weights,
    )


def _expand_targets(compact: Float32, num_classes: int) -> tuple[Float32, Float32]:
    """(n, 5) rows (class, dx, dy, dw, dh) as (n, 4K) targets and weights: 1 in the class's four columns."""
    targets = np.zeros((len(compact), 4 * num_classes), dtype=np.float32)
    weights = np.zeros_like(targets)
    rows = np.flatnonzero(compact[:, 0] > 0)
    columns = 4 * compact[rows, 0].astype(np.int64)[:, np.newaxis] + np.arange(4)
    targets[rows[:, np.newaxis], columns] = compact[rows, 1:]
    weights[rows[:, np.newaxis], columns] = 1.0
    return targets, weights


def _check_inside(sample: Sample, shape: tuple[int, ...]) -> None:
    """The sampled boxes must lie in the image that was read, or RoIs would pool the padding."""
    outside = (sample.boxes[:, 2] >= shape[1]) | (sample.boxes[:, 3] >= shape[0])
    if outside.any():
        box = tuple(sample.boxes[outside.argmax()].tolist())
        raise DataError(
            f"{sample.image}: box {box} (x1, y1, x2, y2) lies outside the image, which is {shape[1]} x {shape[0]} "
            "pixels; does it belong to another image, or count from 1?"
        )
