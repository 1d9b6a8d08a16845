#!/usr/bin/env python3
"""Writes tests/data/position_rows.txt: rows of rel_embeddings by distance, as Hugging Face computes them.

    python3 tools/make_position_rows.py > tests/data/position_rows.txt      needs torch and transformers

A line is one configuration, for distances -2047..2047:

    buckets max_positions span : first_row run run ...

A run "L" is L equal rows, after which the row grows by one; "LjJ" grows by J instead; "L*k" is L, k times.
The last run ends at distance 2047.
"""

import torch
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

DISTANCES = 2047
CONFIGURATIONS = [
    (256, 512), (256, 128), (256, 1024), (256, 2048), (256, 257), (256, 300), (256, 384), (256, 100),
    (128, 512), (128, 66), (128, 2048), (64, 64), (64, 512), (64, 33 + 1), (48, 100), (32, 512), (32, 128),
    (32, 64), (31, 64), (33, 500), (24, 24), (20, 777), (16, 13), (16, 512), (15, 40), (12, 50), (10, 1000),
    (9, 33), (8, 32), (8, 512), (8, 33), (7, 17), (6, 13), (6, 12), (5, 512), (4, 512), (3, 512), (2, 512),
    (2, 3), (320, 400), (512, 512), (512, 600), (1000, 2048), (1024, 2047), (2048, 1500), (4096, 4096),
    (256, 1), (100, 50), (200, 65536),
    (0, 1), (0, 2), (0, 16), (0, 512), (0, 2048), (0, 4096),
]


def rows(buckets, positions):
    relative = torch.arange(-DISTANCES, DISTANCES + 1)
    span = positions
    if buckets > 0:
        span = buckets
        relative = make_log_bucket_position(relative, buckets, positions).to(torch.long)
    return span, torch.clamp(relative + span, 0, 2 * span - 1).tolist()


def runs(values):
    tokens = []
    length = 1
    for before, after in zip(values, values[1:]):
        if after == before:
            length += 1
            continue
        tokens.append(f"{length}" if after == before + 1 else f"{length}j{after - before}")
        length = 1
    tokens.append(f"{length}")
    packed = []
    for token in tokens:
        if packed and packed[-1][0] == token:
            packed[-1][1] += 1
        else:
            packed.append([token, 1])
    return " ".join(token if count == 1 else f"{token}*{count}" for token, count in packed)


for buckets, positions in CONFIGURATIONS:
    span, values = rows(buckets, positions)
    print(f"{buckets} {positions} {span} : {values[0]} {runs(values)}")
