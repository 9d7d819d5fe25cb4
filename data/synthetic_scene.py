"""One scene of the synthetic dataset: a textured background, shapes, bars, light and noise.

Drawn with NumPy alone, from uniform random numbers alone, so that the pixels are a function of the
generator's seed. Lengths are pixels, x to the right, y down; images are (H, W, 3), channels B, G, R.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

CLASSES = ("disc", "ring", "square", "triangle", "star", "cross")
Image = NDArray[np.float64]

_MIN_CONTRAST = 75.0  # between an object's colour and what lies under it, Euclidean, of 441


class SceneObject(NamedTuple):
    """One drawn object."""

    shape: int  # index into CLASSES
    box: tuple[int, int, int, int]  # of the visible part: x1, y1, x2, y2, 0-based, inclusive
    truncated: bool
    occluded: bool
    difficult: bool


class Scene(NamedTuple):
    """The pixels, (H, W, 3) uint8, and what is in them."""

    image: NDArray[np.uint8]
    objects: list[SceneObject]


class _Placed(NamedTuple):
    shape: int
    window: tuple[slice, slice]  # rows and columns of the image that the object's patch lies in
    alpha: Image  # (h, w) of the window: how much of each pixel the whole object covers, 0 to 1
    paint: Image  # (h, w, 3) its colours there
    area: float  # pixels of the whole object, what is outside the image included


def render_scene(rng: np.random.Generator, size: tuple[int, int]) -> Scene:
    """Draw one scene of about ``size`` (width, height) pixels; it holds 1 to 4 objects."""
    while True:  # nearly always once: an object is seldom covered altogether
        scene = _attempt(rng, size)
        if scene.objects:
            return scene


def _attempt(rng: np.random.Generator, size: tuple[int, int]) -> Scene:
    width, height = (round(side * _between(rng, 0.88, 1.12)) for side in size)
    canvas = _background(rng, width, height)
    placed: list[_Placed] = []
    visible: list[Image] = []  # (H, W) for each object: what is still to be seen of it
    for _ in range(1 + _pick(rng, 4)):
        new = _place(rng, canvas, placed, visible)
        if new is None:
            continue
        _paint(canvas[new.window], new.alpha, new.paint)
        for before in visible:
            before[new.window] *= 1 - new.alpha
        seen = np.zeros((height, width))
        seen[new.window] = new.alpha
        visible.append(seen)
        placed.append(new)
    for i in range(len(placed)):
        if rng.random() < 0.14:
            bar, colours = _bar(rng, visible[i])
            _paint(canvas, bar, colours)
            for before in visible:
                before *= 1 - bar
    image = _light_and_noise(rng, canvas)
    objects = [_describe(new, seen) for new, seen in zip(placed, visible, strict=True)]
    return Scene(image, [item for item in objects if item is not None])


def _describe(new: _Placed, seen: Image) -> SceneObject | None:
    """The annotation of an object; None if next to nothing of it is to be seen."""
    rows, columns = _extent(seen)
    if len(rows) < 12 or len(columns) < 12 or seen.sum() < 0.2 * new.area:
        return None
    inside = new.alpha.sum()
    return SceneObject(
        shape=new.shape,
        box=(int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])),
        truncated=bool(inside < 0.97 * new.area),
        occluded=bool(seen.sum() < 0.95 * inside),
        difficult=bool(seen.sum() < 0.5 * new.area),
    )


def _extent(alpha: Image) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns in which something is covered by half or more."""
    return np.flatnonzero((alpha >= 0.5).any(axis=1)), np.flatnonzero((alpha >= 0.5).any(axis=0))


