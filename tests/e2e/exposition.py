"""A strict reader of Prometheus' text format 0.0.4: it refuses what Prometheus or promtool would complain of.

parse(text) returns {(name, labels): value}, labels a frozenset of pairs, and {family: type}."""
import math
import re

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"'
SAMPLE = re.compile(rf"({NAME})(?:\{{({LABEL}(?:,{LABEL})*)\}})? (\S+)")
VALUE = re.compile(r"[+-]?(?:\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|Inf)|NaN")
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("", "_sum", "_count")}


def number(text):
    assert VALUE.fullmatch(text), text
    return float(text)


def family_of(name, types):
    for family, kind in types.items():
        if name in (family + suffix for suffix in SUFFIXES.get(kind, ("",))):
            return family
    raise AssertionError(f"{name}: no TYPE before it")


def check_histogram(family, samples):
    """Ascending bounds, +Inf last and equal to _count, counts that never fall,
    one _sum and one _count a series."""
    series = {}
    for (name, labels), value in samples:
        rest = frozenset(pair for pair in labels if pair[0] != "le")
        one = series.setdefault(rest, {"buckets": []})
        if name == family + "_bucket":
            one["buckets"].append((number(dict(labels)["le"]), value))
        else:
            assert rest == labels, (name, "le on what is no bucket")
            one[name[len(family):]] = value
    assert series, f"{family}: no samples"
    for labels, one in series.items():
        bounds = [bound for bound, _ in one["buckets"]]
        counts = [count for _, count in one["buckets"]]
        assert bounds == sorted(set(bounds)) and bounds[-1] == math.inf, (family, labels, bounds)
        assert counts == sorted(counts) and counts[-1] == one["_count"], (family, labels, counts)
        assert (one["_sum"] == 0 or one["_count"] > 0) and one["_sum"] >= 0, (family, labels)


def parse(text):
    helps, types, samples, of_family, last = set(), {}, {}, {}, None
    assert text.endswith("\n")
    for line in text[:-1].split("\n"):
        if line.startswith("# "):
            keyword, family, rest = line[2:].split(" ", 2)
            assert re.fullmatch(NAME, family), line
            assert family not in of_family, f"{line}: after its samples"
            if keyword == "HELP":
                assert family not in helps and rest, line
                helps.add(family)
            else:
                assert keyword == "TYPE" and family not in types, line
                assert rest in ("counter", "gauge", "histogram", "summary", "untyped"), line
                assert rest != "counter" or family.endswith("_total"), line
                types[family] = rest
            continue
        found = SAMPLE.fullmatch(line)
        assert found, line
        pairs = [pair[:2] for pair in re.findall(LABEL, found[2] or "")]
        labels = frozenset(pairs)
        assert len({name for name, _ in pairs}) == len(pairs), f"{line}: a label twice"
        family = family_of(found[1], types)
        assert family == last or family not in of_family, f"{line}: apart from its family"
        last = family
        key = (found[1], labels)
        assert key not in samples, f"{line}: twice"
        samples[key] = number(found[found.lastindex])
        of_family.setdefault(family, []).append((key, samples[key]))
    assert helps == set(types) == set(of_family), helps ^ set(types) ^ set(of_family)
    for family, kind in types.items():
        if kind == "histogram":
            check_histogram(family, of_family[family])
        elif kind == "counter":
            assert all(value >= 0 and math.isfinite(value) for _, value in of_family[family]), family
    return samples, types
