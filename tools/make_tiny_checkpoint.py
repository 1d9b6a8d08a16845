#!/usr/bin/env python3
"""Writes tests/data/tiny_checkpoint.bin: a small pytorch_model.bin as BEST-Route's trainer leaves it.

    python3 tools/make_tiny_checkpoint.py tests/data/tiny_checkpoint.bin      needs torch

All three float types, a transposed tensor, two slices of one storage, a Parameter and a buffer of integers.
Element i of a storage is i % 32, so that test_weights.py knows every value; the shapes go with the tokenizer
of weights/tiny.
"""

import collections
import sys

import torch


def counting(*shape):
    count = 1
    for size in shape:
        count *= size
    return (torch.arange(count) % 32).float().reshape(shape)


WIDTH, FFN, ROWS = 4, 8, 2050
state = collections.OrderedDict()
state["pretrained_model.embeddings.position_ids"] = torch.arange(8).unsqueeze(0)
state["pretrained_model.embeddings.word_embeddings.weight"] = counting(ROWS, WIDTH).half()
state["pretrained_model.embeddings.LayerNorm.weight"] = counting(WIDTH).bfloat16()
state["pretrained_model.embeddings.LayerNorm.bias"] = torch.nn.Parameter(counting(WIDTH))
state["pretrained_model.encoder.rel_embeddings.weight"] = counting(8, WIDTH)
layer = "pretrained_model.encoder.layer.0"
shared = counting(2 * WIDTH, WIDTH)
state[f"{layer}.attention.self.query_proj.weight"] = shared[:WIDTH]
state[f"{layer}.attention.self.key_proj.weight"] = shared[WIDTH:]
state[f"{layer}.intermediate.dense.weight"] = counting(WIDTH, FFN).t()
for head in range(2):
    state[f"single_heads.{head}.1.weight"] = counting(2, WIDTH)
    state[f"single_heads.{head}.1.bias"] = counting(2)
torch.save(state, sys.argv[1])
