#!/usr/bin/env python3
"""Makes a bundle of any shape with seeded random weights.

    python3 weights/generate.py --preset tiny --out DIR      the committed weights/tiny, bit for bit
    python3 weights/generate.py --preset 44m --out DIR       the shape of deberta-v3-small
    python3 weights/generate.py --hidden 96 --layers 2 --heads 3 --ffn 160 --out DIR

The weights are random: nothing has been learned, and the qualities mean nothing. They are scaled so that
the network is alive all the same: hidden states depend on the prompt, attention is neither flat nor a
single spike, and qualities spread over (0, 1) and grow with n. The usual initialisation (normal, 0.02)
does not do that: it gives flat attention and nearly the same quality for every prompt.

Each tensor is drawn from its own stream, seeded by the seed and the tensor's name, with integer arithmetic
and exactly rounded operations only: a command gives the same bytes on every machine.

Needs Python's standard library and numpy.
"""

import argparse
import hashlib
import math
import os
import shutil
import sys

import numpy as np

import bundle_io
from bundle_io import BundleError

HERE = os.path.dirname(os.path.abspath(__file__))
TYPES = {"f32": "F32", "f16": "F16", "bf16": "BF16"}
POSITIONS_DEFAULT = 512  # max_position_embeddings

# What a preset sets; options on the command line win.
PRESETS = {
    "tiny": {
        "name": "tiny-random", "hidden": 64, "layers": 3, "heads": 4, "ffn": 128, "buckets": 32,
        "vocab": 2064, "heads_count": 15, "max_tokens": 128, "seed": 1,
    },
    "44m": {
        "name": "random-44m", "hidden": 768, "layers": 6, "heads": 12, "ffn": 3072, "buckets": 256,
        "vocab": 128100, "heads_count": 15, "max_tokens": 512, "seed": 3,
    },
}

# The candidates' models, in order, with the odds that one sample of theirs beats the reference's.
MODELS = (
    ("llama-31-8b", 0.45), ("phi-3-mini", 0.30), ("mistral-8x7b", 0.55), ("mistral-7b", 0.35),
    ("phi-3-medium", 0.40), ("codestral-22b", 0.50), ("gpt-35-turbo", 0.60),
)
REFERENCE = "gpt-4o"
SAMPLES_MAX = 5

# Standard deviations, for layer-normalised inputs of variance 1. Tuned by measuring the result (README.md).
SCORE_DEVIATION = 2.0  # of attention scores before the softmax
MIX_GAIN = 5.0         # of what attention adds, against averaging over tokens
FFN_GAIN = 0.5
LOGIT_DEVIATION = 1.4  # of a model's quality logit over prompts
SAMPLE_DEVIATION = 0.25  # of the part that differs between the n of one model


