#!/usr/bin/env python3
"""Compares the tokenizer's ids with those of Hugging Face's fast DeBERTa-v3 tokenizer, text by text.

    python3 tools/compare_tokenizer.py --dump build/release/tests/tokenizer_dump --model .../spm.model
                                       [--data FOLDER ...] [--golden tests/data/tokenizer_golden.jsonl]

Needs transformers (4 or 5), sentencepiece and protobuf. The texts are 2,000 made here, always the same, and
with --data every string of at least one word in the .jsonl(.gz) files below FOLDER. Each is compared twice:
unseen characters as [UNK], which is the fast tokenizer as transformers 4 builds it, and as byte pieces, which
is the same tokenizer with byte_fallback on. --golden writes the expected ids' counts and hashes, which
tests/bundle/test_tokenizer.c checks without transformers.

The fast tokenizer cuts special tokens ("[CLS]", "[MASK]", ...) out of a text and its model would match the
spelling of a control piece; here text is only ever text. So the reference is built without added tokens and
its control pieces are respelled; "[SEP]" is replaced by a space before, as BEST-Route's trainer does.

transformers 5 has another class of the same name, DebertaV2Tokenizer, which ignores the model's character
map and gives other ids on about one real prompt in ten; it is not what BEST-Route's routers were trained
with and not what is compared here.
"""

import argparse
import glob
import gzip
import json
import os
import struct
import subprocess
import sys
import types


class Dice:
    """A generator that is the same in every version of Python (splitmix64)."""

    def __init__(self, seed):
        self.state = seed

    def below(self, count):
        self.state = (self.state + 0x9E3779B97F4A7C15) % 2**64
        z = self.state
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        return (z ^ z >> 31) % count

    def one(self, things):
        return things[self.below(len(things))]

    def join(self, things, count):
        return "".join(self.one(things) for _ in range(count))


def span(first, last):
    return [chr(code) for code in range(first, last + 1) if not 0xD800 <= code <= 0xDFFF]


SENTENCES = [
    "Prove that the square root of 2 is irrational.",
    "Écris une lettre d'excuse à ta grand-mère, s'il te plaît.",
    "Wie groß ist die Wahrscheinlichkeit, zwei Sechsen zu würfeln?",
    "¿Cuántos números primos hay entre 10 y 50?",
    "Напиши программу, которая сортирует список слов.",
    "Γράψε ένα ποίημα για τη θάλασσα.",
    "写一首关于秋天的诗，并解释它的含义。",
    "次の文章を英語に翻訳してください：「雨が降っています。」",
    "한국의 수도는 어디이며 인구는 얼마입니까?",
    "اكتب قصة قصيرة عن صياد وسمكة.",
    "כתוב מכתב תודה למורה שלך.",
    "भारत की राजधानी क्या है और क्यों?",
    "বাংলাদেশের জাতীয় ফুল কী?",
    "தமிழில் ஒரு கவிதை எழுதுங்கள்.",
    "ประเทศไทยมีกี่จังหวัด และจังหวัดใดใหญ่ที่สุด",
    "Viết một đoạn văn ngắn về mùa xuân ở Hà Nội.",
    "Türkiye'nin en büyük gölü hangisidir? İstanbul'a yakın mı?",
    "Napisz krótki wiersz o żółtej łódce i źdźble trawy.",
    "Hvað heitir stærsta eldfjall Íslands og hvenær gaus það síðast?",
    "გთხოვთ, დაწეროთ ამბავი მგზავრის შესახებ.",
    "Գրիր բանաստեղծություն լեռների մասին:",
    "የኢትዮጵያ ዋና ከተማ የት ነው?",
    "ລາວມີຈັກແຂວງ?",
    "តើរាជធានីកម្ពុជានៅឯណា?",
    "မြန်မာနိုင်ငံ၏ မြို့တော်ကား အဘယ်နည်း။",
    "ཁྱེད་ཀྱི་མིང་ལ་ག་རེ་ཟེར།",
    "def f(x):\n    return x**2 + 3*x - 1  # a comment\n",
    "SELECT name, COUNT(*) FROM t WHERE x >= 3 GROUP BY name;",
    "$$\\int_0^\\infty e^{-x^2}\\,dx = \\frac{\\sqrt{\\pi}}{2}$$",
    "https://example.org/a?b=c&d=%20e#f — see § 3.2, p. 47…",
    "A train leaves at 9:45 a.m.; it travels 120 km at 80 km/h. When does it arrive?",
    'He said: "It\'s 5 o\'clock—let\'s go!" (and left)',
]

