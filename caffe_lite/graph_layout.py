"""Where to draw the nodes of a directed graph, rank by rank (Sugiyama's method).

Sugiyama, Tagawa, Toda, Methods for Visual Understanding of Hierarchical System Structures (1981):
1. Rank: every edge leads to a later rank (the longest path); sources move close to what they feed.
2. An edge over several ranks is cut into pieces by points of no size, so that it finds its way between nodes.
3. Order in each rank: nodes go to the mean place of their neighbours, sweeping down and up.
4. Coordinates: as near to the neighbours as the widths of the nodes allow (isotonic regression).

Edges that close a cycle are taken backward. Ranks run along y, a rank lies along x; lengths are in points.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

Node = int
Edge = tuple[Node, Node]
Size = tuple[float, float, float]
X_GAP, Y_GAP = 18.0, 26.0
SWEEPS = 12
RELAXATIONS = 60
POINT = (3.0, 3.0, 0.0)  # room for an edge between nodes
STIFFNESS = (1.0, 2.0, 8.0)  # of a link with no, one or two such points at its ends: long edges run straight


class Layout:
    """``centers`` (n, 2), x and y of each node; ``routes``, the points (k, 2) of each edge from end to end."""

    def __init__(self, sizes: Sequence[Size], edges: Sequence[Edge], room: Sequence[float] | None = None) -> None:
        """``sizes``: of each node how far it reaches to the left and right of its x, and its height.

        ``edges`` by the nodes' numbers; ``room``: for each, how much more than the usual gap it needs along y.
        """
        self.sizes = list(sizes)
        self.edges = list(edges)
        backward = _closing_edges(len(sizes), self.edges)
        ranks = _ranks(len(sizes), [(b, a) if k in backward else (a, b) for k, (a, b) in enumerate(self.edges)])
        paths = self._cut_long_edges(ranks)
        self._links = [(a, b) for path in paths for a, b in zip(path, path[1:])]  # noqa: B905 - pairs
        self._neighbours = _neighbours(len(self.sizes), self._links)
        rows = _initial_rows(ranks, self._neighbours)
        self._order(rows)
        x = self._x(rows)
        y = self._y(rows, ranks, room or [0.0] * len(self.edges))
        self.centers = np.stack([x, y], axis=1)[: len(sizes)]
        self.routes = [self._route(path, x, y) for path in paths]
        for k in backward:
            self.routes[k] = self.routes[k][::-1]

    def _cut_long_edges(self, ranks: list[int]) -> list[list[Node]]:
        """The nodes of each edge's path, from the lower rank; adds points to ``ranks`` and ``sizes``."""
        paths = []
        for edge in self.edges:
            a, b = sorted(edge, key=lambda n: ranks[n])
            path = [a]
            for rank in range(ranks[a] + 1, ranks[b]):
                path.append(len(ranks))
                ranks.append(rank)
                self.sizes.append(POINT)
            paths.append([*path, b])
        return paths

    def _order(self, rows: list[list[Node]]) -> None:
        place = np.zeros(len(self.sizes))
        best, fewest = [list(row) for row in rows], None
        for sweep in range(SWEEPS):
            for row in rows:
                place[row] = np.arange(len(row))
            crossings = _crossings(rows, self._neighbours, place)
            if fewest is None or crossings < fewest:
                best, fewest = [list(row) for row in rows], crossings
            side = sweep % 2  # neighbours above, then below
            for row in rows[1:] if side == 0 else rows[-2::-1]:
                mean = {n: np.mean(place[near]) if (near := self._neighbours[side][n]) else place[n] for n in row}
                row.sort(key=lambda n: (mean[n], place[n]))  # noqa: B023 - used at once
                place[row] = np.arange(len(row))
        rows[:] = best

    def _x(self, rows: list[list[Node]]) -> np.ndarray:
        x = np.zeros(len(self.sizes))
        starts = []
        for row in rows:
            apart = [self.sizes[a][1] + X_GAP + self.sizes[b][0] for a, b in zip(row, row[1:])]  # noqa: B905 - pairs
            starts.append(np.concatenate([[0.0], np.cumsum(apart)]))
            x[row] = starts[-1] - starts[-1][-1] / 2
        pulls = self._pulls()
        totals = [sum(weight for _, weight in pull) for pull in pulls]
        for relaxation in range(RELAXATIONS):
            for r in range(len(rows)) if relaxation % 2 == 0 else reversed(range(len(rows))):
                row = rows[r]
                wanted = [sum(x[m] * w for m, w in pulls[n]) / totals[n] if pulls[n] else x[n] for n in row]
                x[row] = _non_decreasing(wanted - starts[r], [totals[n] or 1.0 for n in row]) + starts[r]
        return x - min((x[n] - self.sizes[n][0] for row in rows for n in row), default=0.0)

    def _pulls(self) -> list[list[tuple[Node, float]]]:
        """The neighbours of each node, above and below, and how strongly each pulls."""
        pulls: list[list[tuple[Node, float]]] = [[] for _ in self.sizes]
        for a, b in self._links:
            weight = STIFFNESS[(self.sizes[a] is POINT) + (self.sizes[b] is POINT)]
            pulls[a].append((b, weight))
            pulls[b].append((a, weight))
        return pulls

    def _y(self, rows: list[list[Node]], ranks: list[int], room: Sequence[float]) -> np.ndarray:
        gaps = [Y_GAP] * len(rows)
        for (a, b), more in zip(self.edges, room, strict=True):
            first = min(ranks[a], ranks[b])
            gaps[first] = max(gaps[first], Y_GAP + more)
        y = np.zeros(len(self.sizes))
        top = 0.0
        for row, gap in zip(rows, gaps, strict=True):
            height = max(self.sizes[n][2] for n in row)
            y[row] = top + height / 2
            top += height + gap
        return y

    def _route(self, path: list[Node], x: np.ndarray, y: np.ndarray) -> np.ndarray:
        points = np.stack([x[path], y[path]], axis=1)
        points[0, 1] += self.sizes[path[0]][2] / 2
        points[-1, 1] -= self.sizes[path[-1]][2] / 2
        return points


