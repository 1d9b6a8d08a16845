"""calibrate: cost and quality along the policy's parameter, and the setting that meets the target."""

import math

from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from bestroute.plots import style
from bestroute.plots.curve import FAMILIES, PER_PROMPTS
from bestroute.plots.labels import Labels
from bestroute.plots.report import describe_data, describe_intervals

PARAMETERS = {"threshold": "threshold", "utility": "lambda"}
TARGET = {"color": style.RED, "linewidth": 1.2, "linestyle": style.DASHES}
SHARES = (("quality, of the reference's", style.GREEN), ("cost, of the reference's", style.PURPLE),
          ("prompts that the reference answers", style.INK))


class Calibration:
    def __init__(self, report):
        self.kind = report["policy"].text()
        if self.kind not in PARAMETERS:
            raise report["policy"].error(f"expected {' or '.join(PARAMETERS)}")
        self.key = PARAMETERS[self.kind]
        self.color = FAMILIES[self.kind]
        keys = (self.key, "reference_share", "mean_cost", "quality")
        self.chosen = {key: report[key].number() for key in keys}
        self.intervals = {key: tuple(end.number_or_nan() for end in report["intervals"][key])
                          for key in keys}
        self.reference_cost = report["reference"]["cost"].number()
        self.reference_quality = report["reference"]["quality"].number()
        self.reference_model = report["reference"]["model"].text()
        (self.target, goal), = report["target"].items()
        self.goal = goal.number()
        curve = report["curve"]
        self.parameters = curve.column(self.key)
        self.costs = curve.column("mean_cost")
        self.qualities = curve.column("quality")
        self.shares = curve.column("reference_share")

    def target_text(self):
        return {
            "reduce_cost": f"target: {100 * self.goal:g} % less cost",
            "quality": f"target: {100 * self.goal:g} % of the reference's quality",
            "reference_share": f"target: at most {100 * self.goal:g} % to the reference",
        }.get(self.target, f"target: {self.target} {self.goal:g}")


def error_bars(value, interval, scale=1):
    return [[scale * max(0, value - interval[0])], [scale * max(0, interval[1] - value)]]


def draw_plane(axes, c):
    """Quality against cost."""
    costs = [PER_PROMPTS * cost for cost in c.costs]
    x, y = PER_PROMPTS * c.chosen["mean_cost"], c.chosen["quality"]
    reference = PER_PROMPTS * c.reference_cost, c.reference_quality
    axes.plot(costs, c.qualities, color=c.color, linewidth=2, zorder=3)
    axes.errorbar([x], [y], xerr=error_bars(x / PER_PROMPTS, c.intervals["mean_cost"], PER_PROMPTS),
                  yerr=error_bars(y, c.intervals["quality"]), color=style.INK, marker="o", markersize=8,
                  markerfacecolor=c.color, markeredgewidth=1.4, elinewidth=1.2, capsize=4, zorder=5)
    axes.plot(*([value] for value in reference), color=style.INK, linestyle="none", marker="D", markersize=7,
              zorder=4)
    if c.target == "quality":
        axes.axhline(c.goal * c.reference_quality, zorder=2, **TARGET)
    elif c.target == "reduce_cost":
        axes.axvline((1 - c.goal) * reference[0], zorder=2, **TARGET)
    axes.set_xlim(0, 1.12 * max(costs + [reference[0]]))
    axes.margins(y=0.1)
    axes.set_xlabel(f"USD per {PER_PROMPTS:,} prompts")
    axes.set_ylabel("quality")

    labels = Labels(axes)
    labels.avoid_line(costs, c.qualities)
    labels.avoid_points(*([value] for value in reference), 5)
    labels.avoid_points([x], [y], 5)
    labels.avoid_line([PER_PROMPTS * end for end in c.intervals["mean_cost"]], [y, y])
    labels.avoid_line([x, x], c.intervals["quality"])
    if c.target == "quality":
        labels.avoid_line(axes.get_xlim(), [c.goal * c.reference_quality] * 2)
    elif c.target == "reduce_cost":
        labels.avoid_line([(1 - c.goal) * reference[0]] * 2, axes.get_ylim())
    labels.add(*reference, f"reference: {c.reference_model.rsplit('/', 1)[-1]}", weight="bold")
    labels.add(x, y, f"chosen: {c.key} {c.chosen[c.key]:.4g}", weight="bold")
    labels.draw()


def draw_parameter(axes, c):
    """Shares of the reference's quality and cost, and of the prompts it answers, along the parameter."""
    series = ([quality / c.reference_quality for quality in c.qualities],
              [cost / c.reference_cost for cost in c.costs], c.shares)
    for values, (_, color) in zip(series, SHARES):
        axes.plot(c.parameters, [100 * value for value in values], color=color, linewidth=1.6, zorder=3)
    if c.key == "lambda":
        axes.set_xscale("log")
    low, high = c.intervals[c.key]
    if math.isfinite(low) and math.isfinite(high):
        axes.axvspan(low, high, color=c.color, alpha=0.15, linewidth=0, zorder=1)
    axes.axvline(c.chosen[c.key], color=c.color, linewidth=1.6, zorder=2)
    axes.axhline(100 * (1 - c.goal if c.target == "reduce_cost" else c.goal), zorder=2, **TARGET)
    axes.set_ylim(-2, None)
    axes.set_xlabel("lambda (quality per USD)" if c.key == "lambda" else "threshold")
    axes.set_ylabel("share, %")


def draw(report):
    c = Calibration(report)
    outcome = (f"{100 * (1 - c.chosen['mean_cost'] / c.reference_cost):.1f} % less cost at "
               f"{100 * c.chosen['quality'] / c.reference_quality:.1f} % of the reference's quality")
    figure, (plane, along) = style.new_figure(
        f"Calibration of {c.kind}: bundle {report['bundle']['name'].text()}",
        describe_data(report) + [describe_intervals(report), outcome], 5.6, legend_lines=2, ncols=2,
        gridspec_kw={"wspace": 0.2})
    draw_plane(plane, c)
    draw_parameter(along, c)
    style.legend_below(figure, [
        Line2D([], [], color=c.color, linewidth=2, label=f"{c.kind} policies"),
        Patch(color=c.color, alpha=0.25, linewidth=0, label=f"95 % interval of the chosen {c.key}"),
        Line2D([], [], label=c.target_text(), **TARGET),
        *(Line2D([], [], color=color, linewidth=1.6, label=label) for label, color in SHARES),
    ], 3)
    return figure
