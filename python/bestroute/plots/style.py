"""How every picture looks, and how it becomes a file.

Text stays text in SVG, so that it can be searched and read aloud. The same report gives the same bytes.
"""

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

import bestroute

INK = "#222222"
QUIET = "#6f6f6f"
GRID = "#e4e4e4"
BLUE = "#1d69ad"
ORANGE = "#d2691e"
PURPLE = "#7a51a8"
GREEN = "#25834a"
RED = "#b3352f"
GREY = "#8d8d8d"

WIDTH = 9.6  # inches; 72 points each
SMALL = 8
NORMAL = 9
TITLE = 13

# In points of 1/72 inch.
MARGIN = 16
AXES_LEFT = 62
SUBTITLE_LINE = 14
LEGEND_BOTTOM = 10
LEGEND_LINE = 15

BETWEEN = "  ·  "  # parts of a subtitle

# Candidates of one model share a colour; quieter than the curves, which they lie among.
MODEL_COLORS = ("#4f7f86", "#8a6a45", "#a2608a", "#6d7a33", "#5d6b96", "#8b4a4a", "#3f7d5f", "#77658a")
DASHES = (0, (5, 3))

_SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "bestroute-plot",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "Helvetica", "sans-serif"],
    "font.size": NORMAL,
    "text.color": INK,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": NORMAL,
    "lines.solid_capstyle": "round",
    "axes.unicode_minus": False,
    "savefig.facecolor": "white",
}


def settings():
    """A context in which figures are drawn and written."""
    return matplotlib.rc_context({**matplotlib.rcParamsDefault, **_SETTINGS, "backend": "agg"})


def text_width(figure, text, size):
    """In points of 1/72 inch."""
    renderer = figure.canvas.get_renderer()
    width, _, _ = renderer.get_text_width_height_descent(text, FontProperties(size=size), False)
    return width * 72 / figure.dpi


def join_lines(figure, parts, width):
    """The parts on as few lines as they need, none broken."""
    lines = []
    for part in parts:
        longer = f"{lines[-1]}{BETWEEN}{part}" if lines else ""
        if lines and text_width(figure, longer, NORMAL) <= width:
            lines[-1] = longer
        else:
            lines.append(part)
    return lines


def new_figure(title, subtitle, height, legend_lines=1, **grid):
    """A figure with a title, grey parts of a subtitle, and room for a legend below. Returns it and its axes;
    `grid` is what Figure.subplots takes."""
    figure = Figure(figsize=(WIDTH, height), dpi=100)
    FigureCanvasAgg(figure)
    wide, high = WIDTH * 72, height * 72
    y = high - MARGIN
    figure.text(MARGIN / wide, y / high, title, size=TITLE, weight="bold", va="top")
    y -= TITLE + 9
    for line in join_lines(figure, subtitle, wide - 2 * MARGIN):
        figure.text(MARGIN / wide, y / high, line, size=NORMAL, color=QUIET, va="top")
        y -= SUBTITLE_LINE
    bottom = LEGEND_BOTTOM + 34 + LEGEND_LINE * legend_lines
    place = {"left": AXES_LEFT / wide, "right": 1 - MARGIN / wide, "top": (y - 6) / high,
             "bottom": bottom / high}
    axes = figure.subplots(gridspec_kw={**place, **grid.pop("gridspec_kw", {})}, **grid)
    return figure, axes


def legend_below(figure, handles, columns):
    """A legend at the lower edge; the entries run from left to right, line by line."""
    lines = -(-len(handles) // columns)
    order = [handles[line * columns + column] for column in range(columns) for line in range(lines)
             if line * columns + column < len(handles)]
    corner = (AXES_LEFT / (WIDTH * 72), LEGEND_BOTTOM / (figure.get_figheight() * 72))
    figure.legend(handles=order, loc="lower left", bbox_to_anchor=corner, ncol=columns, borderaxespad=0,
                  columnspacing=2.2, handlelength=2.2)


def save(figure, path):
    """Writes the file; its ending is the format. OSError where it cannot be written."""
    if path.endswith(".svg"):
        metadata = {"Date": None, "Creator": f"bestroute-plot {bestroute.__version__}"}
    else:
        metadata = {"Software": None}
    figure.savefig(path, metadata=metadata)