ALPHABETS = {
    "ascii": span(0x20, 0x7E),
    "latin": span(0xA0, 0x24F),
    "ipa": span(0x250, 0x2FF),
    "greek": span(0x370, 0x3FF),
    "cyrillic": span(0x400, 0x52F),
    "armenian and hebrew": span(0x530, 0x5FF),
    "arabic": span(0x600, 0x6FF) + span(0x750, 0x77F),
    "syriac to samaritan": span(0x700, 0x85F),
    "indic": span(0x900, 0xDFF),
    "thai to tibetan": span(0xE00, 0xFFF),
    "burmese to cherokee": span(0x1000, 0x13FF),
    "hangul jamo": span(0x1100, 0x11FF) + span(0x3130, 0x318F) + span(0xA960, 0xA97C) + span(0xD7B0, 0xD7FB),
    "hangul": span(0xAC00, 0xAC80) + span(0xD000, 0xD7A3),
    "half width": span(0xFF00, 0xFFEF),
    "extended latin and greek": span(0x1E00, 0x1FFF),
    "punctuation and spaces": span(0x2000, 0x206F),
    "symbols": span(0x2070, 0x2BFF),
    "kana and cjk marks": span(0x3000, 0x312F),
    "enclosed and squared": span(0x3200, 0x33FF) + span(0x2460, 0x24FF) + span(0x1F100, 0x1F2FF),
    "ideographs": span(0x4E00, 0x4F00) + span(0x9F00, 0x9FFF) + span(0x20000, 0x20080),
    "compatibility ideographs": span(0xF900, 0xFAFF) + span(0x2F800, 0x2FA1D),
    "presentation forms": span(0xFB00, 0xFDFF) + span(0xFE70, 0xFEFC),
    "mathematical letters": span(0x1D400, 0x1D7FF),
    "old scripts": span(0x10000, 0x10100) + span(0x10300, 0x104FF) + span(0x12000, 0x12080),
    "emoji": span(0x1F300, 0x1F64F) + span(0x1F680, 0x1F6FF) + span(0x1F900, 0x1F9FF) + span(0x2600, 0x27BF),
    "private use": span(0xE000, 0xE040) + span(0xF0000, 0xF0010) + span(0x10FFF0, 0x10FFFD),
    "noncharacters": span(0xFDD0, 0xFDEF) + [chr(p << 16 | e) for p in range(17) for e in (0xFFFE, 0xFFFF)],
    "marks": (span(0x300, 0x36F) + span(0x483, 0x489) + span(0x20D0, 0x20F0) + span(0xFE00, 0xFE0F)
              + span(0xFE20, 0xFE2F)),
    "controls": (span(0x00, 0x1F) + span(0x7F, 0x9F) + span(0x200B, 0x200F) + span(0x202A, 0x202E)
                 + span(0x2060, 0x206F) + list("\u00ad\ufeff\u2028\u2029\u061c\u180e")),
    "white space": list(" \t\n\v\f\r\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000") + span(0x2000, 0x200A),
    "anything": None,
}
WORDS = sorted({word for sentence in SENTENCES for word in sentence.split()})
ZWJ, EMOJI_STYLE, TONE = "\u200d", "\ufe0f", "\U0001f3fd"
MARK = "\u2581"
EMOJI = [
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466",
    "\U0001f3f3\ufe0f\u200d\U0001f308",
    "\U0001f1e9\U0001f1ea\U0001f1eb\U0001f1f7",
    "\U0001f9d1\U0001f3fd\u200d\U0001f4bb",
    "1\ufe0f\u20e3",
    "\u2764\ufe0f\u200d\U0001f525",
    "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "\u00a9\ufe0f\u2122\u200d\u2122\u0301",
]
ODDITIES = [
    "", " ", "\n", "\0", "a\0b", MARK, MARK * 3, f"a{MARK}b", f" {MARK} a", "\u200b", "a\u200b", "\u200ba",
    "\u200b" * 5, "\ufeff", "\ufeffa", "\u00ad", "soft\u00adhyphen", "e\u0301", "e\u0301\u0301", "\u00e9",
    "\uff21\u0301", "\uff21\u0301\u0301", "\u2122\u0301", "\u00aa\u20d0", "\r\n", "a\r\nb", "a\n\n\nb",
    "\x85", "a\u2028b", "\u3000a\u3000", "a  b", "  a  ", "\u0344", "\u0340\u20d0", "\u0600a",
    "\u06001\u0301", "\u1100\u1161\u11a8", "\uac00\u11a8", "\uff76\uff9e", "\ufdfa", "\ufb01x",
    "\u1e9b\u0323", "\u0915\u094d\u0937", "\u0958\u0301", "\u0e33", "\u0eb3", "[SEP]", "a[SEP]b",
    "[SEP]a[SEP]", "[[SEP]]", "[SEP", "SEP]",
    "[sep]", "[CLS] a [MASK] b [PAD] c [UNK]", "<|source|>", "<s></s><unk><pad>", "<0x41>", "<0x0A>x",
    "a[SEP]\u0301", "\U0001f999\ua64a",
    "\U0010ffff", "\ufffd", "\uffff", "x" * 300, "\u0301" * 200, "ab" * 700 + " c", "\u4e2d" * 900,
    "\U0001f9d9" * 600,
]  # fmt: skip
LONG = [  # (unit, times): texts of 100,000 characters
    ("a", 100000), (" ", 100000), ("a ", 50000), ("The cat sat. ", 7693), ("\u0301", 100000),
        ("\u4e2d\u6587", 50000),
    ("\ufdfa", 100000), ("\U0001f9d9\u200d", 50000), ("\u1100\u1161", 50000), ("[SEP]x", 16667),
        ("\uff21\u0301", 50000), (MARK, 100000),
]  # fmt: skip


