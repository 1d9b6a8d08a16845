#!/usr/bin/env python3
"""Trains a router on measured answers and writes it as a bundle.

    python3 weights/train.py --data gsm8k.jsonl.gz --data humaneval.jsonl.gz --prices prices.json \\
        --model MODEL --model MODEL --reference gpt-4 --out bundles/mine
    ... --pretrained deberta-v3-small/ --spm deberta-v3-small/spm.model      the full 44M recipe
    ... --distil-data more-prompts.jsonl.gz --teacher all-MiniLM-L6-v2/      from scratch, distilled first

Network and loss are BEST-Route's: Hugging Face's DebertaV2Model, a 2-way head per candidate on the state of
<|source|>, soft match probabilities as labels, cross-entropy.

    read -> tokenizer -> [distil] -> fine-tune, stop early -> calibrate -> bundle

Rows: split `train` trains; a tenth of it, chosen by a hash of the prompt, is held back for early stopping and
calibration; `val` is only reported at the end, and `test` is never read. Every stage leaves a checkpoint in
--work; --resume goes on from the last one. Same seed, same machine, same threads: same weights.

Needs weights/requirements.txt.
"""

import argparse
import io
import json
import math
import os
import random
import shutil
import sys

import numpy as np
import sentencepiece
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm
from transformers import AutoModel, AutoTokenizer, DebertaV2Config, DebertaV2Model

import bundle_io
from bundle_io import BundleError
from routing_data import DataError, Labels, costs, read_rows, saving, surface, threshold_curve

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


def distil(model, tokenizer, prompts, options, device):
    """Teaches the encoder, before any label, where prompts lie: the teacher's embedding and surface counts."""
    prompts = sorted(set(prompts))
    targets = np.array([surface(prompt) for prompt in prompts], dtype=np.float32)
    targets = (targets - targets.mean(0)) / (targets.std(0) + 1e-6)
    targets = np.clip(targets, -4, 4)
    if options.teacher:
        cache = os.path.join(options.work, "teacher.npy")
        if not (options.resume and os.path.exists(cache)):
            np.save(cache, teacher_embeddings(options.teacher, prompts))
        embedding = np.load(cache)
        embedding = (embedding - embedding.mean(0)) / embedding.std()
        targets = np.hstack([targets, embedding])
    counted = len(surface("x"))
    weights = torch.ones(targets.shape[1], device=device)
    weights[:counted] = 0.5 / counted
    weights[counted:] = 0.5 / max(1, targets.shape[1] - counted)
    ids = [tokenizer(prompt) for prompt in prompts]
    targets = torch.tensor(targets, device=device)
    projection = torch.nn.Linear(model.pretrained_model.config.hidden_size, targets.shape[1]).to(device)
    shuffle = random.Random(options.seed)
    steps = len(batches(ids, options.batch_tokens, shuffle))
    stage = Stage("distil", [model.pretrained_model, projection], options, options.distil_rate, options.distil_epochs, steps)
    model.train()
    while stage.epoch < options.distil_epochs:
        shuffle = random.Random(options.seed * 1000 + stage.epoch)
        total = 0.0
        bar = tqdm(batches(ids, options.batch_tokens, shuffle), desc=f"distil {stage.epoch + 1}")
        for count, group in enumerate(bar, 1):
            inputs, mask = pad([ids[i] for i in group], device)
            error = (projection(model.pooled(inputs, mask)) - targets[group]) ** 2
            loss = (error * weights).sum(1).mean()
            stage.step(loss)
            total += loss.item()
            bar.set_postfix(loss=f"{total / count:.4f}")
        stage.epoch += 1
        stage.save()


def predict(model, ids, options, device):
    """Log odds [rows, heads]."""
    model.eval()
    out = np.zeros((len(ids), len(model.single_heads)), dtype=np.float32)
    with torch.inference_mode():
        for group in batches(ids, options.batch_tokens * 2, random.Random(0)):
            inputs, mask = pad([ids[i] for i in group], device)
            out[group] = model.logits(model.pooled(inputs, mask)).cpu().numpy()
    model.train()
    return out


def sigmoid(x):
    return 1 / (1 + np.exp(-x.astype(np.float64)))


