#!/usr/bin/env python3
"""tidy.py finds each kind of sin in a small tree that has it, and nothing in the same tree without it."""
import json
import os
import re
import subprocess
import sys
import tempfile
import unittest

TESTS = os.path.dirname(os.path.abspath(__file__))
TIDY = os.path.join(TESTS, "tidy.py")


def header(path, text=""):
    guard = "BESTROUTE_" + re.sub(r"\W", "_", re.sub(r"^(src|include/bestroute)/", "", path)).upper()
    return f"#ifndef {guard}\n#define {guard}\n{text}\n#endif\n"


def function(name, body, include=""):
    return f"{include}int {name}(void);\n\nint {name}(void)\n{{\n    return {body};\n}}\n"


def calling(name, other):
    """A source with one function that calls another, and declares it by itself."""
    return f"int {other}(void);\n" + function(name, other + "()")


# A tree in order: calls go down only, and every name is that of a file.
CLEAN = {
    "include/bestroute/status.h": header("include/bestroute/status.h", "typedef int br_status;"),
    "src/core/log.h": header("src/core/log.h", "#include <bestroute/status.h>\n"),
    "src/core/log.c": "/* log.c - one line. */\n\n" + function("br_log", "0", '#include "log.h"\n'),
    "src/policy/spec.h": header("src/policy/spec.h", "int br_spec(void);\nint br_spec_size(void);"),
    "src/policy/spec.c": "/* About it. */\n" + calling("br_spec", "br_log") + "int one; /* --- no mark */\n",
    "src/policy/size.c": function("br_spec_size", "br_spec()", '#include "spec.h"\n'),
    "src/engine/backend.h": header("src/engine/backend.h"),
    "src/engine/backend.c": function("br_backend", "1", '#include "backend.h"\n'),
    "src/engine/host/host.h": header("src/engine/host/host.h", '#include "engine/backend.h"'),
    "src/engine/host/host.c": calling("br_host", "br_backend"),
    "src/engine/engines.c": calling("br_engines", "br_host") + '#include "cuda/engine.h"\n',
    "cuda/engine.h": header("cuda/engine.h", '#include "engine/backend.h"'),
    "cuda/engine.c": calling("br_cuda", "br_backend"),
    "tests/core/test_log.c": function("main", "0"),
    "docs/PAGE.md": "src/core, src/core/log.{h,c}, `spec.c`, [it](../src/policy/spec.h), s*.h, test_<op>.c\n"
                    f"\n| {120 * 'x'} |\nhttps://example.com/{100 * 'x'}\n",
}


def compile_all(root, files):
    """Builds the sources as CMake would, and writes down how."""
    commands = []
    for file in files:
        if file.endswith(".c"):
            output = f"build/CMakeFiles/all.dir/{file}.o"
            os.makedirs(os.path.dirname(os.path.join(root, output)), exist_ok=True)
            command = f"{os.environ.get('CC', 'cc')} -Isrc -Iinclude -I. -o {output} -c {file}"
            subprocess.run(command.split(), cwd=root, check=True)
            commands.append({"directory": root, "file": file, "command": command})
    with open(os.path.join(root, "build/compile_commands.json"), "w", encoding="utf-8") as stream:
        json.dump(commands, stream)