def _place(rng: np.random.Generator, canvas: Image, placed: list[_Placed], visible: list[Image]) -> _Placed | None:
    """An object at a place where it leaves enough of the earlier ones; None if there is none."""
    height, width = canvas.shape[:2]
    shape = _pick(rng, len(CLASSES))
    spare = 0.12 if rng.random() < 0.08 else 0.84  # share of an earlier object that must stay visible
    inside = (0.35, 0.65) if rng.random() < 0.1 else (0.94, 1.01)  # share of the object within the image
    for _ in range(40):
        radius = _between(rng, 24.0, 50.0) * min(1.0, min(width, height) / 130)
        scale = radius * np.array([1.0, _between(rng, 0.88, 1.0)])
        x, y = _between(rng, 0.0, width), _between(rng, 0.0, height)
        angle = _between(rng, 0.0, 2 * np.pi)
        reach = int(1.15 * radius) + 3  # no shape is larger than 1.1 radii
        left, top = int(x) - reach, int(y) - reach
        u, v = _own_coordinates(2 * reach + 1, 2 * reach + 1, (x - left, y - top), angle, scale)
        whole = np.clip(0.5 - _distance(shape, u, v) * float(scale.min()), 0.0, 1.0)
        patch = (slice(max(-top, 0), height - top), slice(max(-left, 0), width - left))
        alpha, area = whole[patch], float(whole.sum())
        if not inside[0] * area <= alpha.sum() <= inside[1] * area:
            continue
        window = (slice(max(top, 0), top + 2 * reach + 1), slice(max(left, 0), left + 2 * reach + 1))
        hidden = [(old[window] * alpha).sum() for old in visible]
        if any(
            old.sum() - lost < spare * before.area for old, lost, before in zip(visible, hidden, placed, strict=True)
        ):
            continue
        paint = _fill(rng, canvas[window], alpha, u[patch], v[patch], float(radius))
        return _Placed(shape, window, alpha, paint, area)
    return None


def _own_coordinates(
    width: int, height: int, centre: tuple[float, float], angle: float, scale: NDArray[np.float64]
) -> tuple[Image, Image]:
    """Every pixel in the coordinates of an object: turned, and in units of its radii."""
    x = np.arange(width) - centre[0]
    y = (np.arange(height) - centre[1])[:, np.newaxis]
    cos, sin = np.cos(angle), np.sin(angle)
    return (cos * x + sin * y) / scale[0], (cos * y - sin * x) / scale[1]


def _distance(shape: int, u: Image, v: Image) -> Image:
    """Distance to the outline of a unit shape, negative inside."""
    name = CLASSES[shape]
    if name == "disc":
        return np.hypot(u, v) - 0.95
    if name == "ring":
        return np.abs(np.hypot(u, v) - 0.74) - 0.26
    return _polygon_distance(_POLYGONS[name], u, v)


def _star(points: int, outer: float, inner: float) -> list[tuple[float, float]]:
    angles = np.arange(2 * points) * np.pi / points
    radii = np.where(np.arange(2 * points) % 2 == 0, outer, inner)
    return [(float(r * np.sin(a)), float(-r * np.cos(a))) for r, a in zip(radii, angles, strict=True)]


_A, _B = 0.3, 1.0  # half width and half length of the cross's arms
_POLYGONS = {
    "square": [(-0.82, -0.82), (0.82, -0.82), (0.82, 0.82), (-0.82, 0.82)],
    "triangle": [(0.0, -1.0), (0.95, 0.75), (-0.95, 0.75)],
    "star": _star(5, 1.1, 0.42),
    "cross": [(-_A, -_B), (_A, -_B), (_A, -_A), (_B, -_A), (_B, _A), (_A, _A)]
    + [(_A, _B), (-_A, _B), (-_A, _A), (-_B, _A), (-_B, -_A), (-_A, -_A)],
}


def _polygon_distance(corners: list[tuple[float, float]], u: Image, v: Image) -> Image:
    """Signed distance to a closed polygon, negative inside (crossing-number rule)."""
    nearest = np.full(u.shape, np.inf)
    inside = np.zeros(u.shape, bool)
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        ex, ey = bx - ax, by - ay
        du, dv = u - ax, v - ay
        along = np.clip((du * ex + dv * ey) / (ex * ex + ey * ey), 0.0, 1.0)
        nearest = np.minimum(nearest, (du - along * ex) ** 2 + (dv - along * ey) ** 2)
        if ey:
            inside ^= ((ay > v) != (by > v)) & (u < ex * dv / ey + ax)
    return np.where(inside, -1.0, 1.0) * np.sqrt(nearest)