class Judge:
    """The decision metric on a set of rows: what a threshold saves, and what it costs in quality."""

    def __init__(self, labels, pairs, models, reference, references):
        keep = [i for i, row in enumerate(labels.rows) if row.reference_model in references]
        self.keep = keep
        rows = [labels.rows[i] for i in keep]
        own = [(reference, 1)]
        self.quality = np.array([[row.quality.get(pair, 0) for pair in pairs] for row in rows])
        self.allowed = labels.measured[keep]
        self.estimated = costs(rows, pairs, models, False)
        self.paid = costs(rows, pairs, models, True)
        paid = np.array([models[reference]["input_price"] * row.prompt_tokens + models[reference]["output_price"]
                         * row.output_tokens.get((row.reference_model, 1), models[reference]["avg_output_tokens"])
                         for row in rows])
        self.reference = (np.array([row.reference_quality for row in rows]),
                          costs(rows, own, models, False)[:, 0], paid)

    def curve(self, predicted):
        predicted = predicted[self.keep]
        thresholds = np.concatenate([np.linspace(0, 1, 101), np.quantile(predicted[self.allowed], np.linspace(0, 1, 101))])
        return threshold_curve(predicted, self.quality, self.allowed, self.estimated, self.paid, self.reference,
                               np.sort(thresholds))

    def report(self, predicted):
        curve = self.curve(predicted)
        cost, quality = self.reference[2].mean(), self.reference[0].mean()
        return {"reference_quality": round(float(quality), 4), "reference_cost": float(cost),
                **{f"saving_at_{d}_percent": round(saving(curve, cost, quality, d / 100), 4) for d in (1, 2, 5)}}

    def area(self, predicted):
        """Mean over costs from the cheapest to the reference's of the best quality within them: higher is better."""
        curve = self.curve(predicted)
        curve = curve[np.argsort(curve[:, 0])]
        best = np.maximum.accumulate(curve[:, 1])
        grid = np.linspace(curve[0, 0], self.reference[2].mean(), 200)
        return float(best[np.searchsorted(curve[:, 0], grid, side="right") - 1].mean())


def fine_tune(model, labels, ids, held, judge, options, device):
    """Soft cross-entropy; keeps the epoch that is best on the held-back rows, by decisions and by loss."""
    match = torch.tensor(labels.match, device=device)
    weight = torch.tensor(labels.weight, device=device)
    per_task = {}
    for row in labels.rows:
        per_task[row.task] = per_task.get(row.task, 0) + 1
    # A task of a hundred rows would drown among thousands: the square root lies between rows and tasks.
    mean = np.mean([1 / math.sqrt(per_task[row.task]) for row in labels.rows])
    weight *= torch.tensor([1 / math.sqrt(per_task[row.task]) / mean for row in labels.rows],
                           dtype=torch.float32, device=device)[:, None]
    train = [i for i in range(len(ids)) if i not in held]
    late = sorted(held)
    encoder = [ids[i] for i in train]
    steps = len(batches(encoder, options.batch_tokens, random.Random(0)))
    # A running mean of the weights forgets what single batches of few rows taught by accident.
    mean_model = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.98))
    stage = Stage("fine-tune", [model, mean_model], options, options.rate, options.epochs, steps)
    since = 0
    while stage.epoch < options.epochs and since < options.patience:
        shuffle = random.Random(options.seed * 1000 + 500 + stage.epoch)
        total = 0.0
        bar = tqdm(batches(encoder, options.batch_tokens, shuffle), desc=f"fine-tune {stage.epoch + 1}")
        for count, group in enumerate(bar, 1):
            rows = [train[i] for i in group]
            inputs, mask = pad([ids[i] for i in rows], device)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                model.logits(model.pooled(inputs, mask)), match[rows], weight=weight[rows])
            stage.step(loss)
            mean_model.update_parameters(model)
            total += loss.item()
            bar.set_postfix(loss=f"{total / count:.4f}")
        stage.epoch += 1
        logits = predict(mean_model.module, [ids[i] for i in late], options, device)
        known = labels.weight[late] > 0
        probability = np.clip(sigmoid(logits), 1e-6, 1 - 1e-6)
        target = labels.match[late]
        entropy = -(target * np.log(probability) + (1 - target) * np.log(1 - probability))[known].mean()
        # Decisions are few among held-back rows and their metric is coarse: the loss has as much to say.
        score = judge.area(sigmoid(logits)) - entropy
        print(f"epoch {stage.epoch}: held-back loss {entropy:.4f}, {judge.report(sigmoid(logits))}, score {score:.5f}",
              flush=True)
        since += 1
        if stage.best is None or score > stage.best:
            stage.best, since = score, 0
            stage.best_state = {name: value.detach().cpu().clone() for name, value in mean_model.module.state_dict().items()}
        stage.save()
    model.load_state_dict(stage.best_state)