def random_text(dice, alphabets):
    chosen = [dice.one(alphabets) for _ in range(1 + dice.below(4))]
    parts = []
    for _ in range(1 + dice.below(24)):
        kind = dice.below(10)
        if kind == 0:
            parts.append(dice.one(WORDS))
        elif kind == 1:
            parts.append(dice.one([" ", "  ", " ", "\n", "\t", MARK, "\u3000", "\u200b", " " * 20]))
        elif kind == 2 and dice.below(4) == 0:
            parts.append(dice.one(EMOJI + ["[SEP]", ZWJ, EMOJI_STYLE, TONE]))
        else:
            alphabet = dice.one(chosen)
            if alphabet is None:
                code = dice.below(0x10F800)
                parts.append(chr(code if code < 0xD800 else code + 0x800))
            else:
                parts.append(dice.join(alphabet, 1 + dice.below(4)))
    return "".join(parts)


def texts():
    """2,000 pairs (unit, times)."""
    made = [(text, 1) for text in ODDITIES + SENTENCES + EMOJI] + LONG
    for name in ("controls", "white space"):
        made += [(f"a{c}b {c} c{c}", 1) for c in ALPHABETS[name]]
    dice = Dice(20)
    for sentence in SENTENCES:  # with a character or a mark dropped into it
        for name in ("marks", "controls", "white space", "emoji", "anything"):
            alphabet = ALPHABETS[name] or ALPHABETS["old scripts"]
            at = dice.below(len(sentence))
            made.append((sentence[:at] + dice.join(alphabet, 1 + dice.below(3)) + sentence[at:], 1))
    for length in range(60):  # stacks of marks on bases that the character map replaces
        base = dice.one("aA\u00e9\uff21\u00aa\u2122\u24b6\u3314\ufb01 1")
        made.append((base + dice.join(ALPHABETS["marks"], length), 1))
        made.append((dice.one(WORDS) + " " * length + dice.one(WORDS) + "\t" * dice.below(9), 1))
    for alphabet in ALPHABETS.values():
        if alphabet is not None:
            made += [(random_text(dice, [alphabet]), 1) for _ in range(20)]
    everything = list(ALPHABETS.values())
    while len(made) < 2000:
        made.append((random_text(dice, everything), 1))
    assert len(made) == 2000
    return made


def strings_in(value):
    if isinstance(value, str):
        if " " in value:
            yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from strings_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings_in(item)


