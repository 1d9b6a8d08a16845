#!/usr/bin/env python3
"""Holds the tree to its plan: the order of folders, no circles, lines of 110 columns, and a few habits.

    tests/tidy.py [--root DIR] [--build DIR] [--report]

--build is a CMake build folder with its objects built. They say, by nm, which file defines a symbol and which
file uses it: this is how calls are known. Without --build only #include lines are checked.
Exits 1 when it finds anything. --report adds a summary of folders, edges and circles, and exits 0.
"""
import argparse
import collections
import os
import re
import sys

import tidy_text
from tidy_tree import Finding, Tree, included, is_generated, line_at

# The order of folders. Each row: a folder, and the folders directly below it. It may use these and all that
# they may use in turn. A row names only folders of earlier rows, so the table itself has no circle.
FOLDERS = (
    ("core", ()),
    ("policy", ("core",)),
    ("protocol", ("policy",)),
    ("bundle/tokenizer", ("core",)),
    ("bundle", ("protocol", "bundle/tokenizer")),
    ("engine", ("bundle",)),  # the door: backend, comm
    ("engine/host", ("engine",)),
    ("engine/cpu", ("engine/host",)),
    ("cuda", ("engine",)),
    ("engine/engines", ("engine/cpu", "cuda")),  # no folder: the two files of this name
    ("encoder", ("engine/engines",)),
    ("workers", ("encoder",)),
    ("serve", ("workers",)),
    ("client", ("protocol",)),
    ("eval", ("policy",)),
    ("cli", ("client", "eval")),
    ("examples", ("client",)),
    ("bench", ("serve", "cli")),
    ("tools", ("bench",)),
    ("tests", ("tools", "examples")),
)
# The headers of include/bestroute, and the folders that they belong to.
PUBLIC = {"client.h": "client", "error.h": "core", "status.h": "core"}


def in_product(file):
    return file.startswith(("src/", "include/", "cuda/"))


def folder_of(file):
    """The row of FOLDERS that a file belongs to; its folder where it has no row."""
    folder, name = os.path.split(file)
    if folder == "include/bestroute" and name in PUBLIC:
        return PUBLIC[name]
    if not folder.startswith("src"):
        return folder.split("/")[0]
    stem = os.path.splitext(os.path.relpath(file, "src"))[0]
    return stem if stem in dict(FOLDERS) else os.path.dirname(stem)


def upward(tree):
    """The edges against the order: the first include, and the first call, from one file to another."""
    below = {}
    for folder, direct in FOLDERS:
        below[folder] = set(direct).union(*(below[f] for f in direct))
    found = {}
    for edge in tree.edges:
        source, target = folder_of(edge.source), folder_of(edge.target)
        if source in below and target in below and target != source and target not in below[source]:
            found.setdefault((edge.source, edge.target, edge.verb), edge)
    return list(found.values())


def check_order(tree):
    rows = dict(FOLDERS)
    for file in tree.c_files:
        if file.startswith("src/") and folder_of(file) not in rows:
            yield Finding(file, 1, f"its folder has no row in FOLDERS of tidy.py: add src/{folder_of(file)}")
    for file, line, name, target in included(tree):
        if in_product(file) and not target:
            yield Finding(file, line, f'includes "{name}", no file beside it: write its path from src/')
    for path, source in sorted(tree.objects.items()):
        if in_product(source) and not os.path.exists(path):
            yield Finding(source, 1, f"its calls are unknown, {path} is missing: build it first")
    for edge in upward(tree):
        yield Finding(
            edge.source,
            edge.line,
            f"{edge}, but {folder_of(edge.source)} must not know "
            f"{folder_of(edge.target)}: move it down, or hand it in from above",
        )


# A header is a contract: to include it is to know its types. Only a call needs the file that fulfils it, so a
# header and its source are two nodes of the graph of files.
def graph_of(edges, node):
    """{node: {node: an edge}}, where node() gives the node of a file."""
    graph = collections.defaultdict(dict)
    for edge in edges:
        source, target = node(edge.source), node(edge.target)
        if in_product(edge.source) and in_product(edge.target) and source != target:
            graph[source].setdefault(target, edge)
    return graph