def calibrate(logits, match, weight):
    """Per head scale and bias of the log odds, by Newton's method on the soft cross-entropy.

    A quadratic prior of ten rows' worth pulls to (1, 0): a head with few rows stays as it was trained.
    """
    out = []
    for head in range(logits.shape[1]):
        x, y, w = logits[:, head].astype(float), match[:, head].astype(float), weight[:, head].astype(float)
        scale, bias = 1.0, 0.0
        for _ in range(50):
            p = 1 / (1 + np.exp(-(scale * x + bias)))
            g = np.array([(w * (p - y) * x).sum() + 10 * (scale - 1), (w * (p - y)).sum() + bias])
            h = w * p * (1 - p)
            hessian = np.array([[(h * x * x).sum() + 10, (h * x).sum()], [(h * x).sum(), h.sum() + 1]])
            step = np.linalg.solve(hessian, g)
            scale, bias = scale - step[0], bias - step[1]
            if np.abs(step).max() < 1e-9:
                break
        out.append((max(float(scale), 0.05), float(bias)))
    return out


def expected_calibration_error(predicted, match, bins=10):
    index = np.minimum((predicted * bins).astype(int), bins - 1)
    return float(sum((index == b).mean() * abs(predicted[index == b].mean() - match[index == b].mean())
                     for b in range(bins) if (index == b).any()))


def price_models(rows, names, reference, references, path):
    """models of router.json: prices of the file, answer lengths of the training rows."""
    prices = bundle_io.read_json(path)["models"]
    models = {}
    for name in [*names, reference]:
        if name not in prices:
            raise DataError(f"{path}: models: expected a price of {name}")
        lengths = [row.output_tokens[(name, 1)] for row in rows if (name, 1) in row.output_tokens]
        if name == reference:
            lengths = [row.output_tokens[(row.reference_model, 1)] for row in rows
                       if row.reference_model in references and (row.reference_model, 1) in row.output_tokens]
        if not lengths:  # never measured: as long as the others' answers to the same prompts
            lengths = [np.mean([v for (_, n), v in row.output_tokens.items() if n == 1]) for row in rows
                       if (name, 1) in row.quality and any(n == 1 for _, n in row.output_tokens)]
        if not lengths:
            raise DataError(f"no answer lengths for {name}")
        models[name] = {"input_price": prices[name]["input_usd_per_mtok"] / 1e6,
                        "output_price": prices[name]["output_usd_per_mtok"] / 1e6,
                        "avg_output_tokens": round(float(np.mean(lengths)), 1), "input_per_sample": False}
    return models


def write_bundle(out, model, spm, models, pairs, calibration, options):
    os.makedirs(out, exist_ok=True)
    target = os.path.join(out, "spm.model")
    if os.path.realpath(spm) != os.path.realpath(target):
        shutil.copyfile(spm, target)
    pieces = bundle_io.spm_piece_count(target)
    kind = {"f32": "F32", "f16": "F16", "bf16": "BF16"}[options.dtype]
    entries = []
    for name, tensor in model.state_dict().items():
        values = tensor.detach().cpu().float().numpy()
        if name.endswith("position_ids"):
            continue
        data = bundle_io.to_bytes(values, kind)
        entries.append((name, kind, values.shape, lambda data=data: [data]))
    bundle_io.write_safetensors(os.path.join(out, "model.safetensors"), entries)
    config = json.loads(model.pretrained_model.config.to_json_string(use_diff=False))
    config["pos_att_type"] = "|".join(config["pos_att_type"])
    kept = ("model_type hidden_size num_hidden_layers num_attention_heads intermediate_size hidden_act vocab_size "
            "max_position_embeddings type_vocab_size layer_norm_eps relative_attention position_buckets "
            "max_relative_positions pos_att_type share_att_key norm_rel_ebd position_biased_input pad_token_id").split()
    config = {key: config[key] for key in kept if key in config}
    bundle_io.write_json(os.path.join(out, "config.json"), config)
    bundle_io.write_json(os.path.join(out, "added_tokens.json"),
                         {bundle_io.MASK_TOKEN: pieces, bundle_io.SOURCE_TOKEN: pieces + 1})
    candidates = [{"model": name, "n": n, "head": head,
                   "calibration": {"scale": round(calibration[head][0], 6), "bias": round(calibration[head][1], 6)}}
                  for head, (name, n) in enumerate(pairs)]
    bundle_io.write_json(os.path.join(out, "router.json"), {
        "format": "bestroute-bundle/1", "name": options.name, "max_tokens": options.max_tokens,
        "source_prefix": bundle_io.SOURCE_TOKEN, "pool": "source_prefix", "models": models,
        "candidates": candidates + [{"model": options.reference, "n": 1, "reference": True}],
        "policy": {"kind": "threshold", "threshold": options.threshold},
    })


