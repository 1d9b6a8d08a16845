#!/usr/bin/env python3
"""Makes a bundle from the folder that BEST-Route's trainer leaves behind (checkpoint-best),
or from another router's.

    python3 weights/import_checkpoint.py --checkpoint checkpoint-best --out BUNDLE \\
        --candidates "llama-31-8b_ourRM_bo1,llama-31-8b_ourRM_bo2,gpt-4o_ourRM_bo1" \\
        --prices weights/prices.json --config config.json --spm spm.model

--candidates is the string the training run was given as --candidate_model: head k belongs to its k-th entry,
and the last entry is the reference. --heads names another kind of router (docs/HEADS.md); where that scores
the reference too, the k-th entry is row k of its classifier and the last is still the reference. --config and
--spm are the encoder's own config.json and spm.model; they are needed where the trainer did not save them. A
BEST-Route run must have been trained with the loss `prob_nlabels`, the only one that trains single_heads;
`hybrid_llm`, `n_label` and `n_class` are for the others.

Needs Python's standard library and numpy; neither torch nor transformers.
"""

import argparse
import os
import re
import shutil
import sys

import bundle_io
import torch_pickle
from bundle_io import BundleError

# In the order in which the service looks for the encoder.
PREFIXES = ("pretrained_model.", "backbone.", "deberta.", "bert.", "distilbert.", "")
WORD_EMBEDDINGS = "embeddings.word_embeddings.weight"
CANDIDATE = re.compile(r"(?P<model>.+?)(?:_[A-Za-z0-9]*RM)?_bo(?P<n>[0-9]+)")


# model_type -> the keys of config.json that are checked, how a layer's tensors begin,
# the pooler beside the prefix
FAMILIES = {
    "deberta-v2": ("hidden_size", "num_hidden_layers", "encoder.layer", "pooler.dense", 1536, 24),
    "bert": ("hidden_size", "num_hidden_layers", "encoder.layer", None, 768, 12),
    "distilbert": ("dim", "n_layers", "transformer.layer", "pre_classifier", 768, 6),
}


def family_of(config):
    name = config.get("model_type", "deberta-v2")
    if name not in FAMILIES:
        raise BundleError(f"config.json: model_type: found {name!r}, expected one of {', '.join(FAMILIES)}")
    return FAMILIES[name]


class Kind:
    """What a kind of heads is in a checkpoint: its classifier and how many rows of it there are."""

    def __init__(self, classifier, rows, scored=False, pool="source_prefix", pair=False, bias=True):
        self.classifier = classifier
        self.rows = rows  # from the number of candidates, the reference included
        self.scored = scored  # the reference has a head
        self.pool = pool
        self.pair = pair  # one candidate and the reference
        self.bias = bias


KINDS = {
    "best_route": Kind(None, None),
    "hybrid_llm": Kind("head_layer.1", lambda count: 2, pair=True),
    "n_label": Kind("head_layer.1", lambda count: count),
    "n_class": Kind("head_layer.1", lambda count: count, scored=True),
    "zooter": Kind("classifier", lambda count: count, scored=True, pool="first"),
    "router_dc": Kind("embeddings", lambda count: count, scored=True, pool="first", bias=False),
    "route_llm_bert": Kind("classifier", lambda count: 3, pool="first", pair=True),
}
PRICE_KEYS = ("input_price", "output_price", "avg_output_tokens", "input_per_sample")
SAMPLES_MAX = 1000


def parse_candidates(text, kind):
    """'a_ourRM_bo1,a_ourRM_bo2,b_ourRM_bo1' -> [('a', 1), ('a', 2), ('b', 1)];
    routers over models may leave out _bo1."""
    candidates = []
    for word in text.split(","):
        match = CANDIDATE.fullmatch(word.strip())
        if match is None and kind.pool == "first" and word.strip():
            match = {"model": word.strip(), "n": "1"}
        if match is None or not 1 <= int(match["n"]) <= SAMPLES_MAX:
            raise BundleError(f"--candidates: found {word.strip()!r}, expected MODEL_REWARD_boN, as in "
                              f"llama-31-8b_ourRM_bo5")
        pair = (match["model"], int(match["n"]))
        if pair in candidates:
            raise BundleError(f"--candidates: found {word.strip()!r} twice as {pair}")
        candidates.append(pair)
    if len(candidates) < 2:
        raise BundleError(f"--candidates: found {len(candidates)}, expected at least one and the reference")
    if kind.pair and len(candidates) != 2:
        raise BundleError(f"--candidates: found {len(candidates)}, expected the small model and the "
                          "reference")
    return candidates


