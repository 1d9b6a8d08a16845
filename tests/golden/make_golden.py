#!/usr/bin/env python3
"""Makes the golden vectors: Hugging Face's encoders on small odd configurations, and heads of every kind.

    python3 tests/golden/make_golden.py [CASE...]          needs torch, transformers and safetensors

Each case becomes two files beside this script:

    <case>.json          its config.json, with a key "golden" for the test (storage type, heads, lengths), in
                         which "router" has the keys of router.json that declare other heads than BEST-Route's
    <case>.safetensors   what the model answers: for each length the last hidden states of some rows
                         (hidden.<length>) and the quality of every head (quality.<length>)

Weights and ids are not stored. They come from a counter-based generator that golden_case.c
repeats: element i of a tensor is offset + scale * n / 2^bits, with n from a hash of (case, tensor, i).
Scales are powers of two chosen so that attention is far from uniform. Values stored as float16 or
bfloat16 have 6 bits, which makes them exact in either type.
"""

import json
import pathlib
import sys

import numpy as np
import torch
from safetensors.numpy import save
from transformers import (BertConfig, BertModel, DebertaV2Config, DebertaV2Model, DistilBertConfig,
                          DistilBertModel)

FOLDER = pathlib.Path(__file__).parent
POOL_INDEX = 1
ROWS_WHOLE = 33  # sequences up to this length are stored whole, longer ones by a selection of rows
ROWS_SELECTED = 12

SHORT = [3, 4, 7, 16, 17, 31, 33, 64, 65, 129]
LONG = [3, 4, 5, 7, 15, 16, 17, 31, 33, 63, 64, 65, 127, 128, 129, 130, 255, 256, 257, 511, 512]

BASE = {
    "model_type": "deberta-v2",
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 100,
    "vocab_size": 131,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-7,
    "max_position_embeddings": 512,
    "relative_attention": True,
    "position_buckets": 256,
    "max_relative_positions": -1,
    "pos_att_type": "p2c|c2p",
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "position_biased_input": False,
    "type_vocab_size": 0,
    "pad_token_id": 0,
}

FEW = [2, 3, 17, 33, 64, 65]

BERT = {
    "model_type": "bert",
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 100,
    "vocab_size": 131,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 66,
    "type_vocab_size": 2,
    "pad_token_id": 0,
}
DISTILBERT = {
    "model_type": "distilbert",
    "dim": 48,
    "n_layers": 2,
    "n_heads": 3,
    "hidden_dim": 100,
    "vocab_size": 131,
    "activation": "gelu",
    "max_position_embeddings": 66,
    "pad_token_id": 0,
}
SMALL = {"hidden_size": 48, "num_hidden_layers": 1, "intermediate_size": 51}


def headed(kind, heads, **router):
    return {"heads": heads, "lengths": FEW if router.get("pool") == "first" else FEW[1:],
            "router": {"heads": kind, **router}}