def texts_in(folder):
    found = {}
    for path in sorted(glob.glob(os.path.join(folder, "**", "*.jsonl*"), recursive=True)):
        opener = gzip.open if path.endswith(".gz") else open
        with opener(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                found.update((text, None) for text in strings_in(json.loads(line)))
    return [text for text in found if len(text.encode()) <= 1 << 20]


def reference(model, byte_fallback):
    """Encodes like DebertaV2TokenizerFast of transformers 4, built by transformers' own converter."""
    import tokenizers
    from transformers.convert_slow_tokenizer import DebertaV2Converter

    slow = types.SimpleNamespace(
        vocab_file=model, do_lower_case=False, split_by_punct=False, add_prefix_space=True, legacy=True,
        convert_tokens_to_ids=lambda token: {"[CLS]": 1, "[SEP]": 2}[token],
    )  # fmt: skip
    converter = DebertaV2Converter(slow)
    parts = json.loads(converter.converted().to_str())
    parts["added_tokens"] = []
    parts["post_processor"] = None
    parts["model"]["byte_fallback"] = byte_fallback
    for at, piece in enumerate(converter.proto.pieces):
        if piece.type not in (1, 5, 6):  # normal, unused, byte
            parts["model"]["vocab"][at][0] = f"\0\0{at}\0"
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(parts))
    return lambda text: tokenizer.encode(text.replace("[SEP]", " "), add_special_tokens=False).ids


def ours(dump, model, byte_fallback, encoded):
    command = [dump, model] + (["--bytes"] if byte_fallback else [])
    frames = b"".join(struct.pack("<I", len(text)) + text for text in encoded)
    answer = subprocess.run(command, input=frames, stdout=subprocess.PIPE, check=True).stdout
    at = 0
    for _ in encoded:
        (count,) = struct.unpack_from("<i", answer, at)
        at += 4
        yield list(struct.unpack_from(f"<{count}i", answer, at))
        at += 4 * count
    assert at == len(answer)


def compare(dump, model, byte_fallback, plain, batch=20000):
    """The number of texts that differ; prints the first few."""
    encode = reference(model, byte_fallback)
    differ = 0
    for first in range(0, len(plain), batch):
        part = plain[first : first + batch]
        for text, got in zip(part, ours(dump, model, byte_fallback, [t.encode() for t in part])):
            wanted = encode(text)
            if got == wanted:
                continue
            differ += 1
            if differ <= 5:
                at = next((i for i, (a, b) in enumerate(zip(got, wanted)) if a != b),
                          min(len(got), len(wanted)))
                print(f"  differs from id {at} on: {got[at:at+6]} here, {wanted[at:at+6]} there: "
                      f"{ascii(text[:60])}")
    return differ


def fnv1a_bytes(content):
    value = 0xCBF29CE484222325
    for byte in content:
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return f"{value:016x}"


def fnv1a(ids):
    return fnv1a_bytes(struct.pack(f"<{len(ids)}i", *ids))


def write_golden(path, model, made):
    unknown, bytes_ = reference(model, False), reference(model, True)
    with open(model, "rb") as file:
        content = file.read()
    with open(path, "w", encoding="utf-8") as out:
        out.write(json.dumps({"model": [len(content), fnv1a_bytes(content)]}) + "\n")
        for unit, times in made:
            line = {"text": unit}
            if times != 1:
                line["times"] = times
            for key, encode in (("unknown", unknown), ("bytes", bytes_)):
                ids = encode(unit * times)
                line[key] = [len(ids), fnv1a(ids)]
            out.write(json.dumps(line, ensure_ascii=False) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True, help="spm.model")
    parser.add_argument("--dump", help="the tokenizer_dump program of a build")
    parser.add_argument("--data", action="append", default=[], help="a folder of .jsonl or .jsonl.gz files")
    parser.add_argument("--golden", help="write this file")
    options = parser.parse_args()

    made = texts()
    if options.golden:
        write_golden(options.golden, options.model, made)
        print(f"{options.golden}: {len(made)} texts")
    failed = False
    sets = [("made texts", [unit * times for unit, times in made])]
    sets += [(folder, texts_in(folder)) for folder in options.data]
    for name, plain in sets if options.dump else []:
        for byte_fallback in (False, True):
            differ = compare(options.dump, options.model, byte_fallback, plain)
            failed = failed or differ > 0
            unseen = "bytes" if byte_fallback else "[UNK]"
            print(f"{name}, unseen characters as {unseen}: {len(plain) - differ} of {len(plain)} equal")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