def _fill(rng: np.random.Generator, ground: Image, alpha: Image, u: Image, v: Image, radius: float) -> Image:
    """Colours of an object that stands out from the ``ground`` under it, (h, w, 3): a pattern, shaded from one side."""
    under = (ground * alpha[..., np.newaxis]).sum(axis=(0, 1)) / alpha.sum()
    colour = _colour(rng)
    for _ in range(20):
        if np.linalg.norm(colour - under) >= _MIN_CONTRAST:
            break
        colour = _colour(rng)
    pattern = _object_pattern(rng, u * radius, v * radius)
    tilt = _between(rng, 0.0, 2 * np.pi)
    shade = 1.0 + 0.09 * (np.cos(tilt) * u + np.sin(tilt) * v)
    return np.clip(colour * shade[..., np.newaxis] + pattern[..., np.newaxis], 0.0, 255.0)


def _object_pattern(rng: np.random.Generator, x: Image, y: Image) -> Image:
    """Brightness added to an object, about -11 to 11, in its own turned coordinates."""
    kind, step, strength = _pick(rng, 5), _between(rng, 7.0, 14.0), _between(rng, 6.0, 11.0)
    phase = _between(rng, 0.0, 2 * np.pi)
    wave_x, wave_y = np.sin(2 * np.pi * x / step + phase), np.sin(2 * np.pi * y / step + phase)
    if kind == 0:
        return np.zeros_like(x)
    if kind == 1:
        return strength * np.clip(3 * wave_x, -1, 1)  # stripes
    if kind == 2:
        return strength * np.clip(3 * wave_x * wave_y, -1, 1)  # checks
    if kind == 3:
        return strength * np.clip(4 * (wave_x * wave_y - 0.4), -0.3, 1)  # dots
    return 0.6 * strength * (wave_x + np.sin(2 * np.pi * (x + y) / (1.7 * step)))  # weave


def _bar(rng: np.random.Generator, alpha: Image) -> tuple[Image, Image]:
    """A dark bar through what is seen of an object: coverage (H, W), colours (H, W, 3); it ends shortly outside."""
    height, width = alpha.shape
    rows, columns = (found if len(found) else np.array([0]) for found in _extent(alpha))
    reach = 0.5 * max(np.ptp(columns), np.ptp(rows)) * _between(rng, 1.2, 1.6)
    thick = _between(rng, 3.5, 7.0) if rng.random() < 0.8 else _between(rng, 0.2, 0.3) * reach
    middle = (
        float(columns.mean()) + (rng.random() - 0.5) * 0.6 * reach,
        float(rows.mean()) + (rng.random() - 0.5) * 0.6 * reach,
    )
    u, v = _own_coordinates(width, height, middle, _between(rng, 0.0, 2 * np.pi), np.ones(2))
    coverage = np.clip(0.5 - np.maximum(np.abs(u) - reach, np.abs(v) - thick), 0.0, 1.0)
    colours = _colour(rng, value=(0.1, 0.3)) + (8.0 * np.sin(u / 3.0))[..., np.newaxis]
    return coverage, np.clip(colours, 0.0, 255.0)


