"""From a NetGraph to a drawing: SVG and GraphViz text by ourselves, PNG and PDF through matplotlib.

A :class:`Picture` holds placed boxes and curves in points, x to the right and y down; the renderers
only write it out. Layers that work in place are laid out with their blob as one node.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

import numpy as np

from caffe_lite.graph_layout import Layout

if TYPE_CHECKING:
    from caffe_lite.draw import NetGraph, NodeSpec

FONT = 10.0  # points
LINE = 1.25 * FONT
CHARACTER = 0.56 * FONT  # mean width in Helvetica and its like, a little too much
MARGIN = 8.0
PADDING = 8.0
BESIDE = 16.0  # between a blob and the layers that work on it in place
CORNER = 0.3  # of an octagon's height
HEAD = 6.0
SMALL = 0.85  # labels of arrows, against those of boxes
MAX_PIXELS = 30000  # of a bitmap's side
DPI = 96


@dataclass
class Box:
    """A node: centre, size and what is in it."""

    x: float
    y: float
    width: float
    height: float
    spec: NodeSpec

    @property
    def outline(self) -> np.ndarray:
        """Its corners (k, 2)."""
        w, h = self.width / 2, self.height / 2
        c = CORNER * self.height if self.spec.shape == "octagon" else 0.0
        upper = [(-w, -h + c), (-w + c, -h), (w - c, -h), (w, -h + c)]
        corners = upper + [(-x, -y) for x, y in upper]
        return np.array(corners) + (self.x, self.y)


@dataclass
class Arrow:
    """A Bezier curve through ``points`` (3 k + 1, 2): ends and control points; its label stands at its first end."""

    points: np.ndarray
    label: str
    both: bool = False


class Picture:
    """``boxes`` and ``arrows`` of a graph in ``width`` x ``height`` points."""

    def __init__(self, graph: NetGraph) -> None:
        self.graph = graph
        self.sideways = graph.rankdir in ("LR", "RL")
        self._sizes = {key: _size(spec) for key, spec in graph.nodes.items()}
        hosts = {edge.target: edge.source for edge in graph.edges if edge.both}
        self._groups = {key: [key] for key in graph.nodes if key not in hosts}
        for guest, host in hosts.items():
            self._groups[host].append(guest)
        numbers = {key: i for i, key in enumerate(self._groups)}
        flows = [e for e in graph.edges if not e.both]
        links = [(numbers[hosts.get(e.source, e.source)], numbers[hosts.get(e.target, e.target)]) for e in flows]
        room = [len(e.label) * CHARACTER if self.sideways else 0.0 for e in flows]
        layout = Layout([self._reach(group) for group in self._groups.values()], links, room)
        self.boxes = dict(self._place(layout.centers))
        keys = list(self._groups)
        for route, (a, b) in zip(layout.routes, links, strict=True):
            self._touch(route, layout.centers, a, keys[a], 0)
            self._touch(route, layout.centers, b, keys[b], -1)
        self.arrows = [self._arrow(route, e.label) for route, e in zip(layout.routes, flows, strict=True)]
        self.arrows += self._short_arrows()
        self._fit()

    def _across(self, key: str) -> float:
        return self._sizes[key][1 if self.sideways else 0]

    def _reach(self, group: list[str]) -> tuple[float, float, float]:
        """Of a blob with its in-place layers beside it, across the flow and along it, from the blob's centre."""
        half = self._across(group[0]) / 2
        beside = sum(BESIDE + self._across(key) for key in group[1:])
        return half, half + beside, max(self._sizes[key][0 if self.sideways else 1] for key in group)

    def _place(self, centers: np.ndarray) -> Iterator[tuple[str, Box]]:
        for (across, along), group in zip(centers, self._groups.values(), strict=True):
            at = across - self._across(group[0]) / 2
            for key in group:
                length = self._across(key)
                x, y = self._turn(np.array([at + length / 2, along]))
                yield key, Box(x, y, *self._sizes[key], self.graph.nodes[key])
                at += length + BESIDE

    def _touch(self, route: np.ndarray, centers: np.ndarray, node: int, key: str, end: int) -> None:
        """Let an end of ``route`` touch the blob itself, where layers in place beside it are larger."""
        along = self._sizes[key][0 if self.sideways else 1]
        route[end, 1] = centers[node, 1] + np.sign(route[end, 1] - centers[node, 1]) * along / 2

    def _turn(self, points: np.ndarray) -> np.ndarray:
        """From (across, along) the flow to (x, y)."""
        points = points[..., ::-1] if self.sideways else points
        flip = {"TB": (1, 1), "BT": (1, -1), "LR": (1, 1), "RL": (-1, 1)}[self.graph.rankdir]
        return points * flip

    def _arrow(self, route: np.ndarray, label: str) -> Arrow:
        pieces = [route[:1]]
        for a, b in zip(route[:-1], route[1:], strict=True):
            bend = np.array([0.0, (b[1] - a[1]) / 2])
            pieces.append(np.stack([a + bend, b - bend, b]))
        return Arrow(self._turn(np.concatenate(pieces)), label)

    def _short_arrows(self) -> Iterator[Arrow]:
        """Between neighbours of a group, from edge to edge."""
        axis = 1 if self.sideways else 0
        for group in self._groups.values():
            for first, second in zip(group[:-1], group[1:], strict=True):
                start, end = (np.array([self.boxes[key].x, self.boxes[key].y]) for key in (first, second))
                start[axis] += self._across(first) / 2
                end[axis] -= self._across(second) / 2
                yield Arrow(np.linspace(start, end, 4), "", both=True)

    def _fit(self) -> None:
        """Move everything to where x and y begin at the margin."""
        corners = np.concatenate([box.outline for box in self.boxes.values()] or [np.zeros((1, 2))])
        points = np.concatenate([corners, *(arrow.points for arrow in self.arrows)])
        offset = MARGIN - points.min(axis=0)
        for box in self.boxes.values():
            box.x, box.y = box.x + offset[0], box.y + offset[1]
        for arrow in self.arrows:
            arrow.points = arrow.points + offset
        self.width, self.height = points.max(axis=0) + offset + MARGIN

    def label_place(self, arrow: Arrow) -> tuple[float, float]:
        """Where an arrow's label begins: above the middle of its first piece, or right of it."""
        middle = arrow.points[:4].T @ (1 / 8, 3 / 8, 3 / 8, 1 / 8)
        half = len(arrow.label) * CHARACTER * SMALL / 2
        x, y = middle + ((-half, -4) if self.sideways else (5, 3))
        return float(x), float(y)