def find_file(folder, name, override, option):
    path = override or os.path.join(folder, name)
    if os.path.isfile(path):
        return path
    if override:
        raise BundleError(f"{path}: no such file")
    raise BundleError(f"{path}: no such file; give the encoder's own with {option}")


def same_file(a, b):
    return os.path.exists(b) and os.path.samefile(a, b)


def find_prefix(shapes, path):
    for prefix in PREFIXES:
        if prefix + WORD_EMBEDDINGS in shapes:
            return prefix
    raise BundleError(f"{path}: has no tensor {PREFIXES[0]}{WORD_EMBEDDINGS}, nor one under "
                      f"{', '.join(repr(prefix) for prefix in PREFIXES[1:])}")


def expect_shape(shapes, name, shape, path, why):
    if name not in shapes:
        raise BundleError(f"{path}: has no tensor {name}, expected one of shape {list(shape)}")
    if tuple(shapes[name]) != tuple(shape):
        raise BundleError(f"{path}: {name}: found shape {list(shapes[name])}, expected {list(shape)}: {why}")


def check_heads(shapes, candidates, config, options, width, path):
    kind = KINDS[options.heads]
    if options.pooler != "none":
        name = family_of(config)[3] or find_prefix(shapes, path) + "pooler.dense"
        expect_shape(shapes, f"{name}.weight", (width, width), path, "a pooler's")
        expect_shape(shapes, f"{name}.bias", (width,), path, "a pooler's")
    if kind.classifier is not None:
        rows = kind.rows(len(candidates))
        why = f"heads {options.heads} with {len(candidates)} --candidates"
        expect_shape(shapes, f"{kind.classifier}.weight", (rows, width), path, why)
        if kind.bias:
            expect_shape(shapes, f"{kind.classifier}.bias", (rows,), path, why)
        return
    heads = {int(match[1])
             for match in (re.fullmatch(r"single_heads\.(\d+)\.1\.weight", name) for name in shapes)
             if match}
    if heads != set(range(len(candidates) - 1)):
        raise BundleError(f"{path}: found {len(heads)} single_heads, expected {len(candidates) - 1}: one for "
                          f"each of --candidates but the last")


def check_tensors(shapes, candidates, config, options, path):
    """The heads, the layers and the embedding are those of the candidates and the configuration."""
    prefix = find_prefix(shapes, path)
    rows, width = shapes[prefix + WORD_EMBEDDINGS]
    width_key, layers_key, layer_stem, _, width_default, layers_default = family_of(config)
    check_heads(shapes, candidates, config, options, width, path)
    if config.get(width_key, width_default) != width:
        raise BundleError(f"config.json: {width_key}: found {config.get(width_key)}, expected {width} as in "
                          f"{path}; give the right file with --config")
    layers = {int(match[1]) for match in (re.match(re.escape(f"{prefix}{layer_stem}.") + r"(\d+)\.", name)
                                          for name in shapes) if match}
    if layers != set(range(config.get(layers_key, layers_default))):
        raise BundleError(f"config.json: {layers_key}: found {config.get(layers_key)}, expected "
                          f"{len(layers)} as in {path}; give the right file with --config")
    return rows


def read_weights(folder, override):
    """(path, name -> shape, what writes model.safetensors to a path). safetensors win, as in the trainer."""
    path = override or os.path.join(folder, "model.safetensors")
    if os.path.isfile(path) and path.endswith(".safetensors"):
        header = bundle_io.read_safetensors_header(path)
        for name, (kind, _) in header.items():
            if kind == "F64":
                raise BundleError(f"{path}: {name}: found F64, expected F32, F16 or BF16")

        def copy(target):
            if not same_file(path, target):
                shutil.copyfile(path, target)

        return path, {name: shape for name, (_, shape) in header.items()}, copy

    path = override or os.path.join(folder, "pytorch_model.bin")
    if not os.path.isfile(path):
        if override:
            raise BundleError(f"{path}: no such file")
        raise BundleError(f"{folder}: has neither model.safetensors nor pytorch_model.bin")
    tensors = torch_pickle.read(path)
    for name, tensor in tensors.items():
        if tensor.kind == "F64":
            raise BundleError(f"{path}: {name}: found F64, expected F32, F16 or BF16")
    # Counters and position_ids are no weights.
    weights = {name: tensor for name, tensor in tensors.items() if tensor.kind in bundle_io.FLOAT_TYPES}

    def convert(target):
        entries = [(name, tensor.kind, tensor.shape, lambda tensor=tensor: [tensor.array().tobytes()])
                   for name, tensor in weights.items()]
        bundle_io.write_safetensors(target, entries)

    return path, {name: tensor.shape for name, tensor in weights.items()}, convert


