"""The command line of bestroute-plot."""

import argparse
import sys

import bestroute
from bestroute.plots.report import ReportError, kind_of, load_report

FORMATS = ("svg", "png")

DESCRIPTION = """\
Draws the JSON report of a bestroute program.

  bestroute eval --json        STEM: quality against cost; STEM-calibration: reliability of the predictions
  bestroute calibrate --json   STEM: the curve and the setting chosen on it
  bestroute-bench --json FILE  STEM: latency against load, or the percentiles of a single run
"""


def charts_of(kind):
    """What is drawn of a report: (ending of the stem, function from the report to a figure)."""
    # Imported only now: matplotlib takes a second, which usage and bad reports need not wait for.
    from bestroute.plots import curve, latency, reliability, tradeoff
    return {
        "eval": [("", curve.draw), ("-calibration", reliability.draw)],
        "calibrate": [("", tradeoff.draw)],
        "bench": [("", latency.draw)],
    }[kind]


def read_formats(text):
    formats = text.split(",")
    for name in formats:
        if name not in FORMATS:
            raise argparse.ArgumentTypeError(f"found '{name}', expected some of {', '.join(FORMATS)}")
    return list(dict.fromkeys(formats))


def read_arguments(arguments):
    parser = argparse.ArgumentParser(prog="bestroute-plot", description=DESCRIPTION,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", metavar="REPORT.json", help="the report; - reads standard input")
    parser.add_argument("stem", metavar="STEM", help="path of the files to write, without their ending")
    parser.add_argument("--format", metavar="svg,png", type=read_formats, default=list(FORMATS),
                        help="the formats to write, with commas between them (default: svg,png)")
    parser.add_argument("--version", action="version", version=f"bestroute-plot {bestroute.__version__}")
    return parser.parse_args(arguments)


def draw(report, stem, formats):
    charts = charts_of(kind_of(report))
    from bestroute.plots import style
    with style.settings():
        figures = [(stem + ending, chart(report)) for ending, chart in charts]
        for path, figure in figures:
            for name in formats:
                style.save(figure, f"{path}.{name}")


def main(arguments=None):
    """Returns the exit code: 0, 1 for a report or file that is wrong, 2 for wrong usage (by argparse)."""
    options = read_arguments(arguments)
    try:
        draw(load_report(options.report), options.stem, options.format)
    except ReportError as error:
        problem = str(error)
    except OSError as error:
        problem = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != "matplotlib":
            raise
        problem = "matplotlib is not installed: `pip install matplotlib`, or Debian's python3-matplotlib"
    else:
        return 0
    print(f"bestroute-plot: {problem}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
