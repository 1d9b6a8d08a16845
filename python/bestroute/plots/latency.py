"""bestroute-bench: latency against load, of a sweep; the percentiles of its parts, of a single run."""

import math

from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from bestroute.plots import style
from bestroute.plots.labels import Labels
from bestroute.plots.report import counted, short_name

# Of a sweep; the highest line first.
PERCENTILES = (("p99", style.RED), ("p95", style.ORANGE), ("p50", style.BLUE))
KEPT_UP = 0.95  # of the offered rate that was answered: below it the service is beyond its capacity

# Of a single run.
LEVELS = (("p50", "50 %"), ("p90", "90 %"), ("p95", "95 %"), ("p99", "99 %"), ("p99_9", "99.9 %"),
          ("max", "longest"))
PARTS = (("latency_ms", "as the client sees it", style.INK), ("total_ms", "in the service", style.BLUE),
         ("queue_ms", "waiting for a worker", style.ORANGE), ("compute_ms", "in the encoder", style.PURPLE),
         ("tokenize_ms", "in the tokeniser", style.GREEN))


class Run:
    def __init__(self, node, queries):
        self.node = node
        self.rate = node["rate"].number() * queries  # prompts/s offered; 0 in a closed loop
        self.in_flight = node["in_flight"].number()
        self.answered = node["queries_per_s"].number()

    def latency(self, name):
        latencies = self.node["latency_ms"]
        return latencies[name].number_or_nan() if name in latencies else math.nan


def describe(report):
    """Where and how it was measured."""
    service, machine, load = report["service"], report["machine"], report["load"]
    parts = []
    if "engine" in service:
        parts.append(f"engine {service['engine'].text()}, {service['precision'].text()}")
    parts.append(f"{machine['cpu'].text()}, {counted(machine['cores'].count(), 'core', 'cores')}")
    parts.append(load["loop"].text())
    parts.append(load["asks"].text())
    queries = load["queries"].count()
    prompts = load["prompts"].text()
    if prompts.startswith("from "):
        prompts = f"from {short_name(prompts.removeprefix('from '))}"
    parts.append(f"{counted(queries, 'prompt', 'prompts')} a request, {prompts}")
    return parts


def title(report, what):
    bundle = report["service"]["bundle"].text() if "bundle" in report["service"] else ""
    return f"{what}: bundle {bundle}" if bundle else what


def format_ms(value, _position=None):
    return f"{value:,.6g}"


def set_log_scale(axes, values):
    """1, 2 and 5 times the powers of ten; the powers alone over many decades."""
    axes.set_yscale("log")
    known = [value for value in values if math.isfinite(value) and value > 0] or [1]
    low, high = 0.75 * min(known), 1.5 * max(known)
    axes.set_ylim(low, high)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if math.log10(high / low) < 3.5 else (1,)))
    axes.yaxis.set_major_formatter(FuncFormatter(format_ms))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel("latency, ms")


def remark(run):
    """A sweep's words beside a run: its requests in flight, or the rate answered if it did not keep up."""
    if run.rate == 0:
        return f"{run.in_flight:g} in flight"
    return f"{run.answered:.4g}/s answered" if run.answered < KEPT_UP * run.rate else None


def draw_sweep(report, runs):
    open_loop = runs[0].rate > 0
    figure, axes = style.new_figure(
        title(report, "Latency against the rate offered" if open_loop else "Latency against throughput"),
        describe(report), 5.8, legend_lines=0)
    xs = [run.rate if open_loop else run.answered for run in runs]
    series = [(name, color, [run.latency(name) for run in runs]) for name, color in PERCENTILES]
    set_log_scale(axes, [value for _, _, values in series for value in values])
    near_zero = min(xs) < 0.4 * max(xs)
    axes.set_xlim(0 if near_zero else 0.94 * min(xs), 1.08 * max(xs) or 1)
    axes.set_xlabel("prompts/s offered" if open_loop else "prompts/s answered")
    labels = Labels(axes)
    for name, color, values in series:
        axes.plot(xs, values, color=color, linewidth=1.8, marker="o", markersize=5.5, zorder=4)
        labels.avoid_line(xs, values)
        labels.avoid_points(xs, values, 4)
        labels.add(xs[-1], values[-1], name, color=color, size=style.NORMAL, weight="bold")
    for x, run in zip(xs, runs):
        if remark(run) is not None:
            labels.add(x, run.latency(PERCENTILES[0][0]), remark(run), color=style.QUIET)
    labels.draw()
    return figure


def draw_run(report, run):
    load = f"{run.rate:g} prompts/s offered" if run.rate > 0 else f"{run.in_flight:g} in flight"
    parts = describe(report) + [f"{load}, {run.answered:.4g}/s answered",
                                f"n = {counted(run.node['answered'].count(), 'request', 'requests')}"]
    figure, axes = style.new_figure(title(report, "Latency by percentile"), parts, 5.8, legend_lines=0)
    series = []
    for key, words, color in PARTS:
        if key in run.node:
            part = run.node[key]
            series.append((words, color, [part[name].number_or_nan() if name in part else math.nan
                                          for name, _ in LEVELS]))
    set_log_scale(axes, [value for _, _, values in series for value in values])
    axes.set_xlim(-0.3, len(LEVELS) + 0.3)
    axes.set_xticks(range(len(LEVELS)), [words for _, words in LEVELS])
    axes.set_xlabel("share of the requests that are at most as long")
    labels = Labels(axes)
    for words, color, values in series:
        values = [value if value > 0 else math.nan for value in values]
        axes.plot(range(len(LEVELS)), values, color=color, linewidth=2 if words == PARTS[0][1] else 1.4,
                  marker="o", markersize=5, zorder=4)
        labels.avoid_line(range(len(LEVELS)), values)
        labels.avoid_points(range(len(LEVELS)), values, 4)
        labels.add(len(LEVELS) - 1, values[-1], words, color=color, size=style.NORMAL, weight="bold")
    labels.draw()
    return figure


def draw(report):
    runs = list(report["runs"])
    if not runs:
        raise report["runs"].error("holds no run")
    if "load" not in report:
        raise report.error("there are no latencies to draw in a report of `bestroute-bench --engine`")
    queries = report["load"]["queries"].number()
    runs = [Run(node, queries) for node in runs]
    return draw_sweep(report, runs) if len(runs) > 1 else draw_run(report, runs[0])
