#!/usr/bin/env python3
"""Trains a router on measured answers and writes it as a bundle.

    python3 weights/train.py --data gsm8k.jsonl.gz --data humaneval.jsonl.gz --prices prices.json \\
        --model MODEL --model MODEL --reference gpt-4 --out bundles/mine
    ... --folds 10 --scores scores.jsonl              and what each row is given by heads that never saw it
    ... --pretrained deberta-v3-small/ --spm deberta-v3-small/spm.model      the full 44M recipe

Network and loss are BEST-Route's: Hugging Face's DebertaV2Model, a 2-way head per candidate on the state of
<|source|>, soft match probabilities as labels, cross-entropy. Two ways lead there:

    from scratch   read -> tokenizer -> distil -> solve heads on the encoder as it is -> calibrate -> bundle
    pretrained     read -> fine-tune the whole network, stop early -> calibrate -> bundle

From scratch the encoder learns without labels what can be counted in a prompt, and where the prompt lies for
a teacher if there is one; labels move the heads alone.
A few hundred labels to a task would bend an encoder to their noise.

Rows: split `train` trains; what it is calibrated on, and what chooses the penalty or stops the epochs, are
its rows left out of a fold, or a share held back. `val` is only reported at the end, and `test` is never
read. Every stage leaves a checkpoint in --work; --resume goes on from the last one. Same seed, same machine,
same threads: same weights.

Needs weights/requirements.txt.
"""

import argparse
import json
import math
import os
import random
import shutil
import sys

import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

import bundle_io
from bundle_io import BundleError
from heads import Heads, assign_folds, calibrate, cross_entropy, cross_fit, temperature
from judging import Judge, expected_calibration_error
from network import (Router, Stage, Tokenizer, batches, make_encoder, pad, pooled_states, predict,
                     teacher_embeddings, train_tokenizer)
from routing_data import DataError, Labels, read_rows, sigmoid, write_scores
from surface import SurfaceTargets, recombined

UNKNOWN_LOG_ODDS = 4.0  # taken from a pair on a task that its model was never measured on


def task_weights(tasks):
    """A task of a hundred rows would drown among thousands: the square root lies between rows and tasks."""
    counts = {task: tasks.count(task) for task in set(tasks)}
    weights = np.array([1 / math.sqrt(counts[task]) for task in tasks])
    return weights / weights.mean()


class Lesson:
    """What the encoder is taught before any label: targets [prompts, width],
    the first of them surface counts."""

    def __init__(self, prompts, tasks, own_tasks, options):
        unique = dict(sorted(zip(prompts, tasks)))
        self.own_tasks = own_tasks = [task for task in own_tasks if task in unique.values()]
        surface = SurfaceTargets(list(unique), list(unique.values()), own_tasks)
        self.prompts, self.tasks = recombined(unique, unique.values(), own_tasks, options.recombined,
                                              options.seed)
        targets = surface(self.prompts, self.tasks)
        self.is_task = surface.offsets()
        self.scale = list(np.where(self.is_task, 10, 1) * 0.5 / targets.shape[1])
        if options.teacher:
            cache = os.path.join(options.work, "teacher.npy")
            if not (options.resume and os.path.exists(cache)):
                np.save(cache, teacher_embeddings(options.teacher, self.prompts))
            embedding = np.load(cache)
            targets = np.hstack([targets, (embedding - embedding.mean(0)) / embedding.std()])
            self.is_task = np.append(self.is_task, np.zeros(embedding.shape[1], bool))
            self.scale += [0.5 / embedding.shape[1]] * embedding.shape[1]
        self.spread = np.where(targets.std(0) > 1e-6, targets.std(0), 1)
        self.targets = (targets / self.spread).astype(np.float32)


def distil(model, tokenizer, lesson, options, device):
    """Teaches the encoder its lesson; returns the linear map from pooled states to the targets."""
    ids = [tokenizer(prompt) for prompt in lesson.prompts]
    targets = torch.tensor(lesson.targets, device=device)
    scale = torch.tensor(lesson.scale, dtype=torch.float32, device=device)
    weights = torch.tensor(task_weights(lesson.tasks), dtype=torch.float32, device=device)
    projection = torch.nn.Linear(model.pretrained_model.config.hidden_size, targets.shape[1]).to(device)
    steps = len(batches(ids, options.batch_tokens, random.Random(options.seed)))
    stage = Stage("distil", [model.pretrained_model, projection], options, options.distil_rate,
                  options.distil_epochs, steps)
    model.train()
    while stage.epoch < options.distil_epochs:
        shuffle = random.Random(options.seed * 1000 + stage.epoch)
        total = 0.0
        bar = tqdm(batches(ids, options.batch_tokens, shuffle), desc=f"distil {stage.epoch + 1}")
        for count, group in enumerate(bar, 1):
            inputs, mask = pad([ids[i] for i in group], device)
            error = (projection(model.pooled(inputs, mask)) - targets[group]) ** 2
            loss = ((error * scale).sum(1) * weights[group]).mean()
            stage.step(loss)
            total += loss.item()
            bar.set_postfix(loss=f"{total / count:.4f}")
        stage.epoch += 1
        stage.save()
    return projection