def make_encoder(options, pieces):
    if options.pretrained:
        encoder = DebertaV2Model.from_pretrained(options.pretrained)
        if encoder.get_input_embeddings().num_embeddings < pieces + 2:
            encoder.resize_token_embeddings(pieces + 2)
        return encoder.float()
    return DebertaV2Model(DebertaV2Config(
        vocab_size=pieces + 2, hidden_size=options.hidden, num_hidden_layers=options.layers,
        num_attention_heads=options.heads, intermediate_size=options.hidden * 4, max_position_embeddings=512,
        type_vocab_size=0, relative_attention=True, position_buckets=options.buckets, max_relative_positions=-1,
        pos_att_type=["p2c", "c2p"], share_att_key=True, norm_rel_ebd="layer_norm", position_biased_input=False,
        layer_norm_eps=1e-7, pad_token_id=0))


def parse(arguments):
    parser = argparse.ArgumentParser(description="Trains a router on measured answers and writes a bundle.")
    add = parser.add_argument
    add("--data", action="append", required=True, help="records, .jsonl or .jsonl.gz; may be repeated")
    add("--extra-data", action="append", default=[], help="records that train only, whatever their split; their "
        "reference may be another model")
    add("--distil-data", action="append", default=[], help="records of which only the prompts of split train are used")
    add("--prices", required=True, help="models.NAME.{input,output}_usd_per_mtok")
    add("--model", action="append", required=True, help="a model to route to, NAME[:SAMPLES][@TASK[,TASK...]]; "
        "may be repeated; with tasks it is taken for unmeasured on all others")
    add("--reference", required=True, help="the reference's name in the bundle")
    add("--same-reference", action="append", default=[], help="another name of the reference in the records")
    add("--samples", type=int, default=5, help="candidates n = 1..N of each model")
    add("--out", required=True, help="the bundle's folder")
    add("--work", help="checkpoints; default OUT.work")
    add("--name", default="trained")
    add("--pretrained", help="folder of a DeBERTa-v3 checkpoint; needs --spm")
    add("--spm", help="its tokenizer; default: trained on the prompts")
    add("--teacher", help="folder of a sentence encoder, distilled before fine-tuning")
    add("--pieces", type=int, default=8000)
    add("--hidden", type=int, default=256)
    add("--layers", type=int, default=3)
    add("--heads", type=int, default=4)
    add("--buckets", type=int, default=64)
    add("--max-tokens", type=int, default=256)
    add("--dtype", choices=("f32", "f16", "bf16"), default="f16")
    add("--threshold", type=float, default=0.9, help="of the bundle's default policy")
    add("--unmeasured", type=float, default=0.2, help="weight of label 0 for models never measured on a task")
    add("--held-back", type=float, default=0.15, help="share of the training rows for stopping and calibration")
    add("--distil-epochs", type=int, default=4)
    add("--distil-rate", type=float, default=5e-4)
    add("--epochs", type=int, default=12)
    add("--patience", type=int, default=4, help="epochs without a better score before stopping")
    add("--rate", type=float, default=2e-4)
    add("--weight-decay", type=float, default=0.05)
    add("--batch-tokens", type=int, default=4096)
    add("--seed", type=int, default=1)
    add("--threads", type=int, default=0)
    add("--resume", action="store_true")
    options = parser.parse_args(arguments)
    options.work = options.work or options.out.rstrip("/") + ".work"
    if options.pretrained and not options.spm:
        parser.error("--pretrained needs --spm")
    return options