# case -> what differs from BASE, and the test's own keys
CASES = {
    "log_buckets": ({}, {"lengths": LONG, "all_rows": True}),
    "one_layer": ({"num_hidden_layers": 1, "hidden_size": 64, "num_attention_heads": 2}, {}),
    "own_projections": ({"share_att_key": False, "pos_att_type": ["c2p", "p2c"]},
                        {"lengths": [*SHORT, 257, 512]}),
    "c2p_alone": ({"pos_att_type": ["c2p"], "position_buckets": 16, "max_relative_positions": 64}, {}),
    "p2c_alone": ({"pos_att_type": "p2c", "position_buckets": 8, "share_att_key": False}, {}),
    "no_terms": ({"pos_att_type": [], "vocab_size": 97}, {}),
    "content_alone": ({"relative_attention": False, "pos_att_type": ["c2p", "p2c"]}, {}),
    "raw_positions": ({"norm_rel_ebd": "none", "position_buckets": 16}, {"lengths": [*SHORT, 300]}),
    "no_buckets": ({"position_buckets": -1, "max_relative_positions": -1}, {}),
    "short_reach": ({"position_buckets": -1, "max_relative_positions": 32, "share_att_key": False}, {}),
    "narrow_buckets": ({"position_buckets": 8, "max_relative_positions": 24}, {}),
    "odd_buckets": ({"position_buckets": 33, "max_relative_positions": 100}, {}),
    "odd_width": ({"hidden_size": 45, "num_hidden_layers": 2, "intermediate_size": 51}, {}),
    "heads_of_64": (
        {"hidden_size": 128, "num_attention_heads": 2, "intermediate_size": 257, "layer_norm_eps": 1e-5},
        {"lengths": [3, 16, 33, 128, 300, 512]},
    ),
    "float16": ({"num_hidden_layers": 2, "intermediate_size": 51}, {"type": "F16"}),
    "bfloat16": ({"num_hidden_layers": 2, "hidden_size": 96, "num_attention_heads": 4},
                 {"type": "BF16", "heads": 1}),
    "hybrid_llm": (SMALL, headed("hybrid_llm", 1)),
    "n_label": (SMALL, headed("n_label", 4)),
    "n_class": (SMALL, headed("n_class", 5)),
    "zooter": (SMALL, headed("zooter", 6, pool="first")),
    "zooter_pooled": (SMALL, headed("zooter", 3, pool="first", pooler="gelu")),
    "router_dc": (SMALL, headed("router_dc", 7, pool="first", temperature=0.25)),
    "route_llm_bert": (SMALL, headed("route_llm_bert", 3, pool="first", pooler="tanh")),
    "bert": (BERT, headed("route_llm_bert", 3, pool="first", pooler="tanh")),
    "bert_cosine": (
        {**BERT, "hidden_size": 64, "num_attention_heads": 1, "num_hidden_layers": 1, "type_vocab_size": 1},
        headed("router_dc", 4, pool="first"),
    ),
    "distilbert": (DISTILBERT, headed("zooter", 5, pool="first", pooler="relu")),
}

FAMILIES = {
    "deberta-v2": (DebertaV2Config, DebertaV2Model),
    "bert": (BertConfig, BertModel),
    "distilbert": (DistilBertConfig, DistilBertModel),
}


def mix(state):
    """splitmix64 of uint64 counters."""
    z = state
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def hashes(name, count):
    """`count` hashes of the counter, in the stream of `name`."""
    key = 0xCBF29CE484222325  # FNV-1a
    for byte in name.encode():
        key = ((key ^ byte) * 0x100000001B3) % 2**64
    counters = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return mix(counters + np.uint64(key))


def power_of_two_below_root(n):
    """The largest 2^k with 4^k <= n, as 2^-k."""
    k = 0
    while 4 ** (k + 1) <= n:
        k += 1
    return 2.0**-k


def offset_and_scale(name, shape):
    if "LayerNorm.weight" in name or "layer_norm.weight" in name:
        return 1.0, 0.5
    if "LayerNorm.bias" in name or "layer_norm.bias" in name:
        return 0.0, 0.5
    if name.endswith(".bias"):
        return 0.0, 0.25
    if "embeddings" in name:
        return 0.0, 1.0
    inputs = shape[1]
    if any(word in name for word in ("query", "key", "q_lin", "k_lin")):
        return 0.0, power_of_two_below_root(inputs / 4)
    return 0.0, power_of_two_below_root(inputs)


def values(case, name, shape, bits):
    offset, scale = offset_and_scale(name, shape)
    count = int(np.prod(shape))
    n = (hashes(f"{case}/{name}", count) >> np.uint64(63 - bits)).astype(np.int64) - 2**bits
    return (offset + scale * (n / 2.0**bits)).astype(np.float32).reshape(shape)


