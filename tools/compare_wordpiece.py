#!/usr/bin/env python3
"""Holds the WordPiece tokenizer against Hugging Face's BertTokenizerFast, id by id;
--write stores a few of the answers.

    python3 tools/compare_wordpiece.py build/dev/tests/tokenizer_dump [--write tests/data]

The vocabulary is made here: characters and pieces of the texts, both inside and at the head of words, short
of some so that [UNK] occurs. Texts: the corpus, lines about edges, a fifth of all characters between two
letters, and random mixtures. --write stores wordpiece_vocab.txt and wordpiece_golden.jsonl for
test_wordpiece.c. Needs transformers.
"""

import argparse
import json
import pathlib
import random
import re
import struct
import subprocess
import sys
import tempfile

from transformers import BertTokenizerFast

SOURCE = pathlib.Path(__file__).parent.parent
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
EDGES = [
    "", " ", "\t\n\r", "Hello, World!", "don't stop...believing", "Ünïcödé ÀÉÎ", "naïve café", "ＦＵＬＬ width",
    "日本語とEnglish混じり", "한국어 문장", "x" * 100, "x" * 101, "x" * 100 + ",y", "a\u0000b\ufffdc\u200bd\u00ade",
    "a\u00a0b\u2003c\u3000d\u2028e", "İstanbul ΣΑΣ ß ẞ ǅ", "e\u0301\u0323 \u0301x",
    "1,000.50$ + <tag> `code` ^_^ ~", "\u037e;·\u0387", "hello\u0085world\x0b\x0c!", "emoji 😀👍🏽 family",
    "\U0001d165 \u302e\uac00", "ﬁne ﬂow", "豈更", "\U00020000\U0002a6d6", "don\u2019t \u2014 dash\u2026",
    "i\u0307\u0323", "ŉ ǰ ΐ",
]


def make_vocab(texts):
    characters = sorted({c for text in texts for c in text.lower() + text if not c.isspace()})[:1500]
    words = sorted({word for text in texts for word in re.findall(r"\w+", text.lower() + " " + text)})
    pieces = set()
    for word in words:
        for size in (2, 3, 5):
            pieces.update((word[:size], "##" + word[size : 2 * size], "##" + word[-size:]))
    keep = [c for c in characters if ord(c) % 7] + ["##" + c for c in characters if ord(c) % 5]
    return SPECIAL + sorted(set(keep) | {piece for piece in pieces if piece not in ("", "##")})


def encode(program, vocab, texts, case):
    data = b"".join(struct.pack("<I", len(text)) + text for text in (text.encode() for text in texts))
    answer = subprocess.run([program, vocab, f"--{case}"], input=data, capture_output=True, check=True).stdout
    at = 0
    for _ in texts:
        (count,) = struct.unpack_from("<i", answer, at)
        yield list(struct.unpack_from(f"<{count}i", answer, at + 4))
        at += 4 + 4 * count


def hugging_face(vocab, texts, lower):
    lines = pathlib.Path(vocab).read_text(encoding="utf-8").splitlines()
    tokenizer = BertTokenizerFast(vocab={line: i for i, line in enumerate(lines)}, do_lower_case=lower)
    for text in texts:
        yield tokenizer(text, add_special_tokens=False)["input_ids"]


def all_texts():
    corpus = [line for path in sorted((SOURCE / "weights" / "corpus").iterdir())
              for line in path.read_text(encoding="utf-8").splitlines()]
    pool = "abcXYZ éÉñ,.!中文가ßΣσİ\u0301\u0323\t😀0١- "
    rng = random.Random(5)
    mixed = ["".join(rng.choice(pool) for _ in range(rng.randrange(1, 140))) for _ in range(3000)]
    return corpus, EDGES, mixed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--write")
    options = parser.parse_args()
    corpus, edges, mixed = all_texts()
    single = [f"a{chr(code)}b {chr(code)}" for code in range(0x110000) if code % 5 == 0
              and not 0xD800 <= code < 0xE000]
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/vocab.txt"
        vocab = make_vocab(corpus + edges + mixed[:50])
        pathlib.Path(path).write_text("\n".join(vocab) + "\n", encoding="utf-8")
        for case in ("uncased", "cased"):
            for name, texts in (("corpus", corpus), ("edges", edges), ("mixed", mixed),
                                ("characters", single)):
                pairs = zip(texts, encode(options.program, path, texts, case),
                            hugging_face(path, texts, case == "uncased"))
                bad = [(text, ours, theirs) for text, ours, theirs in pairs if ours != theirs]
                print(f"{case}, {name}: {len(texts)} texts, {len(bad)} differ")
                for text, ours, theirs in bad[:5]:
                    print(f"  {text!r:.80}: {ours} against {theirs}")
                wrong += len(bad)
    if options.write:
        write(pathlib.Path(options.write), corpus, edges, mixed)
    return wrong != 0


def write(folder, corpus, edges, mixed):
    texts = edges + mixed[:30] + [line for line in corpus if line][:30]
    vocab = make_vocab(texts)
    path = folder / "wordpiece_vocab.txt"
    path.write_text("\n".join(vocab) + "\n", encoding="utf-8")
    both = zip(texts, hugging_face(str(path), texts, True), hugging_face(str(path), texts, False))
    with open(folder / "wordpiece_golden.jsonl", "w", encoding="utf-8") as file:
        for text, uncased, cased in both:
            file.write(json.dumps({"text": text, "uncased": uncased, "cased": cased}) + "\n")


if __name__ == "__main__":
    sys.exit(main())