def read_models(options):
    """NAME[:SAMPLES][@TASK[,TASK...]] of each --model: names, pairs, and the tasks of those that name any."""
    names, pairs, offered = [], [], {}
    for text in options.model:
        text, _, tasks = text.partition("@")
        name, colon, samples = text.rpartition(":")
        if not colon:
            name, samples = text, options.samples
        elif not samples.isdigit() or int(samples) < 1:
            raise DataError(f"--model {text}: expected NAME[:SAMPLES][@TASK[,TASK...]]")
        names.append(name)
        pairs += [(name, n) for n in range(1, int(samples) + 1)]
        if tasks:
            offered[name] = set(tasks.split(","))
    return names, pairs, offered


def run(options):
    os.makedirs(options.work, exist_ok=True)
    random.seed(options.seed)
    torch.manual_seed(options.seed)
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    references = {options.reference, *options.same_reference}
    names, pairs, offered = read_models(options)
    main_rows = [row for path in options.data for row in read_rows(path)]
    val_rows = [row for row in main_rows if row.split == "val"]
    val_prompts = {row.prompt for row in val_rows}
    extra = [row for path in options.extra_data for row in read_rows(path)]
    train_rows = [row for row in main_rows if row.split == "train"]
    train_rows += [row for row in extra if row.split != "test"]
    train_rows = [row for row in train_rows if row.prompt not in val_prompts]
    others = [row for path in options.distil_data for row in read_rows(path) if row.split != "val"]
    prompts = [row.prompt for row in train_rows + others if row.prompt not in val_prompts]

    spm = options.spm
    if spm is None:
        spm = os.path.join(options.work, "spm.model")
        if not (options.resume and os.path.exists(spm)):
            train_tokenizer(prompts, options.pieces, spm)
    tokenizer = Tokenizer(spm, options.max_tokens)
    pieces = bundle_io.spm_piece_count(spm)

    labels = Labels(train_rows, pairs, references, options.unmeasured, offered)
    models = price_models(labels.rows, names, options.reference, references, options.prices)
    ids = [tokenizer(row.prompt) for row in labels.rows]
    held = {i for i, row in enumerate(labels.rows)
            if row.reference_model in references and row.share(options.seed) < options.held_back}
    print(f"{len(ids) - len(held)} rows to train, {len(held)} held back, {len(val_rows)} to report, "
          f"{len(pairs)} pairs, {pieces} pieces, {len(set(prompts))} prompts", flush=True)

    model = Router(make_encoder(options, pieces), len(pairs)).to(device)
    if options.distil_epochs and not options.pretrained:
        distil(model, tokenizer, prompts, options, device)

    late = sorted(held)
    part = Labels([labels.rows[i] for i in late], pairs, references, options.unmeasured, offered)
    judge = Judge(part, pairs, models, options.reference, references)
    fine_tune(model, labels, ids, held, judge, options, device)

    logits = predict(model, [ids[i] for i in late], options, device)
    calibration = calibrate(logits, labels.match[late], labels.measured[late])
    write_bundle(options.out, model, spm, models, pairs, calibration, options)

    report = {}
    val = Labels(val_rows, pairs, references, 0, offered)
    scale, bias = np.array(calibration).T
    predicted = sigmoid(predict(model, [tokenizer(row.prompt) for row in val.rows], options, device) * scale + bias)
    for task in ["all", *sorted({row.task for row in val.rows})]:
        keep = [i for i, row in enumerate(val.rows) if task in ("all", row.task)]
        part = Labels([val.rows[i] for i in keep], pairs, references, 0, offered)
        report[task] = {"rows": len(keep), **Judge(part, pairs, models, options.reference, references).report(predicted[keep]),
                        "calibration_error": round(expected_calibration_error(
                            predicted[keep][part.measured], part.match[part.measured]), 4)}
        print(task, report[task])
    bundle_io.write_json(os.path.join(options.work, "report.json"), report)


def main(arguments):
    options = parse(arguments)
    try:
        run(options)
    except (BundleError, DataError, OSError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