def fine_tune(model, labels, ids, held, judge, options, device):
    """Soft cross-entropy; keeps the epoch that is best on the held-back rows, by decisions and by loss."""
    match = torch.tensor(labels.match, device=device)
    weight = torch.tensor(labels.weight, device=device)
    weight *= torch.tensor(task_weights([row.task for row in labels.rows]), dtype=torch.float32,
                           device=device)[:, None]
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
        print(f"epoch {stage.epoch}: held-back loss {entropy:.4f}, {judge.report(sigmoid(logits))}, score "
              f"{score:.5f}",
              flush=True)
        since += 1
        if stage.best is None or score > stage.best:
            stage.best, since = score, 0
            stage.best_state = {name: value.detach().cpu().clone()
                                for name, value in mean_model.module.state_dict().items()}
        stage.save()
    model.load_state_dict(stage.best_state)


class Solver:
    """Heads on an encoder that is not moved any more: on what its states tell of the lesson.

    A head is solved on the rows where its pair was measured. Where its model was never measured on a task,
    nothing is promised: what tells that task lowers the head's log odds.
    """

    def __init__(self, model, projection, lesson, labels, tokenizer, options, device):
        self.model, self.tokenizer, self.options, self.device = model, tokenizer, options, device
        self.projection = projection.weight.detach().cpu().numpy().T.astype(np.float64)  # [width, features]
        self.offset = projection.bias.detach().cpu().numpy().astype(np.float64)
        tasks = np.array([row.task for row in labels.rows])
        # [tasks, heads]
        unknown = np.array([~labels.measured[tasks == task].any(0) for task in lesson.own_tasks])
        self.lower = np.zeros((len(self.offset), unknown.shape[1]))  # [features, heads]
        self.lower[lesson.is_task] = UNKNOWN_LOG_ODDS * unknown * lesson.spread[lesson.is_task][:, None]

    def features(self, rows):
        ids = [self.tokenizer(row.prompt) for row in rows]
        return pooled_states(self.model, ids, self.options, self.device) @ self.projection + self.offset

    def left_out(self, features, labels, fold, penalties):
        """Log odds of rows by heads that were solved without their fold. [rows, heads]"""
        return cross_fit(features, labels.match, labels.measured, penalties, fold) - features @ self.lower

    def choose(self, features, labels, fold, pairs):
        """Per model the penalty of least cross-entropy on rows left out of their fold. [heads]"""
        own = labels.measured & labels.known[:, None]
        def left_out_loss(penalty):
            fitted = cross_fit(features, labels.match, labels.measured, [penalty] * len(pairs), fold)
            return cross_entropy(fitted, labels.match, own)

        entropy = np.array([left_out_loss(penalty) for penalty in self.options.penalty])  # [penalties, heads]
        out = np.zeros(len(pairs))
        for name in dict.fromkeys(name for name, _ in pairs):
            heads = [index for index, pair in enumerate(pairs) if pair[0] == name]
            sums = entropy[:, heads].sum(1)
            out[heads] = self.options.penalty[sums.argmin()]
            print(f"{name}: penalty {out[heads[0]]:g}, left-out loss {sums.min() / own[:, heads].sum():.4f}",
                  flush=True)
        return out

    def install(self, features, labels, penalties):
        """Writes solved heads into the network: a 2-way head's log odds are z0 - z1."""
        matrix, biases = Heads(features, labels.match, labels.measured, penalties).folded()
        matrix = matrix - self.lower
        matrix, biases = self.projection @ matrix, biases + self.offset @ matrix
        with torch.no_grad():
            for index, head in enumerate(self.model.single_heads):
                half = torch.tensor(matrix[:, index] / 2, dtype=torch.float32)
                head[1].weight.copy_(torch.stack([half, -half]))
                head[1].bias.copy_(torch.tensor([biases[index] / 2, -biases[index] / 2]))