def read_added_tokens(folder, pieces):
    """Added tokens and ids, from whichever tokenizer file the trainer saved;
    by its rule when there is none."""
    tokens = {}
    path = os.path.join(folder, "added_tokens.json")
    if os.path.isfile(path):
        tokens = bundle_io.read_json(path)
    path = os.path.join(folder, "tokenizer.json")
    if not tokens and os.path.isfile(path):
        for entry in bundle_io.read_json(path).get("added_tokens", []):
            tokens[entry["content"]] = entry["id"]
    path = os.path.join(folder, "tokenizer_config.json")
    if not tokens and os.path.isfile(path):
        for token_id, entry in bundle_io.read_json(path).get("added_tokens_decoder", {}).items():
            tokens[entry["content"]] = int(token_id)
    tokens = {name: token_id for name, token_id in tokens.items() if token_id >= pieces}

    # The tokenizer adds [MASK] after the pieces, and the trainer's collator adds the prefix after that.
    tokens.setdefault(bundle_io.MASK_TOKEN, pieces)
    tokens.setdefault(bundle_io.SOURCE_TOKEN, max(tokens.values()) + 1)
    return tokens


def read_prices(path, candidates):
    prices = bundle_io.read_json(path)
    prices = prices.get("models", prices)
    models = {}
    for model, _ in candidates:
        if model not in prices:
            raise BundleError(f"{path}: has no model {model!r}; found {', '.join(sorted(prices)) or 'none'}")
        entry = prices[model]
        if not isinstance(entry, dict):
            raise BundleError(f"{path}: {model}: found {entry!r:.60}, expected an object with input_price, "
                              f"output_price and avg_output_tokens")
        models[model] = {key: entry[key] for key in PRICE_KEYS if key in entry}
    return models


def make_router(options, candidates):
    kind = KINDS[options.heads]
    listed = [{"model": model, "n": n, "head": head} for head, (model, n) in enumerate(candidates[:-1])]
    model, n = candidates[-1]
    reference = {"model": model, "n": n, "reference": True}
    router = {
        "format": "bestroute-bundle/1",
        "name": options.name,
        "max_tokens": options.max_tokens,
        "source_prefix": bundle_io.SOURCE_TOKEN,
        "pool": kind.pool,
        "models": read_prices(options.prices, candidates),
        "candidates": listed + [reference],
        "policy": {"kind": "threshold", "threshold": options.threshold},
    }
    if options.heads == "best_route":
        return router
    router["heads"] = options.heads
    if kind.pool == "first":
        del router["source_prefix"]
    if kind.scored:
        reference["head"] = len(listed)
        router["policy"] = {"kind": "tolerance", "tolerance": 0}
    if options.pooler != "none":
        router["pooler"] = options.pooler
    if options.truncate != "right":
        router["truncate"] = options.truncate
    if options.temperature is not None:
        router["temperature"] = options.temperature
    return router


def read_case(folder, router):
    """Writes "lowercase" where the saved tokenizer keeps case; its own default is not to."""
    path = os.path.join(folder, "tokenizer_config.json")
    if not os.path.isfile(path):
        return
    saved = bundle_io.read_json(path)
    lowercase = saved.get("do_lower_case", True)
    if saved.get("strip_accents", None) not in (None, lowercase):
        raise BundleError(f"{path}: strip_accents: found {saved['strip_accents']}, expected null or "
                          f"do_lower_case's {lowercase}")
    if not lowercase:
        router["lowercase"] = False