def _background(rng: np.random.Generator, width: int, height: int) -> Image:
    """A quiet, rather dark texture between two near colours, (height, width, 3)."""
    first = _colour(rng, saturation=(0.05, 0.4), value=(0.2, 0.5))
    second = np.clip(first + 30.0 * (np.array([rng.random() for _ in range(3)]) - 0.5), 0, 255)
    x = np.arange(width, dtype=np.float64)
    y = np.arange(height, dtype=np.float64)[:, np.newaxis]
    clouds = _clouds(rng, width, height, cell=_between(rng, 30.0, 60.0))
    kind = _pick(rng, 5)
    angle = _between(rng, 0.0, np.pi)
    along = np.cos(angle) * x + np.sin(angle) * y
    across = np.cos(angle) * y - np.sin(angle) * x
    if kind == 0:  # sky: broad clouds
        detail = np.zeros((height, width))
    elif kind == 1:  # wood: grain bent by the clouds
        detail = 7.0 * np.sin(2 * np.pi * (along / _between(rng, 7.0, 12.0) + 2.5 * clouds))
    elif kind == 2:  # tiles with joints
        side = _between(rng, 26.0, 44.0)
        edge = np.minimum(np.abs(along % side - side / 2), np.abs(across % side - side / 2))
        detail = -14.0 * np.clip(1.5 - edge, 0.0, 1.0)
    elif kind == 3:  # grass: fine speckle
        detail = 9.0 * (_clouds(rng, width, height, cell=3.0) + _clouds(rng, width, height, cell=5.0) - 1.0)
    else:  # cloth: a weave
        step = _between(rng, 4.0, 6.5)
        detail = 5.0 * np.sin(2 * np.pi * along / step) * np.sin(2 * np.pi * across / step)
    return first + (second - first) * clouds[..., np.newaxis] + detail[..., np.newaxis]


def _light_and_noise(rng: np.random.Generator, canvas: Image) -> NDArray[np.uint8]:
    """Light falling off from one side, then sensor noise, rounded to uint8."""
    height, width = canvas.shape[:2]
    angle = _between(rng, 0.0, 2 * np.pi)
    x = np.linspace(-1.0, 1.0, width)
    y = np.linspace(-1.0, 1.0, height)[:, np.newaxis]
    light = 1.0 + _between(rng, 0.04, 0.14) * (np.cos(angle) * x + np.sin(angle) * y)
    # the sum of three uniform numbers stands for a normal one (standard deviation 0.5)
    noise = sum(rng.random(canvas.shape) for _ in range(3)) - 1.5
    noisy = canvas * light[..., np.newaxis] + _between(rng, 3.0, 8.0) * noise
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def _clouds(rng: np.random.Generator, width: int, height: int, cell: float) -> Image:
    """Smooth noise in [0, 1], (height, width): random grid values, blended by smoothstep."""
    grid = rng.random((int(height / cell) + 3, int(width / cell) + 3))
    rows, columns = np.arange(height) / cell, np.arange(width) / cell
    i, j = rows.astype(int), columns.astype(int)
    fy, fx = ((t * t * (3 - 2 * t)) for t in (rows - i, columns - j))
    upper = grid[i][:, j] * (1 - fx) + grid[i][:, j + 1] * fx
    lower = grid[i + 1][:, j] * (1 - fx) + grid[i + 1][:, j + 1] * fx
    return upper * (1 - fy[:, np.newaxis]) + lower * fy[:, np.newaxis]


def _paint(canvas: Image, alpha: Image, colours: Image) -> None:
    canvas += alpha[..., np.newaxis] * (colours - canvas)


def _colour(
    rng: np.random.Generator,
    saturation: tuple[float, float] = (0.35, 0.95),
    value: tuple[float, float] = (0.75, 1.0),
) -> NDArray[np.float64]:
    """A random colour, B, G, R in 0 to 255, of the given ranges of saturation and value."""
    hue, s, v = 6 * rng.random(), _between(rng, *saturation), _between(rng, *value)
    channels = [np.clip(abs((hue + shift) % 6 - 3) - 1, 0, 1) for shift in (2.0, 4.0, 0.0)]
    return np.array([255.0 * v * (1 - s + s * c) for c in channels])


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(rng.random())


def _pick(rng: np.random.Generator, count: int) -> int:
    return min(int(rng.random() * count), count - 1)
