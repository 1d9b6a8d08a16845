"""Reads a JSON report. Whatever is missing or wrong is a ReportError that names the file and the key.

A report is read through `Node`: a value together with the path that leads to it.

    report["all"]["reference"]["cost"].number()
    -> "val.json: all.reference.cost: expected a number, found null"
"""

import json
import math
import os
import sys

KINDS = {
    "eval": ("tasks", "all"),
    "calibrate": ("intervals", "policy_table"),
    "bench": ("machine", "runs"),
}


class ReportError(Exception):
    """One line for the user."""


class Node:
    """A value of a report, and where it stands."""

    def __init__(self, value, source, path=""):
        self.value = value
        self.source = source
        self.path = path

    def error(self, problem):
        where = f"{self.source}: {self.path}" if self.path else self.source
        return ReportError(f"{where}: {problem}")

    def _expect(self, kind, word):
        if isinstance(self.value, kind) and not isinstance(self.value, bool):
            return self.value
        found = "null" if self.value is None else json.dumps(self.value)
        raise self.error(f"expected {word}, found {found if len(found) <= 40 else found[:37] + '...'}")

    def _below(self, key):
        return f"{self.path}.{key}" if self.path else key

    def __contains__(self, key):
        return isinstance(self.value, dict) and self.value.get(key) is not None

    def __getitem__(self, key):
        """The value under `key`, which must be there; it may be null."""
        if key in self._expect(dict, "an object"):
            return Node(self.value[key], self.source, self._below(key))
        raise Node(None, self.source, self._below(key)).error(
            "is missing; was the report written by an older version of the program?")

    def __iter__(self):
        for index, value in enumerate(self._expect(list, "an array")):
            yield Node(value, self.source, f"{self.path}[{index}]")

    def __len__(self):
        return len(self._expect(list, "an array"))

    def items(self):
        for key, value in self._expect(dict, "an object").items():
            yield key, Node(value, self.source, self._below(key))

    def number(self):
        return float(self._expect((int, float), "a number"))

    def number_or_nan(self):
        """null, which stands for a number that is not finite, becomes NaN."""
        return math.nan if self.value is None else self.number()

    def count(self):
        return self._expect(int, "a whole number")

    def text(self):
        return self._expect(str, "a string")

    def column(self, key):
        """The numbers under `key` of every entry of an array; NaN for null."""
        return [entry[key].number_or_nan() for entry in self]


def kind_of(report):
    """"eval", "calibrate" or "bench"."""
    if not isinstance(report.value, dict):
        raise report.error("expected an object, as `bestroute eval --json`, `bestroute calibrate --json` or "
                           "`bestroute-bench --json` write one")
    if "error" in report:
        what = report["error"]
        raise report.error(f"the report of a command that failed: {what['message'].text()}")
    for kind, keys in KINDS.items():
        if all(key in report.value for key in keys):
            return kind
    raise report.error("unknown report: expected what `bestroute eval --json`, `bestroute calibrate --json` "
                       "or `bestroute-bench --json` write")


def load_report(path):
    """The root of the report in a file; "-" is standard input."""
    source = "standard input" if path == "-" else path
    try:
        if path == "-":
            text = sys.stdin.buffer.read().decode("utf-8")
        else:
            with open(path, encoding="utf-8") as file:
                text = file.read()
        return Node(json.loads(text), source)
    except OSError as error:
        raise ReportError(f"{source}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ReportError(f"{source}: not UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise ReportError(f"{source}:{error.lineno}: not JSON: {error.msg}") from error
    except RecursionError as error:
        raise ReportError(f"{source}: not a report: nested too deeply") from error


def short_name(path):
    """A data file as a title shows it."""
    return os.path.basename(path)


def counted(count, one, many):
    return f"{count:,} {one if count == 1 else many}"


def describe_data(report):
    """What the figures of eval and calibrate come from: "gsm8k.jsonl.gz, split val, n = 209 prompts"."""
    parts = [", ".join(short_name(path.text()) for path in report["data"])]
    split = report["split"].text()
    parts.append("all splits" if split == "all" else f"split {split}")
    parts.append(f"n = {counted(report['rows'].count(), 'prompt', 'prompts')}")
    if "scores" in report:
        parts.append(f"scores of {short_name(report['scores'].text())}")
    if report["second_half"].value is True:
        parts.append("judged by the second half of the samples")
    selector = report["selector"].number()
    if selector != 1:
        parts.append(f"selector strength {selector:g}")
    if report["weights"].text() == "tasks":
        parts.append("each task weighs the same")
    return parts


def describe_intervals(report):
    return (f"95 % intervals of {report['bootstrap'].count():,} bootstrap samples of "
            f"{counted(report['stories'].count(), 'story', 'stories')}")
