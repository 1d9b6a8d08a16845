#!/usr/bin/env python3
"""Prints how alive a bundle's network is: attention, pooled states, qualities, on lines of the corpus.

    python3 weights/measure_scales.py BUNDLE      needs torch, transformers, safetensors and spm_encode
"""

import json
import os
import subprocess
import sys

import torch
from safetensors.torch import load_file
from transformers import DebertaV2Config, DebertaV2Model

HERE = os.path.dirname(os.path.abspath(__file__))
PROMPTS = 90


def load(folder, name):
    with open(os.path.join(folder, name), encoding="utf-8") as file:
        return json.load(file)


def corpus_lines():
    lines = []
    for name in ("prompts", "english", "languages", "code"):
        with open(os.path.join(HERE, "corpus", f"{name}.txt"), encoding="utf-8") as file:
            lines += [line.strip() for line in file if line.strip()]
    return lines[::2][:PROMPTS]


def main(folder):
    config = DebertaV2Config(**load(folder, "config.json"))
    config._attn_implementation = "eager"
    weights = {name: tensor.float()
               for name, tensor in load_file(os.path.join(folder, "model.safetensors")).items()}
    prefix = "pretrained_model."
    model = DebertaV2Model(config).eval()
    model.load_state_dict({k[len(prefix):]: v for k, v in weights.items() if k.startswith(prefix)})
    source = load(folder, "added_tokens.json")["<|source|>"]
    router = load(folder, "router.json")

    encoded = subprocess.run(["spm_encode", f"--model={folder}/spm.model", "--output_format=id"], check=True,
                             input="\n".join(corpus_lines()), capture_output=True, text=True).stdout
    pooled, shares = [], []
    for line in encoded.splitlines():
        ids = [1, source] + [int(word) for word in line.split()][: router["max_tokens"] - 3] + [2]
        with torch.no_grad():
            out = model(input_ids=torch.tensor([ids]), output_attentions=True)
        pooled.append(out.last_hidden_state[0, 1])
        shares.append([float((-(a * (a + 1e-20).log()).sum(-1)).exp().mean() / len(ids))
                       for a in out.attentions])
    states = torch.stack(pooled)
    unit = states / states.norm(dim=1, keepdim=True)
    count = len(states)
    print("share attended, by layer:", " ".join(f"{x:.2f}" for x in torch.tensor(shares).mean(0)))
    print("mean cosine of pooled states: "
          f"{float((unit @ unit.T).sum() - count) / (count * count - count):.2f}")
    for candidate in router["candidates"]:
        if "head" not in candidate:
            continue
        weight, bias = (weights[f"single_heads.{candidate['head']}.1.{part}"] for part in ("weight", "bias"))
        quality = torch.softmax(states @ weight.T + bias, dim=1)[:, 0]
        print(f"{candidate['model']:14} n={candidate['n']}  mean {quality.mean():.2f}  deviation "
              f"{quality.std():.2f}  least {quality.min():.2f}  greatest {quality.max():.2f}")


if __name__ == "__main__":
    main(sys.argv[1])