def cross_validate(solver, labels, penalties, options):
    """What each row is given by heads and a calibration that never saw it. [rows, heads]"""
    fold = assign_folds(labels.rows, options.folds, options.seed)
    logits = solver.left_out(solver.features(labels.rows), labels, fold, penalties)
    own = labels.measured & labels.known[:, None]
    out = np.zeros_like(logits)
    for k in range(options.folds):
        seen = fold != k
        out[~seen] = sigmoid(logits[~seen] * temperature(logits[seen], labels.match[seen], own[seen]))
    return out


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
    kept = ("model_type hidden_size num_hidden_layers num_attention_heads intermediate_size hidden_act "
            "vocab_size max_position_embeddings type_vocab_size layer_norm_eps relative_attention "
            "position_buckets max_relative_positions pos_att_type share_att_key norm_rel_ebd "
            "position_biased_input pad_token_id").split()
    config = {key: config[key] for key in kept if key in config}
    bundle_io.write_json(os.path.join(out, "config.json"), config)
    bundle_io.write_json(os.path.join(out, "added_tokens.json"),
                         {bundle_io.MASK_TOKEN: pieces, bundle_io.SOURCE_TOKEN: pieces + 1})
    candidates = [{"model": name, "n": n, "head": head,
                   "calibration": {"scale": round(calibration[head][0], 6),
                                   "bias": round(calibration[head][1], 6)}}
                  for head, (name, n) in enumerate(pairs)]
    bundle_io.write_json(os.path.join(out, "router.json"), {
        "format": "bestroute-bundle/1", "name": options.name, "max_tokens": options.max_tokens,
        "source_prefix": bundle_io.SOURCE_TOKEN, "pool": "source_prefix", "models": models,
        "candidates": candidates + [{"model": options.reference, "n": 1, "reference": True}],
        "policy": {"kind": "threshold", "threshold": options.threshold},
    })


