"""The files of a source tree, their text and comments, and which file uses which. For tidy.py."""
import collections
import fnmatch
import functools
import json
import os
import re
import subprocess
import tokenize

C_SUFFIXES = (".c", ".h", ".cu", ".cuh", ".inc")
HASH_SUFFIXES = (".sh", ".cmake", "CMakeLists.txt")  # their comments begin with #
CHECKED_SUFFIXES = C_SUFFIXES + HASH_SUFFIXES + (".py", ".md")
GENERATED = ("*_table.h", )  # lines and guards are as the generator writes them

Finding = collections.namedtuple("Finding", "file line text")


class Edge(collections.namedtuple("Edge", "source line verb what target")):
    """One file includes or calls another: verb is "includes" or "calls", what is the name it writes."""
    def __str__(self):
        return f"{self.verb} {self.what} of {self.target}"


class Tree:
    """The files below a root, but not those of build folders and hidden folders."""
    def __init__(self, root, build=None):
        self.root, self.build = os.path.realpath(root), build
        self.files = set()
        for folder, folders, names in os.walk(self.root):
            folders[:] = [f for f in folders if not re.match(r"\.|build|__pycache__$", f)]
            self.files.update(os.path.relpath(os.path.join(folder, name), self.root) for name in names)
        self.checked = sorted(f for f in self.files if f.endswith(CHECKED_SUFFIXES))
        self.c_files = [f for f in self.checked if f.endswith(C_SUFFIXES)]

    @functools.lru_cache(None)
    def text(self, file):
        with open(os.path.join(self.root, file), encoding="utf-8") as stream:
            return stream.read()

    @functools.lru_cache(None)
    def comments(self, file):
        """[(line, text)]. A docstring is a comment, and a Markdown page is one long comment."""
        text = self.text(file)
        if file.endswith(".md"):
            return [(1, text)]
        if file.endswith(".py"):
            return python_comments(text)
        if file.endswith(HASH_SUFFIXES):
            return [(line_at(text, m.start()), m.group()) for m in re.finditer(r"(?<!\S)#.*", text)]
        token = r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'"
        tokens = re.finditer(token, text, re.DOTALL)
        return [(line_at(text, m.start()), m.group()) for m in tokens if m.group().startswith("/")]

    @functools.cached_property
    def objects(self):
        """{object: its source}, from the build folder's compile_commands.json."""
        if not self.build:
            return {}
        with open(os.path.join(self.build, "compile_commands.json"), encoding="utf-8") as stream:
            commands = json.load(stream)
        found = {}
        for c in commands:
            source = os.path.relpath(os.path.realpath(os.path.join(c["directory"], c["file"])), self.root)
            if source in self.files:
                output = re.search(r" -o (\S+)", c["command"])[1]
                found[os.path.normpath(os.path.join(c["directory"], output))] = source
        return found

    @functools.cached_property
    def edges(self):
        return [Edge(file, line, "includes", f'"{name}"', target)
                for file, line, name, target in included(self) if target] + calls(self)


def line_at(text, offset):
    return text.count("\n", 0, offset) + 1


def is_generated(file):
    return any(fnmatch.fnmatch(os.path.basename(file), pattern) for pattern in GENERATED)


def python_comments(text):
    found, fresh = [], True  # fresh: a string that comes now is a docstring
    for token in tokenize.generate_tokens(iter(text.splitlines(True)).__next__):
        if token.type == tokenize.COMMENT or (token.type == tokenize.STRING and fresh):
            found.append((token.start[0], token.string))
        if token.type not in (tokenize.COMMENT, tokenize.NL):
            fresh = token.type in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    return found


INCLUDE = re.compile(r"^[ \t]*#[ \t]*include[ \t]*(?:\"([^\"]+)\"|<(bestroute/[^>]+)>)", re.MULTILINE)


def included(tree):
    """(file, line, name as written, the tree's file of this name or None) for each #include of ours."""
    for file in tree.c_files:
        text = tree.text(file)
        for match in INCLUDE.finditer(text):
            name = match[1] or match[2]
            places = (os.path.dirname(file), "src", "include", "")
            paths = (os.path.normpath(os.path.join(place, name)) for place in places)
            yield file, line_at(text, match.start()), name, next((p for p in paths if p in tree.files), None)


def calls(tree):
    """An edge for each symbol of another file that an object refers to; to take an address is to use it."""
    sources = {path: source for path, source in tree.objects.items() if os.path.exists(path)}
    if not sources:
        return []
    command = [os.environ.get("NM", "nm"), "-A", "-P", "-g", *sources]
    listing = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout
    defined, used = collections.defaultdict(set), set()
    for path, symbol, kind in re.findall(r"^(.+): (\S+) (\w)\b", listing, re.MULTILINE):
        if kind == "U":
            used.add((sources[path], symbol))
        elif kind in "TDBRGSC" and not sources[path].startswith("tests/"):  # one may replace a library
            defined[symbol].add(sources[path])
    edges = []
    for source, symbol in sorted(used):
        place = re.search(rf"\b{re.escape(symbol)}\b", tree.text(source))
        line = line_at(tree.text(source), place.start()) if place else 1
        for target in sorted(defined[symbol] - {source}):
            edges.append(Edge(source, line, "calls", symbol, target))
    return edges
