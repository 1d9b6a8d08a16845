#!/usr/bin/env python3
"""The program `bestroute` against a running service: every command, exit code and form of input and output.

    BESTROUTE=build/bestroute BESTROUTED=build/bestrouted python3 tests/e2e/test_cli.py

Standard library only. Services run on sockets of a scratch folder.
"""

import json
import os
import pty
import re
import select
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest

SOURCE = os.environ.get("BESTROUTE_SOURCE", os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
CLIENT = os.environ.get("BESTROUTE", os.path.join(SOURCE, "build", "bestroute"))
DAEMON = os.environ.get("BESTROUTED", os.path.join(SOURCE, "build", "bestrouted"))
BUNDLE = os.path.join(SOURCE, "weights", "tiny")
PROMPTS = os.path.join(SOURCE, "examples", "prompts.txt")
WAIT_S = 60

ROUTE_KEYS = ["model", "n", "quality", "cost", "met", "margin", "tokens", "truncated"]


class Service:
    """A bestrouted of its own; `url` and `admin` are ready when it is made."""

    def __init__(self, *options, url=None, engine="reference", bundle=BUNDLE):
        self.folder = tempfile.mkdtemp(prefix="bestroute-cli-")
        self.url = url or f"ipc://{self.folder}/data"
        self.admin = f"ipc://{self.folder}/admin"
        self.log = open(os.path.join(self.folder, "log"), "w+")
        self.process = subprocess.Popen(
            [DAEMON, "--bundle", bundle, "--listen", self.url, "--admin", self.admin, "--engine", engine,
             *options],
            stderr=self.log, stdout=self.log, env=clean_environment())

    def wait(self, *options):
        """Waits until a ping is answered."""
        done = run("ping", "--url", self.url, "--wait-ms", str(WAIT_S * 1000),
                   "--timeout-ms", str(WAIT_S * 1000), *options)
        if done.returncode != 0:
            self.log.seek(0)
            raise RuntimeError(f"the service did not start: {done.stderr}\n{self.log.read()}")
        return self

    def stop(self):
        self.process.terminate()
        self.process.wait(WAIT_S)
        self.log.close()
        shutil.rmtree(self.folder)


def clean_environment(**more):
    kept = {k: v for k, v in os.environ.items() if not k.startswith("BESTROUTE_")}
    return {**kept, **more}


def run(*arguments, text=None, environment=None, **more):
    given = {"input": text} if text is not None else {"stdin": subprocess.DEVNULL}
    if isinstance(text, str):
        given["input"] = text.encode()
    done = subprocess.run([CLIENT, *arguments], capture_output="stdout" not in more, timeout=4 * WAIT_S,
                          env=clean_environment(**(environment or {})), **given, **more)
    if "AddressSanitizer" in str(done.stderr) or "runtime error" in str(done.stderr):
        raise AssertionError(done.stderr.decode())
    done.out = (done.stdout or b"").decode()
    done.err = (done.stderr or b"").decode()
    return done


def lines(done):
    return [json.loads(line) for line in done.out.splitlines()]


service = None
small = None  # a service with small limits


def setUpModule():
    global service, small
    service = Service()
    small = Service("--max-queries", "16", "--max-text-bytes", "2000", "--max-message-bytes", "20000",
                    engine="noop")
    service.wait()
    small.wait()


def tearDownModule():
    for one in (service, small):
        if one is not None:
            one.stop()


class Case(unittest.TestCase):
    def check(self, done, code):
        self.assertEqual(done.returncode, code, done.out[-2000:] + done.err[-2000:])
        return done

    def route(self, *arguments, code=0, url=None, **more):
        return self.check(run("route", "--url", url or service.url, *arguments, **more), code)


class Usage(Case):
    def test_help_and_version_need_no_service(self):
        for flag in ("--help", "-h", "help"):
            done = self.check(run(flag), 0)
            for word in ("route", "score", "info", "ping", "reload", "--total-budget", "Exit code"):
                self.assertIn(word, done.out)
        self.assertRegex(self.check(run("--version"), 0).out, r"^bestroute \d+\.\d+\.\d+\n$")

    def test_help_of_a_command_shows_its_options_alone(self):
        for arguments in (["help", "ping"], ["ping", "--help"], ["--help", "ping"], ["ping", "-h"]):
            with self.subTest(arguments=arguments):
                out = self.check(run(*arguments), 0).out
                self.assertRegex(out, r"^usage: bestroute ping \[OPTION\]\.\.\.\n")
                shown = re.findall(r"^  (?:-h, )?--([\w-]+)", out, re.MULTILINE)
                expected = "url timeout-ms wait-ms tls-ca tls-cert tls-name json help version"
                self.assertEqual(shown, expected.split())
                self.assertNotIn("Policy", out)
        for command in ("route", "score", "info", "reload", "eval", "calibrate"):
            self.assertIn(f"usage: bestroute {command} ", self.check(run("help", command), 0).out)
        route = run("help", "route").out
        self.assertIn("--threshold", route)
        self.assertNotIn("--bootstrap", route)
        self.assertIn("'cook' is no command", self.check(run("help", "cook"), 2).err)

    def test_a_misspelt_word_brings_the_nearest_one(self):
        for arguments, says in (
            (["route", "--treshold", "0.5", "x"], "--treshold: no such option; nearest is --threshold"),
            (["rout", "x"], "'rout' is no command; nearest is route"),
            (["calibrat"], "nearest is calibrate"),
        ):
            self.assertIn(says, self.check(run(*arguments), 2).err)

    def test_wrong_usage_ends_with_2_and_says_what_is_wrong(self):
        for arguments, word in (
            ([], "no command"),
            (["cook"], "'cook' is no command"),
            (["route", "--nonsense", "x"], "--nonsense"),
            (["route", "-x"], "goes after --"),
            (["route", "--url"], "expected a value (URL)"),
            (["route", "--policy", "cheapest", "x"], "one of threshold|budget"),
            (["route", "--fallback", "never", "x"], "one of best|reference|error"),
            (["route", "--threshold", "1.5", "x"], "from 0 to 1"),
            (["route", "--threshold", "nan", "x"], "expected a number"),
            (["route", "--threshold", "0.5", "--policy", "budget", "x"], "belongs to the policy threshold"),
            (["route", "--lambda", "1", "--tolerance", "0.1", "x"], "belongs to the policy tolerance"),
            (["route", "--max-cost", "-1", "x"], "at least 0"),
            (["route", "--max-n", "0", "x"], "whole number from 1"),
            (["route", "--models", "a,,b", "x"], "none empty"),
            (["route", "--batch", "0", "x"], "from 1 to 1024"),
            (["route", "--batch", "1025", "x"], "from 1 to 1024"),
            (["route", "--parallel", "65", "x"], "from 1 to 64"),
            (["route", "--timeout-ms", "12x", "x"], "whole number"),
            (["route", "--file", PROMPTS, "x"], "either as arguments or from a file"),
            (["score", "--threshold", "0.5", "x"], "not for this command"),
            (["ping", "x"], "takes no arguments"),
            (["reload"], "--admin"),
            (["reload", "--admin", "ipc:///x", "a", "b"], "one folder"),
            (["ping", "--url", "nonsense"], "'nonsense', expected tcp://, ipc:// or tls+tcp://"),
            (["ping", "--url", "tcp://127.0.0.1:9", "--tls-ca", "x.pem"], "tls"),
            (["ping", "--url", "tls+tcp://127.0.0.1:9"], "tls_ca"),
        ):
            with self.subTest(arguments=arguments):
                done = self.check(run(*arguments), 2)
                self.assertIn(word, done.err)
                self.assertEqual(done.out, "")

    def test_a_missing_file_ends_with_2(self):
        self.assertIn("No such file", self.route("--file", "/does/not/exist", code=2).err)
        self.assertIn("directory", self.route("--file", SOURCE, code=2).err)

    def test_a_terminal_for_standard_input_is_wrong_usage(self):
        ours, theirs = pty.openpty()
        done = subprocess.run([CLIENT, "route", "--url", service.url], stdin=theirs, capture_output=True,
                              timeout=WAIT_S)
        os.close(ours)
        os.close(theirs)
        self.assertEqual(done.returncode, 2)
        self.assertIn(b"there are no prompts", done.stderr)

    def test_the_url_may_come_from_the_environment(self):
        self.check(run("ping", environment={"BESTROUTE_URL": service.url}), 0)
        self.check(run("reload", environment={"BESTROUTE_ADMIN": service.admin}), 0)


class SmallCommands(Case):
    def test_ping(self):
        self.assertIn("ready", self.check(run("ping", "--url", service.url), 0).out)
        answer, = lines(self.check(run("ping", "--url", service.url, "--json"), 0))
        self.assertEqual(list(answer), ["ok", "ms"])
        self.assertIs(answer["ok"], True)

    def test_info(self):
        text = self.check(run("info", "--url", service.url), 0).out
        for word in ("tiny-random", "llama-31-8b", "gpt-4o", "(reference)", "threshold 0.5"):
            self.assertIn(word, text)
        info, = lines(self.check(run("info", "--url", service.url, "--json"), 0))
        self.assertEqual(list(info),
                         ["candidates", "reference", "models", "policy", "limits", "server", "bundle"])
        self.assertEqual(info["candidates"][info["reference"]], {"model": "gpt-4o", "n": 1})
        self.assertEqual(info["models"]["gpt-4o"]["input_price"], 5e-6)
        self.assertEqual(info["policy"], {"kind": "threshold", "threshold": 0.5})
        self.assertEqual(info["limits"]["max_tokens"], 128)
        self.assertEqual(len(info["bundle"]["hash"]), 64)

    def test_info_of_a_calibrated_bundle(self):
        with tempfile.TemporaryDirectory() as folder:
            for name in os.listdir(BUNDLE):
                shutil.copy(os.path.join(BUNDLE, name), folder)
            path = os.path.join(folder, "router.json")
            with open(path, encoding="utf-8") as file:
                router = json.load(file)
            table = {"kind": "threshold", "rows": 283, "table": [
                {"threshold": t / 64, "reference_share": t / 128, "mean_cost": t / 1024, "quality": 0.75}
                for t in range(41)]}
            router["policy_table"] = table
            with open(path, "w", encoding="utf-8") as file:
                json.dump(router, file)
            calibrated = Service(bundle=folder, engine="noop").wait()
            try:
                info, = lines(self.check(run("info", "--url", calibrated.url, "--json"), 0))
                text = self.check(run("info", "--url", calibrated.url), 0).out
            finally:
                calibrated.stop()
        self.assertEqual(info["policy_table"], table)
        self.assertIn("calibrated on 283 prompts", text)
        shown = text[text.index("calibrated"):].splitlines()[2:]
        self.assertEqual([float(line.split()[0]) for line in shown],
                         [round(t / 64, 3) for t in range(0, 41, 2)])
        self.assertEqual(shown[-1].split(), ["0.625", "31.2", "39.0625", "0.7500"])

    def test_reload(self):
        self.assertIn("tiny-random", self.check(run("reload", "--admin", service.admin), 0).out)
        answer, = lines(self.check(run("reload", "--admin", service.admin, "--json", BUNDLE), 0))
        self.assertEqual(answer["bundle"]["name"], "tiny-random")
        # A relative folder is the client's, not the service's.
        self.check(run("reload", "--admin", service.admin, "tiny", cwd=os.path.dirname(BUNDLE)), 0)
        self.check(run("reload", "--admin", service.admin, "/does/not/exist"), 2)

    def test_a_bad_bundle_is_refused_and_the_old_one_serves(self):
        with tempfile.TemporaryDirectory() as folder:
            done = self.check(run("reload", "--admin", service.admin, "--json", folder), 4)
        error = lines(done)[0]["error"]
        self.assertIn("router.json", error["message"])
        self.assertNotIn("bad_request: ", error["message"])
        self.check(run("ping", "--url", service.url), 0)


class Route(Case):
    def test_json_has_stable_keys(self):
        first, second = lines(self.route("--json", "What is 2 + 2?", "And 3 + 3?"))
        self.assertEqual(list(first), ["index", *ROUTE_KEYS])
        self.assertEqual((first["index"], second["index"]), (0, 1))
        self.assertIs(first["met"], True)
        self.assertGreaterEqual(first["quality"], 0.5)

    def test_explain_gives_every_candidate(self):
        answer, = lines(self.route("--json", "--explain", "What is 2 + 2?"))
        self.assertEqual(list(answer), ["index", *ROUTE_KEYS, "candidates"])
        self.assertEqual(len(answer["candidates"]), 16)
        self.assertEqual(list(answer["candidates"][0]),
                         ["model", "n", "quality", "cost", "allowed", "reason"])
        table = self.route("--explain", "What is 2 + 2?").out
        self.assertIn("->", table)
        self.assertIn("gpt-4o", table)

    def test_every_policy_flag_reaches_the_service(self):
        def one(*flags, code=0):
            return lines(self.route("--json", *flags, "Prove that 2 is even.", code=code))[0]
        table = {(c["model"], c["n"]): c for c in one("--explain")["candidates"]}
        best = max(c["quality"] for c in table.values())
        self.assertEqual(one("--threshold", "1")["model"], "gpt-4o")
        self.assertEqual(one("--policy", "threshold", "--threshold", "0")["cost"],
                         min(c["cost"] for c in table.values()))
        budget = one("--policy", "budget", "--max-cost", "0.0005")
        self.assertEqual(budget["quality"], max(c["quality"] for c in table.values() if c["cost"] <= 0.0005))
        self.assertEqual(one("--lambda", "0")["quality"], best)
        self.assertEqual(one("--tolerance", "0")["quality"], best)
        self.assertEqual(one("--models", "phi-3-mini,mistral-8x7b", "--exclude", "mistral-8x7b",
                             "--max-n", "1")["model"],
                         "phi-3-mini")
        infeasible = one("--policy", "budget", "--max-cost", "0", "--fallback", "error", code=1)
        self.assertEqual(infeasible["error"]["code"], "infeasible")
        self.assertEqual(one("--threshold", "0.999", "--models", "phi-3-mini")["met"], False)

    def test_a_deadline_that_has_passed_is_each_prompts_error(self):
        answers = lines(self.route("--json", "--deadline-ms", "0", "a", "b", code=1))
        self.assertEqual([a["error"]["code"] for a in answers], ["deadline", "deadline"])

    def test_a_pool_is_decided_in_one_request(self):
        answers = lines(self.route("--json", "--total-budget", "0.0105", "--batch", "3", "--file", PROMPTS))
        self.assertEqual(len(answers), 40)
        self.assertLessEqual(sum(a["cost"] for a in answers), 0.0105)
        self.assertTrue(all(a["met"] for a in answers))

    def test_a_pool_larger_than_a_request_is_wrong_usage(self):
        many = [str(i) for i in range(17)]
        self.route("--total-budget", "1", *many[:16], url=small.url)
        done = self.route("--total-budget", "1", *many, url=small.url, code=2)
        self.assertIn("at most 16 prompts", done.err)
        self.assertEqual(done.out, "")
        done = self.route("--total-budget", "1", "--json", *many, url=small.url, code=2)
        self.assertEqual(lines(done)[0]["error"]["code"], "usage")

    def test_a_refusal_ends_with_4(self):
        done = self.route("--models", "nobody", "a", code=4)
        self.assertIn('unknown model "nobody"', done.err)
        self.assertNotIn("nobody", done.out)
        done = self.route("--json", "--models", "nobody", "a", "b", code=4)
        self.assertEqual([a["error"]["code"] for a in lines(done)], ["bad_request"] * 2)

    def test_score_gives_qualities_in_the_order_of_info(self):
        info, = lines(self.check(run("info", "--url", service.url, "--json"), 0))
        done = self.check(run("score", "--url", service.url, "--json", "What is 2 + 2?"), 0)
        answer, = lines(done)
        self.assertEqual(list(answer), ["index", "quality", "tokens", "truncated"])
        self.assertEqual(len(answer["quality"]), len(info["candidates"]))
        self.assertEqual(answer["quality"][info["reference"]], 1)
        table = self.check(run("score", "--url", service.url, "What is 2 + 2?"), 0).out
        self.assertIn(f"n=5   {answer['quality'][4]:.4f}", table)
        self.assertIn("(reference)", table)


class Input(Case):
    def tokens(self, *arguments, **more):
        return [(a.get("line"), a.get("tokens"), a.get("error", {}).get("code"))
                for a in lines(self.route("--json", *arguments, **more))]

    def test_arguments_files_and_pipes_agree(self):
        with open(PROMPTS, encoding="utf-8") as file:
            prompts = file.read().splitlines()
        def bare(done):
            return [{k: v for k, v in a.items() if k != "line"} for a in lines(done)]
        expected = bare(self.route("--json", "--", *prompts))
        with open(PROMPTS, "rb") as file:
            data = file.read()
        self.assertEqual(bare(self.route("--json", "--file", PROMPTS)), expected)
        self.assertEqual(bare(self.route("--json", text=data)), expected)
        self.assertEqual(bare(self.route("--json", "-", text=data)), expected)
        self.assertEqual(bare(self.route("--json", "--file", "-", text=data)), expected)

    def test_line_ends_blank_lines_and_a_byte_order_mark(self):
        plain = self.tokens(text="one two\nthree\n")
        self.assertEqual([line for line, _, _ in plain], [1, 2])
        for text, numbers in (
            ("one two\r\nthree\r\n", [1, 2]),
            ("one two\nthree", [1, 2]),
            ("\ufeffone two\nthree\n", [1, 2]),
            ("\n\none two\n \t\r\nthree\n\n", [3, 5]),
        ):
            with self.subTest(text=text):
                got = self.tokens(text=text)
                self.assertEqual([g[1:] for g in got], [p[1:] for p in plain])
                self.assertEqual([g[0] for g in got], numbers)

    def test_no_prompts_are_no_failure(self):
        self.assertEqual(self.route("--json", text="").out, "")
        self.assertEqual(self.route(text="\n\n").out, "no prompts\n")

    def test_a_dash_starts_a_prompt_after_two_dashes(self):
        self.route("--json", "--", "-5 + 3 = ?", "--help")

    def test_bytes_that_are_no_text_are_that_prompts_error(self):
        got = self.tokens(text=b"good\n\xff\xfe\nzero\x00byte\n", code=1)
        self.assertEqual([g[2] for g in got], [None, "bad_request", None])

    def test_an_overlong_line_is_named_and_passed_over(self):
        long = "a" * 2001
        for text in (f"one\n{long}\nthree\n", f"one\n{long}", f"one\n{'b' * 300000}\nthree\n",
                     f"{'c' * 200000}"):
            with self.subTest(bytes=len(text)):
                got = self.tokens(text=text, url=small.url, code=1)
                expected = [(i + 1, len(line) > 2000) for i, line in enumerate(text.split("\n")) if line]
                self.assertEqual([(line, error == "too_large") for line, _, error in got], expected)
        self.tokens(text="a" * 2000 + "\r\n" + "b" * 2000, url=small.url)
        self.tokens("a" * 2000, url=small.url)
        self.tokens("a" * 2001, url=small.url, code=1)

    def test_requests_stay_below_the_limits_of_the_service(self):
        # 100 prompts of 2000 bytes: far more than 16 queries, and 16 of them more than 20000 bytes.
        got = self.tokens("--batch", "1024", text=("x" * 2000 + "\n") * 100, url=small.url)
        self.assertEqual(len(got), 100)

    def test_json_lines_take_every_field(self):
        rows = [
            {"id": "a", "text": "Summarise.", "prompt_tokens": 1000, "output_tokens": 10},
            {"id": 7, "text": "Summarise.", "prompt_tokens": {"phi-3-mini": 1000},
             "output_tokens": {"phi-3-mini": 10}},
            {"id": None, "tokens": [5, 6, 7], "policy": {"kind": "threshold", "threshold": 1}},
            {"text": "Cheap, please.", "max_cost": 0.0002, "unknown": [1, {"x": 2}]},
            "a bare string",
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        answers = lines(self.route("--json", "--jsonl", text=text))
        self.assertEqual([a.get("id", "none") for a in answers], ["a", 7, None, "none", "none"])
        self.assertEqual(answers[2]["tokens"], 6)
        self.assertEqual(answers[2]["model"], "gpt-4o")
        self.assertLessEqual(answers[3]["cost"], 0.0002)
        priced = [a for a in lines(self.route("--json", "--jsonl", "--explain", text=text))[:2]]
        row = [next(c for c in a["candidates"] if c["model"] == "phi-3-mini" and c["n"] == 2) for a in priced]
        self.assertAlmostEqual(row[0]["cost"], 3e-7 * 1000 + 9e-7 * 10 * 2, 12)
        self.assertAlmostEqual(row[1]["cost"], row[0]["cost"], 12)

    def test_what_is_wrong_in_a_json_line_is_that_lines_error(self):
        wrong = [
            '{"text": "x"', "[1, 2]", "42", "{}", '{"text": 5}', '{"text": "x", "tokens": [1]}',
            '{"tokens": ["a"]}',
            '{"tokens": [-1]}', '{"text": "x", "text": "y"}', '{"text": "x", "max_cost": "free"}',
            '{"text": "x", "prompt_tokens": -1}', '{"text": "x", "output_tokens": {"a": 1.5}}',
            '{"text": "x", "policy": {"treshold": 0.5}}', '{"text": "x", "policy": {"kind": "cheapest"}}',
            '{"text": "x", "policy": {"fallback": "x"}}',
            '{"text": "x", "policy": {"models": []}}', '{"text": "x", "policy": {"models": "a"}}',
            '{"text": "x", "policy": {"max_n": 0}}', '{"text": "x", "policy": {"threshold": 2}}',
            '{"text": "x", "policy": {"kind": "pool"}}', '{"text": "x", "policy": {"models": ["nobody"]}}',
            '{"text": "x", "id": [1]}', '{"text": "\\ud800"}', "[" * 5000,
        ]
        text = '{"text": "first"}\n' + "\n".join(wrong) + '\n{"text": "last"}\n'
        answers = lines(self.route("--json", "--jsonl", text=text, code=1))
        self.assertEqual([a["line"] for a in answers], list(range(1, len(wrong) + 3)))
        for answer, line in zip(answers[1:-1], wrong):
            self.assertEqual(answer.get("error", {}).get("code"), "bad_request", line[:80])
            self.assertTrue(answer["error"]["message"])
        self.assertNotIn("error", answers[0])
        self.assertNotIn("error", answers[-1])

    def test_the_name_of_a_file_tells_json_lines(self):
        answers = lines(self.route("--json", "--file", os.path.join(SOURCE, "examples", "prompts.jsonl")))
        self.assertEqual(answers[0]["id"], "capital")

    def test_the_order_of_results_is_the_order_of_the_input(self):
        prompts = "".join(f"{i} " + "word " * (i * 7 % 23) + "\n" for i in range(3000))
        expected = self.route("--json", "--parallel", "1", text=prompts, url=small.url).out
        answers = [json.loads(line) for line in expected.splitlines()]
        self.assertEqual([a["index"] for a in answers], list(range(3000)))
        self.assertGreater(len({a["tokens"] for a in answers}), 20)
        with tempfile.NamedTemporaryFile() as file:
            file.write(prompts.encode())
            file.flush()
            done = self.route("--json", "--parallel", "16", "--batch", "5", "--file", file.name,
                              url=small.url)
            self.assertEqual(done.out, expected)

    def test_a_prompt_from_a_slow_pipe_is_answered_before_the_next_comes(self):
        with subprocess.Popen([CLIENT, "route", "--url", service.url, "--json"], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE) as process:
            for i in range(3):
                process.stdin.write(f"prompt {i}\n".encode())
                process.stdin.flush()
                ready, _, _ = select.select([process.stdout], [], [], WAIT_S)
                self.assertTrue(ready)
                self.assertEqual(json.loads(process.stdout.readline())["index"], i)
            process.stdin.close()
            self.assertEqual(process.wait(WAIT_S), 0)


class Output(Case):
    def test_nothing_in_a_prompt_steers_the_terminal(self):
        done = self.route("red \x1b[31m\x07\r\n\u202e\u0085 end")
        self.assertIn(r"red \x1b[31m\x07\r\n\u{202e}\x85 end", done.out)
        self.assertNotIn("\x1b", done.out)

    def test_columns_line_up_for_wide_and_narrow_characters(self):
        table = self.route("short", "日本語" * 60, "é" * 200, "🎉" * 100).out.splitlines()
        def columns(text):  # of the characters used here
            return sum(2 if ord(c) > 0x2fff else 1 for c in text)
        place = {columns(row[: max(row.find(m) for m in ("llama", "phi", "mistral", "gpt"))])
                 for row in table[1:5]}
        self.assertEqual(len(place), 1, table)
        self.assertEqual(sum("…" in row for row in table), 3)

    def test_totals_tell_shares_and_costs(self):
        answers = lines(self.route("--json", "--explain", "--file", PROMPTS))
        table = self.route("--file", PROMPTS).out
        total = sum(a["cost"] for a in answers)
        alone = sum(c["cost"] for a in answers for c in a["candidates"] if c["model"] == "gpt-4o")
        self.assertIn("40 prompts", table)
        self.assertIn(f"expected cost {total:.6f} USD; with gpt-4o (n=1) for all {alone:.6f} USD", table)
        self.assertIn("100.0 %", self.route("--threshold", "1", "--file", PROMPTS).out)

    def test_output_that_cannot_be_written_ends_with_5(self):
        with open("/dev/full", "wb") as full:
            for arguments in (["route", "--json", "--url", service.url, "a"], ["info", "--url", service.url],
                              ["--help"]):
                done = subprocess.run([CLIENT, *arguments], stdout=full, stderr=subprocess.PIPE,
                                      timeout=WAIT_S, stdin=subprocess.DEVNULL)
                self.assertEqual(done.returncode, 5, arguments)
                self.assertIn(b"No space left", done.stderr)

    def progress(self, *flags):
        """What appears on a terminal at standard error while 4000 prompts are routed to a file."""
        ours, theirs = pty.openpty()
        seen = []
        def watch():
            try:
                while data := os.read(ours, 65536):
                    seen.append(data)
            except OSError:
                pass
        watcher = threading.Thread(target=watch)
        watcher.start()
        with tempfile.NamedTemporaryFile() as prompts, tempfile.NamedTemporaryFile() as results:
            prompts.write(b"a prompt like any other\n" * 16000)
            prompts.flush()
            done = subprocess.run([CLIENT, "route", "--url", small.url, "--json", "--batch", "1",
                                   "--parallel", "1", "--file", prompts.name, *flags], stdout=results,
                                  stderr=theirs, timeout=WAIT_S)
            self.assertEqual(done.returncode, 0)
            results.seek(0)
            self.assertEqual([json.loads(line)["index"] for line in results], list(range(16000)))
        os.close(theirs)
        watcher.join()
        os.close(ours)
        return b"".join(seen)

    def test_progress_is_drawn_on_a_terminal_and_wiped_at_the_end(self):
        seen = self.progress()
        self.assertRegex(seen, rb"\r\d+ prompts, \d+/s  \[#*\.*\] +\d+ %  \d+:\d\d:\d\d left\x1b\[K")
        self.assertTrue(seen.endswith(b"\r\x1b[K"))
        self.assertEqual(self.progress("--no-progress"), b"")


class FakeService:
    """A TCP listener that shakes hands as a REP socket does,
    then answers each request with `body`, or never."""

    def __init__(self, body=None):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"tcp://127.0.0.1:{self.listener.getsockname()[1]}"
        self.body = body
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        try:
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self.talk, args=(connection,), daemon=True).start()
        except OSError:
            pass

    def talk(self, connection):
        with connection, connection.makefile("rwb") as stream:
            stream.write(b"\0SP\0\0\x31\0\0")
            stream.flush()
            stream.read(8)
            while head := stream.read(8):
                message = stream.read(struct.unpack(">Q", head)[0])
                if self.body is not None:
                    reply = message[:4] + self.body
                    stream.write(struct.pack(">Q", len(reply)) + reply)
                    stream.flush()

    def close(self):
        self.listener.close()


class Fleet(Case):
    """Several urls: repeated, with commas, or from the environment."""

    def setUp(self):
        self.other = Service().wait()
        self.dead = "tcp://127.0.0.1:9"

    def tearDown(self):
        self.other.stop()

    def answered(self, done):
        """By url, from the table of --endpoints."""
        rows = [line.split() for line in done.err.splitlines() if "://" in line]
        return {row[6]: int(row[1]) for row in rows}

    def test_prompts_are_spread_and_a_dead_url_costs_none(self):
        done = self.check(run("route", "--url", service.url, "--url", f"{self.other.url},{self.dead}",
                              "--batch", "1", "--endpoints", "--json", "--file", PROMPTS), 0)
        alone = self.check(run("route", "--url", service.url, "--json", "--file", PROMPTS), 0)
        self.assertEqual(done.out, alone.out)
        answered = self.answered(done)
        self.assertEqual(set(answered), {service.url, self.other.url, self.dead})
        self.assertEqual(answered[self.dead], 0)
        self.assertGreater(answered[service.url], 0)
        self.assertGreater(answered[self.other.url], 0)
        self.assertEqual(sum(answered.values()), len(lines(done)) + 1)  # and info
        self.assertRegex(done.err, "(?m)^[0-9]+ calls, [0-9]+ retries, 0 hedges, of which 0 won$")

    def test_a_service_that_ends_during_the_run_costs_no_prompt(self):
        with open(PROMPTS, encoding="utf-8") as file:
            prompts = [line for line in file if line.strip()]
        program = subprocess.Popen(
            [CLIENT, "route", "--json", "--batch", "1", "--url", f"{service.url},{self.other.url}", "-"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=clean_environment())
        program.stdin.writelines(prompts[:10])
        program.stdin.flush()
        for _ in range(10):
            program.stdout.readline()
        self.other.process.kill()
        out, err = program.communicate("".join(prompts[10:20]), timeout=WAIT_S)
        self.assertEqual(program.returncode, 0, err)
        self.assertEqual([json.loads(line)["index"] for line in out.splitlines()], list(range(10, 20)))

    def test_every_command_takes_the_list_of_the_environment(self):
        environment = {"BESTROUTE_URL": f"{self.other.url},{service.url}"}
        for command in (["info"], ["score", "x"], ["route", "x", "--hedge-ms", "1000"]):
            self.check(run(*command, environment=environment), 0)
        self.assertEqual(lines(self.check(run("info", "--json", environment=environment), 0)),
                         lines(self.check(run("info", "--json", "--url", service.url), 0)))

    def test_ping_asks_each_and_fails_for_one(self):
        done = self.check(run("ping", "--url", f"{service.url},{self.other.url}", "--json"), 0)
        self.assertEqual([line["url"] for line in lines(done)], [service.url, self.other.url])
        done = self.check(run("ping", "--url", self.dead, "--url", service.url, "--wait-ms", "200"), 3)
        self.assertIn(f"{service.url} is ready", done.out)
        self.assertIn(self.dead, done.err)
        urls = (self.dead, service.url, "tls+tcp://127.0.0.1:9")
        done = self.check(run("ping", "--json", *(f"--url={url}" for url in urls), "--wait-ms", "200"), 3)
        self.assertEqual([(line["url"], "error" in line) for line in lines(done)],
                         list(zip(urls, (True, False, True))))

    def test_nobody_there(self):
        done = self.check(run("route", "--url", f"{self.dead},ipc:///does/not/exist", "--wait-ms", "200",
                              "x"), 3)
        self.assertIn("no connection to any of 2 endpoints within 200 ms", done.err)

    def test_an_empty_or_too_long_list_is_wrong_usage(self):
        for urls in ("", f"{service.url},", ",".join([service.url] * 65)):
            self.check(run("info", "--url", urls), 2)
        self.check(run("info", environment={"BESTROUTE_URL": "," * 9000}), 2)


class Trouble(Case):
    def test_nobody_there_ends_with_3(self):
        with socket.socket() as taken:  # bound, not listening: nobody else gets the port
            taken.bind(("127.0.0.1", 0))
            url = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
            for command in (["ping"], ["info"], ["route", "x"], ["score", "x"]):
                with self.subTest(command=command):
                    start = time.monotonic()
                    done = self.check(run(*command, "--url", url, "--wait-ms", "200", "--json"), 3)
                    self.assertLess(time.monotonic() - start, 20)
                    self.assertEqual(lines(done)[0]["error"]["code"], "unreachable")
                    self.assertIn("no connection", done.err)

    def test_no_answer_ends_with_3(self):
        fake = FakeService()
        done = self.check(run("ping", "--url", fake.url, "--timeout-ms", "300", "--json"), 3)
        self.assertEqual(lines(done)[0]["error"]["code"], "deadline")
        self.assertIn("within 300 ms", done.err)
        fake.close()

    def test_an_answer_that_is_none_ends_with_3(self):
        fake = FakeService(b"HTTP/1.1 400 Bad Request")
        done = self.check(run("info", "--url", fake.url, "--json"), 3)
        self.assertEqual(lines(done)[0]["error"]["code"], "unreachable")
        fake.close()

    def test_not_ready_ends_with_4(self):
        body = (b"\x83\xa1v\x01\xa2ok\xc2\xa5error\x82\xa4code\xa9not_ready\xa7message\xa8draining")
        fake = FakeService(body)
        done = self.check(run("ping", "--url", fake.url, "--wait-ms", "200", "--json"), 4)
        self.assertEqual(lines(done), [{"error": {"code": "not_ready", "message": "draining"}}])
        fake.close()

    def test_a_service_that_dies_during_a_run_ends_it_with_3(self):
        dying = Service(engine="noop").wait()
        with subprocess.Popen([CLIENT, "route", "--url", dying.url, "--json", "--timeout-ms", "3000",
                               "--wait-ms", "1000"],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE) as process:
            process.stdin.write(b"first\n")
            process.stdin.flush()
            self.assertNotIn("error", json.loads(process.stdout.readline()))
            dying.stop()
            out, err = process.communicate(b"second\n", timeout=WAIT_S)
            self.assertEqual(process.returncode, 3, err)
            self.assertEqual(json.loads(out)["error"]["code"], "unreachable")
            self.assertIn(b"the run stops here", err)

    def test_a_service_that_comes_back_during_a_run_is_used_again(self):
        folder = tempfile.mkdtemp(prefix="bestroute-cli-")
        url = f"ipc://{folder}/data"
        first = Service(url=url, engine="noop").wait()
        with subprocess.Popen([CLIENT, "route", "--url", url, "--json", "--wait-ms", str(WAIT_S * 1000),
                               "--timeout-ms", str(WAIT_S * 1000)],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            process.stdin.write(b"first\n")
            process.stdin.flush()
            self.assertNotIn("error", json.loads(process.stdout.readline()))
            first.stop()
            second = Service(url=url, engine="noop")
            second.wait()
            out, _ = process.communicate(b"second\n", timeout=WAIT_S)
            self.assertEqual(process.returncode, 0)
            self.assertNotIn("error", json.loads(out))
        second.stop()
        shutil.rmtree(folder)


@unittest.skipUnless(shutil.which("openssl"), "there is no openssl program to make certificates with")
class Tls(Case):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="bestroute-tls-")
        def openssl(*arguments):
            subprocess.run(["openssl", *arguments], cwd=cls.folder, check=True, capture_output=True)
        for authority in ("ca", "other"):
            openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{authority}.key", "-out",
                    f"{authority}.pem",
                    "-subj", f"/CN={authority}", "-days", "2")
        for name in ("server", "client"):
            openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr",
                    "-subj",
                    f"/CN={'localhost' if name == 'server' else name}")
            openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
                    "-CAcreateserial", "-out", f"{name}.crt", "-days", "2")
        with open(cls.path("client.pem"), "w") as both:
            for part in ("client.crt", "client.key"):
                with open(cls.path(part)) as file:
                    both.write(file.read())
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        cls.url = f"tls+tcp://127.0.0.1:{port}"
        # the machine may resolve the name to ::1, where nobody listens
        cls.named = ["--tls-name", "localhost"]
        cls.service = Service("--tls-cert", cls.path("server.crt"), "--tls-key", cls.path("server.key"),
                              "--tls-ca", cls.path("ca.pem"), url=f"tls+tcp://127.0.0.1:{port}",
                              engine="noop")
        cls.service.url = cls.url
        cls.service.wait("--tls-ca", cls.path("ca.pem"), "--tls-cert", cls.path("client.pem"),
                         *cls.named)

    @classmethod
    def tearDownClass(cls):
        cls.service.stop()
        shutil.rmtree(cls.folder)

    @classmethod
    def path(cls, name):
        return os.path.join(cls.folder, name)

    def ping(self, *flags, url=None):
        return run("ping", "--url", url or self.url, "--wait-ms", "800", *flags)

    def test_a_client_with_a_certificate_is_served(self):
        own = ["--tls-ca", self.path("ca.pem"), "--tls-cert", self.path("client.pem")]
        self.check(self.ping(*own, *self.named), 0)
        self.check(run("route", "--url", self.url, *own, *self.named, "--file", PROMPTS), 0)

    def test_the_servers_name_is_the_host_of_the_url(self):
        try:
            address = socket.getaddrinfo("localhost", None)[0][4][0]
        except socket.gaierror as error:
            self.skipTest(f"localhost is no name here: {error}")
        if address != "127.0.0.1":
            self.skipTest("localhost is not 127.0.0.1 first")
        own = ["--tls-ca", self.path("ca.pem"), "--tls-cert", self.path("client.pem")]
        self.check(self.ping(*own, url=self.url.replace("127.0.0.1", "localhost")), 0)

    def test_without_a_certificate_or_with_wrong_names_nobody_is(self):
        own = ["--tls-cert", self.path("client.pem")]
        self.check(self.ping("--tls-ca", self.path("ca.pem"), *self.named), 3)
        self.check(self.ping("--tls-ca", self.path("other.pem"), *own, *self.named), 3)
        self.check(self.ping("--tls-ca", self.path("ca.pem"), *own, "--tls-name", "elsewhere"), 3)
        self.check(self.ping("--tls-ca", self.path("ca.pem"), *own), 3)
        self.check(self.ping("--tls-ca", self.path("ca.pem"), "--tls-cert", self.path("server.crt")), 2)
        self.check(self.ping("--tls-ca", "/does/not/exist"), 2)


if __name__ == "__main__":
    for program in (CLIENT, DAEMON):
        if not os.access(program, os.X_OK):
            print(f"SKIPPED: {program} is not built", file=sys.stderr)
            sys.exit(77)
    unittest.main(verbosity=1)