def _closing_edges(count: int, edges: Sequence[Edge]) -> set[int]:
    """The numbers of the edges that lead back to a node from which a depth-first walk has come."""
    out: list[list[tuple[int, Node]]] = [[] for _ in range(count)]
    for k, (a, b) in enumerate(edges):
        out[a].append((k, b))
    closing: set[int] = set()
    state = [0] * count  # 1: on the walk's path, 2: done
    for start in range(count):
        stack = [] if state[start] else [(start, iter(out[start]))]
        while stack:
            node, rest = stack[-1]
            state[node] = 1
            for k, following in rest:
                if state[following] == 1:
                    closing.add(k)
                elif not state[following]:
                    stack.append((following, iter(out[following])))
                    break
            else:
                state[node] = 2
                stack.pop()
    return closing


def _ranks(count: int, edges: Iterable[Edge]) -> list[int]:
    before: list[list[Node]] = [[] for _ in range(count)]
    after: list[list[Node]] = [[] for _ in range(count)]
    for a, b in edges:
        before[b].append(a)
        after[a].append(b)
    waiting = [len(b) for b in before]
    ready = [n for n in range(count) if not waiting[n]]
    ranks = [0] * count
    for n in ready:  # grows while it is read: a topological order
        for m in after[n]:
            ranks[m] = max(ranks[m], ranks[n] + 1)
            waiting[m] -= 1
            if not waiting[m]:
                ready.append(m)
    for n in reversed(ready):  # what only feeds others comes as late as they allow
        if not before[n] or all(len(after[m]) == 1 and not before[m] for m in before[n]):
            ranks[n] = min((ranks[m] - 1 for m in after[n]), default=ranks[n])
    return ranks


def _neighbours(count: int, links: Iterable[Edge]) -> tuple[list[list[Node]], list[list[Node]]]:
    above: list[list[Node]] = [[] for _ in range(count)]
    below: list[list[Node]] = [[] for _ in range(count)]
    for a, b in links:
        above[b].append(a)
        below[a].append(b)
    return above, below


def _initial_rows(ranks: list[int], neighbours: tuple[list[list[Node]], list[list[Node]]]) -> list[list[Node]]:
    """Nodes by rank, in the order in which a walk from the first node meets them: branches stay together."""
    rows: list[list[Node]] = [[] for _ in range(max(ranks, default=-1) + 1)]
    seen = [False] * len(ranks)
    for start in sorted(range(len(ranks)), key=lambda n: ranks[n]):
        stack = [start]
        while stack:
            n = stack.pop()
            if seen[n]:
                continue
            seen[n] = True
            rows[ranks[n]].append(n)
            stack.extend(reversed(neighbours[1][n]))
    return rows


def _crossings(rows: list[list[Node]], neighbours: tuple[list[list[Node]], list[list[Node]]], place: np.ndarray) -> int:
    """How many pairs of edges cross, counted as inversions."""
    total = 0
    for row in rows:
        ends = np.concatenate([np.sort(place[neighbours[1][n]]) for n in row]) if row else np.empty(0)
        total += int((ends[:, np.newaxis] > ends)[np.triu_indices(len(ends), 1)].sum())
    return total


def _non_decreasing(wanted: np.ndarray, weights: Sequence[float]) -> np.ndarray:
    """The non-decreasing sequence nearest to ``wanted`` in the weighted mean square (pool adjacent violators)."""
    blocks: list[list[float]] = []  # mean, weight, length
    for value, weight in zip(wanted, weights, strict=True):
        blocks.append([float(value), float(weight), 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            mean, weight_, length = blocks.pop()
            before = blocks[-1]
            together = before[1] + weight_
            before[:] = [(before[0] * before[1] + mean * weight_) / together, together, before[2] + length]
    return np.concatenate([np.full(int(length), mean) for mean, _, length in blocks])
