#!/usr/bin/env python3
"""test_weights.py - the generator of random bundles and the importer of trained ones.

Standard library and numpy; what also needs torch,
spm_train or bestrouted is skipped aloud where it is absent.
"""

import contextlib
import io
import json
import os
import pickle
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest
import zipfile

SOURCE = os.environ.get("BESTROUTE_SOURCE", os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
WEIGHTS = os.path.join(SOURCE, "weights")
DATA = os.path.join(SOURCE, "tests", "data")
sys.path.insert(0, WEIGHTS)
sys.dont_write_bytecode = True

try:
    import numpy as np
except ImportError:
    print("test_weights: skipped: numpy is absent (apt-get install python3-numpy)")
    sys.exit(77)

import bundle_io
import generate
import import_checkpoint
import torch_pickle
from bundle_io import BundleError

FILES = ("router.json", "config.json", "model.safetensors", "spm.model", "added_tokens.json")
TINY = os.path.join(WEIGHTS, "tiny")
SPM = os.path.join(TINY, "spm.model")
PIECES = 2048
EMBEDDING = "pretrained_model.embeddings.word_embeddings.weight"


def content(*path):
    with open(os.path.join(*path), "rb") as file:
        return file.read()


def load_json(*path):
    return json.loads(content(*path))


def read_tensors(path):
    """name -> (type, float32 array), by the format's definition and nothing of bundle_io's writer."""
    data = content(path)
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    body = data[8 + length :]
    tensors = {}
    covered = 0
    for name, info in header.items():
        if name == "__metadata__":
            continue
        begin, end = info["data_offsets"]
        assert begin == covered, f"{name} begins at {begin}, expected {covered}"
        covered = end
        raw = body[begin:end]
        if info["dtype"] == "F32":
            values = np.frombuffer(raw, "<f4")
        elif info["dtype"] == "F16":
            values = np.frombuffer(raw, "<f2").astype(np.float32)
        else:
            values = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
        tensors[name] = (info["dtype"], values.reshape(info["shape"]))
    assert covered == len(body)
    return tensors


def run_quietly(main, arguments):
    """(exit status, what was printed)."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        status = main(arguments)
    return status, out.getvalue()


class Folder(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def generate(self, *arguments, out="bundle"):
        status, text = run_quietly(generate.main, ["--out", self.path(out), *arguments])
        self.assertEqual(status, 0, text)
        return self.path(out)


class Generating(Folder):
    def test_the_committed_tiny_bundle_comes_out_bit_for_bit(self):
        out = self.generate("--preset", "tiny")
        for name in FILES:
            self.assertEqual(content(out, name), content(TINY, name), name)

    def test_the_tiny_bundle_is_small(self):
        self.assertLess(sum(os.path.getsize(os.path.join(TINY, name)) for name in FILES), 1_500_000)

    def test_the_tokenizer_is_the_one_the_corpus_trains(self):
        if shutil.which("spm_train") is None:
            self.skipTest("spm_train is absent")
        version = subprocess.run(["spm_train", "--version"], capture_output=True, text=True, check=False)
        if "0.1.97" not in version.stdout + version.stderr:
            self.skipTest("another release of spm_train may choose other pieces")
        subprocess.run(["sh", os.path.join(WEIGHTS, "train_tokenizer.sh"), self.path("spm.model")],
                       check=True)
        self.assertEqual(content(self.path("spm.model")), content(SPM))

    def test_another_seed_gives_other_weights_of_the_same_shape(self):
        one = read_tensors(os.path.join(self.generate("--seed", "1", out="one"), "model.safetensors"))
        two = read_tensors(os.path.join(self.generate("--seed", "2", out="two"), "model.safetensors"))
        self.assertEqual({k: v[1].shape for k, v in one.items()}, {k: v[1].shape for k, v in two.items()})
        for name in one:
            if not re.fullmatch(r"single_heads\.\d+\.1\.bias", name):  # these are the odds of best-of-n
                self.assertFalse(np.array_equal(one[name][1], two[name][1]), name)

    def test_a_tensor_does_not_depend_on_the_others(self):
        one = read_tensors(os.path.join(self.generate("--layers", "1", out="one"), "model.safetensors"))
        two = read_tensors(os.path.join(self.generate("--layers", "3", out="two"), "model.safetensors"))
        for name in one:
            self.assertTrue(np.array_equal(one[name][1], two[name][1]), name)

    def test_the_tensors_are_those_the_options_ask_for(self):
        layer = "pretrained_model.encoder.layer.0.attention.self."
        cases = (
            ((), {"pretrained_model.encoder.LayerNorm.weight": (64,),
                  "pretrained_model.encoder.rel_embeddings.weight": (64, 64), EMBEDDING: (PIECES + 2, 64)},
             {layer + "pos_key_proj.weight", layer + "pos_query_proj.weight"}),
            (("--no-share-att-key",), {layer + "pos_key_proj.weight": (64, 64),
                                       layer + "pos_query_proj.bias": (64,)}, set()),
            (("--no-share-att-key", "--pos-att-type", "c2p"), {layer + "pos_key_proj.bias": (64,)},
             {layer + "pos_query_proj.weight"}),
            (("--norm-rel-ebd", "none"), {}, {"pretrained_model.encoder.LayerNorm.weight"}),
            (("--no-relative-attention",), {}, {"pretrained_model.encoder.rel_embeddings.weight"}),
            (("--buckets", "0", "--max-relative-positions", "40"),
             {"pretrained_model.encoder.rel_embeddings.weight": (80, 64)}, set()),
            (("--buckets", "0"), {"pretrained_model.encoder.rel_embeddings.weight": (1024, 64)}, set()),
            (("--hidden", "30", "--heads", "3", "--ffn", "7", "--layers", "4", "--vocab", "2100"),
             {EMBEDDING: (2100, 30), "pretrained_model.encoder.layer.3.intermediate.dense.weight": (7, 30),
              "pretrained_model.encoder.layer.3.output.dense.weight": (30, 7)}, set()),
            (("--heads-count", "1"), {"single_heads.0.1.weight": (2, 64), "single_heads.0.1.bias": (2,)},
             {"single_heads.1.1.weight"}),
        )
        for number, (arguments, present, absent) in enumerate(cases):
            with self.subTest(arguments=arguments):
                out = self.generate(*arguments, out=str(number))
                tensors = read_tensors(os.path.join(out, "model.safetensors"))
                for name, shape in present.items():
                    self.assertEqual(tensors[name][1].shape, shape, name)
                self.assertFalse(absent & set(tensors))

    def test_the_types_are_roundings_of_the_same_values(self):
        tensors = {}
        for kind in ("f32", "f16", "bf16"):
            out = self.generate("--dtype", kind, "--layers", "1", out=kind)
            tensors[kind] = read_tensors(os.path.join(out, "model.safetensors"))
        for name, (kind, exact) in tensors["f32"].items():
            self.assertEqual(kind, "F32")
            self.assertEqual(tensors["f16"][name][0], "F16")
            self.assertEqual(tensors["bf16"][name][0], "BF16")
            np.testing.assert_allclose(tensors["f16"][name][1], exact, rtol=2**-11, atol=2**-25)
            np.testing.assert_allclose(tensors["bf16"][name][1], exact, rtol=2**-8, atol=0)

    def test_bfloat16_rounds_to_nearest_even(self):
        values = np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -1 - 2**-8], np.float32)
        bits = np.frombuffer(bundle_io.to_bytes(values, "BF16"), "<u2")
        self.assertEqual([hex(int(b)) for b in bits], ["0x3f80", "0x3f80", "0x3f82", "0x3f81", "0xbf80"])

    def test_the_weights_have_the_scale_that_was_asked_for(self):
        values = generate.normal(7, "x", (1000, 300), 0.25, mean=1.0)
        self.assertAlmostEqual(float(values.mean()), 1.0, delta=0.002)
        self.assertAlmostEqual(float(values.std()), 0.25, delta=0.002)

    def test_the_router_names_each_head_once_and_one_reference(self):
        for count in (1, 5, 15, 40):
            with self.subTest(count=count):
                router = load_json(self.generate("--heads-count", str(count), out=str(count)), "router.json")
                heads = [c["head"] for c in router["candidates"] if "head" in c]
                self.assertEqual(heads, list(range(count)))
                self.assertEqual([c.get("reference", False) for c in router["candidates"]].count(True), 1)
                pairs = {(c["model"], c["n"]) for c in router["candidates"]}
                self.assertEqual(len(pairs), count + 1)
                self.assertEqual({model for model, _ in pairs}, set(router["models"]))

    def test_options_that_make_no_bundle_are_refused(self):
        for arguments, word in (
            (("--hidden", "10", "--heads", "3"), "--heads"), (("--vocab", "2049"), "--vocab"),
            (("--layers", "0"), "--layers"), (("--heads-count", "0"), "--heads-count"),
            (("--heads-count", "256"), "--heads-count"), (("--max-tokens", "2"), "--max-tokens"),
            (("--max-tokens", "2049"), "--max-tokens"), (("--pos-att-type", "c2p|p2p"), "p2p"),
            (("--spm", "/nonexistent/spm.model"), "/nonexistent/spm.model"),
            (("--spm", os.path.join(TINY, "config.json")), "not a SentencePiece model"),
        ):
            with self.subTest(arguments=arguments):
                status, text = run_quietly(generate.main, ["--out", self.path("x"), *arguments])
                self.assertEqual(status, 1)
                self.assertIn(word, text)

    def test_the_service_accepts_what_is_generated(self):
        service = os.environ.get("BESTROUTED", "")
        if not os.access(service, os.X_OK):
            self.skipTest("BESTROUTED names no program")
        for number, arguments in enumerate((("--preset", "tiny"), ("--dtype", "bf16", "--no-share-att-key"),
                                            ("--dtype", "f16", "--no-relative-attention",
                                             "--pos-att-type", ""))):
            out = self.generate(*arguments, out=str(number))
            done = subprocess.run([service, "--bundle", out, "--check"], capture_output=True, text=True,
                                  check=False)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


BEST_ROUTE = import_checkpoint.KINDS["best_route"]


class Candidates(unittest.TestCase):
    def test_routers_over_models_need_no_number(self):
        zooter = import_checkpoint.KINDS["zooter"]
        self.assertEqual(import_checkpoint.parse_candidates("a, b_bo1,c", zooter),
                         [("a", 1), ("b", 1), ("c", 1)])
        with self.assertRaisesRegex(BundleError, "--candidates"):
            import_checkpoint.parse_candidates("a,,c", zooter)

    def test_a_pair_is_two(self):
        with self.assertRaisesRegex(BundleError, "--candidates: found 3"):
            import_checkpoint.parse_candidates("a_bo1,a_bo2,b_bo1", import_checkpoint.KINDS["hybrid_llm"])

    def test_the_trainers_string_is_read(self):
        text = ("llama-31-8b_ourRM_bo1, llama-31-8b_ourRM_bo5,phi_3_mini_armoRM_bo2,mistral-7b_bo3,"
                "gpt-4o_ourRM_bo1")
        self.assertEqual(import_checkpoint.parse_candidates(text, BEST_ROUTE),
                         [("llama-31-8b", 1), ("llama-31-8b", 5), ("phi_3_mini", 2), ("mistral-7b", 3),
                          ("gpt-4o", 1)])

    def test_other_strings_are_refused(self):
        for text in ("", "gpt-4o_ourRM_bo1", "a_bo1,b", "a_bo0,b_bo1", "a_bo1,b_bo", "a_bo1,a_ourRM_bo1",
                     "a_bo1,,b_bo1", "_bo1,b_bo1", "a_bo1001,b_bo1", "a_bo-1,b_bo1"):
            with self.subTest(text=text), self.assertRaisesRegex(BundleError, "--candidates"):
                import_checkpoint.parse_candidates(text, BEST_ROUTE)


CONFIG = {"hidden_size": 4, "num_hidden_layers": 1, "vocab_size": 128100, "extra": "kept"}
STRING = "llama-31-8b_ourRM_bo1,llama-31-8b_ourRM_bo2,gpt-4o_ourRM_bo1"


class Importing(Folder):
    def setUp(self):
        super().setUp()
        self.checkpoint = self.path("checkpoint-best")
        os.mkdir(self.checkpoint)
        shutil.copyfile(os.path.join(DATA, "tiny_checkpoint.bin"),
                        self.path("checkpoint-best", "pytorch_model.bin"))
        bundle_io.write_json(self.path("config.json"), CONFIG)

    def run_importer(self, *more, candidates=STRING, out="bundle"):
        return run_quietly(import_checkpoint.main, [
            "--checkpoint", self.checkpoint, "--out", self.path(out), "--candidates", candidates,
            "--prices", os.path.join(WEIGHTS, "prices.json"), *more])

    def accept(self, *more, **options):
        status, text = self.run_importer(*more, **options)
        self.assertEqual(status, 0, text)
        return text

    def files(self):
        return ("--config", self.path("config.json"), "--spm", SPM)

    def refuse(self, words, *more, **options):
        status, text = self.run_importer(*more, **options)
        self.assertEqual(status, 1)
        for word in words:
            self.assertIn(word, text)

    def test_a_pickled_checkpoint_becomes_a_bundle(self):
        text = self.accept(*self.files())
        self.assertIn("vocab_size 128100 becomes 2050", text)
        bundle = self.path("bundle")
        self.assertEqual(sorted(os.listdir(bundle)), sorted(FILES))
        self.assertEqual(load_json(bundle, "config.json"), {**CONFIG, "vocab_size": 2050})
        self.assertEqual(load_json(bundle, "added_tokens.json"), {"[MASK]": 2048, "<|source|>": 2049})
        self.assertEqual(content(bundle, "spm.model"), content(SPM))
        router = load_json(bundle, "router.json")
        self.assertEqual(router["candidates"], [
            {"model": "llama-31-8b", "n": 1, "head": 0}, {"model": "llama-31-8b", "n": 2, "head": 1},
            {"model": "gpt-4o", "n": 1, "reference": True}])
        self.assertEqual(router["models"]["gpt-4o"],
                         {"input_price": 5e-6, "output_price": 1.5e-5, "avg_output_tokens": 294.0})
        self.assertEqual(router["max_tokens"], 128)

    def test_every_value_of_a_pickled_checkpoint_arrives(self):
        self.accept(*self.files())
        tensors = read_tensors(self.path("bundle", "model.safetensors"))
        layer = "pretrained_model.encoder.layer.0."
        counting = lambda *shape: (np.arange(np.prod(shape)) % 32).reshape(shape)
        expected = {
            EMBEDDING: ("F16", counting(2050, 4)),
            "pretrained_model.embeddings.LayerNorm.weight": ("BF16", counting(4)),
            "pretrained_model.embeddings.LayerNorm.bias": ("F32", counting(4)),
            "pretrained_model.encoder.rel_embeddings.weight": ("F32", counting(8, 4)),
            layer + "attention.self.query_proj.weight": ("F32", counting(8, 4)[:4]),
            layer + "attention.self.key_proj.weight": ("F32", counting(8, 4)[4:]),
            layer + "intermediate.dense.weight": ("F32", counting(4, 8).T),
            "single_heads.0.1.weight": ("F32", counting(2, 4)), "single_heads.0.1.bias": ("F32", counting(2)),
            "single_heads.1.1.weight": ("F32", counting(2, 4)), "single_heads.1.1.bias": ("F32", counting(2)),
        }
        self.assertEqual(set(tensors), set(expected))  # position_ids are no weights
        for name, (kind, values) in expected.items():
            self.assertEqual(tensors[name][0], kind, name)
            np.testing.assert_array_equal(tensors[name][1], values, name)

    def test_a_safetensors_checkpoint_is_copied_and_wins(self):
        self.accept(*self.files())
        saved = content(self.path("bundle", "model.safetensors"))
        os.rename(self.path("bundle", "model.safetensors"), self.path("checkpoint-best", "model.safetensors"))
        with open(self.path("checkpoint-best", "pytorch_model.bin"), "wb") as file:
            file.write(b"not read")
        self.accept(*self.files(), out="second")
        self.assertEqual(content(self.path("second", "model.safetensors")), saved)

    def test_the_checkpoints_own_folder_may_become_the_bundle(self):
        shutil.copyfile(SPM, self.path("checkpoint-best", "spm.model"))
        shutil.copyfile(self.path("config.json"), self.path("checkpoint-best", "config.json"))
        self.accept(out="checkpoint-best")
        first = {name: content(self.checkpoint, name) for name in FILES}
        self.accept(out="checkpoint-best")
        self.assertEqual(first, {name: content(self.checkpoint, name) for name in FILES})

    def test_the_prefixs_id_comes_from_the_saved_tokenizer(self):
        cases = (
            ("added_tokens.json", {"[MASK]": 2049, "<|source|>": 2048}),
            ("tokenizer.json",
             {"added_tokens": [{"id": 0, "content": "[PAD]"}, {"id": 2049, "content": "[MASK]"},
                                                 {"id": 2048, "content": "<|source|>"}]}),
            ("tokenizer_config.json", {"added_tokens_decoder": {"1": {"content": "[CLS]"},
                                                                "2048": {"content": "<|source|>"},
                                                                "2049": {"content": "[MASK]"}}}),
        )
        for name, value in cases:
            with self.subTest(name=name):
                bundle_io.write_json(self.path("checkpoint-best", name), value)
                self.accept(*self.files(), out=name)
                self.assertEqual(load_json(self.path(name), "added_tokens.json"),
                                 {"[MASK]": 2049, "<|source|>": 2048})
                os.remove(self.path("checkpoint-best", name))

    def test_what_does_not_fit_is_refused_with_the_way_out(self):
        self.refuse(["config.json", "--config"], "--spm", SPM)
        self.refuse(["spm.model", "--spm"], "--config", self.path("config.json"))
        self.refuse(["no such file"], "--config", self.path("missing.json"), "--spm", SPM)
        self.refuse(["found 2 single_heads", "expected 1"], *self.files(),
                    candidates="llama-31-8b_bo1,gpt-4o_bo1")
        self.refuse(["prices.json", "'unheard-of'"], *self.files(),
                    candidates="unheard-of_bo1,llama-31-8b_bo1,gpt-4o_bo1")
        self.refuse(["--max-tokens"], *self.files(), "--max-tokens", "2")
        self.refuse(["--threshold"], *self.files(), "--threshold", "1.5")
        for key, value in (("hidden_size", 8), ("num_hidden_layers", 2)):
            bundle_io.write_json(self.path("config.json"), {**CONFIG, key: value})
            self.refuse([key, f"found {value}", "--config"], *self.files())
        os.remove(self.path("checkpoint-best", "pytorch_model.bin"))
        self.refuse(["neither model.safetensors nor pytorch_model.bin"], *self.files())

    def test_a_prefix_beyond_the_embedding_is_refused(self):
        bundle_io.write_json(self.path("checkpoint-best", "added_tokens.json"),
                             {"<|source|>": 2050, "[MASK]": 2048})
        self.refuse(["found 2050 rows", "<|source|>"], *self.files())

    def test_a_checkpoint_torch_writes_now_is_read(self):
        try:
            import torch
        except ImportError:
            self.skipTest("torch is absent; tests/data/tiny_checkpoint.bin stands for what it wrote")
        torch.save({"a": torch.arange(6.0).reshape(2, 3).t(), "b": torch.ones(0, 4), "c": torch.tensor(2.5)},
                   self.path("new.bin"))
        tensors = torch_pickle.read(self.path("new.bin"))
        np.testing.assert_array_equal(tensors["a"].array(), [[0, 3], [1, 4], [2, 5]])
        self.assertEqual(tensors["b"].array().shape, (0, 4))
        self.assertEqual(float(tensors["c"].array()), 2.5)


class OtherRouters(Folder):
    """Checkpoints in the layouts of other authors,
    made of the tiny bundle's encoder and a classifier of their own."""

    MODELS = ("llama-31-8b", "mistral-7b", "gpt-4o")
    # kind -> prefix, classifier, rows of it for three models, pooler, more arguments
    KINDS = {
        "hybrid_llm": ("pretrained_model.", "head_layer.1", 2, None, ()),
        "n_label": ("pretrained_model.", "head_layer.1", 3, None, ()),
        "n_class": ("pretrained_model.", "head_layer.1", 3, None, ()),
        "zooter": ("deberta.", "classifier", 3, "gelu", ("--truncate", "left")),
        "router_dc": ("backbone.", "embeddings", 3, None, ("--temperature", "0.5")),
        "route_llm_bert": ("deberta.", "classifier", 3, "gelu", ()),
    }

    def make(self, kind, rows=None, drop=None):
        """Writes the checkpoint and returns the arguments that import it."""
        prefix, classifier, own_rows, pooler, more = self.KINDS[kind]
        rows = rows or own_rows
        tensors = {prefix + name[len("pretrained_model."):]: values
                   for name, (_, values) in read_tensors(os.path.join(TINY, "model.safetensors")).items()
                   if name.startswith("pretrained_model.")}
        random = np.random.default_rng(7)
        tensors[f"{classifier}.weight"] = random.normal(size=(rows, 64))
        if classifier != "embeddings":
            tensors[f"{classifier}.bias"] = random.normal(size=rows)
        if pooler:
            tensors["pooler.dense.weight"] = random.normal(size=(64, 64)) / 8
            tensors["pooler.dense.bias"] = random.normal(size=64)
            more = ("--pooler", pooler, *more)
        tensors.pop(drop, None)
        folder = self.path(f"checkpoint-{kind}")
        os.makedirs(folder, exist_ok=True)
        for name in ("config.json", "spm.model"):
            shutil.copyfile(os.path.join(TINY, name), os.path.join(folder, name))
        bundle_io.write_safetensors(os.path.join(folder, "model.safetensors"), [
            (name, "F32", values.shape, lambda values=values: [bundle_io.to_bytes(values, "F32")])
            for name, values in tensors.items()])
        pair = kind in ("hybrid_llm", "route_llm_bert")
        models = self.MODELS[::2] if pair else self.MODELS
        bundle_io.write_json(self.path("prices.json"), {model: {} for model in self.MODELS})
        return ("--checkpoint", folder, "--out", self.path(kind), "--heads", kind,
                "--prices", self.path("prices.json"),
                "--candidates", ",".join(f"{model}_bo1" for model in models), *more)

    def test_every_layout_becomes_a_bundle_that_the_service_accepts(self):
        service = os.environ.get("BESTROUTED")
        for kind in self.KINDS:
            with self.subTest(kind=kind):
                status, text = run_quietly(import_checkpoint.main, self.make(kind))
                self.assertEqual(status, 0, text)
                router = load_json(self.path(kind), "router.json")
                first = kind in ("zooter", "router_dc", "route_llm_bert")
                scored = kind in ("n_class", "zooter", "router_dc")
                self.assertEqual(router["heads"], kind)
                self.assertEqual(router["pool"], "first" if first else "source_prefix")
                self.assertEqual(os.path.exists(self.path(kind, "added_tokens.json")), not first)
                self.assertEqual(router["policy"]["kind"], "tolerance" if scored else "threshold")
                last = len(router["candidates"]) - 1
                self.assertEqual(router["candidates"][last].get("head"), last if scored else None)
                if service is None:
                    continue
                done = subprocess.run([service, "--bundle", self.path(kind), "--check"], capture_output=True,
                                      text=True, check=False)
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def make_bert(self, distil):
        """A whole checkpoint of BERT's or DistilBERT's ...ForSequenceClassification, random and small."""
        width, ffn = 8, 16
        vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz?.,", "what",
                 "##s"]
        prefix = "distilbert." if distil else "bert."
        shapes = {"embeddings.word_embeddings.weight": (len(vocab), width),
                  "embeddings.position_embeddings.weight": (32, width)}
        layer = "transformer.layer.0." if distil else "encoder.layer.0."
        if distil:
            attention = ("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin")
        else:
            attention = ("attention.self.query", "attention.self.key", "attention.self.value",
                         "attention.output.dense")
        modules = {layer + name: (width, width) for name in attention}
        modules[layer + ("ffn.lin1" if distil else "intermediate.dense")] = (ffn, width)
        modules[layer + ("ffn.lin2" if distil else "output.dense")] = (width, ffn)
        norms = ["embeddings.LayerNorm",
                 layer + ("sa_layer_norm" if distil else "attention.output.LayerNorm"),
                 layer + ("output_layer_norm" if distil else "output.LayerNorm")]
        if not distil:
            shapes["embeddings.token_type_embeddings.weight"] = (2, width)
            modules["pooler.dense"] = (width, width)
        for name, shape in modules.items():
            shapes[f"{name}.weight"], shapes[f"{name}.bias"] = shape, shape[:1]
        for name in norms:
            shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (width,)
        shapes = {prefix + name: shape for name, shape in shapes.items()}
        shapes.update({"classifier.weight": (3, width), "classifier.bias": (3,)})
        if distil:
            shapes.update({"pre_classifier.weight": (width, width), "pre_classifier.bias": (width,)})
        random = np.random.default_rng(3)
        folder = self.path("distilbert" if distil else "bert")
        os.makedirs(folder)
        bundle_io.write_safetensors(os.path.join(folder, "model.safetensors"), [
            (name, "F32", shape, lambda values=random.normal(size=shape): [bundle_io.to_bytes(values, "F32")])
            for name, shape in shapes.items()])
        with open(os.path.join(folder, "vocab.txt"), "w", encoding="utf-8") as file:
            file.write("\n".join(vocab) + "\n")
        if distil:
            config = {"model_type": "distilbert", "dim": width, "n_layers": 1, "n_heads": 2,
                      "hidden_dim": ffn}
        else:
            config = {"model_type": "bert", "hidden_size": width, "num_hidden_layers": 1,
                      "num_attention_heads": 2, "intermediate_size": ffn, "type_vocab_size": 2}
        bundle_io.write_json(os.path.join(folder, "config.json"), {**config, "vocab_size": len(vocab),
                                                                   "max_position_embeddings": 32})
        bundle_io.write_json(os.path.join(folder, "tokenizer_config.json"), {"do_lower_case": not distil})
        bundle_io.write_json(self.path("prices.json"), {model: {} for model in self.MODELS})
        return ("--checkpoint", folder, "--prices", self.path("prices.json"), "--max-tokens", "32",
                "--out", folder + "-bundle")

    def test_bert_and_distilbert_become_bundles_that_the_service_accepts(self):
        service = os.environ.get("BESTROUTED")
        for distil, more in ((False, ("--heads", "route_llm_bert", "--pooler", "tanh",
                                      "--candidates", "mistral-7b,gpt-4o")),
                             (True, ("--heads", "zooter", "--pooler", "relu",
                                     "--candidates", ",".join(self.MODELS)))):
            with self.subTest(distil=distil):
                arguments = self.make_bert(distil)
                out = arguments[-1]
                status, text = run_quietly(import_checkpoint.main, (*arguments, *more))
                self.assertEqual(status, 0, text)
                self.assertEqual(sorted(os.listdir(out)),
                                 ["config.json", "model.safetensors", "router.json", "vocab.txt"])
                self.assertEqual(load_json(out, "router.json").get("lowercase"), False if distil else None)
                if service is None:
                    continue
                done = subprocess.run([service, "--bundle", out, "--engine", "cpu", "--check"],
                                      capture_output=True, text=True, check=False)
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_bert_cannot_pool_a_prefix_it_has_not(self):
        status, text = run_quietly(import_checkpoint.main, (*self.make_bert(False), "--heads", "best_route",
                                                            "--candidates", "a_bo1,gpt-4o_bo1"))
        self.assertEqual(status, 1)
        status, text = run_quietly(import_checkpoint.main, (
            *self.make_bert(True), "--heads", "zooter", "--pooler", "tanh",
            "--candidates", "mistral-7b,gpt-4o"))
        self.assertEqual(status, 1)
        self.assertIn("classifier.weight", text)

    def test_what_a_kind_lacks_is_named(self):
        cases = (
            ("n_label", {"rows": 4}, ("head_layer.1.weight", "[4, 64]", "expected [3, 64]", "n_label")),
            ("router_dc", {"drop": "embeddings.weight"}, ("has no tensor embeddings.weight", "[3, 64]")),
            ("zooter", {"drop": "pooler.dense.bias"}, ("has no tensor pooler.dense.bias",)),
            ("route_llm_bert", {"rows": 2}, ("classifier.weight", "[2, 64]", "expected [3, 64]")),
            ("zooter", {"drop": "deberta.embeddings.word_embeddings.weight"},
             ("has no tensor", "'deberta.'")),
        )
        for kind, changes, words in cases:
            with self.subTest(kind=kind, changes=changes):
                status, text = run_quietly(import_checkpoint.main, self.make(kind, **changes))
                self.assertEqual(status, 1)
                for word in words:
                    self.assertIn(word, text)
        status, text = run_quietly(import_checkpoint.main, (*self.make("zooter"), "--temperature", "1"))
        self.assertEqual(status, 1)
        self.assertIn("--temperature", text)

    def test_a_file_of_weights_may_have_its_own_name(self):
        arguments = self.make("router_dc")
        folder = self.path("checkpoint-router_dc")
        os.rename(os.path.join(folder, "model.safetensors"), os.path.join(folder, "best.safetensors"))
        status, text = run_quietly(import_checkpoint.main,
                                   (*arguments, "--weights", os.path.join(folder, "best.safetensors")))
        self.assertEqual(status, 0, text)
        status, text = run_quietly(import_checkpoint.main,
                                   (*arguments, "--weights", os.path.join(folder, "best_model.pth")))
        self.assertEqual(status, 1)
        self.assertIn("best_model.pth: no such file", text)


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