def import_checkpoint(options):
    candidates = parse_candidates(options.candidates, KINDS[options.heads])
    router = make_router(options, candidates)
    config_path = find_file(options.checkpoint, "config.json", options.config, "--config")
    config = bundle_io.read_json(config_path)
    wordpiece = config.get("model_type") in ("bert", "distilbert")
    if wordpiece:
        read_case(options.checkpoint, router)
    tokenizer_name = "vocab.txt" if wordpiece else "spm.model"
    spm_path = find_file(options.checkpoint, tokenizer_name, options.spm, "--spm")
    weights_path, shapes, write_weights = read_weights(options.checkpoint, options.weights)
    rows = check_tensors(shapes, candidates, config, options, weights_path)
    pools_prefix = KINDS[options.heads].pool == "source_prefix"
    if wordpiece and pools_prefix:
        raise BundleError(f"--heads: found {options.heads}, which pools {bundle_io.SOURCE_TOKEN}; a "
                          f"{config['model_type']} encoder has no such token")
    tokens = read_added_tokens(options.checkpoint,
                               bundle_io.spm_piece_count(spm_path)) if pools_prefix else {}
    if pools_prefix and tokens[bundle_io.SOURCE_TOKEN] >= rows:
        raise BundleError(f"{weights_path}: {find_prefix(shapes, weights_path)}{WORD_EMBEDDINGS}: found "
                          f"{rows} rows, expected more than {tokens[bundle_io.SOURCE_TOKEN]}, the id of "
                          f"{bundle_io.SOURCE_TOKEN}; is {spm_path} the encoder's own?")
    if config.get("vocab_size") != rows:
        # The trainer resizes the embedding to its tokenizer's length and leaves the published file as it was.
        print(f"config.json: vocab_size {config.get('vocab_size')} becomes {rows}, the rows of the embedding")
        config["vocab_size"] = rows

    os.makedirs(options.out, exist_ok=True)
    write_weights(os.path.join(options.out, "model.safetensors"))
    target = os.path.join(options.out, tokenizer_name)
    if not same_file(spm_path, target):
        shutil.copyfile(spm_path, target)
    bundle_io.write_json(os.path.join(options.out, "config.json"), config)
    if pools_prefix:
        bundle_io.write_json(os.path.join(options.out, "added_tokens.json"), tokens)
    bundle_io.write_json(os.path.join(options.out, "router.json"), router)
    model, n = candidates[-1]
    print(f"{options.out}: {len(candidates) - 1} candidates and the reference ({model}, {n}); "
          f"check it with: bestrouted --bundle {options.out} --check")


def main(arguments):
    parser = argparse.ArgumentParser(description="Makes a bundle from a BEST-Route checkpoint-best folder.")
    parser.add_argument("--checkpoint", required=True, help="the folder the trainer wrote")
    parser.add_argument("--out", required=True, help="the bundle's folder; may be the checkpoint's own")
    parser.add_argument("--candidates", required=True, help="the trainer's --candidate_model string")
    parser.add_argument("--prices", required=True, help="JSON file with the models' prices, see prices.json")
    parser.add_argument("--config", help="the encoder's config.json, where the checkpoint has none")
    parser.add_argument("--spm", help="the encoder's spm.model or vocab.txt, where the checkpoint has none")
    parser.add_argument("--name", default="best-route", help="the bundle's name")
    parser.add_argument("--max-tokens", type=int, default=128, help="the trainer's --source_maxlength")
    parser.add_argument("--threshold", type=float, default=0.5, help="of the default policy")
    parser.add_argument("--heads", default="best_route", choices=KINDS,
                        help="the kind of router, see docs/HEADS.md")
    parser.add_argument("--weights", help="the file of weights, where it has a name of its own "
                                          "(best_model.pth)")
    parser.add_argument("--pooler", default="none", choices=("none", "tanh", "gelu", "relu"),
                        help="the activation of the pooler before the classifier")
    parser.add_argument("--truncate", default="right", choices=("right", "left"),
                        help="which end a long prompt loses")
    parser.add_argument("--temperature", type=float, help="of router_dc")
    options = parser.parse_args(arguments)
    try:
        if not 3 <= options.max_tokens <= 2048:
            raise BundleError(f"--max-tokens: found {options.max_tokens}, expected 3..2048")
        if not 0 <= options.threshold <= 1:
            raise BundleError(f"--threshold: found {options.threshold}, expected 0..1")
        if options.temperature is not None and (options.heads != "router_dc" or
                                                not 1e-4 <= options.temperature <= 1e4):
            raise BundleError(f"--temperature: found {options.temperature}, expected 0.0001..10000, for "
                              "router_dc alone")
        import_checkpoint(options)
    except (BundleError, OSError) as error:
        print(f"import_checkpoint.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