def _size(spec: NodeSpec) -> tuple[float, float]:
    lines = spec.label.split("\n")
    return max(len(line) for line in lines) * CHARACTER + 2 * PADDING, len(lines) * LINE + PADDING


def _baselines(box: Box) -> Iterator[tuple[str, float]]:
    lines = box.spec.label.split("\n")
    for i, line in enumerate(lines):
        yield line, box.y + (i - (len(lines) - 1) / 2) * LINE + 0.35 * FONT


def _heads(arrow: Arrow) -> Iterator[np.ndarray]:
    """Each arrow head as a triangle (3, 2)."""
    ends = [(arrow.points[-1], arrow.points[-2])] + ([(arrow.points[0], arrow.points[1])] if arrow.both else [])
    for tip, before in ends:
        direction = tip - before
        direction = HEAD * direction / max(float(np.hypot(*direction)), 1e-9)
        side = 0.4 * np.array([-direction[1], direction[0]])
        yield np.stack([tip, tip - direction + side, tip - direction - side])


# ---- SVG


def render_svg(graph: NetGraph) -> str:
    """The drawing as an SVG document."""
    picture = Picture(graph)
    size = f'width="{picture.width:.0f}pt" height="{picture.height:.0f}pt"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {picture.width:.1f} {picture.height:.1f}" '
        f'font-family="Helvetica, Arial, sans-serif" font-size="{FONT:g}">',
        f"<title>{escape(graph.name)}</title>",
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for arrow in picture.arrows:
        start, *rest = (f"{x:.1f},{y:.1f}" for x, y in arrow.points)
        parts.append(f'<path d="M{start} C{" ".join(rest)}" fill="none" stroke="#404040"/>')
        parts.extend(f'<polygon points="{_svg_points(head)}" fill="#404040"/>' for head in _heads(arrow))
        if arrow.label:
            x, y = picture.label_place(arrow)
            parts.append(f'<text x="{x:.1f}" y="{y:.1f}" font-size="{SMALL * FONT:g}">{escape(arrow.label)}</text>')
    for box in picture.boxes.values():
        parts.append(f'<polygon points="{_svg_points(box.outline)}" fill="{box.spec.fill}" stroke="#404040"/>')
        for line, y in _baselines(box):
            parts.append(f'<text x="{box.x:.1f}" y="{y:.1f}" text-anchor="middle">{escape(line)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _svg_points(points: np.ndarray) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


# ---- PNG, PDF, JPEG


def render_matplotlib(graph: NetGraph, format: str) -> bytes:
    """The drawing as the content of a PNG, PDF or JPEG file; a large one at fewer dots per inch."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    picture = Picture(graph)
    inches = picture.width / 72, picture.height / 72
    figure = Figure(figsize=inches, dpi=min(DPI, MAX_PIXELS / max(inches)))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, picture.width), ylim=(picture.height, 0))
    axes.axis("off")
    _paint(picture, axes)
    stream = io.BytesIO()
    figure.savefig(stream, format=format)
    return stream.getvalue()


def _paint(picture: Picture, axes: Any) -> None:
    from matplotlib.patches import PathPatch, Polygon
    from matplotlib.path import Path

    for arrow in picture.arrows:
        codes = [Path.MOVETO] + [Path.CURVE4] * (len(arrow.points) - 1)
        axes.add_patch(PathPatch(Path(arrow.points, codes), fill=False, edgecolor="#404040"))
        for head in _heads(arrow):
            axes.add_patch(Polygon(head, facecolor="#404040"))
        if arrow.label:
            axes.text(*picture.label_place(arrow), arrow.label, fontsize=SMALL * FONT, parse_math=False)
    for box in picture.boxes.values():
        axes.add_patch(Polygon(box.outline, facecolor=box.spec.fill, edgecolor="#404040"))
        for line, y in _baselines(box):
            axes.text(box.x, y, line, fontsize=0.9 * FONT, ha="center", va="baseline", parse_math=False)


# ---- GraphViz


def render_dot(graph: NetGraph) -> str:
    """The graph in GraphViz's language, for ``dot -Tpng``."""
    lines = [f"digraph {_quoted(graph.name)} {{", f"rankdir={graph.rankdir};"]
    for key, spec in graph.nodes.items():
        shape = "box" if spec.shape == "record" else spec.shape  # a record's label has a language of its own
        style = f'shape={shape}, style=filled, fillcolor="{spec.fill}"'
        lines.append(f"{_quoted(key)} [label={_quoted(spec.label)}, {style}];")
    for edge in graph.edges:
        more = ", dir=both, constraint=false" if edge.both else ""
        lines.append(f"{_quoted(edge.source)} -> {_quoted(edge.target)} [label={_quoted(edge.label)}{more}];")
    return "\n".join([*lines, "}", ""])


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
