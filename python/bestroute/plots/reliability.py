"""eval: what was measured against what was predicted, with the interval and the count of every bin."""

import math

from matplotlib.lines import Line2D

from bestroute.plots import style
from bestroute.plots.report import describe_data, describe_intervals


class Bin:
    def __init__(self, node, low_edge):
        self.low_edge = low_edge
        self.pairs = node["pairs"].count()
        self.predicted = node["predicted"].number()
        self.measured = node["measured"].number()
        low, high = node["low"].number_or_nan(), node["high"].number_or_nan()
        self.below = max(0, self.measured - low) if math.isfinite(low) else 0
        self.above = max(0, high - self.measured) if math.isfinite(high) else 0


def draw_bins(axes, bins):
    axes.plot([0, 1], [0, 1], color=style.QUIET, linewidth=1.2, linestyle=style.DASHES, zorder=2)
    xs, ys = [b.predicted for b in bins], [b.measured for b in bins]
    axes.plot(xs, ys, color=style.BLUE, linewidth=1, alpha=0.6, zorder=4)
    axes.errorbar(xs, ys, yerr=[[b.below for b in bins], [b.above for b in bins]], color=style.BLUE,
                  linestyle="none", marker="o", markersize=6, elinewidth=1.4, capsize=4, zorder=5)
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.02, 1.02)
    axes.set_yticks([tick / 5 for tick in range(6)])
    axes.set_ylabel("measured")


def draw_counts(axes, bins, width):
    """One bar a bin, with its count above."""
    most = max((b.pairs for b in bins), default=1)
    for b in bins:
        axes.bar(b.low_edge, b.pairs, width=width, align="edge", color=style.BLUE, alpha=0.35,
                 edgecolor="white", linewidth=1.5)
        axes.annotate(f"{b.pairs:,}", (b.low_edge + width / 2, b.pairs), (0, 2), textcoords="offset points",
                      ha="center", va="bottom", size=style.SMALL)
    axes.set_ylim(0, 1.35 * most)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(False)
    axes.set_ylabel("pairs")
    axes.set_xlabel("predicted probability that the candidate's answer is as good as the reference's")


def draw(report):
    calibration = report["all"]["calibration"]
    parts = describe_data(report) + [describe_intervals(report)]
    parts.append(f"expected calibration error {calibration['expected_error'].number_or_nan():.4f}")
    figure, (axes, strip) = style.new_figure(
        f"Reliability of predictions: bundle {report['bundle']['name'].text()}", parts, 6.6, nrows=2,
        sharex=True, gridspec_kw={"height_ratios": [5, 1], "hspace": 0.06})
    nodes = list(calibration["bins"])
    bins = [Bin(node, index / len(nodes)) for index, node in enumerate(nodes)]
    bins = [b for b in bins if b.pairs > 0]
    draw_bins(axes, bins)
    draw_counts(strip, bins, 1 / len(nodes))
    strip.set_xticks([index / len(nodes) for index in range(len(nodes) + 1)])
    style.legend_below(figure, [
        Line2D([], [], color=style.BLUE, linewidth=1.4, marker="o",
               label="mean of a bin and its 95 % interval"),
        Line2D([], [], color=style.QUIET, linewidth=1.2, linestyle=style.DASHES, label="perfect predictions"),
    ], 2)
    return figure
