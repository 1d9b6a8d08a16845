#!/usr/bin/env python3
"""Writes src/bundle/tokenizer/wordpiece_table.h:
what BERT's normalizer and pre-tokenizer do to each character.

    python3 tools/make_wordpiece_table.py > src/bundle/tokenizer/wordpiece_table.h         needs tokenizers

Every code point is given to Hugging Face's own BertNormalizer and BertPreTokenizer, so their Unicode data
is what the table holds. Hangul syllables decompose by arithmetic and are left out.
"""

import sys

from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

CASED = BertNormalizer(clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=False)
UNCASED = BertNormalizer(clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=True)
CUT = BertPreTokenizer()
MAPPED_MAX = 4


def hangul(code):
    """The jamo of a syllable, by the standard's arithmetic; None for other characters."""
    if not 0xAC00 <= code < 0xAC00 + 11172:
        return None
    index = code - 0xAC00
    jamo = [0x1100 + index // 588, 0x1161 + index % 588 // 28]
    return jamo + ([0x11A7 + index % 28] if index % 28 else [])


def kind_of(char):
    text = CASED.normalize_str(char)
    if text == "":
        return "DROPPED"
    if text == " ":
        return "SPACE"
    if len(text) == 3:
        return "IDEOGRAPH"
    if len(CUT.pre_tokenize_str("a" + char + "a")) == 3:
        return "PUNCTUATION"
    return "MARK" if UNCASED.normalize_str(char) == "" else None


def main():
    ranges = []
    mapped = []
    for code in range(0x110000):
        if 0xD800 <= code < 0xE000:
            continue
        char = chr(code)
        kind = kind_of(char)
        if kind and ranges and ranges[-1][1] == code - 1 and ranges[-1][2] == kind:
            ranges[-1][1] = code
        elif kind:
            ranges.append([code, code, kind])
        if kind in ("DROPPED", "SPACE", "MARK"):
            continue
        lower = [ord(c) for c in UNCASED.normalize_str(char).strip(" ")]
        if hangul(code):
            assert lower == hangul(code), hex(code)
        elif lower != [code]:
            assert 0 < len(lower) <= MAPPED_MAX, hex(code)
            mapped.append((code, lower))

    print("/* Made by tools/make_wordpiece_table.py: do not edit. */")
    print("/* clang-format off */")
    print(f"enum {{ MAPPED_MAX = {MAPPED_MAX} }};\n")
    print("static const wordpiece_range wordpiece_ranges[] = {")
    lines = [f"{{0x{first:x}, 0x{last:x}, {kind}}}," for first, last, kind in ranges]
    write(lines, 4)
    print("};\n\nstatic const struct { uint32_t code; uint32_t lower[MAPPED_MAX]; } wordpiece_lower[] = {")
    write([f"{{0x{code:x}, {{{', '.join(f'0x{c:x}' for c in lower)}}}}}," for code, lower in mapped], 5)
    print("};\n/* clang-format on */")


def write(items, each):
    for at in range(0, len(items), each):
        print("    " + " ".join(items[at : at + each]))


if __name__ == "__main__":
    sys.exit(main())