def selected_rows(length, everything):
    if everything or length <= ROWS_WHOLE:
        return list(range(length))
    return [POOL_INDEX] + [i * (length - 1) // (ROWS_SELECTED - 1) for i in range(ROWS_SELECTED)]


def make_qualities(case, encoder, router, heads, row, bits):
    """The plain definition of every kind of heads, on the pooled hidden state."""

    def weight(name, *shape):
        return torch.from_numpy(values(case, name, shape, bits))

    def linear(name, outputs):
        return torch.nn.functional.linear(row, weight(f"{name}.weight", outputs, len(row)),
                                          weight(f"{name}.bias", outputs))

    if "pooler" in router:
        name = {"bert": "pretrained_model.pooler.dense",
                "distilbert": "pre_classifier"}.get(encoder, "pooler.dense")
        row = getattr(torch.nn.functional, router["pooler"])(linear(name, len(row)))
    kind = router.get("heads", "best_route")
    if kind == "best_route":
        return torch.stack([torch.softmax(linear(f"single_heads.{k}.1", 2), dim=-1)[0] for k in range(heads)])
    if kind == "hybrid_llm":
        return torch.softmax(linear("head_layer.1", 2), dim=-1)[:1]
    if kind == "n_label":
        return torch.sigmoid(linear("head_layer.1", heads + 1))[:heads]
    if kind == "n_class":
        return torch.softmax(linear("head_layer.1", heads), dim=-1)
    if kind == "zooter":
        return torch.softmax(linear("classifier", heads), dim=-1)
    if kind == "route_llm_bert":
        return 1 - torch.softmax(linear("classifier", 3), dim=-1)
    cosines = torch.nn.functional.cosine_similarity(weight("embeddings.weight", heads, len(row)), row[None],
                                                    dim=-1)
    return torch.softmax(cosines / router.get("temperature", 1), dim=-1)


def make_case(case, changes, golden):
    torch.set_num_threads(1)
    config = changes if "model_type" in changes else {**BASE, **changes}
    family = config["model_type"]
    golden = {"type": "F32", "heads": 3, "lengths": SHORT, "all_rows": False, **golden}
    bits = 23 if golden["type"] == "F32" else 6
    router = golden.get("router", {})
    pooled = 0 if router.get("pool") == "first" else POOL_INDEX

    config_class, model_class = FAMILIES[family]
    model = model_class(config_class(**config, attn_implementation="eager")).eval().float()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            shape = tuple(parameter.shape)
            parameter.copy_(torch.from_numpy(values(case, f"pretrained_model.{name}", shape, bits)))

    expected = {}
    for length in golden["lengths"]:
        ids = (hashes(f"{case}/ids.{length}", length) % np.uint64(config["vocab_size"])).astype(np.int64)
        with torch.no_grad():
            hidden = model(
                input_ids=torch.from_numpy(ids)[None], attention_mask=torch.ones(1, length, dtype=torch.long)
            ).last_hidden_state[0]
            qualities = make_qualities(case, family, router, golden["heads"], hidden[pooled], bits)
        rows = selected_rows(length, golden["all_rows"])
        expected[f"hidden.{length}"] = hidden[rows].contiguous().numpy()
        expected[f"quality.{length}"] = qualities.numpy()

    (FOLDER / f"{case}.safetensors").write_bytes(save(expected))
    with open(FOLDER / f"{case}.json", "w", encoding="utf-8") as file:
        json.dump({**config, "golden": golden}, file, indent=1)
        file.write("\n")
    norms = [float(np.linalg.norm(expected[name], axis=-1).mean()) for name in expected
             if name.startswith("hidden")]
    flat = np.concatenate([expected[name] for name in expected if name.startswith("quality")])
    print(f"{case}: mean norm {np.mean(norms):.2f}, qualities {flat.min():.3f} to {flat.max():.3f}")


def main():
    for case in sys.argv[1:] or CASES:
        make_case(case, *CASES[case])


if __name__ == "__main__":
    main()
