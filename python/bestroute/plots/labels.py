"""Places texts beside points so that none covers another text, a marker or a line.

Each text is tried at places around its point, near and far; the place with the least to cover is taken. All
texts are placed anew a few times, since each stands in the way of the others. A text that had to go far is
tied to its point by a thin line. All lengths are points of 1/72 inch, so that the result is the same for
every format.
"""

import math

import numpy as np
from matplotlib.font_manager import FontProperties

from bestroute.plots import style

DISTANCES = (7, 11, 16, 22, 30, 40, 52, 66, 82, 100, 120, 145, 175)
ANGLES = 16
ROUNDS = 4  # in each every text is placed anew among the others
STEP = 3  # between two places of a line that are to stay free
TIED_BEYOND = 14
PADDING = 2

COVERS_TEXT = 1e6
COVERS_INK = 8
LEADER_CROSSES_TEXT = 60
LEADER_CROSSES_INK = 5
AWAY = 0.5  # per point of distance


class Label:
    def __init__(self, point, anchor, text, size, look):
        self.point = point  # in the axes' data
        self.anchor = anchor  # in points, as everything else
        self.text = text
        self.size = size
        self.look = look
        self.box = None
        self.distance = 0


class Labels:
    """The texts of one pair of axes. Limits and scales are settled now: draw first what may change them."""

    def __init__(self, axes):
        self.axes = axes
        axes.set_xlim(axes.get_xlim())
        axes.set_ylim(axes.get_ylim())
        self.unit = 72 / axes.figure.dpi
        self.renderer = axes.figure.canvas.get_renderer()
        frame = axes.get_window_extent(self.renderer)
        self.frame = [edge * self.unit for edge in (frame.x0, frame.y0, frame.x1, frame.y1)]
        self.ink = []  # places that texts should not cover
        self.labels = []

    def _points(self, xs, ys):
        known = [(x, y) for x, y in zip(xs, ys) if math.isfinite(x) and math.isfinite(y)]
        return [tuple(p) for p in self.axes.transData.transform(known) * self.unit] if known else []

    def avoid_points(self, xs, ys, radius=3):
        for x, y in self._points(xs, ys):
            self.ink += [(x, y), (x - radius, y), (x + radius, y), (x, y - radius), (x, y + radius)]

    def avoid_line(self, xs, ys):
        points = self._points(xs, ys)
        for (x0, y0), (x1, y1) in zip(points, points[1:]):
            steps = max(1, int(math.hypot(x1 - x0, y1 - y0) / STEP))
            self.ink += [(x0 + (x1 - x0) * i / steps, y0 + (y1 - y0) * i / steps) for i in range(steps + 1)]

    def add(self, x, y, text, color=style.INK, size=style.SMALL, weight="normal"):
        """A text for the point (x, y); none where that is not finite."""
        anchors = self._points([x], [y])
        if anchors:
            width, height, _ = self.renderer.get_text_width_height_descent(
                text, FontProperties(size=size, weight=weight), False)
            extent = (width * self.unit + 2 * PADDING, height * self.unit + 2 * PADDING)
            look = {"color": color, "size": size, "weight": weight}
            self.labels.append(Label((x, y), anchors[0], text, extent, look))

    def _cost(self, label, box, distance, ink, others):
        x0, y0, x1, y1 = box
        if x0 < self.frame[0] or y0 < self.frame[1] or x1 > self.frame[2] or y1 > self.frame[3]:
            return math.inf
        cost = AWAY * distance
        cost += COVERS_TEXT * sum(x0 < c and a < x1 and y0 < d and b < y1 for a, b, c, d in others)
        x, y = ink[:, 0], ink[:, 1]
        cost += COVERS_INK * np.count_nonzero((x0 <= x) & (x <= x1) & (y0 <= y) & (y <= y1))
        if distance > TIED_BEYOND:
            cost += self._leader_cost(label.anchor, nearest(box, label.anchor), ink, others)
        return cost

    @staticmethod
    def _leader_cost(start, end, ink, others):
        steps = max(2, int(math.dist(start, end) / STEP))
        cost = 0
        for i in range(2, steps):  # the first places are the point itself
            x, y = start[0] + (end[0] - start[0]) * i / steps, start[1] + (end[1] - start[1]) * i / steps
            cost += LEADER_CROSSES_TEXT * any(a <= x <= c and b <= y <= d for a, b, c, d in others)
            cost += LEADER_CROSSES_INK * np.count_nonzero((abs(ink[:, 0] - x) < 2) & (abs(ink[:, 1] - y) < 2))
        return cost

    def _settle(self, label, ink):
        others = [other.box for other in self.labels if other is not label and other.box is not None]
        width, height = label.size
        best = math.inf
        for distance in DISTANCES:
            if AWAY * distance >= best:
                break
            for turn in range(ANGLES):
                angle = 2 * math.pi * turn / ANGLES
                x = label.anchor[0] + math.cos(angle) * (distance + width / 2)
                y = label.anchor[1] + math.sin(angle) * (distance + height / 2)
                box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
                cost = self._cost(label, box, distance, ink, others)
                if cost < best:
                    best, label.box, label.distance = cost, box, distance

    def draw(self):
        ink = np.array(self.ink).reshape(-1, 2)
        for _ in range(ROUNDS):
            for label in self.labels:
                self._settle(label, ink)
        for label in self.labels:
            if label.box is None:  # wider than the axes
                continue
            x0, y0, x1, y1 = label.box
            offset = ((x0 + x1) / 2 - label.anchor[0], (y0 + y1) / 2 - label.anchor[1])
            tie = None
            if label.distance > TIED_BEYOND:
                tie = {"arrowstyle": "-", "color": label.look["color"], "linewidth": 0.6, "shrinkA": 0,
                       "shrinkB": 3}
            self.axes.annotate(label.text, label.point, offset, textcoords="offset points", ha="center",
                               va="center", zorder=9, arrowprops=tie, **label.look)


def nearest(box, point):
    """The point of the box that is nearest."""
    return min(max(point[0], box[0]), box[2]), min(max(point[1], box[1]), box[3])
