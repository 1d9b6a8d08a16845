"""What can be counted in a prompt, and how that is taught to an encoder before it sees any label.

Within a task, how hard a prompt is shows more in its counts (words, numbers, sentences) than in a sentence
embedding, and not linearly. A head is linear in the pooled state, so the state itself has to hold the counts
of each task, and steps of them:

    targets(prompt) = for each task: [is it this task, count z, count above quantile 1/5, 2/5, 3/5, 4/5 ...]

with zeros in the blocks of other tasks, and a block for every prompt of whatever task.
"""

import random
import re

import numpy as np

WORDS = re.compile(r"\b(each|every|per|twice|half|times|more|less|than|if|left|remaining|total)\b",
                   re.IGNORECASE)
NUMBERS = re.compile(r"\d[\d,.]*")
QUANTILES = (0.2, 0.4, 0.6, 0.8)
CLIP = 3.0  # standard deviations: one endless prompt must not bend the rest


def surface(prompt):
    """Counts of one prompt. [14]"""
    words = prompt.split()
    numbers = NUMBERS.findall(prompt)
    return [
        np.log1p(len(prompt)), np.log1p(len(words)), len(words) / 50, len(numbers) / 5,
        np.log1p(len(numbers)), len(re.findall(r"[.?!](\s|$)", prompt)) / 4, prompt.count("%"),
        prompt.count("$") / 3, len(WORDS.findall(prompt)) / 5, prompt.count("\n") / 10,
        sum("/" in word for word in words), float("def " in prompt),
        sum(len(number) for number in numbers) / 10,
        sum("." in number.rstrip(".,") for number in numbers) / 2,
    ]


class Block:
    """Centre, spread and steps of the counts over one set of prompts."""

    def __init__(self, counts):
        self.mean, self.spread = counts.mean(0), counts.std(0)
        self.edges = np.quantile(counts, QUANTILES, axis=0)
        self.shares = (counts[None] > self.edges[:, None]).mean(1)

    def __call__(self, counts):
        z = np.clip((counts - self.mean) / np.where(self.spread > 1e-9, self.spread, 1), -CLIP, CLIP)
        steps = (counts[:, None] > self.edges) - self.shares
        return np.hstack([np.ones((len(counts), 1)), z, steps.reshape(len(counts), -1)])


class SurfaceTargets:
    """The targets above; `tasks` are those that get a block of their own."""

    def __init__(self, prompts, prompt_tasks, tasks):
        counts = np.array([surface(prompt) for prompt in prompts])
        prompt_tasks = np.array(prompt_tasks)
        self.tasks = list(tasks)
        self.common = Block(counts)
        self.own = [Block(counts[prompt_tasks == task]) for task in self.tasks]

    def __call__(self, prompts, prompt_tasks):
        """[prompts, width] float32"""
        counts = np.array([surface(prompt) for prompt in prompts])
        prompt_tasks = np.array(prompt_tasks)
        blocks = [self.common(counts)[:, 1:]]
        for task, block in zip(self.tasks, self.own):
            blocks.append(block(counts) * (prompt_tasks == task)[:, None])
        return np.hstack(blocks).astype(np.float32)

    def offsets(self):
        """Which targets say no more than the task. [width] bool"""
        width = len(surface("x")) * (1 + len(QUANTILES))
        return np.concatenate([np.zeros(width, bool), np.tile(np.arange(width + 1) == 0, len(self.tasks))])


SENTENCES = re.compile(r"[^.!?\n]*[.!?\n]+\s*|[^.!?\n]+$")


def recombined(prompts, prompt_tasks, tasks, wanted, seed):
    """(prompts, tasks) with more of each task that has fewer than `wanted`: the beginning of one,
    the end of another.

    Targets follow from the text alone, so that any text teaches to count;
    a few dozen stories would be learned by heart.
    """
    generator = random.Random(seed)
    prompts, prompt_tasks = list(prompts), list(prompt_tasks)
    for task in tasks:
        own = [SENTENCES.findall(prompt) for prompt, its in zip(prompts, prompt_tasks) if its == task]
        for _ in range(wanted - len(own) if own else 0):
            first, last = generator.choice(own), generator.choice(own)
            head = first[: generator.randint(1, len(first))]
            tail = last[-generator.randint(1, min(3, len(last))):]
            prompts.append("".join(head + tail))
            prompt_tasks.append(task)
    return prompts, prompt_tasks
