"""Heads over an encoder that no longer moves: BEST-Route's soft cross-entropy, solved rather than descended.

One head is a logistic regression of the match probability on the pooled state. With a few hundred rows
to a task the question is not how to minimise but how much to shrink, so rows are cross-fitted: what a row's
prompt is given for calibration and for choosing the penalty comes from heads that never saw its label.
"""

import re

import numpy as np

from routing_data import sigmoid

LAST_SENTENCE = re.compile(r"[^.!?\n]*[.!?]?\s*$")
GROUP_CHARACTERS_MIN = 20


def group_of(prompt):
    """Prompts that differ in their last sentence alone share a story, and with it their difficulty."""
    story = prompt[: LAST_SENTENCE.search(prompt.rstrip()).start()].strip()
    return story if len(story) >= GROUP_CHARACTERS_MIN else prompt


def assign_folds(rows, folds, seed):
    """A fold of each row: groups stay together, and each task is spread evenly. [rows]"""
    out = np.zeros(len(rows), dtype=int)
    for task in sorted({row.task for row in rows}):
        members = {}
        for i, row in enumerate(rows):
            if row.task == task:
                members.setdefault(group_of(row.prompt), []).append(i)
        order = sorted(members, key=lambda group: rows[members[group][0]].share(seed))
        for at, group in enumerate(order):
            out[members[group]] = at % folds
    return out


class Heads:
    """coefficients [width, heads] and biases [heads] of standardised features."""

    def __init__(self, features, match, weight, penalties):
        """features [rows, width]; match, weight [rows, heads];
        penalties [heads] of standardised features' coefficients."""
        self.mean = features.mean(0)
        self.spread = np.where(features.std(0) > 1e-6, features.std(0), 1)
        x = np.hstack([(features - self.mean) / self.spread, np.ones((len(features), 1))])
        self.coefficients = np.zeros((features.shape[1], match.shape[1]))
        self.biases = np.zeros(match.shape[1])
        for head in range(match.shape[1]):
            rows = weight[:, head] > 0
            ridge = np.append(np.full(features.shape[1], float(penalties[head])), 1e-3)
            solution = newton(x[rows], match[rows, head].astype(float), weight[rows, head].astype(float),
                              ridge)
            self.coefficients[:, head], self.biases[head] = solution[:-1], solution[-1]

    def logits(self, features):
        return (features - self.mean) / self.spread @ self.coefficients + self.biases

    def folded(self):
        """The same heads on features as they are: (matrix, biases)
        with logits = features @ matrix + biases."""
        matrix = self.coefficients / self.spread[:, None]
        return matrix, self.biases - self.mean @ matrix


def loss(x, y, w, ridge, centre, b):
    z = x @ b
    return (w * (np.logaddexp(0, z) - y * z)).sum() + (ridge * (b - centre) ** 2).sum() / 2


def newton(x, y, w, ridge, centre=0.0, steps=50):
    """argmin over b of the weighted soft cross-entropy of sigmoid(x b) against y,
    plus ridge (b - centre)^2 / 2."""
    b = np.zeros(x.shape[1]) + centre
    value = loss(x, y, w, ridge, centre, b)
    for _ in range(steps):
        p = sigmoid(x @ b)
        gradient = x.T @ (w * (p - y)) + ridge * (b - centre)
        step = np.linalg.solve(x.T @ (x * (w * p * (1 - p))[:, None]) + np.diag(ridge), gradient)
        size = 1.0
        while (after := loss(x, y, w, ridge, centre, b - size * step)) > value and size > 1e-4:
            size /= 2  # where the sigmoid is flat a whole step overshoots
        b, value = b - size * step, min(after, value)
        if np.abs(step).max() < 1e-7:
            break
    return b


def cross_fit(features, match, weight, penalties, fold):
    """Log odds of each row from heads fitted without its fold; rows of fold -1 only ever train.
    [rows, heads]"""
    out = np.full(match.shape, np.nan)
    for k in range(fold.max() + 1):
        out[fold == k] = Heads(features[fold != k], match[fold != k], weight[fold != k],
                               penalties).logits(features[fold == k])
    return out


def cross_entropy(logits, match, weight):
    """Summed over rows. [heads]"""
    return (weight * (np.logaddexp(0, logits) - match * logits)).sum(0)


def temperature(logits, match, weight):
    """One scale of the log odds for all heads, by the soft cross-entropy; no bias.

    For heads that were solved: their means are right on the rows they were solved on, and a ridge chosen on
    left-out rows leaves little to scale. A scale and a bias for each head follow the chance of which stories
    were left out, and cost more decisions than they mend.
    """
    known = weight > 0
    (scale,) = newton(logits[known][:, None].astype(float), match[known].astype(float),
                      weight[known].astype(float),
                      np.array([100.0]), np.array([1.0]))
    return max(float(scale), 0.05)


def calibrate(logits, match, weight):
    """Per head scale and bias of the log odds, by the soft cross-entropy: for heads that were descended.

    A quadratic prior of ten rows' worth pulls to (1, 0): a head with few rows stays as it was trained.
    """
    out = []
    for head in range(logits.shape[1]):
        x = np.stack([logits[:, head], np.ones(len(logits))], axis=1).astype(float)
        scale, bias = newton(x, match[:, head].astype(float), weight[:, head].astype(float),
                             np.array([10.0, 1.0]),
                             np.array([1.0, 0.0]))
        out.append((max(float(scale), 0.05), float(bias)))
    return out
