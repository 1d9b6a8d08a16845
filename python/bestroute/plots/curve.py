"""eval: quality against cost of policies, of static choices and of each candidate, over all tasks."""

import math

from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from bestroute.plots import style
from bestroute.plots.labels import Labels
from bestroute.plots.report import describe_data, describe_intervals

FAMILIES = {"threshold": style.BLUE, "utility": style.ORANGE}
PER_PROMPTS = 1000  # costs are shown for so many
CANDIDATE = {"linewidth": 0.9, "marker": "o", "markersize": 3.6, "markeredgewidth": 0}


class Candidate:
    def __init__(self, node):
        self.model = node["model"].text()
        self.n = node["n"].count()
        self.cost = PER_PROMPTS * node["cost"].number_or_nan()
        self.quality = node["quality"].number_or_nan()
        self.is_reference = node["reference"].value is True


def read_points(points):
    return [PER_PROMPTS * cost for cost in points.column("cost")], points.column("quality")


def short_models(names):
    """Each model's name without the part before its last slash, where that leaves the names different."""
    names = list(dict.fromkeys(names))
    shorts = [name.rsplit("/", 1)[-1] for name in names]
    return {name: short if shorts.count(short) == 1 else name for name, short in zip(names, shorts)}


def span(numbers):
    """"5", "1-5" or "1, 3": the n of one model's candidates."""
    numbers = sorted(set(numbers))
    if len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"{numbers[0]}–{numbers[-1]}"
    return ", ".join(map(str, numbers))


def served_family(whole):
    """The kind of the service's default policy; "threshold" where that is another kind, or there is none."""
    policy = whole["policy"]
    kind = "" if policy.value is None else policy["kind"].text()
    return kind if kind in FAMILIES else "threshold"


def policy_text(policy):
    """"utility, lambda 15.84"."""
    parts = [policy["kind"].text()]
    for key in ("threshold", "lambda", "tolerance", "max_cost"):
        if key in policy:
            parts.append(f"{key} {policy[key].number():.4g}")
    return ", ".join(parts)


def draw_candidates(axes, labels, candidates):
    """The candidates of one model are joined, in the order of n, and named once."""
    names = short_models(c.model for c in candidates)
    chains = {}
    for candidate in candidates:
        if not candidate.is_reference:
            chains.setdefault(candidate.model, []).append(candidate)
    for index, (model, chain) in enumerate(chains.items()):
        chain.sort(key=lambda c: c.n)
        color = style.MODEL_COLORS[index % len(style.MODEL_COLORS)]
        xs, ys = [c.cost for c in chain], [c.quality for c in chain]
        axes.plot(xs, ys, color=color, zorder=3, **CANDIDATE)
        labels.avoid_line(xs, ys)
        labels.avoid_points(xs, ys)
        labels.add(xs[-1], ys[-1], f"{names[model]} ×{span([c.n for c in chain])}", color=color)


def settle_limits(axes, whole):
    """All that is drawn, and room at the right for the names of candidates about as dear as the reference."""
    xs, ys = [PER_PROMPTS * whole["oracle"]["cost"].number()], [whole["oracle"]["quality"].number()]
    curves = whole["curves"]
    for points in (whole["candidates"], curves["static"], curves["static_per_task"],
                   *(curves[f] for f in FAMILIES)):
        more_xs, more_ys = read_points(points)
        xs += more_xs
        ys += more_ys
    ys += whole["quality_at"][served_family(whole)].column("high")
    high = max(x for x in xs if math.isfinite(x))
    ys = [y for y in ys if math.isfinite(y)]
    margin = 0.05 * (max(ys) - min(ys)) or 0.05
    axes.set_xlim(0, 1.16 * high or 1)
    axes.set_ylim(min(ys) - margin, max(ys) + 1.4 * margin)


def draw_curves(axes, labels, whole):
    """Hulls, policies and the interval of the policy that is served; returns their entries for the legend."""
    served = served_family(whole)
    curves = whole["curves"]
    dashed = {"linewidth": 1.3, "linestyle": style.DASHES, "zorder": 2}
    lines = [(curves["static"], "hull of static choices", {"color": style.QUIET, **dashed}),
             (curves["static_per_task"], "static choices per task",
              {"color": style.PURPLE, "marker": "o", "markersize": 2.6, **dashed})]
    for family in sorted(FAMILIES, key=lambda name: name == served):
        look = {"linewidth": 2.2, "zorder": 5} if family == served else {"linewidth": 1.3, "zorder": 4}
        lines.append((curves[family], f"{family} policies", {"color": FAMILIES[family], **look}))
    handles = []
    for points, label, look in lines:
        xs, ys = read_points(points)
        axes.plot(xs, ys, **look)
        labels.avoid_line(xs, ys)
        handles.append(Line2D([], [], label=label, **look))

    at = whole["quality_at"]
    costs = [PER_PROMPTS * cost.number() for cost in at["cost"]]
    band = {"color": FAMILIES[served], "alpha": 0.15, "linewidth": 0}
    axes.fill_between(costs, at[served].column("low"), at[served].column("high"), zorder=1, **band)
    handles.append(Patch(label=f"95 % interval of {served}", **band))
    return handles


def draw_marks(axes, labels, whole):
    """The points that have a name of their own."""
    reference, oracle, policy = whole["reference"], whole["oracle"], whole["policy"]
    marks = [(reference["cost"]["value"], reference["quality"]["value"],
              f"reference: {reference['model'].text().rsplit('/', 1)[-1]}",
              {"marker": "D", "markersize": 7, "color": style.INK}),
             (oracle["cost"], oracle["quality"], "oracle (hindsight)",
              {"marker": "*", "markersize": 12, "color": style.GREEN})]
    if policy.value is not None:
        look = {"marker": "o", "markersize": 8, "color": FAMILIES[served_family(whole)],
                "markeredgecolor": style.INK, "markeredgewidth": 1.4}
        marks.append((policy["cost"]["value"], policy["quality"]["value"],
                      f"current policy: {policy_text(policy)}", look))
    for cost, quality, text, look in marks:
        x, y = PER_PROMPTS * cost.number(), quality.number()
        axes.plot([x], [y], linestyle="none", zorder=7, **look)
        labels.avoid_points([x], [y], 5)
        labels.add(x, y, text, weight="bold")


def draw(report):
    whole = report["all"]
    figure, axes = style.new_figure(f"Quality against cost: bundle {report['bundle']['name'].text()}",
                                    describe_data(report) + [describe_intervals(report)], 6.6, legend_lines=2)
    settle_limits(axes, whole)
    axes.set_xlabel(f"USD per {PER_PROMPTS:,} prompts")
    axes.set_ylabel("quality")
    labels = Labels(axes)
    handles = draw_curves(axes, labels, whole)
    draw_marks(axes, labels, whole)
    draw_candidates(axes, labels, [Candidate(node) for node in whole["candidates"]])
    handles.append(Line2D([], [], color=style.GREY, label="one candidate for every prompt", **CANDIDATE))
    labels.draw()
    style.legend_below(figure, handles, 3)
    return figure
