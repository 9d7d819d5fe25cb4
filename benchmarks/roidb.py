"""Time and memory of roidb preparation: overlaps, merging, mirroring, derived fields, regression targets.

    python benchmarks/roidb.py [--images 10000] [--boxes 2000]

Random ground truth (1 to 6 objects an image) and proposals, half of them near an object; nothing is
read from disk. The peak is the process's, after the boxes themselves were made.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

from caffe_lite.data.imdb import Imdb, Roidb
from caffe_lite.data.roi_data_layer.roidb import add_bbox_regression_targets, prepare_roidb

WIDTH, HEIGHT, CLASSES = 500, 375, 21


class Random(Imdb):
    """``images`` entries of random boxes."""

    def __init__(self, images: int, boxes: int) -> None:
        names = ["__background__", *(f"class{k}" for k in range(1, CLASSES))]
        super().__init__("random", names, [f"{i:06d}" for i in range(images)])
        rng = np.random.default_rng(0)
        self.objects = [_boxes(rng, int(n)) for n in rng.integers(1, 7, images)]
        self.labels = [rng.integers(1, CLASSES, len(of)).astype(np.int32) for of in self.objects]
        self.proposals = [_around(rng, of, boxes) for of in self.objects]
        self.roidb_handler = self.with_proposals

    def image_path_at(self, i: int) -> str:
        return f"{self.image_index[i]}.jpg"

    def image_size_at(self, i: int) -> tuple[int, int]:
        return WIDTH, HEIGHT

    def gt_roidb(self) -> Roidb:
        import scipy.sparse

        entries = []
        for boxes, labels in zip(self.objects, self.labels, strict=True):
            overlaps = np.zeros((len(boxes), CLASSES), np.float32)
            overlaps[np.arange(len(boxes)), labels] = 1
            sparse = scipy.sparse.csr_matrix(overlaps)
            entries.append({"boxes": boxes, "gt_classes": labels, "gt_overlaps": sparse, "flipped": False})
        return entries

    def with_proposals(self) -> Roidb:
        return self.with_gt(self.gt_roidb(), self.proposals)


def _boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    x = np.sort(rng.integers(0, WIDTH, (count, 2)), axis=1)
    y = np.sort(rng.integers(0, HEIGHT, (count, 2)), axis=1)
    return np.stack((x[:, 0], y[:, 0], x[:, 1], y[:, 1]), axis=1).astype(np.uint16)


def _around(rng: np.random.Generator, objects: np.ndarray, count: int) -> np.ndarray:
    near = objects[rng.integers(0, len(objects), count // 2)] + rng.integers(-30, 31, (count // 2, 4))
    near[:, 0::2] = np.sort(near[:, 0::2].clip(0, WIDTH - 1), axis=1)
    near[:, 1::2] = np.sort(near[:, 1::2].clip(0, HEIGHT - 1), axis=1)
    return np.vstack((near.astype(np.uint16), _boxes(rng, count - len(near))))


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10000)
    parser.add_argument("--boxes", type=int, default=2000)
    args = parser.parse_args()
    small = Random(4, 50)  # compiles, or loads what was compiled
    _prepare(small)
    imdb = Random(args.images, args.boxes)
    print(f"{args.images} images x {args.boxes} boxes; process before: {_peak():.2f} GB")
    total = 0.0
    for name, seconds in _prepare(imdb):
        print(f"  {name:<28} {seconds:6.2f} s")
        total += seconds
    print(f"  {'total':<28} {total:6.2f} s, peak {_peak():.2f} GB, {len(imdb.roidb)} entries with the mirrored ones")


def _prepare(imdb: Random) -> list[tuple[str, float]]:
    steps = {
        "overlaps and merging": lambda: imdb.roidb,
        "mirrored entries": imdb.append_flipped_images,
        "derived fields": lambda: _derive(imdb),
        "regression targets": lambda: add_bbox_regression_targets(imdb.roidb),
    }
    times = []
    for name, step in steps.items():
        start = time.perf_counter()
        step()
        times.append((name, time.perf_counter() - start))
    return times


def _derive(imdb: Random) -> None:
    for entry in imdb.roidb:  # the sizes that would be read from the images' heads
        entry["width"], entry["height"] = WIDTH, HEIGHT
    prepare_roidb(imdb)


if __name__ == "__main__":
    main()