def tidy(files, *arguments, build=True):
    """The exit status and the lines that tidy.py prints about a tree of these files."""
    with tempfile.TemporaryDirectory() as root:
        for file, text in files.items():
            os.makedirs(os.path.dirname(os.path.join(root, file)), exist_ok=True)
            with open(os.path.join(root, file), "w", encoding="utf-8") as stream:
                stream.write(text)
        if build:
            compile_all(root, files)
            arguments += ("--build", os.path.join(root, "build"))
        command = [sys.executable, TIDY, "--root", root, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert not done.stderr, done.stderr
        return done.returncode, done.stdout.splitlines()


class TidyTest(unittest.TestCase):
    def passes(self, changes, build=True):
        status, lines = tidy({**CLEAN, **changes}, build=build)
        self.assertEqual((status, len(lines)), (0, 1), "\n".join(lines))

    def finds(self, changes, *expected, build=True):
        """The clean tree with these changes has these findings; of each the beginning is given."""
        status, lines = tidy({**CLEAN, **changes}, build=build)
        self.assertEqual(len(lines) - 1, len(expected), "\n".join(lines))
        for line, beginning in zip(lines, expected):
            self.assertEqual(line[:len(beginning)], beginning)
        self.assertEqual(status, 1)

    def reads(self, changes, *expected):
        """As finds, without a build."""
        self.finds(changes, *expected, build=False)

    def test_nothing_is_found_in_a_tree_in_order(self):
        self.passes({})

    def test_a_report_ends_well_and_lists_edges_up_and_circles(self):
        status, lines = tidy({**CLEAN, "src/core/log.c": calling("br_log", "br_spec")}, "--report")
        self.assertEqual(status, 0)
        self.assertIn("Edges up: 0 by include, 1 by call", lines)
        self.assertIn("  2 folders: core policy", lines)
        self.assertIn("  2 files: src/core/log.c src/policy/spec.c", lines)

    def test_an_include_of_a_folder_above_is_found(self):
        self.finds({"src/policy/rules.c": '#include "engine/backend.h"\n'},
                   'src/policy/rules.c:1: order: includes "engine/backend.h" of src/engine/backend.h, but '
                   "policy must not know engine: move it down")

    def test_a_call_of_a_folder_above_is_found_without_an_include(self):
        self.finds({"src/policy/size.c": calling("br_spec_size", "br_backend")},
                   "src/policy/size.c:1: order: calls br_backend of src/engine/backend.c, but policy must ")

    def test_an_address_taken_is_a_call(self):
        self.finds({"src/policy/size.c": "int br_backend(void);\nint (*br_door)(void) = br_backend;\n"},
                   "src/policy/size.c:1: order: calls br_backend of src/engine/backend.c")

    def test_host_and_cuda_do_not_know_each_other(self):
        self.finds({"src/engine/host/host.c": calling("br_host", "br_cuda")},
                   "src/engine/host/host.c:1: order: calls br_cuda of cuda/engine.c, but engine/host must ")
        self.finds({"cuda/engine.c": '#include "engine/host/host.h"\n' + calling("br_cuda", "br_host")},
                   'cuda/engine.c:1: order: includes "engine/host/host.h" of src/engine/host/host.h, but ',
                   "cuda/engine.c:2: order: calls br_host of src/engine/host/host.c, but cuda must not know ")

    def test_cpu_knows_host(self):
        self.passes({"src/engine/cpu/cpu.c": calling("br_cpu", "br_host")})

    def test_the_door_does_not_know_what_opens_engines(self):
        self.finds({"src/engine/comm.c": calling("br_comm", "br_engines")},
                   "src/engine/comm.c:1: order: calls br_engines of src/engine/engines.c, but engine must ",
                   "cuda/engine.h:3: circles: a circle of 4 folders (cuda engine engine/engines engine/host")

    def test_the_product_does_not_know_the_tests(self):
        self.finds({"src/core/clock.c": '#include "tests/core/test_log.c"\nint br_clock;\n'},
                   'src/core/clock.c:1: order: includes "tests/core/test_log.c" of tests/core/test_log.c')

    def test_a_test_may_stand_in_for_a_library(self):
        self.passes({"tests/core/fake.c": function("deflate", "0"),
                     "src/core/clock.c": calling("br_clock", "deflate")})

    def test_a_folder_without_a_place_in_the_order_is_found(self):
        self.finds({"src/extra/word.c": "int word;\n"},
                   "src/extra/word.c:1: order: its folder has no row in FOLDERS of tidy.py: add src/extra")

    def test_a_header_of_another_folder_is_named_by_its_path(self):
        self.finds({"src/policy/rules.h": header("src/policy/rules.h", '#include "log.h"')},
                   'src/policy/rules.h:3: order: includes "log.h", no file beside it')

    def test_a_source_that_was_not_built_is_found(self):
        with tempfile.TemporaryDirectory() as build:
            with open(build + "/compile_commands.json", "w", encoding="utf-8") as stream:
                command = {"directory": TESTS, "file": "../src/core/log.c", "command": "cc -o log.o"}
                json.dump([command], stream)
            command = [sys.executable, TIDY, "--build", build]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("src/core/log.c:1: order: its calls are unknown", done.stdout)

    def test_a_circle_of_files_is_found(self):
        self.finds({"src/policy/spec.c": calling("br_spec", "br_spec_size")},
                   "src/policy/size.c:6: circles: a circle of 2 files (src/policy/size.c src/policy/spec.c): "
                   "src/policy/size.c calls br_spec of src/policy/spec.c; "
                   "src/policy/spec.c calls br_spec_size of src/policy/size.c: ")

    def test_a_circle_of_three_files_is_found_once(self):
        self.finds({f"src/core/{name}.c": calling(name, other) for name, other in ("ab", "bc", "ca", "da")},
                   "src/core/a.c:1: circles: a circle of 3 files (src/core/a.c src/core/b.c src/core/c.c): ")

    def test_a_circle_of_folders_is_found(self):
        self.finds({"src/core/clock.c": calling("br_clock", "br_spec")},
                   "src/core/clock.c:1: order: calls br_spec of src/policy/spec.c, but core must not ",
                   "src/core/clock.c:1: circles: a circle of 2 folders (core policy): src/core/clock.c ")

    def test_111_columns_are_found(self):
        line = "#" + 110 * "x"
        self.reads({"docs/PAGE.md": f"{line}\n{line[1:]}\n", "src/core/word_table.h": "//" + line,
                    "tools/CMakeLists.txt": line, "tools/run.sh": line, "tools/word.py": "\n" + line},
                   "docs/PAGE.md:1: columns: 111 columns, at most 110: ", "tools/CMakeLists.txt:1: columns: ",
                   "tools/run.sh:1: columns: 111", "tools/word.py:2: columns: 111")

    def test_a_name_of_no_file_in_a_comment_is_found(self):
        self.reads({"src/core/clock.c": "/*\n * See policy/spec.h,\n * and stage.{c,h} of src/policy.\n */\n",
                    "src/core/dtype.c": '// src/stage\nconst char *name = "stage.c";\n',
                    "tools/word.py": '"""Like core/spec.h."""\nNAME = "stage.c"\n# and stage_*.py\n'},
                   "src/core/clock.c:3: names: stage.c does not exist",
                   "src/core/clock.c:3: names: stage.h does not exist",
                   "src/core/dtype.c:1: names: src/stage does not exist",
                   "tools/word.py:1: names: core/spec.h does not exist",
                   "tools/word.py:3: names: stage_*.py does not exist")

    def test_a_name_of_no_file_in_a_page_is_found(self):
        self.reads({"docs/PAGE.md": "`core/log.c`, src/core/ omp.h\n\n[it](../src/core/stage.h), tests/x/\n"},
                   "docs/PAGE.md:3: names: ../src/core/stage.h does not exist",
                   "docs/PAGE.md:3: names: tests/x/ does not exist")

    def test_chapter_marks_are_found(self):
        for mark in ("/* --- Words --- */", "/* ===== */", "// -----", "/* Words ------ */",
                     "/*****\n * Words\n */", "/* Words. */\n", "/* Words\n * alone. */\n",
                     "/* log.c */"):
            self.reads({"src/core/word.h": header("src/core/word.h", f"int word;\n\n{mark}\nint other;")},
                       "src/core/word.h:5: marks: chapter mark \"" + mark.split("\n")[0])
        self.reads({"tools/word.py": "import os\n\n# ====\nos.abort()\n\n# Words.\n\nos.abort()\n"},
                   "tools/word.py:3: marks: chapter mark \"# ====\"",
                   "tools/word.py:6: marks: chapter mark \"# Words.\"")

    def test_a_second_table_of_options_is_found(self):
        self.reads({"src/core/word.c": "#include <getopt.h>\n"},
                   "src/core/word.c:1: options: reads options with getopt")
        self.reads({"src/core/word.c": 'const option_row rows[] = {\n    {"queue-max"},\n};\n'},
                   "src/core/word.c:1: options: has a table of options of its own type")
        self.reads({"bench/word.c": 'if (strcmp(argv[1], "--all") == 0) {\n'},
                   "bench/word.c:1: options: compares an argument with an option")
        self.reads({"src/core/word.c": '\nconst char help[] = "  --all    everything\\n";\n'},
                   "src/core/word.c:2: options: writes the help of options by hand")

    def test_the_reader_of_options_and_tables_of_its_type_are_none(self):
        self.passes({"src/core/options.c": "#include <getopt.h>\n",
                     "src/policy/rules.c": 'const br_option_row rows[] = {\n    {"queue-max"},\n};\n'
                                           'const char *example = "route \\"What?\\"  --all";\n'},
                    build=False)

    def test_a_private_header_among_the_public_ones_is_found(self):
        self.reads({"include/bestroute/log.h": header("include/bestroute/log.h")},
                   "include/bestroute/log.h:1: headers: only client.h, error.h, status.h are public")

    def test_a_guard_that_is_not_the_path_is_found(self):
        self.reads({"src/core/clock.h": "#ifndef BESTROUTE_CLOCK_H\n#define BESTROUTE_CLOCK_H\n#endif\n",
                    "cuda/gemm.h": "int gemm(void);\n"},
                   "cuda/gemm.h:1: headers: its guard is missing: make it BESTROUTE_CUDA_GEMM_H",
                   "src/core/clock.h:1: headers: its guard is BESTROUTE_CLOCK_H: make it BESTROUTE_CORE")


if __name__ == "__main__":
    unittest.main()