def shortest_way(graph, start, end):
    """Its edges; None where there is no way. From a node to itself it is the shortest way round."""
    seen, ways = set(), [(start, [])]
    for node, way in ways:
        for target, edge in graph.get(node, {}).items():
            if target == end:
                return way + [edge]
            if target not in seen:
                seen.add(target)
                ways.append((target, way + [edge]))
    return None


def circles(tree):
    """[("folders" or "files", members that all reach one another, edges of a shortest way round)]"""
    found = []
    for what, node in (("folders", folder_of), ("files", str)):
        graph = graph_of(tree.edges, node)
        left = sorted(graph)
        while left:
            first = left.pop(0)
            way = shortest_way(graph, first, first)
            if way:
                members = [first] + [
                    other
                    for other in left
                    if shortest_way(graph, first, other) and shortest_way(graph, other, first)
                ]
                found.append((what, members, way))
                left = [other for other in left if other not in members]
    return found


def check_circles(tree):
    for what, members, way in circles(tree):
        yield Finding(
            way[0].source,
            way[0].line,
            f"a circle of {len(members)} {what} ({' '.join(members)}): "
            + "; ".join(f"{edge.source} {edge}" for edge in way)
            + ": one of these has to go",
        )


def check_headers(tree):
    for file in tree.c_files:
        folder, name = os.path.split(file)
        if file.startswith("include/") and (folder != "include/bestroute" or name not in PUBLIC):
            yield Finding(file, 1, f"only {', '.join(PUBLIC)} are public: move it beside its source")
        if not in_product(file) or not name.endswith((".h", ".cuh")) or is_generated(file):
            continue
        expected = re.sub(r"^(src|include/bestroute)/", "", file)
        expected = "BESTROUTE_" + re.sub(r"\W", "_", expected).upper()
        guard = re.search(r"^#ifndef (\w+)\n#define \1\n", tree.text(file), re.MULTILINE)
        if not guard or guard[1] != expected:
            line = line_at(tree.text(file), guard.start()) if guard else 1
            yield Finding(file, line, f"its guard is {guard[1] if guard else 'missing'}: make it {expected}")


CHECKS = {
    "order": check_order,
    "circles": check_circles,
    "columns": tidy_text.check_columns,
    "names": tidy_text.check_names,
    "marks": tidy_text.check_marks,
    "options": tidy_text.check_options,
    "headers": check_headers,
}


def print_report(tree):
    lines = collections.defaultdict(list)
    for file in tree.c_files:
        lines[folder_of(file)].append(tree.text(file).count("\n"))
    print("Folders, their files and lines:")
    for folder, _ in FOLDERS:
        print(f"  {folder:18} {len(lines[folder]):4} {sum(lines[folder]):7}")
    ups = upward(tree)
    by_include = sum(edge.verb == "includes" for edge in ups)
    print(f"Edges up: {by_include} by include, {len(ups) - by_include} by call")
    for edge in ups:
        print(f"  {edge.source} {edge}")
    print(f"Circles: {len(circles(tree))}")
    for what, members, _ in circles(tree):
        print(f"  {len(members)} {what}: {' '.join(members)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--root", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
    parser.add_argument("--build", help="a build folder; without it calls are not checked")
    parser.add_argument("--report", action="store_true", help="add a summary, and exit 0")
    arguments = parser.parse_args()
    tree = Tree(arguments.root, arguments.build)
    counts = {}
    for name, check in CHECKS.items():
        found = list(check(tree))
        counts[name] = len(found)
        for finding in found:
            print(f"{finding.file}:{finding.line}: {name}: {finding.text}")
    if arguments.report:
        print_report(tree)
    print("Findings: " + ", ".join(f"{name} {count}" for name, count in counts.items()))
    sys.exit(any(counts.values()) and not arguments.report)


if __name__ == "__main__":
    main()
