"""What tidy.py checks in the text of files: columns, names of files, chapter marks, tables of options."""
import fnmatch
import itertools
import os
import re

from tidy_tree import Finding, is_generated, line_at

COLUMNS_MAX = 110

# Names in comments and pages of what is no file of this tree: "name": "what it is".
FOREIGN_NAMES = {"omp.h": "OpenMP's header", "gpu.md": "a report that bench/gpu.sh writes"}

OPTION_TYPE = "br_option_row"  # of every table of options
OPTION_READER = "src/core/options.c"


def check_columns(tree):
    for file in tree.checked:
        for number, line in enumerate(tree.text(file).split("\n"), 1):
            unbreakable = file.endswith(".md") and (line.lstrip().startswith("|") or "://" in line)
            if len(line) > COLUMNS_MAX and not unbreakable and not is_generated(file):
                yield Finding(file, number, f"{len(line)} columns, at most {COLUMNS_MAX}: wrap it")


SUFFIX = "(?:cuh|cu|c|h|inc|py|sh|cmake|md)"
NAME = re.compile(rf"""
    (?<![\w./<{{}}*$~%-])
    ( (?:\.\./)* [\w<{{*] [\w./{{}},<>*-]* \. (?:{SUFFIX} | \{{{SUFFIX}(?:,{SUFFIX})*\}})  # files
    | src/ [\w/]* \w                                                                     # a folder, a module
    | (?:src|include/bestroute|cuda|tests|tools|docs|bench) / (?:[\w{{}},<>*-]+/)*          # a folder
    )
    (?![\w*/<{{-]|\.\w)""", re.VERBOSE)


def alternatives(name):
    """The names that one stands for: log.{h,c} is two, and <word> or WORD is any."""
    name = re.sub(r"<[^<>]*>|\b[A-Z][A-Z_]{2,}(?=/|\.(?!md))", "*", name)
    braces = re.search(r"\{([^{}]*)\}", name)
    if not braces:
        return [name]
    options = (name[:braces.start()] + option + name[braces.end():] for option in braces[1].split(","))
    return list(itertools.chain.from_iterable(map(alternatives, options)))


def exists(tree, file, name):
    """Whether a name that stands in `file` is one of the tree: from its root, from there, or a path's end."""
    near = os.path.normpath(os.path.join(os.path.dirname(file), name))
    if "*" in name:
        return any(fnmatch.fnmatch(f, name) or fnmatch.fnmatch(f, "*/" + name) for f in tree.files)
    if name.endswith("/") or "." not in name:
        return any(f.startswith((name.rstrip("/") + "/", near + "/", name + ".")) for f in tree.files)
    return name in tree.files or near in tree.files or any(f.endswith("/" + name) for f in tree.files)


def check_names(tree):
    for file in tree.checked:
        for line, comment in tree.comments(file):
            for match in NAME.finditer(comment):
                for name in alternatives(match[1]):
                    if os.path.basename(name) not in FOREIGN_NAMES and not exists(tree, file, name):
                        yield Finding(file, line + comment.count("\n", 0, match.start()),
                                      f"{name} does not exist: name the file that is meant")


DRAWN = re.compile(r"(/\*|//|#)!?\s*([-=*#~_+])\2{2}|.*([-=*#~_+])\3{3}(\s*\*/)?$")
FILE_NAME = re.compile(r"/\*\s*[\w./]+\.(c|cu|h)\s*\*/$")


def is_mark(lines, line, comment):
    """Whether it is a drawn line, no more than a file's name, or stands alone after code."""
    head = comment.split("\n")[0]
    if lines[line - 1].strip() != head:  # it stands behind code
        return False
    if DRAWN.match(head):
        return True
    if lines[line - 1] != head:  # it belongs to the inside of something
        return False
    last = line + comment.count("\n")
    alone = lines[line - 2] == "" and lines[last:last + 1] == [""] and any(lines[:line - 1])
    return alone or bool(FILE_NAME.match(comment))


def check_marks(tree):
    for file in tree.checked:
        lines = tree.text(file).split("\n")
        for line, comment in tree.comments(file):
            if comment.startswith(("/", "#")) and not file.endswith(".md") and is_mark(lines, line, comment):
                yield Finding(
                    file, line, f'chapter mark "{comment.splitlines()[0][:60]}": make it the comment '
                    "of what follows, drop it, or split the file")


OPTION_CODE = {
    "reads options with getopt": r"<getopt\.h>|\bgetopt(_long)?\s*\(",
    "compares an argument with an option": r"\bstrn?cmp\([^;\n]*\"--",
    "has a table of options of its own type":
    rf"\b(?!{OPTION_TYPE}\b)\w*(?:option|flag)\w*\s+\w+\[\w*\]\s*=\s*\{{\s*\{{\s*(?:\.\w+\s*=\s*)?\"",
    "writes the help of options by hand": r"(?<!\\)\"\s\s+--[a-z]"
}


def check_options(tree):
    for file in tree.c_files:
        if file == OPTION_READER or file.startswith("tests/"):
            continue
        for what, pattern in OPTION_CODE.items():
            match = re.search(pattern, tree.text(file))
            if match:
                yield Finding(file, line_at(tree.text(file), match.start()),
                              f"{what}: make it a table of {OPTION_TYPE}, which core/options.h reads")
