"""Pictures: detections on an image, a contact sheet of several images, the loss curve.

Images are (H, W, 3) uint8, BGR as cv2 reads them. Boxes are rows (x1, y1, x2, y2) in pixels of
the image, 0-based and inclusive. Pictures are written as PNG, whole or not at all.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from caffe_lite.atomic import atomic_write
from caffe_lite.errors import DataError

# BGR, chosen to stay apart from each other and readable on photographs.
_PALETTE = (
    (60, 76, 231), (219, 152, 52), (113, 204, 46), (15, 196, 241), (182, 89, 155), (156, 188, 26),
    (34, 126, 230), (173, 68, 224), (203, 192, 72), (94, 73, 52), (80, 175, 76), (180, 105, 255),
    (0, 140, 255), (205, 90, 106), (47, 255, 173), (209, 206, 0), (130, 0, 75), (140, 180, 210),
    (113, 179, 60), (34, 34, 178),
)  # fmt: skip
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_TRUTH = (255, 255, 255)


def colour(class_index: int) -> tuple[int, int, int]:
    """BGR of a class; index 1 is the first class after the background."""
    return _PALETTE[(class_index - 1) % len(_PALETTE)]


def draw_detections(
    im: np.ndarray,
    dets: Sequence[np.ndarray],
    classes: Sequence[str],
    truth: np.ndarray | None = None,
    shortest: int = 480,
) -> np.ndarray:
    """A copy of ``im`` with the boxes, class names and scores drawn on it.

    ``dets[k]`` is the (D, 5) array of class k, rows (x1, y1, x2, y2, score); ``classes[k]`` its
    name; entry 0, the background, is not drawn. ``truth`` (G, 4) is drawn as a thin white outline.
    An image whose shorter side is below ``shortest`` is enlarged to it first, so that the text can
    be read.
    """
    factor = max(1.0, shortest / max(1, min(im.shape[:2])))
    picture = cv2.resize(im, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC) if factor > 1 else im.copy()
    if truth is not None:
        for box in truth:
            _rectangle(picture, box, factor, _TRUTH, 1)
    found = [(float(d[4]), k, d) for k in range(1, len(classes)) for d in dets[k]]
    found.sort(key=lambda item: item[0])  # the surest last, on top
    for _, k, det in found:
        _rectangle(picture, det[:4], factor, colour(k), 2 + int(factor) // 3)
    taken: list[tuple[int, int, int, int]] = []
    for score, k, det in reversed(found):  # the surest first choose their place
        _label(picture, f"{classes[k]} {score:.2f}", det[:4] * factor, colour(k), taken)
    return picture


def _rectangle(picture: np.ndarray, box: np.ndarray, factor: float, bgr: tuple[int, int, int], thickness: int) -> None:
    x1, y1 = (int(round(float(v) * factor)) for v in box[:2])
    x2, y2 = (int(round((float(v) + 1) * factor)) - 1 for v in box[2:4])  # x2, y2 are inclusive
    cv2.rectangle(picture, (x1, y1), (x2, y2), bgr, thickness, cv2.LINE_AA)


def _label(
    picture: np.ndarray,
    text: str,
    box: np.ndarray,
    bgr: tuple[int, int, int],
    taken: list[tuple[int, int, int, int]],
) -> None:
    """Write ``text`` on a filled strip at the box: above it, below, or inside, where there is room."""
    height, width = picture.shape[:2]
    size = 0.52 * max(1.0, min(height, width) / 600)
    (w, h), base = cv2.getTextSize(text, _FONT, size, 1)
    w, h = w + 6, h + base + 4
    left = min(max(0, int(box[0])), max(0, width - w))
    right = min(max(0, int(box[2]) - w), max(0, width - w))
    rows = [int(box[1]) - h, int(box[1]), int(box[3]), *range(int(box[1]) + h, max(int(box[3]), 2 * h), h)]
    places = [(x, min(max(0, y), max(0, height - h))) for y in rows for x in (left, right)]
    free = [p for p in places if not any(_overlap((*p, w, h), other) for other in taken)]
    x, y = (free or places)[0]
    taken.append((x, y, w, h))
    cv2.rectangle(picture, (x, y), (x + w, y + h), bgr, cv2.FILLED)
    blue, green, red = bgr
    ink = (0, 0, 0) if 0.114 * blue + 0.587 * green + 0.299 * red > 130 else (255, 255, 255)
    cv2.putText(picture, text, (x + 3, y + h - base - 1), _FONT, size, ink, 1, cv2.LINE_AA)


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]


def contact_sheet(images: Sequence[np.ndarray], columns: int = 3, gap: int = 8) -> np.ndarray:
    """The images in rows of ``columns``, each in a cell of the largest size, on a light ground."""
    if not images:
        raise DataError("a contact sheet needs at least one image, got none")
    height = max(im.shape[0] for im in images)
    width = max(im.shape[1] for im in images)
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 245, np.uint8)
    for i, im in enumerate(images):
        top = gap + (i // columns) * (height + gap) + (height - im.shape[0]) // 2
        left = gap + (i % columns) * (width + gap) + (width - im.shape[1]) // 2
        sheet[top : top + im.shape[0], left : left + im.shape[1]] = im
    return sheet


def save_png(path: str | os.PathLike[str], image: np.ndarray) -> None:
    """Write a (H, W, 3) BGR uint8 image; raises DataError if it cannot be encoded."""
    ok, data = cv2.imencode(".png", image)
    if not ok:
        raise DataError(f"{os.fspath(path)}: an image of shape {image.shape} and type {image.dtype} is no PNG")
    with atomic_write(path) as stream:
        stream.write(data.tobytes())


def loss_curve(
    path: str | os.PathLike[str], losses: Mapping[str, Sequence[float]], title: str = "Training loss"
) -> None:
    """Draw every series of ``losses`` against the iteration: the raw values pale, their mean in front.

    The mean is over a twentieth of the iterations around each (5 or more), at the ends over what there is
    of them. The axis of the loss is cut at the 99th percentile so that the first iterations do not
    flatten the rest.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    top = 0.0
    for i, (name, series) in enumerate(losses.items()):
        values = np.asarray(series, np.float64)
        if values.size == 0:
            continue
        half = max(5, values.size // 20) // 2
        total = np.cumsum(np.concatenate([[0.0], values]))
        at = np.arange(values.size)
        start, stop = np.maximum(at - half, 0), np.minimum(at + half + 1, values.size)
        mean = (total[stop] - total[start]) / (stop - start)
        line = axes.plot(at + 1, mean, label=f"{name} (at the end {mean[-1]:.3f})", linewidth=1.8, zorder=3 + i)[0]
        axes.plot(at + 1, values, color=line.get_color(), alpha=0.25, linewidth=0.6, zorder=2)
        top = max(top, float(np.percentile(values, 99)))
    axes.set(xlabel="iteration", ylabel="loss", title=title)
    axes.set_ylim(0, top * 1.05 if top > 0 else 1)
    axes.margins(x=0.01)
    axes.grid(alpha=0.3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if axes.get_lines():
        axes.legend(frameon=False)
    with atomic_write(path) as stream:
        figure.savefig(stream, format="png", metadata={"Software": None})