def normal_chunks(seed, name, count, deviation, mean=0.0):
    """Yields float32 arrays, `count` values in all, nearly normal: the sum of four 16-bit uniforms."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    stream = np.random.PCG64(int.from_bytes(digest[:16], "little"))
    # The variance of a uniform integer below 2^16 is (2^32 - 1) / 12.
    scale = deviation / math.sqrt(4 * (2**32 - 1) / 12)
    middle = 4 * 65535 / 2
    while count > 0:
        size = min(count, 1 << 20)
        words = stream.random_raw(size)
        total = (words & 0xFFFF) + (words >> 16 & 0xFFFF) + (words >> 32 & 0xFFFF) + (words >> 48)
        yield ((total.astype(np.float64) - middle) * scale + mean).astype(np.float32)
        count -= size


def normal(seed, name, shape, deviation, mean=0.0):
    count = bundle_io.shape_elements(shape)
    return np.concatenate(list(normal_chunks(seed, name, count, deviation, mean))).reshape(shape)


class Weights:
    """Collects the tensors of a bundle in the order they are written."""

    def __init__(self, seed, kind):
        self.seed = seed
        self.kind = kind
        self.entries = []

    def random(self, name, shape, deviation, mean=0.0):
        def chunks():
            for part in normal_chunks(self.seed, name, bundle_io.shape_elements(shape), deviation, mean):
                yield bundle_io.to_bytes(part, self.kind)

        self.entries.append((name, self.kind, shape, chunks))

    def fixed(self, name, values):
        data = bundle_io.to_bytes(values, self.kind)
        self.entries.append((name, self.kind, np.shape(values), lambda: [data]))

    def linear(self, name, outputs, inputs, deviation):
        self.random(f"{name}.weight", (outputs, inputs), deviation)
        self.random(f"{name}.bias", (outputs,), 0.05)

    def layernorm(self, name, width):
        self.random(f"{name}.weight", (width,), 0.1, mean=1.0)
        self.random(f"{name}.bias", (width,), 0.1)


def add_layer(weights, options, index):
    width, ffn = options.hidden, options.ffn
    stem = f"pretrained_model.encoder.layer.{index}"
    terms = options.pos_att_type.split("|")
    # q . k over D entries, divided by sqrt(D * terms), has deviation d^2 * C per term; the terms add up.
    score = math.sqrt(SCORE_DEVIATION / width)
    weights.linear(f"{stem}.attention.self.query_proj", width, width, score)
    weights.linear(f"{stem}.attention.self.key_proj", width, width, score)
    weights.linear(f"{stem}.attention.self.value_proj", width, width, math.sqrt(MIX_GAIN / width))
    if options.relative_attention and not options.share_att_key:
        if "c2p" in terms:
            weights.linear(f"{stem}.attention.self.pos_key_proj", width, width, score)
        if "p2c" in terms:
            weights.linear(f"{stem}.attention.self.pos_query_proj", width, width, score)
    weights.linear(f"{stem}.attention.output.dense", width, width, math.sqrt(MIX_GAIN / width))
    weights.layernorm(f"{stem}.attention.output.LayerNorm", width)
    weights.linear(f"{stem}.intermediate.dense", ffn, width, 1 / math.sqrt(width))
    weights.linear(f"{stem}.output.dense", width, ffn, FFN_GAIN / math.sqrt(0.35 * ffn))
    weights.layernorm(f"{stem}.output.LayerNorm", width)


def add_head(weights, options, index, candidate):
    """Head k says how likely best-of-n of its model is to win: logit = log(n * odds) + what the prompt adds.

    All n of one model share most of their direction, so that quality grows with n for nearly every prompt.
    """
    width = options.hidden
    model, n, odds = candidate
    direction = normal(options.seed, f"direction.{model}", (width,), LOGIT_DEVIATION / math.sqrt(width))
    direction = direction + normal(options.seed, f"direction.{model}.{n}", (width,),
                                   SAMPLE_DEVIATION / math.sqrt(width))
    common = normal(options.seed, f"single_heads.{index}.common", (width,), 0.02)
    offset = math.log(n * odds)
    weights.fixed(f"single_heads.{index}.1.weight",
                  np.stack([common + direction / 2, common - direction / 2]))
    weights.fixed(f"single_heads.{index}.1.bias", np.array([offset / 2, -offset / 2], dtype=np.float32))


def make_weights(options, candidates):
    width = options.hidden
    weights = Weights(options.seed, TYPES[options.dtype])
    weights.random("pretrained_model.embeddings.word_embeddings.weight", (options.vocab, width), 1.0)
    weights.layernorm("pretrained_model.embeddings.LayerNorm", width)
    if options.relative_attention:
        span = options.buckets if options.buckets > 0 else options.max_relative_positions
        if span < 1:
            span = POSITIONS_DEFAULT
        weights.random("pretrained_model.encoder.rel_embeddings.weight", (2 * span, width), 1.0)
    if options.norm_rel_ebd == "layer_norm":
        weights.layernorm("pretrained_model.encoder.LayerNorm", width)
    for index in range(options.layers):
        add_layer(weights, options, index)
    for index, candidate in enumerate(candidates):
        add_head(weights, options, index, candidate)
    return weights.entries


def choose_candidates(count):
    """`count` triples (model, n, odds): each model with n = 1..5, then from the first again with larger n."""
    chosen = []
    first = 1
    while len(chosen) < count:
        for model, odds in MODELS:
            chosen += [(model, n, odds) for n in range(first, first + SAMPLES_MAX)]
        first += SAMPLES_MAX
    return chosen[:count]


def make_router(options, candidates):
    prices = bundle_io.read_json(os.path.join(HERE, "prices.json"))["models"]
    names = list(dict.fromkeys(model for model, _, _ in candidates)) + [REFERENCE]
    return {
        "format": "bestroute-bundle/1",
        "name": options.name,
        "max_tokens": options.max_tokens,
        "source_prefix": bundle_io.SOURCE_TOKEN,
        "pool": "source_prefix",
        "models": {name: prices[name] for name in names},
        "candidates": [{"model": model, "n": n, "head": head}
                       for head, (model, n, _) in enumerate(candidates)]
        + [{"model": REFERENCE, "n": 1, "reference": True}],
        "policy": {"kind": "threshold", "threshold": 0.5},
    }


def make_config(options):
    return {
        "model_type": "deberta-v2",
        "hidden_size": options.hidden,
        "num_hidden_layers": options.layers,
        "num_attention_heads": options.heads,
        "intermediate_size": options.ffn,
        "hidden_act": "gelu",
        "vocab_size": options.vocab,
        "max_position_embeddings": POSITIONS_DEFAULT,
        "type_vocab_size": 0,
        "layer_norm_eps": 1e-7,
        "relative_attention": options.relative_attention,
        "position_buckets": options.buckets,
        "max_relative_positions": options.max_relative_positions,
        "pos_att_type": options.pos_att_type,
        "share_att_key": options.share_att_key,
        "norm_rel_ebd": options.norm_rel_ebd,
        "position_biased_input": False,
        "pad_token_id": 0,
    }


def parse(arguments):
    parser = argparse.ArgumentParser(description="Makes a bundle with seeded random weights.")
    flag = argparse.BooleanOptionalAction
    parser.add_argument("--out", required=True, help="folder to write; created where it is missing")
    parser.add_argument("--preset", choices=sorted(PRESETS), help="a known shape; other options change it")
    parser.add_argument("--name", default="random", help="the bundle's name")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--hidden", type=int, default=64, help="hidden_size")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--heads", type=int, default=4, help="attention heads")
    parser.add_argument("--ffn", type=int, default=128, help="intermediate_size")
    parser.add_argument("--vocab", type=int,
                        help="rows of the embedding; default: pieces and two added tokens")
    parser.add_argument("--buckets", type=int, default=32, help="position_buckets; 0 or less: no buckets")
    parser.add_argument("--max-relative-positions", type=int, default=-1)
    parser.add_argument("--relative-attention", action=flag, default=True)
    parser.add_argument("--share-att-key", action=flag, default=True)
    parser.add_argument("--pos-att-type", default="p2c|c2p", help="c2p, p2c, both joined by '|', or empty")
    parser.add_argument("--norm-rel-ebd", choices=("layer_norm", "none"), default="layer_norm")
    parser.add_argument("--dtype", choices=sorted(TYPES), default="f32")
    parser.add_argument("--heads-count", type=int, default=15, help="candidates besides the reference")
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--spm", default=os.path.join(HERE, "tiny", "spm.model"), help="the tokenizer's file")
    preset = parser.parse_known_args(arguments)[0].preset
    parser.set_defaults(**PRESETS.get(preset, {}))
    return parser.parse_args(arguments)


def check(options, pieces):
    """Refuses what the service would refuse; fills in the vocabulary."""
    if options.vocab is None:
        options.vocab = pieces + 2
    if options.vocab < pieces + 2:
        raise BundleError(f"--vocab: found {options.vocab}, expected at least {pieces + 2}: "
                          f"{pieces} pieces, {bundle_io.MASK_TOKEN} and {bundle_io.SOURCE_TOKEN}")
    for key in ("hidden", "layers", "heads", "ffn"):
        if getattr(options, key) < 1:
            raise BundleError(f"--{key}: found {getattr(options, key)}, expected at least 1")
    if options.hidden % options.heads != 0:
        raise BundleError(f"--heads: found {options.heads}, expected a divisor of --hidden {options.hidden}")
    if not 1 <= options.heads_count <= 255:
        raise BundleError(f"--heads-count: found {options.heads_count}, expected 1..255")
    if not 3 <= options.max_tokens <= 2048:
        raise BundleError(f"--max-tokens: found {options.max_tokens}, expected 3..2048")
    options.pos_att_type = "|".join(word.strip() for word in options.pos_att_type.split("|"))
    for word in options.pos_att_type.split("|"):
        if word not in ("c2p", "p2c", ""):
            raise BundleError(f"--pos-att-type: found {word!r}, expected c2p or p2c")


def main(arguments):
    options = parse(arguments)
    try:
        pieces = bundle_io.spm_piece_count(options.spm)
        check(options, pieces)
        os.makedirs(options.out, exist_ok=True)
        candidates = choose_candidates(options.heads_count)
        target = os.path.join(options.out, "spm.model")
        if os.path.realpath(target) != os.path.realpath(options.spm):
            shutil.copyfile(options.spm, target)
        bundle_io.write_safetensors(os.path.join(options.out, "model.safetensors"),
                                    make_weights(options, candidates))
        bundle_io.write_json(os.path.join(options.out, "config.json"), make_config(options))
        bundle_io.write_json(os.path.join(options.out, "added_tokens.json"),
                             {bundle_io.MASK_TOKEN: pieces, bundle_io.SOURCE_TOKEN: pieces + 1})
        bundle_io.write_json(os.path.join(options.out, "router.json"), make_router(options, candidates))
    except (BundleError, OSError) as error:
        print(f"generate.py: {error}", file=sys.stderr)
        return 1
    print(f"{options.out}: {options.layers} layers of {options.hidden}, {options.heads_count} heads, "
          f"vocabulary {options.vocab}, random weights (seed {options.seed})")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