class HostilePickles(Folder):
    """A pytorch_model.bin is somebody else's program until the unpickler has refused to run it."""

    def refuse(self, words, data=None, files=None, compression=zipfile.ZIP_STORED):
        path = self.path("hostile.bin")
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name, value in (files or {"x/data.pkl": data}).items():
                archive.writestr(name, value)
        with self.assertRaises(BundleError) as caught:
            for tensor in torch_pickle.read(path).values():
                tensor.array()
        for word in words:
            self.assertIn(word, str(caught.exception))

    def test_a_call_of_anything_else_is_refused_and_not_made(self):
        target = self.path("ran")
        self.refuse(["posix.mkdir"], pickle.dumps(Call(os.mkdir, target)))
        self.refuse(["builtins.eval"], pickle.dumps(Call(eval, "1")))
        self.refuse(["builtins.getattr"], pickle.dumps(Call(getattr, 1, "real")))
        self.assertFalse(os.path.exists(target))

    def tensor(self, offset=b"K\0", shape=b"K\2K\2\x86", stride=b"K\2K\1\x86", count=b"K\4",
               key=b"X\1\0\0\x000", after=b""):
        """A dictionary of one tensor, written opcode by opcode."""
        storage = b"(X\7\0\0\0storagectorch\nFloatStorage\n" + key + b"X\3\0\0\0cpu" + count + b"tQ"
        call = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + offset + shape + stride + b"\x89NtR"
        return b"\x80\2}X\1\0\0\0a" + call + after + b"s."

    def archive(self, pickled, size=16):
        return {"x/data.pkl": pickled, "x/data/0": bytes(size)}

    def test_a_wellformed_tensor_by_hand_is_accepted(self):
        path = self.path("good.bin")
        with zipfile.ZipFile(path, "w") as archive:
            for name, value in self.archive(self.tensor()).items():
                archive.writestr(name, value)
        self.assertEqual(torch_pickle.read(path)["a"].array().shape, (2, 2))

    def test_tensors_outside_their_storage_are_refused(self):
        for name, pickled in {
            "offset": self.tensor(offset=b"K\1"),
            "shape": self.tensor(shape=b"K\3K\2\x86"),
            "stride": self.tensor(stride=b"K\3K\1\x86"),
            "negative stride": self.tensor(stride=b"J\xff\xff\xff\xffK\1\x86"),
            "negative offset": self.tensor(offset=b"J\xff\xff\xff\xff"),
            "negative size": self.tensor(shape=b"J\xff\xff\xff\xffK\1\x86"),
            "ranks differ": self.tensor(stride=b"K\1\x85"),
            "unfolding stride": self.tensor(shape=b"K\x64K\x64\x86", stride=b"K\0K\0\x86"),
            "shape is no tuple": self.tensor(shape=b"K\2"),
            "key is a path": self.tensor(key=b"X\4\0\0\0../0"),
            "changed afterwards": self.tensor(after=b"}X\6\0\0\0offsetK\x63sb"),
        }.items():
            with self.subTest(name=name):
                self.refuse(["data.pkl"], files=self.archive(pickled))

    def test_storages_that_are_not_there_whole_are_refused(self):
        self.refuse(["has no entry x/data/0"], self.tensor())
        self.refuse(["data/0", "found 12 bytes"], files=self.archive(self.tensor(), size=12))
        self.refuse(["data/0", "expected at most 16"], files=self.archive(self.tensor(), size=20))
        self.refuse(["compressed"], files=self.archive(self.tensor()), compression=zipfile.ZIP_DEFLATED)

    def test_archives_of_another_kind_are_refused(self):
        self.refuse(["expected 1"], files={"x/other": b""})
        self.refuse(["expected 1"], files={"x/data.pkl": b"", "y/data.pkl": b""})
        self.refuse(["byteorder"], files={"x/data.pkl": self.tensor(), "x/byteorder": b"big"})
        self.refuse(["expected a dictionary"], pickle.dumps([1]))
        self.refuse(["expected a tensor"], pickle.dumps({"a": 1}))
        self.refuse(["not a state dictionary"], b"garbage")
        self.refuse(["not a state dictionary"], b"")
        with open(self.path("old.bin"), "wb") as file:
            file.write(pickle.dumps(119547037146038801333356))
        with self.assertRaisesRegex(BundleError, "save it again"):
            torch_pickle.read(self.path("old.bin"))
        with self.assertRaisesRegex(BundleError, "No such file"):
            torch_pickle.read(self.path("missing.bin"))

    def test_a_truncated_archive_is_an_error(self):
        whole = content(DATA, "tiny_checkpoint.bin")
        for size in (0, 1, 100, 1000, len(whole) // 2, len(whole) - 1):
            with open(self.path("short.bin"), "wb") as file:
                file.write(whole[:size])
            with self.assertRaises(BundleError):
                torch_pickle.read(self.path("short.bin"))


if __name__ == "__main__":
    unittest.main(verbosity=1)
