"""The network of a bundle in PyTorch, its tokenizer, and how stages of training run and resume.

Tensor names are the bundle's, which are those of BEST-Route's trainer. Batches are prompts of similar length;
a stage leaves a checkpoint after every epoch and a resumed one goes on to the same weights.
"""

import io
import math
import os
import random

import numpy as np
import sentencepiece
import torch
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm
from transformers import AutoModel, AutoTokenizer, DebertaV2Config, DebertaV2Model

CLS, SEP = 1, 2
PREFIX_TOKENS = 2  # [CLS] <|source|>, where the pooled state is the last of them


def train_tokenizer(prompts, pieces, path):
    """A unigram model in DeBERTa-v3's layout: [PAD] 0, [CLS] 1, [SEP] 2, [UNK] 3, then pieces."""
    model = io.BytesIO()  # written by us: the trainer would leave its path in the model
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sorted(set(prompts))), model_writer=model, vocab_size=pieces,
        model_type="unigram", byte_fallback=True, normalization_rule_name="nmt_nfkc", split_digits=True,
        character_coverage=0.9995, max_sentence_length=16384, pad_id=0, bos_id=1, eos_id=2, unk_id=3,
        pad_piece="[PAD]", bos_piece="[CLS]", eos_piece="[SEP]", unk_piece="[UNK]", num_threads=2,
        minloglevel=2)
    with open(path, "wb") as out:
        out.write(model.getvalue())


class Tokenizer:
    def __init__(self, path, max_tokens):
        self.spm = sentencepiece.SentencePieceProcessor(model_file=path)
        self.source = len(self.spm) + 1  # [MASK] comes first
        self.max_tokens = max_tokens

    def __call__(self, prompt):
        pieces = self.spm.encode(prompt.replace("[SEP]", " "))
        return [CLS, self.source] + pieces[: self.max_tokens - PREFIX_TOKENS - 1] + [SEP]


class Router(torch.nn.Module):
    """The encoder and its heads, with the tensor names of the bundle."""

    def __init__(self, encoder, heads):
        super().__init__()
        self.pretrained_model = encoder
        width = encoder.config.hidden_size
        self.single_heads = torch.nn.ModuleList(
            torch.nn.Sequential(torch.nn.Dropout(0.1), torch.nn.Linear(width, 2)) for _ in range(heads))

    def pooled(self, ids, mask):
        return self.pretrained_model(ids, attention_mask=mask).last_hidden_state[:, PREFIX_TOKENS - 1]

    def logits(self, pooled):
        """z0 - z1 of every head: the log odds of a match. [rows, heads]"""
        both = torch.stack([head(pooled) for head in self.single_heads], dim=1)
        return both[..., 0] - both[..., 1]


def batches(ids, tokens_max, shuffle):
    """Index lists of similar lengths, at most tokens_max padded tokens each."""
    order = sorted(range(len(ids)), key=lambda i: (len(ids[i]), shuffle.random()))
    groups, group = [], []
    for i in order:
        if group and (len(group) + 1) * len(ids[i]) > tokens_max:
            groups.append(group)
            group = []
        group.append(i)
    groups.append(group)
    shuffle.shuffle(groups)
    return groups


def pad(ids, device):
    longest = max(map(len, ids))
    out = torch.zeros(len(ids), longest, dtype=torch.long)
    mask = torch.zeros(len(ids), longest, dtype=torch.long)
    for row, sequence in enumerate(ids):
        out[row, : len(sequence)] = torch.tensor(sequence)
        mask[row, : len(sequence)] = 1
    return out.to(device), mask.to(device)


class Stage:
    """Epochs with a checkpoint after each: weights, optimiser, schedule, random state, the best so far."""

    def __init__(self, name, modules, options, rate, epochs, steps):
        self.path = os.path.join(options.work, f"{name}.pt")
        self.name, self.modules, self.epochs = name, modules, epochs
        parameters = [p for module in modules if not isinstance(module, AveragedModel)
                      for p in module.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=options.weight_decay)
        total = max(1, epochs * steps)
        warm = max(1, total // 12)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimiser, lambda s: min((s + 1) / warm, 0.5 * (1 + math.cos(math.pi * min(1, s / total)))))
        self.parameters = parameters
        self.epoch = 0
        self.best = None
        self.best_state = None
        if options.resume and os.path.exists(self.path):
            saved = torch.load(self.path, weights_only=False)
            for module, state in zip(modules, saved["modules"]):
                module.load_state_dict(state)
            self.epoch, self.best, self.best_state = saved["epoch"], saved["best"], saved["best_state"]
            if self.epoch < epochs:
                self.optimiser.load_state_dict(saved["optimiser"])
                self.schedule.load_state_dict(saved["schedule"])
            torch.set_rng_state(saved["random"])

    def step(self, loss):
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimiser.step()
        self.schedule.step()

    def save(self):
        state = {"modules": [module.state_dict() for module in self.modules], "epoch": self.epoch,
                 "optimiser": self.optimiser.state_dict(), "schedule": self.schedule.state_dict(),
                 "best": self.best, "best_state": self.best_state, "random": torch.get_rng_state()}
        torch.save(state, self.path + ".new")
        os.replace(self.path + ".new", self.path)


def make_encoder(options, pieces):
    """The pretrained encoder, or a new one of the shape asked for."""
    if options.pretrained:
        encoder = DebertaV2Model.from_pretrained(options.pretrained)
        if encoder.get_input_embeddings().num_embeddings < pieces + 2:
            encoder.resize_token_embeddings(pieces + 2)
        return encoder.float()
    return DebertaV2Model(DebertaV2Config(
        vocab_size=pieces + 2, hidden_size=options.hidden, num_hidden_layers=options.layers,
        num_attention_heads=options.heads, intermediate_size=options.hidden * 4, max_position_embeddings=512,
        type_vocab_size=0, relative_attention=True, position_buckets=options.buckets,
        max_relative_positions=-1, pos_att_type=["p2c", "c2p"], share_att_key=True, norm_rel_ebd="layer_norm",
        position_biased_input=False, layer_norm_eps=1e-7, pad_token_id=0,
        initializer_range=0.6 / math.sqrt(options.hidden)))


def teacher_embeddings(folder, prompts):
    """Mean-pooled, normalised sentence embeddings [prompts, width] of a BERT-like encoder."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    out = np.zeros((len(prompts), model.config.hidden_size), dtype=np.float32)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    with torch.inference_mode():
        for at in tqdm(range(0, len(order), 64), desc="teacher"):
            part = order[at: at + 64]
            inputs = tokenizer([prompts[i] for i in part], padding=True, truncation=True, max_length=256,
                               return_tensors="pt")
            mask = inputs["attention_mask"][..., None].float()
            states = (model(**inputs).last_hidden_state * mask).sum(1) / mask.sum(1)
            out[part] = torch.nn.functional.normalize(states, dim=1).numpy()
    return out


def pooled_states(model, ids, options, device):
    """The pooled state of each prompt. [prompts, width]"""
    model.eval()
    out = np.zeros((len(ids), model.pretrained_model.config.hidden_size), dtype=np.float32)
    with torch.inference_mode():
        for group in batches(ids, options.batch_tokens * 2, random.Random(0)):
            inputs, mask = pad([ids[i] for i in group], device)
            out[group] = model.pooled(inputs, mask).cpu().numpy()
    model.train()
    return out


def predict(model, ids, options, device):
    """Log odds [rows, heads]."""
    states = torch.tensor(pooled_states(model, ids, options, device), device=device)
    model.eval()
    with torch.inference_mode():
        out = model.logits(states).cpu().numpy()
    model.train()
    return out