def parse(arguments):
    parser = argparse.ArgumentParser(description="Trains a router on measured answers and writes a bundle.")
    add = parser.add_argument
    add("--data", action="append", required=True, help="records, .jsonl or .jsonl.gz; may be repeated")
    add("--extra-data", action="append", default=[],
        help="records that train only, whatever their split; their "
        "reference may be another model")
    add("--distil-data", action="append", default=[],
        help="records of which only the prompts of split train are used")
    add("--prices", required=True, help="models.NAME.{input,output}_usd_per_mtok")
    add("--model", action="append", required=True,
        help="a model to route to, NAME[:SAMPLES][@TASK[,TASK...]]; "
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
    add("--unmeasured", type=float, default=0.2,
        help="--epochs: weight of label 0 for models never measured on a task")
    add("--held-back", type=float, default=0.15,
        help="share of the training rows for stopping and calibration")
    add("--distil-epochs", type=int, default=10)
    add("--distil-rate", type=float, default=1e-3)
    add("--recombined", type=int, default=500,
        help="prompts that a task has at least when the encoder is taught, by "
        "joining beginnings and ends")
    add("--penalty", type=float, action="append",
        help="of a head's coefficients; several: each model takes the one "
        "of least loss on rows left out of ten folds; default 3, 10, 30 ... 3000")
    add("--folds", type=int, default=0, help="with --scores: cross-validation over train and val")
    add("--scores",
        help="file of the qualities that --folds gives each record, for `bestroute eval --scores`")
    add("--epochs", type=int,
        help="of fine-tuning the whole network; default 12 with --pretrained, else 0: heads alone")
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
    if options.epochs is None:
        options.epochs = 12 if options.pretrained else 0
    if options.pretrained:
        options.distil_epochs = 0
    if not options.epochs and not options.distil_epochs:
        parser.error("nothing trains the encoder: --epochs or --distil-epochs")
    if (bool(options.folds) != bool(options.scores) or (options.folds and options.epochs)
            or options.folds == 1):
        parser.error("--folds N (2 or more) and --scores FILE go together, without --epochs")
    options.penalty = options.penalty or [3, 10, 30, 100, 300, 1000, 3000]
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


def by_epochs(model, labels, ids, judge_of, options, device):
    """Fine-tunes the whole network, stopped and calibrated by a share of the rows held back;
    the calibration."""
    held = {i for i, row in enumerate(labels.rows)
            if labels.known[i] and row.share(options.seed) < options.held_back}
    late = sorted(held)
    print(f"{len(ids) - len(held)} rows to train, {len(held)} held back", flush=True)
    fine_tune(model, labels, ids, held, judge_of([labels.rows[i] for i in late]), options, device)
    logits = predict(model, [ids[i] for i in late], options, device)
    return calibrate(logits, labels.match[late], labels.measured[late])


def by_solving(solver, labels, pairs, judge, options):
    """Solves the heads with the best penalties; the calibration, by rows left out of a fold,
    and the penalties."""
    features = solver.features(labels.rows)
    fold = assign_folds(labels.rows, 10, options.seed)
    penalties = solver.choose(features, labels, fold, pairs)
    logits = solver.left_out(features, labels, fold, penalties)
    print(f"rows left out: {judge.report(sigmoid(logits))}", flush=True)
    solver.install(features, labels, penalties)
    scale = temperature(logits, labels.match, labels.measured & labels.known[:, None])
    return [(scale, 0.0)] * len(pairs), penalties


class Inputs:
    """Rows to train on and to report, and the prompts to teach,
    with nothing of a reported prompt among the others."""

    def __init__(self, options):
        main = [row for path in options.data for row in read_rows(path)]
        self.val = [row for row in main if row.split == "val"]
        self.train = [row for row in main if row.split == "train"]
        self.tasks = sorted({row.task for row in main})
        own = {row.prompt for row in self.train + self.val}
        self.extra = [row for path in options.extra_data for row in read_rows(path)
                      if row.split != "test" and row.prompt not in own]
        val = {row.prompt for row in self.val}
        more = [row for path in options.distil_data for row in read_rows(path) if row.split != "val"]
        self.taught = [row for row in self.train + self.extra + more if row.prompt not in val]


def run(options):
    os.makedirs(options.work, exist_ok=True)
    random.seed(options.seed)
    torch.manual_seed(options.seed)
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    references = {options.reference, *options.same_reference}
    names, pairs, offered = read_models(options)
    data = Inputs(options)
    prompts = [row.prompt for row in data.taught]

    spm = options.spm
    if spm is None:
        spm = os.path.join(options.work, "spm.model")
        if not (options.resume and os.path.exists(spm)):
            train_tokenizer(prompts, options.pieces, spm)
    tokenizer = Tokenizer(spm, options.max_tokens)
    pieces = bundle_io.spm_piece_count(spm)

    def make_labels(rows, unmeasured=options.unmeasured):
        return Labels(rows, pairs, references, unmeasured, offered)

    labels = make_labels(data.train + data.extra)
    models = price_models(labels.rows, names, options.reference, references, options.prices)
    print(f"{len(labels.rows)} rows to train, {len(data.val)} to report, {len(pairs)} pairs, {pieces} "
          f"pieces, {len(set(prompts))} prompts", flush=True)

    def judge_of(rows):
        return Judge(make_labels(rows, 0), pairs, models, options.reference, references)

    model = Router(make_encoder(options, pieces), len(pairs)).to(device)
    if options.distil_epochs:
        lesson = Lesson(prompts, [row.task for row in data.taught], data.tasks, options)
        projection = distil(model, tokenizer, lesson, options, device)
    if options.epochs:
        ids = [tokenizer(row.prompt) for row in labels.rows]
        calibration = by_epochs(model, labels, ids, judge_of, options, device)
    else:
        solver = Solver(model, projection, lesson, labels, tokenizer, options, device)
        calibration, penalties = by_solving(solver, labels, pairs, judge_of(labels.rows), options)
    write_bundle(options.out, model, spm, models, pairs, calibration, options)

    def report_on(rows, predicted):
        out = {}
        for task in ["all", *sorted({row.task for row in rows})]:
            keep = [i for i, row in enumerate(rows) if task in ("all", row.task)]
            part = make_labels([rows[i] for i in keep], 0)
            out[task] = {"rows": len(keep), **judge_of(part.rows).report(predicted[keep]),
                         "calibration_error": round(expected_calibration_error(
                             predicted[keep][part.measured], part.match[part.measured]), 4)}
            print(task, out[task], flush=True)
        return out

    report = {}
    if options.folds:
        rows = data.train + data.val
        predicted = cross_validate(solver, make_labels(rows + data.extra), penalties, options)[: len(rows)]
        write_scores(options.scores, rows, predicted)
        print(f"{options.folds} folds over train and val:")
        report["folds"] = report_on(rows, predicted)
    scale, bias = np.array(calibration).T
    logits = predict(model, [tokenizer(row.prompt) for row in data.val], options, device)
    print("val:")
    report["val"] = report_on(data.val, sigmoid(logits * scale + bias))
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
